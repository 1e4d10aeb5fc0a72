"""Intake: the one gate, and the credits. It decides how many more messages may be taken in now.

It owns the count of what is in flight (a credit for each custodian that lives, and those reserved by receives under
way), so that N consumers never take in more than the limits allow (``domain.credits``); and the gate, which closes
while a service is unavailable, while an operator has paused it, while the limits are lent to other nodes, or for good
when the process stops. A gate that a service keeps closed lets a single message in while nothing is in flight, and so
it does for as many as a gateway wants to try with: somebody has to find out whether the service is back. What is
about one source queue only closes the gate for that one (``domain.outages``).

It knows since when there has been nothing to do, and for how long nothing could be received (``domain.receives``).

A crash of it forgets the count, the outages, the receives under way, and what earlier ones have told: nothing is idle,
or out of reach, before they have told it again. The count is rebuilt from the supervisors of the custodians (by source
only for those that come then), the outages by asking the gateways; nothing is granted before they have answered. Until
the receives are over, up to 10 messages a consumer too many may come in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from receipt_actors.domain.credits import Credits, Grant
from receipt_actors.domain.limits import LiveLimits
from receipt_actors.domain.outages import Outages
from receipt_actors.domain.receives import Receives
from receipt_actors.domain.sources import Source
from receipt_actors.otp import NO_REPLY, SHUTDOWN, Continue, Down, ExitReason, From, GenServer, Name, Ref, WhichChildren
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    LEDGER_GATEWAY,
    MOVERS,
    SIGNATURE_GATEWAY,
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
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed

logger = logging.getLogger(__name__)

#: Without a message that is finished, while a service is unavailable, until a process that stops waits no longer.
STUCK_SECONDS = 3.0

#: Whom to ask, after a restart, for what the one before knew.
_WITNESSES: dict[Name, object] = {
    **dict.fromkeys((VALIDATORS, MOVERS), WhichChildren()),
    **dict.fromkeys((APP_STORE_GATEWAY, LEDGER_GATEWAY, SIGNATURE_GATEWAY), DescribeService()),
}


@dataclass(frozen=True, slots=True)
class _LookForProgress:
    """To itself: has any message been finished since ``finished`` were?"""

    finished: int


@dataclass(slots=True)
class _Taken:
    """A custodian, as intake knows it."""

    at_seconds: float  #: monotonic; since when
    source_queue: str | None = None  #: None: nobody has told


class Intake(GenServer):
    """See the module."""

    def __init__(self, limits: LiveLimits, sources: Sequence[Source]) -> None:
        self._limits = limits
        self._queues = tuple(source.queue for source in sources)
        self._credits = Credits[Ref](self._queues)
        self._custodians: dict[Ref, _Taken] = {}  # the oldest first
        self._consumers: dict[Ref, str] = {}  # and the source queue of each
        self._receives = Receives[Ref](self._queues, self.clock.monotonic())
        self._outages = Outages()
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

    # --- after a restart ---

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
                source_queue = self._queues[0] if len(self._queues) == 1 else None
                for child in children:
                    if isinstance(child.child, Ref):
                        self._take(child.child, source_queue)
        self._heard(label)

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """There is no such actor yet: this is the first start, and nothing is in flight; or it will announce itself."""
        self._heard(label)

    def _heard(self, witness: Name) -> None:
        self._not_heard.discard(witness)
        self._look_again()

    # --- what others ask ---

    def handle_call(self, request: Any, from_: From) -> Any:
        """Describe what is in flight, pause, or close for good."""
        match request:
            case DescribeIntake():
                return self.outside_view()
            case CloseIntake():
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
            case PauseIntake():
                self._pausing.append(from_)
                self._look_again()
            case _:
                return super().handle_call(request, from_)
        return NO_REPLY

    def outside_view(self) -> IntakeStatus:
        """Describe what is in flight. On any thread: what is not replaced is copied at one stroke."""
        is_paused, outages, receives = self._limits.is_paused, self._outages, self._receives
        now, taken = self.clock.monotonic(), list(self._custodians.values())
        # Who was told to wait, by an operator or by other nodes, has something to do; no outage is why it is not done.
        is_told_to_wait = self._is_shut() or self._limits.current.max_in_flight == 0
        return IntakeStatus(
            len(taken),
            self._credits.reserved,
            frozenset(outages.closing),
            0.0 if taken or is_told_to_wait or self._not_heard else receives.idle_seconds(now),
            is_paused,
            receives.failing,
            receives.is_closed(outages),
            max(0.0, now - taken[0].at_seconds) if taken else 0.0,
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
        """Grant, count, open and close."""
        match request:
            case MessageTaken(custodian, source_queue):
                self._take(custodian, source_queue)
                return None  # a credit that was reserved is used: there is no more room than before
            case ReserveCredits(consumer, source_queue, count):
                if consumer not in self._consumers:
                    self._consumers[consumer] = source_queue
                    self.monitor(consumer)
                self._credits.asked(consumer, source_queue, count)
            case SettleReservation():
                self._receive_over(request)
            case ServiceUnavailable():
                self._note_outage(request)
            case ServiceAvailable(service):
                self._outages = self._outages.ended(service)
            case ResumeIntake():
                self._receives.resumed(self.clock.monotonic())
            case ReleaseCustodians():
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
        """A custodian or a consumer has ended: its credits are free."""
        match message:
            case _LookForProgress(finished):
                self._looks_for_progress = False
                services = self._outages.services
                if self._finished == finished and services and not self._credits.reserved:
                    self._answer(self._closers, StuckInOutage(len(self._custodians), services))
                self._look_for_progress()
            case Down(ref=ref):
                self._ended(ref)
                self._look_again()
            case _:
                return super().handle_info(message)
        return None

    def _take(self, custodian: Ref, source_queue: str | None) -> None:
        taken = self._custodians.get(custodian)
        if taken is None:
            self._custodians[custodian] = _Taken(self.clock.monotonic(), source_queue)
            self._credits.took(source_queue)
            self.monitor(custodian)
        elif taken.source_queue is None and source_queue is not None:
            taken.source_queue = source_queue
            self._credits.recognised(source_queue)

    def _ended(self, ref: Ref) -> None:
        taken = self._custodians.pop(ref, None)
        if taken is not None:
            self._credits.finished(taken.source_queue)
            self._finished += 1
            self._receives.note_activity(self.clock.monotonic())
            return
        source_queue = self._consumers.pop(ref, None)
        if source_queue is not None:
            self._credits.left(ref, source_queue)
            self._receives.left(ref, source_queue)

    def _note_outage(self, outage: ServiceUnavailable) -> None:
        """Close the gate or leave it open, as the gateway says now; it may have said otherwise of the same outage."""
        closes_intake = outage.closes_intake
        self._outages = self._outages.begun(outage.service, outage.source_queue, closes_intake=closes_intake)

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
            for custodian in self._custodians:
                custodian.exit(SHUTDOWN)
        if self._yielding and not self._not_heard and self._credits.room(max_in_flight) >= 0:
            self._answer(self._yielding, Done())
        if self._pausing and not (self._limits.is_paused and reserved):
            self._receives.stopped()
            self._answer(self._pausing, Done())
        if self._closers and not self._custodians and not reserved:
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
