"""Several source queues in one tree, on fakes: each has its own rules, and none has to suffer for another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.backends import Backend
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError, QueueRefused, QueueUnavailable
from receipt_actors.pipeline.protocol import DELETE_BATCHER, IN_FLIGHT, VISIBILITY_BATCHER
from receipt_actors.telemetry.overview import State
from receipt_actors.testing import FakeServices, PortCall, SentSubmission, genuine, intercept, receipt_data_of
from tests.patience import PATIENCE_SECONDS
from tests.pipeline.trees import LONG_ENOUGH_SECONDS, Tree, invalid, ok

ONE, TWO = "com.example.one", "com.example.two"
FIRST, SECOND = "ReceiptsSQS", "Game2SQS"
OUT, OUT2 = "ResultsSQS", "Results2SQS"


def settings_of(second: dict[str, Any] | None = None, **settings: Any) -> Settings:
    table = {"bundle_ids": TWO, "post_queues": OUT2, **(second or {})}
    common = {"backend": "aws", "bundle_ids": ONE, "consumers": 2, "max_in_flight": 200}
    return Settings.model_validate({**common, "sources": {SECOND: table}, **settings})


class OneQueueInTrouble(FakeServices):
    def __init__(self, settings: Settings, queue: str = SECOND) -> None:
        super().__init__(settings)
        self.queue = queue
        self.trouble: dict[str, Exception] = {}
        self.asked: list[str | None] = []  # the operations of the queue in trouble

    @property
    def backend(self) -> Backend:
        return intercept(super().backend, self._around)

    def _around(self, call: PortCall) -> object:
        if call.queue == self.queue and call.operation in self.trouble:
            raise self.trouble[call.operation]
        return call.carry_out()


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = Tree(services=OneQueueInTrouble(settings_of()))
    yield tree
    tree.close()


def submit(tree: Tree, transaction_id: str, user_id: int, queue: str = FIRST, bundle_id: str = "", **more: Any) -> str:
    bundle_id = bundle_id or (ONE if queue == FIRST else TWO)
    receipt = tree.services.app_store.sell(transaction_id, bundle_id=bundle_id)
    source = None if queue == FIRST else queue
    return tree.services.submit(receipt, user_id, source_queue=source, **more)


def dead(tree: Tree, queue: str) -> list[str]:
    return [message.attributes["reason"] for message in tree.services.queues.messages(f"{queue}DLQ")]


def test_a_message_is_judged_by_the_rules_of_its_own_queue(tree: Tree) -> None:
    submit(tree, "t-1", 1)
    submit(tree, "t-2", 2, SECOND)
    submit(tree, "t-3", 3, bundle_id=TWO)
    submit(tree, "t-4", 4, SECOND, ONE)
    submit(tree, "t-5", 5, post_queue=OUT2)
    submit(tree, "t-6", 6, SECOND, post_queue=OUT)
    tree.advance(1)
    assert sorted(map(str, tree.services.results(OUT))) == sorted(map(str, [ok(1, "t-1"), invalid(3, "t-3")]))
    assert sorted(map(str, tree.services.results(OUT2))) == sorted(map(str, [ok(2, "t-2"), invalid(4, "t-4")]))
    not_allowed = [Reason.POST_QUEUE_NOT_ALLOWED]
    assert (dead(tree, FIRST), dead(tree, SECOND)) == (not_allowed, not_allowed)
    ledger = tree.services.ledger.items
    assert {key: (item.source_queue, item.post_queue) for key, item in ledger.items()} == {
        "t-1": (FIRST, OUT),
        "t-2": (SECOND, OUT2),
    }
    tree.check_whole()


def test_a_transaction_counts_once_whatever_queue_it_comes_by() -> None:
    tree = Tree(settings_of({"bundle_ids": "*"}))
    submit(tree, "t-1", 1, bundle_id=ONE)
    tree.advance(1)
    submit(tree, "t-1", 2, SECOND, ONE)
    tree.advance(1)
    assert (tree.services.results(OUT), tree.services.results(OUT2)) == ([ok(1, "t-1")], [invalid(2, "t-1")])
    tree.close()


@pytest.mark.parametrize("replies", [FIRST, SECOND])
def test_what_apple_refuses_is_answered_or_moved_as_the_source_says(replies: str) -> None:
    first, second = ("reply" if replies == queue else "dead-letter" for queue in (FIRST, SECOND))
    tree = Tree(settings_of({"unidentified": second}, unidentified=first))
    nonsense = receipt_data_of("made up")
    tree.services.submit(nonsense, 1)
    tree.services.submit(nonsense, 2, source_queue=SECOND)
    tree.advance(1)
    answers = {FIRST: len(tree.services.results(OUT)), SECOND: len(tree.services.results(OUT2))}
    assert answers == {queue: int(queue == replies) for queue in (FIRST, SECOND)}
    assert {queue: len(dead(tree, queue)) for queue in (FIRST, SECOND)} == {
        queue: int(queue != replies) for queue in (FIRST, SECOND)
    }
    tree.close()


def test_a_receipt_is_redirected_only_where_its_source_takes_the_sandbox() -> None:
    tree = Tree(settings_of({"environments": "Production,Sandbox"}))
    store = tree.services.app_store
    receipts = [receipt_data_of(f"sandbox {number}") for number in (1, 2)]
    for number, receipt in enumerate(receipts, start=1):
        found = genuine(f"t-{number}", bundle_id=ONE if number == 1 else TWO, environment=Environment.SANDBOX)
        store.script(receipt, {"status": 21007}, found)
    tree.services.submit(receipts[0], 1)
    tree.services.submit(receipts[1], 2, source_queue=SECOND)
    tree.advance(1)
    assert [store.requests(receipt, Environment.SANDBOX) for receipt in receipts] == [0, 1]
    assert (tree.services.results(OUT), tree.services.results(OUT2)) == ([], [ok(2, "t-2")])
    tree.close()


def deleted(services: OneQueueInTrouble) -> None:
    refused = QueueRefused(SECOND, "it does not exist")
    services.trouble = dict.fromkeys(("receive", "delete", "change_visibility"), refused)


def unreachable(services: OneQueueInTrouble) -> None:
    services.trouble = dict.fromkeys(("receive", "delete", "change_visibility"), QueueUnavailable("503"))


def undeletable(services: OneQueueInTrouble) -> None:
    services.trouble = {"delete": QueueUnavailable("503")}


@pytest.mark.parametrize("trouble", [deleted, unreachable, undeletable])
def test_trouble_with_one_queue_does_not_stop_the_other(
    tree: Tree, trouble: Callable[[OneQueueInTrouble], None]
) -> None:
    """Deleted, out of reach, half so: the other's messages are answered at once, and when it is over all are."""
    services = tree.services
    assert isinstance(services, OneQueueInTrouble)
    submit(tree, "before", 1, SECOND)
    tree.advance(1)
    trouble(services)
    for number in range(500):
        submit(tree, f"s-{number}", number, SECOND)
    tree.advance(60)  # until breakers are open
    for number in range(500):
        submit(tree, f"f-{number}", number)
    tree.advance(60)
    assert len(services.results(OUT)) == 500
    overview = tree.system.overview()
    (process,) = overview.processes
    assert overview.state is State.CONSUMING
    assert any(SECOND in service for service in process.unavailable)
    assert not any(service.endswith(FIRST) for service in process.unavailable)

    services.trouble = {}
    tree.advance(2 * LONG_ENOUGH_SECONDS)
    users = {result["user_id"] for result in services.results(OUT2) if result["status"] == "OK"}
    assert users == set(range(500))
    assert services.queues.messages(SECOND) == []
    tree.check_whole()


def test_both_in_trouble_is_a_system_that_waits(tree: Tree) -> None:
    tree.services.queues.fail("receive", QueueUnavailable("503"), times=None)
    tree.advance(30)
    overview = tree.system.overview()
    assert overview.state is State.WAITING
    assert overview.processes[0].unavailable == (f"receive from {SECOND}", f"receive from {FIRST}")
    tree.services.recover()
    tree.advance(30)
    assert tree.system.overview().state is State.CONSUMING


def test_a_backlog_of_thousands_does_not_hold_up_the_other() -> None:
    """Apple is asked 20 times a second: the backlog takes minutes, the other source's message a moment."""
    tree = Tree(settings_of(app_store_rate_per_second=20.0))
    for number in range(3000):
        submit(tree, f"b-{number}", number)
    tree.advance(10)
    for number in range(10):
        submit(tree, f"s-{number}", number, SECOND)
        tree.advance(1)
        assert len(tree.services.results(OUT2)) == number + 1
    assert len(tree.services.results(OUT)) > 100  # nor does the other hold up the backlog
    tree.close()


def test_in_an_outage_of_apples_both_are_kept_and_finished(tree: Tree) -> None:
    tree.services.app_store.fail("verify_receipt", AppStoreUnavailable("503"), times=None)
    for number in range(5):
        submit(tree, f"f-{number}", number)
        submit(tree, f"s-{number}", number, SECOND)
    tree.advance(60)
    assert tree.system.overview().state is State.WAITING
    tree.services.recover()
    tree.advance(LONG_ENOUGH_SECONDS)
    assert (len(tree.services.results(OUT)), len(tree.services.results(OUT2))) == (5, 5)
    tree.check_whole()


def test_a_users_group_on_one_fifo_queue_is_not_that_on_another() -> None:
    table = {"bundle_ids": TWO, "post_queues": "Out2.fifo"}
    top = {"source_queue": "One.fifo", "post_queues": "Out.fifo"}
    tree = Tree(settings_of(**top, sources={"Two.fifo": table}))
    stuck = receipt_data_of("stuck")
    tree.services.app_store.script(stuck, {"status": 21005})
    tree.services.submit(stuck, 7)
    tree.services.submit(tree.services.app_store.sell("t-1", bundle_id=ONE), 7)
    tree.services.submit(tree.services.app_store.sell("t-2", bundle_id=TWO), 7, source_queue="Two.fifo")
    tree.advance(1)
    assert (tree.services.results("Out.fifo"), tree.services.results("Out2.fifo")) == ([], [ok(7, "t-2")])
    tree.close()


@pytest.mark.parametrize(
    "name", [IN_FLIGHT, (DELETE_BATCHER, SECOND), (VISIBILITY_BATCHER, SECOND), ("consumer-1", SECOND)]
)
def test_whoever_crashes_nothing_is_lost(tree: Tree, name: Any) -> None:
    sent = []
    for number in range(20):
        for queue in (FIRST, SECOND):
            transaction_id = f"{queue}-{number}"
            submit(tree, transaction_id, number, queue, submission_id=f"s-{transaction_id}")
            sent.append(SentSubmission(f"s-{transaction_id}", number, frozenset({transaction_id})))
        if number % 5 == 0:
            tree.crash(name)
            tree.advance(3)
    tree.advance(LONG_ENOUGH_SECONDS)
    report = tree.services.audit(sent)
    assert (report.faults, report.answered) == ((), 40)
    tree.check_whole()


def test_a_killed_process_leaves_both_queues_to_its_successor(tree: Tree) -> None:
    hold = tree.hold("queues", "send", True)
    for number in range(5):
        submit(tree, f"f-{number}", number)
        submit(tree, f"s-{number}", number, SECOND)
    tree.settle()
    tree.kill_process()
    hold.release()
    tree.services.recover()
    tree.restart()
    tree.advance(LONG_ENOUGH_SECONDS)
    for queue, letter in ((OUT, "f"), (OUT2, "s")):
        answers = {str(result) for result in tree.services.results(queue)}
        assert answers == {str(ok(number, f"{letter}-{number}")) for number in range(5)}
    assert tree.services.queues.messages(FIRST) == tree.services.queues.messages(SECOND) == []


def test_everything_names_its_source(tree: Tree) -> None:
    submit(tree, "t-1", 1)
    submit(tree, "t-2", 2, SECOND)
    tree.advance(1)
    overview = tree.system.overview()
    assert overview.source_queues == (FIRST, SECOND)
    assert {FIRST, SECOND, f"{FIRST}DLQ", f"{SECOND}DLQ", OUT, OUT2} == set(overview.queues)
    calls = overview.statistics.calls
    assert [calls[f"receive from {queue}"].entries for queue in (FIRST, SECOND)] == [1, 1]
    services = {service.name for service in overview.processes[0].services}
    assert {f"delete from {FIRST}", f"delete from {SECOND}", f"visibility of {SECOND}"} <= services
    described = tree.system.actor_state(f"{DELETE_BATCHER} {SECOND}")
    assert described["class"] == "DeleteBatcher"
    assert tree.system.actor_state(f"consumer-2 {SECOND}")["class"] == "Consumer"
    assert tree.system.actor_state(IN_FLIGHT)["state"]["sources"].keys() == {FIRST, SECOND}


def test_sources_that_share_a_dead_letter_queue_are_refused() -> None:
    """Where only their redrive policies say so, too: what is redriven from there would be judged by the wrong rules."""
    services = FakeServices(settings_of())
    services.queues.create_queue(SECOND, f"{FIRST}DLQ", 20)
    with pytest.raises(ConfigurationError) as caught:
        services.start()
    (fault,) = caught.value.faults
    assert fault.startswith(f"queue {SECOND}: found dead_letter_queue {FIRST}DLQ, expected another one than that of")


def test_source_queues_are_looked_at_together() -> None:
    services = FakeServices(settings_of())
    all_are_asked = threading.Barrier(2, timeout=PATIENCE_SECONDS)

    def look(call: PortCall) -> object:
        if call.operation == "dead_letter_queue":
            all_are_asked.wait()
        return call.carry_out()

    system = ReceiptSystem.start(services.settings, backend=intercept(services.backend, look), clock=services.clock)
    assert not all_are_asked.broken
    system.stop()


def test_a_source_queue_that_is_not_there_is_told_at_the_start() -> None:
    services = FakeServices(settings_of())
    services.queues.delete_queue(SECOND)
    with pytest.raises(QueueRefused, match=SECOND):
        services.start()


def test_a_replacement_starts_without_a_queue_that_is_gone() -> None:
    """A process that takes the place of one that died must not be kept from the other's messages; from all it is."""
    services = FakeServices(settings_of())
    services.queues.delete_queue(SECOND)
    backend, clock = services.backend, services.clock
    tree = Tree(services=services, sources_may_be_missing=True)
    submit(tree, "t-1", 1)
    tree.advance(10)
    assert services.results(OUT) == [ok(1, "t-1")]
    assert tree.system.overview().processes[0].unavailable == (f"receive from {SECOND}",)
    services.queues.create_queue(SECOND, f"{SECOND}DLQ", 20)
    submit(tree, "t-2", 2, SECOND)
    tree.advance(60)
    assert services.results(OUT2) == [ok(2, "t-2")]
    tree.close()

    services.queues.delete_queue(FIRST)
    services.queues.delete_queue(SECOND)
    with pytest.raises(QueueRefused):
        ReceiptSystem.start(services.settings, backend=backend, clock=clock, sources_may_be_missing=True)


def test_a_program_may_submit_to_either_queue(tree: Tree) -> None:
    system: ReceiptSystem = tree.system
    receipt = tree.services.app_store.sell("t-1", bundle_id=TWO)
    system.submit(receipt, 7, source_queue=SECOND)
    tree.advance(1)
    assert tree.services.results(OUT2) == [ok(7, "t-1")]
    with pytest.raises(Exception, match="source_queue: found 'Game3SQS', expected one of ReceiptsSQS, Game2SQS"):
        system.submit(receipt, 7, source_queue="Game3SQS")
    with pytest.raises(Exception, match=Reason.POST_QUEUE_NOT_ALLOWED):
        system.submit(receipt, 7, source_queue=SECOND, post_queue=OUT)


def test_hundreds_of_sources_get_their_turns() -> None:
    """With all their consumers: what in_flight reckons for a receive grows with their number, not with its square."""
    queues = [f"Game{number}SQS" for number in range(300)]
    tree = Tree(Settings(backend="aws", bundle_ids=(ONE,), consumers=4, sources={queue: {} for queue in queues}))
    for number, queue in enumerate(queues):
        submit(tree, f"t-{number}", number, queue, ONE)
    tree.advance(1)
    assert sorted(result["user_id"] for result in tree.services.results(OUT)) == list(range(300))
    tree.close()
