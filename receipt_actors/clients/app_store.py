"""Apple's verifyReceipt over HTTP: the blocking adapter behind the port ``AppStore``.

Owns the connections. Promises: every failure is an ``AppStoreUnavailable`` whose reason names the cause and quotes at
most ``MAX_EXCERPT_CHARACTERS`` of an answer, never the receipt or the shared secret; no call outlasts its time-outs,
however slowly a server drips; no answer larger than ``MAX_ANSWER_BYTES`` is held; TLS 1.2 or newer, always verified.

- It may be used from any number of threads. There is no ``requests.Session``: one is not promised to be thread-safe
  (its cookie jar is shared), and what it adds is unwanted here. urllib3's connection pools underneath are thread-safe.
- Redirects are not followed: a POST that carries a secret goes where the settings say, and nowhere else.
- ``exclude-old-transactions`` is not sent, so that Apple's answer holds all that was bought: leaving renewals out would
  save bytes, and could hide the very transaction that a player asks about.
- Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and a private CA bundle (``REQUESTS_CA_BUNDLE``) are taken from the process
  environment once, when the client is made.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError

MAX_ANSWER_BYTES = 16 * 1024 * 1024  #: after decompression; years of renewals come to some hundred kilobytes
MAX_EXCERPT_CHARACTERS = 200
MAX_RETRY_AFTER_SECONDS = 300.0  #: players wait: a garbled ``Retry-After`` must not silence us for hours

_EXCERPT_BYTES = 4096
_CHUNK_BYTES = 64 * 1024
# What a server may echo of a receipt: base64 or a signed transaction, URL-encoded or with JSON's escapes, cut anywhere.
_ENCODED_DATA = re.compile(r"[A-Za-z0-9+/=_.%\\-]{24,}")


class VerifyReceiptClient:
    """The port ``AppStore`` on ``requests``.

    ``connect_timeout_seconds`` bounds the connection to each address of the host, and the TLS handshake;
    ``read_timeout_seconds`` bounds the whole answer, from the request's last byte to the answer's. ``pool_size`` is how
    many connections are kept alive, and should be the number of threads that call; more callers get connections that
    are not kept. Raises ``ConfigurationError`` for URLs that are no HTTP URLs.
    """

    def __init__(
        self,
        production_url: str,
        sandbox_url: str,
        shared_secret: str | None,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        pool_size: int,
    ) -> None:
        self._shared_secret = shared_secret
        self._timeouts = (connect_timeout_seconds, read_timeout_seconds)
        self._adapter = _BoundedAdapter(pool_connections=len(Environment), pool_maxsize=pool_size)
        urls = {Environment.PRODUCTION: production_url, Environment.SANDBOX: sandbox_url}
        faults = [fault for environment, url in urls.items() if (fault := _url_fault(environment, url))]
        if faults:
            raise ConfigurationError(faults)
        self._endpoints = {environment: _Endpoint.at(url) for environment, url in urls.items()}

    def verify_receipt(self, receipt_data: str, environment: Environment) -> Mapping[str, object]:
        """POST one receipt to the endpoint of ``environment`` and return the JSON object of the answer.

        Raises ``AppStoreUnavailable``, with the ``Retry-After`` of the answer if it had one.
        """
        question = {"receipt-data": receipt_data}
        if self._shared_secret is not None:
            question["password"] = self._shared_secret
        endpoint = self._endpoints[environment]
        secrets = [secret for secret in (receipt_data, self._shared_secret) if secret]
        try:
            with self._post(endpoint, json.dumps(question).encode()) as response:
                if response.status_code != http.client.OK:
                    excerpt = _excerpt(_read_beginning(response), secrets)
                    raise AppStoreUnavailable(
                        f"{environment} App Store answered HTTP {response.status_code}: {excerpt}",
                        retry_after_seconds=retry_after_seconds(response.headers.get("Retry-After"), time.time()),
                    )
                answer = _read(response, MAX_ANSWER_BYTES + 1)
        except (OSError, HTTPError) as error:  # OSError is the base of requests' exceptions as well
            cause = _excerpt(self._cause(error), secrets)
            raise AppStoreUnavailable(f"{environment} App Store gave no answer: {cause}") from None
        try:
            return parse_answer(answer)
        except ValueError as error:
            raise AppStoreUnavailable(
                f"{environment} App Store answered HTTP 200, but {error}: {_excerpt(answer[:_EXCERPT_BYTES], secrets)}"
            ) from None

    def close(self) -> None:
        """Close the idle connections; one that is in use closes when its call ends. May be called twice."""
        self._adapter.close()

    def _post(self, endpoint: _Endpoint, body: bytes) -> requests.Response:
        request = endpoint.request.copy()
        request.prepare_body(body, None)
        return self._adapter.send(
            request, stream=True, timeout=self._timeouts, verify=endpoint.verify, proxies=endpoint.proxies
        )

    def _cause(self, error: Exception) -> str:
        connect_seconds, read_seconds = self._timeouts
        if isinstance(error, requests.ConnectTimeout):
            return f"no connection within {connect_seconds:g} s"
        wrapped = error.args[0] if error.args else None
        if isinstance(error, requests.ReadTimeout) or isinstance(wrapped, ReadTimeoutError):
            return f"not complete within {read_seconds:g} s"
        root = getattr(wrapped, "reason", None) or error  # urllib3 keeps the first cause there
        return f"{type(root).__name__}: {root}"


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """All that is the same in every request to one URL, worked out once."""

    request: requests.PreparedRequest
    proxies: dict[str, str]
    verify: bool | str  #: True, or the path of a CA bundle; never False

    @classmethod
    def at(cls, url: str) -> _Endpoint:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip", "User-Agent": "receipt-actors"}
        request = requests.Request("POST", url, headers=headers).prepare()
        with requests.Session() as session:
            environment = session.merge_environment_settings(url, {}, None, True, None)
        return cls(request, dict(environment["proxies"]), environment["verify"] or True)


def _url_fault(environment: Environment, url: str) -> str | None:
    try:
        requests.Request("POST", url).prepare()
        if urlsplit(url).scheme in ("http", "https"):
            return None
    except ValueError:  # the base of requests' complaints about URLs
        pass
    return f"URL of the {environment} App Store: found {url!r}, expected https://host/path"


def parse_answer(body: bytes) -> Mapping[str, object]:
    """Parse the body of an HTTP 200. Raises ``ValueError`` unless it is a JSON object with an integer ``status``.

    An object in which a key has two different values is refused: whichever counted, the other would be a verdict too.
    """
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
    try:
        answer: object = json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_unambiguous)
    except _Ambiguous:
        raise
    except (ValueError, RecursionError):  # ValueError covers bad UTF-8 and integers of thousands of digits too
        raise ValueError("no JSON") from None
    if isinstance(answer, dict):
        status = answer.get("status")
        if isinstance(status, int) and not isinstance(status, bool):
            return answer
    raise ValueError("no JSON object with an integer status")


def retry_after_seconds(value: str | None, now_seconds: float) -> float | None:
    """Read a ``Retry-After`` header: seconds, or an HTTP date (RFC 9110, 10.2.3) as seen at UNIX time ``now_seconds``.

    None for no header or one that is neither; at least 0, at most ``MAX_RETRY_AFTER_SECONDS``.
    """
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]+", value):
        seconds = float(value[:10]) if len(value) <= 10 else MAX_RETRY_AFTER_SECONDS
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
    """A key with two values."""


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs) and any(repr(fields[name]) != repr(value) for name, value in pairs):
        raise _Ambiguous("a key has two values")
    return fields


def _read(response: requests.Response, limit_bytes: int) -> bytes:
    """Read the body, decompressed, up to ``limit_bytes`` or a little more."""
    body = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) >= limit_bytes:
            break
    return bytes(body)


def _read_beginning(response: requests.Response) -> bytes:
    """Read what an excerpt needs. The status says enough where the body of a failure fails as well."""
    try:
        return _read(response, _EXCERPT_BYTES)
    except (OSError, HTTPError):
        return b""


def _excerpt(text: bytes | str, secrets: list[str]) -> str:
    """Make one short printable line that is safe to log."""
    if isinstance(text, bytes):
        text = text[:_EXCERPT_BYTES].decode("utf-8", "replace")
    for secret in secrets:
        text = _without(secret, text)
    line = " ".join(_ENCODED_DATA.sub("...", text).split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return repr(printable[:MAX_EXCERPT_CHARACTERS])


def _without(secret: str, text: str) -> str:
    """Take the secret out, also where the text was cut in the middle of it."""
    text = text.replace(secret, "...")
    longest = min(len(secret), len(text))
    cut = next((length for length in range(longest, 0, -1) if text.endswith(secret[:length])), 0)
    return text[: len(text) - cut]


# A time-out of a socket bounds the silence between two bytes only: a server that drips one byte every few seconds holds
# a thread for ever, in the headers as well as in the body. So the reader under http.client's answer gets a deadline.


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a deadline, whatever trickles in meanwhile."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limit_seconds: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = time.monotonic() + limit_seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        remaining_seconds = self._deadline - time.monotonic()
        if remaining_seconds <= 0:
            raise TimeoutError("the answer was not complete in time")
        self._sock.settimeout(remaining_seconds)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    """An answer that has to be complete within the read time-out, which the socket has when the answer begins."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        limit_seconds = sock.gettimeout()
        if limit_seconds is not None:
            self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock, limit_seconds))


class _DeadlineHTTPConnection(HTTPConnection):
    response_class = _DeadlineResponse


class _DeadlineHTTPSConnection(HTTPSConnection):
    response_class = _DeadlineResponse


class _DeadlineHTTPConnectionPool(HTTPConnectionPool):
    ConnectionCls = _DeadlineHTTPConnection


class _DeadlineHTTPSConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _DeadlineHTTPSConnection


class _BoundedAdapter(HTTPAdapter):
    """requests' transport with a deadline for answers, and TLS 1.2 at least."""

    poolmanager: PoolManager

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_minimum_version=ssl.TLSVersion.TLSv1_2, **pool_kwargs)
        _set_deadlines(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> ProxyManager:
        manager: ProxyManager = super().proxy_manager_for(
            proxy, ssl_minimum_version=ssl.TLSVersion.TLSv1_2, **proxy_kwargs
        )
        if isinstance(manager, ProxyManager):  # a SOCKS manager has pool classes of its own, and needs them
            _set_deadlines(manager)
        return manager


def _set_deadlines(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _DeadlineHTTPConnectionPool, "https": _DeadlineHTTPSConnectionPool}
