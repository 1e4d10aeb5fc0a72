"""The result listener on a FIFO post queue: a user's answers are handed over in order, whatever the function raises."""

from __future__ import annotations

import json

import pytest

from receipt_actors.domain.messages import PostedResult
from receipt_actors.pipeline.result_listener import VISIBILITY_SECONDS, ResultListener
from receipt_actors.testing import FakeQueues
from tests.pipeline.stand_ins import Stage


class House:
    def __init__(self, stage: Stage, queue: str) -> None:
        self.stage = stage
        self.queue = queue
        self.queues: FakeQueues = stage.with_fake(FakeQueues(stage.clock))
        self.queues.create_queue(queue)
        self.raises_for: set[str] = set()
        self.handed_over: list[str] = []

    def answer(self, user_id: int, *transaction_ids: str) -> None:
        for transaction_id in transaction_ids:
            body = {"user_id": user_id, "transaction_id": transaction_id, "status": "OK"}
            group_id = str(user_id) if self.queue.endswith(".fifo") else None
            self.queues.put(self.queue, json.dumps(body), group_id=group_id)

    def on_result(self, result: PostedResult) -> None:
        self.handed_over.append(result.transaction_id)
        if result.transaction_id in self.raises_for:
            raise ValueError("of the embedding program")

    def start(self) -> None:
        self.stage.actors.start(ResultListener, self.queues, self.queue, 0, self.on_result)
        self.stage.settle()


@pytest.mark.parametrize(("queue", "at_first"), [("q", ["a1", "a2", "a3", "b1"]), ("q.fifo", ["a1", "b1"])])
def test_those_behind_an_answer_that_failed_come_after_it(stage: Stage, queue: str, at_first: list[str]) -> None:
    """On a FIFO queue: all of the group comes again, in order. A standard queue knows no order, and none waits."""
    house = House(stage, queue)
    house.answer(1, "a1", "a2", "a3")
    house.answer(2, "b1")
    house.raises_for = {"a1"}
    house.start()
    assert house.handed_over == at_first
    house.raises_for.clear()
    stage.advance(VISIBILITY_SECONDS)
    assert house.handed_over[len(at_first) :] == (["a1", "a2", "a3"] if queue.endswith(".fifo") else ["a1"])
    assert house.queues.messages(queue) == []
