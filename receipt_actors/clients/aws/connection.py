"""How boto3 is set up and called: short time-outs, no retries of its own, and no error of its own let out."""

from __future__ import annotations

import http.client
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import boto3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from receipt_actors.clients.aws.short_way import ShortWay, headers_of
from receipt_actors.clients.aws.steps import Blocking, Steps
from receipt_actors.domain.values import masked
from receipt_actors.errors import ConfigurationError, UnavailableError

CONNECT_TIMEOUT_SECONDS = 2.0
READ_TIMEOUT_SECONDS = 5.0  #: a receive: its long poll and this
MAX_QUOTED_CHARACTERS = 4096  #: of a service's words that are looked at,
MAX_TOLD_CHARACTERS = 500  #: and that are passed on
EXCERPT_CHARACTERS = 80  #: of an answer that is not a service's own

Answer = TypeVar("Answer", bound=Mapping[str, Any])
Trouble = TypeVar("Trouble", bound=UnavailableError)

#: What boto3 and botocore raise for trouble that is none of the service's answers. The last four come out of botocore's
#: parsers when an answer has the wrong shape: bytes that are no UTF-8, or JSON that is no object.
_TROUBLE = (BotoCoreError, ResponseParserError, AttributeError, KeyError, TypeError, ValueError)


class Client(NamedTuple):
    """A client of boto3, and the short way where that is open."""

    api: Any
    short_way: ShortWay | None

    def close(self) -> None:
        """Close the idle connections."""
        if self.short_way is not None:
            self.short_way.close()
        self.api.close()


def build_client(
    session: boto3.Session | None, service: str, *, read_timeout_seconds: float, max_connections: int
) -> Client:
    """Build a client of boto3, whose calls go the ``short_way`` where that is open.

    Raises ``ConfigurationError`` where boto3's settings cannot work (no region, no such profile, no URL).
    """
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=read_timeout_seconds,
        max_pool_connections=max_connections,
        parameter_validation=False,
        user_agent=f"receipt-actors Boto3/{boto3.__version__}",
    )
    try:
        # AWS's other SDKs, ECS and Lambda say AWS_REGION; boto3 alone does not read it.
        session = session or boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
        verify = _verify(session)
        client = session.client(service, config=config, verify=verify)  # type: ignore[call-overload]
    except (BotoCoreError, ValueError) as error:
        wish = "set AWS_REGION, AWS_PROFILE or AWS_ENDPOINT_URL right"
        raise ConfigurationError([f"AWS: {type(error).__name__}: {error}; {wish}"]) from error
    client.meta.events.register("after-call", _refuse_foreign_answer)
    if not ShortWay.is_open_to(client):
        return Client(client, None)
    short_way = ShortWay(client, session.get_credentials(), verify, max_connections=max_connections)
    short_way.install()
    return Client(client, short_way)


def _verify(session: boto3.Session) -> str | bool:
    """Return what a server's certificate is verified with, as botocore would find it: a file, or True for its own."""
    bundle = session._session.get_config_variable("ca_bundle")  # boto3 itself has no way to ask
    return bundle or os.environ.get("REQUESTS_CA_BUNDLE") or True


def call(
    unavailable: type[UnavailableError], client: Client, operation: Callable[..., Answer], **parameters: object
) -> Steps[Answer]:
    """Call one operation of a client and return the service's own answer.

    Lets ``ClientError`` through, for the caller to judge by its code; raises ``unavailable`` for everything else: no
    connection, a time-out, no or expired credentials, an answer that is garbled, cut short or not from AWS.
    """
    try:
        if client.short_way is None:
            answer: Answer = yield Blocking(partial(operation, **parameters))
        else:
            answer = yield from client.short_way.steps(operation, parameters)
    except _TROUBLE as error:
        name = getattr(operation, "__name__", type(operation).__name__)
        is_unknown = isinstance(error, ResponseParserError | json.JSONDecodeError)
        # botocore's own words for an answer of SQS that is no JSON say nothing of what was answered.
        words = _excerpt(error.doc.encode()) if isinstance(error, json.JSONDecodeError) else error
        what = f"{name}: {type(error).__name__}: {told(words)}"
        raise unavailable(what, is_unknown_answer=is_unknown) from error
    return answer


@contextmanager
def reading(unavailable: type[UnavailableError], operation: str) -> Iterator[None]:
    """Raise ``unavailable`` for an answer that does not have the shape which whoever reads it expects."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"{operation}: a garbled answer: {type(error).__name__}: {told(error)}"
        raise unavailable(what, is_unknown_answer=True) from error


def error_code(error: ClientError) -> str:
    """The code of an error answer, such as ``ThrottlingException``; the HTTP status where it has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def describe(error: ClientError) -> str:
    """Operation, code and message of an error answer, in one line."""
    message = error.response.get("Error", {}).get("Message", "")
    return f"{error.operation_name}: {error_code(error)}: {told(message)}"


def not_done(unavailable: type[Trouble], error: ClientError) -> Trouble:
    """Make the error of an error answer. One without a code of AWS's comes from somebody in between, as a rule."""
    code = error_code(error)
    is_usual = not code.isdigit() or int(code) >= 500 or int(code) == http.client.TOO_MANY_REQUESTS
    return unavailable(describe(error), is_unknown_answer=not is_usual)


def told(words: object) -> str:
    """The beginning of what a service, or whoever answers in its place, says; it may quote what we sent."""
    return masked(str(words)[:MAX_QUOTED_CHARACTERS])[:MAX_TOLD_CHARACTERS]


def _refuse_foreign_answer(http_response: AWSResponse, parsed: Mapping[str, object], **_context: object) -> None:
    """Refuse a 200 that is not a whole answer of AWS (an ``after-call`` handler of botocore).

    botocore reads whatever is no JSON as an empty object, and does not mind a body that is shorter than announced. But
    an empty object confirms a put, and says of a read that nobody has claimed the transaction.
    """
    if http_response.status_code >= 300:  # an error answer; what it is worth, its code says
        return
    headers, content = headers_of(http_response), http_response.content
    announced = headers.get("content-length", str(len(content)))
    if announced != str(len(content)) and "content-encoding" not in headers:
        raise ResponseParserError(f"the answer was cut short: {len(content)} of {announced} bytes")
    checksum = headers.get("x-amz-crc32")  # of DynamoDB; botocore reads it only for retries of its own
    if checksum and "content-encoding" not in headers and checksum != str(zlib.crc32(content)):
        raise ResponseParserError("the answer was garbled on its way: its checksum is wrong")
    # Which headers come along is not asked: emulators differ there. An answer in which botocore found nothing has to be
    # an empty object, not somebody's object of other keys.
    found_nothing = not parsed.keys() - {"ResponseMetadata"}
    if not _is_object(content) or (found_nothing and content.split() != [b"{}"]):
        raise ResponseParserError(_excerpt(content))


def _excerpt(content: bytes) -> str:
    return f"the answer is none of AWS's, is a proxy in the way? {told(content[:EXCERPT_CHARACTERS])}"


def _is_object(content: bytes) -> bool:
    return content.lstrip().startswith(b"{") and content.rstrip().endswith(b"}")
