"""``TraceStream``: one trace on its way to its client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from receipt_actors.admin.limits import (
    KEEP_ALIVE_SECONDS,
    MAX_TRACE_EVENTS,
    MAX_TRACE_QUEUE,
    MAX_TRACE_SECONDS,
)
from receipt_actors.admin.server_sent_events import KEEP_ALIVE, event
from receipt_actors.telemetry.control import Trace, TraceRequest


class TraceStream:
    """Takes events on any thread and hands them to its client; what the client is too slow for is lost, and counted."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._reason: str | None = None
        self._sent = 0
        self._lost = 0
        self.trace: Trace | None = None  #: once it runs

    def take(self, traced: Mapping[str, Any]) -> None:
        """Take an event. Callable on any thread; never blocks."""
        self._soon(self._take, traced)

    def end(self, reason: str) -> None:
        """Take the end of the trace. Callable on any thread; never blocks."""
        self._soon(self._end, reason)

    def _soon(self, call: Any, argument: object) -> None:
        with suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(call, argument)

    def _take(self, traced: Mapping[str, Any]) -> None:
        if len(self._waiting) >= MAX_TRACE_QUEUE:
            self._lost += 1
            return
        self._waiting.append(traced)
        self._wake.set()

    def _end(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
        self._wake.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield each event, and at last how it ended."""
        while True:
            while self._waiting:
                self._sent += 1
                yield event("trace", self._waiting.popleft())
            if self._reason is not None:
                lost = self._lost + (0 if self.trace is None else self.trace.lost)
                yield event("end", {"reason": self._reason, "events": self._sent, "lost": lost})
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                yield KEEP_ALIVE


def trace_request(data: Mapping[str, Any]) -> TraceRequest:
    """Read what a client asks for.

    Raises:
        ValueError: in words for the client.
    """
    unknown = sorted(set(data) - {"filters", "limit", "seconds"})
    if unknown:
        raise ValueError(f"found {unknown[0]!r}, expected filters, limit and seconds only")
    filters, limit, seconds = data.get("filters", {}), data.get("limit", 10), data.get("seconds", 15.0)
    if not isinstance(filters, dict) or not all(
        isinstance(values, list) and all(isinstance(value, str) for value in values) for values in filters.values()
    ):
        raise ValueError('filters: expected lists of strings by name, such as {"user_id": ["42"]}')
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_TRACE_EVENTS:
        raise ValueError(f"limit: expected an integer from 1 to {MAX_TRACE_EVENTS}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_TRACE_SECONDS:
        raise ValueError(f"seconds: expected a number above 0, at most {MAX_TRACE_SECONDS:g}")
    return TraceRequest(filters, limit, float(seconds))
