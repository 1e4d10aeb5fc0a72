"""The consumer: takes messages from one source queue and has a processor started for each.

It owns one receive at a time. It asks ``in_flight`` for credits before each, so nothing is received that there is no
room for. A crash of it forgets a receive under way: those messages come back by their visibility timeout. When its
supervisor ends it, a receive under way is finished, and what that brings is handed back, if there is time. If it is
having processors started, it tells ``in_flight`` of these before it ends.

What comes in: a corrupt copy (MD5) is left for redelivery; what can be answered gets a validator, anything else a
mover. If ``in_flight`` does not live (custody has just ended, and the consumer ends next) it is handed back.

The processors of one group of a FIFO queue are started one after the other, so that it is known in which order they
begin (``domain.rounds``). What stands behind a corrupt copy, or behind one whose processor did not start, is handed
back.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from receipt_actors.domain.messages import Submission, Unanswerable, is_intact, parse_submission
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, BackgroundCalls, Queues, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.retrying import RetryPolicy, hand_back_unfinished_seconds
from receipt_actors.domain.rounds import Delivery, Rounds, into_rounds
from receipt_actors.domain.sources import Source
from receipt_actors.errors import QueueRefused, QueueUnavailable
from receipt_actors.otp import (
    Crash,
    Down,
    ExitReason,
    GenServer,
    Receive,
    Receiving,
    Ref,
    Reply,
    StartChild,
    Started,
)
from receipt_actors.pipeline.calls import CallsOnThreads
from receipt_actors.pipeline.processor import watch_message
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    MOVERS,
    VALIDATORS,
    CreditsGranted,
    ReserveCredits,
    SettleReservation,
    WatchMessage,
)
from receipt_actors.telemetry.decisions import log_handed_back, log_left
from receipt_actors.telemetry.statistics import statistics_of
from receipt_actors.telemetry.tracing import tracer_of

logger = logging.getLogger(__name__)

EMPTY_RECEIVE_SECONDS = 0.1  #: between two receives that bring nothing
_START = "start"  # label of the requests to start processors,
_RECEIVE = "receive"  # of a receive,
_HAND_BACK = "hand back"  # and of a change of visibility
PAUSE_SECONDS = 0.1  #: before asking for credits where they are granted by an actor that is being restarted


#: A delivery and what is to be done about it; None: nothing, it is corrupt.
_Received: TypeAlias = tuple[ReceivedMessage, Submission | Unanswerable | None]


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

    trap_exit: ClassVar[bool] = True  # so that a receive under way is finished

    def __init__(
        self,
        queues: Queues,
        source: Source,
        wait_seconds: float,
        visibility_timeout_seconds: int,
        retry: RetryPolicy,
        rng: random.Random,
        background: BackgroundCalls | None = None,
    ) -> None:
        self._queues = queues
        self._source = source
        self._wait_seconds = wait_seconds
        self._visibility_timeout_seconds = visibility_timeout_seconds
        self._retry = retry
        self._rng = rng
        # A client that can only block needs one thread: there is one receive at a time, or what follows it.
        self._threads = CallsOnThreads(self.system.new_blocking_pool(f"receive from {source.queue}", 1))
        self._calls: BackgroundCalls = self._threads if background is None else background
        self._statistics = statistics_of(self.system)
        self._tracer = tracer_of(self.system)
        self._failures = 0
        self._receive_began_at: float | None = None  # monotonic; while a receive is under way
        self._received_at_seconds = 0.0  # monotonic; of the last receive that brought something
        self._rounds = Rounds(())  # of its processors; the first one is being started
        self._receive_over: _ReceiveOver | None = None  # until those have started
        self._taken: list[WatchMessage] = []  # of this receive, until it is over
        self._granter: Ref | None = None  # who was asked for credits last,
        self._monitor: int | None = None  # and the monitor on it

    def init(self) -> None:
        """Ask for credits."""
        self._ask_for_credits()

    def outside_view(self) -> dict[str, object]:
        """See ``Actor``."""
        began_at = self._receive_began_at
        return {
            "is_receiving": began_at is not None,
            "seconds": None if began_at is None else round(self.clock.monotonic() - began_at, 3),
            "failures_in_a_row": self._failures,
        }

    def describe_state(self) -> dict[str, object]:
        """See ``Actor``."""
        return self.outside_view()

    def _ask_for_credits(self) -> None:
        in_flight = self._in_flight()
        if in_flight is None:
            self.send_after(PAUSE_SECONDS, _AskForCredits())
        else:
            in_flight.cast(ReserveCredits(self.ref, self._source.queue, MAX_BATCH_ENTRIES))

    def _in_flight(self) -> Ref | None:
        """Find the actor that grants credits, and learn of its end; None while it is being restarted."""
        in_flight = self.system.whereis(IN_FLIGHT)
        if in_flight is not None and in_flight is not self._granter:
            self._granter, self._monitor = in_flight, self.monitor(in_flight)
        return in_flight

    def handle_info(self, message: Any) -> Any:
        """Receive when there are credits; ask again when ``in_flight`` has been restarted."""
        match message:
            case CreditsGranted(count):
                self._receive(count)
            case _AskForCredits():
                self._ask_for_credits()
            case Down(monitor):
                is_waiting = self._receive_began_at is None and self._receive_over is None
                if self._monitor == monitor and is_waiting:  # else it asks after the receive
                    self.send_after(PAUSE_SECONDS, _AskForCredits())
            case _:
                return super().handle_info(message)
        return None

    def _receive(self, count: int) -> None:
        self._receive_began_at = self.clock.monotonic()
        how = {
            "max_messages": count,
            "wait_seconds": self._wait_seconds,
            "visibility_timeout_seconds": self._visibility_timeout_seconds,
        }
        self.run_async(_RECEIVE, self._calls.begin, self._queues.receive, (self._source.queue,), how, then=self._read)

    def _read(self, messages: Sequence[ReceivedMessage]) -> Sequence[_Received]:
        """Read what was received, on whatever thread."""
        post_queues, queue = self._source.post_queues, self._source.queue
        return [(each, parse_submission(each, post_queues, queue) if is_intact(each) else None) for each in messages]

    def _receive_failed(self, error: QueueUnavailable | QueueRefused) -> None:
        self._failures += 1
        self._receive_began_at = None
        self._receive_over = _ReceiveOver(0, str(error), self._retry.pause_seconds(self._failures) or 0.0)
        self._settle_when_started()

    def _received(self, deliveries: Sequence[_Received]) -> None:
        began_at, self._receive_began_at = self._receive_began_at, None
        assert began_at is not None  # the visibility timeout begins at some time after this
        self._failures = 0
        self._statistics.request_answered(f"receive from {self._source.queue}", len(deliveries))
        # A receive that is back at once with nothing was no long poll (a setting, or an emulator): do not spin.
        spins = not deliveries and self.clock.monotonic() - began_at < EMPTY_RECEIVE_SECONDS
        self._receive_over = _ReceiveOver(len(deliveries), None, EMPTY_RECEIVE_SECONDS if spins else 0.0)
        if deliveries:
            self._statistics.messages_received(len(deliveries))
            if self.system.whereis(IN_FLIGHT) is None:
                self._hand_back_unfinished([delivery for delivery, _ in deliveries])
            else:
                self._start_processors(deliveries, began_at)
        self._settle_when_started()

    def _settle_when_started(self) -> None:
        """Tell what came in once all processors have started, give back the other credits, and ask for the next."""
        over = self._receive_over
        if self._rounds.rounds or over is None:
            return
        self._receive_over = None
        taken, self._taken = self._taken, []
        next_count = 0 if over.pause_seconds else MAX_BATCH_ENTRIES
        in_flight = self._in_flight()
        if in_flight is not None:
            queue = self._source.queue
            in_flight.cast(SettleReservation(self.ref, queue, over.received, over.failure, taken, next_count))
        if over.pause_seconds or in_flight is None:
            self.send_after(over.pause_seconds or PAUSE_SECONDS, _AskForCredits())

    def _start_processors(self, received: Sequence[_Received], received_at_seconds: float) -> None:
        if self._tracer.is_on:
            for delivery, work in received:
                self._trace_received(delivery, work)
        rounds = into_rounds(received)
        for delivery in rounds.corrupt:
            detail = "arrived corrupt (MD5); it is left for redelivery"
            log_left(delivery.message_id, Reason.BODY_MD5_MISMATCH, detail)
            self._statistics.message_finished("left", Reason.BODY_MD5_MISMATCH, 0.0)
        self._received_at_seconds = received_at_seconds
        self._begin(rounds)

    def _begin(self, rounds: Rounds) -> None:
        """Have the processors of the next round started; ``_round_over`` follows, or all have been."""
        self._rounds = rounds
        if rounds.rounds:
            requests = [
                (
                    VALIDATORS if isinstance(work, Submission) else MOVERS,
                    StartChild((self._source, delivery, work, self._received_at_seconds)),
                )
                for delivery, work in rounds.rounds[0]
            ]
            self.send_requests(requests, _START)
        if rounds.behind:
            self._hand_back_behind(rounds.behind)

    def _round_over(self, replies: Sequence[Reply]) -> None:
        groups_with_gap = self._note_started(self._rounds.rounds[0], replies)
        self._begin(self._rounds.after_first(groups_with_gap))
        self._settle_when_started()

    def _note_started(self, deliveries: Sequence[Delivery], replies: Sequence[Reply]) -> set[str | None]:
        """Note which processors have started; return the groups of which one has not."""
        groups_with_gap = set()
        for (delivery, _), reply in zip(deliveries, replies, strict=True):
            if isinstance(reply.value, Started):
                processor = reply.value.ref
                self._taken.append(watch_message(processor, self._source, delivery, self._received_at_seconds))
            else:
                groups_with_gap.add(delivery.group_id)
        return groups_with_gap

    def _trace_received(self, delivery: ReceivedMessage, work: Submission | Unanswerable | None) -> None:
        match work:
            case Submission():
                about = {name: getattr(work, name) for name in ("user_id", "submission_id", "post_queue")}
            case Unanswerable(reason):
                about = {"reason": reason}
            case None:
                about = {"reason": Reason.BODY_MD5_MISMATCH}
        self._trace("received" if work else "left", delivery, about)

    def _trace(self, event: str, delivery: ReceivedMessage, about: Mapping[str, object]) -> None:
        """Tell who traces of an event; only where ``is_on``."""
        if self._tracer.wants(event):
            known = {
                "message_id": delivery.message_id,
                "receive_count": delivery.approximate_receive_count,
                "source_queue": self._source.queue,
            }
            self._tracer.emit(event, {**known, **about})

    def handle_reply(self, label: Any, value: Any) -> None:
        """A receive is over; or the processors have started, and what has none (its supervisor ended) comes back."""
        if label == _RECEIVE:
            self._received(value)
        elif label == _START:
            self._round_over(value)

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """A receive brought nothing; what a client never should raise is for the supervisor."""
        assert isinstance(reason, Crash)
        error = reason.exception
        if not isinstance(error, QueueUnavailable | QueueRefused):
            raise error
        if label == _RECEIVE:
            self._receive_failed(error)
        else:
            logger.debug("what was received comes back by its visibility timeout: %s", error)

    def terminate(self, reason: ExitReason) -> Receiving | None:
        """Finish what is under way, unless this is a crash."""
        is_under_way = self._receive_began_at is not None or self._receive_over is not None
        if is_under_way and not isinstance(reason, Crash):
            return self._finish()
        self._threads.close()
        return None

    def _finish(self) -> Receiving:
        if self._rounds.rounds:
            # The processors end next, and ``in_flight`` hands back only what it knows of.
            reply = yield Receive(lambda message: isinstance(message, Reply) and message.label == _START)
            started, *later = self._rounds.rounds
            self._note_started(started, reply.value)
            self._rounds = Rounds(())
            self._settle_when_started()
            if later:
                self._hand_back_unfinished([delivery for each in later for delivery, _ in each])
                yield Receive(lambda message: isinstance(message, Reply) and message.label == _HAND_BACK)
        elif self._receive_began_at is not None:
            reply = yield Receive(lambda message: isinstance(message, Reply) and message.label == _RECEIVE)
            if reply.failure is None and reply.value:
                self._statistics.messages_received(len(reply.value))
                self._hand_back_unfinished([delivery for delivery, _ in reply.value])
                yield Receive(lambda message: isinstance(message, Reply) and message.label == _HAND_BACK)
        self._threads.close()

    def _hand_back_unfinished(self, deliveries: Sequence[ReceivedMessage]) -> None:
        changes = [
            (
                delivery.receipt_handle,
                hand_back_unfinished_seconds(delivery.approximate_receive_count, self._rng),
            )
            for delivery in deliveries
        ]
        self._hand_back(deliveries, changes, Reason.DRAINED, "it was received just before the end")

    def _hand_back_behind(self, deliveries: Sequence[ReceivedMessage]) -> None:
        changes = [(delivery.receipt_handle, 0) for delivery in deliveries]
        self._hand_back(deliveries, changes, Reason.GROUP_HANDED_BACK, "one before it in its group comes again")

    def _hand_back(
        self,
        deliveries: Sequence[ReceivedMessage],
        changes: Sequence[tuple[str, int]],
        reason: Reason,
        detail: str,
    ) -> None:
        args = (self._source.queue, changes)
        self.run_async(_HAND_BACK, self._calls.begin, self._queues.change_visibility, args, {})
        if self._tracer.is_on:
            for delivery in deliveries:
                self._trace("handed_back", delivery, {"reason": reason})
        for delivery in deliveries:
            log_handed_back(delivery.message_id, reason, detail, 0.0)
            self._statistics.message_finished("handed_back", reason, 0.0)
