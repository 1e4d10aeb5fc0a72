"""``NetworkLoop``: the base of what waits for many sockets at once, and has no thread for each.

It takes work from any thread. The work is done in one place, together with what comes from the network:

- on the scheduler of an actor system (``run_on``), where the actors that ask run: no thread is woken, and none competes
  for the interpreter's lock. That costs a receipt 0.05 to 0.11 ms less than a thread does.
- else on a thread of its own, which is woken once for all work that gathers meanwhile.

It starts with the first work, and again with the next work after a crash. It waits by epoll, so it needs Linux.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Generic, Protocol, TypeVar

from receipt_actors.otp import Scheduler

CLOSE_SECONDS = 5.0  #: ``close`` waits so long for the thread, which may be in the middle of a callback

T = TypeVar("T")


class Running(Protocol[T]):
    """What is under way, and the connections. All of it is called in the loop's place."""

    def fileno(self) -> int:
        """Return the epoll of all connections, and of what wakes."""

    def due_at(self) -> float | None:
        """Return when ``go_on`` has work though no connection has: ``time.monotonic()``; None: never."""

    def look(self, timeout_seconds: float | None) -> None:
        """Wait until a connection has news, or for so long."""

    def go_on(self, work: deque[T]) -> None:
        """Do all that can be done now, the new work included; take it off the deque."""


class NetworkLoop(ABC, Generic[T]):
    """See the module."""

    def __init__(self, thread_name: str) -> None:
        self._thread_name = thread_name
        self._scheduler: Scheduler | None = None  # where it runs if it can
        self._lock = threading.Lock()  # guards what follows
        self._work: deque[T] = deque()  # the place itself adds to it without the lock
        self._place: Scheduler | threading.Thread | None = None  # where it runs
        self._wake_fd = -1
        self._is_woken = False
        self._is_closed = False
        self._has_ended = threading.Event()
        # Of the place alone:
        self._running: Running[T] | None = None
        self._taken: deque[T] = deque()  # work that is being done

    @abstractmethod
    def _open(self, wake_fd: int) -> Running[T]:
        """Begin: ``look`` is to end when ``wake_fd`` can be read. Raises ``OSError``."""

    @abstractmethod
    def _end(self, running: Running[T] | None, left: deque[T], crash: BaseException | None) -> None:
        """Close the connections, and give up what is under way or left.

        ``running`` is None where it did not start. ``crash`` is the reason; None where the loop was closed.
        """

    def run_on(self, scheduler: Scheduler) -> None:
        """Run on an actor system's scheduler, once its pooled actors have work for this."""
        self._scheduler = scheduler

    def submit(self, work: T) -> bool:
        """Have work done in the loop's place. Once the loop is closed, return False and do nothing.

        Raises:
            OSError, RuntimeError: the loop does not run yet, and can't.
        """
        scheduler = self._scheduler
        is_there = scheduler is not None and scheduler.is_current()
        if is_there and self._place is scheduler:
            self._work.append(work)  # it looks there when its turn comes
            return True
        with self._lock:
            if self._is_closed:
                return False
            if self._place is None and scheduler is not None and not is_there and scheduler.is_running():
                if not self._work:
                    scheduler.schedule(_Start(self))
                self._work.append(work)
                return True
            if self._place is None:
                self._start()
            self._work.append(work)
            self._wake()
        return True

    def start_for_work(self) -> None:
        """Start on the scheduler, whose thread calls this, for the work that has gathered."""
        with self._lock:
            if self._place is not None or not self._work:
                return
            try:
                self._start()
            except (OSError, RuntimeError) as error:
                left, self._work = self._work, deque()
                crash = error
            else:
                self._wake()
                return
        self._end(None, left, crash)

    def close(self) -> None:
        """End, and close the connections; what is under way is given up.

        May be called twice, and from any thread.
        """
        with self._lock:
            self._is_closed = True
            place = self._place
            left: deque[T] = deque()
            if place is not None:
                self._wake()
            else:
                left, self._work = self._work, left
        if left:
            self._end(None, left, None)
        if isinstance(place, Scheduler):
            if place.is_running() and not place.is_current():  # else it ends when its turn comes
                self._has_ended.wait(CLOSE_SECONDS)
        elif place is not None and place is not threading.current_thread():
            place.join(CLOSE_SECONDS)

    def _wake(self) -> None:  # with the lock held
        if not self._is_woken:
            self._is_woken = True
            os.eventfd_write(self._wake_fd, 1)

    # --- the place ---

    def _start(self) -> None:
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._has_ended.clear()
        try:
            self._running = self._open(self._wake_fd)
            if self._scheduler is not None and self._scheduler.is_current():
                self._scheduler.attach(self)
                self._place = self._scheduler
            else:
                thread = threading.Thread(target=self._run, name=self._thread_name, daemon=True)
                thread.start()
                self._place = thread
        except (OSError, RuntimeError):
            running, self._running = self._running, None
            if running is not None:
                self._end(running, deque(), None)
            os.close(self._wake_fd)
            raise

    def _turn(self, running: Running[T], timeout_seconds: float | None) -> None:
        running.look(timeout_seconds)
        with self._lock:
            if self._is_woken:
                self._is_woken = False
                os.eventfd_read(self._wake_fd)
            self._taken, self._work = self._work, self._taken
        running.go_on(self._taken)

    def _finish(self, crash: BaseException | None) -> None:
        with self._lock:
            running, self._running = self._running, None
            if running is None:
                return
            if isinstance(self._place, Scheduler):
                self._place.detach(self)
            self._place = None
            self._is_woken = False
            os.close(self._wake_fd)
            left = self._taken + self._work
            self._taken, self._work = deque(), deque()
        self._end(running, left, crash)
        self._has_ended.set()

    # --- on a thread of its own ---

    def _run(self) -> None:
        running = self._running
        assert running is not None
        crash: BaseException | None = None
        try:
            while not self._is_closed:
                due_at = running.due_at()
                self._turn(running, None if due_at is None else max(0.0, due_at - time.monotonic()))
        except BaseException as error:  # noqa: BLE001 - whoever waits is told, and the next work begins anew
            crash = error
        self._finish(crash)

    # --- on a scheduler: otp's ``Poller`` ---

    def fileno(self) -> int:
        """See ``Poller``."""
        assert self._running is not None
        return self._running.fileno()

    def due_at(self) -> float | None:
        """See ``Poller``."""
        assert self._running is not None
        return 0.0 if self._work else self._running.due_at()

    def poll(self) -> None:
        """See ``Poller``."""
        running = self._running
        assert running is not None
        try:
            self._turn(running, 0.0)
        except BaseException as error:  # noqa: BLE001 - as on a thread
            self._finish(error)
        if self._is_closed:
            self._finish(None)

    def stop(self) -> None:
        """See ``Poller``."""
        self._finish(None)


class _Start:
    """For a scheduler to run: start a loop there."""

    def __init__(self, loop: NetworkLoop[Any]) -> None:
        self._loop = loop

    def run(self) -> None:
        self._loop.start_for_work()

    def fail(self, error: BaseException) -> None:
        """Do nothing: the scheduler has logged the error, and ``close`` gives the work up."""
