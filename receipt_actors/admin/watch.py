"""``Watch``: looks at the system for everybody, keeps the history, and wakes the pages.

It owns the newest overview, the samples of the last minutes, and what all open pages are about to be sent. It looks
every two seconds, every second while a page is open, and when somebody asks; never twice at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from receipt_actors.admin.calls import Calls, NotAnswered
from receipt_actors.admin.history import History
from receipt_actors.admin.limits import FRESH_SECONDS, KEEP_ALIVE_SECONDS, LOOK_SECONDS, MAX_PAGES, SAMPLE_LOOKS
from receipt_actors.admin.server_sent_events import KEEP_ALIVE, event
from receipt_actors.telemetry.control import SystemControl
from receipt_actors.telemetry.health import Health, HealthWatch
from receipt_actors.telemetry.overview import Overview

logger = logging.getLogger(__name__)


class Watch:
    """See the module. Made and used within the event loop."""

    def __init__(self, calls: Calls, control: Callable[[], SystemControl | None]) -> None:
        self._calls = calls
        self._control = control
        self._history = History()
        self._health = HealthWatch()
        self._look_under_way: asyncio.Task[Overview] | None = None
        self._newest: Overview | None = None
        self._newest_at_seconds = float("-inf")  # monotonic
        self._pages = 0
        self._closed = asyncio.Event()
        self._news = asyncio.Event()  # replaced by another one each time
        self._event = b""

    @property
    def control(self) -> SystemControl:
        """The system.

        Raises:
            NotAnswered: it is not there yet.
        """
        control = self._control()
        if control is None:
            raise NotAnswered("the system has not been started yet")
        return control

    async def overview(self) -> Overview:
        """Return how the system looks now, or looked a moment ago.

        Raises:
            NotAnswered: it is not there yet, or does not answer.
        """
        if self._newest is not None and time.monotonic() - self._newest_at_seconds < FRESH_SECONDS:
            return self._newest
        if self._look_under_way is None:
            self._look_under_way = asyncio.create_task(self._look())
            self._look_under_way.add_done_callback(self._looked)
        return await asyncio.shield(self._look_under_way)

    def forget(self) -> None:
        """Look anew for the next who asks: the system was told to be different."""
        self._newest = None
        self._look_under_way = None

    async def health(self) -> Health:
        """Judge how the system is.

        Raises:
            NotAnswered: it does not answer.
        """
        return self._health.judge(None if self._control() is None else await self.overview())

    def history(self) -> Mapping[str, Any]:
        """Return the samples of the last minutes, in JSON's types."""
        return self._history.as_json()

    @property
    def is_full(self) -> bool:
        """Whether there are as many pages open as there may be."""
        return self._pages >= MAX_PAGES

    async def page_events(self) -> AsyncIterator[bytes]:
        """Yield what a page gets to know: at once, and every second. A slow one misses some."""
        self._pages += 1
        try:
            self._event = await self._page_event(self._event)
            if self._event:
                yield self._event
            while not self._closed.is_set():
                news = self._news
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        await news.wait()
                except TimeoutError:
                    yield KEEP_ALIVE
                else:
                    yield self._event
        finally:
            self._pages -= 1

    async def run(self) -> None:
        """Look, until ``close``."""
        looks = 0
        next_at = time.monotonic()
        while not self._closed.is_set():
            if self._control() is not None and (self._pages or looks % SAMPLE_LOOKS == 0):
                await self._tick(is_sample=looks % SAMPLE_LOOKS == 0)
            looks += 1
            next_at = max(next_at + LOOK_SECONDS, time.monotonic())
            try:
                async with asyncio.timeout(next_at - time.monotonic()):
                    await self._closed.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        """End ``run``, and what is sent to pages."""
        self._closed.set()
        self._wake()

    async def _tick(self, *, is_sample: bool) -> None:
        try:
            overview = await self.overview()
        except NotAnswered as error:
            logger.warning("the admin port can't look at the system: %s", error)
            return
        if is_sample:
            self._history.add(overview)
        self._health.judge(overview)
        if self._pages:
            self._event = await self._page_event(self._event)
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _page_event(self, former: bytes) -> bytes:
        try:
            overview = await self.overview()
        except NotAnswered:
            return former
        sample = self._history.newest
        data = {"overview": slim(overview.as_json()), "sample": None if sample is None else sample.as_json()}
        return event("overview", data)

    async def _look(self) -> Overview:
        overview = await self._calls.run(self.control.overview)
        self._newest, self._newest_at_seconds = overview, time.monotonic()
        return overview

    def _looked(self, look: asyncio.Task[Overview]) -> None:
        if self._look_under_way is look:
            self._look_under_way = None
        if not look.cancelled():
            look.exception()  # whoever asked has been told


def slim(overview: dict[str, Any]) -> dict[str, Any]:
    """Empty the histograms: a page needs their percentiles, and they are most of an overview."""
    for statistics in (overview["statistics"], *(process["statistics"] for process in overview["processes"])):
        for latencies in (statistics["latencies"], *statistics["steps"].values()):
            latencies["buckets"] = {}
    return overview
