"""What is in flight: which messages, how many more may come in, and what becomes of each when its processor ends.

``InFlight`` owns the table processor -> receipt handle, receive count, deadline; the credits (one for each processor
that lives, and those reserved by receives under way), so that consumers never take in more than the limits allow
(``domain.credits``); and the gate, which closes while a service is unavailable (``domain.outages``), while an operator
has paused it, while the limits are lent to other nodes, or for good when the process stops. A gate that a service keeps
closed lets a single message in while nothing is in flight, and as many as a gateway wants to try with: otherwise it
would not be known when the service is back. It also knows for how long there has been nothing to do, and for how long
nothing could be received (``domain.receives``).

From half of its visibility timeout on a message is extended, in batches, for as long as its processor lives (12 h at
most, says SQS). What a processor's end means:

======================  ============================================================================================
it ended                then the message
======================  ============================================================================================
``normal``              is deleted or moved; nothing is to be done
``shutdown: HandBack``  is handed back later: the more often it was received, the later
``shutdown``            is handed back at once, for another process, or the node that does the work now, to take;
                        later, if it was received often already: a pipeline that is restarted again and again must not
                        use up its receives
crash, killed           is counted and logged with its id, and handed back later: a poisonous message comes back less
                        and less often and ends in the dead-letter queue, while no other is disturbed
======================  ============================================================================================

It also says whose turn it is among messages of one group of a FIFO queue (``domain.lines``): the next one begins when
the one before is deleted or moved; when that is handed back, however that came, those behind it are handed back as
well. They are visible at once, but the queue gives none of them before the one that is hidden, so the order is kept.

A message whose extension fails is *lost*: it may be with another worker by now. Nothing more is done about it, for the
newest receive decides; its processor goes on, and its claim protects it.

A crash forgets all of it but the table, which its successor takes over. The outages are asked for at the gateways, and
nothing is granted before they have answered. Until the receives are over, up to 10 messages a consumer too many may
come in; nothing is idle, or out of reach, before the consumers have told it again. If it is told to end before the
processors (its supervisor gives up, and the pipeline ends them next) it hands back what is still in flight.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

from receipt_actors.domain.credits import Credits, Grant
from receipt_actors.domain.limits import LiveLimits
from receipt_actors.domain.lines import Lines, Turn
from receipt_actors.domain.outages import Outages
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receives import Receives
from receipt_actors.domain.retrying import hand_back_seconds, hand_back_unfinished_seconds
from receipt_actors.domain.sources import Source
from receipt_actors.otp import (
    NO_REPLY,
    SHUTDOWN,
    Continue,
    Crash,
    Down,
    ExitReason,
    From,
    GenServer,
    Name,
    Normal,
    Ref,
    Shutdown,
    WhichChildren,
)
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    LEDGER_GATEWAY,
    MOVERS,
    SIGNATURE_GATEWAY,
    VALIDATORS,
    AnnounceYourself,
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
    Refused,
    ReleaseMessages,
    ReserveCredits,
    ResumeReceiving,
    ServiceAvailable,
    ServiceUnavailable,
    SettleReservation,
    StandBack,
    StopReceiving,
    StuckInOutage,
    WatchMessage,
    YourTurn,
    delete_batcher_of,
    visibility_batcher_of,
)
from receipt_actors.telemetry.decisions import log_handed_back
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed, ProcessorCrashed
from receipt_actors.telemetry.statistics import statistics_of
from receipt_actors.telemetry.tracing import tracer_of

logger = logging.getLogger(__name__)

#: Without a message that is finished, while a service is unavailable, until a process that stops waits no longer.
STUCK_SECONDS = 3.0
TICKS_PER_TIMEOUT = 12  #: how often in a visibility timeout the table is looked through

_SUPERVISORS: tuple[Name, ...] = (VALIDATORS, MOVERS)
#: Whom to ask, after a restart, for what the one before knew.
_WITNESSES: dict[Name, object] = {
    **dict.fromkeys(_SUPERVISORS, WhichChildren()),
    **dict.fromkeys((APP_STORE_GATEWAY, LEDGER_GATEWAY, SIGNATURE_GATEWAY), DescribeService()),
}


@dataclass(frozen=True, slots=True)
class _LookForProgress:
    """To itself: has any message been finished since ``finished`` were?"""

    finished: int


@dataclass(frozen=True, slots=True)
class _Tick:
    """To itself: look for messages to extend."""


@dataclass(frozen=True, slots=True)
class _Extension:
    """Label of the request to extend the message of this processor."""

    processor: Ref


@dataclass(slots=True)
class Entry:
    """A processor in the table, and its message."""

    since_seconds: float  #: monotonic; when it was entered
    message: WatchMessage | None = None  #: None: it has not announced itself yet
    extend_at_seconds: float = 0.0  #: monotonic
    is_lost: bool = False


#: Made with the tree, so that it survives its owner (as a table of Erlang's ``ets`` does that has an heir). The oldest
#: processors come first.
Table: TypeAlias = dict[Ref, Entry]


def left_behind(table: Table, queue: str, rng: random.Random) -> list[ChangeVisibility]:
    """Take the messages of a queue out of a table whose owner was killed, and say how each is handed back.

    For the visibility batcher, which ends last.
    """
    changes = []
    for processor, entry in list(table.items()):
        message = entry.message
        if message is not None and message.source.queue == queue:
            del table[processor]
            if not entry.is_lost:
                seconds = _seconds_later(message, Reason.CRASHED, rng)
                changes.append(ChangeVisibility(message.receipt_handle, seconds))
    return changes


def _seconds_later(message: WatchMessage, why: Reason, rng: random.Random) -> int:
    count, blocks_group = message.approximate_receive_count, message.group is not None
    return hand_back_seconds(why, count, rng, blocks_group=blocks_group)


class InFlight(GenServer):
    """See the module."""

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
        self._queues = tuple(source.queue for source in sources)
        self._timeout_seconds = visibility_timeout_seconds
        self._rng = rng
        self._tracer = tracer_of(self.system)
        self._table: Table = {} if table is None else table
        self._credits = Credits[Ref](self._queues)
        self._consumers: dict[Ref, str] = {}  # and the source queue of each
        self._receives = Receives[Ref](self._queues, self.clock.monotonic())
        self._outages = Outages()
        self._lines: Lines[Ref] = Lines()
        batchers = [name_of(source) for source in sources for name_of in (delete_batcher_of, visibility_batcher_of)]
        self._witnesses: dict[Name, object] = {**_WITNESSES, **dict.fromkeys(batchers, DescribeService())}
        self._not_heard = set(self._witnesses)  # until all of them have answered nothing is granted
        self._is_closed = False
        self._closers: list[From] = []
        self._finished = 0  # processors that have ended
        self._looks_for_progress = False
        self._is_releasing = False  # everything is to be handed back when receives under way are over
        self._yielding: list[From] = []  # who waits for no more to be in flight than the limits allow
        self._pausing: list[From] = []  # who waits for receives under way to be over

    # --- after a restart ---

    def init(self) -> Continue:
        """Find out what is in flight already, in case this is a restart."""
        self._tick_later()
        return Continue()

    def handle_continue(self, term: Any) -> None:
        """Take over what is in the table, and ask the supervisors of the processors, and the gateways."""
        for processor, entry in self._table.items():
            self._take_over(processor, entry)
        for witness, question in self._witnesses.items():
            self.send_request(witness, question, witness)

    def handle_reply(self, label: Any, value: Any) -> None:
        """Note what those who were asked know, or that an extension failed. (A hand-back that fails comes back.)"""
        if isinstance(label, _Extension):
            if isinstance(value, Refused | GaveUp):
                self._lost(label.processor, value.detail)
        elif label in self._witnesses:
            if isinstance(value, ServiceUnavailable):
                self._note_outage(value)
            elif label in _SUPERVISORS:
                for child in value:
                    if isinstance(child.child, Ref) and child.child not in self._table:
                        self._take(child.child, None)
                        child.child.send(AnnounceYourself())
            self._heard(label)

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """There is no such actor yet, which will announce itself; or the batcher ended: the message comes back."""
        if label in self._witnesses:
            self._heard(label)

    def _heard(self, witness: Name) -> None:
        self._not_heard.discard(witness)
        self._look_again()

    # --- what others ask ---

    def handle_call(self, request: Any, from_: From) -> Any:
        """Describe what is in flight, pause, or close for good."""
        match request:
            case DescribeInFlight():
                return self.outside_view()
            case StopReceiving():
                self._is_closed = True
                self._closers.append(from_)
                self._look_again()
                self._look_for_progress()
            case ObeyLimits():
                self._is_releasing &= self._limits.current.max_in_flight == 0
                self._yielding.append(from_)
                if self._limits.current.max_in_flight == 0:
                    self._receives.stopped()
                self._receives.note_activity(self.clock.monotonic())
                self._look_again()
            case PauseReceiving():
                self._pausing.append(from_)
                self._look_again()
            case _:
                return super().handle_call(request, from_)
        return NO_REPLY

    def outside_view(self) -> InFlightStatus:
        """Describe what is in flight. On any thread: what is not replaced is copied at one stroke."""
        is_paused, outages, receives = self._limits.is_paused, self._outages, self._receives
        now, taken = self.clock.monotonic(), list(self._table.values())
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
        """See ``Actor``."""
        limits = self._limits.current
        return {
            **super().describe_state(),
            "limits": {field.name: getattr(limits, field.name) for field in fields(limits)},
            "is_paused": self._limits.is_paused,
            "unavailable": sorted(self._outages.closing),
            "sources": {queue: asdict(credits) for queue, credits in self._credits.of_each_source()},
            "not_heard": sorted(map(str, self._not_heard)),
        }

    # --- what others tell ---

    def handle_cast(self, request: Any) -> Any:
        """Grant, count, watch, open and close."""
        match request:
            case WatchMessage():
                self._watch(request)
                return None
            case ReserveCredits(consumer, source_queue, count):
                self._reserve(consumer, source_queue, count)
            case SettleReservation():
                for message in request.taken:
                    self._watch(message)
                self._receive_over(request)
                if request.next_count:
                    self._reserve(request.consumer, request.source_queue, request.next_count)
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
        """A processor or a consumer has ended, or it is time to look at something."""
        match message:
            case _LookForProgress(finished):
                self._looks_for_progress = False
                services = self._outages.services
                if self._finished == finished and services and not self._credits.reserved:
                    self._answer(self._closers, StuckInOutage(len(self._table), services))
                self._look_for_progress()
            case _Tick():
                self._extend()
                self._lines.forget(self.clock.monotonic() - self._timeout_seconds)
                self._tick_later()
            case Down(_, ref, reason):
                entry = self._table.pop(ref, None)
                if entry is None:
                    self._consumer_ended(ref)
                else:
                    # It may have ended before it was watched: then the monitor cannot say how, but the process can.
                    self._processor_ended(ref, entry, ref.process.exit_reason or reason)
                self._look_again()
            case _:
                return super().handle_info(message)
        return None

    # --- messages come and go ---

    def _take(self, processor: Ref, source_queue: str | None) -> Entry:
        self._table[processor] = entry = Entry(self.clock.monotonic())
        self._credits.took(source_queue)
        self.monitor(processor)
        return entry

    def _take_over(self, processor: Ref, entry: Entry) -> None:
        message = entry.message
        self._credits.took(None if message is None else message.source.queue)
        self.monitor(processor)  # it may have ended meanwhile: then its message is handed back
        if message is not None and message.group is not None:  # the order of its group is not known any more
            self._line_up(message, message.group)
            processor.send(AnnounceYourself())

    def _watch(self, message: WatchMessage) -> None:
        """Enter a message; it may be told of twice."""
        processor, queue = message.processor, message.source.queue
        entry = self._table.get(processor)
        if entry is None:
            entry = self._take(processor, queue)
        elif entry.message is None:
            self._credits.recognised(queue)
        else:
            return
        entry.message = message
        entry.extend_at_seconds = message.received_at_seconds + self._timeout_seconds / 2
        if message.group is not None:
            self._line_up(message, message.group)

    def _reserve(self, consumer: Ref, source_queue: str, count: int) -> None:
        if consumer not in self._consumers:
            self._consumers[consumer] = source_queue
            self.monitor(consumer)
        self._credits.asked(consumer, source_queue, count)

    def _consumer_ended(self, consumer: Ref) -> None:
        source_queue = self._consumers.pop(consumer, None)
        if source_queue is not None:
            self._credits.left(consumer, source_queue)
            self._receives.left(consumer, source_queue)
            for supervisor in _SUPERVISORS:  # it may have had processors started, and ended before it told of them
                self.send_request(supervisor, WhichChildren(), supervisor)

    def _processor_ended(self, processor: Ref, entry: Entry, reason: ExitReason) -> None:
        message = entry.message
        self._credits.finished(None if message is None else message.source.queue)
        self._finished += 1
        self._receives.note_activity(self.clock.monotonic())
        if message is None:
            return
        if message.group is not None:
            self._leave_line(message, message.group, is_finished=isinstance(reason, Normal))
        match reason:
            case Normal():
                return
            case Shutdown(HandBack(why)):
                seconds = _seconds_later(message, why, self._rng)
            case Shutdown():
                why = Reason.DRAINED
                waited = self.clock.monotonic() - message.received_at_seconds
                log_handed_back(message.message_id, why, "this process, or a part of it, ends or stands by", waited)
                self._trace_handed_back(message, why)
                seconds = hand_back_unfinished_seconds(message.approximate_receive_count, self._rng)
            case _:
                logger.error(
                    "the validator or mover of message %s crashed: %s",
                    message.message_id,
                    type(reason).__name__,
                    extra={"fate": "handed_back", "message_id": message.message_id, "reason": Reason.CRASHED},
                )
                why, seconds = Reason.CRASHED, _seconds_later(message, Reason.CRASHED, self._rng)
                outcome = (
                    f"message {message.message_id}, received {message.approximate_receive_count} times, "
                    f"is handed back and comes again in {seconds} s"
                )
                self.cast(INCIDENTS, ProcessorCrashed(processor, message.message_id, outcome))
                self._trace_handed_back(message, why)
        self._hand_back(message, why, seconds, is_lost=entry.is_lost)

    def _hand_back(self, message: WatchMessage, why: Reason, seconds: int, *, is_lost: bool) -> None:
        if not is_lost:
            self._change(message, seconds, message.message_id)
        logger.debug("message %s handed back for %d s: %s", message.message_id, seconds, why)
        was_here_seconds = self.clock.monotonic() - message.received_at_seconds
        statistics_of(self.system).message_finished("handed_back", why, was_here_seconds)

    def _trace_handed_back(self, message: WatchMessage, why: Reason) -> None:
        """Tell of it, where the processor could not do so itself."""
        if self._tracer.is_on and self._tracer.wants("handed_back"):
            known = {
                "message_id": message.message_id,
                "receive_count": message.approximate_receive_count,
                "source_queue": message.source.queue,
            }
            self._tracer.emit("handed_back", {**known, "reason": why}, message.received_at_seconds)

    def _change(self, message: WatchMessage, seconds: int, label: object) -> None:
        batcher = visibility_batcher_of(message.source)
        self.send_request(batcher, ChangeVisibility(message.receipt_handle, seconds), label)

    def terminate(self, reason: ExitReason) -> None:
        """Hand back what is in flight, unless it was this actor alone that crashed."""
        if not isinstance(reason, Crash):
            for entry in self._table.values():
                if (message := entry.message) is not None:
                    self._trace_handed_back(message, Reason.CRASHED)
                    seconds = _seconds_later(message, Reason.CRASHED, self._rng)
                    self._hand_back(message, Reason.CRASHED, seconds, is_lost=entry.is_lost)
            self._table.clear()

    # --- visibility timeouts ---

    def _tick_later(self) -> None:
        self.send_after(self._timeout_seconds / TICKS_PER_TIMEOUT, _Tick())

    def _extend(self) -> None:
        now = self.clock.monotonic()
        for processor, entry in self._table.items():
            message = entry.message
            if message is None or entry.is_lost or now < entry.extend_at_seconds:
                continue
            if now <= message.received_at_seconds + MAX_VISIBILITY_SECONDS - self._timeout_seconds:
                entry.extend_at_seconds = now + self._timeout_seconds / 2
                self._change(message, self._timeout_seconds, _Extension(processor))

    def _lost(self, processor: Ref, detail: str) -> None:
        entry = self._table.get(processor)
        if entry is not None and entry.message is not None:
            entry.is_lost = True
            logger.warning(
                "message %s could not be extended and may be with another worker by now: %s",
                entry.message.message_id,
                detail,
            )

    # --- groups of FIFO queues ---

    def _line_up(self, message: WatchMessage, group: tuple[str, str]) -> None:
        match self._lines.join(group, message.processor, message.received_at_seconds):
            case Turn.BEGIN:
                message.processor.send(YourTurn())
            case Turn.STAND_BACK:
                message.processor.send(StandBack())

    def _leave_line(self, message: WatchMessage, group: tuple[str, str], *, is_finished: bool) -> None:
        left = self._lines.leave(
            group,
            message.processor,
            message.received_at_seconds,
            is_finished=is_finished,
            now_seconds=self.clock.monotonic(),
        )
        for processor in left.stand_back:
            processor.send(StandBack())
        if left.begin is not None:
            left.begin.send(YourTurn())

    # --- outages and receives ---

    def _note_outage(self, outage: ServiceUnavailable) -> None:
        """Close the gate or leave it open, as the gateway says now; it may have said otherwise of the same outage."""
        stops_receiving = outage.stops_receiving
        self._outages = self._outages.begun(outage.service, outage.source_queue, stops_receiving=stops_receiving)

    def _receive_over(self, settled: SettleReservation) -> None:
        """Take back what was reserved; tell once that receives fail, and once that they do not any more."""
        consumer, source_queue, failure = settled.consumer, settled.source_queue, settled.failure
        now = self.clock.monotonic()
        if failure is None:
            self._credits.received(consumer, source_queue, settled.received)
            if self._receives.succeeded(consumer, source_queue, settled.received, now):
                told = f"receives from {source_queue} succeed again"
                logger.warning("%s", told)
                self._notice(IncidentKind.RECOVERED, source_queue, told)
            return
        self._credits.failed(consumer, source_queue)
        if self._receives.failed(consumer, source_queue, now):
            told = f"receives fail, and are tried again: {failure}"
            logger.error("%s", told)
            self._notice(IncidentKind.OUTAGE, source_queue, told)

    def _notice(self, kind: IncidentKind, source_queue: str, summary: str) -> None:
        self.cast(INCIDENTS, Noticed(kind, f"receive from {source_queue}", summary))

    # --- what follows ---

    def _look_again(self) -> None:
        """Let the next consumers receive, as far as there is room; or, when closed, say so once all is done."""
        self._receives.looked(self._outages, self.clock.monotonic())
        reserved, max_in_flight = self._credits.reserved, self._limits.current.max_in_flight
        if self._is_releasing and not reserved:  # else a receive under way would take the same messages again
            self._is_releasing = False
            for processor in self._table:
                processor.exit(SHUTDOWN)
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
        return not self._is_closed and not self._is_shut()

    def _is_shut(self) -> bool:
        """Tell whether not even a single message may be taken in, to see whether a service is back."""
        return self._limits.is_paused or not self._limits.are_held(self.clock.boottime())

    def _tell(self, grant: Grant[Ref] | None) -> None:
        if grant is not None:
            grant.consumer.send(CreditsGranted(grant.credits))

    def _look_for_progress(self) -> None:
        """Where the process stops in an outage, look in a while whether anything can be finished all the same."""
        if self._closers and self._outages.services and not self._looks_for_progress:
            self._looks_for_progress = True
            self.send_after(STUCK_SECONDS, _LookForProgress(self._finished))

    @staticmethod
    def _answer(waiting: list[From], answer: object) -> None:
        for from_ in waiting:
            from_.reply(answer)
        waiting.clear()
