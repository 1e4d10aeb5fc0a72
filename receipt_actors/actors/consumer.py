"""The consumer: takes messages from the source queue and has a custodian started for each.

It owns one receive at a time. It asks intake for credits before each, so nothing is received that there is no room
for; it blocks in the long poll, so it has a thread of its own. A crash of it forgets a receive under way: those
messages come back by their visibility timeout.

What comes in: a corrupt copy (MD5) is left for redelivery; what can be answered gets a validator, anything else a
mover. Where no visibility keeper lives (custody has just ended, and the consumer ends next) it is handed back.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from receipt_actors.actors.protocol import (
    INTAKE,
    MOVERS,
    VALIDATORS,
    VISIBILITY_KEEPER,
    CreditsGranted,
    ReserveCredits,
    SettleReservation,
)
from receipt_actors.domain.messages import Submission, is_intact, parse_submission
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, Queues, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.retrying import RetryPolicy, hand_back_unfinished_seconds
from receipt_actors.errors import QueueRefused, QueueUnavailable
from receipt_actors.otp import Down, GenServer, Name, Ref, Runtime, StartChild
from receipt_actors.telemetry.events import STATISTICS, MessageFinished, MessagesReceived, RequestsMade

logger = logging.getLogger(__name__)

EMPTY_RECEIVE_SECONDS = 0.1  #: between two receives that bring nothing
_START = "start"  # label of the requests to start custodians
INTAKE_PAUSE_SECONDS = 0.1  #: before asking an intake that is being restarted


@dataclass(frozen=True, slots=True)
class _AskForCredits:
    """To itself: the pause is over."""


@dataclass(frozen=True, slots=True)
class _ReceiveOver:
    """What a receive brought."""

    received: int
    failure: str | None
    pause_seconds: float  #: before the next one


class Consumer(GenServer):
    """See the module."""

    runtime: ClassVar[Runtime] = Runtime.THREAD  # it blocks in the long poll

    def __init__(
        self,
        queues: Queues,
        source_queue: str,
        post_queues: Collection[str],
        wait_seconds: float,
        visibility_timeout_seconds: int,
        retry: RetryPolicy,
        rng: random.Random,
    ) -> None:
        self._queues = queues
        self._source_queue = source_queue
        self._post_queues = frozenset(post_queues)
        self._wait_seconds = wait_seconds
        self._visibility_timeout_seconds = visibility_timeout_seconds
        self._retry = retry
        self._rng = rng
        self._failures = 0
        self._is_starting = False  # the custodians of the last receive
        self._receive_over: _ReceiveOver | None = None  # until those have started
        self._intake_monitor: int | None = None  # the monitor on the intake that was asked for credits

    def init(self) -> None:
        """Ask for credits."""
        self._ask_for_credits()

    def _ask_for_credits(self) -> None:
        intake = self.system.whereis(INTAKE)
        if intake is None:
            self.send_after(INTAKE_PAUSE_SECONDS, _AskForCredits())
            return
        self._intake_monitor = self.monitor(intake)
        intake.cast(ReserveCredits(self.ref, MAX_BATCH_ENTRIES))

    def handle_info(self, message: Any) -> Any:
        """Receive when there are credits; ask again when intake has been restarted."""
        match message:
            case CreditsGranted(count):
                self._receive(count)
            case _AskForCredits():
                self._ask_for_credits()
            case Down(monitor):
                if self._intake_monitor == monitor and self._receive_over is None:  # else it asks after the receive
                    self.send_after(INTAKE_PAUSE_SECONDS, _AskForCredits())
            case _:
                return super().handle_info(message)
        return None

    def _receive(self, count: int) -> None:
        started_at = self.clock.monotonic()  # the visibility timeout begins at some time after this
        deliveries, failure, pause_seconds = self._take(count)
        self._receive_over = _ReceiveOver(len(deliveries), failure, pause_seconds)
        if deliveries:
            self.cast(STATISTICS, MessagesReceived(len(deliveries)))
            if self.system.whereis(VISIBILITY_KEEPER) is None:
                self._hand_back(deliveries)
            else:
                self._start_custodians(deliveries, started_at)
        self._settle_when_started()

    def _settle_when_started(self) -> None:
        """Give back the credits that were not used, once the custodians hold theirs; then ask for the next."""
        over = self._receive_over
        if self._is_starting or over is None:
            return
        self._receive_over = None
        self.cast(INTAKE, SettleReservation(self.ref, over.received, over.failure))
        if self._intake_monitor is not None:
            self.demonitor(self._intake_monitor, flush=True)
            self._intake_monitor = None
        if over.pause_seconds:
            self.send_after(over.pause_seconds, _AskForCredits())
        else:
            self._ask_for_credits()

    def _take(self, count: int) -> tuple[Sequence[ReceivedMessage], str | None, float]:
        """Receive up to ``count`` messages; or say why not. The last value is the pause before the next receive."""
        started_at = self.clock.monotonic()
        try:
            deliveries = self._queues.receive(
                self._source_queue,
                max_messages=count,
                wait_seconds=self._wait_seconds,
                visibility_timeout_seconds=self._visibility_timeout_seconds,
            )
        except (QueueUnavailable, QueueRefused) as error:
            self._failures += 1
            return (), str(error), self._retry.pause_seconds(self._failures) or 0.0
        self._failures = 0
        self.cast(STATISTICS, RequestsMade(f"receive from {self._source_queue}", 1, len(deliveries)))
        # A receive that is back at once with nothing was no long poll (a setting, or an emulator): do not spin.
        spins = not deliveries and self.clock.monotonic() - started_at < EMPTY_RECEIVE_SECONDS
        return deliveries, None, EMPTY_RECEIVE_SECONDS if spins else 0.0

    def _start_custodians(self, deliveries: Sequence[ReceivedMessage], received_at_seconds: float) -> None:
        starts: list[tuple[Ref | Name, object]] = []
        for delivery in deliveries:
            if not is_intact(delivery):
                logger.warning("message %s arrived corrupt (MD5); it is left for redelivery", delivery.message_id)
                self.cast(STATISTICS, MessageFinished("left", Reason.BODY_MD5_MISMATCH, 0.0))
                continue
            work = parse_submission(delivery, self._post_queues, self._source_queue)
            supervisor = VALIDATORS if isinstance(work, Submission) else MOVERS
            starts.append((supervisor, StartChild((delivery, work, received_at_seconds))))
        self._is_starting = True
        self.send_requests(starts, _START)

    def handle_reply(self, label: Any, value: Any) -> None:
        """The custodians have started, and hold their credits; what has none (its supervisor ended) comes back."""
        self._is_starting = False
        self._settle_when_started()

    def _hand_back(self, deliveries: Sequence[ReceivedMessage]) -> None:
        changes = [
            (delivery.receipt_handle, hand_back_unfinished_seconds(delivery.approximate_receive_count, self._rng))
            for delivery in deliveries
        ]
        with suppress(QueueUnavailable, QueueRefused):  # then they come back by their visibility timeout
            self._queues.change_visibility(self._source_queue, changes)
        for _ in deliveries:
            self.cast(STATISTICS, MessageFinished("handed_back", Reason.DRAINED, 0.0))
