"""Calls from the side of who answers: the ways in which an answer, or its absence, reaches who asked.

``reply_to`` of an envelope is a pykka future (``call``, ``ask``), a ``RequestReply`` (``send_request``) or a
``CallReply`` (``call_to``); each is answered once, whatever comes first.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Any

import pykka

from receipt_actors.otp._messages import Reply, ReplyEnvelope, check_seconds
from receipt_actors.otp._reasons import Crash, ExitReason
from receipt_actors.otp._scheduler import context, current_process

if TYPE_CHECKING:
    from receipt_actors.otp._process import Process


class Future(pykka.ThreadingFuture[Any]):
    """pykka's future, except that an actor is told so where it would wait for its own thread, for ever."""

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
    """The ``reply_to`` of ``call_to``, which waits for it: the answer goes past the mailbox, one that is late nowhere.

    (OTP: the alias of ``gen:call``, which ends with the call, and the mark from which its ``receive`` looks.)
    """

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
        """End the call, unless it has been answered."""
        self._end(None, pykka.Timeout(f"{self.timeout_seconds} seconds"))

    def _end(self, value: object, error: BaseException | None) -> None:
        with self._process.system.lock:  # who does not come first finds the outcome
            is_first = self._is_first()
            if is_first:
                self.outcome = (value, error)
        if is_first:
            self._process.wake()


class GatheredReplies:
    """The answers to several requests, which reach the process that asked as one: it is woken once for all of them."""

    __slots__ = ("_label", "_missing", "_process", "_replies")

    def __init__(self, process: Process, label: object, count: int) -> None:
        self._process = process
        self._label = label
        self._missing = count
        self._replies: list[Reply | None] = [None] * count

    def part(self, index: int) -> RequestReply:
        """Make the ``reply_to`` of one of the requests."""
        return _PartOfReplies(self._process, index, self)

    def put(self, index: int, value: object, failure: ExitReason | None) -> None:
        """Take an answer; with the last one they are delivered."""
        with self._process.system.lock:
            self._replies[index] = Reply(index, value, failure)
            self._missing -= 1
            is_last = not self._missing
        if is_last:
            self.deliver()

    def deliver(self) -> None:
        self._process.put(ReplyEnvelope(self._label, self._replies, None))


class _PartOfReplies(RequestReply):
    __slots__ = ("_gathered", "_index")

    def __init__(self, process: Process, index: int, gathered: GatheredReplies) -> None:
        super().__init__(process, None)
        self._index = index
        self._gathered = gathered

    def _put(self, value: object, failure: ExitReason | None) -> None:
        if self._is_first():
            self._gathered.put(self._index, value, failure)


class From:
    """Whom a call came from; ``reply`` answers it, once (``gen_server:reply/2``). May be kept after ``NO_REPLY``."""

    __slots__ = ("_owner", "_reply_to")

    def __init__(self, owner: Process, reply_to: Any) -> None:
        self._owner = owner
        self._reply_to = reply_to

    def is_wanted(self) -> bool:
        """Tell whether somebody still waits: False once answered, or when the actor that asked has ended."""
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
