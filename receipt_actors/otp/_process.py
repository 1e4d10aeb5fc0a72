"""The process: what Erlang's virtual machine keeps of each process, kept here for each actor.

A ``Process`` owns an actor's mailbox, name, links, monitors and life cycle; it runs the actor's callbacks one message
at a time, on one thread only, its scheduler's. It is the actor's pykka inbox and stop flag at once, which is what keeps
a process small.

**Life.** ``STARTING`` (``init`` runs) -> ``RUNNING`` -> ``TERMINATING`` (``terminate`` runs) -> ``EXITED``. However it
ends, ``_exit`` happens once: the name is freed, links and monitors are told, and whoever waits for an answer gets none.
``_exit`` may come from any thread (``kill``) in the middle of a turn: what that turn has in hand or takes up all the
same is given up once more at the turn's own end, and each answer counts only once.

**Killing is honest.** CPython can't end a thread, so a callback that runs when its process is killed runs on: the
process is a zombie until it returns. It is fenced: what it still sends, answers or starts comes to nothing.

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
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, cast

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._calls import fail_reply, send_reply
from receipt_actors.otp._clock import OwnTimers, Timer
from receipt_actors.otp._context import context
from receipt_actors.otp._debug import Debug
from receipt_actors.otp._life import EXITED, RUNNING, STARTING, TERMINATING, State
from receipt_actors.otp._mailbox import Mailbox
from receipt_actors.otp._messages import (
    IGNORE,
    NO_REPLY,
    Continue,
    ContinueEnvelope,
    Down,
    DownEnvelope,
    Exit,
    IdleTimeout,
    Name,
    NotStarted,
    ParentExitEnvelope,
    Started,
    StartResult,
    Stop,
    SysEnvelope,
    SystemEnvelope,
)
from receipt_actors.otp._reasons import KILLED, NO_PROCESS, NORMAL, Crash, ExitReason, Killed, Normal, text_of
from receipt_actors.otp._receive import Idle, Waiting
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._relations import tell_down
from receipt_actors.otp._reports import report_crash
from receipt_actors.otp._scheduler import Runtime

if TYPE_CHECKING:
    from receipt_actors.otp._actor import Actor
    from receipt_actors.otp._system import ActorSystem

_RESULT_CLASSES: Final = frozenset({Stop, Continue, IdleTimeout, NotStarted})
_RUNTIME_ENVELOPES: Final = frozenset({ContinueEnvelope, SystemEnvelope, SysEnvelope, ParentExitEnvelope, DownEnvelope})
_NESTED_STARTS: Final = 16  #: who starts another in ``init``, and so on: more of them than this don't share one stack


class Process(Mailbox):
    """See the module."""

    __slots__ = (
        "__weakref__",
        "_acknowledge",
        "_current",
        "_deferred",
        "_last_reply",
        "_terminate_reason",
        "_timers",
        "actor",
        "debug",
        "name",
        "observed",
        "parent",
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
        self.actor: Actor | None = None
        self.ref: Ref = Ref(self, actor_class)
        self.start_result: StartResult | None = None
        self.debug: Debug | None = None  # what ``sys`` was asked to watch
        self.observed = False  # whether what it sends has to be looked at: it has ended, or ``sys`` watches
        self._current: Envelope[Any] | None = None  # the call that is being handled
        self._last_reply: object = NO_REPLY  # its answer, where the process ends with it
        self._terminate_reason: ExitReason = NORMAL
        self._acknowledge: Callable[[StartResult], None] | None = None
        self._timers: OwnTimers | None = None
        self._deferred: set[Any] | None = None  # the reply_to of each call that is answered later

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
        if running is not self._scheduler.running or (self.parent is not None and running.depth >= _NESTED_STARTS):
            result = self._acknowledge_to(acknowledge)
            if result is None:
                self._backlog = deque((SystemEnvelope(lambda: self._initialise(args, kwargs)),))
                self._scheduler.schedule(self)
            return result
        running.enter(self)
        try:
            self._initialise(args, kwargs)
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

    def _finish_start(self, result: StartResult) -> bool:
        """Tell how the start ended; False when it was ended from outside meanwhile, which has been told then."""
        with self.system.lock:
            if type(result) is Started:
                if self._state is not STARTING:
                    return False
                self._state = RUNNING
            self.start_result = result
            acknowledge, self._acknowledge = self._acknowledge, None
        if acknowledge is not None:
            acknowledge(result)
        return True

    @property
    def unanswered_calls(self) -> int:
        """Count the calls that ``handle_call`` took (``NO_REPLY``) and that still wait for their answer."""
        return len(self._deferred or ())

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
        """End before it has begun: its name was taken at this moment."""
        self._exit(NORMAL)

    def fail(self, error: BaseException) -> None:
        """End because of a bug of the runtime itself, so that nobody waits for this process for ever."""
        self._exit(Crash(error))
        self._end_last_turn()

    def step(self, envelope: Envelope[Any]) -> None:
        """Deal with one message."""
        kind = type(envelope)
        waiting = self._waiting
        if waiting is not None and kind is not SystemEnvelope:
            waiting.offer(envelope)
            if self._state is EXITED:  # killed at this moment, when what it had passed over was refused already
                self._refuse_all(waiting.give_back())
            return
        if kind in _RUNTIME_ENVELOPES and not self._is_for_actor(envelope):
            return
        if self.debug is not None:
            self.debug.received(envelope)
        if envelope.reply_to is not None:
            self._current = envelope
        actor = self.actor
        if actor is None:  # killed at this moment by another thread
            return
        try:
            result = actor._otp_deliver(envelope)
        except BaseException as error:
            self._crash(error, type(envelope.message).__name__)
            return
        if result is not None or envelope.reply_to is not None:
            self._settle(envelope, result)

    def _is_for_actor(self, envelope: Envelope[Any]) -> bool:
        """Deal with a message of the runtime; True when it goes to the actor all the same."""
        kind = type(envelope)
        if kind is DownEnvelope:
            return self.take_down(envelope.message)
        if kind is SystemEnvelope:
            envelope.message()
        elif kind is ContinueEnvelope:
            self._continue(envelope.message)
        elif kind is SysEnvelope:
            self.answer_sys(envelope)
        else:
            self.terminate(envelope.message)
        return False

    def _settle(self, envelope: Envelope[Any] | None, result: Any) -> None:
        """Carry out what a callback returned. ``envelope`` is None for ``init``, ``terminate``, ``handle_continue``."""
        if self._exit_signal is not None:  # it came while the callback ran: what that returned does not count
            self._obey_exit_signal()
        state = self._state
        if state is EXITED:  # killed while the callback ran: nothing of it counts any more
            return
        if type(result) is GeneratorType:
            self._waiting = waiting = Waiting(self, envelope, result)
            waiting.resume(None)
            return
        if type(result) is CoroutineType or (type(result) is type and result in _RESULT_CLASSES):
            self._refuse_result(result)
            return
        if state is TERMINATING:
            self._give_last_reply()
            self._exit(self._terminate_reason)
            return
        if state is STARTING:
            if result is IGNORE:
                self._exit(NORMAL, start_result=IGNORE)
                return
            if type(result) is Stop:
                self._exit(result.reason, start_result=NotStarted(result.reason))
                return
            if type(result) is NotStarted:
                self._exit(NORMAL, start_result=result)
                return
            if not self._finish_start(Started(self.ref)):
                return
        if type(result) is Stop:
            self._last_reply = result.reply
            self.terminate(result.reason)
            return
        if envelope is not None and envelope.reply_to is not None:
            reply = result.reply if type(result) is Continue or type(result) is IdleTimeout else result
            if reply is NO_REPLY:
                self._defer(envelope)
            else:
                unanswered, self._current = self._current is envelope, None
                if unanswered:
                    send_reply(envelope.reply_to, reply)
                    if self.debug is not None:
                        self.debug.replied(reply)
        if type(result) is Continue:
            # Not here and now: it may return Continue again, and who waits for the start is told before (OTP).
            self._put_first(ContinueEnvelope(result.term))
        elif type(result) is IdleTimeout:
            self._waiting = Idle(self, result.seconds)

    def _refuse_result(self, result: Any) -> None:
        name = self.ref.actor_class.__name__
        if type(result) is CoroutineType:
            result.close()
            self._crash(TypeError(f"a callback of {name} is async def, which needs an event loop: use def"))
        else:
            self._crash(TypeError(f"a callback of {name} returned the class {result.__name__}: return an instance"))

    def _give_last_reply(self) -> None:
        """Send the reply of a ``Stop``, after ``terminate`` and before anyone learns of the end (OTP).

        Who asked by pykka's ``stop`` wants to know of the end itself, and is told by ``_abandon``.
        """
        current = self._current
        if current is None or self._last_reply is NO_REPLY or isinstance(current.message, pykka.messages._ActorStop):
            return
        self._current = None
        send_reply(current.reply_to, self._last_reply)

    def _advance(self, before: State, after: State) -> bool:
        """Go from one state to the next; False when it was ended from outside meanwhile."""
        with self.system.lock:
            if self._state is not before:
                return False
            self._state = after
        return True

    def _defer(self, envelope: Envelope[Any]) -> None:
        """Remember a call that is answered later; another thread may be answering it at this moment."""
        deferred = self._deferred
        if deferred is None:
            deferred = set()
        with self.system.lock:
            if self._current is not envelope:  # answered
                return
            self._current = None
            if self._state is not EXITED:
                self._deferred = deferred
                deferred.add(envelope.reply_to)
                return
        fail_reply(envelope.reply_to, self.exit_reason or NO_PROCESS)

    def _continue(self, term: object) -> None:
        actor = self.actor
        if actor is None:  # killed at this moment by another thread
            return
        try:
            result = actor.handle_continue(term)
        except BaseException as error:
            self._crash(error)
            return
        if result is not None:
            self._settle(None, result)

    def forget_call(self, reply_to: object) -> None:
        """Note that a call has been answered, so that nobody tells its caller otherwise."""
        with self.system.lock:
            current = self._current
            if current is not None and current.reply_to is reply_to:
                self._current = None
            elif self._deferred is not None:
                self._deferred.discard(reply_to)

    # --- selective receive and suspension: what ``Waiting`` and ``Suspended`` report ---

    def finished(self, waiting: Waiting, envelope: Envelope[Any] | None, result: Any) -> None:
        """Go on with what a callback that was a generator returned."""
        self.resume_from(waiting)
        self._settle(envelope, result)

    def interrupted(self, waiting: Waiting, error: BaseException) -> None:
        """End: a callback that was a generator raised ``error``."""
        self.resume_from(waiting)
        self._crash(error)

    def watch(self, debug: Debug | None) -> None:
        """Begin or end being watched by ``sys``."""
        with self.system.lock:
            self.debug = debug
            self.observed = debug is not None or self._state is EXITED

    def answer_sys(self, envelope: Envelope[Any]) -> None:
        """Answer a request of ``sys``; what it raises is its caller's business alone."""
        self._current = envelope
        try:
            answer, error = envelope.message(self), None
        except BaseException as raised:
            answer, error = None, Crash(raised)
        if self._current is not envelope:  # killed meanwhile, and the caller told so
            return
        self._current = None
        if error is None:
            send_reply(envelope.reply_to, answer)
        else:
            fail_reply(envelope.reply_to, error)

    def terminate_next(self, reason: ExitReason) -> None:
        """Have it end as if its parent had said so, before it handles any other message."""
        self._put_first(ParentExitEnvelope(reason))

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
        and it comes from another.
        """
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

    def kill(self) -> None:
        """End the process now, without ``terminate`` (``exit(Pid, kill)``).

        CPython can't kill a thread: a callback that is running goes on to its end, fenced, as a zombie.
        """
        self._exit(KILLED, is_kill=True)

    def _obey_exit_signal(self) -> None:
        reason, self._exit_signal = self._exit_signal, None
        assert reason is not None
        self._exit(reason)

    def terminate(self, reason: ExitReason) -> None:
        """End with a reason that was given, by ``Stop`` or by the parent. On the process's own turn only."""
        if isinstance(reason, Crash) and self._state is RUNNING:
            self._report(reason, "an order to end")
        self._terminate(reason)

    def _terminate(self, reason: ExitReason) -> None:
        """Run the actor's ``terminate`` and exit."""
        actor = self.actor
        if not self._advance(RUNNING, TERMINATING) or actor is None:
            return
        self._terminate_reason = reason
        self.system.leave_pykka(self)
        try:
            result = actor.terminate(reason)
        except BaseException as error:
            self._crash(error)
            return
        self._settle(None, result)

    def _crash(self, error: BaseException, handling: str = "what it had begun") -> None:
        reason = Crash(error)
        if self._exit_signal is not None:  # it came while the callback ran, and so before what that raised
            self._obey_exit_signal()
        state = self._state
        if state is EXITED:  # a zombie: what it still does is nobody's business
            return
        if self.debug is not None:
            self.debug.crashed(error)
        self._report(reason, "init" if state is STARTING else "terminate" if state is TERMINATING else handling)
        if state is RUNNING:
            self._terminate(reason)
        else:
            self._give_last_reply()
            self._exit(reason, start_result=NotStarted(reason))

    def _report(self, reason: Crash, handling: str) -> None:
        report_crash(
            self.ref,
            reason,
            handling=handling,
            mailbox_length=self.mailbox_length,
            links=[linked.ref for linked in self.links],
            parent=None if self.parent is None else self.parent.ref,
        )

    def _exit(self, reason: ExitReason, *, start_result: StartResult | None = None, is_kill: bool = False) -> None:
        """End, once, from whichever thread: everything that others must learn of it is sent here.

        What may fail (a name that can't be compared, ctrl-C in a ``kill`` on the main thread) or be interrupted comes
        first and can be done twice: then it has not ended, and can be killed again. The end itself is made of
        statements that do neither.
        """
        system = self.system
        if self.takes_messages:  # otherwise it left when it began to terminate
            system.leave_pykka(self)
        with system.lock:
            if self._state is EXITED:
                return
            system.free_name(self)
            if type(reason) is Killed or self.is_orphan:
                self._leave_orphans()
            self.cut()
            is_zombie = is_kill and self._scheduler.running.is_inside(self)
            if self.is_set():  # a finalizer came in between and killed it
                return
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
            self.observed = True
            self._state = EXITED
        if was_starting:
            system.leave_pykka(self)  # it may have been registered meanwhile
            self._finish_start(start_result or NotStarted(reason))
        linked: list[Any] = list(links) if isinstance(links, set) else [] if links is None else [links]
        if was_starting and self.parent is not None and self.parent.trap_exit and self.parent in linked:
            linked.remove(self.parent)  # it is told by the start's result, and gets no message on top of it (OTP)
        watchers = [] if monitors is None else list(monitors.items())[::-1]
        calls = [] if deferred is None else list(deferred)
        try:
            self._tell(reason, linked, watchers, calls)
        except BaseException:  # ctrl-C in a ``kill`` on the main thread, say: those who are left have to know as well
            self._tell(reason, linked, watchers, calls)
            raise

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
        self.observed = True
        self._state = EXITED

    def _tell(self, reason: ExitReason, linked: list[Process], watchers: list[Any], calls: list[Any]) -> None:
        """Tell all of them, from each list's end, of the end; who has been told is taken off the list."""
        while linked:
            linked[-1].signal(self, reason)
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
