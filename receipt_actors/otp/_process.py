"""The process: what Erlang's virtual machine keeps of each process, kept here for each actor."""

from __future__ import annotations

import enum
import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from types import CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._clock import OwnTimers, Timer
from receipt_actors.otp._messages import (
    IGNORE,
    KILLED,
    NO_PROCESS,
    NO_REPLY,
    NORMAL,
    TIMEOUT,
    Continue,
    ContinueEnvelope,
    Crash,
    Down,
    DownEnvelope,
    Exit,
    ExitReason,
    IdleTimeout,
    Killed,
    Name,
    Normal,
    NotStarted,
    ParentExitEnvelope,
    Receive,
    ReceiveMore,
    ReceiveNew,
    Receiving,
    ReplyEnvelope,
    Started,
    StartResult,
    Stop,
    SysEnvelope,
    SystemEnvelope,
    shape_of,
    text_of,
)
from receipt_actors.otp._ref import CallReply, Ref, fail_reply, send_reply
from receipt_actors.otp._reports import OWN_DECISION, log, report_crash
from receipt_actors.otp._scheduler import NOBODY, Runtime, context

if TYPE_CHECKING:
    from receipt_actors.otp._gen_server import Actor
    from receipt_actors.otp._system import ActorSystem
    from receipt_actors.otp.sys import Debug

MESSAGES_PER_TURN: Final = 64  #: messages a process handles before it makes room for others
_NESTED_STARTS: Final = 16  #: who starts another in ``init``, and so on: more of them than this don't share one stack
_RESULT_CLASSES: Final = frozenset({Stop, Continue, IdleTimeout, NotStarted})
_RUNTIME_ENVELOPES: Final = frozenset({ContinueEnvelope, SystemEnvelope, SysEnvelope, ParentExitEnvelope, DownEnvelope})

_TIME_IS_UP: Final = Envelope(TIMEOUT)

#: Who is told of an end: a process, by a ``Down`` in its mailbox; or a function, on the thread that the end comes from.
Watcher: TypeAlias = "Process | Callable[[Down], None]"

#: Numbers of monitors: of all systems, since a process may watch others of another.
_monitors = itertools.count(1)


class State(enum.Enum):
    STARTING = "starting"  #: ``init`` runs
    RUNNING = "running"  #: it handles messages
    TERMINATING = "terminating"  #: ``terminate`` runs
    EXITED = "exited"


# Each is looked at several times a message, and a global is found faster than an attribute of a class.
STARTING: Final = State.STARTING
RUNNING: Final = State.RUNNING
TERMINATING: Final = State.TERMINATING
EXITED: Final = State.EXITED


class Process:
    """An actor's process; it is its pykka inbox and stop flag as well, which keeps it small.

    It has the turn while its scheduler has it queued or runs it; ``_scheduled`` is locked then. ``exit`` may come from
    any thread in the middle of a turn. Then that turn gives up, at its end, what it has in hand or has taken up since.
    """

    # The lock of all systems guards its state, links and monitors.

    __slots__ = (
        "__weakref__",
        "_acknowledge",
        "_backlog",
        "_current",
        "_deferred",
        "_ending",
        "_exit_signal",
        "_held_up",
        "_mailbox",
        "_monitored",
        "_monitors",
        "_scheduled",
        "_scheduler",
        "_state",
        "_timers",
        "_waiting",
        "actor",
        "awaited",
        "debug",
        "exit_reason",
        "has_ended",
        "linked",
        "messages_handled",
        "name",
        "observed",
        "parent",
        "ref",
        "start_result",
        "system",
        "trap_exit",
    )

    def __init__(
        self, system: ActorSystem, actor_class: type[Actor], *, name: Name | None, parent: Process | None
    ) -> None:
        self.system = system
        self.name = name
        self.parent = parent
        self.trap_exit = actor_class.trap_exit
        self.actor: Actor | None = None
        self.ref: Ref = Ref(self, actor_class)
        self.debug: Debug | None = None  # what ``sys`` was asked to watch
        # Its life.
        self._state: State = STARTING
        self.start_result: StartResult | None = None
        self._acknowledge: Callable[[StartResult], None] | None = None
        self.exit_reason: ExitReason | None = None
        self._exit_signal: ExitReason | None = None  # the first one; to be obeyed at the next turn at the latest
        self._ending: tuple[ExitReason, object] | None = None  # while it terminates: why, and the call's answer
        # What is looked at for each message instead of its state.
        self.has_ended = False
        self.observed = False  # whether what it sends has to be looked at: it has ended, or ``sys`` watches
        self._held_up = False  # whether it has ended, or waits for the answer of a call
        # Others.
        self.linked: set[Process] = set()  # changed under the lock, on both sides at once
        self._monitors: dict[int, Watcher] = {}  # who watches this process
        self._monitored: dict[int, Process] = {}  # those that this one watches, until their Down is delivered
        self._timers: OwnTimers | None = None  # what it has set for later
        # Its turns and messages.
        self._scheduler = (
            system.scheduler
            if actor_class.runtime is Runtime.POOLED
            else system.new_scheduler(actor_class.__name__ if name is None else text_of(name))
        )
        self._scheduled = threading.Lock()  # held: the process is queued or running; taking it is the test-and-set
        self._scheduled.acquire()  # until ``init`` has run
        self._mailbox: queue.SimpleQueue[Envelope[Any]] = queue.SimpleQueue()
        self._backlog: deque[Envelope[Any]] | None = None  # what was passed over, to be handled before the mailbox
        self._waiting: Waiting | Suspended | Idle | None = None  # who is offered messages first
        self.awaited: CallReply | None = None  #: the call that a callback waits for; no message is handled meanwhile
        self._current: Envelope[Any] | None = None  # the call that is being handled
        self._deferred: set[Any] | None = None  # the reply_to of each call that is answered later
        self.messages_handled = 0  #: since the start; counted once a turn

    def __repr__(self) -> str:
        return f"<Process {self.ref}>"

    def start(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], acknowledge: Callable[[StartResult], None] | None
    ) -> StartResult | None:
        """Have ``init`` run and return its result, or None if ``acknowledge`` will be called later."""
        # On the thread of its own scheduler it runs here and now, unless too many are at that already: each in the
        # ``init`` of the one before, and the stack has an end.
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
                self.exit(self._exit_signal)
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

    @property
    def takes_messages(self) -> bool:
        """Tell whether its callbacks still get what is put into the mailbox: until ``terminate`` begins."""
        return self._state is RUNNING or self._state is STARTING

    def set(self) -> None:
        self.kill()

    def wait(self, timeout: float | None = None) -> bool:
        ended = threading.Event()
        monitor = self.add_monitor(lambda _down: ended.set())
        try:
            return ended.wait(timeout)
        finally:
            self.remove_monitor(monitor)

    def discard(self) -> None:
        self.exit(NORMAL)
        if self._scheduler is not self.system.scheduler:
            self._scheduler.join(1.0)  # it has nothing to do, and ends at once

    def fail(self, error: BaseException) -> None:
        """End because of a bug of the runtime itself, so that nothing waits for this process for ever."""
        self.exit(Crash(error))
        self._end_last_turn()

    def watch(self, debug: Debug | None) -> None:
        with self.system.lock:
            self.debug = debug if debug is not None and debug.functions else None
            self.observed = self.debug is not None or self._state is EXITED

    def send_later(self, seconds: float, envelope: Envelope[Any]) -> Timer:
        timer = self.system.clock.call_later(seconds, lambda: self.put(envelope))
        timers = self._timers
        if timers is None:
            timers = self._timers = OwnTimers()
        timers.add(timer)
        if self._state is EXITED:
            timer.cancel()
        return timer

    # --- pykka's ActorInbox ---

    def put(self, envelope: Envelope[Any], /) -> None:
        """Queue a message; one that wants an answer from an ended process is refused."""
        self._mailbox.put(envelope)
        if self._scheduled.acquire(False):  # positional: the keyword costs as much again
            if self._state is EXITED:
                if self._waiting is None:
                    self._scheduled.release()
                else:  # it has just ended, and could not take its last turn because this thread had it for a moment
                    self._scheduler.schedule(self)
                self._refuse_mailbox(NO_PROCESS)
            else:
                self._scheduler.schedule(self)
        elif self._state is EXITED:
            self._refuse_mailbox(NO_PROCESS)

    def end_call(self) -> None:
        with self.system.lock:  # its end may come at this moment
            self.awaited = None
            self._held_up = self._state is EXITED

    def wake(self) -> None:
        if self._scheduled.acquire(False):
            self._scheduler.schedule(self)

    def get(self) -> Envelope[Any]:
        return self._mailbox.get_nowait()

    def empty(self) -> bool:
        return self._mailbox.empty()

    @property
    def mailbox_length(self) -> int:
        return self._mailbox.qsize() + len(self._backlog or ()) + len(self._waiting or ())

    def frame(self) -> FrameType | None:
        return self._scheduler.frame() if self._scheduler.running.is_inside(self) else None

    def run(self) -> None:
        """Handle the messages of one turn (the scheduler calls this)."""
        running = self._scheduler.running
        running.process = self
        mailbox = self._mailbox
        goes_on = False
        handled = 0
        if self._exit_signal is not None:  # one that comes from now on ends it there and then
            self.exit(self._exit_signal)
        for handled in range(MESSAGES_PER_TURN):  # noqa: B007 - it is read after the loop
            if self._held_up:
                awaited = self.awaited
                if self._state is EXITED or awaited is None or awaited.outcome is None:
                    break
                self.end_call()
                assert type(self._waiting) is Waiting
                self._waiting.resume(awaited.outcome)
                continue
            try:
                backlog = self._backlog
                if backlog:
                    envelope = backlog.popleft()
                elif mailbox.empty():
                    idle = self._waiting
                    if idle is None or not idle.is_due:
                        break
                    envelope = _TIME_IS_UP
                else:
                    envelope = mailbox.get_nowait()
            except (IndexError, queue.Empty):  # killed at this moment, and its mailbox emptied
                break
            self.step(envelope)
        else:
            goes_on = True
            handled = MESSAGES_PER_TURN
        self.messages_handled += handled
        running.process = NOBODY
        self._end_turn(goes_on=goes_on)

    def _end_turn(self, *, goes_on: bool) -> None:
        if self._state is EXITED:
            self._end_last_turn()
            return
        if not goes_on:
            self._scheduled.release()
            awaited, waiting = self.awaited, self._waiting
            left = (
                self._exit_signal is not None
                or (not self._mailbox.empty() or self._backlog if awaited is None else awaited.outcome is not None)
                or (waiting is not None and (waiting.is_due or self.is_set()))  # is_set: killed at this moment
            )
            goes_on = bool(left) and self._scheduled.acquire(False)
        if goes_on:
            self._scheduler.schedule(self)

    def _end_last_turn(self) -> None:
        """Let go of everything: it has ended, perhaps while this turn had a message in hand."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._scheduler.running.enter(self)  # what is closed here may still try to send, and is fenced
            waiting.close()
            self._scheduler.running.leave()
            self._refuse_all(waiting.give_back())
        self._abandon()
        self.system.bury(self)
        self._stop_own_scheduler()

    def _stop_own_scheduler(self) -> None:
        if self._scheduler is not self.system.scheduler:
            self._scheduler.stop()

    # --- what takes messages first ---

    def suspend(self) -> None:
        idle = self._waiting
        if idle is None:
            self._waiting = Suspended(self)
        elif isinstance(idle, Idle):
            idle.give_back()
            self._waiting = Suspended(self, idle.seconds)

    def resume(self) -> None:
        if isinstance(self._waiting, Suspended):
            self.resume_from(self._waiting)

    @property
    def is_suspended(self) -> bool:
        return isinstance(self._waiting, Suspended)

    def resume_from(self, waiting: Waiting | Suspended | Idle) -> None:
        self._waiting = None
        if isinstance(waiting, Suspended) and waiting.idle_seconds is not None:
            self._waiting = Idle(self, waiting.idle_seconds)  # from the start again, as in OTP
        passed_over, backlog = waiting.give_back(), self._backlog
        if backlog and len(passed_over) < len(backlog):  # the fewer are moved
            backlog.extendleft(reversed(passed_over))
        else:
            passed_over.extend(backlog or ())
            backlog = passed_over
        self._backlog = backlog or None

    def put_first(self, envelope: Envelope[Any]) -> None:
        backlog = self._backlog
        if backlog:
            backlog.appendleft(envelope)
        else:
            self._backlog = deque((envelope,))

    def _refuse_all(self, messages: deque[Envelope[Any]]) -> None:
        while messages:
            try:
                envelope = messages.popleft()
            except IndexError:  # another thread is at it as well
                break
            self._refuse(envelope, self.exit_reason or NO_PROCESS)

    def _refuse_mailbox(self, reason: ExitReason) -> None:
        mailbox = self._mailbox
        while not mailbox.empty():
            try:
                envelope = mailbox.get_nowait()
            except queue.Empty:  # another thread is at it as well
                break
            self._refuse(envelope, reason)

    @staticmethod
    def _refuse(envelope: Envelope[Any], reason: ExitReason, *, begun: bool = False) -> None:
        if envelope.reply_to is None:
            return
        if isinstance(envelope.message, pykka.messages._ActorStop):
            send_reply(envelope.reply_to, None)
        else:
            fail_reply(envelope.reply_to, reason, begun=begun)

    def step(self, envelope: Envelope[Any]) -> None:
        kind = type(envelope)
        waiting = self._waiting
        if waiting is not None and kind is not SystemEnvelope:
            if not waiting.is_due or kind in _RUNTIME_ENVELOPES:
                waiting.offer(envelope)
                if self._state is EXITED:  # killed at this moment, when what it had passed over was refused already
                    self._refuse_all(waiting.give_back())
                return
            self._waiting = None  # a time-out of no time at all has passed nothing over, and has no timer
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

    def answer_sys(self, envelope: Envelope[Any]) -> None:
        """Answer a request of ``sys``; what it raises is its caller's business alone."""
        self._current = envelope
        try:
            answer, error = envelope.message(self), None
        except BaseException as raised:
            answer, error = None, Crash(raised)
        if error is None:
            self._scheduler.running.send(self._answer, envelope, answer)
        elif self._current is envelope:  # else killed meanwhile, and the caller told so
            self._current = None
            fail_reply(envelope.reply_to, error)

    # --- what it came to ---

    def _settle(self, envelope: Envelope[Any] | None, result: Any) -> None:
        """Carry out what a callback returned. ``envelope`` is None for ``init``, ``terminate``, ``handle_continue``."""
        state = self._state
        if state is EXITED:  # ended from outside while the callback ran: nothing of it counts any more
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
            assert self._ending is not None
            self.exit(self._ending[0])
            return
        if state is STARTING:
            if result is IGNORE:
                self.exit(NORMAL, start_result=IGNORE)
                return
            if type(result) is Stop:
                self.exit(result.reason, start_result=NotStarted(result.reason))
                return
            if type(result) is NotStarted:
                self.exit(NORMAL, start_result=result)
                return
            if not self._scheduler.running.send(self._tell_starter, Started(self.ref)) or self._state is not RUNNING:
                return
        if type(result) is Stop:
            self.terminate(result.reason, result.reply, OWN_DECISION)
            return
        if envelope is not None and envelope.reply_to is not None:
            reply = result.reply if type(result) is Continue or type(result) is IdleTimeout else result
            if reply is NO_REPLY:
                self._defer(envelope)
            else:
                is_unanswered = self._current is envelope
                is_sent = self._scheduler.running.send(self._answer, envelope, reply)
                if self.debug is not None and is_unanswered and is_sent:
                    self.debug.sent(reply)
        if type(result) is Continue:
            # Not here and now: it may return Continue again, and who waits for the start is told before (OTP).
            self.put_first(ContinueEnvelope(result.term))
        elif type(result) is IdleTimeout:
            self._waiting = Idle(self, result.seconds)

    def _answer(self, envelope: Envelope[Any], reply: object) -> None:
        """Answer the call at hand, unless it has been answered; where it has ended, it is left to ``_abandon``."""
        unanswered, self._current = self._current is envelope, None
        if unanswered:
            send_reply(envelope.reply_to, reply)

    def _refuse_result(self, result: Any) -> None:
        name = self.ref.actor_class.__name__
        if type(result) is CoroutineType:
            result.close()
            self._crash(TypeError(f"a callback of {name} is async def, which needs an event loop: use def"))
        else:
            self._crash(TypeError(f"a callback of {name} returned the class {result.__name__}: return an instance"))

    def _give_last_reply(self) -> None:
        """Send the reply of a ``Stop``, after ``terminate`` and before any news of the end (OTP).

        The answer to pykka's ``stop`` is the end itself: ``_abandon`` gives it.
        """
        current = self._current
        reply = NO_REPLY if self._ending is None else self._ending[1]
        if current is None or reply is NO_REPLY or isinstance(current.message, pykka.messages._ActorStop):
            return
        self._scheduler.running.send(self._answer, current, reply)

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

    def interrupted(self, waiting: Waiting, error: BaseException) -> None:
        self.resume_from(waiting)
        self._crash(error)

    # --- calls that are answered later ---

    @property
    def unanswered_calls(self) -> int:
        return len(self._deferred or ())

    def _defer(self, envelope: Envelope[Any]) -> None:
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

    def forget_call(self, reply_to: object) -> None:
        with self.system.lock:
            current = self._current
            if current is not None and current.reply_to is reply_to:
                self._current = None
            elif self._deferred is not None:
                self._deferred.discard(reply_to)

    def _advance(self, before: State, after: State) -> bool:
        with self.system.lock:
            if self._state is not before:
                return False
            self._state = after
        return True

    def terminate(self, reason: ExitReason, reply: object = NO_REPLY, handling: str = "an order to end") -> None:
        """End with a reason that was given, by ``Stop`` or by the parent. On the process's own turn only."""
        if isinstance(reason, Crash) and self._state is RUNNING:
            report_crash(self, reason, handling)
        self._terminate(reason, reply)

    def _terminate(self, reason: ExitReason, reply: object = NO_REPLY) -> None:
        actor = self.actor
        if not self._advance(RUNNING, TERMINATING) or actor is None:
            return
        self._ending = (reason, reply)
        try:
            result = actor.terminate(reason)
        except BaseException as error:
            self._crash(error)
            return
        self._settle(None, result)

    def _crash(self, error: BaseException, handling: str = "what it had begun") -> None:
        reason = Crash(error)
        state = self._state
        if state is EXITED:  # a zombie: what it still does counts for nothing
            return
        if self.debug is not None:
            self.debug.crashed(error)
        report_crash(self, reason, "init" if state is STARTING else "terminate" if state is TERMINATING else handling)
        if state is RUNNING:
            self._terminate(reason)
        else:
            self._give_last_reply()
            self.exit(reason, start_result=NotStarted(reason))

    def signal(self, sender: Process | None, reason: ExitReason) -> None:
        """Receive an exit signal (``exit/2``; see "Receiving Exit Signals" in Erlang's reference manual)."""
        self.take_signal(sender, reason)
        self.obey_signal()

    def take_signal(self, sender: Process | None, reason: ExitReason) -> None:
        """Note an exit signal; ``obey_signal`` must follow, once nothing is held that another may wait for."""
        if self.trap_exit:
            if sender is None or sender is self.parent:
                self.put(ParentExitEnvelope(reason))
            elif self.actor is None or not self.actor._otp_takes_exit(sender.ref, reason):
                self.put(Envelope(Exit(sender.ref, reason)))
        elif not isinstance(reason, Normal) or sender is self:
            if self._exit_signal is None:  # the first one counts
                self._exit_signal = reason
            if self._scheduled.acquire(False):
                self._scheduler.schedule(self)

    def obey_signal(self) -> None:
        """End for an exit signal that has come while a callback runs; otherwise its next turn begins with that.

        Linked processes that run a callback end as well, one after the other: not on a stack, which has an end.
        """
        ended: list[Process] = [self]
        while ended:
            process = ended.pop()
            reason = process._exit_signal
            if reason is not None and process._scheduler.running.is_inside(process):
                ended += process._end(reason, is_cut_short=True)

    def kill(self, killer: Process | None = None) -> None:
        """End the process now, without ``terminate`` (``exit(Pid, kill)``); nothing happens if its killer has ended."""
        self.exit(KILLED, is_cut_short=True, killer=killer)

    def exit(self, reason: ExitReason, **how: Any) -> None:
        for linked in self._end(reason, **how):
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
        with system.lock:
            if self._state is EXITED or (killer is not None and killer is not self and killer.has_ended):
                return []
            system.free_name(self)
            if type(reason) is Killed or self in system.orphans:
                system.orphans.update((other, None) for other in self.links if other.parent is self)
            for other in list(self.linked):
                other.linked.discard(self)
            for monitor, target in list(self._monitored.items()):
                target._monitors.pop(monitor, None)
            nobody: set[Process] = set()
            unwatched: dict[int, Watcher] = {}
            watching: dict[int, Process] = {}
            is_zombie = is_cut_short and self._scheduler.running.is_inside(self)
            if self.is_set():  # a finalizer came in between and killed it
                return []
            links, self.linked = self.linked, nobody
            monitors, self._monitors = self._monitors, unwatched
            deferred, self._deferred = self._deferred, None
            self._monitored = watching
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
        linked = list(links)
        if was_starting and self.parent is not None and self.parent.trap_exit and self.parent in linked:
            linked.remove(self.parent)  # it is told by the start's result, and gets no message on top of it (OTP)
        watchers = list(monitors.items())[::-1]
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

    def leave_behind(self) -> None:
        """End in the child of a fork, where its thread has not come along.

        What it holds that another thread may have been at is replaced, not looked at. What its callbacks hold is left
        as it is: to let go of it would run the program's own ``finally`` blocks and finalizers once more.
        """
        self.linked, self._monitors, self._monitored = set(), {}, {}
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
        """Tell all of them, from each list's end; those that have been told are taken off the list."""
        running = self._scheduler.running
        running.wait_for_send(self)
        if not running.is_inside(self):  # its callback has returned at this moment
            self.system.bury(self)
        if to_starter is not None:
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
        elif self._scheduled.acquire(False):  # otherwise the thread that has the turn takes the last one
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

    @property
    def state(self) -> State:
        return self._state

    def is_set(self) -> bool:
        return self._state is EXITED

    @property
    def links(self) -> list[Process]:
        with self.system.lock:
            return list(self.linked)

    def link(self, other: Process) -> None:
        if other is self:
            return
        with self.system.lock:
            alive = not other.is_set() and not self.is_set()
            if alive:
                self.linked.add(other)
                other.linked.add(self)
        if not alive and other.is_set():
            self.signal(other, NO_PROCESS)

    def unlink(self, other: Process) -> None:
        with self.system.lock:
            self.linked.discard(other)
            other.linked.discard(self)

    def add_monitor(self, watcher: Watcher) -> int:
        """Tell ``watcher``, once, when this process ends (at once if it has ended). Returns the monitor."""
        monitor = next(_monitors)
        with self.system.lock:
            alive = not self.is_set()
            if not callable(watcher):
                if watcher.is_set():
                    return monitor
                watcher._monitored[monitor] = self
            if alive:
                self._monitors[monitor] = watcher
        if not alive:
            tell_down(watcher, Down(monitor, self.ref, NO_PROCESS))
        return monitor

    def remove_monitor(self, monitor: int) -> None:
        with self.system.lock:
            self._monitors.pop(monitor, None)

    def demonitor(self, monitor: int, *, flush: bool) -> None:
        with self.system.lock:
            target = self._monitored.get(monitor)
            if target is None:
                return
            sent = target._monitors.pop(monitor, None) is None
            if flush or not sent:
                del self._monitored[monitor]

    def take_down(self, down: Down) -> bool:
        return self._monitored.pop(down.monitor, None) is not None


# --- what takes messages first ---


_NOT_WANTED: Final = object()


def start_timer(process: Process, seconds: float, time_out: Callable[[], None]) -> Timer:
    """Have ``time_out`` run on the process's turn after that many seconds.

    No time at all means "once the mailbox has been looked through" (Erlang's "after 0"): no matter for a clock.
    """

    def fire() -> None:
        process.put(SystemEnvelope(time_out))

    if seconds > 0:
        return process.system.clock.call_later(seconds, fire)
    timer = Timer(0.0, fire)
    timer.fire()
    return timer


class Waiting:
    """A callback that is suspended in a selective receive."""

    __slots__ = ("_envelope", "_generator", "_passed_over", "_process", "_receive", "_timer")
    is_due = False

    def __init__(self, process: Process, envelope: Envelope[Any] | None, generator: Receiving) -> None:
        self._process = process
        self._envelope = envelope
        self._generator = generator
        self._receive: Receive | None = None
        self._timer: Timer | None = None
        self._passed_over: deque[Envelope[Any]] = deque()

    def __len__(self) -> int:
        return len(self._passed_over)

    def give_back(self) -> deque[Envelope[Any]]:
        if self._timer is not None:
            self._timer.cancel()
        return self._passed_over

    def close(self) -> None:
        """End the callback where it stands: its process has been killed. Its ``finally`` blocks run, fenced."""
        try:
            self._generator.close()
        except BaseException as error:
            log(logging.DEBUG, "a callback of %s that was killed raised %s", self._process.ref, type(error).__name__)

    def offer(self, envelope: Envelope[Any]) -> None:
        receive = self._receive
        assert receive is not None
        try:
            message = self._match(receive, envelope)
        except BaseException as error:
            self._passed_over.append(envelope)
            self._process.interrupted(self, error)
            return
        if message is _NOT_WANTED:
            self._passed_over.append(envelope)
        else:
            self.resume(message)

    def resume(self, value: object) -> None:
        """Run the callback until it waits for something that is not there yet, or ends."""
        while True:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            previous, self._receive = self._receive, None
            try:
                receive = self._generator.send(value)
            except StopIteration as end:
                self._process.resume_from(self)
                self._process._settle(self._envelope, end.value)
                return
            except BaseException as error:
                self._process.interrupted(self, error)
                return
            try:
                if type(receive) is CallReply:
                    if receive.outcome is None:
                        self._await(receive)
                    if receive.outcome is None:
                        return
                    self._process.end_call()  # the answer may have come since it began to wait
                    value = receive.outcome
                    continue
                if not isinstance(receive, Receive):
                    raise TypeError(f"a callback that is a generator yields Receive, not {shape_of(receive)}")
                self._receive = receive
                is_new = type(receive) is ReceiveNew or (type(receive) is ReceiveMore and receive is previous)
                value = _NOT_WANTED if is_new else self._take(receive)
                if value is _NOT_WANTED:
                    self._arm(receive)
                    return
            except BaseException as error:
                self._process.interrupted(self, error)
                return

    def _await(self, answer: CallReply) -> None:
        process, seconds = self._process, answer.timeout_seconds
        if seconds == 0:
            answer.time_out()
        elif not process.is_set():
            process.awaited = answer
            process._held_up = True
            if seconds is not None:
                self._timer = process.system.clock.call_later(seconds, answer.time_out)

    def _arm(self, receive: Receive) -> None:
        if receive.timeout_seconds is None or self._process.is_set():
            return

        def time_out() -> None:
            # Its message may have come just before, and the same Receive be under way again with a new timer.
            if self._timer is timer:
                self.resume(None)

        self._timer = timer = start_timer(self._process, receive.timeout_seconds, time_out)

    def _take(self, receive: Receive) -> object:
        for index, envelope in enumerate(self._passed_over):
            message = self._match(receive, envelope)
            if message is not _NOT_WANTED:
                del self._passed_over[index]
                return message
        return _NOT_WANTED

    def _match(self, receive: Receive, envelope: Envelope[Any]) -> object:
        """Return the message where it is one that is waited for; each is made once, for there are very many replies."""
        kind = type(envelope)
        if not (kind is ReplyEnvelope or kind is DownEnvelope or (kind is Envelope and envelope.reply_to is None)):
            return _NOT_WANTED
        message = envelope.message
        wanted = receive.matches(message) and (kind is not DownEnvelope or self._process.take_down(message))
        return message if wanted else _NOT_WANTED


class Idle:
    """A process that returned ``IdleTimeout``: the first message, whichever it is, cancels it.

    One of no time at all needs no timer: the process comes back to it on the same turn, once no message waits.
    """

    __slots__ = ("_process", "_timer", "is_due", "seconds")

    def __init__(self, process: Process, seconds: float) -> None:
        self._process = process
        self.seconds = seconds
        self.is_due = not seconds  #: as soon as no message waits
        self._timer = None if self.is_due else start_timer(process, seconds, self._time_out)

    def __len__(self) -> int:
        return 0

    def _time_out(self) -> None:
        if self._process._waiting is self:
            self.offer(Envelope(TIMEOUT))

    def give_back(self) -> deque[Envelope[Any]]:
        if self._timer is not None:
            self._timer.cancel()
        return deque()

    def close(self) -> None:
        pass

    def offer(self, envelope: Envelope[Any]) -> None:
        """Handle the message, and wait no more; a request of ``sys`` begins the time anew, as in OTP."""
        if type(envelope) is SysEnvelope:
            self._process.answer_sys(envelope)
            if self._timer is not None and self._process._waiting is self:
                self._timer.cancel()
                self._timer = start_timer(self._process, self.seconds, self._time_out)
        elif type(envelope) is DownEnvelope and envelope.message.monitor not in self._process._monitored:
            return  # flushed: it never came
        else:
            self._process.resume_from(self)
            self._process.step(envelope)


class Suspended:
    """A process that ``sys.suspend`` has stopped: only ``sys``'s requests and its parent's exit signal are heard."""

    __slots__ = ("_passed_over", "_process", "idle_seconds")
    is_due = False

    def __init__(self, process: Process, idle_seconds: float | None = None) -> None:
        self._process = process
        self.idle_seconds = idle_seconds  # of the ``IdleTimeout`` that it was in
        self._passed_over: deque[Envelope[Any]] = deque()

    def __len__(self) -> int:
        return len(self._passed_over)

    def give_back(self) -> deque[Envelope[Any]]:
        return self._passed_over

    def close(self) -> None:
        pass

    def offer(self, envelope: Envelope[Any]) -> None:
        if type(envelope) is SysEnvelope:
            self._process.answer_sys(envelope)
        elif type(envelope) is ParentExitEnvelope:
            self._process.resume_from(self)
            self._process.terminate(envelope.message)
        else:
            self._passed_over.append(envelope)


def tell_down(watcher: Watcher, down: Down) -> None:
    if callable(watcher):
        watcher(down)
    else:
        watcher.put(DownEnvelope(down))
