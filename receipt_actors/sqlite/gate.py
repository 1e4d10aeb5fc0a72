"""The gate of an SQLite file: threads of this process that use the file take turns, and wait for each other's changes.

A thread that changes a queue wakes the threads that wait for that queue only. Changes by another process wake no
thread, so one waiting thread is the lookout: it looks ten times a second for all of them. When it leaves, another one
takes its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

LOOK_SECONDS = 0.1  #: how late a change by another process may be noticed


class _Waiter:
    """A thread that waits for a queue."""

    __slots__ = ("condition", "is_told", "known")

    def __init__(self, condition: threading.Condition, known: object) -> None:
        self.condition = condition
        self.known = known
        self.is_told = False

    def tell(self) -> None:
        self.is_told = True
        self.condition.notify()


class Gate:
    """See the module. As a context manager it is a lock, which a thread may hold several times over.

    The caller of a method holds it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: dict[str, list[_Waiter]] = {}  # by queue; none is empty, the one waited for longest is first
        self._lookout: _Waiter | None = None
        self._look_at = 0.0  # monotonic; when the next look is due

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def wait(self, queue: str, seconds: float, known: object, look: Callable[[], object]) -> None:
        """Let other threads in until one of them tells of this queue, at most for so long.

        ``known`` is what the caller knows of the queue; see ``tell_news``. ``look`` looks for changes by other
        processes, and tells. An error of it is raised here, and wakes all others that wait, which meet it as well.
        """
        me = _Waiter(threading.Condition(self._lock), known)
        if not self._waiting:  # what I know is new, and no other thread waits
            self._look_at = time.monotonic() + LOOK_SECONDS
        self._waiting.setdefault(queue, []).append(me)
        until = time.monotonic() + seconds
        try:
            while not me.is_told and (left := until - time.monotonic()) > 0:
                if self._lookout is None:
                    self._lookout = me
                if self._lookout is me:
                    due = self._look_at - time.monotonic()
                    if due > 0:
                        me.condition.wait(min(left, due))
                    if not me.is_told and time.monotonic() >= self._look_at:
                        self._look_at = time.monotonic() + LOOK_SECONDS
                        try:
                            look()
                        except BaseException:
                            self.tell_all()
                            raise
                else:
                    me.condition.wait(left)
        finally:
            others = self._waiting[queue]
            others.remove(me)
            if not others:
                del self._waiting[queue]
            if self._lookout is me:
                self._lookout = None
            if self._lookout is None and self._waiting:  # also if the one that was woken to be it has left
                next(iter(self._waiting.values()))[0].condition.notify()

    def tell(self, queue: str) -> None:
        """Wake the threads that wait for this queue."""
        for waiter in self._waiting.get(queue, ()):
            waiter.tell()

    def tell_news(self, state: Mapping[str, object]) -> None:
        """Wake the threads that know something else of their queue than ``state`` has."""
        for queue, waiters in self._waiting.items():
            for waiter in waiters:
                if waiter.known != state.get(queue):
                    waiter.tell()

    def tell_all(self) -> None:
        for queue in self._waiting:
            self.tell(queue)
