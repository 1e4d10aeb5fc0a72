"""``AdminServer``: the admin port, from ``bind`` to ``stop``; on a thread of its own with an event loop of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.server import ServerState

from receipt_actors.admin.calls import Calls
from receipt_actors.admin.connections import Connection
from receipt_actors.admin.limits import ACCEPTED_AT_ONCE, LISTEN_BACKLOG, MAX_HEAD_BYTES, STOP_SECONDS
from receipt_actors.admin.pace import Pace
from receipt_actors.admin.routes import Routes, application
from receipt_actors.admin.watch import Watch
from receipt_actors.domain.addresses import Address
from receipt_actors.errors import ConfigurationError, ReceiptActorsError
from receipt_actors.telemetry.control import SystemControl

logger = logging.getLogger(__name__)


class AddressRefused(ReceiptActorsError):
    """The address can't be listened on."""


class AdminServer:
    """See the module. It has one life, and no signal handler.

    Listens from the start, before there is a system to look at, so that an address that can't be had is told before
    anything has begun; ``serve`` names the system. As a context manager it stops at the end.

    Raises:
        ConfigurationError: other machines could reach it, and there is no token.
        AddressRefused: the port is taken, or the host is not one of this machine.
    """

    def __init__(self, address: Address, token: str | None = None) -> None:
        if token is None and not address.is_loopback:
            raise ConfigurationError(
                [
                    f"admin: found {str(address)!r}, which other machines may reach; give admin_token too, or listen "
                    "on 127.0.0.1"
                ]
            )
        self._token = token
        self._system: SystemControl | None = None
        self._listener = _listen(address)
        self.address = Address(address.host, self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._calls: Calls | None = None  # made by the event loop
        self._thread = threading.Thread(target=self._run, name="receipt-actors-admin", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.address}/"

    def serve(self, system: SystemControl) -> None:
        """Let this be the system that is looked at."""
        self._system = system

    def stop(self) -> None:
        """Cut off whoever is connected and end, within a second. May be called twice."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._calls is not None:
            self._calls.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        calls = self._calls = Calls()
        watch = Watch(calls, lambda: self._system)
        routes = Routes(watch, calls)
        config = uvicorn.Config(
            application(routes, self.address.host, self._token),
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
        # Without uvicorn's Server: it would wake up ten times a second, and take its time to end.
        state = ServerState()
        pace = Pace()
        server = await self._loop.create_server(
            lambda: Connection(pace, config, state, app_state={}), sock=self._listener, backlog=ACCEPTED_AT_ONCE
        )
        # asyncio takes one number for both, and hundreds accepted at once would leave the pipeline no file to open.
        self._listener.listen(LISTEN_BACKLOG)
        looking = asyncio.create_task(watch.run())
        await self._stop.wait()
        server.close()
        watch.close()
        routes.close()
        calls.close()
        await _end_connections(state)
        await looking
        calls.end()


async def _end_connections(state: ServerState) -> None:
    """Let answers under way be finished for a moment, and cut off the rest; also who is being accepted right now."""
    for connection in tuple(state.connections):
        connection.shutdown()
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            while state.connections:
                await asyncio.sleep(0.005)
    this = asyncio.current_task()
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            while state.connections or asyncio.all_tasks() - {this}:
                for connection in tuple(state.connections):
                    connection.transport.abort()
                await asyncio.sleep(0.005)


def _listen(address: Address) -> socket.socket:
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, bound = infos[0]
        listener = socket.create_server(bound[:2], family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise AddressRefused(f"admin: {address} can't be listened on: {why}; choose another") from error
    return listener
