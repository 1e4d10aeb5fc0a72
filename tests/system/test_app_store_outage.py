"""An outage of the App Store, of every sort that Apple has had: messages wait, and nobody gets a verdict meanwhile."""

from __future__ import annotations

import signal

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault

from .processes import Program
from .worlds import DEAD_LETTERS, RESULTS, SOURCE, World, genuine_messages

IN_ONE_RECEIVE = 10  #: the gate may be closed as soon as some of them have met the outage


@pytest.mark.short("embedded")
def test_an_outage_of_the_app_store_costs_no_verdict(world: World) -> None:
    """It refuses connections, then answers 503, then 200 with a web page; after it every purchase is OK.

    What is in flight is kept, and of the others few are received to try with: an outage burns no receive counts.
    """
    early, late = genuine_messages(IN_ONE_RECEIVE, 41), genuine_messages(250, 42)
    world.send(early)
    store = SimulatedAppStore(port=world.programs.reserve_port())
    program = world.start(store, receive_wait_seconds=0)
    program.wait_for_log("unavailable")
    store.outage(Fault.http(503))
    with store:
        _wait_until_met(program, store, "HTTP 503")
        world.send(late)
        store.outage(Fault.html())
        _wait_until_met(program, store, "html")
        assert world.visible(SOURCE) > len(late) // 4
        everything = len(early) + len(late)  # counted while a few messages are received now and then
        program.wait_until(lambda: world.total(SOURCE) == everything, "all are there")
        assert world.total(RESULTS) == world.total(DEAD_LETTERS) == 0
        store.recover()
        # Not until it is idle: a ledger that a busy machine starves has some handed back, which are hidden for a while.
        program.wait_until(lambda: world.total(SOURCE) == 0, "all are done")
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
    answers = world.take(RESULTS)
    assert {(letter.fields["user_id"], letter.fields["status"]) for letter in answers} == {
        (message.user_id, "OK") for message in [*early, *late]
    }
    assert world.total(DEAD_LETTERS) == 0


def _wait_until_met(program: Program, store: SimulatedAppStore, fault: str) -> None:
    program.wait_until(lambda: store.statistics().answers.get(fault), f"a request meets the fault {fault}")
