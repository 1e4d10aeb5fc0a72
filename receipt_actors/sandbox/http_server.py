"""HTTP/1.1 for simulations: keep-alive, thousands of small requests a second on one thread, and rude on demand.

A ``Connection`` gives each request to a service, which answers by ``respond``, ``trickle`` or ``drop``, at once or
later. Requests of one connection are answered in their order. Bodies need a ``Content-Length``.

``HttpServer`` runs a service on a thread of its own; its handlers return a ``Reply``.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self, cast

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024
LISTEN_BACKLOG = 4096  #: connections that may wait to be accepted; the system may allow fewer (``somaxconn``)

_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class Request(NamedTuple):
    """One whole request."""

    method: bytes
    path: bytes
    head: bytes  #: the request line and the headers, in lower case
    body: bytes
    raw_head: bytes  #: the same as it came


Service = Callable[["Connection", Request], None]


def dumps(value: object) -> bytes:
    """Encode as JSON, in ASCII."""
    # orjson would save some microseconds of a receipt's fifty: not worth a second encoder with rules of its own.
    return _ENCODER.encode(value).encode()


def response(status: int, body: bytes, content_type: str = "application/json", *headers: str) -> bytes:
    """Write a response; ``headers`` are further ones, such as ``Retry-After: 5``."""
    reason = http.client.responses.get(status, "Unknown")
    lines = (f"HTTP/1.1 {int(status)} {reason}", f"Content-Type: {content_type}", *headers)
    return "\r\n".join((*lines, f"Content-Length: {len(body)}\r\n\r\n")).encode() + body


class Connection(asyncio.Protocol):
    """One connection of a client: takes requests off the stream, one after the other."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._advancing = False  # requests are being begun
        self._answering = False  # a request waits for its answer
        self._closing = False  # after that answer
        self._continued = False  # the client may send the body
        self._timer: asyncio.TimerHandle | None = None
        self.on_lost: Callable[[], None] | None = None  #: called once if the client goes before it is answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's for TLS does not say that it is one

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        self._advance()

    def respond(self, response: bytes, delay_seconds: float = 0.0) -> None:
        """Answer the request under way with a whole response, after a time."""
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

    def trickle(self, response: bytes, byte_seconds: float, done: Callable[[], None]) -> None:
        """Answer byte by byte, with a pause before each, then call ``done``."""

        def send(sent: int) -> None:
            if self._transport is not None and sent < len(response):
                self._transport.write(response[sent : sent + 1])
                self.after(byte_seconds, lambda: send(sent + 1))
            else:
                done()
                self._respond(b"")

        send(0)

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _respond(self, response: bytes) -> None:
        self._timer = None
        self._answering = False
        if self._transport is not None:
            self._transport.write(response)
            if self._closing:
                self._transport.close()
            else:
                self._advance()

    def _advance(self) -> None:
        """Begin every request that is here completely, unless an earlier one still waits for its answer."""
        if self._advancing:  # what is answered at once makes room for the next, in the loop below
            return
        self._advancing = True
        try:
            while self._received and not self._answering and not self._closing and self._begin_next():
                pass
        finally:
            self._advancing = False

    def _begin_next(self) -> bool:
        """Begin a request; False if it is not here completely."""
        received = self._received
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            if len(received) > MAX_HEAD_BYTES:
                self._refuse(http.client.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return False
        raw_head = received[:head_end]
        head = raw_head.lower()
        method, _, rest = received[: received.index(b"\r\n")].partition(b" ")
        path, _, version = rest.partition(b" ")
        body_bytes = _content_length(head)
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            self._refuse(http.client.BAD_REQUEST)
            return False
        if isinstance(body_bytes, http.HTTPStatus):
            self._refuse(body_bytes)
            return False
        end = head_end + 4 + body_bytes
        if len(received) < end:
            if not self._continued and _header(head, b"expect") == b"100-continue" and self._transport is not None:
                self._continued = True
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return False
        self._received = received[end:]
        self._answering, self._continued = True, False
        self._closing = version == b"HTTP/1.0" or _header(head, b"connection") == b"close"
        self._service(self, Request(method, path, head, received[head_end + 4 : end], raw_head))
        return True

    def _refuse(self, status: int) -> None:
        self._closing = True
        self._respond(response(status, b"", "text/plain"))


def _header(head: bytes, name: bytes) -> bytes | None:
    """Return the value of a header; ``head`` and ``name`` are in lower case."""
    start = head.find(b"\r\n%b:" % name)
    if start < 0:
        return None
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return (head[start:end] if end > 0 else head[start:]).strip()


def _content_length(head: bytes) -> int | http.HTTPStatus:
    """Return the length of the body, or the status to refuse the request with."""
    digits = _header(head, b"content-length")
    if digits is None:
        return http.HTTPStatus.LENGTH_REQUIRED if _header(head, b"transfer-encoding") else 0
    if not digits.isdigit():
        return http.HTTPStatus.BAD_REQUEST
    # What has more digits than the limit is told by its length: Python refuses to read thousands of them.
    if len(digits) > len(str(MAX_BODY_BYTES)) or int(digits) > MAX_BODY_BYTES:
        return http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return int(digits)


@dataclass(frozen=True, slots=True)
class Reply:
    """What to do about a request. A reply that ``hangs`` may be cut short by ``drop_hanging``."""

    data: bytes  #: a whole response (``response``); empty: close the connection without one
    delay_seconds: float = 0.0
    hangs: bool = False
    byte_seconds: float = 0.0  #: pause before each byte of a response that trickles


#: Gets method, path and body; called in the server's thread, must not block. The headers are ``HttpServer.headers``.
Handler = Callable[[str, str, bytes], Reply]


class HttpServer:
    """A server on a thread of its own. It has one life: ``start``, then ``stop``. Port 0 takes any free port."""

    def __init__(self, host: str, port: int, handler: Handler, *, name: str) -> None:
        self._address = (host, port)
        self._handler = handler
        self._name = name
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        # Written by the event loop's thread only.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._connections: set[_Owned] = set()
        self._hanging: set[Connection] = set()
        self._head = b""
        self._waiting = 0
        self.concurrent_requests_high_water = 0  #: the most requests that ever waited for their answers at one time

    def start(self) -> Self:
        """Listen and serve. Raises ``OSError`` where the address can't be had."""
        try:
            listener = socket.create_server(self._address, backlog=LISTEN_BACKLOG)
        except OSError as error:
            host, port = self._address
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise OSError(f"{host}:{port} can't be listened on: {why}; choose another") from error
        self._address = listener.getsockname()[:2]
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(listener),), name=self._name, daemon=True)
        self._thread.start()
        self._listening.wait()
        return self

    def stop(self) -> None:
        """Close every connection, answered or not, and end the thread. May be called twice."""
        if self._call(self._stopped.set):
            assert self._thread is not None
            self._thread.join()

    @property
    def url(self) -> str:
        host, port = self._address
        return f"http://{host}:{port}"

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the request that the handler is asked about, by their names in lower case; in that call only."""
        lines = (line.partition(":") for line in self._head.decode("latin-1").split("\r\n")[1:])
        return {name.strip().lower(): value.strip() for name, _, value in lines}

    def drop_hanging(self) -> None:
        """Close the connections whose replies hang."""
        self._call(lambda: self._drop(self._hanging))

    def _call(self, action: Callable[[], object]) -> bool:
        if self._thread is None or not self._thread.is_alive() or self._loop is None:
            return False
        self._loop.call_soon_threadsafe(action)
        return True

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        server = await self._loop.create_server(lambda: _Owned(self), sock=listener, backlog=LISTEN_BACKLOG)
        self._listening.set()
        await self._stopped.wait()
        # What has been accepted is a task of asyncio's at first, which fails, and leaves its socket open, if it finds
        # the server closed: accept no more, and wait for those tasks before that.
        self._loop.remove_reader(listener)
        while accepting := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(accepting)
        server.close()
        while self._connections:  # one is closed a round after it is dropped
            self._drop(self._connections)
            await asyncio.sleep(0)

    @staticmethod
    def _drop(connections: Iterable[Connection]) -> None:
        for connection in tuple(connections):
            connection.drop()

    def _begin(self, connection: Connection, request: Request) -> None:
        self._waiting += 1
        self.concurrent_requests_high_water = max(self.concurrent_requests_high_water, self._waiting)
        self._head = request.raw_head
        reply = self._handler(request.method.decode("latin-1"), request.path.decode("latin-1"), request.body)

        def end() -> None:
            self._waiting -= 1
            self._hanging.discard(connection)
            connection.on_lost = None

        def finish() -> None:
            if reply.byte_seconds > 0:
                connection.trickle(reply.data, reply.byte_seconds, end)
                return
            end()
            if reply.data:
                connection.respond(reply.data)
            else:
                connection.drop()

        connection.on_lost = end
        if reply.hangs:
            self._hanging.add(connection)
        connection.after(reply.delay_seconds, finish)


class _Owned(Connection):
    """A connection that its server can close."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server._begin)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._server._connections.discard(self)
