"""HTTP/1.1 for simulations: keep-alive, thousands of small requests a second on one thread, and rude on demand.

An ``HttpServer`` gives each request to a handler, which returns a ``Reply``. A handler that can't answer yet returns
None, and calls ``request.connection.respond`` later. Requests of one connection are answered in their order. Bodies
need a ``Content-Length``.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Self, cast

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024
LISTEN_BACKLOG = 4096  #: connections that may wait to be accepted; the system may allow fewer (``somaxconn``)

_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class Request(NamedTuple):
    connection: Connection
    method: str
    path: str
    body: bytes
    head: bytes
    lower_head: bytes

    def header(self, name: str) -> str | None:
        """Return the value of a header; ``name`` is in lower case."""
        value = _header(self.lower_head, name.encode(), self.head)
        return None if value is None else value.decode("latin-1")


class Reply(NamedTuple):
    data: bytes  #: a whole response (``response``); empty: close the connection without one
    delay_seconds: float = 0.0
    hangs: bool = False  #: ``HttpServer.drop_hanging`` may cut it short
    byte_seconds: float = 0.0  #: pause before each byte of a response that trickles


#: Called in the server's thread; must not block. None: the handler answers ``request.connection`` later.
Handler = Callable[[Request], Reply | None]
#: Runs an event loop, as ``asyncio.run`` does.
Run = Callable[[Coroutine[Any, Any, None]], None]


def dumps(value: object) -> bytes:
    # orjson would save some microseconds of a receipt's fifty: not worth a second encoder with rules of its own.
    return _ENCODER.encode(value).encode()


def response(status: int, body: bytes, content_type: str = "application/json", *headers: str) -> bytes:
    """Write a response; ``headers`` are further ones, such as ``Retry-After: 5``."""
    reason = http.client.responses.get(status, "Unknown")
    lines = (f"HTTP/1.1 {int(status)} {reason}", f"Content-Type: {content_type}", *headers)
    return "\r\n".join((*lines, f"Content-Length: {len(body)}\r\n\r\n")).encode() + body


class Connection(asyncio.Protocol):
    """One connection of a client: takes requests off the stream, one after the other."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._advancing = False  # requests are being begun
        self._answering = False  # a request waits for its answer
        self._closing = False  # after that answer
        self._continued = False  # the client may send the body
        self._timer: asyncio.TimerHandle | None = None
        self.hangs = False
        self.on_lost: Callable[[], None] | None = None  #: called once if the client goes before it is answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's for TLS does not say that it is one
        self._server._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._server._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._end_answer()
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        self._advance()

    def after(self, delay_seconds: float, action: Callable[[], object]) -> None:
        """Call ``action``, which is to answer the request under way, unless the client has gone by then."""
        if delay_seconds > 0:
            self._timer = asyncio.get_running_loop().call_later(delay_seconds, action)
        else:
            action()

    def respond(self, response: bytes) -> None:
        """Answer the request under way with a whole response."""
        self._timer = None
        self._end_answer()
        if self._transport is not None:
            self._transport.write(response)
            if self._closing:
                self._transport.close()
            else:
                self._advance()

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _reply(self, reply: Reply) -> None:
        data, delay_seconds, self.hangs, byte_seconds = reply
        if not data:
            self.after(delay_seconds, self.drop)
        elif byte_seconds > 0:
            self.after(delay_seconds, lambda: self._trickle(data, byte_seconds))
        else:
            self.after(delay_seconds, lambda: self.respond(data))

    def _trickle(self, response: bytes, byte_seconds: float) -> None:
        if len(response) == 1 or self._transport is None:
            self.respond(response)
        else:
            self._transport.write(response[:1])
            self.after(byte_seconds, lambda: self._trickle(response[1:], byte_seconds))

    def _end_answer(self) -> None:
        self._server._waiting -= self._answering
        self._answering = self.hangs = False

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
        received = self._received
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            if len(received) > MAX_HEAD_BYTES:
                return self._refuse(http.client.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return False
        head = received[:head_end]
        lower_head = head.lower()
        method, _, rest = received[: received.index(b"\r\n")].partition(b" ")
        path, _, version = rest.partition(b" ")
        digits = _header(lower_head, b"content-length")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or not (digits or b"0").isdigit():
            return self._refuse(http.client.BAD_REQUEST)
        if digits is None and _header(lower_head, b"transfer-encoding"):
            return self._refuse(http.client.LENGTH_REQUIRED)
        # Compare the length first: Python refuses to read thousands of digits.
        if digits and (len(digits) > len(str(MAX_BODY_BYTES)) or int(digits) > MAX_BODY_BYTES):
            return self._refuse(http.client.REQUEST_ENTITY_TOO_LARGE)
        body_start = head_end + 4
        body_end = body_start + int(digits or 0)
        if len(received) < body_end:
            expects_go_on = _header(lower_head, b"expect") == b"100-continue"
            if expects_go_on and not self._continued and self._transport is not None:
                self._continued = True
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return False
        self._received = received[body_end:]
        self._answering, self._continued = True, False
        self._closing = version == b"HTTP/1.0" or _header(lower_head, b"connection") == b"close"
        body = received[body_start:body_end]
        request = Request(self, method.decode("latin-1"), path.decode("latin-1"), body, head, lower_head)
        reply = self._server._begin(request)
        if reply is not None:
            self._reply(reply)
        return True

    def _refuse(self, status: int) -> bool:
        self._closing = True
        self.respond(response(status, b"", "text/plain"))
        return False


def _header(lower_head: bytes, name: bytes, head: bytes | None = None) -> bytes | None:
    """Return the value of a header, as in ``head``, or else in lower case."""
    start = lower_head.find(b"\r\n%b:" % name)
    if start < 0:
        return None
    start += len(name) + 3
    end = lower_head.find(b"\r\n", start)
    return (head or lower_head)[start : end if end > 0 else None].strip()


class HttpServer:
    """A server on a thread of its own: ``start`` and ``stop`` it once, or use it as a context manager.

    Port 0 takes any free port.
    """

    def __init__(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        run: Run = asyncio.run,
    ) -> None:
        self._address = (host, port)
        self._handler = handler
        self._tls = tls
        self._run = run
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        # Written by the event loop's thread only.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._connections: set[Connection] = set()
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
        self._thread = threading.Thread(target=self._run, args=(self._serve(listener),), name="http", daemon=True)
        self._thread.start()
        self._listening.wait()
        return self

    def stop(self) -> None:
        """Close every connection, answered or not, and end the thread. May be called twice."""
        if self._call(self._stopped.set):
            assert self._thread is not None
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        host, port = self._address
        return f"http{'' if self._tls is None else 's'}://{host}:{port}"

    def drop_hanging(self) -> None:
        self._call(lambda: self._drop(only_hanging=True))

    def _call(self, action: Callable[[], object]) -> bool:
        if self._thread is None or not self._thread.is_alive() or self._loop is None:
            return False
        self._loop.call_soon_threadsafe(action)
        return True

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        server = await self._loop.create_server(
            lambda: Connection(self), sock=listener, backlog=LISTEN_BACKLOG, ssl=self._tls
        )
        self._listening.set()
        await self._stopped.wait()
        # What has been accepted is a task of asyncio's at first, which fails, and leaves its socket open, if it finds
        # the server closed: accept no more, and wait for those tasks before that.
        self._loop.remove_reader(listener)
        while accepting := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(accepting)
        server.close()
        while self._connections:  # one is closed a round after it is dropped
            self._drop()
            await asyncio.sleep(0)

    def _drop(self, *, only_hanging: bool = False) -> None:
        for connection in tuple(self._connections):
            if connection.hangs or not only_hanging:
                connection.drop()

    def _begin(self, request: Request) -> Reply | None:
        self._waiting += 1
        if self._waiting > self.concurrent_requests_high_water:
            self.concurrent_requests_high_water = self._waiting
        return self._handler(request)
