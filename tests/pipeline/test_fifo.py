"""FIFO queues on the whole tree: a user's answers come in the order of his submissions, whatever befalls the tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receipt_actors import Settings
from receipt_actors.domain.sending import MIN_GROUP_HAND_BACK_SECONDS
from receipt_actors.errors import AppStoreUnavailable, LedgerUnavailable, QueueUnavailable
from receipt_actors.otp import Ref, which_children
from receipt_actors.pipeline.protocol import VALIDATORS
from receipt_actors.testing import FakeServices, genuine, receipt_data_of
from tests.pipeline.trees import LONG_ENOUGH_SECONDS, SETTINGS, STEP_IDS, STEPS, Tree

SOURCE, POST, DEAD = "Receipts.fifo", "Results.fifo", "ReceiptsDLQ.fifo"
FIFO = Settings(**{**SETTINGS.model_dump(exclude_none=True), "source_queue": SOURCE, "post_queues": (POST,)})
VISIBILITY_SECONDS = FIFO.visibility_timeout_seconds
WORKERS = [
    "validator",
    "app_store_gateway",
    "ledger_gateway",
    "delete_batcher",
    "visibility_batcher",
    "in_flight",
    "consumer-1",
]
SUPERVISORS = ["custody", "gateways", "batchers", "validators", "pipeline"]


class FifoTree(Tree):
    def __init__(self, services: FakeServices | None = None) -> None:
        super().__init__(FIFO, services)
        self.sent: defaultdict[int, list[str]] = defaultdict(list)  # by user, the submission ids in order
        self.odd: set[str] = set()  # transactions about which Apple says that it has trouble

    def submit(self, user_id: int, count: int = 1) -> None:
        for _ in range(count):
            number = len(self.sent[user_id])
            submission_id, transaction_id = f"s-{user_id}-{number}", f"t-{user_id}-{number}"
            receipt = receipt_data_of(transaction_id)
            answer = {"status": 21005} if transaction_id in self.odd else genuine(transaction_id)
            self.services.app_store.script(receipt, answer)
            self.services.submit(receipt, user_id, submission_id=submission_id)
            self.sent[user_id].append(submission_id)

    def recover(self) -> None:
        self.services.recover()
        for transaction_id in self.odd:
            self.services.app_store.script(receipt_data_of(transaction_id), genuine(transaction_id))
        self.odd.clear()

    def answered(self, user_id: int) -> list[str]:
        messages = self.services.queues.messages(POST)
        return [each.attributes["submission_id"] for each in messages if each.group_id == str(user_id)]

    def first_answers(self, user_id: int) -> list[str]:
        return list(dict.fromkeys(self.answered(user_id)))

    def left(self) -> list[str]:
        return [message.attributes["submission_id"] for message in self.services.queues.messages(SOURCE)]

    def asked(self) -> list[str]:
        children = which_children(self.find(VALIDATORS), 10)
        actors = [child.child.process.actor for child in children if isinstance(child.child, Ref)]
        return sorted(actor._submission.submission_id for actor in actors if actor._steps)

    def crash_validator(self, number: int) -> None:
        supervisor = self.actors.whereis(VALIDATORS)
        children = [] if supervisor is None else which_children(supervisor, 10)
        if children:
            ref = children[number % len(children)].child
            assert isinstance(ref, Ref)
            ref.cast(object())
        self.settle()

    def dead_letters(self) -> list[str]:
        return [message.attributes["submission_id"] for message in self.services.queues.messages(DEAD)]

    def check_order(self) -> None:
        for user_id, sent in self.sent.items():
            answers = self.first_answers(user_id)
            assert answers == sent[: len(answers)], (user_id, answers)

    def check_all_answered(self) -> None:
        for user_id, sent in self.sent.items():
            assert self.first_answers(user_id) == sent
        assert {result["status"] for result in self.services.results()} <= {"OK"}
        assert (self.left(), self.dead_letters()) == ([], [])
        assert self.system.in_flight().in_flight == 0


@pytest.fixture
def tree() -> Iterator[FifoTree]:
    tree = FifoTree()
    yield tree
    tree.close()


def finish(tree: FifoTree) -> None:
    tree.services.recover()
    tree.advance(LONG_ENOUGH_SECONDS)


def test_answers_come_in_the_order_of_the_submissions(tree: FifoTree) -> None:
    for user_id in (1, 2, 3, 1, 2, 1):
        tree.submit(user_id, 4)
    tree.advance(5)
    tree.check_all_answered()
    assert tree.answered(1) == tree.sent[1]
    assert len(tree.services.queues.messages(POST)) == 24


def test_one_of_a_user_is_worked_on_and_the_others_wait(tree: FifoTree) -> None:
    hold = tree.hold("app_store", "verify_receipt", False)
    tree.system.pause()  # so that one receive brings all of them: a queue gives no more of a group that it has given of
    tree.submit(1, 5)
    tree.submit(2, 2)
    tree.system.resume()
    tree.advance(1)
    assert tree.asked() == ["s-1-0", "s-2-0"]
    assert tree.system.in_flight().in_flight == 7
    tree.advance(3 * VISIBILITY_SECONDS)  # what waits is extended as well: nothing comes a second time
    assert {message.receive_count for message in tree.services.queues.messages(SOURCE)} == {1}
    hold.release()
    tree.advance(1)
    tree.check_all_answered()


def test_the_next_one_begins_when_the_one_before_is_deleted(tree: FifoTree) -> None:
    hold = tree.hold("queues", "delete", False)
    tree.submit(1, 2)
    tree.advance(0.1)
    assert tree.answered(1) == ["s-1-0"]
    assert tree.asked() == ["s-1-0"]
    hold.release()
    tree.advance(1)
    tree.check_all_answered()


def test_what_is_behind_one_that_is_handed_back_comes_again_after_it(tree: FifoTree) -> None:
    """In order, and soon: a user should not wait half a minute for a hiccup. Other users are not disturbed."""
    tree.hold("app_store", "verify_receipt", False)
    tree.submit(1, 3)
    tree.settle()
    tree.crash_validator(0)
    tree.services.recover()
    tree.submit(2, 2)
    tree.advance(MIN_GROUP_HAND_BACK_SECONDS * 0.7)
    assert (tree.answered(1), tree.answered(2)) == ([], tree.sent[2])
    first, *others = [message.hidden_for_seconds for message in tree.services.queues.messages(SOURCE)]
    assert (0 < first <= MIN_GROUP_HAND_BACK_SECONDS, others) == (True, [0, 0])
    tree.advance(MIN_GROUP_HAND_BACK_SECONDS)
    tree.check_all_answered()


def test_one_that_cannot_be_answered_lets_the_next_one_through(tree: FifoTree) -> None:
    tree.submit(1, 1)
    tree.services.queues.put(SOURCE, "no json", {"submission_id": "odd"}, "1")
    tree.submit(1, 2)
    tree.advance(1)
    assert tree.answered(1) == tree.sent[1]
    (dead,) = tree.services.queues.messages(DEAD)
    assert (dead.attributes["reason"], dead.group_id) == ("not_json", "1")
    assert tree.left() == []


def test_what_is_behind_a_corrupt_copy_comes_after_it(tree: FifoTree) -> None:
    tree.services.queues.interrupt()
    hold = tree.hold("queues", "receive", False)
    tree.services.queues.interrupt()
    tree.settle()
    tree.submit(1, 3)
    tree.services.queues.corrupt_next()
    hold.release()
    tree.advance(1)
    assert tree.answered(1) == []
    tree.advance(VISIBILITY_SECONDS)
    tree.check_all_answered()


def test_a_submission_id_that_was_given_twice_costs_nobody_an_answer(tree: FifoTree) -> None:
    """Whoever has the id besides: the queue swallows what says the same to the same user, and nothing else."""
    receipt = receipt_data_of("t-1")
    tree.services.app_store.script(receipt, genuine("t-1"))
    for user_id in (1, 2, 3, 3):
        tree.services.submit(receipt, user_id, submission_id="not-unique")
        tree.advance(1)
    answers = [(result["user_id"], result["status"]) for result in tree.services.results()]
    assert answers == [(1, "OK"), (2, "INVALID"), (3, "INVALID")]
    assert tree.left() == []


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
@pytest.mark.parametrize("how", ["crash", "kill"])
@pytest.mark.parametrize("who", WORKERS)
def test_any_worker_may_die_at_any_step(tree: FifoTree, who: str, how: str, step: tuple[str, str, bool]) -> None:
    tree.hold(*step)
    tree.submit(1, 3)
    tree.settle()
    if who == "validator":
        children = which_children(tree.find(VALIDATORS), 10)
        ref = children[0].child
        assert isinstance(ref, Ref)
        ref.kill() if how == "kill" else ref.cast(object())
        tree.settle()
    else:
        getattr(tree, how)(who)
    tree.check_order()
    finish(tree)
    tree.check_all_answered()


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
@pytest.mark.parametrize("who", SUPERVISORS)
def test_any_supervisor_may_die_at_any_step(tree: FifoTree, who: str, step: tuple[str, str, bool]) -> None:
    tree.hold(*step)
    tree.submit(1, 3)
    tree.settle()
    tree.crash(who)
    tree.check_order()
    finish(tree)
    tree.check_all_answered()


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
def test_the_process_may_die_at_any_step(tree: FifoTree, step: tuple[str, str, bool]) -> None:
    """kill -9: all of the group come back by their visibility timeouts, and its successor keeps the order."""
    tree.hold(*step)
    tree.submit(1, 3)
    tree.settle()
    tree.kill_process()
    tree.restart()
    finish(tree)
    tree.check_all_answered()


def test_a_drain_hands_back_what_waits(tree: FifoTree) -> None:
    tree.hold("app_store", "verify_receipt", False)
    tree.submit(1, 3)
    tree.settle()
    assert tree.system.drain(5.0) == 3  # five seconds are for handing back: it is over at once
    assert [message.hidden_for_seconds for message in tree.services.queues.messages(SOURCE)] == [0, 0, 0]
    tree.services.recover()
    tree.restart()
    tree.advance(1)
    tree.check_all_answered()


ERRORS = {
    "verify_receipt": AppStoreUnavailable("503"),
    "claim": LedgerUnavailable("time-out"),
    "send": QueueUnavailable("503"),
    "delete": QueueUnavailable("503"),
    "receive": QueueUnavailable("503"),
    "change_visibility": QueueUnavailable("503"),
}
USERS = st.integers(1, 3)
EVENTS = st.one_of(
    st.tuples(st.just("submit"), USERS, st.integers(1, 6)),
    st.tuples(st.just("crash"), st.sampled_from([each for each in WORKERS if each != "validator"])),
    st.tuples(st.just("kill"), st.sampled_from([each for each in WORKERS if each != "validator"])),
    st.tuples(st.just("crash validator"), st.integers(0, 20)),
    st.tuples(st.just("crash"), st.sampled_from(SUPERVISORS[:-1])),
    st.tuples(st.just("kill process")),
    st.tuples(st.just("hold"), st.sampled_from(STEPS)),
    st.tuples(st.just("fail"), st.sampled_from(sorted(ERRORS)), st.integers(1, 8)),
    st.tuples(st.just("lose answer"), st.sampled_from(sorted(ERRORS)), st.integers(1, 3)),
    st.tuples(st.just("status"), USERS, st.integers(0, 3)),
    st.tuples(st.just("corrupt"), st.integers(1, 2)),
    st.tuples(st.just("recover")),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 1.0, 10.0, 70.0, 130.0])),
)


class Player:
    def __init__(self, tree: FifoTree) -> None:
        self.tree = tree

    def play(self, event: tuple[object, ...]) -> None:
        tree, services = self.tree, self.tree.services
        match event:
            case ("submit", int(user_id), int(count)):
                tree.submit(user_id, count)
            case ("crash" | "kill" as how, str(who)):
                if tree.actors.whereis(who) is not None:
                    getattr(tree, how)(who)
            case ("crash validator", int(number)):
                tree.crash_validator(number)
            case ("kill process",):
                tree.kill_process()
                services.recover()
                tree.restart()
            case ("hold", (str(fake), str(operation), bool(after))):
                tree.hold(fake, operation, after)
            case ("fail", str(operation), int(times)):
                self.fake(operation).fail(operation, ERRORS[operation], times=times)
            case ("lose answer", str(operation), int(times)):
                self.fake(operation).lose_answer(operation, ERRORS[operation], times=times)
            case ("status", int(user_id), int(after)):  # for one of those that are sent next
                tree.odd.add(f"t-{user_id}-{len(tree.sent[user_id]) + after}")
            case ("corrupt", int(deliveries)):
                services.queues.corrupt_next(deliveries)
            case ("recover",):
                tree.recover()
            case ("advance", float(seconds)):
                tree.advance(seconds)
        tree.settle()

    def fake(self, operation: str) -> object:
        services = self.tree.services
        return {"verify_receipt": services.app_store, "claim": services.ledger}.get(operation, services.queues)


@pytest.mark.slow
@given(st.lists(EVENTS, min_size=3, max_size=25))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_the_order_survives_whatever_happens(events: list[tuple[object, ...]]) -> None:
    """Crashes, kills, outages, lost answers, odd statuses, corrupt copies: order at every moment, all in the end.

    Repetitions aside: an answer may come again, but the first one of a submission never comes before its
    predecessor's.
    """
    tree = FifoTree()
    player = Player(tree)
    try:
        for event in events:
            player.play(event)
            tree.check_order()
        tree.recover()
        tree.advance(1)
        if (
            tree.system.end_reason is not None
        ):  # too many crashes in too short a time: the process ends, and is replaced
            tree.restart()
        tree.advance(4 * LONG_ENOUGH_SECONDS)
        tree.check_all_answered()
    finally:
        tree.close()
