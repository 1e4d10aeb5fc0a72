"""SIGTERM and SIGINT as something that the main thread can wait for, without ever missing one."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

from receipt_actors.errors import StartAbandoned

logger = logging.getLogger("receipt_actors")

ECHO_SECONDS = 0.2  #: in which the same signal counts once; shorter than anybody presses Ctrl-C twice


class StopSignals:
    """Waits for a signal to stop, or for ``wake``. A context manager, for the main thread; the handlers are its own.

    The second signal ends the process on the spot, with the exit code 128 + its number; ``before_end``, where somebody
    has set it, is called before. The same one at the same
    moment is no second one: ``timeout`` of coreutils, say, sends it to the process and then to its whole group.

    It is a byte in a socket that is waited for (``signal.set_wakeup_fd``), since nothing of ``threading`` will do: a
    signal that comes while the main thread is about to block on a lock, and waits for the GIL, is not noticed until the
    lock is free; and a handler that sets an event deadlocks when it interrupts the ``wait`` for it.
    """

    def __init__(self, numbers: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> None:
        self._numbers = numbers
        self.before_end: Callable[[], None] | None = None
        self._received: str | None = None
        self._received_at_seconds = 0.0  # monotonic
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    @property
    def received(self) -> str | None:
        """The name of the signal that was received, such as ``SIGTERM``; None as long as there was none."""
        return self._received

    def wake(self) -> None:
        """End the wait. May be called from any thread, and at any time."""
        with suppress(OSError):  # full of wake-ups, or closed
            self._writer.send(b"\0")

    def fileno(self) -> int:
        """Return what ``select`` finds readable once ``wait`` would not wait any more."""
        return self._reader.fileno()

    def wait(self, seconds: float | None) -> bool:
        """Wait for a signal or ``wake``, at most so long; tell whether there was one, now or earlier."""
        readable, _, _ = select.select([self._reader], [], [], seconds)
        return bool(readable)

    def pause_start(self, seconds: float) -> None:
        """Wait so long for the next try of something that a start needs.

        Raises:
            StartAbandoned: there was a signal or ``wake``.
        """
        if self.wait(seconds):
            logger.info("%s: it has not started", self.received)
            raise StartAbandoned

    def __enter__(self) -> Self:
        self._descriptor_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers_before = {number: signal.signal(number, self._stop) for number in self._numbers}
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor_before)
        self._reader.close()
        self._writer.close()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._received is None:
            self._received, self._received_at_seconds = name, time.monotonic()
        elif name != self._received or time.monotonic() - self._received_at_seconds > ECHO_SECONDS:
            if self.before_end is not None:
                self.before_end()
            os._exit(128 + number)
