"""The validator: one for each message, a small state machine.

::

    verifying --> claiming --> replying --> deleting --> end
        |             |            |
        +-------------+------------+--> moving (unanswerable), or handed back (trouble that may pass)

``verifying``  Apple is asked what the receipt is
``claiming``   the ledger is asked, as ``domain.verdicts`` says, until there is an answer for the message
``replying``   the post queue has to confirm every result
``deleting``   then, and only then, the source message is deleted

See ``custodian`` for what it owns and what a crash of it forgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from receipt_actors.domain.ledger import OursElsewhere, Ownership, ledger_item
from receipt_actors.domain.messages import Result, Submission, Unanswerable, Verdict, around_receipt, result_message
from receipt_actors.domain.ports import LedgerItem, ReceivedMessage, Tombstone
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import (
    Genuine,
    Interpretation,
    Misconfigured,
    Transaction,
    TryAgain,
    Unidentified,
    WrongEnvironment,
)
from receipt_actors.domain.sources import Source
from receipt_actors.domain.verdicts import AskLedger, Plan, Said, make_plan
from receipt_actors.otp import Stop
from receipt_actors.pipeline.custodian import Custodian
from receipt_actors.pipeline.pending import pending_submissions_of
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    LEDGER_GATEWAY,
    ClaimTransaction,
    GatewayFailure,
    LookUpTransaction,
    Refused,
    VerifyReceipt,
)
from receipt_actors.telemetry.decisions import log_answered
from receipt_actors.telemetry.statistics import statistics_of
from receipt_actors.telemetry.walks import Walk

# Labels are told apart by identity: to hash all that they hold would cost more than the dictionary does.


@dataclass(frozen=True, slots=True, eq=False)
class _Verify:
    """Label: what is the receipt?"""


@dataclass(frozen=True, slots=True, eq=False)
class _Own:
    """Label: whose is this transaction?"""

    transaction_id: str


@dataclass(frozen=True, slots=True, eq=False)
class _Post:
    """Label: has this result been sent?"""

    result: Result


_Label: TypeAlias = _Verify | _Own | _Post

_OUTCOMES = {
    Genuine: "genuine",
    Unidentified: "unidentified",
    TryAgain: "try_again",
    Misconfigured: "misconfigured",
    WrongEnvironment: "wrong_environment",  # the gateway sees to it; the next line crashes where it does not
}

#: What a trace calls what the ledger says, where that says more than whose a transaction is.
_TRACED_AS = {OursElsewhere: Ownership.OURS, Tombstone: Ownership.REFUNDED}


def _traced_result(result: Result) -> dict[str, object]:
    # Apple names no transaction of a receipt that it could not identify.
    elsewhere = {} if result.post_queue is None else {"post_queue": result.post_queue}
    return {
        "transaction_id": result.transaction_id or None,
        "verdict": result.verdict,
        "reason": result.reason,
        **elsewhere,
    }


class Validator(Custodian):
    """See the module."""

    def __init__(
        self,
        source: Source,
        delivery: ReceivedMessage,
        submission: Submission,
        received_at_seconds: float,
    ) -> None:
        # The receipt is nearly all of the body: thousands of messages in flight need not hold it twice.
        self._around_receipt = around_receipt(delivery.body, submission.receipt_data)
        light = delivery if self._around_receipt is None else replace(delivery, body="")
        super().__init__(source, light, received_at_seconds)
        self._submission = submission
        self._plan: Plan | None = None
        self._known: dict[str, Said] = {}
        self._results: Sequence[Result] = ()

    def whole_delivery(self) -> ReceivedMessage:
        """See ``Custodian``."""
        if self._around_receipt is None:
            return self.delivery
        return replace(self.delivery, body=self._submission.receipt_data.join(self._around_receipt))

    def traced_fields(self) -> dict[str, object]:
        """See ``Custodian``."""
        submission = self._submission
        return {
            **super().traced_fields(),
            "user_id": submission.user_id,
            "submission_id": submission.submission_id,
            "post_queue": submission.post_queue,
        }

    def walk(self, walk: Walk) -> Walk:
        """See ``Custodian``."""
        submission = self._submission
        return replace(
            walk,
            user_id=submission.user_id,
            submission_id=submission.submission_id,
            post_queue=submission.post_queue,
            results=tuple(self._results),
        )

    # --- verifying ---

    def begin(self) -> None:
        """Ask Apple."""
        self.enter("verifying")
        if self.tracer.is_on:
            self.trace("verify")
        self.ask(_Verify(), APP_STORE_GATEWAY, VerifyReceipt(self._submission, self.source.queue))

    def answered(self, label: _Label, value: Any) -> Stop | None:
        """Take the next step."""
        match label:
            case _Verify():
                return self._verified(value)
            case _Own(transaction_id):
                self._known[transaction_id] = value
                if self.tracer.is_on:
                    outcome = _TRACED_AS.get(type(value), value)
                    self.trace("claimed", transaction_id=transaction_id, outcome=outcome)
                return None if self.has_open_questions else self._go_on_claiming()
            case _Post(result):
                statistics_of(self.system).result_posted(result.verdict, result.reason)
                if self.tracer.is_on:
                    self.trace("replied", **_traced_result(result))
                if not self.has_open_questions:
                    pending_submissions_of(self.system).answered(self._submission, self.source.queue, self._results)
                    self.delete()
                return None

    def _verified(self, meaning: Interpretation) -> Stop | None:
        if self.tracer.is_on:
            reason = meaning.reason if isinstance(meaning, Unidentified | TryAgain) else None
            self.trace("verified", outcome=_OUTCOMES[type(meaning)], reason=reason)
        match meaning:
            case Genuine():
                plan = make_plan(self._submission, meaning, self.source.policy)
                if isinstance(plan, Unanswerable):
                    return self.move(plan)
                self._plan = plan
                self.enter("claiming")
                return self._go_on_claiming()
            case Unidentified(reason, detail):
                if self.source.answers_unidentified:
                    self._reply((Result("", Verdict.INVALID, reason),))
                    return None
                return self.move(Unanswerable(reason, detail))
            case TryAgain(reason, detail, then_unanswerable):
                return self.move(Unanswerable(reason, detail)) if then_unanswerable else self.hand_back(reason, detail)
            case Misconfigured(detail):
                return self.hand_back(Reason.MISCONFIGURED, detail)
            case _:
                raise AssertionError(f"the gateway passed on {type(meaning).__name__}")

    # --- claiming ---

    def _go_on_claiming(self) -> Stop | None:
        assert self._plan is not None
        step = self._plan.next_step(self._known)
        if isinstance(step, AskLedger):
            self._ask_ledger(step, self._plan)
            return None
        misplaced = step.misplaced(self.source.post_queues)
        if misplaced is not None:
            return self.move(misplaced)
        self._reply(step.results)
        return None

    def _ask_ledger(self, step: AskLedger, plan: Plan) -> None:
        def item(transaction: Transaction) -> LedgerItem:
            return ledger_item(
                self._submission, transaction, plan.receipt.environment, self.source.queue, self.clock.time()
            )

        for transaction in step.claims:
            if self.tracer.is_on:
                self.trace("claim", transaction_id=transaction.transaction_id)
            self.ask(_Own(transaction.transaction_id), LEDGER_GATEWAY, ClaimTransaction(item(transaction)))
        for transaction in step.lookups:
            if self.tracer.is_on:
                self.trace("look_up", transaction_id=transaction.transaction_id)
            self.ask(_Own(transaction.transaction_id), LEDGER_GATEWAY, LookUpTransaction(item(transaction)))

    # --- replying ---

    def _reply(self, results: Sequence[Result]) -> None:
        self.enter("replying")
        self._results = results
        traceparent = self.traceparent()
        for result in results:
            if self.tracer.is_on:
                self.trace("reply", **_traced_result(result))
            queue = result.post_queue or self._submission.post_queue
            self.post(_Post(result), queue, result_message(self._submission, result, traceparent))

    def not_answered(self, why: Unanswerable) -> None:
        """See ``Custodian``."""
        pending_submissions_of(self.system).not_answered(self._submission, self.source.queue, why)

    def log_answered(self, seconds: float) -> None:
        """See ``Custodian``."""
        log_answered(self.delivery.message_id, self._submission.user_id, self._results, seconds)

    def failed(self, label: _Label, failure: GatewayFailure) -> Stop | None:
        """A post queue that takes nothing makes the message unanswerable; its claims keep, for when it is redriven."""
        if isinstance(label, _Post) and isinstance(failure, Refused):
            self._questions.clear()
            return self.move(Unanswerable(Reason.POST_QUEUE_REFUSED, failure.detail))
        return super().failed(label, failure)
