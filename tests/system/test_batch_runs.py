"""Batch runs (``--exit-when-idle``): they end when nothing can be received, which who does not answer does not say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, mint

from .worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, AwsWorld, World, genuine_messages

RECEIVE = frozenset({"ReceiveMessage"})


@pytest.mark.short("embedded-1")
@pytest.mark.parametrize("processes", [1, 2])
def test_what_waits_is_done_before_it_ends(world: World, processes: int) -> None:
    """Not a moment of idleness is asked for, and all the same nothing that was there is left."""
    messages = genuine_messages(30, 91)
    world.send(messages)
    with SimulatedAppStore() as store:
        assert world.start(store, processes=processes, exit_when_idle_seconds=0).wait_for_end() == 0
    assert len(world.take(RESULTS)) == len(messages)
    assert world.total(SOURCE) == world.total(DEAD_LETTERS) == 0


def test_what_is_hidden_is_left_to_the_next_run(world: World) -> None:
    """A message that was handed back, since Apple failed for it alone. It was received often, so its pause is long."""
    *others, unlucky = genuine_messages(12, 94)
    receipt = SampleReceipt(BUNDLE_ID, (Purchase("77", "coins"),), faults=(Fault.apple(21005),))
    body = {**json.loads(unlucky.body), "receipt": mint(receipt)}
    world.send([replace(unlucky, body=json.dumps(body))])
    for _ in range(5):
        world.take(SOURCE)
        world.bring_back(SOURCE)
    world.send(others)
    with SimulatedAppStore() as store:
        assert world.start(store, exit_when_idle_seconds=0).wait_for_end() == 0
        assert len(world.read(RESULTS)) == len(others)
        assert (world.visible(SOURCE), world.total(SOURCE)) == (0, 1)
        world.bring_back(SOURCE)
        assert world.start(store, exit_when_idle_seconds=0).wait_for_end() == 0
    assert [letter.fields["user_id"] for letter in world.read(RESULTS)] == [unlucky.user_id]
    assert world.total(SOURCE) == world.total(DEAD_LETTERS) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_queue_that_can_not_be_read_is_waited_for(aws: AwsWorld, processes: int) -> None:
    """SQS refuses every receive from the start on, and says so; when that is over the work is done, and it ends."""
    messages = genuine_messages(15, 92)
    aws.send(messages)
    aws.server.refused = RECEIVE
    with SimulatedAppStore() as store:
        program = aws.start(store, processes=processes, exit_when_idle_seconds=0)
        program.wait_for_log(
            f"this is not idle time, and is waited out (a signal ends it): unavailable: receive from {SOURCE}"
        )
        aws.server.refused = frozenset()
        assert program.wait_for_end() == 0
    assert len(aws.take(RESULTS)) == len(messages)
    assert aws.total(SOURCE) == 0
