"""``Watch``: looks at the system for all clients, and keeps the history; ``Calls`` carries out what blocks.

A watch owns the newest overview, the samples of the last minutes, and what all open pages are sent. It looks every two
seconds, every second while a page is open, and on a request; a request during a look, or shortly after one, shares it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from receipt_actors.admin.streams import KEEP_ALIVE, event
from receipt_actors.errors import ReceiptActorsError
from receipt_actors.telemetry.control import SystemControl
from receipt_actors.telemetry.health import Health, HealthWatch
from receipt_actors.telemetry.overview import Overview
from receipt_actors.telemetry.statistics import Latencies

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  #: between two looks at the system while a page is open
SAMPLE_LOOKS = 2  #: looks from one sample of the history to the next; without a page there is no look in between
FRESH_SECONDS = 0.5  #: a look that is not older is shared
HISTORY_SAMPLES = 300  #: ten minutes
MAX_PAGES = 16  #: pages that are kept up to date at once
MAX_CALLS = 16  #: calls to the system under way, each on a thread
ANSWER_SECONDS = 8.0  #: for the system to answer
JOIN_SECONDS = 0.1  #: for each thread to end

Result = TypeVar("Result")


class NotAnswered(ReceiptActorsError):
    """The system, or this server, has no answer just now."""


class Calls:
    """Carries out calls that block, each on a daemon thread: the program may end while one takes long.

    Made and used within the event loop, but for ``join``.
    """

    def __init__(self) -> None:
        self._count = 0  # of calls under way
        self._threads: list[threading.Thread] = []
        self._closed = asyncio.Event()

    async def run(
        self, call: Callable[[], Result], *, if_late: Callable[[Result], object] = lambda _result: None
    ) -> Result:
        """Return what ``call`` returns, and raise what it raises.

        ``if_late`` gets the result if it comes after the time-out.

        Raises:
            NotAnswered: it takes too long, there are too many calls, or the server stops.
        """
        if self._closed.is_set():
            raise NotAnswered("the admin port is being closed")
        if self._count >= MAX_CALLS:
            raise NotAnswered("too many requests wait for the system: try again")
        outcome: Future[Result] = Future()

        def carry_out() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the caller of ``run`` gets it
                outcome.set_exception(error)

        self._count += 1
        answer = asyncio.wrap_future(outcome)
        answer.add_done_callback(self._done)
        self.begin(carry_out)
        closing = asyncio.create_task(self._closed.wait())
        either: set[asyncio.Future[Any]] = {answer, closing}
        try:
            await asyncio.wait(either, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
        if answer.done():
            return answer.result()
        answer.add_done_callback(lambda late: None if late.exception() else if_late(late.result()))
        if self._closed.is_set():
            raise NotAnswered("the admin port is being closed")
        raise NotAnswered(f"the system has not answered within {ANSWER_SECONDS:g} s")

    def begin(self, call: Callable[[], None]) -> None:
        """Have ``call`` carried out without waiting for it. It must not raise."""
        thread = threading.Thread(target=call, name="receipt-actors-admin-call", daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def close(self) -> None:
        self._closed.set()

    def join(self) -> None:
        """Wait a moment for the threads to end, on whatever thread; one whose call hangs is left behind."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _done(self, answer: asyncio.Future[Any]) -> None:
        self._count -= 1
        if not answer.cancelled():
            answer.exception()  # one that came too late has been told as a time-out


def sample_between(before: Overview, after: Overview) -> dict[str, Any]:
    """Say in JSON's types what was done between two looks. Counts are of this interval."""
    done = after.statistics.since(before.statistics)
    return {
        "at_seconds": after.at_seconds,  # UNIX time of its end
        "seconds": max(0.0, after.at_seconds - before.at_seconds),
        "received": done.received,
        "answered": done.count("answered"),
        "handed_back": done.count("handed_back"),
        "moved": done.count("moved"),
        "in_flight": sum(process.in_flight for process in after.processes),
        **_percentiles(done.latencies),  # from receive to delete, of what was finished in it; None: nothing was
        "cpu_seconds": after.cpu_seconds_since(before),  # of all processes
        "queue_depth": after.waiting,  # of the source queues together; None: not known
        "steps": {step: _percentiles(latencies) for step, latencies in done.steps.items()},
    }


def _percentiles(latencies: Latencies) -> dict[str, float | None]:
    return {f"p{percent}_seconds": latencies.percentile_seconds(percent) for percent in (50, 95, 99)}


class History:
    """The newest samples; the first look makes none."""

    def __init__(self) -> None:
        self._samples: deque[dict[str, Any]] = deque(maxlen=HISTORY_SAMPLES)
        self._last: Overview | None = None

    @property
    def newest(self) -> dict[str, Any] | None:
        return self._samples[-1] if self._samples else None

    def add(self, overview: Overview) -> None:
        if self._last is not None:
            self._samples.append(sample_between(self._last, overview))
        self._last = overview

    def as_json(self) -> dict[str, Any]:
        interval_seconds = LOOK_SECONDS * SAMPLE_LOOKS
        return {"interval_seconds": interval_seconds, "samples": list(self._samples)}


class Watch:
    """Made and used within the event loop. What it returns may raise ``NotAnswered``."""

    def __init__(self, calls: Calls, control: Callable[[], SystemControl | None]) -> None:
        self._calls = calls
        self._control = control
        self._history = History()
        self._health = HealthWatch()
        self._look_under_way: asyncio.Task[Overview] | None = None
        self._newest: Overview | None = None
        self._newest_at_seconds = float("-inf")  # monotonic
        self._pages = 0
        self._page_overview: Overview | None = None  # that is in the event
        self._page_event = b""
        self._closed = asyncio.Event()

    @property
    def control(self) -> SystemControl:
        control = self._control()
        if control is None:
            raise NotAnswered("the system has not been started yet")
        return control

    async def overview(self) -> Overview:
        """Return how the system looks now, or looked a moment ago."""
        if self._newest is not None and time.monotonic() - self._newest_at_seconds < FRESH_SECONDS:
            return self._newest
        if self._look_under_way is None:
            self._look_under_way = asyncio.create_task(self._look())
            self._look_under_way.add_done_callback(self._looked)
        return await asyncio.shield(self._look_under_way)

    def forget(self) -> None:
        """Have the next request take a new look: the system was told to do something else."""
        self._newest = None
        self._look_under_way = None

    async def health(self) -> Health:
        return self._health.judge(None if self._control() is None else await self.overview())

    def history(self) -> Mapping[str, Any]:
        return self._history.as_json()

    def open_page(self) -> bool:
        """Count one more page; False if there are as many as there may be."""
        if self._pages >= MAX_PAGES:
            return False
        self._pages += 1
        return True

    def close_page(self) -> None:
        self._pages -= 1

    async def page_events(self) -> AsyncIterator[bytes]:
        """Yield what an open page gets to know: at once, and every second."""
        told: Overview | None = None
        while not self._closed.is_set():
            try:
                overview = await self.overview()
            except NotAnswered:
                yield KEEP_ALIVE
            else:
                if overview is not told:
                    told = overview
                    yield self._event_of(overview)
            await self._wait(LOOK_SECONDS)

    async def run(self) -> None:
        while not self._closed.is_set():
            if self._control() is not None:
                await self._sample()
            await self._wait(LOOK_SECONDS * SAMPLE_LOOKS)

    def close(self) -> None:
        self._closed.set()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    async def _sample(self) -> None:
        try:
            overview = await self.overview()
        except NotAnswered as error:
            if not self._closed.is_set():
                logger.warning("the admin port has no answer from the system: %s", error)
            return
        self._health.judge(overview)
        self._history.add(overview)

    def _event_of(self, overview: Overview) -> bytes:
        if overview is not self._page_overview:
            self._page_overview = overview
            data = {"overview": slim(overview.as_json()), "sample": self._history.newest}
            self._page_event = event("overview", data)
        return self._page_event

    async def _look(self) -> Overview:
        this = self._look_under_way
        look = asyncio.ensure_future(self._calls.run(self.control.overview))
        await asyncio.wait({look})
        error = look.exception()
        if isinstance(error, NotAnswered):
            raise error
        if error is not None:
            logger.error("the system can't be looked at", exc_info=error)
            raise NotAnswered("the system can't be looked at, see the log") from error
        if self._look_under_way is this:
            self._newest, self._newest_at_seconds = look.result(), time.monotonic()
        return look.result()

    def _looked(self, look: asyncio.Task[Overview]) -> None:
        if self._look_under_way is look:
            self._look_under_way = None
        if not look.cancelled():
            look.exception()  # the client has had its error


def slim(overview: dict[str, Any]) -> dict[str, Any]:
    """Empty the histograms: a page needs their percentiles, and they are most of an overview."""
    for statistics in (overview["statistics"], *(process["statistics"] for process in overview["processes"])):
        of_calls = (calls["latencies"] for calls in statistics["calls"].values())
        for latencies in (statistics["latencies"], *statistics["steps"].values(), *of_calls):
            latencies["buckets"] = {}
    return overview
