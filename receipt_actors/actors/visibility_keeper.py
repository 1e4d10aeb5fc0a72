"""The visibility keeper: sees to it that a message stays with its custodian, and comes back when that ends without it.

It owns the table custodian -> receipt handle, receive count, deadline. From half of its visibility timeout on a message
is extended, in batches, for as long as its custodian lives (12 h at most, says SQS). What a custodian's end means:

==============  ====================================================================================================
it ended        then the message
==============  ====================================================================================================
``normal``      is deleted or moved; nothing is to be done. Or it sent ``HandBack``: handed back later, the later the
                oftener it was received
``shutdown``    is handed back at once, for another process to take; later, where it was received often already: a
                pipeline that is restarted again and again must not use up its receives
crash, killed   is counted and logged with its id, and handed back later: a poisonous message comes round ever more
                seldom and ends in the dead-letter queue, while nobody else is disturbed
==============  ====================================================================================================

A crash of the keeper forgets the table; it is rebuilt by asking the custodians that live. Where the keeper is told to
end before them (its supervisor gives up, and the pipeline ends them next) it hands back what it still watches.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Any

from receipt_actors.actors.protocol import (
    MOVERS,
    VALIDATORS,
    VISIBILITY_BATCHER,
    AnnounceYourself,
    ChangeVisibility,
    HandBack,
    WatchMessage,
)
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.retrying import hand_back_seconds
from receipt_actors.otp import (
    Continue,
    Crash,
    Down,
    ExitReason,
    GenServer,
    NoProcess,
    Normal,
    Ref,
    Shutdown,
    WhichChildren,
)
from receipt_actors.telemetry.events import STATISTICS, MessageFinished

logger = logging.getLogger(__name__)

TICKS_PER_TIMEOUT = 12  #: how often in a visibility timeout the table is looked through
RECEIVES_AT_ONCE = 8  #: receives after which a message is no longer handed back at once


@dataclass(frozen=True, slots=True)
class _Tick:
    """To itself: look for messages to extend."""


class _Watched:
    """A message and the custodian it belongs to."""

    __slots__ = ("extend_at_seconds", "hand_back", "message")

    def __init__(self, message: WatchMessage, extend_at_seconds: float) -> None:
        self.message = message
        self.extend_at_seconds = extend_at_seconds  # monotonic
        self.hand_back: Reason | None = None


class VisibilityKeeper(GenServer):
    """See the module."""

    trap_exit = True  # so that the ends of custodians that wait in the mailbox are handled before its own

    def __init__(self, visibility_timeout_seconds: int, rng: random.Random) -> None:
        self._timeout_seconds = visibility_timeout_seconds
        self._rng = rng
        self._table: dict[Ref, _Watched] = {}

    def init(self) -> Continue:
        """Start ticking."""
        self._tick_later()
        return Continue()

    def handle_continue(self, term: Any) -> None:
        """Find the custodians that an earlier keeper watched."""
        for supervisor in (VALIDATORS, MOVERS):
            self.send_request(supervisor, WhichChildren(), supervisor)

    def handle_reply(self, label: Any, value: Any) -> None:
        """Ask each custodian for its message. (Answers of the visibility batcher need nothing to be done.)"""
        if label in (VALIDATORS, MOVERS):
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
                self._tick_later()
            case Down(_, ref, reason):
                watched = self._table.pop(ref, None)
                if watched is not None:
                    self._custodian_ended(watched, reason)
            case _:
                return super().handle_info(message)
        return None

    def _tick_later(self) -> None:
        self.send_after(self._timeout_seconds / TICKS_PER_TIMEOUT, _Tick())

    def _extend(self) -> None:
        now = self.clock.monotonic()
        for watched in self._table.values():
            message = watched.message
            latest = message.received_at_seconds + MAX_VISIBILITY_SECONDS - self._timeout_seconds
            if watched.extend_at_seconds <= now <= latest:
                watched.extend_at_seconds = now + self._timeout_seconds / 2
                self._change(message, self._timeout_seconds)

    def _custodian_ended(self, watched: _Watched, reason: ExitReason) -> None:
        message = watched.message
        match reason:
            # It may have ended before it was monitored: then nobody says how, but it said that it would.
            case Normal() | NoProcess() if watched.hand_back is not None:
                why, seconds = watched.hand_back, self._later(message)
            case Normal():
                return
            case Shutdown():
                is_fresh = message.approximate_receive_count <= RECEIVES_AT_ONCE
                why, seconds = Reason.DRAINED, 0 if is_fresh else self._later(message)
            case _:
                logger.error("the custodian of message %s crashed: %s", message.message_id, type(reason).__name__)
                why, seconds = Reason.CRASHED, self._later(message)
        self._hand_back(message, why, seconds)

    def terminate(self, reason: ExitReason) -> None:
        """Hand back what has a custodian still, unless it was the keeper alone that crashed."""
        if not isinstance(reason, Crash):
            for watched in self._table.values():
                self._hand_back(watched.message, Reason.CRASHED, self._later(watched.message))

    def _hand_back(self, message: WatchMessage, why: Reason, seconds: int) -> None:
        self._change(message, seconds)
        logger.debug("message %s handed back for %d s: %s", message.message_id, seconds, why)
        self.cast(STATISTICS, MessageFinished("handed_back", why, self.clock.monotonic() - message.received_at_seconds))

    def _later(self, message: WatchMessage) -> int:
        return hand_back_seconds(message.approximate_receive_count, self._rng)

    def _change(self, message: WatchMessage, seconds: int) -> None:
        self.send_request(VISIBILITY_BATCHER, ChangeVisibility(message.receipt_handle, seconds), message.message_id)
