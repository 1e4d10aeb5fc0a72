"""The threads that run processes, the fence around what has ended, pollers, and ``BlockingPool``."""

from __future__ import annotations

import enum
import gc
import logging
import os
import queue
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Protocol

from receipt_actors.otp._clock import with_threads
from receipt_actors.otp._reports import log

if TYPE_CHECKING:
    from receipt_actors.otp._process import Process

TURNS_BETWEEN_LOOKS = 64  #: of actors, while there is always one that is ready

_frames_lock = threading.RLock()  # a signal handler may look in the middle of a look


_LOOK_AGAIN_SECONDS: Final = 50e-6  #: while another thread is in the middle of a send, which takes less
_LOOKS: Final = 20_000  #: a second or more: only who is waited for in vain takes so long
LONGEST_WAIT_SECONDS = 3600.0  #: epoll takes no more than three weeks; then it is time to look again


class Runtime(enum.Enum):
    """Which thread runs an actor."""

    # A second thread for pooled actors would make a hop between them slower, not faster, as there is one GIL.
    POOLED = "pooled"  #: the one thread of all pooled actors of its system: it must not block
    THREAD = "thread"  #: one of its own, so it may block


# --- what a thread runs at this moment (Erlang: ``self()``) ---


class Nobody:  # what runs on a thread that is no actor's
    __slots__ = ()
    observed = False
    has_ended = False


NOBODY = Nobody()


class Running:
    """The process that one thread is running at this moment. Only that thread changes it.

    **The fence.** A process looks whether it has ended and sends while ``is_sending`` is set. What ends it from another
    thread first notes the end, then waits until ``is_sending`` is no longer set, and only then tells of the end. So
    nothing of a process arrives after its ``Down``: either it sees its end, or its message is waited for.
    """

    __slots__ = ("interrupted", "is_sending", "process")

    def __init__(self) -> None:
        self.process: Process | Nobody = NOBODY
        self.is_sending = False  # means nothing while no process runs
        self.interrupted: list[Process | Nobody] = []  # in the middle of starting another, say

    def enter(self, process: Process) -> None:
        """Run a process in the middle of another's turn (which starts it, say); ``leave`` must follow."""
        self.interrupted.append(self.process)
        self.process = process

    def leave(self) -> None:
        self.process = self.interrupted[-1]
        self.interrupted.pop()  # in this order: a kill from another thread always finds it in one of the two

    def is_inside(self, process: Process) -> bool:
        """Tell whether a callback of the process is under way (asked from any thread)."""
        # Once more at the end: ``leave`` may come between the two.
        return self.process is process or process in self.interrupted or self.process is process

    def send(self, effect: Callable[..., object], *args: Any) -> bool:
        """Have others notice something of the process that runs; False, and nothing is done, if it has ended.

        ``effect`` must not wait for another process, and end none. ``Ref.send`` and ``cast`` do the same in place.
        """
        before, self.is_sending = self.is_sending, True  # a finalizer may send in the middle of a send
        try:
            if self.process.has_ended:
                return False
            effect(*args)
            return True
        finally:
            self.is_sending = before

    def wait_for_send(self, ended: Process) -> None:
        """Wait until nothing of a process that has ended is on its way any more (called from any thread).

        A send waits for locks only. The caller may hold one of them (a finalizer, a signal handler or a name's
        ``__eq__`` ends a process in the middle of the runtime): then the two would wait for each other, so it gives up.
        """
        if context.running is self:
            return
        for _ in range(_LOOKS):
            if not (self.is_sending and self.is_inside(ended)):
                return
            time.sleep(_LOOK_AGAIN_SECONDS)


class _Context(threading.local):
    """Each thread's ``Running``; those that are no scheduler's share one that is never changed."""

    running = Running()


context = _Context()


def forget_current_process() -> None:
    """Note that the calling thread runs no process: it is the only one in the child of a fork."""
    context.running = _Context.running


def current_process() -> Process | None:
    process = context.running.process
    return None if process is NOBODY else process  # type: ignore[return-value]


# --- pollers ---
#
# So Erlang's schedulers poll for I/O themselves: what comes in is handled where the actors run, no other thread is
# woken for it, and none fights with theirs for the interpreter's lock.


class Poller(Protocol):
    """Something with a file descriptor to wait for. All of it is called on the scheduler's thread, and must not block.

    The descriptor may be an ``epoll`` of the poller's own. A poller that raises is logged, and polled no more.
    """

    def fileno(self) -> int: ...

    def due_at(self) -> float | None:
        """Return when ``poll`` is to be called though there is nothing to read (``time.monotonic()``), or None."""

    def poll(self) -> None: ...

    def stop(self) -> None:
        """Give up: the scheduler's thread ends."""


class Pollers:
    """The pollers of one scheduler. For its thread alone, except ``wake``."""

    __slots__ = ("_epoll", "_lock", "_pollers", "_wake_fd", "is_waiting")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # guards _wake_fd; a finalizer may schedule something in the middle of this
        self._epoll = select.epoll()  # first: should descriptors run out, it closes itself
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._pollers: dict[int, Poller] = {}
        self.is_waiting = False  #: whether the thread has to be woken

    def attach(self, poller: Poller) -> None:
        fd = poller.fileno()
        self._epoll.register(fd, select.EPOLLIN)
        self._pollers[fd] = poller

    def detach(self, poller: Poller) -> None:
        fd = next((fd for fd, other in self._pollers.items() if other is poller), None)
        if fd is not None:
            del self._pollers[fd]
            with suppress(OSError):  # closed already: then epoll has forgotten it
                self._epoll.unregister(fd)

    def wake(self) -> None:
        with self._lock:
            if self.is_waiting:
                self.is_waiting = False
                os.eventfd_write(self._wake_fd, 1)

    def look(self, ready: queue.SimpleQueue[Any]) -> None:
        """Poll those that are due or have something to read; wait for that, unless ``ready`` has something."""
        now = time.monotonic()
        due, wake_at = {}, inf
        for fd, poller in tuple(self._pollers.items()):
            try:
                due_at = poller.due_at()
            except BaseException:
                self._failed(poller)
                continue
            if due_at is None:
                continue
            if due_at <= now:
                due[fd] = poller
            wake_at = min(wake_at, due_at)
        if not due:
            # In this order: something that is queued while the thread does not wait yet is seen below.
            self.is_waiting = True
        wait_seconds = min(wake_at - now, LONGEST_WAIT_SECONDS) if not due and ready.empty() else 0.0
        events = self._epoll.poll(wait_seconds)
        self.is_waiting = False
        for fd, _ in events:
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            elif fd in self._pollers:
                due[fd] = self._pollers[fd]
        for fd, poller in due.items():
            if self._pollers.get(fd) is not poller:  # another one has had it detached
                continue
            try:
                poller.poll()
            except BaseException:
                self._failed(poller)

    def _failed(self, poller: Poller) -> None:
        log(logging.ERROR, "poller %s failed, and is polled no more", type(poller).__name__, exc_info=True)
        self.detach(poller)

    def stop(self) -> None:
        for poller in list(self._pollers.values()):
            try:
                poller.stop()
            except BaseException:
                log(logging.ERROR, "poller %s could not be stopped", type(poller).__name__, exc_info=True)
        self._pollers.clear()
        with self._lock:
            self.is_waiting = False
            self._epoll.close()
            os.close(self._wake_fd)


# --- the scheduler ---


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

    __slots__ = ("__weakref__", "_on_failure", "_pollers", "_ready", "_thread", "running")

    def __init__(self, name: str, on_failure: Callable[[BaseException], None]) -> None:
        self.running = Running()
        self._on_failure = on_failure
        self._ready: queue.SimpleQueue[Runnable | None] = queue.SimpleQueue()
        self._pollers: Pollers | None = None  # made for the first one
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread once it has come to this point of its queue. Does not wait."""
        self.schedule(None)

    def leave_behind(self) -> None:
        """Stop in the child of a fork, and touch no poller: their descriptors are the parent's as well."""
        self._pollers = None
        self.stop()

    def schedule(self, runnable: Runnable | None) -> None:
        self._ready.put(runnable)
        pollers = self._pollers
        if pollers is not None and pollers.is_waiting:
            pollers.wake()

    def attach(self, poller: Poller) -> None:
        """Poll a poller on this thread, until it is detached or the thread ends; called on this thread.

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
        """Wait for the thread's end; False if it is still running something."""
        if self.is_current():
            return False
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def name(self) -> str:
        return self._thread.name

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def frame(self) -> FrameType | None:
        ident = self._thread.ident
        if ident is None:
            return None
        with _frames_lock:
            # A garbage collection in the middle of it deadlocks CPython before 3.12 (gh-106883): it lets go of the GIL.
            collects = gc.isenabled()
            try:
                gc.disable()  # in here: ctrl-C may come as it returns
                return sys._current_frames().get(ident)
            finally:
                if collects:
                    gc.enable()

    def is_current(self) -> bool:
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
        ready, turns = self._ready, 0
        while True:
            pollers = self._pollers
            if pollers is not None and (turns >= TURNS_BETWEEN_LOOKS or ready.empty()):
                pollers.look(ready)
                turns = 0
                if ready.empty():
                    continue
            runnable = ready.get()
            if runnable is None:
                if pollers is not None:
                    pollers.stop()
                return
            try:
                runnable.run()
            except BaseException as error:  # a bug of the runtime itself; the other processes go on
                self._failed(runnable, error)
            turns += 1

    def _failed(self, runnable: Runnable, error: BaseException) -> None:
        log(logging.CRITICAL, "the actor runtime failed while running %s", type(runnable).__name__, exc_info=True)
        self.running.process = NOBODY
        try:
            runnable.fail(error)
        except BaseException:  # this thread is everybody's: whatever happens, it goes on
            log(logging.CRITICAL, "the actor runtime failed once more, in ending it", exc_info=True)


# --- threads for calls that block ---


class BlockingPool:
    """Runs blocking calls on at most ``size`` daemon threads, started as they are needed (Erlang: dirty I/O
    schedulers).

    Unlike ``concurrent.futures`` it never holds up the end of the process. Work beyond ``size`` waits in a queue, first
    come first served.
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
        with_threads.add(self)

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
        """End each thread after the call it is in and what waits in the queue. Does not wait."""
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
        """Wait for all threads to end after ``close``; False if a call still blocks one, or is what calls this."""
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return self.is_over

    def leave_behind(self) -> None:
        """Close in the child of a fork: no thread came along, and one may have held the condition."""
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
