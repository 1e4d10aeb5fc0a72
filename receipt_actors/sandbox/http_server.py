"""A small HTTP/1.1 server for simulations: keep-alive, any number of slow answers on one thread, and rude on demand.

It owns a thread with an event loop, and the connections. A handler gets each request and returns a ``Reply``: bytes to
send after a delay, or none at all, which closes the connection. Requests of one connection are answered in their order.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024
LISTEN_BACKLOG = 1024  #: connections that may wait to be accepted; the system may allow fewer (``somaxconn``)


@dataclass(frozen=True, slots=True)
class Reply:
    """What to do about a request. A reply that ``hangs`` may be cut short by ``drop_hanging``."""

    data: bytes  #: a whole response (``response``); empty: close the connection without one
    delay_seconds: float = 0.0
    hangs: bool = False
    byte_seconds: float = 0.0  #: pause before each byte of a response that trickles


#: Gets method, path and body; called in the server's thread, must not block. The headers are ``HttpServer.headers``.
Handler = Callable[[str, str, bytes], Reply]


def response(status: int, body: bytes, content_type: str, retry_after: str | None = None) -> bytes:
    """Write a response with a body of known length."""
    wait = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    reason = http.client.responses.get(status, "Unknown")
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{wait}\r\n"
    return head.encode() + body


class HttpServer:
    """The server. It has one life: ``start``, then ``stop``. Port 0 takes any free port."""

    def __init__(self, host: str, port: int, handler: Handler, *, name: str) -> None:
        self._address = (host, port)
        self._handler = handler
        self._name = name
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        #: Of the request that the handler is asked about, by their names in lower case; in that call only.
        self.headers: Mapping[str, str] = {}
        # Written by the event loop's thread only.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._waiting = 0
        self._high_water = 0

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
        if self._thread is not None and self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    @property
    def url(self) -> str:
        """``http://host:port``, with the port that it has got once started."""
        host, port = self._address
        return f"http://{host}:{port}"

    @property
    def concurrent_requests_high_water(self) -> int:
        """The most requests that ever waited for their answers at one time."""
        return self._high_water

    def drop_hanging(self) -> None:
        """Close the connections whose replies hang."""
        if self._thread is not None and self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._drop, True)

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        server = await self._loop.create_server(self._connection, sock=listener, backlog=LISTEN_BACKLOG)
        self._listening.set()
        await self._stopped.wait()
        # Who has been accepted is a task of asyncio's at first, which fails, and leaves its socket open, where it finds
        # the server closed: let nobody in any more, and see those tasks through before that.
        self._loop.remove_reader(listener)
        while accepting := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(accepting)
        server.close()
        while self._connections:  # one is closed a round after it is dropped
            self._drop(hanging_only=False)
            await asyncio.sleep(0)

    def _connection(self) -> _Connection:
        return _Connection(self)

    def _drop(self, hanging_only: bool) -> None:
        for connection in tuple(self._connections):
            if connection.hangs or not hanging_only:
                connection.drop()

    def opened(self, connection: _Connection) -> None:
        """Remember an open connection; one that was accepted at the very end is closed at once."""
        self._connections.add(connection)
        if self._stopped.is_set():
            connection.drop()

    def closed(self, connection: _Connection) -> None:
        """Forget a connection that is gone."""
        self._connections.discard(connection)

    def begin(self, head: _Head, body: bytes) -> Reply:
        """Ask the handler; ``end`` follows when the reply is sent, or the connection gone."""
        self._waiting += 1
        self._high_water = max(self._high_water, self._waiting)
        self.headers = head.headers
        return self._handler(head.method, head.path, body)

    def end(self) -> None:
        """Count a request as no longer waiting."""
        self._waiting -= 1


class _Connection(asyncio.Protocol):
    """One connection: takes requests off the stream, one after the other."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._head: _Head | None = None
        self._answer: asyncio.TimerHandle | None = None  # set while a request waits for its answer
        self.hangs = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._server.closed(self)
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None
            self._server.end()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._advance()

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        """Begin every request that is here completely, unless an earlier one still waits for its answer."""
        try:
            while self._answer is None and self._transport is not None and not self._transport.is_closing():
                if self._head is None:
                    self._head = self._take_head()
                if self._head is None or len(self._received) < self._head.body_bytes:
                    return
                head, self._head = self._head, None
                self._begin(head, self._take(head.body_bytes))
        except _BadRequest as error:
            self._write(response(error.status, b"", "text/plain"), keep_alive=False)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _take_head(self) -> _Head | None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if len(self._received) > MAX_HEAD_BYTES:
                raise _BadRequest(http.client.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        head = _Head.parse(self._take(end + 4)[:end].decode("latin-1"))
        if head.expects_continue:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n", keep_alive=True)
        return head

    def _begin(self, head: _Head, body: bytes) -> None:
        reply = self._server.begin(head, body)
        self.hangs = reply.hangs
        if reply.byte_seconds > 0:
            self._trickle(reply, 0)
            return
        if reply.delay_seconds <= 0:
            self._finish(reply, head.keep_alive)
            return
        self._answer = asyncio.get_running_loop().call_later(
            reply.delay_seconds, self._finish_late, reply, head.keep_alive
        )

    def _finish_late(self, reply: Reply, keep_alive: bool) -> None:
        self._answer = None
        self.hangs = False
        self._finish(reply, keep_alive)
        self._advance()

    def _trickle(self, reply: Reply, sent: int) -> None:
        """Send one byte, and the next after a pause."""
        self._write(reply.data[sent : sent + 1], keep_alive=sent < len(reply.data))
        if sent < len(reply.data):
            loop = asyncio.get_running_loop()
            self._answer = loop.call_later(reply.byte_seconds, self._trickle, reply, sent + 1)
        else:
            self._answer = None
            self.hangs = False
            self._server.end()

    def _finish(self, reply: Reply, keep_alive: bool) -> None:
        self._server.end()
        if reply.data:
            self._write(reply.data, keep_alive)
        else:
            self.drop()

    def _write(self, data: bytes, keep_alive: bool) -> None:
        if self._transport is not None:
            self._transport.write(data)
            if not keep_alive:
                self._transport.close()


@dataclass(frozen=True, slots=True)
class _Head:
    """Request line and headers."""

    method: str
    path: str
    headers: Mapping[str, str]
    body_bytes: int
    keep_alive: bool
    expects_continue: bool

    @classmethod
    def parse(cls, text: str) -> _Head:
        request_line, *lines = text.split("\r\n")
        parts = request_line.split(" ")
        if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise _BadRequest(http.client.BAD_REQUEST)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "transfer-encoding" in headers:
            raise _BadRequest(http.client.LENGTH_REQUIRED)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise _BadRequest(http.client.BAD_REQUEST)
        if len(length) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES:
            raise _BadRequest(http.client.REQUEST_ENTITY_TOO_LARGE)
        return cls(
            method=parts[0],
            path=parts[1],
            headers=headers,
            body_bytes=int(length),
            keep_alive=parts[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close",
            expects_continue=headers.get("expect", "").lower() == "100-continue",
        )


class _BadRequest(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
