"""The App Store gateway: the one actor that has Apple vouch for what a message holds.

A **signed transaction** is verified offline: neither limits nor an outage of Apple hold it up. What can't be verified
just now the ``SignatureGateway`` takes over. An **app receipt** is asked about, and asked about again in the other
environment if policy lets that count. A refusal ends a message only if Apple is known to work (``RefereeGateway``).

A crash of it forgets the requests under way, the refusals and the controls: validators ask its successor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, ClassVar, TypeAlias

from receipt_actors.domain.limits import MAX_BLOCKING_CONCURRENCY, LiveLimits
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Interpretation, Misconfigured, TryAgain, Unidentified, WrongEnvironment
from receipt_actors.domain.sending import InTurn, RateLimit, RetryPolicy, Window
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError, UnavailableError
from receipt_actors.otp import Crash, ExitReason, From, IdleTimeout
from receipt_actors.pipeline.gateway import DISPATCH, CallsOnThreads, Gateway, Job
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
from receipt_actors.stores.apple.ports import ReceiptApi, SignatureRefused, Signed, SignedDataCalls, SignedKind
from receipt_actors.stores.apple.referee_gateway import AppleAnswer, RefereeGateway, Verification
from receipt_actors.stores.apple.server_api import interpret_found
from receipt_actors.telemetry.incidents import IncidentKind

logger = logging.getLogger(__name__)

SIGNED_TRAFFIC_SECONDS = 10 * 60  #: after a signed transaction, others are expected for so long
READERS = 2  #: threads that read ids from receipts: little work, but a receipt may be made up to take long

_SIGNATURES = "signatures"  # the statistics' name for what needs no Apple

_Then: TypeAlias = Callable[[Verification, Any], object]


@dataclass(frozen=True, slots=True)
class _Offline:
    """Label: what was found out about a job without Apple, and what is done then."""

    job: Verification
    then: _Then
    signed: str | None = None  #: what is to be verified
    is_taken_over: bool = False  #: by the signature gateway


class AppStoreGateway(RefereeGateway):
    """See the module. ``apis`` are by source queue, and all of one kind."""

    isolates: ClassVar[bool] = True

    def __init__(
        self,
        apis: Mapping[str, ReceiptApi],
        limits: LiveLimits,
        retry: RetryPolicy,
        signed_data: SignedDataCalls | None = None,
    ) -> None:
        most = limits.whole.app_store_concurrency
        blocks = any(api.begin is None for api in apis.values())
        super().__init__(limits, min(most, MAX_BLOCKING_CONCURRENCY) if blocks else most, retry)
        if len(apis) > 1:
            self._ready = InTurn[Job](lambda job: job.request.source_queue)  # a backlog of one keeps no other waiting
        self._window = Window()
        self._is_full = False
        self._apis = apis
        self._signed_data = signed_data
        self._readers = CallsOnThreads(self.system.new_blocking_pool("app_receipt_readers", READERS))
        self._signed_traffic_until_seconds = -inf  # monotonic
        self._has_stopped_receiving = True  # as ``in_flight`` was told last
        self._told: set[str] = set()  # which faults of the configuration an operator has heard of

    def describe_state(self) -> dict[str, object]:
        return {**super().describe_state(), "offline": self._offline, "stops_receiving": self.stops_receiving}

    # --- requests in ---

    def handle_call(self, request: Any, from_: From) -> Any:
        """Have a message's receipt looked into, unless this very message was refused for good a while ago."""
        if not isinstance(request, VerifyReceipt):
            return super().handle_call(request, from_)
        api = self._apis[request.source_queue]
        job = Verification(request, from_, api)
        refusal = self._refusals.get(job.memory_key)
        if refusal is not None:
            return IdleTimeout(0, refusal)
        receipt_data = request.submission.receipt_data
        signed = signed_transactions.signed_transaction_of(receipt_data)
        if signed is not None:
            self._verify_signature(job, signed, self._is_verified)
        elif api.question_of is None:
            self._ask(job, receipt_data)
        else:
            label = _Offline(job, self._has_read_question)
            self._offline += 1
            self.run_async(label, self._readers.begin, api.question_of, (receipt_data,), {})
        return DISPATCH

    def _has_read_question(self, job: Verification, question: str | None) -> None:
        if question is None:
            self.conclude_refusal(
                job, Unidentified(Reason.NO_TRANSACTION_ID, "no transaction id can be read in the receipt")
            )
        else:
            self._ask(job, question)

    def _ask(self, job: Verification, question: str) -> None:
        job.question = question
        self.accept(job)

    # --- what needs no Apple ---

    def _verify_signature(self, job: Verification, signed: str, then: _Then) -> None:
        job.sent_at_seconds = self.clock.monotonic()
        if self._signed_data is None:
            self._configuration_is_at_fault(job, "found a signed transaction, expected a backend that verifies them")
        else:
            self._offline += 1
            self.run_async(_Offline(job, then, signed), self._signed_data.begin, SignedKind.TRANSACTION, signed)

    def _is_verified(self, job: Verification, verified: Mapping[str, object] | SignatureRefused) -> None:
        self._statistics.request_answered(_SIGNATURES, 1, self.clock.monotonic() - job.sent_at_seconds)
        if isinstance(verified, SignatureRefused):
            self.conclude_refusal(job, signed_transactions.refusal(verified))
            return
        self._signed_traffic_until_seconds = self.clock.monotonic() + SIGNED_TRAFFIC_SECONDS
        self._tell_in_flight()
        meaning = signed_transactions.interpret(verified)
        if isinstance(meaning, TryAgain):  # which would change nothing: the same bytes say the same
            self._notice_unknown(job, meaning)
        job.from_.reply(meaning)

    def handle_reply(self, label: Any, value: Any) -> Any:
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

    def _configuration_is_at_fault(self, job: Verification, detail: str) -> None:
        if detail not in self._told:
            self._told.add(detail)
            logger.error("signed transactions cannot be verified: %s", detail)
            summary = f"signed transactions cannot be verified: {detail}"
            self._notice(IncidentKind.CONFIGURATION, summary, job.message_id)
        job.from_.reply(Misconfigured(detail))

    # --- requests out ---

    @property
    def concurrency(self) -> int:
        if not self._limits.are_held(self.clock.boottime()):
            return 0
        return min(self._limits.current.app_store_concurrency, self._concurrency, self._window.size)

    @property
    def rate(self) -> RateLimit | None:
        per_second = self._limits.current.app_store_rate_per_second
        if not per_second:  # no limit; or a share of nothing, with which no request is made at all
            return None
        return RateLimit(per_second) if self._rate is None else self._rate.at(per_second, self.clock.monotonic())

    def _dispatch(self) -> None:
        super()._dispatch()
        self._is_full = self._under_way >= self._window.size and bool(self._ready)

    def message_of(self, job: Job) -> Hashable:
        assert isinstance(job, Verification)
        return job.message_id

    def carry_out(self, batch: tuple[Job, ...]) -> None:
        (job,) = batch
        assert isinstance(job, Verification)
        api = job.api
        read = partial(self._read, api, job.environment)
        if api.begin is None:
            self.run_async(batch, self._calls.begin, api.call, (job.question, job.environment), {}, then=read)
        else:
            self.run_async(batch, api.begin, job.question, job.environment, then=read)

    def _read(self, api: ReceiptApi, environment: Environment, answer: Mapping[str, object]) -> AppleAnswer:
        """Interpret an answer, on the thread that brings it. One that speaks of Apple's own trouble (21005) is none.

        Raises ``AppStoreUnavailable``.
        """
        meaning = api.interpret(answer, environment)
        if isinstance(meaning, TryAgain) and not meaning.then_unanswerable:
            raise AppStoreUnavailable(meaning.detail)
        return AppleAnswer(meaning, environment, self.clock.monotonic())

    # --- answers ---

    def answered_at_seconds(self, answer: Any) -> float:
        assert isinstance(answer, AppleAnswer)
        return answer.at_seconds

    def settle(self, batch: Sequence[Job], answer: Any) -> None:
        (job,) = batch
        assert isinstance(job, Verification)
        assert isinstance(answer, AppleAnswer)
        lag_seconds = self.clock.monotonic() - answer.at_seconds
        self._window = self._window.answered(is_full=self._is_full, lag_seconds=lag_seconds)
        if isinstance(answer.meaning, Signed):
            self._verify_signature(job, answer.meaning.signed_transaction, self._is_found)
        else:
            self._conclude(job, answer.meaning)

    def _is_found(self, job: Verification, verified: Mapping[str, object] | SignatureRefused) -> None:
        self._conclude(job, interpret_found(job.question, verified))

    def _conclude(self, job: Verification, meaning: Interpretation) -> None:
        if self.is_control(job):
            job.from_.reply(meaning)  # whatever it is
            return
        match meaning:
            case WrongEnvironment():
                self._redirect(job, meaning)
            case TryAgain():
                self._notice_unknown(job, meaning)
                self.note_refusal(job, meaning)
                self.retry(job, meaning.detail, given_up=meaning)
            case Misconfigured(detail):
                # It does not open the breaker: Apple says so of receipts of another app, too, and with those anybody
                # could stop the receives.
                summary = f"Apple refuses our requests, check {job.api.what_to_check}: {detail}"
                logger.error("%s", summary)
                self._notice(IncidentKind.CONFIGURATION, summary, job.message_id)
                job.from_.reply(meaning)
            case Unidentified():
                self.note_refusal(job, meaning)
                self.refuse(job, meaning)
            case _:
                job.from_.reply(meaning)
                if job.environment is Environment.PRODUCTION:
                    self.vouched(job)

    def _notice_unknown(self, job: Verification, meaning: TryAgain) -> None:
        if meaning.reason is Reason.UNKNOWN_STATUS:
            logger.warning("Apple answered what is not documented: %s", meaning.detail)
            self._notice(IncidentKind.UNKNOWN_ANSWER, f"Apple answered: {meaning.detail}", job.message_id)

    def _redirect(self, job: Verification, wrong: WrongEnvironment) -> None:
        # Production is always the first to be asked, so it takes no permission to go back there.
        allowed = wrong.right is Environment.PRODUCTION or wrong.right in job.api.environments
        if job.was_redirected or not allowed:
            self.note_refusal(job, wrong.otherwise)
            self.refuse(job, wrong.otherwise)
            return
        job.environment = wrong.right
        job.was_redirected = True
        self.accept(job)

    # --- while Apple is unavailable ---

    def _service_failed(self, batch: Sequence[Job], error: UnavailableError) -> None:
        if error.is_about_the_rate and self.rate is not None:  # it is we who are too many, not this message
            until_seconds = self.clock.monotonic() + (error.retry_after_seconds or 0.0)
            self._rate = self.rate.paused(until_seconds)
        super()._service_failed(batch, error)

    @property
    def stops_receiving(self) -> bool:
        """See ``Gateway``: while signed transactions come, not before half of what may be in flight is kept here."""
        if self.clock.monotonic() >= self._signed_traffic_until_seconds:
            return True
        return self.waiting >= self._limits.current.max_in_flight // 2

    def accept(self, job: Job) -> None:
        super().accept(job)
        self._tell_in_flight()

    def _tell_in_flight(self) -> None:
        if not self._breaker.is_closed and self.stops_receiving is not self._has_stopped_receiving:
            self._has_stopped_receiving = self.stops_receiving
            self.cast(IN_FLIGHT, ServiceUnavailable(self.service, stops_receiving=self._has_stopped_receiving))

    def _wait_and_try(self) -> None:
        self._has_stopped_receiving = self.stops_receiving
        super()._wait_and_try()


class SignatureGateway(Gateway):
    """Has signed data verified again that the App Store gateway could not have verified at once.

    It keeps that as every gateway keeps requests in an outage. If it crashes, the messages are handed back.
    """

    def __init__(self, signed_data: SignedDataCalls, limits: LiveLimits, retry: RetryPolicy) -> None:
        super().__init__("signatures", limits.whole.max_in_flight, retry)
        self._signed_data = signed_data
        self._limits = limits

    def message_of(self, job: Job) -> Hashable:
        request: VerifySignature = job.request
        return request.message_id

    def carry_out(self, batch: tuple[Job, ...]) -> None:
        self.run_async(batch, self._signed_data.begin, SignedKind.TRANSACTION, batch[0].request.signed)

    def settle(self, batch: Sequence[Job], answer: Any) -> None:
        batch[0].from_.reply(answer)

    @property
    def stops_receiving(self) -> bool:
        """See ``Gateway``: half of what may be in flight is left to app receipts, which need no signature."""
        return self.outside_view().waiting >= self._limits.current.max_in_flight // 2
