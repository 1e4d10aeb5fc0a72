"""The App Store gateway: the one actor that has Apple asked.

It owns the requests to verifyReceipt, as many at once and a second as the limits allow, and no more at once than help;
the redirect between production and sandbox (at most one a receipt, and only where policy lets the other environment
count); the retries of passing trouble; and the memory of final refusals, so that Apple is asked once about a message,
not once a delivery. A crash of it forgets all that: validators ask its successor, and Apple is asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cachetools

from receipt_actors.actors.gateway import BlockingCall, Gateway, Job
from receipt_actors.actors.protocol import VerifyReceipt
from receipt_actors.domain.limits import MAX_BLOCKING_CONCURRENCY, LiveLimits
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import AppStore, AppStoreTransfers, Environment
from receipt_actors.domain.rate import RateLimit
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Interpretation, Misconfigured, TryAgain, Unidentified, WrongEnvironment
from receipt_actors.domain.retrying import RetryPolicy
from receipt_actors.domain.verify_receipt import interpret
from receipt_actors.domain.window import Window
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.otp import NO_REPLY, From
from receipt_actors.telemetry.incidents import IncidentKind

logger = logging.getLogger(__name__)

REMEMBERED_REFUSALS = 10_000
REFUSAL_MEMORY_SECONDS = 60 * 60


class _Verification(Job):
    """A receipt on its way through Apple's environments."""

    __slots__ = ("environment", "was_redirected")

    def __init__(self, request: VerifyReceipt, from_: From) -> None:
        super().__init__(request, from_)
        self.environment = Environment.PRODUCTION  # always first, says Apple
        self.was_redirected = False


@dataclass(frozen=True, slots=True)
class _Answer:
    """What Apple's answer means, and when it came."""

    meaning: Interpretation
    at_seconds: float  #: monotonic


class AppStoreGateway(Gateway):
    """See the module. With ``transfers`` no thread waits for Apple; without them, a thread for each request does."""

    def __init__(
        self,
        app_store: AppStore,
        policy: Policy,
        limits: LiveLimits,
        retry: RetryPolicy,
        transfers: AppStoreTransfers | None = None,
    ) -> None:
        most = limits.whole.app_store_concurrency
        super().__init__("app_store", most if transfers is not None else min(most, MAX_BLOCKING_CONCURRENCY), retry)
        self._limits = limits
        self._window = Window()
        self._is_full = False
        self._app_store = app_store
        self._transfers = transfers
        self._policy = policy
        self._refusals: cachetools.TTLCache[Hashable, Unidentified] = cachetools.TTLCache(
            REMEMBERED_REFUSALS, REFUSAL_MEMORY_SECONDS, timer=self.clock.monotonic
        )

    @property
    def concurrency(self) -> int:
        """See ``Gateway``."""
        return min(self._limits.current.app_store_concurrency, self._concurrency, self._window.size)

    @property
    def rate(self) -> RateLimit | None:
        """See ``Gateway``."""
        per_second = self._limits.current.app_store_rate_per_second
        if per_second is None:
            return None
        return RateLimit(per_second) if self._rate is None else self._rate.at(per_second, self.clock.monotonic())

    def handle_call(self, request: Any, from_: From) -> Any:
        """Have a receipt verified, unless this very message was refused for good a while ago."""
        if not isinstance(request, VerifyReceipt):
            return super().handle_call(request, from_)
        refusal = self._refusals.get(_memory_key(request))
        if refusal is not None:
            return refusal
        self.accept(_Verification(request, from_))
        return NO_REPLY

    def _dispatch(self) -> None:
        super()._dispatch()
        self._is_full = self._under_way >= self._window.size and bool(self._ready)

    def message_of(self, job: Job) -> Hashable:
        """See ``Gateway``."""
        return self._message_id(job)

    @staticmethod
    def _message_id(job: Job) -> str:
        request: VerifyReceipt = job.request
        return request.submission.message_id

    def blocking_call(self, batch: Sequence[Job]) -> BlockingCall:
        """See ``Gateway``."""
        (job,) = batch
        assert isinstance(job, _Verification)
        return self._verify, (job.request.submission.receipt_data, job.environment)

    def carry_out(self, batch: tuple[Job, ...]) -> None:
        """See ``Gateway``."""
        if self._transfers is None:
            super().carry_out(batch)
            return
        (job,) = batch
        assert isinstance(job, _Verification)
        receipt_data, environment = job.request.submission.receipt_data, job.environment
        self.run_async(batch, self._transfers.begin, receipt_data, environment, then=partial(self._read, environment))

    def _verify(self, receipt_data: str, environment: Environment) -> _Answer:
        """Ask Apple, on an I/O thread."""
        return self._read(environment, self._app_store.verify_receipt(receipt_data, environment))

    def _read(self, environment: Environment, answer: Mapping[str, object]) -> _Answer:
        """Interpret an answer, on the thread that brings it. One that speaks of Apple's own trouble (21005) is none.

        Raises ``AppStoreUnavailable``.
        """
        meaning = interpret(answer, environment)
        if isinstance(meaning, TryAgain) and not meaning.then_unanswerable:
            raise AppStoreUnavailable(meaning.detail)
        return _Answer(meaning, self.clock.monotonic())

    def answered_at_seconds(self, answer: Any) -> float:
        """See ``Gateway``: when Apple answered, whenever this actor comes to it."""
        assert isinstance(answer, _Answer)
        return answer.at_seconds

    def settle(self, batch: Sequence[Job], answer: Any) -> None:
        """Redirect, retry, or pass on what Apple's answer means."""
        (job,) = batch
        assert isinstance(job, _Verification)
        assert isinstance(answer, _Answer)
        lag_seconds = self.clock.monotonic() - answer.at_seconds
        self._window = self._window.answered(is_full=self._is_full, lag_seconds=lag_seconds)
        meaning = answer.meaning
        match meaning:
            case WrongEnvironment(right):
                self._redirect(job, right)
            case TryAgain(reason, detail, _):
                if reason is Reason.UNKNOWN_STATUS:
                    logger.warning("Apple answered what is not documented: %s", detail)
                    self._notice(IncidentKind.UNKNOWN_ANSWER, f"Apple answered: {detail}", self._message_id(job))
                self.retry(job, detail, given_up=meaning)
            case Misconfigured(detail):
                # Not the breaker's affair: a receipt of somebody else's app is answered so, too, and whoever sends
                # such receipts must not be able to close the gate.
                logger.error("Apple refuses our requests, check shared_secret and the URLs: %s", detail)
                summary = f"Apple refuses our requests, check shared_secret and the URLs: {detail}"
                self._notice(IncidentKind.CONFIGURATION, summary, self._message_id(job))
                job.from_.reply(meaning)
            case Unidentified():
                self._refuse(job, meaning)
            case _:
                job.from_.reply(meaning)

    def _redirect(self, job: _Verification, right: Environment) -> None:
        # Production is always the first to be asked, so it takes no permission to go back there.
        allowed = right is Environment.PRODUCTION or right in self._policy.environments
        if job.was_redirected or not allowed:
            self._refuse(job, Unidentified(Reason.SANDBOX_REFUSED))
            return
        job.environment = right
        job.was_redirected = True
        self.accept(job)

    def _refuse(self, job: _Verification, refusal: Unidentified) -> None:
        self._refusals[_memory_key(job.request)] = refusal
        job.from_.reply(refusal)


def _memory_key(request: VerifyReceipt) -> Hashable:
    return request.submission.message_id, request.submission.receipt_sha256
