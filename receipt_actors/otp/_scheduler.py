"""What runs processes: one thread that takes them, ready one by one, from a queue.

There are two runtimes, and this is the one place that says which is which:

``POOLED``
    Every pooled process of a system shares **one** scheduler thread. Such a process costs no thread, only a kilobyte or
    two, and must not block: it would stop all others. Under the GIL a second scheduler thread makes a hop between
    actors slower, not faster.
``THREAD``
    The process has a scheduler of its own, so it may block (in a long poll, say) without holding up anyone.

Both run the same code; blocking calls that many processes need go to a ``BlockingPool`` instead. What can wait for the
outside world without blocking may be attached as a ``Poller``: the thread looks for it when nothing is ready, and
every ``TURNS_BETWEEN_LOOKS`` turns.

An error of one process ends that process. An error that escapes from a turn (there is no memory left to poll, say) ends
the thread, and with it the actor system: see ``ActorSystem.fail``.
"""

from __future__ import annotations

import enum
import gc
import logging
import queue
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from receipt_actors.otp._context import NOBODY, Running, context
from receipt_actors.otp._log import log
from receipt_actors.otp._pollers import Poller, Pollers

TURNS_BETWEEN_LOOKS = 64  #: of actors, while there is always one that is ready

_frames_lock = threading.Lock()


class Runtime(enum.Enum):
    """Which thread runs an actor; see the module."""

    POOLED = "pooled"
    THREAD = "thread"


class Runnable(Protocol):
    """What a scheduler runs: a process with messages waiting."""

    def run(self) -> None:
        """Handle a few messages, then return. Must not raise."""

    def fail(self, error: BaseException) -> None:
        """End: a bug of the runtime itself was met while it ran."""


class Scheduler:
    """One daemon thread and the queue of what is ready to run on it.

    ``on_failure`` is called on the thread when it ends because of an error; what that raises ends the thread as well.
    """

    __slots__ = ("_on_failure", "_pollers", "_ready", "_thread", "running")

    def __init__(self, name: str, on_failure: Callable[[BaseException], None]) -> None:
        self.running = Running()
        self._on_failure = on_failure
        self._ready: queue.SimpleQueue[Runnable | None] = queue.SimpleQueue()
        self._pollers: Pollers | None = None  # made for the first one
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def schedule(self, runnable: Runnable) -> None:
        """Run it when its turn comes."""
        self._put(runnable)

    def stop(self) -> None:
        """End the thread once it has come to this point of its queue. Does not wait."""
        self._put(None)

    def leave_behind(self) -> None:
        """Stop in the child of a fork, and touch no poller: their descriptors are the parent's as well."""
        self._pollers = None
        self.stop()

    def _put(self, runnable: Runnable | None) -> None:
        self._ready.put(runnable)
        pollers = self._pollers
        if pollers is not None and pollers.is_waiting:
            pollers.wake()

    def attach(self, poller: Poller) -> None:
        """Have a poller polled on this thread, until it is detached or the thread ends; called on this thread.

        Raises:
            OSError: out of file descriptors.
        """
        assert self.is_current()
        if self._pollers is None:
            self._pollers = Pollers()
        self._pollers.attach(poller)

    def detach(self, poller: Poller) -> None:
        """Poll it no more; called on this thread, before the poller closes its descriptor."""
        assert self.is_current()
        if self._pollers is not None:
            self._pollers.detach(poller)

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread's end; False when it is still running something."""
        if self.is_current():
            return False
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def name(self) -> str:
        """The thread's name."""
        return self._thread.name

    def is_running(self) -> bool:
        """Tell whether the thread lives."""
        return self._thread.is_alive()

    def frame(self) -> FrameType | None:
        """Return where the thread is in the code."""
        ident = self._thread.ident
        if ident is None:
            return None
        with _frames_lock:
            # A garbage collection in the middle of it deadlocks CPython before 3.12 (gh-106883): it lets go of the GIL.
            collects = gc.isenabled()
            try:
                gc.disable()  # within: ctrl-C may come right after it
                return sys._current_frames().get(ident)
            finally:
                if collects:
                    gc.enable()

    def is_current(self) -> bool:
        """Tell whether the caller runs on this scheduler's thread."""
        return context.running is self.running

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            self.running.process = NOBODY
            self._on_failure(error)
            if self._pollers is not None:
                self._pollers.stop()

    def _loop(self) -> None:
        context.running = self.running
        ready = self._ready
        while (runnable := ready.get()) is not None:
            try:
                runnable.run()
            except BaseException as error:  # a bug of the runtime itself; the other processes go on
                self._failed(runnable, error)
            if self._pollers is not None:
                self._loop_and_look(self._pollers)
                return

    def _loop_and_look(self, pollers: Pollers) -> None:
        ready = self._ready
        while True:
            for _ in range(TURNS_BETWEEN_LOOKS):
                if ready.empty():
                    break
                runnable = ready.get_nowait()  # nobody else takes from it
                if runnable is None:
                    if self._pollers is pollers:  # else it was left behind by a fork
                        pollers.stop()
                    return
                try:
                    runnable.run()
                except BaseException as error:  # as above
                    self._failed(runnable, error)
            pollers.look(ready)

    def _failed(self, runnable: Runnable, error: BaseException) -> None:
        log(logging.CRITICAL, "the actor runtime failed while running %s", type(runnable).__name__, exc_info=True)
        self.running.process = NOBODY
        try:
            runnable.fail(error)
        except BaseException:  # this thread is everybody's: whatever happens, it goes on
            log(logging.CRITICAL, "the actor runtime failed once more, in ending it", exc_info=True)
