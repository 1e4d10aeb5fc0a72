"""``RefereeGateway``: what a gateway to Apple needs because Apple may refuse everybody in an outage.

``referee`` has the rules. While the breaker is open because Apple refuses all controls, a refusal counts as no answer.
Each try whether Apple is back is a control and a message, so that neither forgeries nor controls that have become bad
prolong an outage. If there is no control, messages are received all the same: an honest user's receipt, which would be
one, has to come in.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from math import inf
from typing import Any

import cachetools

from receipt_actors.domain.limits import LiveLimits
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Interpretation, TryAgain, Unidentified, WrongEnvironment
from receipt_actors.domain.sending import RetryPolicy
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
    VerifyReceipt,
)
from receipt_actors.stores.apple.ports import ReceiptApi, Signed
from receipt_actors.stores.apple.referee import Referee
from receipt_actors.telemetry.incidents import IncidentKind
from receipt_actors.telemetry.overview import ServiceOverview

logger = logging.getLogger(__name__)

REMEMBERED_REFUSALS = 10_000
REFUSAL_MEMORY_SECONDS = 60 * 60
CONTROL_PAUSE_SECONDS = 0.25  #: between two controls, where most users are refused
WAIT_SECONDS = 1.0  #: for what other users' receipts show, before a control is asked about or done without
UNSURE_SECONDS = 5.0  #: of holding refusals without a control, before that is told
RECHECK_SECONDS = 5.0  #: between two held refusals that are asked again, where there is no control
MAX_HELD_SECONDS = 60.0  #: of a refusal, where there is no control; then its message is handed back


#: What Apple may say to everybody in an outage. ``sandbox_refused`` is not among them: it is our policy that refuses.
DOUBTFUL = frozenset(
    {
        Reason.RECEIPT_MALFORMED,
        Reason.UNKNOWN_STATUS,
        Reason.NOT_AUTHENTIC,
        Reason.ACCOUNT_NOT_FOUND,
        Reason.INTERNAL_DATA_ERROR,
        Reason.TRANSACTION_NOT_FOUND,
        Reason.NO_TRANSACTION_ID,
    }
)


class Verification(Job):
    """A message's receipt, or signed transaction, while it is looked into."""

    __slots__ = ("api", "environment", "question", "was_redirected")

    request: VerifyReceipt

    def __init__(self, request: VerifyReceipt, from_: From, api: ReceiptApi) -> None:
        super().__init__(request, from_)
        self.api = api
        self.environment = api.first
        self.question = ""  # what Apple is asked, once that is known
        self.was_redirected = False

    @property
    def message_id(self) -> str:
        return self.request.submission.message_id

    @property
    def user_id(self) -> int:
        return self.request.submission.user_id

    @property
    def memory_key(self) -> Hashable:
        return self.message_id, self.request.submission.receipt_sha256


@dataclass(frozen=True, slots=True)
class AppleAnswer:
    meaning: Interpretation | Signed
    environment: Environment
    at_seconds: float  #: monotonic


@dataclass(frozen=True, slots=True)
class _Vouched:
    request: VerifyReceipt = field(repr=False)
    question: str = field(repr=False)
    api: ReceiptApi


class _Due(Enum):
    ASK_CONTROL = auto()  # if one is still needed
    RECHECK = auto()  # a refusal that is held, if there is still no control


@dataclass(frozen=True, slots=True)
class _Held:
    refusal: TryAgain | Unidentified
    since_seconds: float  #: monotonic


class RefereeGateway(Gateway):
    """See the module. ``AppStoreGateway`` calls ``vouched``, ``note_refusal`` and ``refuse``.

    It also remembers final refusals, so that a message is looked into once, not once a delivery; an outage ends that.
    """

    def __init__(self, limits: LiveLimits, concurrency: int, retry: RetryPolicy) -> None:
        super().__init__("app_store", concurrency, retry)
        self._limits = limits
        self._offline = 0  # what is being found out without Apple
        self._refusals: cachetools.TTLCache[Hashable, Unidentified] = cachetools.TTLCache(
            REMEMBERED_REFUSALS, REFUSAL_MEMORY_SECONDS, timer=self.clock.monotonic
        )
        self._referee: Referee[_Vouched] = Referee()
        self._held: dict[Verification, _Held] = {}  # the oldest first
        self._rechecked: tuple[Verification, _Held] | None = None  # what was held and is being asked again
        self._control: Verification | None = None  # that is being asked about
        self._control_timer: Timer | None = None
        self._control_asked_at_seconds = -inf  # monotonic
        self._unsure_from_seconds = inf  # monotonic; if there is no control by then
        self._is_unsure = False  # Apple refuses several users, and there is no control

    # --- what Apple answers ---

    def is_control(self, job: Job) -> bool:
        return isinstance(job.from_, ToItself)

    def vouched(self, job: Verification) -> None:
        is_first = self._referee.next_control is None
        question = _Vouched(job.request, job.question, job.api)
        self._referee = self._referee.vouched(job.user_id, question, self.clock.monotonic())
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

    def note_refusal(self, job: Verification, refusal: TryAgain | Unidentified) -> None:
        """Note what Apple said about a job that is no control; it may be tried again all the same."""
        if not _is_doubtful(job.environment, refusal):
            return
        self._referee = self._referee.refused(job.user_id)
        if self._referee.is_contested:
            self._ask_control_soon()

    def refuse(self, job: Verification, refusal: TryAgain | Unidentified) -> None:
        if not _is_doubtful(job.environment, refusal):
            self.conclude_refusal(job, refusal)
        elif self._referee.next_control or self._referee.believes_without_control or self._has_room():
            now = self.clock.monotonic()
            if not self._held:
                self._unsure_from_seconds = now + UNSURE_SECONDS
            rechecked, held = self._rechecked or (None, None)
            self._held[job] = _Held(refusal, held.since_seconds if held is not None and rechecked is job else now)
            self._ask_control_soon()
        else:
            self._is_unsure_now()
            self._hand_back(job)

    def conclude_refusal(self, job: Verification, refusal: TryAgain | Unidentified) -> None:
        if isinstance(refusal, Unidentified):
            self._refusals[job.memory_key] = refusal
        job.from_.reply(refusal)

    def _hand_back(self, job: Job) -> None:
        job.from_.reply(GaveUp(f"{self.service}: whether its refusals are right is not known"))

    def _has_room(self) -> bool:
        room = self._limits.current.max_in_flight // 2
        if len(self._held) >= room:
            self._held = {job: held for job, held in self._held.items() if job.from_.is_wanted()}
        return len(self._held) < room

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
        pause_seconds = WAIT_SECONDS
        if self._referee.next_control is not None and self._referee.is_contested:
            since_last_seconds = self.clock.monotonic() - self._control_asked_at_seconds
            pause_seconds = max(0.0, CONTROL_PAUSE_SECONDS - since_last_seconds)
        timer = self._control_timer
        if timer is not None and not timer.is_over:
            if timer.due_seconds <= self.clock.monotonic() + pause_seconds:
                return
            timer.cancel()
        self._control_timer = self.send_after(pause_seconds, _Due.ASK_CONTROL)

    def _ask_control(self) -> None:
        if self._control is not None or not self._breaker.is_closed:
            return
        if self._referee.next_control is None:
            if self._referee.believes_without_control:
                self._believe()
            # What the Server API answers is verified first, and the verifiers may be starting: Apple may vouch soon.
            elif self._held and self.clock.monotonic() >= self._unsure_from_seconds and not self._offline:
                self._is_unsure_now()
            elif self._held:
                self._ask_control_soon()
        elif self._held or self._referee.is_contested:
            self._ready.appendleft(self._begin_control(self._referee.next_control))

    def _begin_control(self, vouched: _Vouched) -> Verification:
        from_ = ToItself(lambda value: self._control_over(job, value))
        self._control = job = Verification(vouched.request, from_, vouched.api)
        job.environment, job.question = Environment.PRODUCTION, vouched.question
        self._control_asked_at_seconds = self.clock.monotonic()
        return job

    def _control_over(self, job: Job, value: object) -> None:
        if job is not self._control:
            return
        self._control = None
        if isinstance(value, Genuine):
            self._referee = self._referee.control_vouched()
            self._believe()
        elif (detail := _refusal_in(value, Environment.PRODUCTION)) is not None:
            self._control_refused(detail)
        else:
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
        """See ``Gateway``: in an outage in which Apple refuses everybody a refusal is no answer."""
        if not self._referee.is_out:
            return None
        detail = _refusal_in(answer.meaning, answer.environment)
        return None if detail is None else AppStoreUnavailable(detail)

    def _is_held_against(self, job: Job) -> bool:
        return not (self._referee.is_out or self.is_control(job)) and super()._is_held_against(job)

    def _outage_begins(self, error: UnavailableError) -> None:
        self._refusals.clear()  # some may be of the first moments of the outage
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
        if self.is_control(job):
            job.from_.reply(GaveUp(detail))  # it is not tried again: another one is asked about
        else:
            super().retry(job, detail, at_least_seconds=at_least_seconds, given_up=given_up)

    def give_up(self, job: Job, answer: object) -> None:
        if isinstance(answer, GatewayFailure):
            super().give_up(job, answer)
        else:  # Apple refused it to the last
            assert isinstance(job, Verification) and isinstance(answer, TryAgain)
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
        self.send_after(WAIT_SECONDS, _Due.RECHECK)

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
        self.send_after(RECHECK_SECONDS, _Due.RECHECK)

    # --- what others see ---

    def handle_call(self, request: Any, from_: From) -> Any:
        if isinstance(request, DescribeService) and self._is_unsure:
            return IdleTimeout(0, self._unsure())
        return super().handle_call(request, from_)

    def handle_info(self, message: Any) -> Any:
        match message:
            case _Due.ASK_CONTROL:
                self._ask_control()
            case _Due.RECHECK:
                self._recheck()
            case _:
                return super().handle_info(message)
        return DISPATCH

    @property
    def waiting(self) -> int:
        return super().waiting + len(self._held)

    def outside_view(self) -> ServiceOverview:
        view = super().outside_view()
        if not self._is_unsure:
            return view
        return replace(view, is_available=False, unavailable_since_seconds=self._unavailable_since_seconds)

    def describe_state(self) -> dict[str, object]:
        return {**super().describe_state(), "held_refusals": len(self._held), "controls": len(self._referee.controls)}


def _is_doubtful(asked: Environment, refusal: TryAgain | Unidentified) -> bool:
    """Tell whether Apple may have refused wrongly. What production does not know the sandbox is asked about as well."""
    is_of_production = asked is Environment.PRODUCTION or refusal.reason is Reason.TRANSACTION_NOT_FOUND
    return is_of_production and refusal.reason in DOUBTFUL


def _refusal_in(meaning: object, environment: Environment) -> str | None:
    """Return what to tell of an answer if it is a refusal that Apple may give everybody; else None."""
    if isinstance(meaning, WrongEnvironment):
        meaning = meaning.otherwise
    if isinstance(meaning, TryAgain | Unidentified) and _is_doubtful(environment, meaning):
        return meaning.detail
    return None
