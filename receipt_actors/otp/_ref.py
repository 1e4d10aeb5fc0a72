"""References: what one holds of an actor; sending, and how an answer, or its absence, reaches the one that asked.

``reply_to`` of an envelope is a pykka future (``call``, ``ask``), a ``RequestReply`` (``send_request``) or a
``CallReply`` (``call_to``); each is answered once, by what comes first.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._messages import (
    CastEnvelope,
    Crash,
    ExitReason,
    Name,
    ReplyEnvelope,
    check_exit_reason,
    check_seconds,
    text_of,
)
from receipt_actors.otp._scheduler import context, current_process

if TYPE_CHECKING:
    from receipt_actors.otp._gen_server import Actor
    from receipt_actors.otp._process import Process

# --- answers ---


class Future(pykka.ThreadingFuture[Any]):
    """pykka's future, except that an actor that would wait for its own thread, for ever, gets an error."""

    answerer: Process | None = None  #: who is to answer, where that is one actor

    def get(self, *, timeout: float | None = None) -> Any:
        """See ``pykka.Future.get``.

        Raises:
            RuntimeError: called by a pooled actor before the answer is there, or by the actor that is to give it.
            ValueError: ``timeout`` is no number of seconds.
        """
        if timeout is not None:
            check_seconds(timeout)
        if self._result is None and timeout != 0:
            waiter = current_process()
            if waiter is not None and waiter is self.answerer:
                raise RuntimeError(f"{waiter.ref} must not wait for itself: it would wait for ever")
            if waiter is not None and self._get_hook is None and waiter.system.scheduler.is_current():
                raise RuntimeError(f"{waiter.ref} is pooled and must not block: use send_request() and handle_reply()")
        return super().get(timeout=None if timeout is None else min(timeout, threading.TIMEOUT_MAX))


class RequestReply:
    """The ``reply_to`` of ``send_request``: puts one answer, the first, into the mailbox of the process that asked."""

    __slots__ = ("_answered", "_label", "_process")

    def __init__(self, process: Process, label: object) -> None:
        self._process = process
        self._label = label
        self._answered = False

    def is_wanted(self) -> bool:
        return not (self._answered or self._process.is_set())

    def set(self, value: object = None) -> None:
        self._put(value, None)

    def fail(self, reason: ExitReason) -> None:
        self._put(None, reason)

    def _put(self, value: object, failure: ExitReason | None) -> None:
        if self._is_first():
            self._process.put(ReplyEnvelope(self._label, value, failure))

    def _is_first(self) -> bool:
        with self._process.system.lock:  # an answer and the end of the process that owes it may come together
            answered, self._answered = self._answered, True
        return not answered


class CallReply(RequestReply):
    """The ``reply_to`` of ``call_to``: the answer goes past the mailbox, a late one nowhere (OTP: an alias)."""

    __slots__ = ("outcome", "timeout_seconds")

    def __init__(self, process: Process, timeout_seconds: float | None) -> None:
        super().__init__(process, None)
        self.timeout_seconds = timeout_seconds
        self.outcome: tuple[object, BaseException | None] | None = None  #: the answer, or what the call raises

    def _put(self, value: object, failure: ExitReason | None) -> None:
        error = None
        if failure is not None:
            error = pykka.ActorDeadError(f"the actor ended before it answered: {failure}")
            error.__cause__ = failure.exception if isinstance(failure, Crash) else None
        self._end(value, error)

    def time_out(self) -> None:
        self._end(None, pykka.Timeout(f"{self.timeout_seconds} seconds"))

    def _end(self, value: object, error: BaseException | None) -> None:
        with self._process.system.lock:  # who does not come first finds the outcome
            is_first = self._is_first()
            if is_first:
                self.outcome = (value, error)
        if is_first:
            self._process.wake()


class From:
    """The caller of a call; ``reply`` answers it, once (``gen_server:reply/2``). May be kept after ``NO_REPLY``."""

    __slots__ = ("_owner", "_reply_to")

    def __init__(self, owner: Process, reply_to: Any) -> None:
        self._owner = owner
        self._reply_to = reply_to

    def is_wanted(self) -> bool:
        """Tell whether an answer is still waited for: False once answered, or if the actor that asked has ended."""
        reply_to = self._reply_to
        if reply_to is None:
            return False
        if isinstance(reply_to, RequestReply) and not reply_to.is_wanted():
            self._owner.forget_call(reply_to)  # who learns of this drops the call, and will not answer it
            return False
        return True

    def reply(self, value: object) -> None:
        """Answer the call. A second answer is dropped, and so is one from an actor that has been killed."""
        if not context.running.send(self._answer, value):
            return
        owner = self._owner
        if owner.debug is not None and context.running.process is owner:  # its events are noted on its own turns
            owner.debug.sent(value)

    def _answer(self, value: object) -> None:
        reply_to, self._reply_to = self._reply_to, None
        if reply_to is not None:
            self._owner.forget_call(reply_to)
            send_reply(reply_to, value)


def send_reply(reply_to: Any, value: object) -> None:
    try:
        reply_to.set(value)
    except queue.Full:  # the process was killed at this moment, and its caller told so
        return


def fail_reply(reply_to: Any, reason: ExitReason, *, begun: bool = True) -> None:
    """Tell who waits for an answer why there is none; ``begun``: whether its call had been looked at.

    A caller gets the exception itself of a crash that its own call may have caused; others find a dead actor.
    """
    if isinstance(reply_to, RequestReply):
        reply_to.fail(reason)
        return
    error: BaseException = pykka.ActorDeadError(f"the actor ended before it answered: {reason}")
    if isinstance(reason, Crash):
        if not begun:
            error.__cause__ = reason.exception
        else:
            error = reason.exception
    with contextlib.suppress(queue.Full):  # it was answered at this moment
        reply_to.set_exception((type(error), error, error.__traceback__))


class Ref(pykka.ActorRef[Any]):
    """A pykka ``ActorRef`` (``tell``, ``ask``, ``stop``, ``proxy``, ``is_alive``) that speaks OTP as well.

    It may be kept and used after its actor has ended: a cast is dropped then, a call fails.
    """

    _urn: str

    def __init__(self, process: Process, actor_class: type[Actor]) -> None:
        # pykka's own __init__ is left out: it would copy what the process has, and make a UUID for each actor.
        self.process = process
        self.actor_class = actor_class

    # --- what pykka's ActorRef keeps as attributes ---

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """A universally unique name (a UUID 4), made when it is first asked for: most actors never need it."""
        if not self.is_known_by_urn:
            self.__dict__.setdefault("_urn", uuid.uuid4().urn)  # atomic: two threads may ask at once
        return self._urn

    @property
    def is_known_by_urn(self) -> bool:
        return "_urn" in self.__dict__

    @property
    def actor_inbox(self) -> Process:  # type: ignore[override]
        return self.process

    @property
    def actor_stopped(self) -> Process:  # type: ignore[override]
        return self.process

    @property
    def _actor_weakref(self) -> Callable[[], Actor | None]:  # type: ignore[override]
        return lambda: self.process.actor

    def __str__(self) -> str:
        name = self.process.name
        return f"{self.actor_class.__name__} ({self.actor_urn if name is None else text_of(name)})"

    def is_alive(self) -> bool:
        """Tell whether it handles what it is sent. False while it cleans up already, as in pykka."""
        return self.process.takes_messages

    @property
    def name(self) -> Name | None:
        return self.process.name

    # --- pykka's own ways of sending, from an actor that may have been killed meanwhile ---

    def tell(self, message: Any) -> None:
        """Send a message to ``handle_info``.

        Raises:
            pykka.ActorDeadError: the actor has ended (``send`` would drop the message).
        """
        if context.running.process.observed and not self._may_be_sent(message):
            return
        context.running.send(super().tell, message)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """See ``pykka.ActorRef.ask``."""
        if timeout is not None:
            check_seconds(timeout)
        if context.running.process.observed and not self._may_be_sent(message):
            raise _has_been_ended("asks for")
        asked: list[Any] = []
        if not context.running.send(lambda: asked.append(super(Ref, self).ask(message, block=False))):
            raise _has_been_ended("asks for")
        future = asked[0]
        if isinstance(future, Future):
            future.answerer = self.process
        return future.get(timeout=timeout) if block else future

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Ask it to end, and wait until it has (pykka's own would not wait for one that is cleaning up already).

        Returns:
            False if it had ended before; with ``block=False`` a future of that.

        Raises:
            pykka.Timeout: it has not ended in time.
            RuntimeError: an actor would wait for its own end.
            pykka.ActorDeadError: an actor asks that has been ended meanwhile.
            ValueError: ``timeout`` is no number of seconds; nothing has been asked then.
        """
        if timeout is not None:
            check_seconds(timeout)
        if block and context.running.process is self.process:
            raise RuntimeError(f"{self} must not wait for its own end: call self.stop(), or return Stop()")
        stopped: pykka.Future[Any] = Future()
        if self.process.is_set() and not context.running.process.has_ended:
            stopped.set(False)
        else:
            if not self._put(Envelope(pykka.messages._ActorStop(), reply_to=stopped)):
                raise _has_been_ended("asks for")
            stopped = stopped.map(lambda _none: True)
        return stopped.get(timeout=timeout) if block else stopped

    def _put(self, envelope: Envelope[Any]) -> bool:
        running = context.running
        if running.process.observed and not self._may_be_sent(envelope.message):
            return False
        return running.send(self.process.put, envelope)

    def _may_be_sent(self, message: object) -> bool:
        sender = current_process()
        if sender is None:
            return True
        if sender.is_set():
            return False
        if sender.debug is not None:
            sender.debug.sent(message, self)
        return True  # what watches it may have ended it: ``has_ended`` is looked at once more

    # --- OTP ---

    def send(self, message: object) -> None:
        """Send a message to ``handle_info``; dropped when the actor has ended (pykka's ``tell`` would raise)."""
        running = context.running
        envelope = Envelope(message)
        before, running.is_sending = running.is_sending, True  # ``Running.send``, in place
        try:
            if not running.process.observed:
                self.process.put(envelope)
                return
        finally:
            running.is_sending = before
        self._put(envelope)

    def cast(self, request: object) -> None:
        """Send a request without a reply, to ``handle_cast``; dropped when the actor has ended."""
        running = context.running
        envelope = CastEnvelope(request)
        before, running.is_sending = running.is_sending, True  # ``Running.send``, in place
        try:
            if not running.process.observed:
                self.process.put(envelope)
                return
        finally:
            running.is_sending = before
        self._put(envelope)

    def send_request(self, request: object, reply_to: Any) -> None:
        """Send a request whose answer goes to ``reply_to``; see ``Actor.send_request``."""
        self._put(Envelope(request, reply_to=reply_to))

    def call(self, request: object, timeout: float | None = 5.0) -> Any:
        """Send a request to ``handle_call`` and wait for its reply (``gen_server:call``).

        For threads that are no actor's and ``THREAD`` actors; a pooled actor uses ``send_request``.

        Args:
            request: what ``handle_call`` gets.
            timeout: seconds to wait, None for ever.

        Raises:
            pykka.Timeout: no reply in time. A late one is dropped.
            pykka.ActorDeadError: the actor has ended, or ended before it answered.
            RuntimeError: a pooled actor calls, or an actor calls itself.
            Exception: whatever made the actor crash while it handled the request.
        """
        return self.request(Envelope, request, timeout)

    def request(self, kind: type[Envelope[Any]], message: object, timeout: float | None) -> Any:
        running = context.running
        if running is self.process.system.scheduler.running:
            raise RuntimeError("a pooled actor must not block in call(): use send_request() and handle_reply()")
        if timeout is not None:
            check_seconds(timeout)
        if running.process is self.process:
            raise RuntimeError(f"{self} must not call itself: it would wait for its own answer")
        future = Future()
        if not self._put(kind(message, reply_to=future)):
            raise _has_been_ended("calls")
        return future.get(timeout=timeout)

    def exit(self, reason: ExitReason) -> None:
        """Send an exit signal (``exit/2``). From an actor it comes from that actor.

        One that does not trap exits ends at once, as by ``kill``: a callback that runs goes on, fenced, as a zombie.

        Raises:
            TypeError: ``reason`` is no exit reason.
        """
        check_exit_reason(reason)
        process = self.process
        if context.running.send(process.take_signal, current_process(), reason):
            process.obey_signal()

    def kill(self) -> None:
        """End the actor at once, without ``terminate`` (``exit(Pid, kill)``); see ``Process.kill``."""
        self.process.kill(current_process())

    def wait(self, timeout: float | None = None) -> ExitReason | None:
        """Wait for the actor's end, and return why it ended; None if it has not ended in time.

        For threads that are no actor's and ``THREAD`` actors; a pooled actor monitors it.

        Raises:
            RuntimeError: called by a pooled actor, or by the very actor.
        """
        running = context.running
        if running is self.process.system.scheduler.running or running.process is self.process:
            raise RuntimeError("an actor must not wait for its own thread: monitor the other, and handle its Down")
        if timeout is not None:
            check_seconds(timeout)
            timeout = min(timeout, threading.TIMEOUT_MAX)
        return self.process.exit_reason if self.process.wait(timeout) else None

    @property
    def is_zombie(self) -> bool:
        """Tell whether it was ended from outside while a callback ran that still runs."""
        return self.process in self.process.system.undead


def _has_been_ended(does: str) -> pykka.ActorDeadError:
    return pykka.ActorDeadError(f"{current_process()} has ended; what it still {does} comes to nothing")


def check_ref(ref: object) -> None:
    """Raise ``TypeError`` for what is no reference of an actor of ours."""
    if not isinstance(ref, Ref):
        raise TypeError(f"a Ref is expected, as system.whereis(name) and start() give it, not a {type(ref).__name__}")
