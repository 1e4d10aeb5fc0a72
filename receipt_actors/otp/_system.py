"""The actor system: everything that actors share, and the only way to start one from outside; its heartbeat."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._clock import CLOCK_FUNCTIONS, Clock, SystemClock
from receipt_actors.otp._gen_server import Actor
from receipt_actors.otp._messages import (
    SHUTDOWN,
    AlreadyStarted,
    Crash,
    Name,
    NotStarted,
    Started,
    StartFinished,
    Starting,
    StartResult,
    check_seconds,
    shape_of,
)
from receipt_actors.otp._process import Process
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._reports import Report, log
from receipt_actors.otp._scheduler import (
    BlockingPool,
    Runtime,
    Scheduler,
    context,
    current_process,
    forget_current_process,
)

if TYPE_CHECKING:
    from receipt_actors.otp.sys import Chooser, EventKind

#: Guards names, states, links and monitors, of all systems: links and monitors may reach from one into another.
#: Who holds it may be interrupted on the same thread, by a finalizer or a signal handler that kills or sends: it is
#: re-entrant, and the blocks under it are written so that what they change holds wherever they may be interrupted.
LOCK = threading.RLock()


MAX_RESTART_COUNTS = 10_000  #: children whose restarts are remembered


def _counted_by(supervisor: Ref) -> Name:
    return supervisor.actor_urn if supervisor.name is None else supervisor.name


class StartError(Exception):
    """An actor did not start. ``result`` says why; a crash in its ``init`` is the ``__cause__``."""

    def __init__(self, actor_class: type[Actor], result: StartResult) -> None:
        super().__init__(f"{actor_class.__name__} did not start: {getattr(result, 'reason', result)}")
        self.result = result


class ActorSystem:
    """Names, processes, a clock and a scheduler thread of their own; two systems share nothing but the runtime's lock.

    A ``Ref`` of one may be sent to, linked and monitored from another. Its actors are not in pykka's global registry.
    Use it as a context manager, or call ``stop``.

    Args:
        name: stands before the names of its threads.
        clock: where its time comes from; the one that passes it closes it. None: the real time.

    Raises:
        TypeError: ``clock`` is none.
    """

    def __init__(self, name: str = "otp", clock: Clock | None = None) -> None:
        if clock is not None and not all(callable(getattr(clock, name, None)) for name in CLOCK_FUNCTIONS):
            raise TypeError(
                f"clock must have {', '.join(CLOCK_FUNCTIONS)}, as SystemClock has; {shape_of(clock)} has not"
            )
        self.name = name
        self.clock: Clock = SystemClock() if clock is None else clock
        self.owns_clock = clock is None  #: whether it ends with the system
        self.scheduler = Scheduler(f"{name}-scheduler", self.fail)
        self.lock = LOCK
        self.terms: dict[object, Any] = {}
        """What its actors share without sending it, by any key (OTP: ``persistent_term``, where references to ETS
        tables and counters are kept). It outlives them; what is in it must be safe to use from several threads.
        """
        # What ``sys`` was asked to watch of all of them; replaced, never changed.
        self.watched: Mapping[Hashable, tuple[Chooser, frozenset[EventKind]]] | None = None
        self._names: dict[Name, Process] = {}
        # These three are the runtime's own; ``processes`` and so on are for others.
        self.alive: dict[Process, None] = {}
        self.undead: dict[Process, None] = {}
        self.orphans: dict[Process, None] = {}  # who ends because its parent was killed
        self.report_listeners: tuple[Callable[[Report], object], ...] = ()  # replaced, never changed
        self._restarts: dict[tuple[Name, Hashable], int] = {}  # by supervisor and child
        # Those that are over go when nothing refers to them; a thread refers to its own.
        self._own_threads: weakref.WeakSet[Scheduler] = weakref.WeakSet()
        self._pools: weakref.WeakSet[BlockingPool] = weakref.WeakSet()
        self._stopped = False
        self._why_stopped = ""
        self._is_left_behind = False
        _systems.add(self)

    def start(self, actor_class: type[Actor], /, *args: Any, name: Name | None = None, **kwargs: Any) -> Ref:
        """Start an actor without a supervisor and wait for its ``init``, however long that takes.

        Raises:
            StartError: ``init`` failed or said ``IGNORE``, or the name is taken.
            RuntimeError: a pooled actor calls this and would have to wait, and nothing is started; ``start_link`` does
                not wait.
        """
        done = threading.Event()
        is_pooled = self.scheduler.is_current()
        if is_pooled and getattr(actor_class, "runtime", None) is Runtime.THREAD:
            self._check_may_start()
            raise RuntimeError(
                f"{actor_class.__name__} has a thread of its own, and a pooled actor must not wait for it"
            )
        process = self._create(actor_class, name, None)
        if isinstance(process, NotStarted):
            raise StartError(actor_class, process)
        result = process.start(args, kwargs, lambda _result: done.set())
        if result is None:
            if is_pooled:
                process.kill()
                raise RuntimeError(f"{actor_class.__name__} takes its time to start, and a pooled actor must not wait")
            done.wait()
            result = process.start_result
        if isinstance(result, Started):
            return result.ref
        assert result is not None
        error = StartError(actor_class, result)
        cause = result.reason if isinstance(result, NotStarted) else None
        raise error from (cause.exception if isinstance(cause, Crash) else None)

    def start_link(
        self, actor_class: type[Actor], /, *args: Any, name: Name | None = None, **kwargs: Any
    ) -> StartResult | Starting:
        """Start an actor as the linked child of the one that calls this (``gen_server:start_link``).

        If the child's ``init`` takes its time, ``Starting`` is returned and ``StartFinished`` follows as a message.

        Raises:
            RuntimeError: called from outside the system's actors.
            pykka.ActorDeadError: called by an actor that has been ended meanwhile.
        """
        parent = current_process()
        if parent is None or parent.system is not self:
            raise RuntimeError("start_link() is for the actors of this system; from outside use start()")
        process = self._create(actor_class, name, parent)
        if isinstance(process, NotStarted):
            return process
        ref = process.ref
        result = process.start(args, kwargs, lambda result: parent.put(Envelope(StartFinished(ref, result))))
        return Starting(ref) if result is None else result

    def _create(self, actor_class: type[Actor], name: Name | None, parent: Process | None) -> Process | NotStarted:
        if not isinstance(actor_class, type) or not issubclass(actor_class, Actor):
            raise TypeError(f"an actor's class is expected, a subclass of Actor or GenServer, not {actor_class!r}")
        if not isinstance(actor_class.runtime, Runtime):
            raise TypeError(f"{actor_class.__name__}.runtime must be a Runtime, not {actor_class.runtime!r}")
        taken = None if name is None else self._names.get(name)
        if taken is not None or self._stopped or context.running.process.observed:
            self._check_may_start()
        if taken is None:
            process = Process(self, actor_class, name=name, parent=parent)
            if self.watched is not None:
                from receipt_actors.otp.sys import watch_as_chosen  # loaded by what has set ``watched``

                watch_as_chosen(process, self.watched)
            try:
                taken = self._enter(process)
            except BaseException:
                process.discard()
                raise
            if taken is not None:  # since a moment ago
                process.discard()
        if taken is not None:
            return NotStarted(AlreadyStarted(taken.ref))
        return process

    def _check_may_start(self) -> None:
        starter = current_process()
        if starter is not None and starter.is_set():
            raise pykka.ActorDeadError(f"{starter.ref} has ended; what it still starts comes to nothing")
        self._check_not_stopped()

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise RuntimeError(f"actor system {self.name!r} has been stopped{self._why_stopped}")

    def _enter(self, process: Process) -> Process | None:
        name, parent = process.name, process.parent
        with self.lock:
            if self._stopped or context.running.process.observed:
                self._check_may_start()
            if name is not None:
                taken = self._names.setdefault(name, process)
                if taken is not process:
                    return taken
            if parent is not None:
                process.linked.add(parent)
                parent.linked.add(process)
            self.alive[process] = None
        return None

    def free_name(self, process: Process) -> None:
        if process.name is not None and self._names.get(process.name) is process:
            del self._names[process.name]

    def bury(self, process: Process) -> None:
        if process in self.undead:
            with self.lock:
                self.undead.pop(process, None)

    def zombies(self) -> list[Ref]:
        """Return the actors that were ended from outside while a callback ran that still runs, oldest first.

        What a zombie sends comes to nothing; but the call that holds its thread may still have an effect outside.
        """
        with self.lock:
            zombies = list(self.undead)
        return [process.ref for process in zombies]

    def whereis(self, name: Name) -> Ref | None:
        """Return the actor that is registered under the name, or None."""
        process = self._names.get(name)
        return None if process is None else process.ref

    def registered(self) -> dict[Name, Ref]:
        with self.lock:
            names = dict(self._names)
        return {name: process.ref for name, process in names.items()}

    def processes(self) -> list[Ref]:
        """Return all actors that live, oldest first."""
        with self.lock:
            processes = list(self.alive)
        return [process.ref for process in processes]

    def add_report_listener(self, listener: Callable[[Report], object]) -> None:
        """Call ``listener(report)`` with each report of this system's supervisors and crashing actors.

        It is called on an actor's thread and at every log level, so it must be quick and not block: it may cast. What
        it raises is logged.
        """
        with self.lock:
            self.report_listeners = (*self.report_listeners, listener)

    def remove_report_listener(self, listener: Callable[[Report], object]) -> None:
        with self.lock:
            self.report_listeners = tuple(other for other in self.report_listeners if other != listener)

    def restarts_of(self, supervisor: Ref, child_id: Hashable) -> int:
        """Count how often a supervisor has started a child again, since the system was started.

        A supervisor that has a name goes on counting where the one before it under this name stopped.
        """
        return self._restarts.get((_counted_by(supervisor), child_id), 0)

    def count_restart(self, supervisor: Ref, child_id: Hashable) -> None:
        key = (_counted_by(supervisor), child_id)
        with self.lock:
            count = self._restarts.pop(key, 0)
            if len(self._restarts) >= MAX_RESTART_COUNTS:
                del self._restarts[next(iter(self._restarts))]  # who has not been restarted for the longest time
            self._restarts[key] = count + 1

    def new_scheduler(self, name: str) -> Scheduler:
        scheduler = Scheduler(f"{self.name}-{name}", self.fail)
        with self.lock:
            self._own_threads.add(scheduler)
        return scheduler

    def new_blocking_pool(self, name: str, size: int) -> BlockingPool:
        """Make a pool of threads for blocking calls. It is closed when the actor that calls this ends; ``stop`` waits.

        Raises:
            RuntimeError: the system has been stopped.
        """
        pool = BlockingPool(f"{self.name}-{name}", size)
        with self.lock:
            self._check_not_stopped()
            self._pools.add(pool)
        owner = current_process()
        if owner is not None:
            monitor = owner.add_monitor(lambda _down: pool.close())
            pool.when_closed = lambda: owner.remove_monitor(monitor)
        return pool

    def stop(self, timeout_seconds: float = 5.0) -> list[str]:
        """End every actor, those without a supervisor newest first, then the system's own threads.

        Actors that do not end in time are killed. Each without a supervisor has its share of the time left, so that one
        which does not end leaves some to the others. A second call finds nothing left to do.

        Returns:
            The names of threads that are still busy in a callback that does not return; CPython can't end them. They
            are daemon threads, so they don't keep the Python process alive.

        Raises:
            RuntimeError: a pooled actor calls this: all others would wait for it while it waits for them.
            pykka.ActorDeadError: an actor calls this that has been ended meanwhile.
        """
        caller = current_process()
        if caller is not None and caller.is_set():
            raise pykka.ActorDeadError(f"{caller.ref} has ended; what it still does comes to nothing")
        if self.scheduler.is_current():
            raise RuntimeError("a pooled actor can't stop its own actor system: have a thread outside do it")
        check_seconds(timeout_seconds)
        if self._is_left_behind:
            return []
        deadline = time.monotonic() + min(timeout_seconds, threading.TIMEOUT_MAX)

        def seconds_left() -> float:
            return max(0.0, deadline - time.monotonic())

        while (roots := self._roots()) and seconds_left():
            for index, process in enumerate(roots):
                process.signal(None, SHUTDOWN)  # from the system, also where an actor's thread calls this
                process.wait(seconds_left() / (len(roots) - index))
        with self.lock:
            self._stopped = True
        for ref in reversed(self.processes()):
            ref.process.kill()  # also where the actor that calls this has been killed meanwhile
        if self.owns_clock:
            self.clock.close()
        self.scheduler.stop()
        with self.lock:
            pools = list(self._pools)
            threads: list[Scheduler | BlockingPool] = [self.scheduler, *self._own_threads, *pools]
        for pool in pools:
            pool.close()
        return [thread.name for thread in threads if not thread.join(max(0.1, seconds_left()))]

    def fail(self, error: BaseException) -> None:
        """End every actor at once, as crashed with this error: a thread of the runtime can't go on.

        No ``terminate`` is called, and no supervisor restarts anything. Links and monitors see the error as they see
        any crash. ``stop`` has still to be called, and nothing can be started any more. From any thread.
        """
        log(logging.CRITICAL, "actor system %r has failed, and ends", self.name, exc_info=error)
        with self.lock:
            self._stopped = True
            self._why_stopped = f" by a failure of its runtime ({type(error).__name__})"
        raised: BaseException | None = None
        for ref in reversed(self.processes()):
            try:
                ref.process.exit(Crash(error), is_cut_short=True)
            except BaseException as another:  # no memory, say: the others end all the same
                raised = another
        if raised is not None:
            raise raised

    @property
    def is_stopped(self) -> bool:
        """Whether nothing can be started any more: it has been stopped, or has failed."""
        return self._stopped

    def _leave_behind(self) -> None:
        self.lock = LOCK
        self._stopped = self._is_left_behind = True
        self._why_stopped = " by a fork: make a new one in the child"
        for process in [*self.alive, *self.undead]:
            process.leave_behind()
        for known in (self.alive, self.undead, self.orphans, self._names):
            known.clear()
        for scheduler in (self.scheduler, *self._own_threads):
            scheduler.leave_behind()  # one of them may have forked, and must not wait for more after its callback

    def _roots(self) -> list[Process]:
        processes = [ref.process for ref in reversed(self.processes()) if ref.process is not current_process()]
        return [process for process in processes if process.parent is None or process.parent.is_set()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.stop()


_systems: weakref.WeakSet[ActorSystem] = weakref.WeakSet()


def _leave_behind() -> None:
    global LOCK
    LOCK = threading.RLock()
    for system in list(_systems):
        system._leave_behind()
    forget_current_process()


os.register_at_fork(after_in_child=_leave_behind)


# --- the heartbeat ---


TICK_SECONDS = 5.0
MAX_MISSED_TICKS = 12  #: without a beat, until the system has failed
GRACE_TICKS = 4  #: for the system to end then


class NoProgress(Exception):
    """A thread of an actor system is stuck, or has died."""


class Heartbeat:
    """Ends the system (``ActorSystem.fail``) once it makes no progress. It has two daemon threads, until ``stop``.

    At each tick it sets a timer that puts a beat into the scheduler's queue. A beat that has been run shows that both
    threads work: the one for timers and the one for pooled actors. Ticks are counted, not seconds: while the whole
    Python process is stopped, nothing is ticking either.

    If the system can't be ended, the thread that watches raises ``NoProgress``, which goes to ``threading.excepthook``.

    Raises:
        RuntimeError: no thread can be started.
    """

    def __init__(
        self, system: ActorSystem, *, tick_seconds: float = TICK_SECONDS, max_missed_ticks: int = MAX_MISSED_TICKS
    ) -> None:
        self._system = system
        self._tick_seconds = tick_seconds
        self._max_missed_ticks = max_missed_ticks
        self._is_over = threading.Event()
        self._is_due = threading.Event()  # the end of the system, or of this
        self._beat = self._send_beat()  # here: the caller hears of it where there is no thread for timers
        self._threads: list[threading.Thread] = []
        try:
            # The one that ends it is there before it is needed: with no memory left a new thread may never begin.
            for work, name in ((self._end, "heartbeat-end"), (self._watch, "heartbeat")):
                thread = threading.Thread(target=work, name=f"{system.name}-{name}", daemon=True)
                thread.start()
                self._threads.append(thread)
        except RuntimeError:
            self.stop()
            raise

    def stop(self) -> None:
        """Watch no longer. Does not wait if a thread of its own calls this."""
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
            if missed == self._max_missed_ticks:
                self._is_due.set()
            elif missed >= self._max_missed_ticks + GRACE_TICKS:
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
        seconds = self._max_missed_ticks * self._tick_seconds
        frame = self._system.scheduler.frame()
        where = "" if frame is None else "".join(traceback.format_stack(frame))
        name = self._system.scheduler.name
        return NoProgress(f"nothing has been run for {seconds:g} s; {name} is at:\n{where}")


class _Beat:
    __slots__ = ("has_run",)

    def __init__(self) -> None:
        self.has_run = False

    def run(self) -> None:
        self.has_run = True

    def fail(self, error: BaseException) -> None:
        pass
