"""A system whose limits are lent by other nodes: without the lease it begins nothing, and then it goes on."""

from __future__ import annotations

from math import inf

import pytest

from receipt_actors.domain.limits import LiveLimits
from receipt_actors.errors import AppStoreUnavailable, LedgerUnavailable
from receipt_actors.pipeline.protocol import IN_FLIGHT, ObeyLimits
from receipt_actors.scale.membership import LIMITED, MEMBERSHIP, ProcessLessee
from receipt_actors.telemetry.overview import State
from tests.pipeline.trees import SETTINGS, STEP_IDS, STEPS, Tree, ok, tree_of

WHOLE = SETTINGS.limits_of(1)
POLL_SECONDS = SETTINGS.receive_wait_seconds + 1


def submit(tree: Tree, number: int = 1) -> None:
    tree.services.submit(tree.services.app_store.sell(f"t-{number}"), user_id=number)


def lend(tree: Tree, seconds: float) -> None:
    tree.system.hold_until(tree.services.clock.boottime() + seconds)
    tree.settle()


def begun(tree: Tree) -> tuple[int, int, int]:
    """Receives, requests to Apple, and requests to the ledger."""
    services = tree.services
    ledger = sum(services.ledger.count(operation) for operation in ("claim", "claim_all", "get"))
    return services.queues.count("receive"), services.app_store.count("verify_receipt"), ledger


def answered(tree: Tree) -> list[int]:
    return [result["user_id"] for result in tree.results()]


def test_nothing_begins_without_the_lease_and_all_goes_on_with_it(tree: Tree) -> None:
    lend(tree, 5.0)
    submit(tree, 1)
    tree.advance(1)
    assert answered(tree) == [1]
    tree.advance(POLL_SECONDS + 5)
    before = begun(tree)
    submit(tree, 2)
    tree.advance(120)
    assert begun(tree) == before
    assert tree.system.in_flight().reserved == 0
    lend(tree, 60.0)
    tree.advance(1)
    assert answered(tree) == [1, 2]


def test_nothing_begins_on_a_machine_that_wakes_after_its_lease(tree: Tree) -> None:
    lend(tree, 60.0)
    with tree.services.app_store.hold("verify_receipt", times=1):
        submit(tree, 1)
        tree.advance(1)
        tree.services.clock.suspend(60.0)
        before = begun(tree)
    tree.advance(POLL_SECONDS)
    submit(tree, 2)
    tree.advance(POLL_SECONDS)
    assert begun(tree) == before
    lend(tree, 60.0)
    tree.advance(20)
    assert sorted(answered(tree)) == [1, 2]


@pytest.mark.parametrize("service", ["app_store", "ledger"])
def test_nothing_is_tried_again_without_the_lease(tree: Tree, service: str) -> None:
    if service == "app_store":
        tree.services.app_store.fail("verify_receipt", AppStoreUnavailable("down"))
    else:
        for operation in ("claim", "claim_all"):
            tree.services.ledger.fail(operation, LedgerUnavailable("down"))
    lend(tree, 0.001)
    submit(tree)
    tree.settle()
    before = begun(tree)[1:]
    tree.advance(30)
    assert begun(tree)[1:] == before
    lend(tree, inf)
    tree.advance(30)
    tree.check_answered(ok(1, "t-1"))


def test_no_probe_is_sent_without_the_lease(tree: Tree) -> None:
    for operation in ("claim", "claim_all"):
        tree.services.ledger.fail(operation, LedgerUnavailable("down"), times=None)
    for number in range(10):
        submit(tree, number)
    tree.advance(30)
    assert tree.system.in_flight().unavailable == {"ledger"}
    lend(tree, 0.0)
    tree.advance(POLL_SECONDS)
    before = begun(tree)
    tree.services.recover()
    tree.advance(5 * 60)
    assert begun(tree) == before
    lend(tree, inf)
    tree.advance(60)
    assert sorted(answered(tree)) == list(range(10))


def test_a_share_of_nothing_begins_nothing(tree: Tree) -> None:
    change = tree.system.change_limits(WHOLE.nothing)
    tree.advance(POLL_SECONDS)
    change()
    before = begun(tree)
    submit(tree)
    tree.advance(120)
    assert begun(tree) == before
    assert tree.system.in_flight().idle_seconds == 0
    tree.system.change_limits(WHOLE)
    tree.settle()
    assert answered(tree) == [1]


def test_who_is_lent_nothing_is_not_idle(tree: Tree) -> None:
    tree.advance(60)
    assert tree.system.in_flight().idle_seconds >= 50
    lend(tree, 0.0)
    assert tree.system.in_flight().idle_seconds == 0
    tree.advance(300)
    lend(tree, inf)
    assert tree.system.in_flight().idle_seconds == 0
    tree.advance(30)
    assert 0 < tree.system.in_flight().idle_seconds <= 30


def test_a_crash_of_intake_does_not_lend_anything(tree: Tree) -> None:
    lend(tree, 0.0)
    tree.advance(POLL_SECONDS)
    before = begun(tree)
    for name in LIMITED:
        tree.crash(name)
    submit(tree)
    tree.advance(60)
    assert begun(tree)[0] == before[0]
    lend(tree, inf)
    tree.advance(60)
    assert answered(tree) == [1]


def test_what_is_released_comes_back(tree: Tree) -> None:
    with tree.services.app_store.hold("verify_receipt", times=2):
        for number in (1, 2):
            submit(tree, number)
        tree.advance(1)
        assert tree.system.in_flight().in_flight == 2
        tree.system.change_limits(WHOLE.nothing)
        tree.system.release()
        tree.settle()
        receives = tree.services.queues.count("receive")
        tree.advance(POLL_SECONDS)
        assert tree.system.in_flight().in_flight == 0
        assert tree.services.queues.count("receive") == receives
    assert len(tree.source()) == 2
    tree.system.change_limits(WHOLE)
    tree.advance(60)
    assert sorted(answered(tree)) == [1, 2]
    assert tree.dead() == []


def test_a_system_without_its_lease_drains(tree: Tree) -> None:
    with tree.services.app_store.hold("verify_receipt", times=1):
        submit(tree)
        tree.advance(1)
        lend(tree, 0.0)
    tree.settle()
    assert tree.system.drain(0.0) == 1
    assert len(tree.source()) == 1


def test_a_process_holds_nothing_at_first(tree: Tree) -> None:
    limits = LiveLimits(WHOLE)
    lessee = ProcessLessee(limits, tree.actors)
    assert limits.current == WHOLE.nothing
    assert not limits.are_held(0.0)
    lessee.lend_until(5.0)
    assert (limits.are_held(4.9), limits.are_held(5.0)) == (True, False)
    assert lessee.grant(WHOLE) == [(name, ObeyLimits()) for name in LIMITED]
    assert limits.current == WHOLE
    assert IN_FLIGHT in LIMITED


# --- whole trees in a group ---


ACTIVE_STANDBY = SETTINGS.model_copy(update={"role": "active-standby", "lease_seconds": 10.0})


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
@pytest.mark.parametrize("how", ["crash", "kill"])
def test_membership_may_die_at_any_step(how: str, step: tuple[str, str, bool]) -> None:
    for tree in tree_of(ACTIVE_STANDBY):
        tree.hold(*step)
        submit(tree)
        tree.settle()
        getattr(tree, how)(MEMBERSHIP)
        tree.services.recover()
        tree.advance(60)
        tree.check_answered(ok(1, "t-1"))
        assert tree.system.overview().state is State.CONSUMING


@pytest.mark.parametrize("operation", ["read", "write"])
def test_without_its_table_a_tree_waits_and_goes_on(operation: str) -> None:
    for tree in tree_of(ACTIVE_STANDBY):
        tree.advance(POLL_SECONDS)
        tree.services.roles.fail(operation, LedgerUnavailable("down"), times=None)
        tree.advance(60)
        submit(tree)
        tree.advance(10 * 60)
        assert answered(tree) == []
        assert tree.system.overview().state is State.WAITING
        tree.services.recover()
        tree.advance(5)
        tree.check_answered(ok(1, "t-1"))
