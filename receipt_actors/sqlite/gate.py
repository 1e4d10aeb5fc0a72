"""The gate of an SQLite file: threads of this process that use the file take turns, and wait for each other's changes.

A thread that changes a queue wakes the threads that wait for that queue, and no others: with hundreds of queues a
message wakes one thread or two. Changes by another process wake no thread, so each that waits looks now and then:
``LOOKS_PER_SECOND`` all together, or 10 times a second each where they are few.
"""

from __future__ import annotations

import threading
from types import TracebackType

LOOK_SECONDS = 0.1  #: how late a change by another process may be noticed, where few threads wait
LOOKS_PER_SECOND = 100  #: of all threads that wait, at most: 1 to 2 % of a core


class Gate:
    """See the module. As a context manager it is a lock, which a thread may hold several times over.

    The caller of a method holds it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: dict[str, list[threading.Condition]] = {}  # by queue
        self._count = 0  # of those that wait

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def wait(self, queue: str, seconds: float) -> None:
        """Let others in until one of them tells of this queue, for so long at most, or until it is time to look."""
        condition = threading.Condition(self._lock)
        waiting = self._waiting.setdefault(queue, [])
        waiting.append(condition)
        self._count += 1
        try:
            condition.wait(min(seconds, max(LOOK_SECONDS, self._count / LOOKS_PER_SECOND)))
        finally:
            self._count -= 1
            waiting.remove(condition)
            if not waiting:
                del self._waiting[queue]

    def tell(self, queue: str) -> None:
        """Wake those who wait for this queue."""
        for condition in self._waiting.get(queue, ()):
            condition.notify()

    def tell_all(self) -> None:
        """Wake everybody."""
        for queue in self._waiting:
            self.tell(queue)
