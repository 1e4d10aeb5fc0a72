"""The first template deployed to moto with FIFO queues."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import Stack

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS..:UserWarning")


@pytest.fixture(scope="module")
def stack(deploy: Callable[..., Stack]) -> Stack:
    return deploy(QueueType="fifo", SourceQueueName="game-receipts", MaxReceiveCount=7)


def test_a_message_walks_through_fifo_queues_alone(stack: Stack) -> None:
    """With the dead-letter queue that belongs to them; the stack tells their whole names."""
    names = {queue: stack.outputs[f"{queue}Name"] for queue in ("SourceQueue", "PostQueue", "DeadLetterQueue")}
    assert names == {
        "SourceQueue": "game-receipts.fifo",
        "PostQueue": "ResultsSQS.fifo",
        "DeadLetterQueue": "ReceiptsSQSDLQ.fifo",
    }
    attributes = {queue: stack.queue_attributes(name) for queue, name in names.items()}
    for queue in attributes.values():
        assert queue["FifoQueue"] == "true"
        assert queue["ContentBasedDeduplication"] == "false"
        assert (queue["DeduplicationScope"], queue["FifoThroughputLimit"]) == ("messageGroup", "perMessageGroupId")
    assert json.loads(attributes["SourceQueue"]["RedrivePolicy"]) == {
        "deadLetterTargetArn": stack.outputs["DeadLetterQueueArn"],
        "maxReceiveCount": 7,
    }
    assert stack.environment["RECEIPT_ACTORS_SOURCE_QUEUE"] == "game-receipts.fifo"


def test_alerts_stay_on_a_standard_queue(stack: Stack) -> None:
    """A function gathers those, which it can't do from a FIFO queue."""
    assert "FifoQueue" not in stack.queue_attributes(stack.outputs["AlertsQueueName"])


def test_two_purchases_that_look_alike_are_two_messages(stack: Stack) -> None:
    """Who sends says which is a repetition: by its id, and in its group."""
    url = stack.outputs["SourceQueueUrl"]
    with stack.client("sqs") as sqs:
        for group, id_ in (("user-1", "a"), ("user-1", "b"), ("user-1", "a"), ("user-2", "c")):
            sqs.send_message(QueueUrl=url, MessageBody="{}", MessageGroupId=group, MessageDeduplicationId=id_)
    assert stack.number_of_messages(stack.outputs["SourceQueueName"]) == 3
