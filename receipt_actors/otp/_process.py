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

import enum
import queue
import threading
from collections import deque
from collections.abc import Callable
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._calls import fail_reply, send_reply
from receipt_actors.otp._context import NOBODY, context
from receipt_actors.otp._debug import Debug
from receipt_actors.otp._messages import (
    IGNORE,
    NO_REPLY,
    Continue,
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
from receipt_actors.otp._reasons import KILLED, NO_PROCESS, NORMAL, Crash, ExitReason, Normal
from receipt_actors.otp._receive import Idle, Suspended, Waiting
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._relations import Relations, tell_down
from receipt_actors.otp._reports import report_crash
from receipt_actors.otp._scheduler import Runtime, Scheduler

if TYPE_CHECKING:
    from receipt_actors.otp._actor import Actor
    from receipt_actors.otp._system import ActorSystem

MESSAGES_PER_TURN = 64  #: messages a process handles before it makes room for others


class _State(enum.Enum):
    STARTING = "starting"
    RUNNING = "running"
    TERMINATING = "terminating"
    EXITED = "exited"


# Each is looked at several times a message, and a global is found faster than an attribute of a class.
_STARTING: Final = _State.STARTING
_RUNNING: Final = _State.RUNNING
_TERMINATING: Final = _State.TERMINATING
_EXITED: Final = _State.EXITED

_RUNTIME_ENVELOPES: Final = frozenset({SystemEnvelope, SysEnvelope, ParentExitEnvelope, DownEnvelope})


class Process(Relations):
    """See the module."""

    __slots__ = (
        "__weakref__",
        "_acknowledge",
        "_backlog",
        "_current",
        "_deferred",
        "_exit_signal",
        "_last_reply",
        "_mailbox",
        "_scheduled",
        "_scheduler",
        "_state",
        "_terminate_reason",
        "_waiting",
        "actor",
        "debug",
        "exit_reason",
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
        super().__init__()
        self.system = system
        self.name = name
        self.parent = parent
        self.trap_exit = actor_class.trap_exit
        self.actor: Actor | None = None
        self.ref: Ref = Ref(self, actor_class)
        self.exit_reason: ExitReason | None = None
        self.start_result: StartResult | None = None
        self.debug: Debug | None = None  # what ``sys`` was asked to watch
        self.observed = False  # whether what it sends has to be looked at: it has ended, or ``sys`` watches
        self._state = _STARTING
        self._mailbox: queue.SimpleQueue[Envelope[Any]] = queue.SimpleQueue()
        self._backlog: deque[Envelope[Any]] | None = None  # what was passed over, to be handled before the mailbox
        self._current: Envelope[Any] | None = None  # the call that is being handled
        self._last_reply: object = NO_REPLY  # its answer, where the process ends with it
        self._scheduled = threading.Lock()  # held: the process is queued or running; taking it is the test-and-set
        self._scheduled.acquire()
        self._scheduler: Scheduler = (
            system.scheduler
            if actor_class.runtime is Runtime.POOLED
            else system.new_scheduler(actor_class.__name__ if name is None else str(name))
        )
        self._waiting: Waiting | Suspended | Idle | None = None
        self._exit_signal: ExitReason | None = None
        self._terminate_reason: ExitReason = NORMAL
        self._acknowledge: Callable[[StartResult], None] | None = None
        self._deferred: set[Any] | None = None  # the reply_to of each call that is answered later

    def __repr__(self) -> str:
        return f"<Process {self.ref}>"

    # --- starting ---

    def start(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], acknowledge: Callable[[StartResult], None] | None
    ) -> StartResult | None:
        """Have ``init`` run and return its result, or None where ``acknowledge`` will be told later.

        On the thread of its own scheduler (a pooled actor that starts a pooled one) it runs here and now, no hop.
        """
        running = context.running
        if running is not self._scheduler.running:
            result = self._acknowledge_to(acknowledge)
            if result is None:
                self._backlog = deque((SystemEnvelope(lambda: self._initialise(args, kwargs)),))
                self._scheduler.schedule(self)
            return result
        starter, running.process = running.process, self
        try:
            self._initialise(args, kwargs)
        finally:
            running.process = starter
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
            actor.adopt(self)
            self.actor = actor
            actor.__init__(*args, **kwargs)  # type: ignore[misc]
            result = actor.initialise()
        except BaseException as error:
            self._crash(error)
            return
        self._settle(None, result)

    def _finish_start(self, result: StartResult) -> bool:
        """Tell how the start ended; False when it was ended from outside meanwhile, which has been told then."""
        with self.system.lock:
            if type(result) is Started:
                if self._state is not _STARTING:
                    return False
                self._state = _RUNNING
            self.start_result = result
            acknowledge, self._acknowledge = self._acknowledge, None
        if acknowledge is not None:
            acknowledge(result)
        return True

    # --- mailbox (pykka's ActorInbox) ---

    def put(self, envelope: Envelope[Any], /) -> None:
        """Queue a message; the sender of one to an ended process is told where it waits for an answer."""
        self._mailbox.put(envelope)
        if self._scheduled.acquire(False):  # positional: the keyword costs as much again
            if self._state is _EXITED:
                self._scheduled.release()
                self._refuse_mailbox(NO_PROCESS)
            else:
                self._scheduler.schedule(self)
        elif self._state is _EXITED:
            self._refuse_mailbox(NO_PROCESS)

    def get(self) -> Envelope[Any]:
        """Take the next message (pykka's protocol; the runtime itself does not call it)."""
        return self._mailbox.get_nowait()

    def empty(self) -> bool:
        """Tell whether no message waits."""
        return self._mailbox.empty()

    @property
    def mailbox_length(self) -> int:
        """Count the messages that wait (``process_info(Pid, message_queue_len)``)."""
        return self._mailbox.qsize() + len(self._backlog or ()) + len(self._waiting or ())

    @property
    def unanswered_calls(self) -> int:
        """Count the calls that ``handle_call`` took (``NO_REPLY``) and that still wait for their answer."""
        return len(self._deferred or ())

    # --- stop flag (pykka's actor_stopped) ---

    def is_set(self) -> bool:
        """Tell whether the process has ended."""
        return self._state is _EXITED

    @property
    def takes_messages(self) -> bool:
        """Tell whether its callbacks still get what is put into the mailbox: until ``terminate`` begins."""
        return self._state is _RUNNING or self._state is _STARTING

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

    def run(self) -> None:
        """Handle the messages of one turn (the scheduler calls this)."""
        running = self._scheduler.running
        running.process = self
        mailbox = self._mailbox
        goes_on = False
        for _ in range(MESSAGES_PER_TURN):
            if self._exit_signal is not None:
                self._obey_exit_signal()
            if self._state is _EXITED:
                break
            try:
                backlog = self._backlog
                if backlog:
                    envelope = backlog.popleft()
                elif mailbox.empty():
                    break
                else:
                    envelope = mailbox.get_nowait()
            except (IndexError, queue.Empty):  # killed at this moment, and its mailbox emptied
                break
            self.step(envelope)
        else:
            goes_on = True
        running.process = NOBODY
        self._end_turn(goes_on=goes_on)

    def fail(self, error: BaseException) -> None:
        """End because of a bug of the runtime itself, so that nobody waits for this process for ever."""
        self._exit(Crash(error))
        self._end_turn(goes_on=False)

    def _end_turn(self, *, goes_on: bool) -> None:
        """Queue for the next turn, or give up the turn and take it again at once if a message came in meanwhile."""
        if self._state is _EXITED:
            self.system.bury(self)
            self._abandon()  # again: it may have been killed while this turn had a message in hand
            return
        if not goes_on:
            self._scheduled.release()
            goes_on = bool(
                not self._mailbox.empty() or self._exit_signal is not None or self._backlog
            ) and self._scheduled.acquire(False)
        if goes_on:
            self._scheduler.schedule(self)

    def step(self, envelope: Envelope[Any]) -> None:
        """Deal with one message."""
        kind = type(envelope)
        waiting = self._waiting
        if waiting is not None and kind is not SystemEnvelope:
            waiting.offer(envelope)
            if self._state is _EXITED:  # killed at this moment, when what it had passed over was refused already
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
            result = actor.deliver(envelope)
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
        elif kind is SysEnvelope:
            self.answer_sys(envelope)
        else:
            self.terminate(envelope.message)
        return False

    def _settle(self, envelope: Envelope[Any] | None, result: Any) -> None:
        """Carry out what a callback returned. ``envelope`` is None for ``init``, ``terminate``, ``handle_continue``."""
        state = self._state
        if state is _EXITED:  # killed while the callback ran: nothing of it counts any more
            return
        if type(result) is GeneratorType:
            self._waiting = waiting = Waiting(self, envelope, result)
            waiting.resume(None)
            return
        if state is _TERMINATING:
            self._exit(self._terminate_reason)
            return
        if state is _STARTING:
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
            unanswered, self._current = self._current is envelope, None
            reply = result.reply if type(result) is Continue or type(result) is IdleTimeout else result
            if unanswered and reply is NO_REPLY:
                self._defer(envelope.reply_to)
            elif unanswered:
                send_reply(envelope.reply_to, reply)
                if self.debug is not None:
                    self.debug.replied(reply)
        if type(result) is Continue:
            self._continue(result.term)
        elif type(result) is IdleTimeout:
            self._waiting = Idle(self, result.seconds)

    def _advance(self, before: _State, after: _State) -> bool:
        """Go from one state to the next; False when it was ended from outside meanwhile."""
        with self.system.lock:
            if self._state is not before:
                return False
            self._state = after
        return True

    def _defer(self, reply_to: Any) -> None:
        with self.system.lock:
            if self._state is not _EXITED:
                self._deferred = set() if self._deferred is None else self._deferred
                self._deferred.add(reply_to)
                return
        fail_reply(reply_to, self.exit_reason or NO_PROCESS)

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
        current = self._current
        if current is not None and current.reply_to is reply_to:
            self._current = None
            return
        with self.system.lock:
            if self._deferred is not None:
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
        self.debug = debug
        self.observed = debug is not None

    def suspend(self) -> None:
        """Handle no message but those of ``sys`` until ``resume``."""
        idle = self._waiting
        if idle is None:
            self._waiting = Suspended(self)
        elif isinstance(idle, Idle):
            idle.give_back()
            self._waiting = Suspended(self, idle.seconds)

    def resume(self) -> None:
        """Undo ``suspend``."""
        if isinstance(self._waiting, Suspended):
            self.resume_from(self._waiting)

    @property
    def is_suspended(self) -> bool:
        """Tell whether ``sys.suspend`` has stopped it."""
        return isinstance(self._waiting, Suspended)

    def resume_from(self, waiting: Waiting | Suspended | Idle) -> None:
        """Take back the messages that were passed over: they come before all others."""
        self._waiting = None
        if isinstance(waiting, Suspended) and waiting.idle_seconds is not None:
            self._waiting = Idle(self, waiting.idle_seconds)  # from the start again, as in OTP
        passed_over = waiting.give_back()
        if self._backlog:
            passed_over.extend(self._backlog)
        self._backlog = passed_over or None

    def is_idle(self, idle: Idle) -> bool:
        """Tell whether this time-out still counts: nothing has come since it was set."""
        waiting = self._waiting
        return waiting is idle

    def answer_sys(self, envelope: Envelope[Any]) -> None:
        """Answer a request of ``sys``; what it raises is its caller's business alone."""
        reply_to = envelope.reply_to
        assert reply_to is not None
        try:
            answer = envelope.message(self)
        except Exception:
            reply_to.set_exception()
        else:
            send_reply(reply_to, answer)

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
        self._exit(KILLED)

    def _obey_exit_signal(self) -> None:
        reason, self._exit_signal = self._exit_signal, None
        assert reason is not None
        self._exit(reason)

    def terminate(self, reason: ExitReason) -> None:
        """Run the actor's ``terminate`` and exit. On the process's own turn only."""
        actor = self.actor
        if not self._advance(_RUNNING, _TERMINATING) or actor is None:
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
        if self.debug is not None:
            self.debug.crashed(error)
        state = self._state
        if state is _EXITED:  # a zombie: what it still does is nobody's business
            return
        report_crash(
            self.ref,
            reason,
            handling="init" if state is _STARTING else "terminate" if state is _TERMINATING else handling,
            mailbox_length=self.mailbox_length,
            links=[linked.ref for linked in self.links],
            parent=None if self.parent is None else self.parent.ref,
        )
        if state is _RUNNING:
            self.terminate(reason)
        else:
            self._exit(reason, start_result=NotStarted(reason))

    def _exit(self, reason: ExitReason, *, start_result: StartResult | None = None) -> None:
        """End, once, from whichever thread: everything that others must learn of it is sent here."""
        if self.takes_messages:  # otherwise it left when it began to terminate
            self.system.leave_pykka(self)
        running = self._scheduler.running
        with self.system.lock:
            if self._state is _EXITED:
                return
            was_starting = self._state is _STARTING
            self._state = _EXITED
            self.exit_reason = reason
            self.observed = True
            linked, monitors = self.cut()
            deferred, self._deferred = self._deferred, None
            self.system.forget(self, is_zombie=running.process is self and running is not context.running)
        if was_starting:
            self._finish_start(start_result or NotStarted(reason))
        for other in linked:
            # A start that failed is told by its result; the parent gets no exit signal on top of it.
            if not (was_starting and other is self.parent):
                other.signal(self, reason)
        for monitor, watcher in monitors.items():
            tell_down(watcher, Down(monitor, self.ref, reason))
        if self.debug is not None:
            self.debug.exited(reason)
        # Callers learn of it last, so that what they do next comes after a supervisor's reaction.
        for reply_to in deferred or ():
            fail_reply(reply_to, reason)
        self._abandon()
        if self._scheduler is not self.system.scheduler:
            self._scheduler.stop()

    def _abandon(self) -> None:
        """Give up what the ended process had in hand, and tell everyone whose call will not be handled any more."""
        reason = self.exit_reason or NO_PROCESS
        self.actor = None
        waiting, self._waiting = self._waiting, None
        current, self._current = self._current, None
        if current is not None:
            if self._last_reply is NO_REPLY:
                fail_reply(current.reply_to, reason)
            else:
                send_reply(current.reply_to, self._last_reply)
        backlog, self._backlog = self._backlog, None
        if waiting is not None:
            self._refuse_all(waiting.give_back())
        if backlog is not None:
            self._refuse_all(backlog)
        self._refuse_mailbox(reason)

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
    def _refuse(envelope: Envelope[Any], reason: ExitReason) -> None:
        if envelope.reply_to is None:
            return
        if isinstance(envelope.message, pykka.messages._ActorStop):
            send_reply(envelope.reply_to, None)
        else:
            fail_reply(envelope.reply_to, reason, begun=False)
