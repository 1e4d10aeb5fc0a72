"""The promise of reliability, row by row, on the whole tree: whoever dies at any step, a message gets one answer."""

from __future__ import annotations

import pytest

from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.otp import Ref, which_children
from receipt_actors.otp import sys as otp_sys
from tests.pipeline.trees import LONG_ENOUGH_SECONDS, STEP_IDS, STEPS, Tree, ok

WORKERS = [
    "validator",
    "app_store_gateway",
    "ledger_gateway",
    "delete_batcher",
    "visibility_batcher",
    "in_flight",
    "incidents",
    "queue_depths",
]
SUPERVISORS = [
    "telemetry",
    "custody",
    "gateways",
    "batchers",
    "result_batchers",
    "movers",
    "validators",
    "consumers",
    "pipeline",
]


def submit(tree: Tree) -> None:
    tree.services.submit(tree.services.app_store.sell("t-1"), user_id=7)
    tree.settle()


def finish(tree: Tree) -> None:
    tree.services.recover()
    tree.settle()
    tree.advance(LONG_ENOUGH_SECONDS)


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
@pytest.mark.parametrize("how", ["crash", "kill"])
@pytest.mark.parametrize("who", WORKERS)
def test_any_worker_may_die_at_any_step(tree: Tree, who: str, how: str, step: tuple[str, str, bool]) -> None:
    tree.hold(*step)
    submit(tree)
    getattr(tree, how)(who)
    finish(tree)
    tree.check_answered(ok(7, "t-1"))


@pytest.mark.parametrize("step", STEPS[3:], ids=STEP_IDS[3:])
@pytest.mark.parametrize("how", ["crash", "kill"])
def test_a_result_batcher_may_die_at_any_step(tree: Tree, how: str, step: tuple[str, str, bool]) -> None:
    tree.hold(*step)
    submit(tree)
    getattr(tree, how)("result_batcher")
    finish(tree)
    tree.check_answered(ok(7, "t-1"))


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
@pytest.mark.parametrize("who", SUPERVISORS)
def test_any_supervisor_may_die_at_any_step(tree: Tree, who: str, step: tuple[str, str, bool]) -> None:
    tree.hold(*step)
    submit(tree)
    tree.crash(who)
    finish(tree)
    tree.check_answered(ok(7, "t-1"))


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
def test_the_process_may_die_at_any_step(tree: Tree, step: tuple[str, str, bool]) -> None:
    """kill -9: the visibility timeout brings the message back, to the next process, which gives the same answer."""
    tree.hold(*step)
    submit(tree)
    tree.kill_process()
    tree.restart()
    finish(tree)
    tree.check_answered(ok(7, "t-1"))


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
def test_the_process_may_die_at_every_step_in_turn(tree: Tree, step: tuple[str, str, bool]) -> None:
    tree.services.submit(tree.services.app_store.sell("t-1"), user_id=7)
    for _ in range(3):
        tree.hold(*step)
        tree.advance(130)
        tree.kill_process()
        tree.services.recover()
        tree.restart()
    finish(tree)
    tree.check_answered(ok(7, "t-1"))


@pytest.mark.parametrize("who", ["validator", "in_flight", "ledger_gateway"])
def test_a_storm_of_crashes_is_survived(tree: Tree, who: str) -> None:
    hold = tree.hold("app_store", "verify_receipt", False)
    submit(tree)
    for _ in range(5):
        tree.crash(who)
        tree.advance(1000)
    hold.release()
    finish(tree)
    tree.check_answered(ok(7, "t-1"))


def test_a_poisonous_message_disturbs_nobody(tree: Tree) -> None:
    poison = tree.services.app_store.sell("poison")
    tree.services.app_store.script(poison, ZeroDivisionError("a bug that this receipt sets off"))
    tree.services.submit(poison, user_id=666)
    tree.settle()
    for number in range(20):
        tree.services.submit(tree.services.app_store.sell(f"t-{number}"), user_id=number)
        tree.advance(15 * 60)
    assert tree.dead() == ["moved by SQS"]
    assert tree.results() == [ok(number, f"t-{number}") for number in range(20)]
    assert tree.services.app_store.requests(poison) == 20
    tree.check_whole()


def test_many_poisonous_messages_at_once_disturb_nobody(tree: Tree) -> None:
    """Fifty validators crash together: validators are temporary, and no supervisor's patience is used up."""
    with tree.hold("app_store", "verify_receipt", False):
        for number in range(40):
            poison = tree.services.app_store.sell(f"poison-{number}")
            tree.services.app_store.script(poison, ZeroDivisionError())
            tree.services.submit(poison, user_id=666)
        tree.services.submit(tree.services.app_store.sell("t-1"), user_id=7)
        tree.settle()
    tree.settle()
    assert tree.results() == [ok(7, "t-1")]
    assert len(tree.source()) == 40
    tree.services.queues.delete_queue(tree.services.settings.source_queue)
    tree.services.queues.create_queue(tree.services.settings.source_queue, tree.services.dead_letter_queue)
    tree.advance(60)
    tree.check_whole()


def test_a_consumer_may_die_in_a_receive(tree: Tree) -> None:
    tree.services.queues.interrupt()  # all polls begin anew
    tree.advance(0.1)
    hold = tree.services.queues.hold_answer("receive", then=ZeroDivisionError("a bug"))
    tree.services.queues.interrupt()
    tree.advance(0.1)
    submit(tree)
    hold.wait_for_call()
    hold.release()
    finish(tree)
    tree.check_answered(ok(7, "t-1"))


def test_a_consumer_may_be_killed_in_a_receive(tree: Tree) -> None:
    tree.kill("consumer-1")
    tree.kill("consumer-2")
    submit(tree)
    finish(tree)
    tree.check_answered(ok(7, "t-1"))


@pytest.mark.parametrize("who", ["in_flight", "validators"])
def test_neighbours_of_a_consumer_may_die_during_its_receive(tree: Tree, who: str) -> None:
    tree.crash(who)
    submit(tree)
    finish(tree)
    tree.check_answered(ok(7, "t-1"))


def test_messages_in_flight_survive_a_restart_of_in_flight(tree: Tree) -> None:
    with tree.hold("app_store", "verify_receipt", False):
        for number in range(70):
            tree.services.submit(tree.services.app_store.sell(f"t-{number}"), user_id=number)
        tree.settle()
        assert tree.system.in_flight().in_flight == 50
        tree.crash("in_flight")
        tree.advance(30)
        assert tree.system.in_flight().in_flight == 50
    tree.advance(60)
    assert sorted(tree.results(), key=lambda result: result["user_id"]) == [ok(n, f"t-{n}") for n in range(70)]
    tree.check_whole()


def test_messages_in_flight_are_extended_after_a_restart_of_in_flight(tree: Tree) -> None:
    """Their visibility goes on being extended: nobody else gets them."""
    with tree.hold("app_store", "verify_receipt", False):
        submit(tree)
        tree.crash("in_flight")
        tree.advance(3600)
        (message,) = tree.services.queues.messages(tree.services.settings.source_queue)
        assert message.receive_count == 1
    tree.settle()
    assert tree.results() == [ok(7, "t-1")]


def test_a_restarted_gateway_does_not_leave_the_gate_closed(tree: Tree) -> None:
    tree.services.app_store.fail("verify_receipt", AppStoreUnavailable("503"), times=None)
    for number in range(6):
        tree.services.submit(tree.services.app_store.sell(f"t-{number}"), user_id=number)
    tree.advance(5)
    assert tree.system.in_flight().unavailable == {"app_store"}
    tree.services.recover()
    tree.crash("app_store_gateway")
    assert tree.system.in_flight().unavailable == frozenset()
    tree.advance(60)
    assert len(tree.results()) == 6
    tree.check_whole()


def test_the_children_of_every_supervisor_stay_in_order(tree: Tree) -> None:
    def drawn(name: str = "pipeline") -> list[object]:
        children = which_children(tree.find(name), 10)
        return [
            (child.id, drawn(str(child.id)) if isinstance(child.child, Ref) and child.id in SUPERVISORS else [])
            for child in children
            if child.id is not None
        ]

    before = drawn()
    for name in ("gateways", "custody", "consumers"):
        tree.crash(name)
        tree.advance(120)
        assert drawn() == before


def test_a_message_that_was_finished_while_in_flight_restarted_is_finished(
    tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    """Its validator reads the new keeper's question and the delete's answer in one turn: no crash, and counted once."""
    hold = tree.hold("queues", "delete", True)
    submit(tree)
    validator = tree.find("validator")
    otp_sys.suspend(validator)
    tree.crash("in_flight")
    hold.release()
    tree.settle()
    otp_sys.resume(validator)
    tree.settle()
    tree.check_answered(ok(7, "t-1"))
    assert {fate: count for (fate, _), count in tree.system.statistics().fates.items()} == {"answered": 2}
    assert "the validator or mover of message" not in caplog.text
