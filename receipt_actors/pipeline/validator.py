"""The validator: one for each message that can be answered.

::

    verifying --> claiming --> replying --> deleting --> end
        |             |            |
        +-------------+------------+--> moving (unanswerable), or handed back (trouble that may pass)

``verifying``  Apple is asked what the receipt is
``claiming``   the ledger is asked, as ``domain.verdicts`` says, until there is an answer for the message
``replying``   the post queue has to confirm every result
``deleting``   then, and only then, the source message is deleted

See ``processor`` for what it owns and what a crash of it forgets.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TypeAlias
from weakref import WeakValueDictionary

from receipt_actors.domain.messages import (
    PostedResult,
    Result,
    Submission,
    Unanswerable,
    Verdict,
    around_receipt,
    parse_result,
    result_message,
)
from receipt_actors.domain.policy import Source
from receipt_actors.domain.ports import ReceivedMessage, Tombstone
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Misconfigured, Transaction, TryAgain, Unidentified, WrongEnvironment
from receipt_actors.domain.verdicts import AskLedger, OursElsewhere, Ownership, Plan, Said, ledger_item, make_plan
from receipt_actors.errors import NotAnswered
from receipt_actors.otp import ActorSystem
from receipt_actors.pipeline.processor import Processor, Question, Work
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    LEDGER_GATEWAY,
    ClaimTransaction,
    LookUpTransaction,
    Refused,
    SendMessage,
    VerifyReceipt,
)
from receipt_actors.telemetry.logs import log_answered
from receipt_actors.telemetry.statistics import statistics_of
from receipt_actors.telemetry.tracing import FinishedDelivery

_OUTCOMES = {
    Genuine: "genuine",
    Unidentified: "unidentified",
    TryAgain: "try_again",
    Misconfigured: "misconfigured",
    WrongEnvironment: "wrong_environment",  # the gateway sees to it; the next line crashes where it does not
}

#: What a trace calls what the ledger says, where that says more than whose a transaction is.
_TRACED_AS = {OursElsewhere: Ownership.OURS, Tombstone: Ownership.REFUNDED}


_LedgerQuestion: TypeAlias = tuple[ClaimTransaction | LookUpTransaction, Callable[[Said], None] | None]


def _traced_result(result: Result) -> dict[str, object]:
    # Apple names no transaction of a receipt that it could not identify.
    elsewhere = {} if result.post_queue is None else {"post_queue": result.post_queue}
    return {
        "transaction_id": result.transaction_id or None,
        "verdict": result.verdict,
        "reason": result.reason,
        **elsewhere,
    }


class Validator(Processor):
    def __init__(self, source: Source, delivery: ReceivedMessage, submission: Submission, since_seconds: float) -> None:
        # The receipt is nearly all of the body: thousands of messages in flight need not hold it twice.
        self._around_receipt = around_receipt(delivery.body, submission.receipt_data)
        light = delivery if self._around_receipt is None else replace(delivery, body="")
        super().__init__(source, light, since_seconds)
        self._submission = submission
        self._results: Sequence[Result] = ()

    def work(self) -> Work:
        self.enter("verifying")
        if self.tracer.is_on:
            self.trace("verify")
        verify = VerifyReceipt(self._submission, self.source.queue)
        (meaning,) = yield from self.ask(Question(APP_STORE_GATEWAY, verify))
        if self.tracer.is_on:
            reason = meaning.reason if isinstance(meaning, Unidentified | TryAgain) else None
            self.trace("verified", outcome=_OUTCOMES[type(meaning)], reason=reason)
        match meaning:
            case Genuine():
                return (yield from self._claim(meaning))
            case Unidentified(reason, detail):
                if self.source.answers_unidentified:
                    return (yield from self._reply((Result("", Verdict.INVALID, reason),)))
                return (yield from self.move(Unanswerable(reason, detail)))
            case TryAgain(reason, detail, then_unanswerable):
                if then_unanswerable:
                    return (yield from self.move(Unanswerable(reason, detail)))
                return self.hand_back(reason, detail)
            case Misconfigured(detail):
                return self.hand_back(Reason.MISCONFIGURED, detail)
            case _:
                raise AssertionError(f"the gateway passed on {type(meaning).__name__}")

    def _claim(self, receipt: Genuine) -> Work:
        plan = make_plan(self._submission, receipt, self.source.policy)
        if isinstance(plan, Unanswerable):
            return (yield from self.move(plan))
        self.enter("claiming")
        known: dict[str, Said] = {}
        while isinstance(step := plan.next_step(known), AskLedger):
            items = [*self._asked("claim", step.claims, plan), *self._asked("look_up", step.lookups, plan)]
            answers = yield from self.ask(*(Question(LEDGER_GATEWAY, request, then) for request, then in items))
            known |= {request.item.transaction_id: said for (request, _), said in zip(items, answers, strict=True)}
        misplaced = step.misplaced(self.source.post_queues)
        return (yield from self._reply(step.results) if misplaced is None else self.move(misplaced))

    def _asked(self, step: str, transactions: Sequence[Transaction], plan: Plan) -> Iterator[_LedgerQuestion]:
        request = ClaimTransaction if step == "claim" else LookUpTransaction
        for transaction in transactions:
            transaction_id = transaction.transaction_id
            if self.tracer.is_on:
                self.trace(step, transaction_id=transaction_id)
            item = ledger_item(
                self._submission, transaction, plan.receipt.environment, self.source.queue, self.clock.time()
            )
            yield request(item), partial(self._is_claimed, transaction_id) if self.tracer.is_on else None

    def _is_claimed(self, transaction_id: str, said: Said) -> None:
        self.trace("claimed", transaction_id=transaction_id, outcome=_TRACED_AS.get(type(said), said))

    def _reply(self, results: Sequence[Result]) -> Work:
        self.enter("replying")
        self._results = results
        traceparent = self.traceparent()
        posts = []
        for result in results:
            if self.tracer.is_on:
                self.trace("reply", **_traced_result(result))
            queue = result.post_queue or self._submission.post_queue
            message = result_message(self._submission, result, traceparent)
            posts.append(self.posting(queue, message, partial(self._is_posted, result)))
        yield from self.ask(*posts)
        pending_submissions_of(self.system).answered(self._submission, self.source.queue, results)
        return (yield from self.delete())

    def _is_posted(self, result: Result, _done: object) -> None:
        statistics_of(self.system).result_posted(result.verdict, result.reason)
        if self.tracer.is_on:
            self.trace("replied", **_traced_result(result))

    def unsent(self, question: Question, failure: Refused) -> Unanswerable | None:
        if isinstance(question.request, SendMessage) and self._moved_for is None:
            return Unanswerable(Reason.POST_QUEUE_REFUSED, failure.detail)
        return None

    def not_answered(self, why: Unanswerable) -> None:
        pending_submissions_of(self.system).not_answered(self._submission, self.source.queue, why)

    def log_answered(self, seconds: float) -> None:
        log_answered(self.delivery.message_id, self._submission.user_id, self._results, seconds)

    def whole_delivery(self) -> ReceivedMessage:
        if self._around_receipt is None:
            return self.delivery
        return replace(self.delivery, body=self._submission.receipt_data.join(self._around_receipt))

    def traced_fields(self) -> dict[str, object]:
        submission = self._submission
        return {
            **super().traced_fields(),
            "user_id": submission.user_id,
            "submission_id": submission.submission_id,
            "post_queue": submission.post_queue,
        }

    def finished(self, delivery: FinishedDelivery) -> FinishedDelivery:
        submission = self._submission
        return replace(
            delivery,
            user_id=submission.user_id,
            submission_id=submission.submission_id,
            post_queue=submission.post_queue,
            results=tuple(self._results),
        )


_Key: TypeAlias = tuple[Hashable, ...]


class Pending:
    """A submission that was put on the source queue: ``result`` waits for its answers, ``await`` does so in asyncio.

    The validator resolves it once the post queue has confirmed the answers, or with why there is none.
    """

    def __init__(self, submission_id: str) -> None:
        self.submission_id = submission_id  #: which the answers carry
        self._answers: Future[tuple[PostedResult, ...]] = Future()

    def result(self, timeout: float | None = None) -> tuple[PostedResult, ...]:
        """Wait for the answers, and return all of them: one for each transaction that is answered, never none.

        They are on the post queue as well, and stay there until ``results`` or ``on_result`` acknowledges them.

        Args:
            timeout: seconds to wait; None: as long as it takes. It may be called again.

        Raises:
            NotAnswered: no verdict can be given; ``reason`` says why. Or the system has ended.
            TimeoutError: there is none yet. The submission is as safe as before, and ``results`` will have its answers.
                This system does not hear of what another process validates, nor of what the queue itself moves to its
                dead-letter queue: without a time-out it would wait for that until it ends.
        """
        try:
            return self._answers.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"submission {self.submission_id} was not answered here within {timeout:g} s") from None

    def done(self) -> bool:
        """Tell whether ``result`` would return, or raise ``NotAnswered``, at once."""
        return self._answers.done()

    def __await__(self) -> Generator[None, None, tuple[PostedResult, ...]]:
        """Wait for the answers as ``result`` does, without a thread; ``asyncio.timeout`` limits it."""
        return asyncio.shield(asyncio.wrap_future(self._answers)).__await__()


class PendingSubmissions:
    """What the program waits for. The actor system keeps this table, weakly, so that no crash forgets it.

    Two submissions share one ``Pending`` only if they ask the same: transaction, product and both queues included.
    """

    def __init__(self) -> None:
        self._pending: WeakValueDictionary[_Key, Pending] = WeakValueDictionary()
        self._lock = threading.Lock()  # over the table; programs submit on any thread
        self._has_ended = False

    def expect(self, submission: Submission, source_queue: str) -> Pending:
        """Note that the program waits; of what is asked again meanwhile it is the same ``Pending``."""
        key = _key(submission, source_queue)
        with self._lock:
            pending = self._pending.get(key) or Pending(submission.submission_id)
            if self._has_ended:
                _end(pending)
            else:
                self._pending[key] = pending
            return pending

    def answered(self, submission: Submission, source_queue: str, results: Sequence[Result]) -> None:
        pending = self._resolved(submission, source_queue)
        if pending is not None:
            posted = (parse_result(result_message(submission, result)) for result in results)
            pending._answers.set_result(tuple(each for each in posted if each is not None))

    def not_answered(self, submission: Submission, source_queue: str, why: Unanswerable) -> None:
        pending = self._resolved(submission, source_queue)
        if pending is not None:
            pending._answers.set_exception(NotAnswered(why.reason, why.detail))

    def end(self) -> None:
        with self._lock:
            self._has_ended = True
            pending = list(self._pending.values())
            self._pending.clear()
        for each in pending:
            _end(each)

    def _resolved(self, submission: Submission, source_queue: str) -> Pending | None:
        if not self._pending:  # a service that nobody embeds has none
            return None
        with self._lock:
            return self._pending.pop(_key(submission, source_queue), None)


def pending_submissions_of(system: ActorSystem) -> PendingSubmissions:
    table: PendingSubmissions | None = system.terms.get(PendingSubmissions)
    return system.terms.setdefault(PendingSubmissions, PendingSubmissions()) if table is None else table


def _key(submission: Submission, source_queue: str) -> _Key:
    whose = submission.submission_id, submission.user_id, submission.receipt_sha256
    return *whose, submission.transaction_id, submission.product_id, source_queue, submission.post_queue


def _end(pending: Pending) -> None:
    detail = "the system has ended; submit it again with this submission id, and it gets the same answer"
    pending._answers.set_exception(NotAnswered(Reason.DRAINED, detail))
