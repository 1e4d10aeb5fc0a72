"""What commands rely on when they work through many messages: batches, passing trouble, and nothing kept hidden."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from receipt_actors.cli.patient_queues import HIDDEN_SECONDS, PatientQueues, QueueReader
from receipt_actors.domain.ports import EntryFailure, OutgoingMessage
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.errors import QueueRefused, QueueUnavailable
from receipt_actors.sqlite import EmbeddedQueues

QUEUE = "Letters"
AT_ONCE = RetryPolicy(3, first_seconds=0.0, max_seconds=0.0)
NOT_NOW = EntryFailure("InternalError", "try again", False)
NEVER = EntryFailure("InvalidMessageContents", "what is this", True)

Failures = dict[str, list[EntryFailure]]


class TroubledQueues(EmbeddedQueues):
    """Real queues; entries fail as told beforehand, by their bodies, and whole operations raise as told."""

    def __init__(self, database: Path, clock: Callable[[], float]) -> None:
        super().__init__(database, clock)
        self.create_queue(QUEUE)
        self.failures: Failures = {}
        self.errors: list[Exception] = []
        self.batches: list[int] = []

    def send(self, queue: str, messages: Sequence[OutgoingMessage]) -> Sequence[EntryFailure | None]:
        self.batches.append(len(messages))
        if self.errors:
            raise self.errors.pop(0)
        outcomes = [failures.pop(0) if (failures := self.failures.get(message.body)) else None for message in messages]
        good = [message for message, failure in zip(messages, outcomes, strict=True) if failure is None]
        assert super().send(queue, good) == [None] * len(good)
        return outcomes


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queues(tmp_path: Path, clock: Clock) -> Iterator[TroubledQueues]:
    with closing(TroubledQueues(tmp_path / "queues.db", clock)) as queues:
        yield queues


def letters(count: int) -> list[OutgoingMessage]:
    return [OutgoingMessage(f"letter {number}") for number in range(count)]


class TestSending:
    def test_any_number_is_sent_and_what_failed_is_tried_again(self, queues: TroubledQueues) -> None:
        queues.failures = {"letter 1": [NOT_NOW, NOT_NOW], "letter 2": [NEVER], "letter 3": [NOT_NOW] * 3}
        told = PatientQueues(queues, AT_ONCE).send(QUEUE, letters(23))
        assert told == [None, None, NEVER, NOT_NOW, *[None] * 19]
        assert queues.batches == [10, 2, 2, 10, 3]
        queues.errors = [QueueUnavailable("500"), QueueUnavailable("500")]
        assert PatientQueues(queues, AT_ONCE).send(QUEUE, letters(1)) == [None]

    def test_lasting_trouble_is_raised_and_what_cannot_pass_at_once(self, queues: TroubledQueues) -> None:
        queues.errors = [QueueUnavailable("500")] * 3
        with pytest.raises(QueueUnavailable, match="500"):
            PatientQueues(queues, AT_ONCE).send(QUEUE, letters(1))
        assert len(queues.batches) == 3
        queues.errors = [QueueRefused(QUEUE, "does not exist")]
        with pytest.raises(QueueRefused):
            PatientQueues(queues, AT_ONCE).send(QUEUE, letters(1))
        assert len(queues.batches) == 4

    def test_what_was_sent_before_trouble_is_not_forgotten(self, queues: TroubledQueues) -> None:
        queues.failures = {"letter 0": [NOT_NOW]}
        patient = PatientQueues(queues, RetryPolicy(2, first_seconds=0.0, max_seconds=0.0))
        real_send = queues.send

        def send_once(queue: str, messages: Sequence[OutgoingMessage]) -> Sequence[EntryFailure | None]:
            outcomes = real_send(queue, messages)
            queues.errors = [QueueUnavailable("gone")]
            return outcomes

        queues.send = send_once  # type: ignore[method-assign]
        assert patient.send(QUEUE, letters(2)) == [NOT_NOW, None]


class TestReading:
    def test_everything_is_received_once_however_long_it_takes(self, queues: TroubledQueues, clock: Clock) -> None:
        patient = PatientQueues(queues, AT_ONCE)
        patient.send(QUEUE, letters(45))
        bodies: list[str] = []
        with QueueReader(patient, QUEUE, clock=clock) as reader:
            while received := reader.receive(wait_seconds=0):
                bodies += [message.body for message in received]
                assert len(bodies) <= 45
                clock.now += HIDDEN_SECONDS * random.Random(len(bodies)).uniform(0.3, 0.5)
        assert sorted(bodies) == sorted(message.body for message in letters(45))
        assert queues.approximate_number_of_messages(QUEUE) == 45

    def test_what_was_deleted_is_not_extended(self, queues: TroubledQueues, clock: Clock) -> None:
        patient = PatientQueues(queues, AT_ONCE)
        patient.send(QUEUE, letters(3))
        changed: list[int] = []
        real_change = queues.change_visibility

        def change(queue: str, changes: Sequence[tuple[str, int]]) -> Sequence[EntryFailure | None]:
            changed.append(len(changes))
            return real_change(queue, changes)

        queues.change_visibility = change  # type: ignore[method-assign]
        with QueueReader(patient, QUEUE, clock=clock) as reader:
            reader.delete([message.receipt_handle for message in reader.receive(wait_seconds=0)])
            clock.now += HIDDEN_SECONDS / 2
            assert reader.receive(wait_seconds=0) == []
        assert changed == []

    def test_a_message_whose_hiding_cannot_be_extended_does_not_end_the_pass(
        self, queues: TroubledQueues, clock: Clock
    ) -> None:
        patient = PatientQueues(queues, AT_ONCE)
        patient.send(QUEUE, letters(1))
        with QueueReader(patient, QUEUE, clock=clock) as reader:
            reader.receive(wait_seconds=0)
            clock.now += HIDDEN_SECONDS + 1
            (stolen,) = queues.receive(QUEUE, max_messages=1, wait_seconds=0, visibility_timeout_seconds=600)
            assert reader.receive(wait_seconds=0) == []
        assert queues.approximate_number_of_messages(QUEUE) == 0
        assert queues.delete(QUEUE, [stolen.receipt_handle]) == [None]
