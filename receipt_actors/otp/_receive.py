"""What a process does with its messages while it does not handle them in turn: selective receive, idling, suspension.

Some pass messages over and keep them, in order; the process gets them back, before all others, in the end.
Owned by one process and touched on its own turns only. A crash of the process forgets it, and refuses what it kept.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pykka._envelope import Envelope

from receipt_actors.otp._calls import CallReply
from receipt_actors.otp._clock import Timer
from receipt_actors.otp._messages import (
    TIMEOUT,
    DownEnvelope,
    ParentExitEnvelope,
    Receive,
    ReceiveMore,
    ReceiveNew,
    Receiving,
    ReplyEnvelope,
    SysEnvelope,
    SystemEnvelope,
    shape_of,
)
from receipt_actors.otp._reports import log

if TYPE_CHECKING:
    from receipt_actors.otp._process import Process


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
        """Cancel the time-out and return what was passed over."""
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
        """Go on with a message that it waits for; keep any other."""
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
                self._process.finished(self, self._envelope, end.value)
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
        """Wait for the answer of a call; no message is looked at meanwhile."""
        process, seconds = self._process, answer.timeout_seconds
        if seconds == 0:
            answer.time_out()
        elif not process.is_set():
            process.await_answer(answer)
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
        if self._process.is_idle(self):
            self.offer(Envelope(TIMEOUT))

    def give_back(self) -> deque[Envelope[Any]]:
        """Cancel the time-out; nothing was passed over."""
        if self._timer is not None:
            self._timer.cancel()
        return deque()

    def close(self) -> None:
        """Nothing is under way."""

    def offer(self, envelope: Envelope[Any]) -> None:
        """Handle the message, and wait no more; a request of ``sys`` begins the time anew, as in OTP."""
        if type(envelope) is SysEnvelope:
            self._process.answer_sys(envelope)
            if self._timer is not None and self._process.is_idle(self):
                self._timer.cancel()
                self._timer = start_timer(self._process, self.seconds, self._time_out)
        elif type(envelope) is DownEnvelope and not self._process.expects(envelope.message):
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
        """Nothing is under way."""

    def offer(self, envelope: Envelope[Any]) -> None:
        if type(envelope) is SysEnvelope:
            self._process.answer_sys(envelope)
        elif type(envelope) is ParentExitEnvelope:
            self._process.resume_from(self)
            self._process.terminate(envelope.message)
        else:
            self._passed_over.append(envelope)
