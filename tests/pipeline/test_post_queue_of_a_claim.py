"""One submission that comes by several ways, on fakes: the post queue that got its OK gets it again, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors import Settings
from receipt_actors.domain.messages import redriven_message
from receipt_actors.domain.ports import ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.testing import FakeServices, genuine, receipt_data_of
from tests.pipeline.trees import LONG_ENOUGH_SECONDS, Tree, invalid, ok

ONE, TWO = "com.example.one", "com.example.two"
FIRST, SECOND = "ReceiptsSQS", "Game2SQS"
OUT, OTHER, OUT2, SHARED = "ResultsSQS", "OtherResultsSQS", "Results2SQS", "SharedResultsSQS"
QUEUES = (OUT, OTHER, OUT2, SHARED)
OK = ok(1, "t-1")


def settings_of(*first_post_queues: str) -> Settings:
    return Settings.model_validate(
        {
            "backend": "aws",
            "bundle_ids": ONE,
            "post_queues": first_post_queues or (OUT, OTHER, SHARED),
            "consumers": 2,
            "max_in_flight": 200,
            "sources": {SECOND: {"bundle_ids": TWO, "post_queues": (OUT2, SHARED)}},
        }
    )


@pytest.fixture
def tree() -> Iterator[Tree]:
    services = FakeServices(settings_of())
    services.app_store.script(receipt_data_of("bought"), genuine("t-1", bundle_id=ONE))
    tree = Tree(services=services)
    yield tree
    tree.close()


def send(tree: Tree, source_queue: str, post_queue: str, user_id: int = 1, receipt: str = "bought") -> None:
    source = None if source_queue == FIRST else source_queue
    receipt_data = receipt_data_of(receipt)
    tree.services.submit(receipt_data, user_id, submission_id="s", source_queue=source, post_queue=post_queue)
    tree.advance(1)


def answers(tree: Tree) -> dict[str, list[Any]]:
    found = {queue: tree.services.results(queue) for queue in QUEUES}
    return {queue: results for queue, results in found.items() if results}


def dead(tree: Tree, source_queue: str) -> list[str]:
    return [message.attributes["reason"] for message in tree.services.queues.messages(f"{source_queue}DLQ")]


def test_by_the_same_way_it_gets_the_same_ok(tree: Tree) -> None:
    for _ in range(3):
        send(tree, FIRST, OUT)
    assert answers(tree) == {OUT: [OK] * 3}


def test_a_repeated_ok_goes_to_the_post_queue_that_got_the_first(tree: Tree) -> None:
    """Another one is named, which the source may answer to: it gets neither OK nor INVALID."""
    send(tree, FIRST, OUT)
    send(tree, FIRST, OTHER)
    assert answers(tree) == {OUT: [OK] * 2}
    assert tree.services.ledger.items["t-1"].post_queue == OUT
    tree.check_whole()


def test_by_another_source_to_another_post_queue_it_is_another_submission(tree: Tree) -> None:
    """It gets no OK, which a fresh submission would not get there, either; the first is told OK as ever."""
    send(tree, FIRST, OUT)
    send(tree, SECOND, OUT2)
    assert answers(tree) == {OUT: [OK], OUT2: [invalid(1, "t-1")]}
    send(tree, FIRST, OUT)
    assert answers(tree) == {OUT: [OK] * 2, OUT2: [invalid(1, "t-1")]}
    tree.check_whole()


def test_a_queue_that_got_ok_gets_no_invalid_by_whatever_source(tree: Tree) -> None:
    """Not even where the receipt's app is foreign to that source: its reader would take the purchase back."""
    send(tree, FIRST, SHARED)
    send(tree, SECOND, SHARED)
    assert answers(tree) == {SHARED: [OK] * 2}


def test_another_user_gets_no_ok_by_any_way(tree: Tree) -> None:
    send(tree, FIRST, SHARED)
    for source, post in ((FIRST, SHARED), (FIRST, OTHER), (SECOND, SHARED), (SECOND, OUT2)):
        send(tree, source, post, user_id=2)
    assert answers(tree) == {
        SHARED: [OK, invalid(2, "t-1"), invalid(2, "t-1")],
        OTHER: [invalid(2, "t-1")],
        OUT2: [invalid(2, "t-1")],
    }


@pytest.mark.parametrize("after", [False, True], ids=["before the answer", "after it"])
def test_a_kill_between_claim_and_answer_moves_no_ok(tree: Tree, after: bool) -> None:
    """The producer hears nothing and sends again, to another post queue: both copies are answered on the first."""
    with tree.hold("queues", "send", after, times=1):
        tree.services.submit(receipt_data_of("bought"), submission_id="s", post_queue=OUT)
        tree.settle()
        tree.kill_process()
    tree.services.recover()
    tree.restart()
    send(tree, FIRST, OTHER)
    tree.advance(LONG_ENOUGH_SECONDS)
    found = answers(tree)
    assert set(found) == {OUT}
    assert len(found[OUT]) >= 2
    assert all(answer == OK for answer in found[OUT])


def test_what_a_receipt_has_got_since_is_answered_where_it_was_asked(tree: Tree) -> None:
    bought, store = receipt_data_of("bought"), tree.services.app_store
    send(tree, FIRST, OUT)
    store.script(receipt_data_of("theirs"), genuine("t-9", bundle_id=ONE))
    send(tree, FIRST, OUT, user_id=9, receipt="theirs")
    store.script(bought, genuine("t-1", "t-2", "t-9", bundle_id=ONE))
    send(tree, FIRST, OTHER)
    found = answers(tree)
    assert found[OUT] == [OK, ok(9, "t-9"), OK]
    assert sorted(map(str, found[OTHER])) == sorted(map(str, [ok(1, "t-2"), invalid(1, "t-9")]))
    assert {key: item.post_queue for key, item in tree.services.ledger.items.items()} == {
        "t-1": OUT,
        "t-2": OTHER,
        "t-9": OUT,
    }


def test_a_post_queue_that_is_not_allowed_any_more_is_not_written_to(tree: Tree) -> None:
    """Nor is any other: the message waits in the dead-letter queue until somebody allows the queue again."""
    send(tree, FIRST, OUT)
    tree.kill_process()
    tree.restart(settings_of(OTHER, SHARED))
    send(tree, FIRST, OTHER)
    assert answers(tree) == {OUT: [OK]}
    assert dead(tree, FIRST) == [Reason.POST_QUEUE_NOT_ALLOWED]
    (letter,) = tree.services.queues.messages(f"{FIRST}DLQ")
    assert letter.attributes["detail"].startswith(f"the OK of transaction t-1 belongs on {OUT}, which is not in the")

    tree.kill_process()
    tree.restart(settings_of())
    again = redriven_message(ReceivedMessage(letter.message_id, "", letter.body, "", letter.attributes), FIRST)
    assert again is not None
    assert tree.services.queues.send(FIRST, [again]) == [None]
    tree.advance(1)
    assert answers(tree) == {OUT: [OK] * 2}


@pytest.mark.parametrize(
    ("lacks", "expected"),
    [
        ({"post_queue": ""}, {OTHER: [OK]}),
        ({"source_queue": ""}, {OUT: [OK]}),
        ({"post_queue": "", "source_queue": ""}, {OTHER: [OK]}),
    ],
)
def test_what_a_claim_does_not_say_is_taken_as_the_message_has_it(
    tree: Tree, lacks: dict[str, str], expected: dict[str, list[Any]]
) -> None:
    """An item put back by hand, say: the honest player gets OK, on the queue that got it where that is known."""
    send(tree, FIRST, OUT)
    claim = replace(tree.services.ledger.items["t-1"], **lacks)
    tree.kill_process()
    services = FakeServices(settings_of())
    services.app_store.script(receipt_data_of("bought"), genuine("t-1", bundle_id=ONE))
    services.ledger.claim(claim)
    tree.services = services
    tree.restart()
    send(tree, FIRST, OTHER)
    assert answers(tree) == expected
