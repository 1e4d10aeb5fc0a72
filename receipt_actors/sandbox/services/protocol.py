"""HTTP/1.1 with keep-alive for servers that answer thousands of small requests a second on one thread.

A service is a function that gets each request as ``Request`` and answers by ``Connection.respond``, at once or later.
Requests of one connection are answered in their order. Bodies need a ``Content-Length``; what is no HTTP closes the
connection.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024


class Request(NamedTuple):
    """One whole request."""

    method: bytes
    path: bytes
    head: bytes  #: the request line and the headers, in lower case
    body: bytes


Service = Callable[["Connection", Request], None]


def dumps(value: object) -> bytes:
    """Encode as JSON, in ASCII."""
    # orjson would save some microseconds of a receipt's fifty: not worth a second encoder with rules of its own.
    return _ENCODER.encode(value).encode()


class Connection(asyncio.Protocol):
    """One connection of a client: takes requests off the stream, one after the other."""

    __slots__ = ("_answering", "_received", "_service", "_timer", "_transport", "on_lost")

    def __init__(self, service: Service) -> None:
        self._service = service
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answering = False  # a request waits for its answer
        self._timer: asyncio.TimerHandle | None = None
        self.on_lost: Callable[[], None] | None = None  #: called once if the client goes before it is answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's for TLS does not say that it is one

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._received = self._received + data if self._received else data
        if not self._answering:
            self._advance()

    def respond(self, response: bytes, delay_seconds: float = 0.0) -> None:
        """Answer the request under way with a whole response (``response``), after a time."""
        if delay_seconds > 0:
            self._timer = asyncio.get_running_loop().call_later(delay_seconds, self._respond, response)
        else:
            self._respond(response)

    def after(self, delay_seconds: float, action: Callable[[], None]) -> None:
        """Call ``action``, which is to answer the request under way, unless the client has gone by then."""
        if delay_seconds > 0:
            self._timer = asyncio.get_running_loop().call_later(delay_seconds, action)
        else:
            action()

    def _respond(self, response: bytes) -> None:
        self._timer = None
        self._answering = False
        if self._transport is not None:
            self._transport.write(response)
            if self._received:
                self._advance()

    def _advance(self) -> None:
        """Begin the next request, if it is here completely."""
        received = self._received
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            if len(received) > MAX_HEAD_BYTES:
                self._refuse(http.client.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        head = received[:head_end].lower()
        try:
            body_bytes = _content_length(head)
            method, path, _ = received[: received.index(b"\r\n")].split(b" ")
        except ValueError:
            self._refuse(http.client.BAD_REQUEST)
            return
        end = head_end + 4 + body_bytes
        if len(received) < end:
            return
        self._received = received[end:]
        self._answering = True
        self._service(self, Request(method, path, head, received[head_end + 4 : end]))

    def _refuse(self, status: int) -> None:
        if self._transport is not None:
            self._transport.write(response(status, b""))
            self._transport.close()


def _content_length(head: bytes) -> int:
    """Raises ``ValueError`` for a length that is none, or of a body in chunks."""
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        if b"\r\ntransfer-encoding:" in head:
            raise ValueError("a body in chunks")
        return 0
    line_end = head.find(b"\r\n", start + 17)
    length = int(head[start + 17 : line_end] if line_end > 0 else head[start + 17 :])
    if not 0 <= length <= MAX_BODY_BYTES:
        raise ValueError(f"a body of {length} bytes")
    return length


def response(status: int, body: bytes, content_type: str = "application/json", headers: str = "") -> bytes:
    """Write a whole response; ``headers`` are further lines, each with its line break."""
    reason = http.client.responses.get(status, "Unknown")
    lines = f"HTTP/1.1 {int(status)} {reason}\r\nContent-Type: {content_type}\r\n{headers}"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def aws_ok(body: bytes) -> bytes:
    """Write an answer of AWS; DynamoDB's clients may check the sum."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: simulated\r\n"
        b"x-amz-crc32: %d\r\nContent-Length: %d\r\n\r\n%b" % (zlib.crc32(body), len(body), body)
    )


class AwsError(Exception):
    """A request that AWS would refuse: raised by an operation, answered as HTTP 400."""

    def __init__(
        self, code: str, message: str, *, query_code: str | None = None, more: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.query_code = query_code  #: the code of SQS's older protocol, which clients still report
        self.more = more or {}  #: beside code and message

    def response(self, namespace: str) -> bytes:
        """Write the answer."""
        body = dumps({"__type": f"{namespace}#{self.code}", "message": self.message, **self.more})
        query = "" if self.query_code is None else f"x-amzn-query-error: {self.query_code};Sender\r\n"
        return response(http.client.BAD_REQUEST, body, "application/x-amz-json-1.0", query)
