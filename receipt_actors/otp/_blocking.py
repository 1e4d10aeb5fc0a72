"""A bounded pool of threads for calls that block (Erlang: dirty I/O schedulers)."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from receipt_actors.otp._reports import log


class BlockingPool:
    """Runs blocking calls on at most ``size`` daemon threads, started as they are needed.

    Unlike ``concurrent.futures`` it never holds up the end of the process: a call that hangs in the network is left
    behind. Work beyond ``size`` waits in a queue, first come first served.
    """

    def __init__(self, name: str, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"pool {name!r}: size must be a whole number of threads, 1 or more, not {size!r}")
        self.name = name
        self._size = size
        self._work: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()  # guards all of these
        self._threads: list[threading.Thread] = []
        self._idle = 0  # threads that wait for work, or have been woken for it
        self._closed = False
        self.when_closed: Callable[[], None] | None = None  # told once (the runtime's own)
        _pools.add(self)

    def submit(self, work: Callable[[], None]) -> bool:
        """Run ``work`` on a thread of the pool. False, and it is not run, after ``close``. What it raises is logged.

        Raises:
            RuntimeError: not even one thread can be started.
        """
        with self._changed:
            if self._closed:
                return False
            self._work.append(work)
            if len(self._work) <= self._idle:
                self._changed.notify()
            elif len(self._threads) < self._size:
                thread = threading.Thread(target=self._loop, name=f"{self.name}-{len(self._threads)}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # out of threads: those that there are do it in their turn
                    if not self._threads:
                        self._work.pop()
                        raise
                else:
                    self._threads.append(thread)
        return True

    def close(self) -> None:
        """End each thread after the call it is in; what still waits in the queue is done first. Does not wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            when_closed, self.when_closed = self.when_closed, None
        if when_closed is not None:
            when_closed()

    @property
    def busy_threads(self) -> int:
        """Count the threads that have work, or are about to take some."""
        with self._changed:
            living = sum(thread.is_alive() for thread in self._threads)
            return max(0, min(living, living - self._idle + len(self._work)))

    @property
    def is_over(self) -> bool:
        """Tell whether it is closed and no thread of it lives any more."""
        return self._closed and not any(thread.is_alive() for thread in self._threads)

    def join(self, timeout_seconds: float) -> bool:
        """Wait for all threads to end after ``close``; False when a call still blocks one, or is what calls this."""
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return self.is_over

    def leave_behind(self) -> None:
        """Close without a word, in the child of a fork: no thread came along, and one may have held the condition."""
        self._closed = True
        self._changed = threading.Condition()
        self._work = deque()
        self._threads = []

    def _loop(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        with self._changed:
            self._idle += 1
            while not self._work and not self._closed:
                self._changed.wait()
            self._idle -= 1
            if not self._work:
                return False
            work = self._work.popleft()
        try:
            work()
        except BaseException:  # the thread is there for others' work as well
            log(logging.ERROR, "work in pool %s failed", self.name, exc_info=True)
        return True


_pools: weakref.WeakSet[BlockingPool] = weakref.WeakSet()


def _leave_behind() -> None:
    for pool in list(_pools):
        pool.leave_behind()


os.register_at_fork(after_in_child=_leave_behind)
