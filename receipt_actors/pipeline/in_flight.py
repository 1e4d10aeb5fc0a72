"""``InFlight``: which messages are in flight, how many more may come in, and what becomes of each.

It owns the table of messages, their processors and visibility timeouts; the credits, which keep consumers within the
limits; and the gate (``domain.admission``), closed in an outage, in a pause, without limits, or for good at the end.

Of one group of a FIFO queue one message at a time has a processor; the others wait in the table. When it is handed
back, those behind it are too: visible at once, but the queue keeps them behind the hidden one, so the order holds.

======================  ============================================================================================
a processor ended       then the message
======================  ============================================================================================
``normal``              is deleted or moved, and the next one of its group begins
``shutdown: HandBack``  is handed back: the more often it was received, the later it is visible
``shutdown``            is handed back at once for another process; later after many receives, which restarts must
                        not use up
crash, killed           is counted, logged and handed back later: a poisonous message comes back less and less often
                        and ends in the dead-letter queue
======================  ============================================================================================

A crash forgets all but the table, which the successor takes over. It asks the gateways for outages before it grants
anything. Until receives under way are over, up to 10 messages a consumer too many may come in. If it ends before the
processors do, it hands back what is in flight.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from receipt_actors.domain.admission import Credits, Grant, Outages, Receives
from receipt_actors.domain.limits import LiveLimits
from receipt_actors.domain.messages import Submission, Unanswerable
from receipt_actors.domain.policy import Source
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sending import hand_back_seconds, hand_back_unfinished_seconds
from receipt_actors.otp import (
    NO_REPLY,
    SHUTDOWN,
    Continue,
    Crash,
    Down,
    ExitReason,
    From,
    GenServer,
    Killed,
    Name,
    Normal,
    Ref,
    Shutdown,
    Started,
    start_child,
)
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    LEDGER_GATEWAY,
    MOVERS,
    SIGNATURE_GATEWAY,
    VALIDATORS,
    ChangeVisibility,
    CreditsGranted,
    DescribeInFlight,
    DescribeService,
    Done,
    GaveUp,
    HandBack,
    InFlightStatus,
    ObeyLimits,
    PauseReceiving,
    Received,
    Refused,
    ReleaseMessages,
    ReserveCredits,
    ResumeReceiving,
    ServiceAvailable,
    ServiceUnavailable,
    StopReceiving,
    StuckInOutage,
    delete_batcher_of,
    visibility_batcher_of,
)
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed, ProcessorCrashed
from receipt_actors.telemetry.logs import log_handed_back
from receipt_actors.telemetry.statistics import statistics_of
from receipt_actors.telemetry.tracing import tracer_of

logger = logging.getLogger(__name__)

#: Without a message that is finished, while a service is unavailable, until a process that stops waits no longer.
STUCK_SECONDS = 3.0
TICKS_PER_TIMEOUT = 12  #: how often in a visibility timeout the table is looked through


@dataclass(frozen=True, slots=True)
class _LookForProgress:
    """To itself: has any message been finished since ``finished`` were?"""

    finished: int


@dataclass(slots=True, eq=False)
class Entry:
    """A message in flight; identity matters. It is also the label of the requests to extend it."""

    source: Source
    message_id: str
    receipt_handle: str
    receive_count: int
    group: tuple[str, str] | None  #: queue and group id, of a FIFO queue
    received_at_seconds: float  #: monotonic; when the receive began, a long poll ago perhaps
    since_seconds: float  #: monotonic; when it came in
    extend_at_seconds: float  #: monotonic
    work: tuple[ReceivedMessage, Submission | Unanswerable] | None  #: what its processor gets; None: it has got it
    processor: Ref | None = None  #: None: it waits for those before it in its group
    is_lost: bool = False


#: Made with the tree, so that it survives its owner (as a table of Erlang's ``ets`` does that has an heir). The oldest
#: messages come first.
Table: TypeAlias = dict[Entry, None]


def left_behind(table: Table, queue: str, rng: random.Random) -> list[ChangeVisibility]:
    """Take a queue's messages out of a table whose owner was killed; return how each is handed back."""
    entries = [entry for entry in table if entry.source.queue == queue]
    for entry in entries:
        del table[entry]
    return [
        ChangeVisibility(entry.receipt_handle, _seconds_later(entry, Reason.CRASHED, rng))
        for entry in entries
        if not entry.is_lost
    ]


def _seconds_later(entry: Entry, why: Reason, rng: random.Random) -> int:
    return hand_back_seconds(why, entry.receive_count, rng, blocks_group=entry.group is not None)


class InFlight(GenServer):
    trap_exit = True  # so that the ends of processors that wait in the mailbox are handled before its own

    def __init__(
        self,
        limits: LiveLimits,
        sources: Sequence[Source],
        visibility_timeout_seconds: int,
        rng: random.Random,
        table: Table | None = None,
    ) -> None:
        self._limits = limits
        self._timeout_seconds = visibility_timeout_seconds
        self._rng = rng
        self._tracer = tracer_of(self.system)
        self._statistics = statistics_of(self.system)
        self._table: Table = {} if table is None else table
        self._processors: dict[int, Entry] = {}  # by monitor
        self._lines: dict[tuple[str, str], deque[Entry]] = {}  # by group; the first one has a processor
        queues = tuple(source.queue for source in sources)
        self._credits = Credits[Ref](queues)
        self._consumers: dict[Ref, str] = {}  # and the source queue of each
        self._asking: dict[Ref, From] = {}  # consumers that wait for credits
        self._receives = Receives[Ref](queues, self.clock.monotonic())
        self._outages = Outages()
        batchers = [name_of(source) for source in sources for name_of in (delete_batcher_of, visibility_batcher_of)]
        #: Whom to ask, after a restart, for the outages that the one before knew of.
        self._not_heard: set[Name] = {APP_STORE_GATEWAY, LEDGER_GATEWAY, SIGNATURE_GATEWAY, *batchers}
        self._is_closed = False
        self._closers: list[From] = []
        self._finished = 0  # messages
        self._looks_for_progress = False
        self._is_releasing = False  # everything is to be handed back when receives under way are over
        self._yielding: list[From] = []  # who waits for no more to be in flight than the limits allow
        self._pausing: list[From] = []  # who waits for receives under way to be over

    def init(self) -> Continue:
        self._tick_later()
        return Continue()

    def handle_continue(self, term: Any) -> None:
        for entry in self._table:
            self._credits.took(entry.source.queue)
            if entry.group is not None:
                self._lines.setdefault(entry.group, deque()).append(entry)
            if entry.processor is not None:
                self._watch(entry, entry.processor)  # it may have ended meanwhile: then its message is handed back
        for entry in list(self._table):
            if entry in self._table and entry.processor is None and self._is_first(entry):
                self._over(entry, SHUTDOWN)  # the one before this crashed when it was about to begin with it
        for name in list(self._not_heard):
            self.send_request(name, DescribeService(), name)

    def handle_reply(self, label: Any, value: Any) -> None:
        if isinstance(label, Entry):
            if isinstance(value, Refused | GaveUp) and label in self._table:
                # The newest receive decides what becomes of it. Its processor goes on, and its claim protects it.
                label.is_lost = True
                logger.warning(
                    "message %s could not be extended and may be with another worker by now: %s",
                    label.message_id,
                    value.detail,
                )
        elif label in self._not_heard:
            if isinstance(value, ServiceUnavailable):
                self._note_outage(value)
            self._heard(label)

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        if label in self._not_heard:
            self._heard(label)

    def _heard(self, name: Name) -> None:
        self._not_heard.discard(name)
        self._look_again()

    def handle_call(self, request: Any, from_: From) -> Any:
        match request:
            case Received():
                self._received(request)
                if not request.next_count:
                    self._look_again()
                    return Done()
                self._reserve(request.consumer, request.source.queue, request.next_count, from_)
            case ReserveCredits(consumer, source_queue, count):
                self._reserve(consumer, source_queue, count, from_)
            case DescribeInFlight():
                return self.outside_view()
            case StopReceiving():
                self._is_closed = True
                self._closers.append(from_)
                self._look_for_progress()
            case ObeyLimits():
                self._is_releasing &= self._limits.current.max_in_flight == 0
                self._yielding.append(from_)
                if self._limits.current.max_in_flight == 0:
                    self._receives.stopped()
                self._receives.note_activity(self.clock.monotonic())
            case PauseReceiving():
                self._pausing.append(from_)
            case _:
                return super().handle_call(request, from_)
        self._look_again()
        return NO_REPLY

    def outside_view(self) -> InFlightStatus:
        is_paused, outages, receives = self._limits.is_paused, self._outages, self._receives
        now, taken = self.clock.monotonic(), list(self._table)
        # Who was told to wait, by an operator or by other nodes, has something to do; no outage is why it is not done.
        is_told_to_wait = self._is_shut() or self._limits.current.max_in_flight == 0
        return InFlightStatus(
            len(taken),
            self._credits.reserved,
            frozenset(outages.closing),
            0.0 if taken or is_told_to_wait or self._not_heard else receives.idle_seconds(now),
            is_paused,
            receives.failing,
            receives.is_closed(outages),
            max(0.0, now - taken[0].since_seconds) if taken else 0.0,
            0.0 if is_told_to_wait or self._is_closed else receives.unable_seconds(now),
        )

    def describe_state(self) -> dict[str, object]:
        limits = self._limits.current
        return {
            **super().describe_state(),
            "limits": {field.name: getattr(limits, field.name) for field in fields(limits)},
            "is_paused": self._limits.is_paused,
            "unavailable": sorted(self._outages.closing),
            "sources": self._credits.of_each_source(),
            "not_heard": sorted(map(str, self._not_heard)),
        }

    def handle_cast(self, request: Any) -> Any:
        match request:
            case ServiceUnavailable():
                self._note_outage(request)
            case ServiceAvailable(service):
                self._outages = self._outages.ended(service)
            case ResumeReceiving():
                self._receives.resumed(self.clock.monotonic())
            case ReleaseMessages():
                self._is_releasing = True
            case _:
                return super().handle_cast(request)
        self._look_again()
        if isinstance(request, ServiceUnavailable):
            self._look_for_progress()
            if request.wanted_messages and self._may_grant():
                max_in_flight = self._limits.current.max_in_flight
                wanted = self._credits.grant_to_try_with(max_in_flight, request.wanted_messages, request.source_queue)
                self._tell(wanted)
        return None

    def handle_info(self, message: Any) -> Any:
        match message:
            case _LookForProgress(finished):
                self._looks_for_progress = False
                services = self._outages.services
                if self._finished == finished and services and not self._credits.reserved:
                    self._answer(self._closers, StuckInOutage(len(self._table), services))
                self._look_for_progress()
            case "tick":
                self._extend()
                self._tick_later()
            case Down(monitor, ref, reason):
                entry = self._processors.pop(monitor, None)
                if entry is None:
                    self._consumer_ended(ref)
                else:
                    # It may have ended before it was watched: then the monitor cannot say how, but the process can.
                    self._over(entry, ref.process.exit_reason or reason)
                self._look_again()
            case _:
                return super().handle_info(message)
        return None

    def _received(self, received: Received) -> None:
        if not received.is_last:
            self._take_in(received)
        else:
            for delivery, work in received.messages:
                if work is not None:
                    entry = self._entry(received, delivery, work)
                    self._hand_back_unfinished(entry, "it was received just before the end")
        self._receive_over(received)

    def _take_in(self, received: Received) -> None:
        groups_with_gap = set()  # a corrupt copy will come again, and so must those behind it, after it
        for delivery, work in received.messages:
            if work is None:
                groups_with_gap.add(delivery.group_id)
                continue
            entry = self._entry(received, delivery, work)
            group = entry.group
            if group is not None and delivery.group_id in groups_with_gap:
                self._hand_back_behind(entry)
                continue
            self._table[entry] = None
            self._credits.took(entry.source.queue)
            if group is not None:
                self._lines.setdefault(group, deque()).append(entry)
            if self._is_first(entry):
                self._begin(entry)
                if group is not None and entry not in self._table:  # it has not begun
                    groups_with_gap.add(delivery.group_id)

    def _entry(self, received: Received, delivery: ReceivedMessage, work: Submission | Unanswerable) -> Entry:
        queue, group_id = received.source.queue, delivery.group_id
        return Entry(
            received.source,
            delivery.message_id,
            delivery.receipt_handle,
            delivery.approximate_receive_count,
            None if group_id is None else (queue, group_id),
            received.began_at_seconds,
            self.clock.monotonic(),
            received.began_at_seconds + self._timeout_seconds / 2,
            (delivery, work),
        )

    def _is_first(self, entry: Entry) -> bool:
        return entry.group is None or self._lines[entry.group][0] is entry

    def _begin(self, entry: Entry) -> None:
        assert entry.work is not None
        (delivery, work), entry.work = entry.work, None
        supervisor = self.system.whereis(VALIDATORS if isinstance(work, Submission) else MOVERS)
        if supervisor is None:  # it is being restarted, and the consumers with it
            self._over(entry, SHUTDOWN)
            return
        started = start_child(supervisor, (entry.source, delivery, work, entry.since_seconds))
        if isinstance(started, Started):
            entry.processor = started.ref
            self._watch(entry, started.ref)
        else:
            self._over(entry, getattr(started, "reason", SHUTDOWN))

    def _watch(self, entry: Entry, processor: Ref) -> None:
        self._processors[self.monitor(processor)] = entry

    def _reserve(self, consumer: Ref, source_queue: str, count: int, from_: From) -> None:
        if consumer not in self._consumers:
            self._consumers[consumer] = source_queue
            self.monitor(consumer)
        self._asking[consumer] = from_
        self._credits.asked(consumer, source_queue, count)

    def _consumer_ended(self, consumer: Ref) -> None:
        source_queue = self._consumers.pop(consumer, None)
        if source_queue is not None:
            self._asking.pop(consumer, None)
            self._credits.left(consumer, source_queue)
            self._receives.left(consumer, source_queue)

    def _over(self, entry: Entry, reason: ExitReason) -> None:
        del self._table[entry]
        self._credits.finished(entry.source.queue)
        self._finished += 1
        self._receives.note_activity(self.clock.monotonic())
        match reason:
            case Normal():
                pass
            case Shutdown(HandBack(why)):
                self._hand_back(entry, why, _seconds_later(entry, why, self._rng))
            case Crash() | Killed():
                self._crashed(entry, reason)
            case _:
                self._hand_back_unfinished(entry, "this process, or a part of it, ends or stands by")
        if entry.group is not None:
            self._leave_line(entry.group, is_finished=isinstance(reason, Normal))

    def _leave_line(self, group: tuple[str, str], *, is_finished: bool) -> None:
        """Take the first out of its line: the next one begins, or all behind it leave with it."""
        line = self._lines[group]
        line.popleft()
        if line and is_finished:
            self._begin(line[0])
            return
        del self._lines[group]
        for entry in line:
            del self._table[entry]
            self._credits.finished(entry.source.queue)
            self._hand_back_behind(entry)

    def _crashed(self, entry: Entry, reason: ExitReason) -> None:
        logger.error(
            "the validator or mover of message %s crashed: %s",
            entry.message_id,
            type(reason).__name__,
            extra={"fate": "handed_back", "message_id": entry.message_id, "reason": Reason.CRASHED},
        )
        seconds = _seconds_later(entry, Reason.CRASHED, self._rng)
        outcome = (
            f"message {entry.message_id}, received {entry.receive_count} times, "
            f"is handed back and comes again in {seconds} s"
        )
        if entry.processor is not None:
            self.cast(INCIDENTS, ProcessorCrashed(entry.processor, entry.message_id, outcome))
        self._trace_handed_back(entry, Reason.CRASHED)
        self._hand_back(entry, Reason.CRASHED, seconds)

    def _hand_back_unfinished(self, entry: Entry, detail: str) -> None:
        seconds = hand_back_unfinished_seconds(entry.receive_count, self._rng)
        self._hand_back(entry, Reason.DRAINED, seconds, detail)

    def _hand_back_behind(self, entry: Entry) -> None:
        self._hand_back(entry, Reason.GROUP_HANDED_BACK, 0, "one before it in its group comes again")

    def _hand_back(self, entry: Entry, why: Reason, seconds: int, detail: str | None = None) -> None:
        """Hand a message back; with a detail log and trace it, for its processor has not."""
        if not entry.is_lost:
            self._change(entry, seconds, entry.message_id)
        logger.debug("message %s handed back for %d s: %s", entry.message_id, seconds, why)
        was_here_seconds = self.clock.monotonic() - entry.received_at_seconds
        self._statistics.message_finished("handed_back", why, was_here_seconds)
        if detail is not None:
            log_handed_back(entry.message_id, why, detail, was_here_seconds)
            self._trace_handed_back(entry, why)

    def _trace_handed_back(self, entry: Entry, why: Reason) -> None:
        if self._tracer.is_on and self._tracer.wants("handed_back"):
            about = {"message_id": entry.message_id, "receive_count": entry.receive_count, "reason": why}
            self._tracer.emit("handed_back", {**about, "source_queue": entry.source.queue}, entry.received_at_seconds)

    def _change(self, entry: Entry, seconds: int, label: object) -> None:
        batcher = visibility_batcher_of(entry.source)
        self.send_request(batcher, ChangeVisibility(entry.receipt_handle, seconds), label)

    def terminate(self, reason: ExitReason) -> None:
        if not isinstance(reason, Crash):
            for entry in self._table:
                self._trace_handed_back(entry, Reason.CRASHED)
                self._hand_back(entry, Reason.CRASHED, _seconds_later(entry, Reason.CRASHED, self._rng))
            self._table.clear()

    def _tick_later(self) -> None:
        self.send_after(self._timeout_seconds / TICKS_PER_TIMEOUT, "tick")

    def _extend(self) -> None:
        now = self.clock.monotonic()
        for entry in self._table:
            if entry.is_lost or now < entry.extend_at_seconds:
                continue
            if now <= entry.received_at_seconds + MAX_VISIBILITY_SECONDS - self._timeout_seconds:
                entry.extend_at_seconds = now + self._timeout_seconds / 2
                self._change(entry, self._timeout_seconds, entry)

    def _note_outage(self, outage: ServiceUnavailable) -> None:
        self._outages = self._outages.begun(outage.service, outage.source_queue, stops_receiving=outage.stops_receiving)

    def _receive_over(self, received: Received) -> None:
        """Take back what was reserved; tell once that receives fail, and once that they succeed again."""
        consumer, source_queue, failure = received.consumer, received.source.queue, received.failure
        now, count = self.clock.monotonic(), len(received.messages)
        if failure is None:
            self._credits.received(consumer, source_queue, count)
            if self._receives.succeeded(consumer, source_queue, count, now):
                told = f"receives from {source_queue} succeed again"
                self._notice(IncidentKind.RECOVERED, logging.WARNING, source_queue, told)
            return
        self._credits.failed(consumer, source_queue)
        if self._receives.failed(consumer, source_queue, now):
            told = f"receives fail, and are tried again: {failure}"
            self._notice(IncidentKind.OUTAGE, logging.ERROR, source_queue, told)

    def _notice(self, kind: IncidentKind, level: int, source_queue: str, summary: str) -> None:
        logger.log(level, "%s", summary)
        self.cast(INCIDENTS, Noticed(kind, f"receive from {source_queue}", summary))

    def _look_again(self) -> None:
        self._receives.looked(self._outages, self.clock.monotonic())
        reserved, max_in_flight = self._credits.reserved, self._limits.current.max_in_flight
        if self._is_releasing and not reserved:  # else a receive under way would take the same messages again
            self._is_releasing = False
            for entry in list(self._processors.values()):
                assert entry.processor is not None
                entry.processor.exit(SHUTDOWN)
        if self._yielding and not self._not_heard and self._credits.room(max_in_flight) >= 0:
            self._answer(self._yielding, Done())
        if self._pausing and not (self._limits.is_paused and reserved):
            self._receives.stopped()
            self._answer(self._pausing, Done())
        if self._closers and not self._table and not reserved:
            self._answer(self._closers, Done())
        if self._not_heard or not self._may_grant():
            return
        while (grant := self._credits.grant(max_in_flight, self._outages)) is not None:
            self._tell(grant)

    def _may_grant(self) -> bool:
        return not self._is_closed and not self._is_shut() and self._can_begin()

    def _can_begin(self) -> bool:
        # After a crash the consumers end one by one. One that still runs would receive what is handed back, again and
        # again, until SQS has counted so many deliveries that the message is delayed.
        return all(self.system.whereis(supervisor) is not None for supervisor in (VALIDATORS, MOVERS))

    def _is_shut(self) -> bool:
        """Return whether not even a single message may be taken in to try a service."""
        return self._limits.is_paused or not self._limits.are_held(self.clock.boottime())

    def _tell(self, grant: Grant[Ref] | None) -> None:
        if grant is not None:
            consumer, credits = grant
            self._asking.pop(consumer).reply(CreditsGranted(credits))

    def _look_for_progress(self) -> None:
        """When the process stops in an outage, look later whether anything can still finish."""
        if self._closers and self._outages.services and not self._looks_for_progress:
            self._looks_for_progress = True
            self.send_after(STUCK_SECONDS, _LookForProgress(self._finished))

    @staticmethod
    def _answer(waiting: list[From], answer: object) -> None:
        for from_ in waiting:
            from_.reply(answer)
        waiting.clear()
