"""``Connection``: uvicorn's HTTP/1.1 connection, with an end to its patience.

A client that sends its request byte by byte, reads nothing of the answer, or is one too many, is cut off.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from receipt_actors.web.limits import MAX_CONNECTIONS, MAX_UNREAD_BYTES, REQUEST_SECONDS, STALL_SECONDS


class Connection(H11Protocol):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request_timer: asyncio.TimerHandle | None = None  # runs from the first byte to the end of an answer
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, unless there are too many."""
        super().connection_made(transport)
        # asyncio does that, but only for sockets that were made with the protocol's number. Without it an answer's body
        # waits for the client to acknowledge its head, for 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._request_timer is None:
            self._await_request()
        if self.cycle is not None and self.cycle.response_complete and self.cycle.more_body:
            self._unread_bytes += len(data)  # refused before it had been sent completely
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self.transport.abort()
        else:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close it for want of a request; what has not been read of the last answer is lost."""
        super().timeout_keep_alive_handler()
        self.transport.abort()

    def pause_writing(self) -> None:
        """Wait until the client has read some of it."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _await_request(self) -> None:
        self._request_timer = self.loop.call_later(REQUEST_SECONDS, self._request_is_late)

    def _request_is_late(self) -> None:
        """Cut it off unless the request is here, and only its answer takes long."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            self.transport.abort()

    def _cancel_timers(self) -> None:
        for timer in (self._request_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
