"""verifyReceipt over HTTP: the client behind the port ``AppStore``, and what both clients make of an answer."""

from __future__ import annotations

import http.client
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeAlias

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.stores.apple.fields import is_integer
from receipt_actors.transport import messages
from receipt_actors.transport.messages import HttpRequest, HttpResponse, RequestFailed, Transport, wait_for

if TYPE_CHECKING:
    from receipt_actors.stores.apple.client.endpoints import Endpoint

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 1024 * 1024  #: after decompression; years of renewals come to some hundred kilobytes
MAX_EXCERPT_CHARACTERS = 200
MAX_RETRY_AFTER_SECONDS = 300.0  #: players wait: a garbled ``Retry-After`` must not silence us for hours
EXCERPT_BYTES = 4096  #: of an answer, looked at for an excerpt
MAX_GROWTH = 4.0  #: of the text, when it is parsed, as ``_growth`` estimates it; Apple's grow by a factor of 2

_ALWAYS_PARSED_BYTES = 64 * 1024
_VALUE_BYTES, _OBJECT_BYTES = 64, 256  # what CPython needs, about

# What a server may echo of a receipt: base64 or a signed transaction, URL-encoded or with JSON's escapes, cut anywhere.
_ENCODED_DATA = re.compile(r"[A-Za-z0-9+/=_.%\\-]{24,}")


Answer: TypeAlias = Mapping[str, object] | Exception
Read: TypeAlias = Callable[[HttpResponse | RequestFailed], Mapping[str, object] | AppStoreUnavailable]

_HEADERS = ("Content-Type: application/json", "User-Agent: receipt-actors", "Accept: */*")

# Base64 and signed transactions consist of these, and so stand for themselves in JSON.
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_."


class Client:
    """What both clients share: requests on either transport, and answers that are read where they arrive."""

    def __init__(self, transport: Transport, endpoints: Mapping[Environment, Endpoint]) -> None:
        self.blocks = transport.blocks
        self.close = transport.close
        self._transport = transport
        self._endpoints = endpoints

    def _ask(self, request: HttpRequest, read: Read, done: Callable[[Answer], object]) -> None:
        def take(outcome: messages.Outcome) -> None:
            answer: Answer
            if isinstance(outcome, Exception):
                answer = outcome
            else:
                try:
                    answer = read(outcome)
                except Exception as error:
                    logger.error("an answer of the App Store could not be read", exc_info=error)
                    answer = error
            done(answer)

        self._transport.begin(request, take)


class VerifyReceiptClient(Client):
    """The port ``AppStore``."""

    def __init__(
        self, transport: Transport, endpoints: Mapping[Environment, Endpoint], shared_secret: str | None
    ) -> None:
        super().__init__(transport, endpoints)
        self._shared_secret = shared_secret

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        return wait_for(lambda done: self.begin(receipt_data, environment, done, shared_secret=shared_secret))

    def begin(
        self,
        receipt_data: str,
        environment: Environment,
        done: Callable[[Answer], object],
        *,
        shared_secret: str | None = None,
    ) -> None:
        """Call ``done`` exactly once, on whatever thread, with what ``verify_receipt`` returns or raises.

        Unless the client ``blocks``, this returns at once. ``done`` must be quick, for others' answers wait behind it.
        """
        secret = shared_secret or self._shared_secret
        secrets = [each for each in (receipt_data, secret) if each]
        endpoint = self._endpoints[environment]
        request = HttpRequest(endpoint.server, endpoint.url, _HEADERS, question_body(receipt_data, secret))
        self._ask(request, lambda outcome: read_answer(environment, outcome, secrets), done)


def question_body(receipt_data: str, shared_secret: str | None) -> bytes:
    """Return the JSON object that asks about a receipt."""
    # Without exclude-old-transactions: that could hide the very transaction that a player asks about.
    # Nearly every receipt needs no escapes: to see that and to copy it takes 5 us for 7 KB, ``json.dumps`` 18 us.
    quoted = receipt_data.encode("utf-8", "replace")
    quoted = json.dumps(receipt_data).encode() if quoted.translate(None, _PLAIN) else b'"' + quoted + b'"'
    password = b"" if shared_secret is None else b', "password": ' + json.dumps(shared_secret).encode()
    return b'{"receipt-data": ' + quoted + password + b"}"


# --- what an HTTP answer comes to ---


def read_answer(
    environment: Environment, outcome: HttpResponse | RequestFailed, secrets: Sequence[str]
) -> Mapping[str, object] | AppStoreUnavailable:
    """Return the JSON object of an HTTP answer, or the error of any other status or body."""
    # The error is not raised: its traceback would keep the body in memory until a garbage collection.
    if isinstance(outcome, RequestFailed):
        return no_answer(environment, outcome, secrets)
    why = ""
    if outcome.status == http.client.OK:
        try:
            return parse_answer(outcome.body)
        except ValueError as error:
            why = f", but {error}"
    return no_use(f"{environment} App Store", outcome, secrets, why)


def no_use(
    who: str, response: HttpResponse, secrets: Sequence[str], why: str = "", *, is_about_the_rate: bool = False
) -> AppStoreUnavailable:
    return AppStoreUnavailable(
        f"{who} answered HTTP {response.status}{why}: {excerpt(response.body, secrets)}",
        retry_after_seconds=retry_after_seconds(response.header("retry-after"), time.time()),
        is_unknown_answer=not is_usual(response.status),
        is_about_the_rate=is_about_the_rate,
    )


def is_usual(status: int) -> bool:
    """Tell whether an HTTP status says that a server is down, slow or busy."""
    return status >= 500 or status in (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)


def no_answer(environment: Environment, failed: RequestFailed, secrets: Sequence[str]) -> AppStoreUnavailable:
    told = f"{environment} App Store gave no answer: {excerpt(failed.cause, secrets)}"
    return AppStoreUnavailable(told, was_sent=failed.was_sent)


def parse_answer(body: bytes) -> Mapping[str, object]:
    """Parse the body of an HTTP 200. Raises ``ValueError`` unless it is a JSON object with an integer ``status``."""
    answer = parse_object(body)
    if is_integer(answer.get("status")):
        return answer
    raise ValueError("no JSON object with an integer status")


def parse_object(body: bytes) -> Mapping[str, object]:
    """Parse a body. Raises ``ValueError`` unless it is a JSON object."""
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
    if _growth(body) > MAX_GROWTH:
        raise ValueError("no JSON that Apple sends: too many values for its size")
    try:
        answer: object = _DECODER.decode(body.decode())
    except _Ambiguous:
        raise
    except (ValueError, RecursionError):  # ValueError covers bad UTF-8 and integers of thousands of digits too
        raise ValueError("no JSON") from None
    if isinstance(answer, dict):
        return answer
    raise ValueError("no JSON object")


def _growth(body: bytes) -> float:
    # How many times as much memory as the text its values take, about: ``{},`` is 3 bytes, and becomes 72. Commas in
    # strings count as well; Apple's answers have one in 40 bytes.
    if len(body) <= _ALWAYS_PARSED_BYTES:
        return 0.0
    values, objects = body.count(b",") + body.count(b"["), body.count(b"{")
    return (values * _VALUE_BYTES + objects * _OBJECT_BYTES) / len(body)


def retry_after_seconds(value: str | None, now_seconds: float) -> float | None:
    """Read a ``Retry-After`` header: seconds, an HTTP date (RFC 9110, 10.2.3), or the Server API's UNIX time in ms.

    Returns seconds from UNIX time ``now_seconds``, 0 to ``MAX_RETRY_AFTER_SECONDS``; None if it is none of these.
    """
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]+", value):
        number = float(value[:16])
        seconds = number / 1000 - now_seconds if 12 <= len(value) <= 15 else number
    else:
        try:
            moment = parsedate_to_datetime(value)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now_seconds
        except (ValueError, TypeError, OverflowError, IndexError):  # all of them come out of it, for various garbage
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class _Ambiguous(ValueError):
    pass


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs) and any(repr(fields[name]) != repr(value) for name, value in pairs):
        raise _Ambiguous("a key has two values")  # whichever counted, the other would be a verdict too
    return fields


# Made once: ``json.loads`` with these arguments makes one for each answer, a fifth of the time that an answer takes.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unambiguous)


def excerpt(text: bytes | str, secrets: Sequence[str]) -> str:
    """Make one short printable line that is safe to log, without the secrets."""
    if isinstance(text, bytes):
        text = text[:EXCERPT_BYTES].decode("utf-8", "replace")
    for secret in secrets:
        text = _without(secret, text)
    line = " ".join(_ENCODED_DATA.sub("...", text).split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return repr(printable[:MAX_EXCERPT_CHARACTERS])


def _without(secret: str, text: str) -> str:
    # Even if the text was cut in the middle of it.
    text = text.replace(secret, "...")
    longest = min(len(secret), len(text))
    cut = next((length for length in range(longest, 0, -1) if text.endswith(secret[:length])), 0)
    return text[: len(text) - cut]
