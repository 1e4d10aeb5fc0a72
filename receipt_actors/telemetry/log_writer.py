"""``LogWriter``: a log handler that never waits for who reads the log.

A log goes to a pipe as a rule, and a pipe whose reader is slow or stuck takes nothing more once it is full: whoever
writes to it then waits, in the middle of an actor, and with it the whole system. So a thread writes, from a bounded
queue; what does not fit in is lost, counted, and told as soon as there is room.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable

MAX_WAITING_BYTES = 1024 * 1024  #: of lines that have been logged and not been written
FLUSH_SECONDS = 1.0  #: for the rest to be written when the process ends


class LogWriter(logging.StreamHandler["_Lines"]):
    """Writes lines to a file descriptor, which stays open.

    ``close`` (``logging.shutdown`` calls it when the process ends) waits until all is written, but no longer than
    ``flush_seconds``. A process that is killed may lose the lines of its last moment.
    """

    def __init__(
        self, descriptor: int, *, max_waiting_bytes: int = MAX_WAITING_BYTES, flush_seconds: float = FLUSH_SECONDS
    ) -> None:
        super().__init__(_Lines(descriptor, max_waiting_bytes, self._loss))
        self._flush_seconds = flush_seconds

    def _loss(self, lost: int) -> str:
        words = "%d lines lost: the log's reader is too slow"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, words, (lost,), None)
        return self.format(record) + self.terminator

    def close(self) -> None:
        """Write what waits, for a while."""
        self.stream.close(self._flush_seconds)
        super().close()


class _Lines:
    """A stream that takes each line at once, or counts it as lost, and has a thread that writes them."""

    def __init__(self, descriptor: int, max_waiting_bytes: int, loss: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._max_waiting_bytes = max_waiting_bytes
        self._loss = loss
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        data = line.encode(errors="backslashreplace")
        with self._changed:
            # Once lines are lost there has to be some room again: else each other line would tell of losses.
            room = self._max_waiting_bytes // 2 if self._lost else self._max_waiting_bytes
            if self._is_closed or self._waiting_bytes + len(data) > room:
                self._lost += 1
                return
            self._tell_losses()
            self._put(data)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="log", daemon=True)
                thread.start()  # where there is none to be had, the next line tries again
                self._thread = thread

    def flush(self) -> None:
        """Do nothing: a handler calls it after each line, and nobody is to wait."""

    def close(self, seconds: float) -> None:
        with self._changed:
            self._tell_losses()
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _tell_losses(self) -> None:
        if self._lost:
            self._put(self._loss(self._lost).encode(errors="backslashreplace"))
            self._lost = 0

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                data = self._waiting.popleft()
                self._waiting_bytes -= len(data)
            self._write(data)

    def _write(self, data: bytes) -> None:
        """Write one line, in one piece where that is possible: several processes may write to one pipe."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody else who has this pipe has made it so
                select.select([], [self._descriptor], [])
            except OSError:  # nobody will ever read it
                return
