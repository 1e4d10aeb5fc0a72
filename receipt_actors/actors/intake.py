"""Intake: the one gate, and the credits. It decides how many more messages may be taken in now.

It owns the count of what is in flight (a credit for each custodian that lives, and those reserved by receives under
way), so that N consumers never take in more than the limits allow; and the gate, which closes while a service is
unavailable, while an operator has paused it, or for good when the process stops. A gate that a service keeps closed
lets a single message in while nothing is in flight, and so it does when a gateway wants another one to try with:
somebody has to find out whether the service is back.

It lets few consumers receive at once while receives are not full: many would bring one message each, and every one
costs as much as ten.

A crash of it forgets the count, the outages, and the receives under way. The first is rebuilt from the supervisors of
the custodians, the second by asking the gateways; nothing is granted before they have answered. Until the receives are
over, up to 10 messages a consumer too many may come in.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, fields
from typing import Any

from receipt_actors.actors.protocol import (
    APP_STORE_GATEWAY,
    DELETE_BATCHER,
    LEDGER_GATEWAY,
    MOVERS,
    VALIDATORS,
    VISIBILITY_BATCHER,
    CloseIntake,
    CreditsGranted,
    DescribeIntake,
    DescribeService,
    Done,
    IntakeStatus,
    MessageTaken,
    ObeyLimits,
    PauseIntake,
    ReserveCredits,
    ResumeIntake,
    ServiceAvailable,
    ServiceUnavailable,
    SettleReservation,
    StuckInOutage,
)
from receipt_actors.domain.limits import LiveLimits
from receipt_actors.otp import NO_REPLY, Continue, Down, ExitReason, From, GenServer, Name, Ref, WhichChildren
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed

logger = logging.getLogger(__name__)

_RECEIVES = "receive"  # what is said to be unavailable when no consumer can receive

MIN_RECEIVES = 2  #: at once; a single one that hangs would hold up everything

#: Without a message that is finished, while a service is unavailable, until a process that stops waits no longer.
STUCK_SECONDS = 3.0

#: Whom to ask, after a restart, for what the one before knew.
_WITNESSES: dict[Name, object] = {
    **dict.fromkeys((VALIDATORS, MOVERS), WhichChildren()),
    **dict.fromkeys((APP_STORE_GATEWAY, LEDGER_GATEWAY, DELETE_BATCHER, VISIBILITY_BATCHER), DescribeService()),
}


@dataclass(frozen=True, slots=True)
class _LookForProgress:
    """To itself: has any message been finished since ``finished`` were?"""

    finished: int


class Intake(GenServer):
    """See the module."""

    def __init__(self, limits: LiveLimits) -> None:
        self._limits = limits
        self._custodians: dict[Ref, float] = {}  # and since when (monotonic): the oldest first
        self._consumers: set[Ref] = set()
        self._reserved: dict[Ref, int] = {}  # by consumer
        self._waiting: deque[ReserveCredits] = deque()
        self._max_receives = MIN_RECEIVES  # at once, now
        self._unavailable: set[str] = set()
        self._keeping: set[str] = set()  # services that are unavailable for some messages only, which they keep
        self._failing: set[Ref] = set()  # consumers whose last receive failed
        self._not_heard = set(_WITNESSES)  # until all of them have answered nothing is granted
        self._is_closed = False
        self._closers: list[From] = []
        self._finished = 0  # custodians that have ended
        self._looks_for_progress = False
        self._yielding: list[From] = []  # who waits for no more to be in flight than the limits allow
        self._pausing: list[From] = []  # who waits for receives under way to be over
        self._last_activity_seconds = self.clock.monotonic()

    def init(self) -> Continue:
        """Find out what is in flight already, in case this is a restart."""
        return Continue()

    def handle_continue(self, term: Any) -> None:
        """Ask the supervisors of the custodians, and the gateways."""
        for witness, question in _WITNESSES.items():
            self.send_request(witness, question, witness)

    def handle_reply(self, label: Any, value: Any) -> None:
        """Count the custodians, and the outages, that an Intake before this one knew."""
        match value:
            case ServiceUnavailable():
                self._note_outage(value)
            case ServiceAvailable():
                pass
            case children:
                for child in children:
                    if isinstance(child.child, Ref):
                        self._take(child.child)
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
            self._yielding.append(from_)
            self._grant()
            return NO_REPLY
        if isinstance(request, PauseIntake):
            self._pausing.append(from_)
            self._grant()
            return NO_REPLY
        return self.outside_view() if isinstance(request, DescribeIntake) else super().handle_call(request, from_)

    def outside_view(self) -> IntakeStatus:
        """Describe what is in flight. On any thread: what is not replaced is copied at one stroke."""
        is_paused = self._limits.is_paused
        now, taken_at = self.clock.monotonic(), list(self._custodians.values())
        is_busy = bool(taken_at) or is_paused  # who was told to wait has something to do
        return IntakeStatus(
            len(taken_at),
            sum(list(self._reserved.values())),
            frozenset(self._unavailable),
            0.0 if is_busy else now - self._last_activity_seconds,
            is_paused,
            bool(self._failing),
            max(0.0, now - taken_at[0]) if taken_at else 0.0,
        )

    def describe_state(self) -> dict[str, object]:
        """See ``Actor``."""
        limits = self._limits.current
        return {
            **super().describe_state(),
            "limits": {field.name: getattr(limits, field.name) for field in fields(limits)},
            "is_paused": self._limits.is_paused,
            "unavailable": sorted(self._unavailable),
            "not_heard": sorted(map(str, self._not_heard)),
        }

    def handle_cast(self, request: Any) -> Any:
        """Grant, count, open and close."""
        match request:
            case MessageTaken(custodian):
                self._take(custodian)
            case ReserveCredits(consumer):
                if consumer not in self._consumers:
                    self._consumers.add(consumer)
                    self.monitor(consumer)
                self._waiting.append(request)
                self._grant()
            case SettleReservation(consumer, received, failure):
                self._adapt_receives(self._reserved.pop(consumer, 0), received, failure)
                if received or failure is not None:  # who can't look does not know that there is nothing to do
                    self._note_activity()
                self._note_receive(consumer, failure)
                self._grant()
            case ServiceUnavailable():
                self._note_outage(request)
                self._grant()
                self._look_for_progress()
                if request.wants_a_prober and not self._reserved:
                    self._grant_next(min(1, self._room()))
            case ServiceAvailable(service):
                self._unavailable.discard(service)
                self._keeping.discard(service)
                self._grant()
            case ResumeIntake():
                self._note_activity()
                self._grant()
            case _:
                return super().handle_cast(request)
        return None

    def handle_info(self, message: Any) -> Any:
        """A custodian or a consumer has ended: its credits are free."""
        if isinstance(message, _LookForProgress):
            self._looks_for_progress = False
            services = frozenset(self._unavailable | self._keeping)
            if self._finished == message.finished and services and not self._reserved:
                self._answer_closers(StuckInOutage(len(self._custodians), services))
            self._look_for_progress()
            return None
        if not isinstance(message, Down):
            return super().handle_info(message)
        ref = message.ref
        if ref in self._custodians:
            del self._custodians[ref]
            self._finished += 1
            self._note_activity()
        else:
            self._consumers.discard(ref)
            self._failing.discard(ref)
            self._reserved.pop(ref, None)
            self._waiting = deque(waiting for waiting in self._waiting if waiting.consumer is not ref)
        self._grant()
        return None

    def _note_outage(self, outage: ServiceUnavailable) -> None:
        """Close the gate or leave it open, as the gateway says now; it may have said otherwise of the same outage."""
        closing, keeping = self._unavailable, self._keeping
        (closing if outage.closes_intake else keeping).add(outage.service)
        (keeping if outage.closes_intake else closing).discard(outage.service)

    def _take(self, custodian: Ref) -> None:
        if custodian not in self._custodians:
            self._custodians[custodian] = self.clock.monotonic()
            self.monitor(custodian)

    def _note_receive(self, consumer: Ref, failure: str | None) -> None:
        """Tell once that receives fail, and once that they do not any more: all consumers meet the same outage."""
        if failure is not None:
            if not self._failing:
                logger.error("receives fail, and are tried again: %s", failure)
                summary = f"receives fail, and are tried again: {failure}"
                self.cast(INCIDENTS, Noticed(IncidentKind.OUTAGE, _RECEIVES, summary))
            self._failing.add(consumer)
        elif self._failing:
            self._failing.discard(consumer)
            if not self._failing:
                logger.warning("receives succeed again")
                self.cast(INCIDENTS, Noticed(IncidentKind.RECOVERED, _RECEIVES, "receives succeed again"))

    def _adapt_receives(self, granted: int, received: int, failure: str | None) -> None:
        """Let one more consumer receive after a full receive, and one fewer after one that was half empty."""
        if failure is not None or not granted:
            return
        if received >= granted:
            self._max_receives = min(self._max_receives + 1, max(MIN_RECEIVES, len(self._consumers)))
        elif received <= granted // 2:
            self._max_receives = max(self._max_receives - 1, MIN_RECEIVES)

    def _note_activity(self) -> None:
        self._last_activity_seconds = self.clock.monotonic()

    def _grant(self) -> None:
        """Let the next consumers receive, as far as there is room; or, when closed, say so once all is done."""
        if self._yielding and not self._not_heard and self._room() >= 0:
            for from_ in self._yielding:
                from_.reply(Done())
            self._yielding.clear()
        if self._pausing and not (self._limits.is_paused and self._reserved):
            for from_ in self._pausing:
                from_.reply(Done())
            self._pausing.clear()
        if self._is_closed:
            self._waiting.clear()
            if not self._custodians and not self._reserved:
                self._answer_closers(Done())
            return
        if self._limits.is_paused:
            return
        while self._waiting and len(self._reserved) < self._max_receives and (available := self._available()) > 0:
            self._grant_next(available)

    def _answer_closers(self, answer: Done | StuckInOutage) -> None:
        for closer in self._closers:
            closer.reply(answer)
        self._closers.clear()

    def _look_for_progress(self) -> None:
        """Where the process stops in an outage, look in a while whether anything can be finished all the same."""
        if self._closers and (self._unavailable or self._keeping) and not self._looks_for_progress:
            self._looks_for_progress = True
            self.send_after(STUCK_SECONDS, _LookForProgress(self._finished))

    def _grant_next(self, available: int) -> None:
        if self._waiting and available > 0 and not self._limits.is_paused:
            waiting = self._waiting.popleft()
            count = min(waiting.count, available)
            self._reserved[waiting.consumer] = count
            waiting.consumer.send(CreditsGranted(count))

    def _available(self) -> int:
        if self._not_heard:
            return 0
        room = self._room()
        if self._unavailable:
            return 1 if room == self._limits.current.max_in_flight else 0
        return room

    def _room(self) -> int:
        return self._limits.current.max_in_flight - len(self._custodians) - sum(self._reserved.values())
