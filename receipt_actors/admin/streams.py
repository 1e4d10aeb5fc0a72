"""Server-sent events: how one is written, a response that is made of them, and a trace on its way to its client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from receipt_actors.telemetry.control import Trace

MAX_TRACE_QUEUE = 200  #: events of a trace that its client has not taken yet; more are lost, and counted
KEEP_ALIVE_SECONDS = 10.0  #: after which a stream without events says that it is still there
KEEP_ALIVE = b":\n\n"  #: a comment, by which a closed connection is noticed
MEDIA_TYPE = "text/event-stream"


def event(kind: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class EventStream(StreamingResponse):
    """Sends events until there are no more, or the client is gone. ``on_close`` is called in any case."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncIterator[bytes], on_close: Callable[[], None] = lambda: None) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})  # or nginx would keep them back
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()


class TraceStream:
    """Takes events on any thread and hands them to its client; what the client is too slow for is lost, and counted."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()
        self._reason: str | None = None  # for which it has ended; None follows the last event then
        self._sent = 0
        self._lost = 0
        self.trace: Trace | None = None  #: once it runs

    def take(self, traced: Mapping[str, Any]) -> None:
        """Take an event. Callable on any thread; never blocks."""
        self._soon(self._take, traced)

    def end(self, reason: str) -> None:
        self._soon(self._end, reason)

    def _soon(self, call: Any, argument: object) -> None:
        with suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(call, argument)

    def _take(self, traced: Mapping[str, Any]) -> None:
        if self._waiting.qsize() < MAX_TRACE_QUEUE:
            self._waiting.put_nowait(traced)
        else:
            self._lost += 1

    def _end(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            self._waiting.put_nowait(None)

    async def events(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    traced = await self._waiting.get()
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            if traced is None:
                lost = self._lost + (0 if self.trace is None else self.trace.lost)
                yield event("end", {"reason": self._reason, "events": self._sent, "lost": lost})
                return
            self._sent += 1
            yield event("trace", traced)
