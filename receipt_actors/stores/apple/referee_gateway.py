"""``RefereeGateway``: a gateway to a service whose refusals may be wrong, because it refuses everybody in an outage.

``referee`` has the rules. This adds what they need to ``Gateway``: it holds refusals, asks about controls, and opens
the breaker where the service refuses all of them. While the breaker is open for that, a refusal counts as no
answer. Each try whether the service is back is a control and a message, so that neither forgeries nor controls that
have become bad prolong an outage.

Where there is no control messages are received all the same: an honest user's receipt, which would be one, has to come
in. Half of what may be in flight is held meanwhile, each refusal for a minute; beyond that a message is handed back.
Now and then one that is held is asked again.

A crash of it forgets the controls and what is held: validators ask its successor, and that asks the service.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from receipt_actors.errors import AppStoreUnavailable, UnavailableError
from receipt_actors.otp import From, IdleTimeout, Timer
from receipt_actors.pipeline.gateway import DISPATCH, Gateway, Job, ToItself
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    DescribeService,
    GatewayFailure,
    GaveUp,
    ServiceAvailable,
    ServiceUnavailable,
)
from receipt_actors.stores.apple.referee import Referee
from receipt_actors.telemetry.incidents import IncidentKind
from receipt_actors.telemetry.overview import ServiceOverview

logger = logging.getLogger(__name__)

CONTROL_PAUSE_SECONDS = 0.25  #: between two controls, where most users are refused
PATIENCE_SECONDS = 1.0  #: for what other users' receipts show, before a control is asked about or done without
UNSURE_SECONDS = 5.0  #: of holding refusals without a control, before that is told
RECHECK_SECONDS = 5.0  #: between two held refusals that are asked again, where there is no control
MAX_HELD_SECONDS = 60.0  #: of a refusal, where there is no control; then its message is handed back


@dataclass(frozen=True, slots=True)
class _AskControl:
    """To itself: ask about a control, if one is still needed."""


@dataclass(frozen=True, slots=True)
class _Recheck:
    """To itself: ask again about a refusal that is held, if there is still no control."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A refusal, and since when it is held."""

    refusal: object
    since_seconds: float  #: monotonic


class RefereeGateway(Gateway):
    """See the module. A subclass says what a refusal is, and calls ``vouched``, ``note_refused`` and ``refuse``."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._referee: Referee[Any] = Referee()
        self._held: dict[Job, _Held] = {}  # the oldest first
        self._rechecked: tuple[Job, _Held] | None = None  # what was held and is being asked again
        self._control: Job | None = None  # that is being asked about
        self._control_timer: Timer | None = None
        self._control_asked_at_seconds = -inf  # monotonic
        self._unsure_from_seconds = inf  # monotonic; if there is no control by then
        self._is_unsure = False  # the service refuses several users, and there is no control

    # --- what a subclass says ---

    def control_job(self, question: Any, from_: From) -> Job:
        """Make a job that asks the service again about what it vouched for before."""
        raise NotImplementedError

    def refusal_in(self, answer: Any) -> str | None:
        """Return what to tell of an answer, of the service or to a control, if that is a refusal; else None."""
        raise NotImplementedError

    def vouches(self, answer: object) -> bool:
        """Tell whether what a job is answered with means that the service vouches for it."""
        raise NotImplementedError

    def user_of(self, job: Job) -> object:
        """Return whose job it is."""
        raise NotImplementedError

    def conclude_refusal(self, job: Job, refusal: object) -> None:
        """Answer a job with a refusal that stands."""
        raise NotImplementedError

    @property
    def room_for_held(self) -> int:
        """How many refusals may be held where there is no control, now."""
        raise NotImplementedError

    @property
    def is_about_to_vouch(self) -> bool:
        """Tell whether an answer is being looked into, so that there may be a control soon."""
        return False

    # --- what the service answers ---

    def is_control(self, job: Job) -> bool:
        """Tell whether nobody waits for the answer but this gateway."""
        return isinstance(job.from_, ToItself)

    def vouched(self, job: Job, question: object) -> None:
        """Note that the service vouched for a job that is no control."""
        is_first = self._referee.next_control is None
        self._referee = self._referee.vouched(self.user_of(job), question, self.clock.monotonic())
        if self._is_unsure:
            self._is_sure_again(f"{self.service} vouches for a receipt, and is available")
        if is_first and self._held:  # since when it works is not known
            self._ask_again()
            self._referee = self._referee.interrupted()
        elif self._held:
            if self._referee.is_contested:
                self._ask_control_soon()
            else:
                self._believe()

    def note_refused(self, job: Job) -> None:
        """Note that the service refused a job that is no control; it may be tried again all the same."""
        self._referee = self._referee.refused(self.user_of(job))
        if self._referee.is_contested:
            self._ask_control_soon()

    def refuse(self, job: Job, refusal: object) -> None:
        """Answer a job with a refusal, as soon as that can be believed."""
        if self._can_tell or self._has_room():
            now = self.clock.monotonic()
            if not self._held:
                self._unsure_from_seconds = now + UNSURE_SECONDS
            rechecked, held = self._rechecked or (None, None)
            self._held[job] = _Held(refusal, held.since_seconds if held is not None and rechecked is job else now)
            self._ask_control_soon()
        else:
            self._is_unsure_now()
            self._hand_back(job)

    def _hand_back(self, job: Job) -> None:
        job.from_.reply(GaveUp(f"{self.service}: whether its refusals are right is not known"))

    @property
    def _can_tell(self) -> bool:
        """Whether it will soon be known if refusals are right."""
        return self._referee.next_control is not None or self._referee.believes_without_control

    def _has_room(self) -> bool:
        if len(self._held) >= self.room_for_held:
            self._held = {job: held for job, held in self._held.items() if job.from_.is_wanted()}
        return len(self._held) < self.room_for_held

    def _believe(self) -> None:
        all_held, self._held = self._held, {}
        for job, held in all_held.items():
            self.conclude_refusal(job, held.refusal)

    def _ask_again(self) -> None:
        """Have everything that is held asked again: it was refused in an outage, perhaps."""
        for job in self._held:
            job.attempts = 0
        self._ready.extend(self._held)
        self._held.clear()

    # --- controls ---

    def _ask_control_soon(self) -> None:
        if self._control is not None or self._is_unsure or not self._breaker.is_closed:
            return
        pause_seconds = PATIENCE_SECONDS
        if self._referee.next_control is not None and self._referee.is_contested:
            since_last_seconds = self.clock.monotonic() - self._control_asked_at_seconds
            pause_seconds = max(0.0, CONTROL_PAUSE_SECONDS - since_last_seconds)
        timer = self._control_timer
        if timer is not None and not timer.is_over:
            if timer.due_seconds <= self.clock.monotonic() + pause_seconds:
                return
            timer.cancel()
        self._control_timer = self.send_after(pause_seconds, _AskControl())

    def _ask_control(self) -> None:
        if self._control is not None or not self._breaker.is_closed:
            return
        if self._referee.next_control is None:
            if self._referee.believes_without_control:
                self._believe()
            elif self._held and self.clock.monotonic() >= self._unsure_from_seconds and not self.is_about_to_vouch:
                self._is_unsure_now()
            elif self._held:
                self._ask_control_soon()
        elif self._held or self._referee.is_contested:
            self._ready.appendleft(self._begin_control(self._referee.next_control))

    def _begin_control(self, question: object) -> Job:
        self._control = job = self.control_job(question, ToItself(lambda value: self._control_over(job, value)))
        self._control_asked_at_seconds = self.clock.monotonic()
        return job

    def _control_over(self, job: Job, value: object) -> None:
        if job is not self._control:
            return
        self._control = None
        if self.vouches(value):
            self._referee = self._referee.control_vouched()
            self._believe()
        elif (detail := self.refusal_in(value)) is not None:
            self._control_refused(detail)
        else:
            self._control_unanswered()

    def _control_unanswered(self) -> None:
        self._referee = self._referee.control_unanswered()
        if self._held:
            self._ask_control_soon()

    def _control_refused(self, detail: str) -> None:
        self._referee = self._referee.control_refused()
        if not self._referee.is_out:
            self._ask_control()  # another one
            return
        self._breaker = self._breaker.opened(self.clock.monotonic())
        self._outage_begins(AppStoreUnavailable(f"it refuses receipts that it has vouched for before: {detail}"))

    # --- outages ---

    def trouble_in(self, answer: Any) -> UnavailableError | None:
        """See ``Gateway``: in an outage in which the service refuses everybody a refusal is no answer."""
        detail = self.refusal_in(answer) if self._referee.is_out else None
        return None if detail is None else AppStoreUnavailable(detail)

    def _is_held_against(self, job: Job) -> bool:
        return not (self._referee.is_out or self.is_control(job)) and super()._is_held_against(job)

    def _outage_begins(self, error: UnavailableError) -> None:
        held, self._held = self._held, {}
        for job in held:
            self._keep(job)
        self._is_unsure = False
        self._referee = replace(self._referee.interrupted(), is_out=self._referee.is_out)
        super()._outage_begins(error)

    def _outage_ends(self, told: str, level: int) -> None:
        self._is_unsure = False
        self._referee = self._referee.interrupted()
        super()._outage_ends(told, level)

    def _forget_outage(self) -> None:
        if self._is_unsure:
            self._is_sure_again(f"{self.service}: whether it is available is for the nodes to say that do the work now")
        self._ask_again()
        super()._forget_outage()

    def _try_service(self) -> None:
        question = self._referee.next_control if self._referee.is_out else None
        if question is not None and self._control is None and self._under_way < self.concurrency:
            self._send((self._begin_control(question),))
        super()._try_service()

    def _keep(self, job: Job) -> None:
        if self.is_control(job):
            job.from_.reply(GaveUp("it was refused, or not answered"))
        else:
            super()._keep(job)

    def retry(self, job: Job, detail: str, *, at_least_seconds: float = 0.0, given_up: object = None) -> None:
        """See ``Gateway``. A control is not tried again: another one is asked about."""
        if self.is_control(job):
            job.from_.reply(GaveUp(detail))
        else:
            super().retry(job, detail, at_least_seconds=at_least_seconds, given_up=given_up)

    def give_up(self, job: Job, answer: object) -> None:
        """See ``Gateway``. What the service refused to the last is refused as soon as that can be believed."""
        if isinstance(answer, GatewayFailure):
            super().give_up(job, answer)
        else:
            self.refuse(job, answer)

    # --- where there is no control ---

    def _is_unsure_now(self) -> None:
        if self._is_unsure:
            return
        self._is_unsure = True
        self._unavailable_since_seconds = self.clock.time()
        told = (
            f"{self.service} is unavailable, or all receipts are forged: it has refused those of several users and "
            "vouched for none since the start. Refusals are not believed before it vouches for one"
        )
        logger.error("%s", told)
        self._notice(IncidentKind.OUTAGE, told)
        self.cast(IN_FLIGHT, self._unsure())
        self.send_after(PATIENCE_SECONDS, _Recheck())

    def _unsure(self) -> ServiceUnavailable:
        return ServiceUnavailable(self.service, stops_receiving=False)

    def _is_sure_again(self, told: str) -> None:
        self._is_unsure = False
        logger.warning("%s", told)
        self._notice(IncidentKind.RECOVERED, told)
        self.cast(IN_FLIGHT, ServiceAvailable(self.service))

    def _recheck(self) -> None:
        if not self._is_unsure:
            return
        until_seconds = self.clock.monotonic() - MAX_HELD_SECONDS
        for job in [job for job, held in self._held.items() if held.since_seconds <= until_seconds]:
            del self._held[job]
            self._hand_back(job)
        if self._held:
            job = next(iter(self._held))
            self._rechecked = job, self._held.pop(job)
            self._ready.appendleft(job)
        self.send_after(RECHECK_SECONDS, _Recheck())

    # --- what others see ---

    def handle_call(self, request: Any, from_: From) -> Any:
        """See ``Gateway``."""
        if isinstance(request, DescribeService) and self._is_unsure:
            return IdleTimeout(0, self._unsure())
        return super().handle_call(request, from_)

    def handle_info(self, message: Any) -> Any:
        """A pause is over."""
        match message:
            case _AskControl():
                self._ask_control()
            case _Recheck():
                self._recheck()
            case _:
                return super().handle_info(message)
        return DISPATCH

    @property
    def waiting(self) -> int:
        """See ``Gateway``: refusals that are held wait as well."""
        return super().waiting + len(self._held)

    def outside_view(self) -> ServiceOverview:
        """See ``Gateway``."""
        view = super().outside_view()
        if not self._is_unsure:
            return view
        return replace(view, is_available=False, unavailable_since_seconds=self._unavailable_since_seconds)

    def describe_state(self) -> dict[str, object]:
        """See ``Actor``."""
        return {**super().describe_state(), "held_refusals": len(self._held), "controls": len(self._referee.controls)}
