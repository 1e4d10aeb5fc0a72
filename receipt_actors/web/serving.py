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

import uvicorn
from uvicorn.server import ServerState

from receipt_actors.domain.addresses import Address
from receipt_actors.errors import ReceiptActorsError
from receipt_actors.web.connections import Connection
from receipt_actors.web.limits import ACCEPTED_AT_ONCE, CUT_OFF_SECONDS, LISTEN_BACKLOG, MAX_HEAD_BYTES

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
