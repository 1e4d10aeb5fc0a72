"""The whole tree on fakes: lost answers, outages, draining, and everything else that goes wrong without a crash."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from receipt_actors import Settings
from receipt_actors.backends import Backend
from receipt_actors.domain.ports import EntryFailure, Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import AppStoreUnavailable, LedgerUnavailable, QueueUnavailable
from receipt_actors.otp import TIMEOUT, Exit
from receipt_actors.otp import sys as otp_sys
from receipt_actors.pipeline.in_flight import STUCK_SECONDS
from receipt_actors.testing import FakeServices, PortCall, genuine, intercept, wait_until
from tests.patience import PATIENCE_SECONDS
from tests.pipeline.trees import LONG_ENOUGH_SECONDS, POST, SETTINGS, Tree, invalid, ok, tree_of

LONGEST_HAND_BACK_SECONDS = 16 * 60.0  #: 15 minutes, and the time to be answered

ERRORS: dict[str, Exception] = {
    "verify_receipt": AppStoreUnavailable("503"),
    "claim": LedgerUnavailable("time-out"),
    "claim_all": LedgerUnavailable("time-out"),
    "receive": QueueUnavailable("503"),
    "send": QueueUnavailable("503"),
    "delete": QueueUnavailable("503"),
    "change_visibility": QueueUnavailable("503"),
}

THROTTLED = EntryFailure("ThrottlingError", "too fast", sender_fault=False)


def fake_of(tree: Tree, operation: str) -> Any:
    services = tree.services
    fakes = {"verify_receipt": services.app_store, "claim": services.ledger, "claim_all": services.ledger}
    return fakes.get(operation, services.queues)


def begin_outage(tree: Tree, operation: str) -> None:
    for each in ("claim", "claim_all") if operation == "claim" else (operation,):
        fake_of(tree, each).fail(each, ERRORS[each], times=None)


def submit(tree: Tree, *numbers: int) -> None:
    for number in numbers:
        tree.services.submit(tree.services.app_store.sell(f"t-{number}"), user_id=number)


def by_user(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(results, key=lambda result: result["user_id"])


@pytest.mark.parametrize("times", [1, 2, 7])
@pytest.mark.parametrize("operation", ["verify_receipt", "claim", "receive", "send", "delete", "change_visibility"])
def test_an_answer_that_is_lost_changes_nothing(tree: Tree, operation: str, times: int) -> None:
    """Whatever was carried out before a time-out: the message gets its one answer (maybe again), and goes."""
    if operation == "receive":
        tree.services.queues.interrupt()  # so that the polls under way are not spared
    fake_of(tree, operation).lose_answer(operation, ERRORS[operation], times=times)
    if operation == "receive":
        tree.services.queues.interrupt()
    submit(tree, 7)
    tree.advance(LONG_ENOUGH_SECONDS)
    tree.check_answered(ok(7, "t-7"))


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("operation", ["send", "delete"])
def test_entries_that_are_not_confirmed_are_done_again(tree: Tree, operation: str, carried_out: bool) -> None:
    failure = EntryFailure("InternalError", "odd", sender_fault=False)
    hits = iter([True, False, True, True])
    tree.services.queues.fail_entries(
        operation, times=None, befalls=lambda _: next(hits, False), failure=failure, carried_out=carried_out
    )
    submit(tree, *range(10))
    tree.advance(60)
    answered = [result["user_id"] for result in tree.results()]
    assert sorted(set(answered)) == list(range(10))
    assert len(answered) == 10 + (3 if operation == "send" and carried_out else 0)
    tree.check_whole()


@pytest.mark.parametrize("times", [1, 2, 7])
def test_a_batch_of_claims_whose_answer_is_lost_changes_nothing(tree: Tree, times: int) -> None:
    tree.services.ledger.lose_answer("claim_all", ERRORS["claim_all"], times=times)
    with tree.hold("app_store", "verify_receipt", False):
        submit(tree, *range(20))
        tree.settle()
    tree.advance(LONG_ENOUGH_SECONDS)
    assert tree.services.ledger.count("claim_all") >= 1
    assert by_user(tree.results()) == [ok(number, f"t-{number}") for number in range(20)]
    tree.check_whole()


@pytest.mark.parametrize("carried_out", [False, True])
def test_claims_of_a_batch_that_fail_alone_are_made_alone(tree: Tree, carried_out: bool) -> None:
    hits = iter([True, False, True, True])
    tree.services.ledger.fail_entries(
        "claim_all", times=None, befalls=lambda _: next(hits, False), failure=THROTTLED, carried_out=carried_out
    )
    with tree.hold("app_store", "verify_receipt", False):
        submit(tree, *range(20))
        tree.settle()
    tree.advance(LONG_ENOUGH_SECONDS)
    assert by_user(tree.results()) == [ok(number, f"t-{number}") for number in range(20)]
    tree.check_whole()


@pytest.mark.parametrize("operation", ["verify_receipt", "claim", "send", "delete", "receive", "change_visibility"])
def test_an_outage_of_an_hour_costs_nothing_but_the_hour(tree: Tree, operation: str) -> None:
    begin_outage(tree, operation)
    submit(tree, *range(60))
    tree.advance(3600)
    assert [result for result in tree.results() if result["status"] != "OK"] == []
    receives = [message.receive_count for message in tree.services.queues.messages(SETTINGS.source_queue)]
    # Without deletes, or without extensions, messages come back by their visibility timeout.
    assert max(receives, default=0) <= 6 or operation in ("delete", "change_visibility")
    fake_of(tree, operation).recover()
    tree.advance(LONG_ENOUGH_SECONDS)
    assert {result["user_id"] for result in tree.results()} == set(range(60))
    assert {result["status"] for result in tree.results()} == {"OK"}
    assert (tree.source(), tree.dead()) == ([], [])
    tree.check_whole()


@pytest.mark.parametrize("operation", ["verify_receipt", "claim", "delete"])
def test_an_outage_closes_the_gate(tree: Tree, operation: str) -> None:
    begin_outage(tree, operation)
    submit(tree, *range(6))
    tree.advance(20)
    assert tree.system.in_flight().unavailable
    submit(tree, *range(100, 400))
    tree.advance(600)
    received = [event.message_id for event in tree.services.queues.events if event.operation == "receive"]
    assert len(received) == len(set(received)) <= 8 + 250


def test_an_outage_told_by_status_loses_nothing(tree: Tree) -> None:
    receipts = [tree.services.app_store.sell(f"t-{number}") for number in range(10)]
    for receipt in receipts:
        tree.services.app_store.script(receipt, {"status": 21005})
    for number, receipt in enumerate(receipts):
        tree.services.submit(receipt, user_id=number)
    tree.advance(5 * 3600)
    assert (tree.results(), tree.dead()) == ([], [])
    for number, receipt in enumerate(receipts):
        tree.services.app_store.script(receipt, genuine(f"t-{number}"))
    tree.advance(LONGEST_HAND_BACK_SECONDS)
    assert by_user(tree.results()) == [ok(number, f"t-{number}") for number in range(10)]
    tree.check_whole()


@pytest.fixture
def two_post_queues() -> Iterator[Tree]:
    yield from tree_of(SETTINGS.model_copy(update={"post_queues": (POST, "Others")}))


def test_trouble_with_a_post_queue_parks_its_own_messages(two_post_queues: Tree) -> None:
    tree = two_post_queues
    services = tree.services
    services.queues.fail_entries("send", times=None, befalls=lambda message: '"user_id":1' in message.body)
    for user_id, queue in ((1, "Others"), (2, POST)) * 5:
        services.submit(services.app_store.sell(f"t-{user_id}-{len(tree.source())}"), user_id, post_queue=queue)
    tree.advance(1)
    assert [result["user_id"] for result in tree.results()] == [2] * 5
    assert tree.system.in_flight().unavailable == frozenset()
    services.recover()
    tree.advance(LONG_ENOUGH_SECONDS)
    assert len(services.results("Others")) == 5
    assert tree.source() == []


class OneQueueDown(FakeServices):
    is_down = True

    @property
    def backend(self) -> Backend:
        return intercept(super().backend, self._unless_down)

    def _unless_down(self, call: PortCall) -> object:
        if self.is_down and call.operation == "send" and call.queue == "Others":
            raise QueueUnavailable("503")
        return call.carry_out()


def test_a_post_queue_that_is_down_leaves_room_for_the_others() -> None:
    """However many messages come for it: so many are kept, the others handed back, and no other queue waits."""
    services = OneQueueDown(SETTINGS.model_copy(update={"post_queues": (POST, "Others")}))
    tree = Tree(services=services)
    for number in range(3 * SETTINGS.max_in_flight):
        services.submit(services.app_store.sell(f"o-{number}"), number, post_queue="Others")
    tree.advance(120)
    kept = SETTINGS.max_in_flight // 2
    assert tree.system.in_flight().in_flight == kept
    assert set(tree.system.statistics().fates) == {("handed_back", Reason.POST_QUEUE_UNAVAILABLE)}
    submit(tree, 1000)
    tree.advance(1)
    assert tree.results() == [ok(1000, "t-1000")]

    services.is_down = False
    tree.advance(LONGEST_HAND_BACK_SECONDS)
    assert by_user(services.results("Others")) == [ok(number, f"o-{number}") for number in range(150)]
    tree.check_whole()
    tree.close()


def test_a_post_queue_that_does_not_exist_makes_its_messages_unanswerable(two_post_queues: Tree) -> None:
    tree = two_post_queues
    services = tree.services
    services.queues.delete_queue("Others")
    message_id = services.submit(services.app_store.sell("t-1"), 1, post_queue="Others")
    tree.advance(1)
    (dead,) = services.queues.messages(services.dead_letter_queue)
    assert dead.attributes["reason"] == Reason.POST_QUEUE_REFUSED
    assert dead.attributes["submission_id"] == message_id

    services.queues.create_queue("Others")
    redriven = {"submission_id": dead.attributes["submission_id"]}
    services.queues.put(SETTINGS.source_queue, dead.body, redriven)  # it has a new message id now
    tree.advance(1)
    assert services.results("Others") == [ok(1, "t-1")]


@pytest.mark.parametrize("update", [{"bundle_ids": ("com.example.next",)}, {"product_ids": ("gems",)}])
def test_a_policy_that_changes_leaves_an_earlier_ok(tree: Tree, update: dict[str, Any]) -> None:
    """The answer was posted, the delete was not: the redelivery asks the ledger first, whatever policy says by now."""
    tree.hold("queues", "delete", False, then=QueueUnavailable("time-out"))
    submit(tree, 7)
    tree.settle()
    assert tree.results() == [ok(7, "t-7")]
    tree.kill_process()
    tree.services.recover()
    tree.restart(SETTINGS.model_copy(update=update))
    tree.advance(LONG_ENOUGH_SECONDS)
    assert tree.results() == [ok(7, "t-7")] * 2
    assert (tree.source(), tree.dead()) == ([], [])


@pytest.mark.parametrize("now", [genuine("t-7", cancellation_date_ms="1"), genuine("t-7", bundle_id="com.example.x")])
def test_a_status_that_changes_leaves_an_earlier_ok(tree: Tree, now: dict[str, object]) -> None:
    tree.hold("queues", "delete", False, then=QueueUnavailable("time-out"))
    submit(tree, 7)
    tree.settle()
    tree.kill_process()
    tree.services.recover()
    tree.services.app_store.script(tree.services.app_store.sell("t-7"), now)
    tree.restart()
    tree.advance(LONG_ENOUGH_SECONDS)
    tree.check_answered(ok(7, "t-7"))


def test_a_submission_that_comes_in_two_messages_gets_ok_in_both(tree: Tree) -> None:
    receipt = tree.services.app_store.sell("t-1")
    for _ in range(2):
        tree.services.submit(receipt, 7, submission_id="s-1")
        tree.advance(1)
    assert tree.results() == [ok(7, "t-1")] * 2


def test_a_submission_id_alone_owns_nothing(tree: Tree) -> None:
    receipt = tree.services.app_store.sell("t-1")
    longer = tree.services.app_store.sell("t-1", "t-2")
    tree.services.submit(receipt, 7, submission_id="s-1")
    tree.advance(1)
    tree.services.submit(receipt, 8, submission_id="s-1")
    tree.services.submit(longer, 7, submission_id="s-1")
    tree.advance(1)
    assert sorted(map(str, tree.results())) == sorted(map(str, [ok(7, "t-1"), invalid(8, "t-1"), ok(7, "t-2")]))


def test_of_many_rivals_at_once_one_gets_ok(tree: Tree) -> None:
    receipt = tree.services.app_store.sell("t-1")
    with tree.hold("ledger", "claim", False):
        for user_id in range(40):
            tree.services.submit(receipt, user_id)
        tree.settle()
    tree.advance(1)
    assert sorted(result["status"] for result in tree.results()) == ["INVALID"] * 39 + ["OK"]
    tree.check_whole()


def test_a_message_delivered_twice_at_once_is_answered_alike(tree: Tree) -> None:
    tree.services.queues.fail("change_visibility", QueueUnavailable("503"), times=None)
    with tree.hold("app_store", "verify_receipt", False):
        submit(tree, 7)
        tree.advance(130)
        assert tree.system.in_flight().in_flight == 2
    tree.services.recover()
    tree.advance(LONG_ENOUGH_SECONDS)
    tree.check_answered(ok(7, "t-7"))


@pytest.mark.parametrize("body", ["", "no json", "[]", '{"user_id": 1}', '{"a": ' * 1000, "\ud800", '"' * 10000])
def test_nothing_that_a_message_contains_brings_the_tree_down(tree: Tree, body: str) -> None:
    tree.services.queues.put(SETTINGS.source_queue, body or " ")
    submit(tree, 7)
    tree.advance(1)
    assert tree.results() == [ok(7, "t-7")]


@pytest.mark.parametrize("status", [21002, 21003, 21010, 21100, 4711, -1, 10**30])
def test_no_status_brings_the_tree_down(tree: Tree, status: int) -> None:
    for number in range(60):
        receipt = tree.services.app_store.sell(f"odd-{number}")
        tree.services.app_store.script(receipt, {"status": status})
        tree.services.submit(receipt, user_id=number)
        if number == 0:  # Apple vouches for somebody, so what it refuses is refused
            tree.services.submit(tree.services.app_store.sell("t-1"), user_id=99)
            tree.settle()
    tree.advance(60)
    assert (len(tree.dead()), tree.source()) == (60, [])
    tree.check_whole()


def test_a_wrong_secret_answers_nobody(tree: Tree) -> None:
    """21004 is our own fault: no verdict, nothing moved by us; with the right secret everybody gets theirs."""
    receipt = tree.services.app_store.sell("t-1")
    tree.services.app_store.script(receipt, {"status": 21004})
    tree.services.submit(receipt, user_id=1)
    tree.advance(3600)
    assert (tree.results(), tree.dead()) == ([], [])
    tree.services.app_store.script(receipt, genuine("t-1"))
    tree.advance(LONGEST_HAND_BACK_SECONDS)
    tree.check_answered(ok(1, "t-1"))


def test_without_a_dead_letter_queue_a_message_is_left() -> None:
    settings = SETTINGS
    tree = Tree(settings)
    tree.close()
    queues = tree.services.queues
    queues.delete_queue(settings.source_queue)
    queues.create_queue(settings.source_queue)
    tree.restart()
    queues.put(settings.source_queue, "no json")
    tree.advance(3600)
    (message,) = queues.messages(settings.source_queue)
    assert 4 <= message.receive_count <= 6  # after the first it is for an operator: 15 minutes
    fates = tree.system.statistics().fates
    assert set(fates) == {("handed_back", Reason.NO_DEAD_LETTER_QUEUE)}
    tree.close()


def test_a_corrupt_copy_is_left_for_redelivery(tree: Tree) -> None:
    tree.services.queues.corrupt_next()
    submit(tree, 7)
    tree.advance(1)
    assert (tree.results(), tree.dead()) == ([], [])
    tree.advance(150)
    tree.check_answered(ok(7, "t-7"))


def hidden(tree: Tree) -> list[float]:
    return [message.hidden_for_seconds for message in tree.services.queues.messages(SETTINGS.source_queue)]


@pytest.fixture
def slow_tree() -> Iterator[Tree]:
    yield from tree_of(SETTINGS.model_copy(update={"app_store_rate_per_second": 0.001}))


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_what_is_in_flight_at_the_end_is_handed_back_at_once(slow_tree: Tree, ending: str) -> None:
    tree = slow_tree
    submit(tree, *range(51))
    tree.settle()
    assert (len(tree.results()), tree.system.in_flight().in_flight) == (1, 50)
    if ending == "drain":
        assert tree.system.drain(5.0) == 50
    else:
        tree.system.stop()
    assert hidden(tree) == [0.0] * 50
    tree.restart(SETTINGS)
    tree.advance(1)
    assert len(tree.results()) == 51


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_the_end_does_not_wait_for_long_polls(ending: str) -> None:
    before = set(threading.enumerate())
    tree = Tree()
    submit(tree, 7)
    tree.settle()
    getattr(tree.system, ending)()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("operation", ["verify_receipt", "claim", "send", "delete"])
def test_a_drain_does_not_wait_for_the_end_of_an_outage(tree: Tree, operation: str) -> None:
    begin_outage(tree, operation)
    submit(tree, *range(6))
    tree.advance(20)
    in_flight = tree.system.in_flight().in_flight
    assert in_flight > 0
    drained: list[int] = []
    draining = threading.Thread(target=lambda: drained.append(tree.system.drain(600.0)))
    draining.start()
    actor: Any = tree.find("in_flight").process.actor
    wait_until(lambda: actor._is_closed and not actor.outside_view().reserved, tree.actors)
    tree.services.clock.advance(STUCK_SECONDS)
    draining.join(PATIENCE_SECONDS)
    assert drained == [in_flight]
    assert hidden(tree) == [0.0] * 6
    fake_of(tree, operation).recover()
    tree.restart()
    tree.advance(LONG_ENOUGH_SECONDS)
    assert {result["user_id"] for result in tree.results()} == set(range(6))


def test_a_drain_finishes_what_is_in_flight(tree: Tree) -> None:
    hold = tree.hold("app_store", "verify_receipt", False)
    submit(tree, 7)
    tree.settle()
    drained: list[int] = []
    draining = threading.Thread(target=lambda: drained.append(tree.system.drain(PATIENCE_SECONDS)))
    draining.start()
    actor: Any = tree.find("in_flight").process.actor
    wait_until(lambda: actor._is_closed and not actor.outside_view().reserved, tree.actors)
    submit(tree, 8)
    hold.release()
    draining.join(PATIENCE_SECONDS)
    assert drained == [0]
    assert tree.results() == [ok(7, "t-7")]
    assert len(tree.source()) == 1
    tree.services.recover()
    tree.restart()
    tree.advance(1)
    assert len(tree.results()) == 2


@pytest.mark.parametrize("seed", range(6))
def test_chaos(tree: Tree, seed: int) -> None:
    """Crashes, kills, outages, lost answers at random: each purchase gets one OK, for its owner, and nobody is lost."""
    rng = random.Random(seed)
    services = tree.services
    expected: dict[str, set[int]] = {}
    workers = ["app_store_gateway", "ledger_gateway", "delete_batcher", "visibility_batcher"]
    submitted: dict[str, tuple[int, str]] = {}  # by submission id

    def someone_submits() -> None:
        transaction_id = f"t-{rng.randrange(40)}"
        user_id = rng.randrange(3)
        message_id = services.submit(services.app_store.sell(transaction_id), user_id)
        submitted[message_id] = (user_id, transaction_id)
        expected.setdefault(transaction_id, set()).add(user_id)

    def something_fails() -> None:
        operation = rng.choice(list(ERRORS))
        way = rng.choice(["fail", "lose_answer"])
        getattr(fake_of(tree, operation), way)(operation, ERRORS[operation], times=rng.randrange(1, 4))

    def somebody_dies() -> None:
        name = rng.choice([*workers, "in_flight", "gateways", "validators", "result_batchers"])
        ref = tree.actors.whereis(name)
        if ref is None:
            return
        if rng.random() < 0.5:
            ref.kill()
        else:
            ref.cast(object())

    def the_process_dies() -> None:
        tree.kill_process()
        tree.restart()

    events = [someone_submits] * 20 + [something_fails] * 4 + [somebody_dies] * 2 + [the_process_dies]
    for _ in range(150):
        rng.choice(events)()
        if rng.random() < 0.3:
            tree.advance(rng.choice([0.1, 1, 10, 60]))
        if tree.system.end_reason is not None:
            tree.restart()
    services.recover()
    tree.advance(2 * 3600)

    assert (tree.source(), tree.dead()) == ([], [])
    verdicts: dict[str, set[str]] = {}
    for message in services.queues.messages(POST):
        verdicts.setdefault(message.attributes["submission_id"], set()).add(message.body)
    assert set(verdicts) == set(submitted)
    assert all(len(bodies) == 1 for bodies in verdicts.values()), "two different answers to one submission"
    oks = [submission_id for submission_id, (body,) in verdicts.items() if '"OK"' in body]
    assert sorted(submitted[each][1] for each in oks) == sorted(expected), "not one OK for each transaction"
    owners = {item.submission_id for item in services.ledger.items.values()}
    assert owners == set(oks)
    tree.advance(120)
    tree.check_whole()


def test_settings_of_the_sandbox_are_obeyed() -> None:
    for environments, answered in (((Environment.PRODUCTION,), 0), (tuple(Environment), 1)):
        tree = Tree(Settings(**{**SETTINGS.model_dump(exclude_none=True), "environments": environments}))
        receipt = tree.services.app_store.sell("t-1")
        tree.services.app_store.script(receipt, {"status": 21007}, genuine("t-1", environment=Environment.SANDBOX))
        tree.services.submit(receipt, 7)
        tree.advance(1)
        assert (len(tree.results()), len(tree.dead())) == (answered, 1 - answered)
        tree.close()


@pytest.mark.parametrize(("receipts", "at_most"), [(1, 16), (100, 11)])
def test_a_receipt_costs_few_messages(tree: Tree, receipts: int, at_most: int) -> None:
    kinds = otp_sys.EventKind
    messages: list[otp_sys.Event] = []
    delivered = (kinds.CALL, kinds.CAST, kinds.INFO, kinds.REPLY)
    otp_sys.install_everywhere(tree.actors, "count", lambda _: messages.append, delivered)
    submit(tree, *range(receipts))
    tree.advance(1)
    assert len(tree.results()) == receipts
    # A supervisor gets the normal end of a child as a message only where it is watched.
    costs = [each for each in messages if each.content is not TIMEOUT and not isinstance(each.content, Exit)]
    assert len(costs) <= at_most * receipts, "\n".join(map(str, costs[:30]))
