"""How the program ends: a first signal drains, a second one ends it at once; a batch run ends by itself."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace
from functools import partial

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, mint

from .test_processes import STOP_SIGNALS, has_taken_in_all, users
from .worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, AwsWorld, EmbeddedWorld, World, genuine_messages

GENUINE = genuine_messages(80, 21)


@pytest.mark.short("aws")
def test_a_signal_lets_what_is_in_flight_finish(world: World) -> None:
    messages = GENUINE[:10]
    world.send(messages)
    with SimulatedAppStore(latency_seconds=1.0) as store:
        program = world.start(store)
        program.wait_until(partial(has_taken_in_all, world), "all are in flight")
        program.stop()
    assert world.total(SOURCE) == 0
    assert {letter.fields["user_id"] for letter in world.take(RESULTS)} == users(messages)
    # A queue may deliver a message twice, and then it is answered twice.
    (answered,) = re.findall(
        r"(\d+) messages answered, 0 moved to the dead-letter queue, 0 handed back", program.stderr
    )
    assert int(answered) >= len(messages)


@pytest.mark.parametrize("second_signal", STOP_SIGNALS)
def test_a_second_signal_ends_it_at_once(
    embedded: EmbeddedWorld, second_signal: signal.Signals, store: SimulatedAppStore
) -> None:
    messages = GENUINE[:10]
    embedded.send(messages)
    store.outage(Fault.hang(600))
    program = embedded.start(store, visibility_timeout_seconds=10)
    program.wait_until(partial(has_taken_in_all, embedded), "all are in flight")
    program.send_signal(signal.SIGTERM)
    program.wait_for_log("draining")
    assert program.end_by(lambda: program.send_signal(second_signal)) == 128 + second_signal
    assert embedded.total(RESULTS) == 0
    assert embedded.visible_after(10, SOURCE) == len(messages)


RECEIVE = frozenset({"ReceiveMessage"})


@pytest.mark.short("embedded-1")
@pytest.mark.parametrize("processes", [1, 2])
def test_what_waits_is_done_before_it_ends(world: World, processes: int, store: SimulatedAppStore) -> None:
    messages = genuine_messages(30, 91)
    world.send(messages)
    assert world.start(store, processes=processes, exit_when_idle_seconds=0).wait_for_end() == 0
    assert len(world.take(RESULTS)) == len(messages)
    assert world.total(SOURCE) == world.total(DEAD_LETTERS) == 0


def test_what_is_hidden_is_left_to_the_next_run(world: World, store: SimulatedAppStore) -> None:
    *others, unlucky = genuine_messages(12, 94)
    receipt = SampleReceipt(BUNDLE_ID, (Purchase("77", "coins"),), faults=(Fault.apple(21005),))
    body = {**json.loads(unlucky.body), "receipt": mint(receipt)}
    world.send([replace(unlucky, body=json.dumps(body))])
    for _ in range(5):
        world.take(SOURCE)
        world.bring_back(SOURCE)
    world.send(others)
    assert world.start(store, exit_when_idle_seconds=0).wait_for_end() == 0
    assert len(world.read(RESULTS)) == len(others)
    assert (world.visible(SOURCE), world.total(SOURCE)) == (0, 1)
    world.bring_back(SOURCE)
    assert world.start(store, exit_when_idle_seconds=0).wait_for_end() == 0
    assert [letter.fields["user_id"] for letter in world.read(RESULTS)] == [unlucky.user_id]
    assert world.total(SOURCE) == world.total(DEAD_LETTERS) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_queue_that_can_not_be_read_is_waited_for(aws: AwsWorld, processes: int, store: SimulatedAppStore) -> None:
    messages = genuine_messages(15, 92)
    aws.send(messages)
    aws.server.refused = RECEIVE
    program = aws.start(store, processes=processes, exit_when_idle_seconds=0)
    program.wait_for_log(
        f"this is not idle time, and is waited out (a signal ends it): unavailable: receive from {SOURCE}"
    )
    aws.server.refused = frozenset()
    assert program.wait_for_end() == 0
    assert len(aws.take(RESULTS)) == len(messages)
    assert aws.total(SOURCE) == 0
