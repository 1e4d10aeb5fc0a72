"""Our own clients without the actors: what is left of a receipt's cost when there is nothing but calls and rules.

One loop receives, asks Apple, claims, answers and deletes, window after window, with the batches of ``BARE_BATCHES``
(``claim=21.5,send=9.8,delete=9.9``: the mean number of entries of each, as the whole system was seen to have). What the
whole system costs beyond this is what the actors add. It keeps the contract while nothing fails, and nothing beyond.

Its settings are those of ``receipt-actors start``, from the environment.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from receipt_actors.backends import Backend, open_backend
from receipt_actors.domain.ledger import Ownership, ledger_item
from receipt_actors.domain.messages import Submission, is_intact, parse_submission, result_message
from receipt_actors.domain.ports import Environment, LedgerItem, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.receipts import Genuine
from receipt_actors.domain.verdicts import Answer, AskLedger, Plan, make_plan
from receipt_actors.otp import ActorSystem
from receipt_actors.settings import Settings, load_settings
from receipt_actors.stores.apple.opening import policy_of
from receipt_actors.stores.apple.ports import begin_of
from receipt_actors.stores.apple.verify_receipt import interpret

WINDOW = 250  #: messages that go through each step together

T = TypeVar("T")
AppleAnswer = Mapping[str, Any]


class Rules:
    """What to claim and to answer, as the actors decide it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._policy = policy_of(settings)
        self._plans: dict[str, tuple[Submission, Plan]] = {}
        self._submissions: dict[str, Submission] = {}

    def receipt(self, message: ReceivedMessage) -> str:
        assert is_intact(message)
        submission = parse_submission(message, self._settings.post_queues, self._settings.source_queue)
        assert isinstance(submission, Submission)
        self._submissions[message.message_id] = submission
        return submission.receipt_data

    def claim(self, message: ReceivedMessage, answer: AppleAnswer) -> LedgerItem:
        submission = self._submissions.pop(message.message_id)
        genuine = interpret(answer, Environment.PRODUCTION)
        assert isinstance(genuine, Genuine)
        plan = make_plan(submission, genuine, self._policy)
        assert isinstance(plan, Plan)
        self._plans[message.message_id] = submission, plan
        step = plan.next_step({})
        assert isinstance(step, AskLedger)
        (transaction,) = step.claims
        return ledger_item(submission, transaction, genuine.environment, self._settings.source_queue, time.time())

    def result(self, message: ReceivedMessage, claim: LedgerItem) -> OutgoingMessage:
        submission, plan = self._plans.pop(message.message_id)
        step = plan.next_step({claim.transaction_id: Ownership.NEW})
        assert isinstance(step, Answer)
        (result,) = step.results
        return result_message(submission, result)


class Loop:
    """See the module."""

    def __init__(self, settings: Settings, backend: Backend, sizes: Mapping[str, float]) -> None:
        self._settings = settings
        self._backend = backend
        self._rules = Rules(settings)
        self._sizes = sizes
        self._is_stopping = False

    def stop(self, *_: object) -> None:
        self._is_stopping = True

    def run(self) -> None:
        while not self._is_stopping:
            if messages := self._receive():
                self._answer(messages)

    def _call(self, method: Callable[..., T], *args: object, **keywords: object) -> T:
        """Call AWS as the actors do: on the transport, where there is one."""
        calls = self._backend.background_calls
        if calls is None:
            return method(*args, **keywords)
        outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
        calls.begin(method, args, keywords, outcomes.put)
        outcome = outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        answer: T = outcome
        return answer

    def _receive(self) -> list[ReceivedMessage]:
        messages: list[ReceivedMessage] = []
        while len(messages) < WINDOW and not self._is_stopping:
            received = self._call(
                self._backend.queues.receive,
                self._settings.source_queue,
                max_messages=10,
                wait_seconds=0 if messages else self._settings.receive_wait_seconds,
                visibility_timeout_seconds=self._settings.visibility_timeout_seconds,
            )
            if not received:
                break
            messages += received
        return messages

    def _answer(self, messages: Sequence[ReceivedMessage]) -> None:
        rules, queues, source = self._rules, self._backend.queues, self._settings.source_queue
        answers = self._ask_apple([rules.receipt(message) for message in messages])
        claims = [rules.claim(message, answer) for message, answer in zip(messages, answers, strict=True)]
        for batch in self._batches(claims, "claim"):
            outcomes = (
                [self._call(self._backend.ledger.claim, batch[0])]
                if len(batch) == 1
                else self._call(self._backend.ledger.claim_all, batch)
            )
            assert not any(outcomes)
        results = [rules.result(message, claim) for message, claim in zip(messages, claims, strict=True)]
        for posts in self._batches(results, "send"):
            assert not any(self._call(queues.send, self._settings.post_queues[0], posts))
        for handles in self._batches([message.receipt_handle for message in messages], "delete"):
            assert not any(self._call(queues.delete, source, handles))

    def _ask_apple(self, receipts: Sequence[str]) -> list[AppleAnswer]:
        app_store = self._backend.app_store
        begin = begin_of(app_store)
        if begin is None:
            return [app_store.verify_receipt(receipt, Environment.PRODUCTION) for receipt in receipts]
        answers: dict[int, AppleAnswer | Exception] = {}
        are_all_there = threading.Event()

        def keep(number: int, answer: AppleAnswer | Exception) -> None:
            answers[number] = answer
            if len(answers) == len(receipts):
                are_all_there.set()

        for number, receipt in enumerate(receipts):
            begin(receipt, Environment.PRODUCTION, partial(keep, number))
        are_all_there.wait()
        return [_answered(answers[number]) for number in range(len(receipts))]

    def _batches(self, entries: Sequence[T], step: str) -> Iterator[Sequence[T]]:
        """Cut into batches that have the wanted size on average: of 9.7, for example, mostly 10 and some 9."""
        size, start, due = self._sizes[step], 0, 0.0
        while start < len(entries):
            due += size
            end = max(start + 1, round(due))
            yield entries[start:end]
            start = end


def _answered(answer: AppleAnswer | Exception) -> AppleAnswer:
    if isinstance(answer, Exception):
        raise answer
    return answer


def main() -> None:
    settings = load_settings({"backend": "aws"})
    given = os.environ.get("BARE_BATCHES", "claim=25,send=10,delete=10")
    sizes = {name: float(size) for name, _, size in (part.partition("=") for part in given.split(","))}
    backend = open_backend(settings)
    if backend.run_on is not None:
        backend.run_on(ActorSystem("bare").scheduler)
    loop = Loop(settings, backend, sizes)
    signal.signal(signal.SIGTERM, loop.stop)
    loop.run()


if __name__ == "__main__":
    main()
