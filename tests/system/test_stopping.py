"""How the program stops while it has work: the first signal drains, the second one ends it, and nothing is lost."""

from __future__ import annotations

import re
import signal
from functools import partial

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage
from receipt_actors.sandbox.receipts import Fault

from .worlds import RESULTS, SOURCE, EmbeddedWorld, World, genuine_messages

DRAIN_SECONDS = 6
STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]

#: The slow App Store answers 20 receipts a second: a drain finishes some of them, but never all.
LATENCY_SECONDS = 0.25
CONCURRENCY = 5
GENUINE = genuine_messages(80, 21)


@pytest.mark.short("aws")
def test_a_signal_lets_what_is_in_flight_finish(world: World) -> None:
    """Where the drain is long enough nobody has to wait for a redelivery: all are answered, and none is left."""
    messages = GENUINE[:10]
    world.send(messages)
    with SimulatedAppStore(latency_seconds=1.0) as store:
        program = world.start(store)
        program.wait_until(partial(_has_taken_in_all, world), "all are in flight")
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
    assert world.total(SOURCE) == 0
    assert {letter.fields["user_id"] for letter in world.take(RESULTS)} == _users(messages)
    # A queue may deliver a message twice, and then it is answered twice.
    (answered,) = re.findall(
        r"(\d+) messages answered, 0 moved to the dead-letter queue, 0 handed back", program.stderr
    )
    assert int(answered) >= len(messages)


@pytest.mark.parametrize("second_signal", STOP_SIGNALS)
def test_a_second_signal_ends_it_at_once(embedded: EmbeddedWorld, second_signal: signal.Signals) -> None:
    """The operator does not want to wait: the exit code says so, and the messages come back by their time-out."""
    messages = GENUINE[:10]
    embedded.send(messages)
    with SimulatedAppStore() as store:
        store.outage(Fault.hang(600))
        program = embedded.start(store, visibility_timeout_seconds=10)
        program.wait_until(partial(_has_taken_in_all, embedded), "all are in flight")
        program.send_signal(signal.SIGTERM)
        program.wait_for_log("draining")
        assert program.end_by(lambda: program.send_signal(second_signal)) == 128 + second_signal
    assert embedded.total(RESULTS) == 0
    assert embedded.visible_after(10, SOURCE) == len(messages)


def _has_taken_in_all(world: World) -> bool:
    return world.visible(SOURCE) == 0


def _users(messages: list[SampleMessage]) -> set[int]:
    return {message.user_id for message in messages}
