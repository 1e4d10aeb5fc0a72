"""The process: what Erlang's virtual machine keeps of each process, kept here for each actor.

A ``Process`` owns an actor's mailbox, name, links, monitors and life cycle; it runs the actor's callbacks one message
at a time, on one thread only, its scheduler's. It is the actor's pykka inbox and stop flag at once, which is what keeps
a process small. It is one object in four layers, each a module: links and monitors, mailbox and turns, callbacks and
what becomes of what they return, and here the start and the end.

**Life.** ``STARTING`` (``init`` runs) -> ``RUNNING`` -> ``TERMINATING`` (``terminate`` runs) -> ``EXITED``. However it
ends, ``_exit`` happens once: the name is freed, links and monitors are told, and whoever waits for an answer gets none.
``_exit`` may come from any thread (``kill``) in the middle of a turn: what that turn has in hand or takes up all the
same is given up once more at the turn's own end, and each answer counts only once.

**Ending from outside is honest.** CPython can't end a thread, so a callback that runs when its process is killed, or
ended by an exit signal that it does not trap, runs on: the process is a zombie until it returns. It is fenced: what it
still sends, answers or starts comes to nothing, and nothing of it arrives anywhere after its ``Down``
(``_context.Running``).

**Selective receive.** A callback may be a generator: ``message = yield Receive(matches, timeout)`` waits for one
message and leaves all others in the mailbox, in order, as Erlang's ``receive`` does; no thread waits meanwhile.

**One crash rule.** Whatever a callback raises (``SystemExit`` too), in ``init``, a call, a cast or an info, ends the
process with ``Crash``; a caller gets the exception as well. Other actors are touched through links and monitors only.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from pykka._envelope import Envelope

from receipt_actors.otp._callbacks import Callbacks
from receipt_actors.otp._calls import fail_reply
from receipt_actors.otp._clock import OwnTimers, Timer
from receipt_actors.otp._context import context
from receipt_actors.otp._debug import Debug
from receipt_actors.otp._life import EXITED, RUNNING, STARTING
from receipt_actors.otp._messages import (
    Down,
    Exit,
    Name,
    NotStarted,
    ParentExitEnvelope,
    Started,
    StartResult,
    SystemEnvelope,
)
from receipt_actors.otp._reasons import KILLED, NO_PROCESS, NORMAL, Crash, ExitReason, Killed, Normal, text_of
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._relations import tell_down
from receipt_actors.otp._scheduler import Runtime

if TYPE_CHECKING:
    from receipt_actors.otp._actor import Actor
    from receipt_actors.otp._system import ActorSystem

_NESTED_STARTS: Final = 16  #: who starts another in ``init``, and so on: more of them than this don't share one stack


class Process(Callbacks):
    """See the module."""

    __slots__ = (
        "__weakref__",
        "_acknowledge",
        "_timers",
        "has_ended",
        "name",
        "observed",
        "start_result",
        "trap_exit",
    )

    def __init__(
        self, system: ActorSystem, actor_class: type[Actor], *, name: Name | None, parent: Process | None
    ) -> None:
        super().__init__(
            system.scheduler
            if actor_class.runtime is Runtime.POOLED
            else system.new_scheduler(actor_class.__name__ if name is None else text_of(name))
        )
        self.system = system
        self.name = name
        self.parent = parent
        self.trap_exit = actor_class.trap_exit
        self.actor = None
        self.ref: Ref = Ref(self, actor_class)
        self.start_result: StartResult | None = None
        self.debug = None
        self.has_ended = False  # as ``is_set`` says, for those who look at each message
        self.observed = False  # whether what it sends has to be looked at: it has ended, or ``sys`` watches
        self._current = None
        self._ending = None
        self._acknowledge: Callable[[StartResult], None] | None = None
        self._timers: OwnTimers | None = None  # what it has set for later
        self._deferred = None

    def __repr__(self) -> str:
        return f"<Process {self.ref}>"

    # --- starting ---

    def start(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], acknowledge: Callable[[StartResult], None] | None
    ) -> StartResult | None:
        """Have ``init`` run and return its result, or None where ``acknowledge`` will be told later.

        On the thread of its own scheduler (a pooled actor that starts a pooled one) it runs here and now, no hop;
        unless too many are at that already, each in the ``init`` of the one before: the stack has an end.
        """
        running = context.running
        if running is not self._scheduler.running or (
            self.parent is not None and len(running.interrupted) >= _NESTED_STARTS
        ):
            result = self._acknowledge_to(acknowledge)
            if result is None:
                self._backlog = deque((SystemEnvelope(lambda: self._initialise(args, kwargs)),))
                self._scheduler.schedule(self)
            return result
        running.enter(self)
        try:
            if self._exit_signal is None:
                self._initialise(args, kwargs)
            else:  # of its parent, which has ended meanwhile
                self._exit(self._exit_signal)
        except BaseException as error:  # the runtime's own, as where the stack is used up: it must not stay half done
            self.fail(error)
        finally:
            running.leave()
        result = self.start_result
        if result is None:  # init is a generator that waits for a message
            result = self._acknowledge_to(acknowledge)
        self._end_turn(goes_on=False)
        return result

    def _acknowledge_to(self, acknowledge: Callable[[StartResult], None] | None) -> StartResult | None:
        """Return the result of the start where there is one already (it may have been killed); else promise it."""
        with self.system.lock:
            if self.start_result is None:
                self._acknowledge = acknowledge
            return self.start_result

    def _initialise(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            actor_class: Any = self.ref.actor_class
            actor: Actor = actor_class.__new__(actor_class)
            actor._otp_adopt(self)
            self.actor = actor
            if (args or kwargs) and actor_class.__init__ is actor_class._otp_takes_nothing:
                raise TypeError(f"{actor_class.__name__} has no __init__ that takes arguments (are they misspelt?)")
            actor.__init__(*args, **kwargs)  # type: ignore[misc]
            result = actor._otp_initialise()
        except BaseException as error:
            self._crash(error)
            return
        self._settle(None, result)

    def _acknowledge_start(self) -> bool:
        """Tell that it has started; False when it was ended from outside meanwhile, which has been told then."""
        return self._scheduler.running.send(self._tell_starter, Started(self.ref)) and self._state is RUNNING

    def _tell_starter(self, result: StartResult) -> None:
        with self.system.lock:
            if type(result) is Started:
                if self._state is not STARTING:
                    return
                self._state = RUNNING
            self.start_result = result
            acknowledge, self._acknowledge = self._acknowledge, None
        if acknowledge is not None:
            acknowledge(result)

    # --- stop flag (pykka's actor_stopped) ---

    @property
    def takes_messages(self) -> bool:
        """Tell whether its callbacks still get what is put into the mailbox: until ``terminate`` begins."""
        return self._state is RUNNING or self._state is STARTING

    def set(self) -> None:
        """End it at once (pykka's way of stopping from within)."""
        self.kill()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process has ended; False on time-out."""
        ended = threading.Event()
        monitor = self.add_monitor(lambda _down: ended.set())
        try:
            return ended.wait(timeout)
        finally:
            self.remove_monitor(monitor)

    # --- running ---

    def discard(self) -> None:
        """End before it has begun: its name was taken at this moment, or its system was stopped."""
        self._exit(NORMAL)
        if self._scheduler is not self.system.scheduler:
            self._scheduler.join(1.0)  # it has nothing to do, and ends at once

    def fail(self, error: BaseException) -> None:
        """End because of a bug of the runtime itself, so that nobody waits for this process for ever."""
        self._exit(Crash(error))
        self._end_last_turn()

    def watch(self, debug: Debug | None) -> None:
        """Begin being watched by ``sys``, go on otherwise, or end it, where nothing is watched any more."""
        if debug is not None:
            debug.changed()
            debug = None if debug.is_idle else debug
        with self.system.lock:
            self.debug = debug
            self.observed = debug is not None or self._state is EXITED

    def send_later(self, seconds: float, envelope: Envelope[Any]) -> Timer:
        """Put a message into its own mailbox after that many seconds, unless it has ended by then."""
        timer = self.system.clock.call_later(seconds, lambda: self.put(envelope))
        timers = self._timers
        if timers is None:
            timers = self._timers = OwnTimers()
        timers.add(timer)
        if self._state is EXITED:
            timer.cancel()
        return timer

    # --- ending ---

    def signal(self, sender: Process | None, reason: ExitReason) -> None:
        """Receive an exit signal (``exit/2``; see "Receiving Exit Signals" in Erlang's reference manual).

        A process that traps exits terminates when its parent sent it (or nobody did: the system), and gets ``Exit`` as
        a message from anyone else. One that does not ends at once, without ``terminate``, unless the reason is normal
        and it comes from another. A callback that is running is fenced, as by ``kill``.
        """
        self.take_signal(sender, reason)
        self.obey_signal()

    def take_signal(self, sender: Process | None, reason: ExitReason) -> None:
        """Note an exit signal; ``obey_signal`` must follow, once nothing is held that another may wait for."""
        if self.trap_exit:
            if sender is None or sender is self.parent:
                self.put(ParentExitEnvelope(reason))
            else:
                self.put(Envelope(Exit(sender.ref, reason)))
        elif not isinstance(reason, Normal) or sender is self:
            if self._exit_signal is None:  # the first one counts
                self._exit_signal = reason
            if self._scheduled.acquire(False):
                self._scheduler.schedule(self)

    def obey_signal(self) -> None:
        """End for an exit signal that has come while a callback runs; otherwise its next turn begins with that.

        Whom this end ends in turn, because it runs a callback and is linked, follows: not on a stack, which has an end.
        """
        ended: list[Process] = [self]
        while ended:
            process = ended.pop()
            reason = process._exit_signal
            if reason is not None and process._scheduler.running.is_inside(process):
                ended += process._end(reason, is_cut_short=True)

    def kill(self, killer: Process | None = None) -> None:
        """End the process now, without ``terminate`` (``exit(Pid, kill)``); nothing happens where its killer has ended.

        CPython can't kill a thread: a callback that is running goes on to its end, fenced, as a zombie.
        """
        for linked in self._end(KILLED, is_cut_short=True, killer=killer):
            linked.obey_signal()

    def _exit(self, reason: ExitReason, *, start_result: StartResult | None = None) -> None:
        for linked in self._end(reason, start_result=start_result):
            linked.obey_signal()

    def crash(self, error: BaseException) -> None:
        """End now, from whichever thread, without ``terminate``: the system has failed."""
        for linked in self._end(Crash(error), is_cut_short=True):
            linked.obey_signal()

    def _end(
        self,
        reason: ExitReason,
        *,
        start_result: StartResult | None = None,
        is_cut_short: bool = False,
        killer: Process | None = None,
    ) -> list[Process]:
        """End, once, from whichever thread: everything that others must learn of it is sent here.

        Returns those linked to it that may have to obey the exit signal that they have got.

        What may fail (a name that can't be compared, ctrl-C in a ``kill`` on the main thread) or be interrupted comes
        first and can be done twice: then it has not ended, and can be killed again. The end itself is made of
        statements that do neither.
        """
        system = self.system
        if self.takes_messages:  # otherwise it left when it began to terminate
            system.leave_pykka(self.ref)
        with system.lock:
            if self._state is EXITED or (killer is not None and killer is not self and killer.has_ended):
                return []
            if self.name is not None:
                system.free_name(self)
            if type(reason) is Killed or self in system.orphans:
                self._leave_orphans()
            self.cut()
            is_zombie = is_cut_short and self._scheduler.running.is_inside(self)
            if self.is_set():  # a finalizer came in between and killed it
                return []
            links, self._links = self._links, None
            monitors, self._monitors = self._monitors, None
            deferred, self._deferred = self._deferred, None
            self._monitored = None
            if self in system.alive:
                del system.alive[self]
            if self in system.orphans:
                del system.orphans[self]
            if is_zombie:
                system.undead[self] = None
            was_starting = self._state is STARTING
            self.exit_reason = reason
            self.observed = self.has_ended = self._held_up = True
            self._state = EXITED
        to_starter = (start_result or NotStarted(reason)) if was_starting else None
        linked: list[Any] = list(links) if isinstance(links, set) else [] if links is None else [links]
        if was_starting and self.parent is not None and self.parent.trap_exit and self.parent in linked:
            linked.remove(self.parent)  # it is told by the start's result, and gets no message on top of it (OTP)
        watchers = list(monitors.items())[::-1] if monitors else []
        calls = list(deferred) if deferred else []
        to_obey = [other for other in linked if not other.trap_exit]
        try:
            self._tell(reason, to_starter, linked, watchers, calls)
        except BaseException:  # ctrl-C in a ``kill`` on the main thread, say: those who are left have to know as well
            self._tell(reason, to_starter, linked, watchers, calls)
            for other in to_obey:
                other.obey_signal()
            raise
        return to_obey

    @property
    def is_orphan(self) -> bool:
        """Tell whether it is about to end because its parent was killed, and it was linked to it."""
        return self in self.system.orphans

    def _leave_orphans(self) -> None:
        for other in cast("list[Process]", self.links):
            if other.parent is self:
                self.system.orphans[other] = None

    def leave_behind(self) -> None:
        """In the child of a fork, where its thread has not come along: it has ended, and there is nobody to be told.

        What it holds that another thread may have been at is replaced, not looked at. What its callbacks hold is left
        as it is: to let go of it would run the program's own ``finally`` blocks and finalizers once more.
        """
        self._links = self._monitors = self._monitored = None
        self._current = self._deferred = self._backlog = self._exit_signal = self._acknowledge = None
        self._mailbox = queue.SimpleQueue()
        self._scheduled = threading.Lock()
        self._scheduled.acquire()
        self.start_result = self.start_result or NotStarted(NO_PROCESS)
        self.exit_reason = self.exit_reason or NO_PROCESS
        self.observed = self.has_ended = self._held_up = True
        self._state = EXITED

    def _tell(
        self,
        reason: ExitReason,
        to_starter: StartResult | None,
        linked: list[Process],
        watchers: list[Any],
        calls: list[Any],
    ) -> None:
        """Tell all of them, from each list's end, of the end; who has been told is taken off the list."""
        running = self._scheduler.running
        running.wait_for_send(self)
        if self in self.system.undead and not running.is_inside(self):  # its callback has returned at this moment
            self.system.bury(self)
        if to_starter is not None:
            self.system.leave_pykka(self.ref)  # it may have been registered meanwhile
            self._tell_starter(to_starter)
        while linked:
            linked[-1].take_signal(self, reason)
            linked.pop()
        while watchers:
            monitor, watcher = watchers[-1]
            tell_down(watcher, Down(monitor, self.ref, reason))
            watchers.pop()
        if self.debug is not None:
            self.debug.exited(reason)
        # Callers learn of it last, so that what they do next comes after a supervisor's reaction.
        while calls:
            fail_reply(calls[-1], reason)
            calls.pop()
        self._abandon()
        if self._waiting is None:
            self._stop_own_scheduler()
        elif self._scheduled.acquire(False):  # otherwise whoever has the turn sees to it that the last one is taken
            self._scheduler.schedule(self)

    def _abandon(self) -> None:
        """Give up what the ended process had in hand, and tell everyone whose call will not be handled any more.

        What it waits in is kept for the last turn: a generator's ``finally`` runs on the process's own thread, fenced.
        """
        reason = self.exit_reason or NO_PROCESS
        self.actor = None
        timers, self._timers = self._timers, None
        if timers is not None:
            timers.cancel_all()
        waiting = self._waiting
        current, self._current = self._current, None
        if current is not None:
            self._refuse(current, reason, begun=True)
        backlog, self._backlog = self._backlog, None
        if waiting is not None:
            self._refuse_all(waiting.give_back())
        if backlog is not None:
            self._refuse_all(backlog)
        self._refuse_mailbox(reason)
