"""The mailbox of a process, and its turns: who runs it, when, and with which message.

A process has the turn while its scheduler has it queued or runs it, which ``_scheduled`` stands for: putting a message
into the mailbox of one that has not gives it the turn. In a turn it handles up to ``MESSAGES_PER_TURN`` messages: first
those that a selective receive or a suspension has passed over, then those of the mailbox, in the order in which they
came.

After the end nothing is handled any more, and whoever waits for an answer is told so. The end may come from another
thread in the middle of a turn, so the last turn looks once more at everything that it may have had in hand.
"""

from __future__ import annotations

import queue
import threading
from abc import abstractmethod
from collections import deque
from types import FrameType
from typing import TYPE_CHECKING, Any

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._calls import CallReply, fail_reply, send_reply
from receipt_actors.otp._context import NOBODY
from receipt_actors.otp._life import EXITED
from receipt_actors.otp._reasons import NO_PROCESS, ExitReason
from receipt_actors.otp._receive import Idle, Suspended, Waiting
from receipt_actors.otp._relations import Relations

if TYPE_CHECKING:
    from receipt_actors.otp._messages import StartResult
    from receipt_actors.otp._scheduler import Scheduler

MESSAGES_PER_TURN = 64  #: messages a process handles before it makes room for others


class Mailbox(Relations):
    """See the module. ``Process`` is the only subclass."""

    __slots__ = (
        "_backlog",
        "_exit_signal",
        "_held_up",
        "_mailbox",
        "_scheduled",
        "_scheduler",
        "_waiting",
        "awaited",
        "messages_handled",
    )

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._scheduled = threading.Lock()  # held: the process is queued or running; taking it is the test-and-set
        self._scheduled.acquire()  # until ``init`` has run
        self._mailbox: queue.SimpleQueue[Envelope[Any]] = queue.SimpleQueue()
        self._backlog: deque[Envelope[Any]] | None = None  # what was passed over, to be handled before the mailbox
        self._waiting: Waiting | Suspended | Idle | None = None  # who is offered messages first
        self.awaited: CallReply | None = None  #: the call that a callback waits for; no message is handled meanwhile
        self._exit_signal: ExitReason | None = None  # the first one; to be obeyed at the next turn at the latest
        self._held_up = False  # whether it has ended, or waits for the answer of a call: one look for both
        self.messages_handled = 0  #: since the start; counted once a turn

    # --- pykka's ActorInbox ---

    def put(self, envelope: Envelope[Any], /) -> None:
        """Queue a message; the sender of one to an ended process is told where it waits for an answer."""
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

    def await_answer(self, answer: CallReply) -> None:
        """Handle no message until the call has been answered."""
        self.awaited = answer
        self._held_up = True

    def end_call(self) -> None:
        """Go on with messages: the call that was waited for is over."""
        with self.system.lock:  # its end may come at this moment
            self.awaited = None
            self._held_up = self._state is EXITED

    def wake(self) -> None:
        """Have it look whether the answer that it waits for has come."""
        if self._scheduled.acquire(False):
            self._scheduler.schedule(self)

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

    def frame(self) -> FrameType | None:
        """Return where the thread is that runs a callback of this process; None where none is under way."""
        return self._scheduler.frame() if self._scheduler.running.is_inside(self) else None  # type: ignore[arg-type]

    # --- turns ---

    @abstractmethod
    def step(self, envelope: Envelope[Any]) -> None:
        """Deal with one message."""

    @abstractmethod
    def answer_sys(self, envelope: Envelope[Any]) -> None:
        """Answer a request of ``sys``."""

    @abstractmethod
    def terminate(self, reason: ExitReason) -> None:
        """End with a reason that was given."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """End: a bug of the runtime itself was met."""

    @abstractmethod
    def _exit(self, reason: ExitReason, *, start_result: StartResult | None = None) -> None:
        """End, once."""

    @abstractmethod
    def _abandon(self) -> None:
        """Give up what it had in hand: it has ended."""

    def run(self) -> None:
        """Handle the messages of one turn (the scheduler calls this)."""
        running = self._scheduler.running
        running.process = self  # type: ignore[assignment]  # Process is the only subclass
        mailbox = self._mailbox
        goes_on = False
        handled = 0
        if self._exit_signal is not None:  # one that comes from now on ends it there and then
            self._exit(self._exit_signal)
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
                    assert type(idle) is Idle
                    idle.time_out()
                    continue
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
        """Queue for the next turn, or give up the turn and take it again at once if a message came in meanwhile."""
        if self._state is EXITED:
            self._end_last_turn()
            return
        if not goes_on:
            self._scheduled.release()
            awaited, waiting = self.awaited, self._waiting
            left = (
                self._exit_signal is not None
                or (not self._mailbox.empty() or self._backlog if awaited is None else awaited.outcome is not None)
                or (waiting is not None and (waiting.is_due or self._state is EXITED))  # killed at this moment
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
        if self in self.system.undead:
            self.system.bury(self)
        self._stop_own_scheduler()

    def _stop_own_scheduler(self) -> None:
        """End the thread, where it is this process's own."""
        if self._scheduler is not self.system.scheduler:
            self._scheduler.stop()

    # --- what takes messages first ---

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

    def is_idle(self, idle: Idle) -> bool:
        """Tell whether this time-out still counts: nothing has come since it was set."""
        waiting = self._waiting
        return waiting is idle

    def resume_from(self, waiting: Waiting | Suspended | Idle) -> None:
        """Take back the messages that were passed over: they come before all others."""
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

    def _put_first(self, envelope: Envelope[Any]) -> None:
        """Have a message handled before all others; on the process's own turn only."""
        backlog = self._backlog
        if backlog:
            backlog.appendleft(envelope)
        else:
            self._backlog = deque((envelope,))

    # --- refusing ---

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
