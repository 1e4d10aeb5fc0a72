"""The callbacks of a process: which message goes to which, and what becomes of what it returns or raises.

A callback runs on its process's own turn. What it returned is *settled*: a generator is resumed until it waits, a call
is answered or put off, ``Stop`` has ``terminate`` run, ``Continue`` comes next. A process that has been killed
or ended by an exit signal meanwhile settles nothing any more.

**One crash rule.** Whatever a callback raises (``SystemExit`` too), in ``init``, a call, a cast or an info, ends the
process with ``Crash``; a caller gets the exception as well.
"""

from __future__ import annotations

from abc import abstractmethod
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._calls import fail_reply, send_reply
from receipt_actors.otp._debug import Debug
from receipt_actors.otp._life import EXITED, RUNNING, STARTING, TERMINATING, State
from receipt_actors.otp._mailbox import Mailbox
from receipt_actors.otp._messages import (
    IGNORE,
    NO_REPLY,
    Continue,
    ContinueEnvelope,
    DownEnvelope,
    IdleTimeout,
    NotStarted,
    ParentExitEnvelope,
    StartResult,
    Stop,
    SysEnvelope,
    SystemEnvelope,
)
from receipt_actors.otp._reasons import NO_PROCESS, NORMAL, Crash, ExitReason
from receipt_actors.otp._receive import Idle, Waiting
from receipt_actors.otp._reports import OWN_DECISION, report_crash

if TYPE_CHECKING:
    from receipt_actors.otp._actor import Actor
    from receipt_actors.otp._process import Process

_RESULT_CLASSES: Final = frozenset({Stop, Continue, IdleTimeout, NotStarted})
_RUNTIME_ENVELOPES: Final = frozenset({ContinueEnvelope, SystemEnvelope, SysEnvelope, ParentExitEnvelope, DownEnvelope})


class Callbacks(Mailbox):
    """See the module. ``Process`` is the only subclass."""

    __slots__ = ("_current", "_deferred", "_ending", "actor", "debug", "parent")

    # ``Process`` makes them: one ``__init__`` fewer for each actor.
    parent: Process | None
    actor: Actor | None
    debug: Debug | None  # what ``sys`` was asked to watch
    _current: Envelope[Any] | None  # the call that is being handled
    _ending: tuple[ExitReason, object] | None  # while ``terminate`` runs: why, and the answer to the call at hand
    _deferred: set[Any] | None  # the reply_to of each call that is answered later

    @abstractmethod
    def _acknowledge_start(self) -> bool:
        """Tell that it has started; False when it was ended from outside meanwhile, which has been told then."""

    @abstractmethod
    def _exit(self, reason: ExitReason, *, start_result: StartResult | None = None) -> None:
        """End, once."""

    # --- a message ---

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
            self._exit(self._ending[0])
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
            if not self._acknowledge_start():
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
                    self.debug.replied(reply)
        if type(result) is Continue:
            # Not here and now: it may return Continue again, and who waits for the start is told before (OTP).
            self._put_first(ContinueEnvelope(result.term))
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
        """Send the reply of a ``Stop``, after ``terminate`` and before anyone learns of the end (OTP).

        Who asked by pykka's ``stop`` wants to know of the end itself, and is told by ``_abandon``.
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

    # --- selective receive and suspension: what ``Waiting`` and ``Suspended`` report ---

    def finished(self, waiting: Waiting, envelope: Envelope[Any] | None, result: Any) -> None:
        """Go on with what a callback that was a generator returned."""
        self.resume_from(waiting)
        self._settle(envelope, result)

    def interrupted(self, waiting: Waiting, error: BaseException) -> None:
        """End: a callback that was a generator raised ``error``."""
        self.resume_from(waiting)
        self._crash(error)

    # --- calls that are answered later ---

    @property
    def unanswered_calls(self) -> int:
        """Count the calls that ``handle_call`` took (``NO_REPLY``) and that still wait for their answer."""
        return len(self._deferred or ())

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

    def forget_call(self, reply_to: object) -> None:
        """Note that a call has been answered, so that nobody tells its caller otherwise."""
        with self.system.lock:
            current = self._current
            if current is not None and current.reply_to is reply_to:
                self._current = None
            elif self._deferred is not None:
                self._deferred.discard(reply_to)

    # --- terminate and crash ---

    def _advance(self, before: State, after: State) -> bool:
        """Go from one state to the next; False when it was ended from outside meanwhile."""
        with self.system.lock:
            if self._state is not before:
                return False
            self._state = after
        return True

    def terminate_next(self, reason: ExitReason) -> None:
        """Have it end as if its parent had said so, before it handles any other message."""
        self._put_first(ParentExitEnvelope(reason))

    def terminate(self, reason: ExitReason, reply: object = NO_REPLY, handling: str = "an order to end") -> None:
        """End with a reason that was given, by ``Stop`` or by the parent. On the process's own turn only."""
        if isinstance(reason, Crash) and self._state is RUNNING:
            self._report(reason, handling)
        self._terminate(reason, reply)

    def _terminate(self, reason: ExitReason, reply: object = NO_REPLY) -> None:
        """Run the actor's ``terminate`` and exit."""
        actor = self.actor
        if not self._advance(RUNNING, TERMINATING) or actor is None:
            return
        self._ending = (reason, reply)
        self.system.leave_pykka(self.ref)
        try:
            result = actor.terminate(reason)
        except BaseException as error:
            self._crash(error)
            return
        self._settle(None, result)

    def _crash(self, error: BaseException, handling: str = "what it had begun") -> None:
        reason = Crash(error)
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
