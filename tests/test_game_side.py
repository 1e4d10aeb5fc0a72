"""The game's side of the queues, without a system: what is put on a source queue, what is taken from a post queue."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from receipt_actors import Settings, game_side
from receipt_actors.domain.messages import PostedResult
from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.errors import QueueUnavailable, SubmissionRefused
from receipt_actors.pipeline.validator import PendingSubmissions
from receipt_actors.testing import FakeQueues, ManualClock

FIRST, SECOND, OUT, OUT2 = "ReceiptsSQS", "Game2SQS", "ResultsSQS", "Results2SQS"
SETTINGS = Settings(backend="aws", bundle_ids=("com.example.game",), sources={SECOND: {"post_queues": (OUT2,)}})
GOOD: dict[str, object] = {"receipt": "cmVjZWlwdA==", "user_id": 42}
DOWN = QueueUnavailable("503")


@pytest.fixture
def queues() -> FakeQueues:
    queues = FakeQueues()
    for queue in (FIRST, SECOND, OUT, OUT2):
        queues.create_queue(queue)
    return queues


def submit(queues: FakeQueues, **arguments: object) -> str:
    arguments = GOOD | arguments
    return game_side.submit(queues, SETTINGS, PendingSubmissions(), **arguments).submission_id  # type: ignore[arg-type]


def answer(queues: FakeQueues, *user_ids: int) -> None:
    bodies = [{"user_id": user_id, "transaction_id": "t", "status": "OK"} for user_id in user_ids]
    queues.send(OUT, [OutgoingMessage(json.dumps(body)) for body in bodies])


def results(queues: FakeQueues, is_over: Callable[[], bool] = lambda: False) -> game_side.Results:
    return game_side.Results(queues, OUT, 0, 0, is_over)


def left(queues: FakeQueues, queue: str) -> list[tuple[int, bool]]:
    return [
        (json.loads(message.body).get("user_id"), not message.hidden_for_seconds) for message in queues.messages(queue)
    ]


# --- a receipt is put on a source queue ---


def test_a_submission_is_what_the_contract_says(queues: FakeQueues) -> None:
    submission_id = submit(queues)
    assert submit(queues, submission_id="mine", transaction_id="t-1", product_id="coins") == "mine"
    first, second = queues.messages(FIRST)
    assert first.attributes == {"submission_id": submission_id}
    assert json.loads(first.body) == {**GOOD, "post_queue": OUT}
    assert second.attributes == {"submission_id": "mine"}
    assert json.loads(second.body) == {**GOOD, "post_queue": OUT, "transaction_id": "t-1", "product_id": "coins"}


def test_another_source_queue_has_post_queues_of_its_own(queues: FakeQueues) -> None:
    submit(queues, source_queue=SECOND)
    (message,) = queues.messages(SECOND)
    assert json.loads(message.body)["post_queue"] == OUT2
    with pytest.raises(SubmissionRefused, match="post_queue_not_allowed"):
        submit(queues, source_queue=SECOND, post_queue=OUT)
    with pytest.raises(SubmissionRefused, match=f"found 'Game3SQS', expected one of {FIRST}, {SECOND}"):
        submit(queues, source_queue="Game3SQS")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"receipt": ""}, "bad_receipt"),
        ({"user_id": 2**63}, "bad_user_id"),
        ({"post_queue": "SomebodyElses"}, "post_queue_not_allowed"),
        ({"submission_id": ""}, "bad_submission_id"),
        ({"user_id": 10**5000}, "can't be written as JSON"),
        ({"receipt": b"bytes"}, "can't be written as JSON"),
        ({"receipt": "A" * (2**20 - 100), "submission_id": "s" * 256}, "InvalidParameterValue"),
    ],
    ids=["receipt", "user_id", "post_queue", "submission_id", "digits", "bytes", "size"],
)
def test_what_could_never_be_answered_is_refused(queues: FakeQueues, arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(SubmissionRefused, match=reason):
        submit(queues, **arguments)
    assert queues.messages(FIRST) == []


def test_nobody_knows_of_a_submission_whether_a_queue_without_an_answer_has_it(queues: FakeQueues) -> None:
    queues.fail("send", DOWN)
    with pytest.raises(QueueUnavailable):
        submit(queues)
    queues.fail_entries("send")
    with pytest.raises(QueueUnavailable, match="InternalError: "):
        submit(queues)


# --- answers are taken from a post queue ---


def test_an_answer_is_deleted_when_the_next_one_is_asked_for(queues: FakeQueues) -> None:
    answer(queues, 1, 2)
    taken = results(queues)
    assert next(taken).user_id == 1
    assert left(queues, OUT) == [(1, False), (2, False)]
    assert next(taken).user_id == 2
    assert left(queues, OUT) == [(2, False)]
    assert list(taken) == []
    assert left(queues, OUT) == []


def test_what_was_not_asked_beyond_goes_back_at_once(queues: FakeQueues) -> None:
    answer(queues, 1, 2, 3)
    taken = results(queues)
    assert [next(taken).user_id, next(taken).user_id] == [1, 2]
    taken.close()
    assert left(queues, OUT) == [(2, True), (3, True)]
    assert [next(results(queues)).user_id, next(results(queues)).user_id] == [2, 3]
    assert left(queues, OUT) == [(2, False), (3, False)]


def test_a_loop_that_raises_does_not_acknowledge() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    queues.create_queue(OUT)
    answer(queues, 1, 2)

    def keep(_result: PostedResult) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(map(keep, results(queues)))
    assert left(queues, OUT) == [(1, False), (2, True)]
    assert [result.user_id for result in results(queues)] == [2]
    clock.advance(60.0)
    assert [result.user_id for result in results(queues)] == [1]


def test_where_it_can_not_go_back_the_reader_is_not_bothered(queues: FakeQueues) -> None:
    answer(queues, 1)
    taken = results(queues)
    next(taken)
    queues.fail("change_visibility", DOWN)
    taken.close()
    assert left(queues, OUT) == [(1, False)]


def test_what_is_no_answer_stays(queues: FakeQueues) -> None:
    queues.send(OUT, [OutgoingMessage('{"user_id": "somebody else\'s"}')])
    answer(queues, 1)
    assert [result.user_id for result in results(queues)] == [1]
    assert left(queues, OUT) == [("somebody else's", False)]


def test_it_ends_with_the_system(queues: FakeQueues) -> None:
    answer(queues, 1)
    assert list(results(queues, lambda: True)) == []
    assert left(queues, OUT) == [(1, True)]
