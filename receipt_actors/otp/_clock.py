"""Time that can be replaced: every timer and every "now" of an actor system goes through one ``Clock``."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from receipt_actors.otp._reports import log

#: What has threads, which do not come along to the child of a fork: there its ``leave_behind`` is called.
with_threads: weakref.WeakSet[Any] = weakref.WeakSet()


def _leave_behind() -> None:
    for each in list(with_threads):
        each.leave_behind()


os.register_at_fork(after_in_child=_leave_behind)

CLOSE_SECONDS = 5.0  #: ``close`` waits so long for the thread, which may be in a callback


class Timer:
    """One callback at one time. Cancelling a timer that has fired does nothing."""

    __slots__ = ("_callback", "_timers", "due_seconds")

    def __init__(self, due_seconds: float, callback: Callable[[], None], timers: _Timers | None = None) -> None:
        if math.isnan(due_seconds):
            raise ValueError("a timer needs a time, not NaN")
        self.due_seconds = due_seconds
        self._callback: Callable[[], None] | None = callback
        self._timers = timers

    @property
    def is_over(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None and self._timers is not None:
            self._timers.cancelled += 1

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Clock(Protocol):
    """Where an actor system takes the time from."""

    def monotonic(self) -> float:
        """Seconds since some moment in the past; never goes back. It may stand still while the machine is suspended.

        Timers wait by it.
        """

    def boottime(self) -> float:
        """Seconds since some other moment in the past, those included in which the machine was suspended.

        For what is agreed on with other machines, such as a lease.
        """

    def time(self) -> float:
        """UNIX time in seconds, for what leaves the process."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` after that many seconds, on a thread of the clock; it must be short and must not raise."""

    def close(self) -> None:
        """Let no further timer fire."""


CLOCK_FUNCTIONS = ("monotonic", "boottime", "time", "call_later", "close")

SWEEP_AT_LEAST = 1_000  #: fewer cancelled timers than this are left where they are


class _Timers:
    """A heap of timers, earliest first, first come first among equals. Its owner guards it.

    Timers that were cancelled stay until most are; then they are swept out together.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self.cancelled = 0  # about: counted without a lock, and only to know when to sweep

    def add(self, timer: Timer) -> bool:
        """Add a timer and tell whether it is the next one now."""
        if self.cancelled > max(SWEEP_AT_LEAST, len(self._heap) // 2):
            self.cancelled = 0
            heap, self._heap = self._heap, []  # a finalizer may add one in the middle of this
            self._heap += [entry for entry in heap if not entry[2].is_over]
            heapq.heapify(self._heap)
        entry = (timer.due_seconds, next(self._order), timer)
        heapq.heappush(self._heap, entry)
        return self._heap[0] is entry

    def next_due(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Timer | None:
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[2]
        return None


class OwnTimers:
    """The timers of one process, which end with it. Those that are over are swept out now and then."""

    __slots__ = ("_sweep_at", "_timers")

    def __init__(self) -> None:
        self._timers: list[Timer] = []
        self._sweep_at = 8

    def add(self, timer: Timer) -> None:
        if len(self._timers) >= self._sweep_at:
            self._timers = [other for other in self._timers if not other.is_over]
            self._sweep_at = 8 + 2 * len(self._timers)
        self._timers.append(timer)

    def cancel_all(self) -> None:
        for timer in list(self._timers):
            timer.cancel()


class SystemClock:
    """The real time; its timers fire on one daemon thread, started with the first of them.

    They wait by the monotonic clock: what fell due while the machine was suspended fires as much later.
    """

    monotonic = staticmethod(time.monotonic)
    # Linux has such a clock, which costs as much again; elsewhere the monotonic one has to do.
    boottime = staticmethod(
        partial(time.clock_gettime, time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic
    )
    time = staticmethod(time.time)

    def __init__(self) -> None:
        self._timers = _Timers()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        with_threads.add(self)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, callback, self._timers)
        with self._changed:
            if self._closed:
                return timer
            if self._thread is None:
                thread = threading.Thread(target=self._fire_timers, name="otp-timers", daemon=True)
                thread.start()  # where there is none to be had, the next timer tries again
                self._thread = thread
            if self._timers.add(timer):
                self._changed.notify()
        return timer

    def leave_behind(self) -> None:
        self._timers = _Timers()
        self._changed = threading.Condition()
        self._thread = None

    def close(self) -> None:
        """Let no further timer fire. Waits for the timer thread, unless called from it, but not for a callback that
        hangs.
        """
        with self._changed:
            self._closed = True
            self._timers = _Timers()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def _fire_timers(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                timer = self._timers.pop_due(time.monotonic())
                if timer is None:
                    due = self._timers.next_due()
                    # Python refuses to wait longer than TIMEOUT_MAX; then it is time to look again.
                    self._changed.wait(
                        None if due is None else min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX)
                    )
                    continue
            try:
                timer.fire()
            except BaseException:  # others' timers must not suffer for it
                log(logging.ERROR, "a timer's callback failed", exc_info=True)


class ManualClock:
    """A clock that stands still until a test moves it. Its machine has been suspended for a day already."""

    def __init__(self, monotonic: float = 0.0, unix_time: float = 1_750_000_000.0) -> None:
        self._now = monotonic
        self._unix_offset = unix_time - monotonic
        self._suspended_seconds = 86_400.0  # so that what mixes its clocks is off by a day
        self._timers = _Timers()
        self._lock = threading.RLock()  # a finalizer may set a timer in the middle of this
        self._closed = False

    def monotonic(self) -> float:
        return self._now

    def boottime(self) -> float:
        return self._now + self._suspended_seconds

    def time(self) -> float:
        return self._now + self._unix_offset

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self._now + seconds, callback, self._timers)
        with self._lock:
            if not self._closed:
                self._timers.add(timer)
        return timer

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._timers = _Timers()

    def suspend(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"a machine can't be suspended for {seconds} seconds: 0 or more are expected")
        with self._lock:
            self._suspended_seconds += seconds
            self._unix_offset += seconds

    def advance(self, seconds: float) -> None:
        """Move the time on and fire what falls due on the way, in order, each at its own time.

        Raises:
            ValueError: ``seconds`` is negative (or NaN): a monotonic clock never goes back.
        """
        if not seconds >= 0:
            raise ValueError(f"a clock can't be moved by {seconds} seconds: 0 or more are expected")
        end = self._now + seconds
        while True:
            with self._lock:
                due = self._timers.next_due()
                if due is None or due > end:
                    self._now = max(self._now, end)  # another thread may have moved it further meanwhile
                    return
                self._now = max(self._now, due)
                timer = self._timers.pop_due(self._now)
            if timer is not None:
                timer.fire()
