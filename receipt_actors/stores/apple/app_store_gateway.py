"""The App Store gateway: the one actor that has Apple vouch for what a message holds.

A **signed transaction** it has verified offline, which needs no Apple: neither limits nor an outage hold it up, and it
says nothing about whether Apple answers. What can't be verified just now the ``signature_gateway`` takes over.

For **app receipts** it owns the requests to Apple (``asking`` has the ways), as many at once and a second as the limits
allow, and no more at once than help; the redirect between production and sandbox (at most one a receipt, and only where
policy lets the other environment count); and the retries of passing trouble. Several source queues take turns, so that
one with a backlog does not keep the others' receipts waiting behind it.

A refusal of Apple's ends a message only where Apple is known to work (``RefereeGateway``). Controls are app receipts
that production vouched for; they never leave the memory of this process. What the sandbox refuses is believed: no money
is lost there.

It remembers final refusals of either, so that one message is looked into once, not once a delivery; an outage ends that
memory. A crash of it forgets all that: validators ask its successor, and Apple is asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any, ClassVar, TypeAlias

import cachetools

from receipt_actors.domain.limits import MAX_BLOCKING_CONCURRENCY, LiveLimits
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import (
    Genuine,
    Interpretation,
    Misconfigured,
    TryAgain,
    Unidentified,
    WrongEnvironment,
)
from receipt_actors.domain.sending import InTurn, RateLimit, RetryPolicy, Window
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError, UnavailableError
from receipt_actors.otp import Crash, ExitReason, From, IdleTimeout
from receipt_actors.pipeline.calls import CallsOnThreads
from receipt_actors.pipeline.gateway import DISPATCH, Job
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    SIGNATURE_GATEWAY,
    Broken,
    GaveUp,
    Refused,
    ServiceUnavailable,
    VerifyReceipt,
    VerifySignature,
)
from receipt_actors.stores.apple import signed_transactions
from receipt_actors.stores.apple.asking import Way
from receipt_actors.stores.apple.ports import SignatureRefused, SignedDataCalls, SignedKind
from receipt_actors.stores.apple.referee_gateway import RefereeGateway
from receipt_actors.stores.apple.server_api import Answer, Signed, interpret_found
from receipt_actors.telemetry.incidents import IncidentKind

logger = logging.getLogger(__name__)

REMEMBERED_REFUSALS = 10_000
REFUSAL_MEMORY_SECONDS = 60 * 60
SIGNED_TRAFFIC_SECONDS = 10 * 60  #: after a signed transaction, others are expected for so long
READERS = 2  #: threads that read ids from receipts: little work, but nobody knows what somebody has made up

_SIGNATURES = "signatures"  # the statistics' name for what needs no Apple

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


class _Verification(Job):
    """A message's receipt, or signed transaction, on its way."""

    __slots__ = ("environment", "question", "was_redirected", "way")

    def __init__(self, request: VerifyReceipt, from_: From, way: Way) -> None:
        super().__init__(request, from_)
        self.way = way
        self.environment = way.first
        self.question = ""  # what Apple is asked, once that is known
        self.was_redirected = False

    @property
    def message_id(self) -> str:
        message_id: str = self.request.submission.message_id
        return message_id


@dataclass(frozen=True, slots=True)
class _Question:
    """What Apple has vouched for, and for whom: a control."""

    request: VerifyReceipt = field(repr=False)
    question: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What Apple's answer means, who gave it, and when it came."""

    meaning: Answer
    environment: Environment
    at_seconds: float  #: monotonic


_Then: TypeAlias = Callable[[_Verification, Any], object]


@dataclass(frozen=True, slots=True)
class _Offline:
    """Label: what was found out about a job without Apple, and what is done then."""

    job: _Verification
    then: _Then
    signed: str | None = None  #: what is to be verified
    is_taken_over: bool = False  #: by the signature gateway


class AppStoreGateway(RefereeGateway):
    """See the module. Where the ways can begin without a thread that waits for Apple, none does.

    ``ways`` are by source queue, and all of one kind.
    """

    isolates: ClassVar[bool] = True

    def __init__(
        self,
        ways: Mapping[str, Way],
        limits: LiveLimits,
        retry: RetryPolicy,
        signed_data: SignedDataCalls | None = None,
    ) -> None:
        most = limits.whole.app_store_concurrency
        blocks = any(way.begin is None for way in ways.values())
        super().__init__("app_store", min(most, MAX_BLOCKING_CONCURRENCY) if blocks else most, retry)
        if len(ways) > 1:
            self._ready = InTurn[Job](lambda job: job.request.source_queue)
        self._limits = limits
        self._window = Window()
        self._is_full = False
        self._ways = ways
        self._signed_data = signed_data
        self._readers = CallsOnThreads(self.system.new_blocking_pool("app_receipt_readers", READERS))
        self._refusals: cachetools.TTLCache[Hashable, Unidentified] = cachetools.TTLCache(
            REMEMBERED_REFUSALS, REFUSAL_MEMORY_SECONDS, timer=self.clock.monotonic
        )
        self._signed_traffic_until_seconds = -inf  # monotonic
        self._has_stopped_receiving = True  # as ``in_flight`` was told last
        self._offline = 0  # what is being found out without Apple
        self._told: set[str] = set()  # which faults of the configuration an operator has heard of

    def describe_state(self) -> dict[str, object]:
        """See ``Actor``."""
        return {**super().describe_state(), "offline": self._offline, "stops_receiving": self.stops_receiving}

    # --- requests in ---

    def handle_call(self, request: Any, from_: From) -> Any:
        """Have a message's receipt looked into, unless this very message was refused for good a while ago."""
        if not isinstance(request, VerifyReceipt):
            return super().handle_call(request, from_)
        refusal = self._refusals.get(_memory_key(request))
        if refusal is not None:
            return IdleTimeout(0, refusal)
        way = self._ways[request.source_queue]
        job = _Verification(request, from_, way)
        receipt_data = request.submission.receipt_data
        signed = signed_transactions.signed_transaction_of(receipt_data)
        if signed is not None:
            self._verify_signature(job, signed, self._is_verified)
        elif way.question_of is None:
            self._ask(job, receipt_data)
        else:
            label = _Offline(job, self._has_read_question)
            self._offline += 1
            self.run_async(label, self._readers.begin, way.question_of, (receipt_data,), {})
        return DISPATCH

    def _has_read_question(self, job: _Verification, question: str | None) -> None:
        if question is None:
            self._refuse(job, Unidentified(Reason.NO_TRANSACTION_ID, "no transaction id can be read in the receipt"))
        else:
            self._ask(job, question)

    def _ask(self, job: _Verification, question: str) -> None:
        job.question = question
        self.accept(job)

    # --- what needs no Apple ---

    def _verify_signature(self, job: _Verification, signed: str, then: _Then) -> None:
        job.sent_at_seconds = self.clock.monotonic()
        if self._signed_data is None:
            self._configuration_is_at_fault(job, "found a signed transaction, expected a backend that verifies them")
        else:
            self._offline += 1
            self.run_async(_Offline(job, then, signed), self._signed_data.begin, SignedKind.TRANSACTION, signed)

    def _is_verified(self, job: _Verification, verified: Mapping[str, object] | SignatureRefused) -> None:
        self._statistics.request_answered(_SIGNATURES, 1, self.clock.monotonic() - job.sent_at_seconds)
        if isinstance(verified, SignatureRefused):
            self._refuse(job, signed_transactions.refusal(verified))
            return
        self._signed_traffic_until_seconds = self.clock.monotonic() + SIGNED_TRAFFIC_SECONDS
        self._tell_in_flight()
        meaning = signed_transactions.interpret(verified)
        if isinstance(meaning, TryAgain):  # which would change nothing: the same bytes say the same
            self._notice_unknown(job, meaning)
        job.from_.reply(meaning)

    def handle_reply(self, label: Any, value: Any) -> Any:
        """Something was found out without Apple, or Apple answered."""
        if not isinstance(label, _Offline):
            return super().handle_reply(label, value)
        self._offline -= 1
        match value:
            case Broken(error):
                self._could_not_be_found_out(label, error)
            case GaveUp() | Refused():
                label.job.from_.reply(value)
            case _:
                label.then(label.job, value)
        return DISPATCH

    def handle_failure(self, label: Any, reason: ExitReason) -> Any:
        """Something could not be found out, or Apple gave no answer."""
        if not isinstance(label, _Offline):
            return super().handle_failure(label, reason)
        self._offline -= 1
        if label.is_taken_over:  # the one who did has ended
            label.job.from_.reply(GaveUp(f"{_SIGNATURES}: {reason}"))
        else:
            self._could_not_be_found_out(
                label, reason.exception if isinstance(reason, Crash) else RuntimeError(str(reason))
            )
        return DISPATCH

    def _could_not_be_found_out(self, label: _Offline, error: BaseException) -> None:
        match error:
            case ConfigurationError():
                self._configuration_is_at_fault(label.job, str(error))
            case UnavailableError() if label.signed is not None:
                self._offline += 1
                request = VerifySignature(label.job.message_id, label.signed)
                self.send_request(SIGNATURE_GATEWAY, request, replace(label, is_taken_over=True))
            case _:
                label.job.from_.reply(Broken(error))

    def _configuration_is_at_fault(self, job: _Verification, detail: str) -> None:
        """Leave the message as it is; tell once, for each message would say the same."""
        if detail not in self._told:
            self._told.add(detail)
            logger.error("signed transactions cannot be verified: %s", detail)
            summary = f"signed transactions cannot be verified: {detail}"
            self._notice(IncidentKind.CONFIGURATION, summary, job.message_id)
        job.from_.reply(Misconfigured(detail))

    # --- requests out ---

    @property
    def concurrency(self) -> int:
        """See ``Gateway``."""
        if not self._limits.are_held(self.clock.boottime()):
            return 0
        return min(self._limits.current.app_store_concurrency, self._concurrency, self._window.size)

    @property
    def rate(self) -> RateLimit | None:
        """See ``Gateway``."""
        per_second = self._limits.current.app_store_rate_per_second
        if not per_second:  # no limit; or a share of nothing, with which no request is made at all
            return None
        return RateLimit(per_second) if self._rate is None else self._rate.at(per_second, self.clock.monotonic())

    def _dispatch(self) -> None:
        super()._dispatch()
        self._is_full = self._under_way >= self._window.size and bool(self._ready)

    def message_of(self, job: Job) -> Hashable:
        """See ``Gateway``."""
        assert isinstance(job, _Verification)
        return job.message_id

    def carry_out(self, batch: tuple[Job, ...]) -> None:
        """See ``Gateway``."""
        (job,) = batch
        assert isinstance(job, _Verification)
        way = job.way
        read = partial(self._read, way, job.environment)
        if way.begin is None:
            asked = (job.question, job.environment)
            self.run_async(batch, self._calls.begin, way.ask, asked, {}, then=read)
        else:
            self.run_async(batch, way.begin, job.question, job.environment, then=read)

    def _read(self, way: Way, environment: Environment, answer: Mapping[str, object]) -> _Answer:
        """Interpret an answer, on the thread that brings it. One that speaks of Apple's own trouble (21005) is none.

        Raises ``AppStoreUnavailable``.
        """
        meaning = way.interpret(answer, environment)
        if isinstance(meaning, TryAgain) and not meaning.then_unanswerable:
            raise AppStoreUnavailable(meaning.detail)
        return _Answer(meaning, environment, self.clock.monotonic())

    # --- answers ---

    def answered_at_seconds(self, answer: Any) -> float:
        """See ``Gateway``: when Apple answered, whenever this actor comes to it."""
        assert isinstance(answer, _Answer)
        return answer.at_seconds

    def settle(self, batch: Sequence[Job], answer: Any) -> None:
        """Redirect, retry, verify, or pass on what Apple's answer means."""
        (job,) = batch
        assert isinstance(job, _Verification)
        assert isinstance(answer, _Answer)
        lag_seconds = self.clock.monotonic() - answer.at_seconds
        self._window = self._window.answered(is_full=self._is_full, lag_seconds=lag_seconds)
        if isinstance(answer.meaning, Signed):
            self._verify_signature(job, answer.meaning.signed_transaction, self._is_found)
        else:
            self._conclude(job, answer.meaning)

    def _is_found(self, job: _Verification, verified: Mapping[str, object] | SignatureRefused) -> None:
        self._conclude(job, interpret_found(job.question, verified))

    def _conclude(self, job: _Verification, meaning: Interpretation) -> None:
        if self.is_control(job):
            job.from_.reply(meaning)  # whatever it is
            return
        match meaning:
            case WrongEnvironment():
                self._redirect(job, meaning)
            case TryAgain():
                self._notice_unknown(job, meaning)
                self._note_refusal(job, meaning)
                self.retry(job, meaning.detail, given_up=meaning)
            case Misconfigured(detail):
                # Not the breaker's affair: a receipt of somebody else's app is answered so, too, and whoever sends
                # such receipts must not be able to close the gate.
                summary = f"Apple refuses our requests, check {job.way.what_to_check}: {detail}"
                logger.error("%s", summary)
                self._notice(IncidentKind.CONFIGURATION, summary, job.message_id)
                job.from_.reply(meaning)
            case Unidentified():
                self._note_refusal(job, meaning)
                self.refuse(job, meaning)
            case _:
                job.from_.reply(meaning)
                if job.environment is Environment.PRODUCTION:
                    self.vouched(job, _Question(job.request, job.question))

    def _note_refusal(self, job: _Verification, meaning: TryAgain | Unidentified) -> None:
        if _is_doubtful(job.environment, meaning):
            self.note_refused(job)

    def _notice_unknown(self, job: _Verification, meaning: TryAgain) -> None:
        if meaning.reason is Reason.UNKNOWN_STATUS:
            logger.warning("Apple answered what is not documented: %s", meaning.detail)
            self._notice(IncidentKind.UNKNOWN_ANSWER, f"Apple answered: {meaning.detail}", job.message_id)

    def _redirect(self, job: _Verification, wrong: WrongEnvironment) -> None:
        # Production is always the first to be asked, so it takes no permission to go back there.
        allowed = wrong.right is Environment.PRODUCTION or wrong.right in job.way.environments
        if job.was_redirected or not allowed:
            self._note_refusal(job, wrong.otherwise)
            self.refuse(job, wrong.otherwise)
            return
        job.environment = wrong.right
        job.was_redirected = True
        self.accept(job)

    def _refuse(self, job: _Verification, refusal: Unidentified) -> None:
        self._refusals[_memory_key(job.request)] = refusal
        job.from_.reply(refusal)

    # --- whether its refusals are right ---

    def control_job(self, question: _Question, from_: From) -> Job:
        """See ``RefereeGateway``."""
        request = question.request
        job = _Verification(request, from_, self._ways[request.source_queue])
        job.environment = Environment.PRODUCTION
        job.question = question.question
        return job

    def refusal_in(self, answer: Any) -> str | None:
        """See ``RefereeGateway``."""
        meaning, environment = answer, Environment.PRODUCTION  # where controls are asked about
        if isinstance(answer, _Answer):
            meaning, environment = answer.meaning, answer.environment
        if isinstance(meaning, WrongEnvironment):
            meaning = meaning.otherwise
        is_refusal = isinstance(meaning, TryAgain | Unidentified) and _is_doubtful(environment, meaning)
        return str(meaning.detail) if is_refusal else None

    def vouches(self, answer: object) -> bool:
        """See ``RefereeGateway``."""
        return isinstance(answer, Genuine)

    def user_of(self, job: Job) -> Hashable:
        """See ``RefereeGateway``."""
        user_id: int = job.request.submission.user_id
        return user_id

    def refuse(self, job: Job, refusal: object) -> None:
        """See ``RefereeGateway``."""
        assert isinstance(job, _Verification)
        assert isinstance(refusal, TryAgain | Unidentified)
        if _is_doubtful(job.environment, refusal):
            super().refuse(job, refusal)
        else:
            self.conclude_refusal(job, refusal)

    def conclude_refusal(self, job: Job, refusal: object) -> None:
        """See ``RefereeGateway``."""
        assert isinstance(job, _Verification)
        if isinstance(refusal, Unidentified):
            self._refuse(job, refusal)
        else:
            job.from_.reply(refusal)

    @property
    def room_for_held(self) -> int:
        """See ``RefereeGateway``: half of what may be in flight."""
        return self._limits.current.max_in_flight // 2

    @property
    def is_about_to_vouch(self) -> bool:
        """See ``RefereeGateway``: what the Server API answers is verified first, and the verifiers may be starting."""
        return self._offline > 0

    # --- while Apple is unavailable ---

    def _outage_begins(self, error: UnavailableError) -> None:
        self._refusals.clear()  # some may be of the first moments of the outage
        super()._outage_begins(error)

    def _service_failed(self, batch: Sequence[Job], error: UnavailableError) -> None:
        if error.is_about_the_rate and self.rate is not None:  # it is we who are too many, not this message
            until_seconds = self.clock.monotonic() + (error.retry_after_seconds or 0.0)
            self._rate = self.rate.paused(until_seconds)
        super()._service_failed(batch, error)

    @property
    def stops_receiving(self) -> bool:
        """See ``Gateway``: no reason to receive nothing while signed transactions come, as long as they have room.

        Half of what may be in flight is theirs; more app receipts than the other half are not kept waiting here.
        """
        if self.clock.monotonic() >= self._signed_traffic_until_seconds:
            return True
        return self.waiting >= self._limits.current.max_in_flight // 2

    def accept(self, job: Job) -> None:
        """See ``Gateway``."""
        super().accept(job)
        self._tell_in_flight()

    def _tell_in_flight(self) -> None:
        """Tell at once where an outage means another thing for ``in_flight`` than it did when that was told last."""
        if not self._breaker.is_closed and self.stops_receiving is not self._has_stopped_receiving:
            self._has_stopped_receiving = self.stops_receiving
            self.cast(IN_FLIGHT, ServiceUnavailable(self.service, stops_receiving=self._has_stopped_receiving))

    def _wait_and_try(self) -> None:
        self._has_stopped_receiving = self.stops_receiving
        super()._wait_and_try()


def _is_doubtful(asked: Environment, refusal: TryAgain | Unidentified) -> bool:
    """Tell whether Apple may have refused wrongly. What production does not know the sandbox is asked about as well."""
    is_of_production = asked is Environment.PRODUCTION or refusal.reason is Reason.TRANSACTION_NOT_FOUND
    return is_of_production and refusal.reason in DOUBTFUL


def _memory_key(request: VerifyReceipt) -> Hashable:
    return request.submission.message_id, request.submission.receipt_sha256
