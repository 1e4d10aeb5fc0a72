"""The visibility keeper: sees to it that a message stays with its custodian, and comes back when that ends without it.

It owns the table custodian -> receipt handle, receive count, deadline. From half of its visibility timeout on a message
is extended, in batches, for as long as its custodian lives (12 h at most, says SQS). What a custodian's end means:

==============  ====================================================================================================
it ended        then the message
==============  ====================================================================================================
``normal``      is deleted or moved; nothing is to be done. Or it sent ``HandBack``: handed back later, the later the
                oftener it was received
``shutdown``    is handed back at once, for another process, or the node that does the work now, to take; later, where
                it was received often already: a pipeline that is restarted again and again must not use up its receives
crash, killed   is counted and logged with its id, and handed back later: a poisonous message comes round ever more
                seldom and ends in the dead-letter queue, while nobody else is disturbed
==============  ====================================================================================================

It also says whose turn it is among messages of one group of a FIFO queue (``domain.lines``), for it is told of every
end: the next one begins when the one before is deleted or moved; when that is handed back, however that came, those
behind it are handed back as well. They are visible at once, but the queue gives none of them before the one that is
hidden, so the order is kept. What waits for its turn is extended, counted and drained as any other message.

A message whose extension fails is *lost*: it may be with another worker by now. Nothing more is done about it, for the
newest receive decides; its custodian goes on, and its claim protects it.

A crash of the keeper forgets the table; it is rebuilt by asking the custodians that live. Where the keeper is told to
end before them (its supervisor gives up, and the pipeline ends them next) it hands back what it still watches.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Any

from receipt_actors.domain.lines import Lines, Turn
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.retrying import hand_back_seconds, hand_back_unfinished_seconds
from receipt_actors.otp import (
    Continue,
    Crash,
    Down,
    ExitReason,
    GenServer,
    Normal,
    Ref,
    Shutdown,
    WhichChildren,
)
from receipt_actors.pipeline.protocol import (
    MOVERS,
    VALIDATORS,
    AnnounceYourself,
    ChangeVisibility,
    GaveUp,
    HandBack,
    Refused,
    StandBack,
    WatchMessage,
    YourTurn,
    visibility_batcher_of,
)
from receipt_actors.telemetry.decisions import log_handed_back
from receipt_actors.telemetry.incidents import INCIDENTS, CustodianCrashed
from receipt_actors.telemetry.statistics import statistics_of
from receipt_actors.telemetry.tracing import tracer_of

logger = logging.getLogger(__name__)

TICKS_PER_TIMEOUT = 12  #: how often in a visibility timeout the table is looked through


@dataclass(frozen=True, slots=True)
class _Tick:
    """To itself: look for messages to extend."""


@dataclass(frozen=True, slots=True)
class _Extension:
    """Label of the request to extend the message of this custodian."""

    custodian: Ref


class _Watched:
    """A message and the custodian it belongs to."""

    __slots__ = ("extend_at_seconds", "hand_back", "is_lost", "message")

    def __init__(self, message: WatchMessage, extend_at_seconds: float) -> None:
        self.message = message
        self.extend_at_seconds = extend_at_seconds  # monotonic
        self.hand_back: Reason | None = None
        self.is_lost = False


class VisibilityKeeper(GenServer):
    """See the module."""

    trap_exit = True  # so that the ends of custodians that wait in the mailbox are handled before its own

    def __init__(self, visibility_timeout_seconds: int, rng: random.Random) -> None:
        self._timeout_seconds = visibility_timeout_seconds
        self._rng = rng
        self._tracer = tracer_of(self.system)
        self._table: dict[Ref, _Watched] = {}
        self._lines: Lines[Ref] = Lines()

    def init(self) -> Continue:
        """Start ticking."""
        self._tick_later()
        return Continue()

    def handle_continue(self, term: Any) -> None:
        """Find the custodians that an earlier keeper watched."""
        for supervisor in (VALIDATORS, MOVERS):
            self.send_request(supervisor, WhichChildren(), supervisor)

    def handle_reply(self, label: Any, value: Any) -> None:
        """Ask each custodian for its message, or see that an extension failed. (A hand-back that fails comes back.)"""
        if isinstance(label, _Extension):
            if isinstance(value, Refused | GaveUp):
                self._lost(label.custodian, value.detail)
        elif label in (VALIDATORS, MOVERS):
            for child in value:
                if isinstance(child.child, Ref):
                    child.child.send(AnnounceYourself())

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """A supervisor does not live yet, or the batcher died: the message comes back by its visibility timeout."""

    def handle_cast(self, request: Any) -> Any:
        """Watch a message, or hand it back when its custodian ends."""
        match request:
            case WatchMessage(custodian):
                if custodian not in self._table:
                    extend_at = request.received_at_seconds + self._timeout_seconds / 2
                    self._table[custodian] = _Watched(request, extend_at)
                    self.monitor(custodian)
                    if request.group is not None:
                        self._line_up(request, request.group)
            case HandBack(custodian, reason):
                watched = self._table.get(custodian)
                if watched is not None:
                    watched.hand_back = reason
            case _:
                return super().handle_cast(request)
        return None

    def handle_info(self, message: Any) -> Any:
        """A tick, or the end of a custodian."""
        match message:
            case _Tick():
                self._extend()
                self._lines.forget(self.clock.monotonic() - self._timeout_seconds)
                self._tick_later()
            case Down(_, ref, reason):
                watched = self._table.pop(ref, None)
                if watched is not None:
                    # It may have ended before it was watched: then the monitor cannot say how, but the process can.
                    self._custodian_ended(ref, watched, ref.process.exit_reason or reason)
            case _:
                return super().handle_info(message)
        return None

    def _line_up(self, message: WatchMessage, group: tuple[str, str]) -> None:
        match self._lines.join(group, message.custodian, message.received_at_seconds):
            case Turn.BEGIN:
                message.custodian.send(YourTurn())
            case Turn.STAND_BACK:
                message.custodian.send(StandBack())

    def _leave_line(self, message: WatchMessage, group: tuple[str, str], *, is_finished: bool) -> None:
        left = self._lines.leave(
            group,
            message.custodian,
            message.received_at_seconds,
            is_finished=is_finished,
            now_seconds=self.clock.monotonic(),
        )
        for custodian in left.stand_back:
            custodian.send(StandBack())
        if left.begin is not None:
            left.begin.send(YourTurn())

    def _lost(self, custodian: Ref, detail: str) -> None:
        watched = self._table.get(custodian)
        if watched is not None:
            watched.is_lost = True
            logger.warning(
                "message %s could not be extended and may be with another worker by now: %s",
                watched.message.message_id,
                detail,
            )

    def _tick_later(self) -> None:
        self.send_after(self._timeout_seconds / TICKS_PER_TIMEOUT, _Tick())

    def _extend(self) -> None:
        now = self.clock.monotonic()
        for custodian, watched in self._table.items():
            message = watched.message
            latest = message.received_at_seconds + MAX_VISIBILITY_SECONDS - self._timeout_seconds
            if watched.extend_at_seconds <= now <= latest and not watched.is_lost:
                watched.extend_at_seconds = now + self._timeout_seconds / 2
                self._change(message, self._timeout_seconds, _Extension(custodian))

    def _custodian_ended(self, custodian: Ref, watched: _Watched, reason: ExitReason) -> None:
        message = watched.message
        if message.group is not None:
            is_finished = isinstance(reason, Normal) and watched.hand_back is None
            self._leave_line(message, message.group, is_finished=is_finished)
        match reason:
            case Normal() if watched.hand_back is not None:
                why = watched.hand_back
                seconds = self._later(message, why)
            case Normal():
                return
            case Shutdown():
                why = Reason.DRAINED
                waited = self.clock.monotonic() - message.received_at_seconds
                log_handed_back(message.message_id, why, "this process, or a part of it, ends or stands by", waited)
                seconds = hand_back_unfinished_seconds(
                    message.approximate_receive_count, self._rng, blocks_group=message.group is not None
                )
            case _:
                logger.error(
                    "the custodian of message %s crashed: %s",
                    message.message_id,
                    type(reason).__name__,
                    extra={"fate": "handed_back", "message_id": message.message_id, "reason": Reason.CRASHED},
                )
                why, seconds = Reason.CRASHED, self._later(message, Reason.CRASHED)
                outcome = (
                    f"message {message.message_id}, received {message.approximate_receive_count} times, "
                    f"is handed back and comes again in {seconds} s"
                )
                self.cast(INCIDENTS, CustodianCrashed(custodian, message.message_id, outcome))
        self._hand_back(watched, why, seconds)

    def terminate(self, reason: ExitReason) -> None:
        """Hand back what has a custodian still, unless it was the keeper alone that crashed."""
        if not isinstance(reason, Crash):
            for watched in self._table.values():
                self._hand_back(watched, Reason.CRASHED, self._later(watched.message, Reason.CRASHED))

    def _hand_back(self, watched: _Watched, why: Reason, seconds: int) -> None:
        message = watched.message
        if not watched.is_lost:
            self._change(message, seconds, message.message_id)
        if self._tracer.is_on and watched.hand_back is None and self._tracer.wants("handed_back"):
            # Otherwise the custodian has said so itself.
            known = {
                "message_id": message.message_id,
                "receive_count": message.approximate_receive_count,
                "source_queue": message.source.queue,
            }
            self._tracer.emit("handed_back", {**known, "reason": why}, message.received_at_seconds)
        logger.debug("message %s handed back for %d s: %s", message.message_id, seconds, why)
        was_here_seconds = self.clock.monotonic() - message.received_at_seconds
        statistics_of(self.system).message_finished("handed_back", why, was_here_seconds)

    def _later(self, message: WatchMessage, why: Reason) -> int:
        count, blocks_group = message.approximate_receive_count, message.group is not None
        return hand_back_seconds(why, count, self._rng, blocks_group=blocks_group)

    def _change(self, message: WatchMessage, seconds: int, label: object) -> None:
        batcher = visibility_batcher_of(message.source)
        self.send_request(batcher, ChangeVisibility(message.receipt_handle, seconds), label)
