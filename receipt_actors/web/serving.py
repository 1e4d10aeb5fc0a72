"""``Serving``: uvicorn's protocol on a socket of ours, from ``begin`` to ``end``, without uvicorn's own server.

That would wake up ten times a second, install signal handlers, and take its time to end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from receipt_actors.domain.addresses import Address
from receipt_actors.errors import ReceiptActorsError
from receipt_actors.web.limits import (
    ACCEPTED_AT_ONCE,
    CUT_OFF_SECONDS,
    LISTEN_BACKLOG,
    MAX_CONNECTIONS,
    MAX_HEAD_BYTES,
    MAX_UNREAD_BYTES,
    REQUEST_SECONDS,
    STALL_SECONDS,
)

_LOOK_SECONDS = 0.005


class AddressRefused(ReceiptActorsError):
    """The address can't be listened on."""


def listen(who: str, address: Address) -> socket.socket:
    """Listen on an address; ``who`` is named in the error.

    Raises:
        AddressRefused: the port is taken, or the host is not one of this machine.
    """
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, bound = infos[0]
        return socket.create_server(bound[:2], family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise AddressRefused(f"{who}: {address} can't be listened on: {why}; choose another") from error


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with an end to its patience.

    A client that sends its request byte by byte, or reads nothing of the answer, is cut off; one that asks too often
    waits. When all connections are taken, a new one takes the place of the slowest: of those whose request is not
    complete, that wait for their turn or do not read, the one that has done so for longest. So slow clients, however
    many they are, keep out no quick one. Addresses do not count: behind a load balancer all clients have the same.
    """

    def __init__(self, pause_seconds: Callable[[str], float], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pause_seconds = pause_seconds
        self._served_app = self.app
        self.app = self._serve_in_turn
        self._request_timer: asyncio.TimerHandle | None = None  # runs from the first byte to the end of an answer
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0
        self._waited_for_since = self.loop.time()  # of its present request, or of its reading
        self._waits_for_turn = False
        self._is_cut_off = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it. Where there are too many, close the slowest; or this one, where all others are being served."""
        super().connection_made(transport)
        # asyncio does that, but only for sockets that were made with the protocol's number. Without it an answer's body
        # waits for the client to acknowledge its head, for 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_request()
        there = [each for each in self.connections if isinstance(each, Connection) and not each._is_cut_off]
        if len(there) > MAX_CONNECTIONS:
            slow = (each for each in there if each is not self and each._is_waited_for)
            min(slow, key=lambda each: each._waited_for_since, default=self)._cut_off()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._request_timer is None:
            self._await_request()
        if self.cycle is not None and self.cycle.response_complete and self.cycle.more_body:
            self._unread_bytes += len(data)  # refused before it had been sent completely
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self._cut_off()
        else:
            super().data_received(data)

    def on_response_complete(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None
        self._waited_for_since = self.loop.time()
        super().on_response_complete()
        if self.cycle is not None and not self.cycle.response_complete:  # the next one came along with the last
            self._await_request()

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP; or just end it, where that comes in what is left of a request that was answered."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self._cut_off()

    def timeout_keep_alive_handler(self) -> None:
        """Close it for want of a request; what has not been read of the last answer is lost."""
        super().timeout_keep_alive_handler()
        self._cut_off()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._waited_for_since = self.loop.time()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._cut_off)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    async def _serve_in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = self.cycle
        pause_seconds = self._pause_seconds(scope["path"])
        if pause_seconds:
            self._waits_for_turn = True
            await asyncio.sleep(pause_seconds)
            self._waits_for_turn = False
        if not cycle.disconnected:
            await self._served_app(scope, receive, send)

    def _await_request(self) -> None:
        self._waited_for_since = self.loop.time()
        self._request_timer = self.loop.call_later(REQUEST_SECONDS, self._request_is_late)

    def _request_is_late(self) -> None:
        """Cut it off unless the request is here, and only its answer takes long."""
        if not self._request_is_here:
            self._cut_off()

    @property
    def _request_is_here(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    @property
    def _is_waited_for(self) -> bool:
        """Whether it is the client that has something to do, or nothing has been done for it yet."""
        return not self._request_is_here or self._waits_for_turn or self._stall_timer is not None

    def _cut_off(self) -> None:
        self._is_cut_off = True
        self.transport.abort()

    def _cancel_timers(self) -> None:
        for timer in (self._request_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()


class Serving:
    """Serves an ASGI application (3.0). Made and used within the event loop.

    ``pause_seconds`` says, by its path, how long a request has to wait for its turn.
    """

    def __init__(
        self, app: Any, listener: socket.socket, pause_seconds: Callable[[str], float] = lambda _path: 0.0
    ) -> None:
        self._config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level=logging.ERROR,  # what clients do wrong is told to them
            access_log=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._listener = listener
        self._pause_seconds = pause_seconds
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def begin(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._pause_seconds, self._config, self._state, app_state={}),
            sock=self._listener,
            backlog=ACCEPTED_AT_ONCE,
        )
        # asyncio takes one number for both, and hundreds accepted at once would use up the open files.
        self._listener.listen(LISTEN_BACKLOG)

    def close(self) -> None:
        """Accept no more; those that are there are served on."""
        if self._server is not None:
            self._server.close()

    async def end(self, grace_seconds: float) -> None:
        """Wait so long for answers under way, then close all connections, those being accepted right now included.

        Waits for the tasks of the event loop, but for the one that calls.
        """
        self.close()
        for connection in tuple(self._state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                while self._state.connections:
                    await asyncio.sleep(_LOOK_SECONDS)
        this = asyncio.current_task()
        with suppress(TimeoutError):
            async with asyncio.timeout(CUT_OFF_SECONDS):
                while self._state.connections or asyncio.all_tasks() - {this}:
                    for connection in tuple(self._state.connections):
                        connection.transport.abort()
                    await asyncio.sleep(_LOOK_SECONDS)
