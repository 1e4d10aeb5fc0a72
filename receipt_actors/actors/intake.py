"""Intake: the one gate, and the credits. It decides how many more messages may be taken in now.

It owns the count of what is in flight (a credit for each custodian that lives, and those reserved by receives under
way), so that N consumers never take in more than the limits allow; and the gate, which closes while a service is
unavailable, while an operator has paused it, while the limits are lent to other nodes, or for good when the process
stops. A gate that a service keeps closed lets a single message in while nothing is in flight, and so it does when a
gateway wants another one to try with: somebody has to find out whether the service is back. What is about one source
queue only closes the gate for that one.

It lets few consumers of a source receive at once while receives are not full: many would bring one message each, and
every one costs as much as ten.

Where there are several sources none may starve another. Half of all credits is divided among them, and the share of
each (``domain.sources``) is kept for it; of the other half, the next goes to the source that has the fewest, as long as
its receives are full.

A crash of it forgets the count, the outages, and the receives under way. The first is rebuilt from the supervisors of
the custodians (by source only for those that come then), the second by asking the gateways; nothing is granted before
they have answered. Until the receives are over, up to 10 messages a consumer too many may come in.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from receipt_actors.actors.protocol import (
    APP_STORE_GATEWAY,
    LEDGER_GATEWAY,
    MOVERS,
    VALIDATORS,
    CloseIntake,
    CreditsGranted,
    DescribeIntake,
    DescribeService,
    Done,
    IntakeStatus,
    MessageTaken,
    ObeyLimits,
    PauseIntake,
    ReleaseCustodians,
    ReserveCredits,
    ResumeIntake,
    ServiceAvailable,
    ServiceUnavailable,
    SettleReservation,
    StuckInOutage,
    delete_batcher_of,
    visibility_batcher_of,
)
from receipt_actors.domain.limits import LiveLimits
from receipt_actors.domain.sources import Source, credits_kept_for_each
from receipt_actors.otp import NO_REPLY, SHUTDOWN, Continue, Down, ExitReason, From, GenServer, Name, Ref, WhichChildren
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed

logger = logging.getLogger(__name__)

MIN_RECEIVES = 2  #: at once; a single one that hangs would hold up everything

#: Without a message that is finished, while a service is unavailable, until a process that stops waits no longer.
STUCK_SECONDS = 3.0

#: Whom to ask, after a restart, for what the one before knew.
_WITNESSES: dict[Name, object] = {
    **dict.fromkeys((VALIDATORS, MOVERS), WhichChildren()),
    **dict.fromkeys((APP_STORE_GATEWAY, LEDGER_GATEWAY), DescribeService()),
}


class _SourceState:
    """What is going on at one source queue."""

    __slots__ = (
        "consumers",
        "failing",
        "granted",
        "in_flight",
        "max_receives",
        "queue",
        "receives",
        "reserved",
        "unavailable",
        "waiting",
    )

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.consumers: set[Ref] = set()
        self.waiting: deque[ReserveCredits] = deque()
        self.receives = 0  # under way
        self.max_receives = MIN_RECEIVES  # at once, now
        self.reserved = 0  # credits of the receives under way
        self.in_flight = 0  # custodians
        self.granted = 0  # when the last time was, counted in grants to any
        self.unavailable: set[str] = set()  # services that are this source's alone
        self.failing: set[Ref] = set()  # consumers whose last receive failed

    @property
    def used(self) -> int:
        """Credits that this source has now."""
        return self.in_flight + self.reserved

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be taken in from here alone."""
        return bool(self.unavailable or self.failing)


@dataclass(frozen=True, slots=True)
class _LookForProgress:
    """To itself: has any message been finished since ``finished`` were?"""

    finished: int


@dataclass(slots=True)
class _Taken:
    """A custodian, as intake knows it."""

    at_seconds: float  #: monotonic; since when
    source: _SourceState | None = None  #: None: nobody has told


class Intake(GenServer):
    """See the module."""

    def __init__(self, limits: LiveLimits, sources: Sequence[Source]) -> None:
        self._limits = limits
        self._sources = {source.queue: _SourceState(source.queue) for source in sources}
        self._custodians: dict[Ref, _Taken] = {}  # the oldest first
        self._consumers: dict[Ref, _SourceState] = {}
        self._reserved: dict[Ref, int] = {}  # by consumer
        self._grants = 0
        self._unavailable: set[str] = set()
        self._keeping: set[str] = set()  # services that are unavailable for some messages only, which they keep
        batchers = [name_of(source) for source in sources for name_of in (delete_batcher_of, visibility_batcher_of)]
        self._witnesses: dict[Name, object] = {**_WITNESSES, **dict.fromkeys(batchers, DescribeService())}
        self._not_heard = set(self._witnesses)  # until all of them have answered nothing is granted
        self._is_closed = False
        self._closers: list[From] = []
        self._finished = 0  # custodians that have ended
        self._looks_for_progress = False
        self._is_releasing = False  # everything is to be handed back when receives under way are over
        self._yielding: list[From] = []  # who waits for no more to be in flight than the limits allow
        self._pausing: list[From] = []  # who waits for receives under way to be over
        self._last_activity_seconds = self.clock.monotonic()

    def init(self) -> Continue:
        """Find out what is in flight already, in case this is a restart."""
        return Continue()

    def handle_continue(self, term: Any) -> None:
        """Ask the supervisors of the custodians, and the gateways."""
        for witness, question in self._witnesses.items():
            self.send_request(witness, question, witness)

    def handle_reply(self, label: Any, value: Any) -> None:
        """Count the custodians, and the outages, that an Intake before this one knew."""
        match value:
            case ServiceUnavailable():
                self._note_outage(value)
            case ServiceAvailable():
                pass
            case children:
                source = None if len(self._sources) > 1 else next(iter(self._sources.values()))
                for child in children:
                    if isinstance(child.child, Ref):
                        self._take(child.child, source)
        self._heard(label)

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """There is no such actor yet: this is the first start, and nothing is in flight; or it will announce itself."""
        self._heard(label)

    def _heard(self, witness: Name) -> None:
        self._not_heard.discard(witness)
        self._grant()

    def handle_call(self, request: Any, from_: From) -> Any:
        """Describe what is in flight, pause, or close for good."""
        if isinstance(request, CloseIntake):
            self._is_closed = True
            self._closers.append(from_)
            self._grant()
            self._look_for_progress()
            return NO_REPLY
        if isinstance(request, ObeyLimits):
            self._is_releasing &= self._limits.current.max_in_flight == 0
            self._yielding.append(from_)
            self._note_activity()
            self._grant()
            return NO_REPLY
        if isinstance(request, PauseIntake):
            self._pausing.append(from_)
            self._grant()
            return NO_REPLY
        return self.outside_view() if isinstance(request, DescribeIntake) else super().handle_call(request, from_)

    def outside_view(self) -> IntakeStatus:
        """Describe what is in flight. On any thread: what is not replaced is copied at one stroke."""
        sources = self._sources.values()
        is_paused = self._limits.is_paused
        # Who was told to wait, by an operator or by other nodes, has something to do.
        now, taken = self.clock.monotonic(), list(self._custodians.values())
        is_busy = bool(taken) or self._is_shut() or self._limits.current.max_in_flight == 0
        return IntakeStatus(
            len(taken),
            sum(list(self._reserved.values())),
            frozenset(self._unavailable).union(*(source.unavailable.copy() for source in sources)),
            0.0 if is_busy else now - self._last_activity_seconds,
            is_paused,
            frozenset(source.queue for source in sources if source.failing),
            bool(self._unavailable) or all(source.is_closed for source in sources),
            max(0.0, now - taken[0].at_seconds) if taken else 0.0,
        )

    def describe_state(self) -> dict[str, object]:
        """See ``Actor``."""
        limits = self._limits.current
        return {
            **super().describe_state(),
            "limits": {field.name: getattr(limits, field.name) for field in fields(limits)},
            "is_paused": self._limits.is_paused,
            "unavailable": sorted(self.outside_view().unavailable),
            "sources": {
                source.queue: {
                    "in_flight": source.in_flight,
                    "reserved": source.reserved,
                    "waiting": len(source.waiting),
                }
                for source in self._sources.values()
            },
            "not_heard": sorted(map(str, self._not_heard)),
        }

    def handle_cast(self, request: Any) -> Any:
        """Grant, count, open and close."""
        match request:
            case MessageTaken(custodian, source_queue):
                self._take(custodian, self._sources[source_queue])
            case ReserveCredits(consumer, source_queue):
                source = self._sources[source_queue]
                if consumer not in self._consumers:
                    self._consumers[consumer] = source
                    source.consumers.add(consumer)
                    self.monitor(consumer)
                source.waiting.append(request)
                self._grant()
            case SettleReservation(consumer, source_queue, received, failure):
                source = self._sources[source_queue]
                self._adapt_receives(source, self._give_back(consumer, source), received, failure)
                if received or failure is not None:  # who can't look does not know that there is nothing to do
                    self._note_activity()
                self._note_receive(source, consumer, failure)
                self._grant()
            case ServiceUnavailable():
                self._note_outage(request)
                self._grant()
                self._look_for_progress()
                if request.wants_a_prober:
                    self._let_a_prober_in(request.source_queue)
            case ServiceAvailable(service):
                for services in (self._unavailable, self._keeping, *self._closing_one()):
                    services.discard(service)
                self._grant()
            case ResumeIntake():
                self._note_activity()
                self._grant()
            case ReleaseCustodians():
                self._is_releasing = True
                self._grant()
            case _:
                return super().handle_cast(request)
        return None

    def handle_info(self, message: Any) -> Any:
        """A custodian or a consumer has ended: its credits are free."""
        if isinstance(message, _LookForProgress):
            self._looks_for_progress = False
            services = self._services_in_trouble()
            if self._finished == message.finished and services and not self._reserved:
                self._answer_closers(StuckInOutage(len(self._custodians), services))
            self._look_for_progress()
            return None
        if not isinstance(message, Down):
            return super().handle_info(message)
        ref = message.ref
        if ref in self._custodians:
            of = self._custodians.pop(ref).source
            if of is not None:
                of.in_flight -= 1
            self._finished += 1
            self._note_activity()
        elif (source := self._consumers.pop(ref, None)) is not None:
            source.consumers.discard(ref)
            source.failing.discard(ref)
            self._give_back(ref, source)
            source.waiting = deque(waiting for waiting in source.waiting if waiting.consumer is not ref)
        self._grant()
        return None

    def _note_outage(self, outage: ServiceUnavailable) -> None:
        """Close the gate or leave it open, as the gateway says now; it may have said otherwise of the same outage."""
        one = None if outage.source_queue is None else self._sources[outage.source_queue]
        closing, keeping = self._unavailable if one is None else one.unavailable, self._keeping
        (closing if outage.closes_intake else keeping).add(outage.service)
        (keeping if outage.closes_intake else closing).discard(outage.service)

    def _closing_one(self) -> Iterator[set[str]]:
        return (source.unavailable for source in self._sources.values())

    def _services_in_trouble(self) -> frozenset[str]:
        return frozenset(self._unavailable | self._keeping).union(*self._closing_one())

    def _take(self, custodian: Ref, source: _SourceState | None) -> None:
        taken = self._custodians.get(custodian)
        if taken is None:
            taken = self._custodians[custodian] = _Taken(self.clock.monotonic())
            self.monitor(custodian)
        if taken.source is None and source is not None:
            taken.source = source
            source.in_flight += 1

    def _note_receive(self, source: _SourceState, consumer: Ref, failure: str | None) -> None:
        """Tell once that receives fail, and once that they do not any more: all consumers meet the same outage."""
        service = f"receive from {source.queue}"
        if failure is not None:
            if not source.failing:
                logger.error("receives fail, and are tried again: %s", failure)
                summary = f"receives fail, and are tried again: {failure}"
                self.cast(INCIDENTS, Noticed(IncidentKind.OUTAGE, service, summary))
            source.failing.add(consumer)
        elif source.failing:
            source.failing.discard(consumer)
            if not source.failing:
                logger.warning("receives from %s succeed again", source.queue)
                summary = f"receives from {source.queue} succeed again"
                self.cast(INCIDENTS, Noticed(IncidentKind.RECOVERED, service, summary))

    def _give_back(self, consumer: Ref, source: _SourceState) -> int:
        credits = self._reserved.pop(consumer, 0)
        if credits:
            source.reserved -= credits
            source.receives -= 1
        return credits

    def _adapt_receives(self, source: _SourceState, granted: int, received: int, failure: str | None) -> None:
        """Let one more consumer receive after a full receive, and one fewer after one that was half empty."""
        if failure is not None or not granted:
            return
        if received >= granted:
            source.max_receives = min(source.max_receives + 1, max(MIN_RECEIVES, len(source.consumers)))
        elif received <= granted // 2:
            source.max_receives = max(source.max_receives - 1, MIN_RECEIVES)

    def _note_activity(self) -> None:
        self._last_activity_seconds = self.clock.monotonic()

    def _grant(self) -> None:
        """Let the next consumers receive, as far as there is room; or, when closed, say so once all is done."""
        if self._is_releasing and not self._reserved:  # else a receive under way would take the same messages again
            self._is_releasing = False
            for custodian in self._custodians:
                custodian.exit(SHUTDOWN)
        if self._yielding and not self._not_heard and self._room() >= 0:
            for from_ in self._yielding:
                from_.reply(Done())
            self._yielding.clear()
        if self._pausing and not (self._limits.is_paused and self._reserved):
            for from_ in self._pausing:
                from_.reply(Done())
            self._pausing.clear()
        if self._is_closed:
            for source in self._sources.values():
                source.waiting.clear()
            if not self._custodians and not self._reserved:
                self._answer_closers(Done())
            return
        if self._is_shut():
            return
        while (best := self._next_source()) is not None:
            self._grant_next(*best)

    def _next_source(self) -> tuple[_SourceState, int] | None:
        """Choose among the sources that may receive the one with the fewest credits, and say how many more it may have.

        Of those that have equally many the one whose turn is longest ago.
        """
        best: tuple[_SourceState, int] | None = None
        may_receive = [
            source for source in self._sources.values() if source.waiting and source.receives < source.max_receives
        ]
        kept_for_all = self._kept_for_all() if may_receive else 0  # reckoned once: there may be hundreds of sources
        for source in may_receive:
            available = self._available(source, kept_for_all)
            if available > 0 and (best is None or (source.used, source.granted) < (best[0].used, best[0].granted)):
                best = source, available
        return best

    def _let_a_prober_in(self, source_queue: str | None) -> None:
        """Let one message in, of this source or of any, unless one may be coming already."""
        sources = self._sources.values() if source_queue is None else [self._sources[source_queue]]
        waiting = [source for source in sources if source.waiting]
        if waiting and not any(source.reserved for source in sources):
            self._grant_next(min(waiting, key=lambda source: source.granted), min(1, self._room()))

    def _answer_closers(self, answer: Done | StuckInOutage) -> None:
        for closer in self._closers:
            closer.reply(answer)
        self._closers.clear()

    def _look_for_progress(self) -> None:
        """Where the process stops in an outage, look in a while whether anything can be finished all the same."""
        if self._closers and self._services_in_trouble() and not self._looks_for_progress:
            self._looks_for_progress = True
            self.send_after(STUCK_SECONDS, _LookForProgress(self._finished))

    def _grant_next(self, source: _SourceState, available: int) -> None:
        if available > 0 and not self._is_shut():
            waiting = source.waiting.popleft()
            count = min(waiting.count, available)
            self._give_back(waiting.consumer, source)  # of a consumer that has asked twice
            self._reserved[waiting.consumer] = count
            source.reserved += count
            source.receives += 1
            self._grants += 1
            source.granted = self._grants
            waiting.consumer.send(CreditsGranted(count))

    def _kept_for_all(self) -> int:
        """Say how many credits nobody has yet, but are kept for one source or another."""
        kept = credits_kept_for_each(self._limits.current.max_in_flight, len(self._sources))
        return sum(max(0, kept - source.used) for source in self._sources.values())

    def _available(self, source: _SourceState, kept_for_all: int) -> int:
        """Say how many credits this source may have now, beside those that it has."""
        if self._not_heard:
            return 0
        whole = self._limits.current.max_in_flight
        room = self._room()
        if self._unavailable:
            return 1 if 0 < room == whole else 0
        others = len(self._sources) - 1
        if others:
            kept = credits_kept_for_each(whole, others + 1)
            room -= kept_for_all - max(0, kept - source.used)
            if source.max_receives == MIN_RECEIVES:  # quiet: its long polls need not hold what others have a use for
                room = min(room, max(1, kept) - source.reserved)
        return room if not source.unavailable else min(room, 1) if source.used == 0 else 0

    def _is_shut(self) -> bool:
        """Tell whether not even a single message may be taken in, to see whether a service is back."""
        return self._limits.is_paused or not self._limits.are_held(self.clock.boottime())

    def _room(self) -> int:
        return self._limits.current.max_in_flight - len(self._custodians) - sum(self._reserved.values())
