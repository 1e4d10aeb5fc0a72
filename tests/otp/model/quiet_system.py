"""An actor system on a manual clock that knows when nothing runs any more: the way to wait without time.

Every turn of every process is counted from the moment it is scheduled to its end, on all threads. A process that runs
schedules whom it sends to before its own turn ends, so a count of 0 means that nobody runs, or ever will by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from receipt_actors.otp import ActorSystem, ManualClock
from receipt_actors.otp._scheduler import Runnable, Scheduler
from tests.otp.support import WAIT_SECONDS


class _Turns:
    def __init__(self) -> None:
        self._none_left = threading.Condition()
        self._count = 0

    def begin(self) -> None:
        with self._none_left:
            self._count += 1

    def end(self) -> None:
        with self._none_left:
            self._count -= 1
            if not self._count:
                self._none_left.notify_all()

    def wait(self) -> bool:
        with self._none_left:
            return self._none_left.wait_for(lambda: not self._count, WAIT_SECONDS)


class _CountedTurn:
    def __init__(self, runnable: Runnable, turns: _Turns) -> None:
        self._runnable = runnable
        self._turns = turns

    def run(self) -> None:
        try:
            self._runnable.run()
        finally:
            self._turns.end()

    def fail(self, error: BaseException) -> None:
        self._runnable.fail(error)


class _CountingScheduler(Scheduler):
    """Counts what it will run; what comes behind the order to stop is never run."""

    def __init__(self, name: str, turns: _Turns, on_failure: Callable[[BaseException], None]) -> None:
        self._turns = turns
        self._stopping = False
        self._order = threading.Lock()
        super().__init__(name, on_failure)

    def schedule(self, runnable: Runnable) -> None:
        with self._order:
            if not self._stopping:
                self._turns.begin()
                super().schedule(_CountedTurn(runnable, self._turns))

    def stop(self) -> None:
        with self._order:
            self._stopping = True
            super().stop()


class QuietSystem(ActorSystem):
    """See the module."""

    clock: ManualClock

    def __init__(self) -> None:
        self._turns = _Turns()
        super().__init__("model", ManualClock())
        self.scheduler.stop()
        self.scheduler = _CountingScheduler(self.scheduler.name, self._turns, self.fail)

    def new_scheduler(self, name: str) -> Scheduler:
        scheduler = _CountingScheduler(f"{self.name}-{name}", self._turns, self.fail)
        self._own_threads[scheduler] = None
        return scheduler

    def settle(self) -> None:
        """Wait until nothing runs."""
        assert self._turns.wait(), f"after {WAIT_SECONDS} s somebody still runs: {self.processes()}"

    def advance_to(self, moment: float) -> None:
        """Move the clock on, and wait until nothing runs."""
        self.clock.advance(moment - self.clock.monotonic())
        self.settle()

    def close(self) -> None:
        """End everyone, whatever they wait for, and see that nothing is left."""
        for ref in self.processes():
            ref.kill()
        assert self.stop() == []
        assert self.processes() == []
        assert self.registered() == {}
