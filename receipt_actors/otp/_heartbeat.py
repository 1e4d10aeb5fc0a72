"""``Heartbeat``: notices from outside that the threads of an actor system make no progress any more.

At each tick it sets a timer that puts a beat into the scheduler's queue. A beat that has been run shows that both
threads work: the one for timers and the one for pooled actors. A thread that has died runs none, nor does one whose
actor blocks or computes without end.

Ticks are counted, not seconds: while the whole process is stopped or gets no time, nothing is ticking either.
"""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receipt_actors.otp._system import ActorSystem

TICK_SECONDS = 5.0
PATIENCE_TICKS = 12  #: without a beat, until the system has failed
GRACE_TICKS = 4  #: for the system to end then


class NoProgress(Exception):
    """A thread of an actor system is stuck, or has died."""


class Heartbeat:
    """Ends the system (``ActorSystem.fail``) once it makes no progress. It has two daemon threads, until ``stop``.

    One watches, the other ends the system: it may have to wait for a lock. It is there from the beginning, because
    where memory is short a new thread may never begin, and ``Thread.start`` waits for ever. If the system can't be
    ended, the thread that watches raises ``NoProgress``, which goes to ``threading.excepthook``.

    Raises:
        RuntimeError: no thread can be started.
    """

    def __init__(
        self, system: ActorSystem, *, tick_seconds: float = TICK_SECONDS, patience_ticks: int = PATIENCE_TICKS
    ) -> None:
        self._system = system
        self._tick_seconds = tick_seconds
        self._patience_ticks = patience_ticks
        self._is_over = threading.Event()
        self._is_due = threading.Event()  # the end of the system, or of this
        self._beat = self._send_beat()  # here: the caller hears of it where there is no thread for timers
        self._threads: list[threading.Thread] = []
        try:
            for work, name in ((self._end, "heartbeat-end"), (self._watch, "heartbeat")):
                thread = threading.Thread(target=work, name=f"{system.name}-{name}", daemon=True)
                thread.start()
                self._threads.append(thread)
        except RuntimeError:
            self.stop()
            raise

    def stop(self) -> None:
        """Watch no longer. Does not wait where a thread of its own calls this."""
        self._is_over.set()
        self._is_due.set()
        if threading.current_thread() not in self._threads:
            for thread in self._threads:
                thread.join(self._tick_seconds)

    def _watch(self) -> None:
        missed = 0
        while not self._is_over.wait(self._tick_seconds):
            if self._system.is_stopped:
                return
            if self._beat.has_run:
                self._beat, missed = self._send_beat(), 0
                continue
            missed += 1
            if missed == self._patience_ticks:
                self._is_due.set()
            elif missed >= self._patience_ticks + GRACE_TICKS:
                raise self._error()

    def _end(self) -> None:
        self._is_due.wait()
        if not self._is_over.is_set():
            self._system.fail(self._error())

    def _send_beat(self) -> _Beat:
        beat, scheduler = _Beat(), self._system.scheduler
        if self._system.owns_clock:
            self._system.clock.call_later(0.0, lambda: scheduler.schedule(beat))
        else:  # it may be a clock that stands still
            scheduler.schedule(beat)
        return beat

    def _error(self) -> NoProgress:
        seconds = self._patience_ticks * self._tick_seconds
        frame = self._system.scheduler.frame()
        where = "" if frame is None else "".join(traceback.format_stack(frame))
        name = self._system.scheduler.name
        return NoProgress(f"nothing has been run for {seconds:g} s; {name} is at:\n{where}")


class _Beat:
    """What a scheduler runs; see the module."""

    __slots__ = ("has_run",)

    def __init__(self) -> None:
        self.has_run = False

    def run(self) -> None:
        self.has_run = True

    def fail(self, error: BaseException) -> None:
        """Do nothing: it has not run, then."""
