"""What every adapter of the port ``Ledger`` promises: the same tests for the embedded ledger and DynamoDB.

DynamoDB is moto and, where it is installed, MiniStack, which is also met through a proxy that makes trouble; and what
``DYNAMODB_URL`` names, where that is set. Batches are never tried on moto, which does not understand them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import boto3
import pytest

from receipt_actors.aws import AwsLedger
from receipt_actors.domain.ports import MAX_CLAIMS, TAKEN, Environment, Ledger, LedgerItem, Standing, Tombstone
from receipt_actors.domain.verdicts import (
    OursElsewhere,
    Owned,
    Ownership,
    ownership_after_claim,
    ownership_after_lookup,
)
from receipt_actors.errors import LedgerUnavailable
from tests.chaos.aws_proxy import KEPT, AwsProxy
from tests.patience import PATIENCE_SECONDS

ITEM = LedgerItem(
    transaction_id="1000000046178817",
    submission_id="submission-é-🪙",
    message_id="0c7a1f2e-0000-4000-8000-000000000001",
    user_id=42,
    receipt_sha256="ab" * 32,
    product_id="com.example.coins.100",
    original_transaction_id="1000000046178800",
    environment=Environment.SANDBOX,
    source_queue="ReceiptsSQS",
    post_queue="ResultsSQS",
    claimed_at_seconds=1_700_000_000.125,
    quantity=3,
)
RIVAL = replace(ITEM, submission_id="another", user_id=7, receipt_sha256="cd" * 32)


def together(*actions: Callable[[], object]) -> list[Any]:
    start = threading.Barrier(len(actions))

    def act(action: Callable[[], object]) -> object:
        start.wait(timeout=PATIENCE_SECONDS)
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(act, actions))


def test_a_claim_is_made_once(ledger: Ledger) -> None:
    ledger.check()
    assert ledger.get(ITEM.transaction_id) is None
    assert ledger.claim(ITEM) is None
    assert ledger.claim(RIVAL) == ITEM
    assert ledger.claim(ITEM) == ITEM
    assert ledger.get(ITEM.transaction_id) == ITEM
    ledger.check()


VALUES: list[dict[str, Any]] = [
    {"product_id": None, "original_transaction_id": None},
    {"environment": Environment.PRODUCTION, "user_id": 2**63 - 1},
    {"refunded_at_seconds": 1_800_000_000.5, "schema_version": 7, "user_id": -(2**63)},
    {"quantity": 2**31 - 1, "refunded_at_seconds": 5.0, "revocation_type": "a type", "revocation_percentage": 0},
    {"quantity": None, "schema_version": 1},
    {"user_id": 0, "claimed_at_seconds": 0.0},
    {"transaction_id": "交易 🪙", "product_id": "x" * 256, "source_queue": "a", "post_queue": "b"},
    {"transaction_id": '\'}; DELETE FROM "claims" --', "submission_id": "', 'UserId': 7 \\ ?"},
]
EVERY_VALUE = [replace(ITEM, **{"transaction_id": str(number), **values}) for number, values in enumerate(VALUES)]


def test_every_value_comes_back_as_it_went(ledger: Ledger) -> None:
    for item in EVERY_VALUE:
        assert ledger.claim(item) is None
        assert ledger.get(item.transaction_id) == item
        assert ledger.claim(replace(RIVAL, transaction_id=item.transaction_id)) == item


def test_transactions_do_not_stand_in_each_others_way(ledger: Ledger) -> None:
    items = [replace(ITEM, transaction_id=transaction_id) for transaction_id in ("1", "10", "a", "A", " 1")]
    assert [ledger.claim(item) for item in items] == [None] * 5
    assert [ledger.get(item.transaction_id) for item in items] == items


def test_one_of_many_threads_wins(ledger: Ledger) -> None:
    rivals = [replace(ITEM, submission_id=f"submission-{number}", user_id=number) for number in range(16)]
    answers = together(*(partial(ledger.claim, rival) for rival in rivals))
    (winner,) = [rival for rival, answer in zip(rivals, answers, strict=True) if answer is None]
    assert [answer for answer in answers if answer is not None] == [winner] * 15


@pytest.mark.parametrize("is_refunded", [False, True])
def test_what_stands_says_where_an_ok_belongs(ledger: Ledger, is_refunded: bool) -> None:
    ledger.claim(ITEM)
    if is_refunded:
        ledger.mark_refunded(ITEM.transaction_id, REFUNDED_AT)
    ways: list[tuple[dict[str, Any], Owned]] = [
        ({}, Ownership.OURS),
        ({"message_id": "another", "claimed_at_seconds": 1.0}, Ownership.OURS),
        ({"source_queue": "Game2SQS"}, Ownership.OURS),
        ({"post_queue": "OtherSQS"}, OursElsewhere(ITEM.post_queue)),
        ({"source_queue": "Game2SQS", "post_queue": "OtherSQS"}, Ownership.SAME_USER),
        ({"post_queue": "OtherSQS", "user_id": 7}, Ownership.OTHER_USER),
        ({"submission_id": "another"}, Ownership.SAME_USER),
    ]
    for changes, owned in ways:
        wanted = replace(ITEM, **changes)
        assert ownership_after_claim(ledger.claim(wanted), wanted) == owned
        assert ownership_after_lookup(ledger.get(wanted.transaction_id), wanted) == owned


# --- refunds ---

REFUNDED_AT = 1_800_000_000.5
LATER = REFUNDED_AT + 60


def test_a_refund_marks_the_claim_and_nothing_else(ledger: Ledger) -> None:
    ledger.claim(ITEM)
    marked = replace(ITEM, refunded_at_seconds=REFUNDED_AT)
    assert ledger.mark_refunded(ITEM.transaction_id, REFUNDED_AT) == marked
    assert ledger.get(ITEM.transaction_id) == marked
    assert ledger.claim(RIVAL) == marked
    assert ledger.claim(ITEM) == marked


def test_the_latest_mark_stays(ledger: Ledger) -> None:
    ledger.claim(ITEM)
    ledger.mark_refunded(ITEM.transaction_id, 2.0)
    ledger.mark_refunded("unclaimed", 2.0)
    ledger.mark_refunded(ITEM.transaction_id, REFUNDED_AT)
    assert ledger.mark_refunded(ITEM.transaction_id, 1.0) == replace(ITEM, refunded_at_seconds=REFUNDED_AT)
    ledger.mark_refunded("unclaimed", REFUNDED_AT)
    assert ledger.mark_refunded("unclaimed", 1.0) == Tombstone("unclaimed", REFUNDED_AT)
    for again in (REFUNDED_AT, REFUNDED_AT + 1):
        assert ledger.mark_refunded(ITEM.transaction_id, again) == replace(ITEM, refunded_at_seconds=again)
        assert ledger.mark_refunded("unclaimed", again) == Tombstone("unclaimed", again)
        assert ledger.get(ITEM.transaction_id) == replace(ITEM, refunded_at_seconds=again)
        assert ledger.get("unclaimed") == Tombstone("unclaimed", again)


PART = {"revocation_type": "REFUND_PRORATED", "revocation_percentage": 33333}
MORE = {"revocation_type": "REFUND_PRORATED", "revocation_percentage": 66666}
WHOLE = {"revocation_type": "REFUND_FULL", "revocation_percentage": 100_000}


def test_a_mark_says_how_much_was_refunded(ledger: Ledger) -> None:
    """Of a claim as of a tombstone; a reversal takes all of it back."""
    ledger.claim(ITEM)
    marked = replace(ITEM, refunded_at_seconds=REFUNDED_AT, **PART)
    assert ledger.mark_refunded(ITEM.transaction_id, REFUNDED_AT, **PART) == marked
    assert ledger.get(ITEM.transaction_id) == marked == ledger.claim(RIVAL)
    assert ledger.unmark_refunded(ITEM.transaction_id, LATER) == ITEM == ledger.get(ITEM.transaction_id)
    tombstone = Tombstone("unclaimed", REFUNDED_AT, **PART)
    assert ledger.mark_refunded("unclaimed", REFUNDED_AT, **PART) == tombstone
    assert ledger.claim(replace(ITEM, transaction_id="unclaimed")) == tombstone == ledger.get("unclaimed")
    assert ledger.unmark_refunded("unclaimed", LATER) is None
    assert ledger.claim(replace(ITEM, transaction_id="unclaimed")) is None


MARKS: list[tuple[tuple[float, dict[str, Any]], tuple[float, dict[str, Any]]]] = [
    ((1.0, PART), (2.0, MORE)),
    ((1.0, MORE), (2.0, PART)),  # after a reversal that nobody told us of
    ((1.0, WHOLE), (2.0, {})),
    ((1.0, PART), (1.0, MORE)),
    ((1.0, PART), (1.0, WHOLE)),
    ((1.0, PART), (1.0, {})),
    ((1.0, {"revocation_type": "FAMILY_REVOKE"}), (2.0, PART)),
]


@pytest.mark.parametrize("is_claimed", [True, False])
def test_the_newest_mark_stays_in_whatever_order_they_come(ledger: Ledger, is_claimed: bool) -> None:
    """The later one with all that it says and nothing of the other; of one time, the higher percentage.

    Where a mark does not say how much, it is the whole. Repeated, it changes nothing.
    """
    for first, second in MARKS:
        for order in ((first, second), (second, first), (first, second, first, second)):
            item = replace(ITEM, transaction_id=str(order))
            if is_claimed:
                ledger.claim(item)
            for at_seconds, said in order:
                ledger.mark_refunded(item.transaction_id, at_seconds, **said)
            at_seconds, said = second
            expected: Standing = Tombstone(item.transaction_id, at_seconds, **said)
            if is_claimed:
                expected = replace(item, refunded_at_seconds=at_seconds, **said)
            assert ledger.get(item.transaction_id) == expected


def test_a_refund_before_its_claim_leaves_a_tombstone(ledger: Ledger) -> None:
    tombstone = Tombstone(ITEM.transaction_id, REFUNDED_AT)
    assert ledger.mark_refunded(ITEM.transaction_id, REFUNDED_AT) == tombstone
    assert ledger.get(ITEM.transaction_id) == tombstone
    assert ledger.claim(ITEM) == tombstone
    assert ledger.claim(RIVAL) == tombstone
    assert ledger.get(ITEM.transaction_id) == tombstone
    assert ledger.claim(replace(ITEM, transaction_id="another")) is None


def test_a_reversal_takes_the_mark_back(ledger: Ledger) -> None:
    ledger.claim(ITEM)
    assert ledger.unmark_refunded(ITEM.transaction_id, LATER) == ITEM
    ledger.mark_refunded(ITEM.transaction_id, REFUNDED_AT)
    assert ledger.unmark_refunded(ITEM.transaction_id, LATER) == ITEM
    assert ledger.unmark_refunded(ITEM.transaction_id, LATER) == ITEM
    assert ledger.get(ITEM.transaction_id) == ITEM
    assert ledger.claim(RIVAL) == ITEM
    assert ledger.mark_refunded(ITEM.transaction_id, 2.0) == replace(ITEM, refunded_at_seconds=2.0)


def test_a_reversal_takes_the_tombstone_back(ledger: Ledger) -> None:
    assert ledger.unmark_refunded(ITEM.transaction_id, LATER) is None  # of an unknown transaction: it leaves nothing
    assert ledger.get(ITEM.transaction_id) is None
    ledger.mark_refunded(ITEM.transaction_id, REFUNDED_AT)
    assert ledger.unmark_refunded(ITEM.transaction_id, LATER) is None
    assert ledger.get(ITEM.transaction_id) is None
    assert ledger.unmark_refunded(ITEM.transaction_id, LATER) is None
    assert ledger.claim(ITEM) is None
    assert ledger.claim(RIVAL) == ITEM


def test_a_reversal_leaves_the_mark_of_a_later_refund(ledger: Ledger) -> None:
    ledger.claim(ITEM)
    ledger.mark_refunded(ITEM.transaction_id, REFUNDED_AT)
    marked = replace(ITEM, refunded_at_seconds=REFUNDED_AT)
    assert ledger.unmark_refunded(ITEM.transaction_id, REFUNDED_AT - 0.5) == marked == ledger.get(ITEM.transaction_id)
    assert ledger.unmark_refunded(ITEM.transaction_id, REFUNDED_AT) == ITEM
    tombstone = ledger.mark_refunded("unclaimed", REFUNDED_AT)
    assert ledger.unmark_refunded("unclaimed", REFUNDED_AT - 0.5) == tombstone == ledger.get("unclaimed")
    assert ledger.unmark_refunded("unclaimed", REFUNDED_AT) is None


def test_strange_ids_are_refunded_like_others(ledger: Ledger) -> None:
    claimed = replace(ITEM, transaction_id="交易 🪙")
    ledger.claim(claimed)
    assert ledger.mark_refunded(claimed.transaction_id, 0.0) == replace(claimed, refunded_at_seconds=0.0)
    assert ledger.mark_refunded("'; DELETE --", 5.0) == Tombstone("'; DELETE --", 5.0)
    assert ledger.get("'; DELETE -") is None
    assert ledger.unmark_refunded(claimed.transaction_id, LATER) == claimed


def test_a_claim_and_its_refund_at_once_end_in_one_of_two_orders(ledger: Ledger) -> None:
    for number in range(20):
        item = replace(ITEM, transaction_id=f"race-{number}")
        marked, tombstone = replace(item, refunded_at_seconds=7.0), Tombstone(item.transaction_id, 7.0)
        claimed, refunded = together(
            partial(ledger.claim, item), partial(ledger.mark_refunded, item.transaction_id, 7.0)
        )
        assert (claimed, refunded) in [(None, marked), (tombstone, tombstone)]
        assert ledger.get(item.transaction_id) == refunded


def test_a_claim_among_refunds_and_reversals_is_made_or_refused_as_it_is_told(ledger: Ledger) -> None:
    for number in range(10):
        item = replace(ITEM, transaction_id=f"race-{number}")
        claimed, *_ = together(
            partial(ledger.claim, item),
            partial(ledger.mark_refunded, item.transaction_id, 7.0),
            partial(ledger.unmark_refunded, item.transaction_id, LATER),
            partial(ledger.unmark_refunded, item.transaction_id, LATER),
        )
        standing = ledger.get(item.transaction_id)
        if claimed is None:
            assert standing in (item, replace(item, refunded_at_seconds=7.0))
        else:
            assert claimed == Tombstone(item.transaction_id, 7.0)
            assert standing in (None, claimed)


# --- batches of claims ---


def claims(*transaction_ids: str, of: LedgerItem = ITEM) -> list[LedgerItem]:
    return [replace(of, transaction_id=transaction_id) for transaction_id in transaction_ids]


def test_a_batch_puts_what_is_free_and_tells_what_is_taken(batching_ledger: Ledger) -> None:
    (taken,) = claims("2", of=RIVAL)
    assert batching_ledger.claim(taken) is None
    items = claims("1", "2", "3")
    assert list(batching_ledger.claim_all(items)) == [None, TAKEN, None]
    assert [batching_ledger.get(item.transaction_id) for item in items] == [items[0], taken, items[2]]


def test_a_batch_again_finds_itself_claim_by_claim(batching_ledger: Ledger) -> None:
    items = claims("1", "2", "3")
    assert list(batching_ledger.claim_all(items)) == [None] * 3
    assert list(batching_ledger.claim_all(items)) == [TAKEN] * 3
    assert [batching_ledger.claim(item) for item in items] == items


def test_a_batch_writes_what_a_single_claim_writes(batching_ledger: Ledger) -> None:
    assert list(batching_ledger.claim_all(EVERY_VALUE)) == [None] * len(EVERY_VALUE)
    assert [batching_ledger.get(item.transaction_id) for item in EVERY_VALUE] == EVERY_VALUE
    assert [batching_ledger.claim(replace(item, submission_id="another")) for item in EVERY_VALUE] == EVERY_VALUE


def test_a_tombstone_stands_in_the_way_of_a_batch(batching_ledger: Ledger) -> None:
    batching_ledger.mark_refunded("2", 7.0)
    items = claims("1", "2", "3")
    assert list(batching_ledger.claim_all(items)) == [None, TAKEN, None]
    assert batching_ledger.claim(items[1]) == Tombstone("2", 7.0)
    batching_ledger.unmark_refunded("2", LATER)
    assert list(batching_ledger.claim_all(items)) == [TAKEN, None, TAKEN]


def test_batches_and_refunds_at_once_end_in_one_of_two_orders(batching_ledger: Ledger) -> None:
    items = claims(*map(str, range(10)))
    outcomes, *refunded = together(
        partial(batching_ledger.claim_all, items),
        *(partial(batching_ledger.mark_refunded, item.transaction_id, 7.0) for item in items),
    )
    for item, outcome, standing in zip(items, outcomes, refunded, strict=True):
        first = replace(item, refunded_at_seconds=7.0) if outcome is None else Tombstone(item.transaction_id, 7.0)
        assert standing == first
        assert batching_ledger.get(item.transaction_id) == first


def test_a_batch_has_up_to_25_claims_of_different_transactions(batching_ledger: Ledger) -> None:
    items = claims(*map(str, range(MAX_CLAIMS + 1)))
    assert list(batching_ledger.claim_all([])) == []
    with pytest.raises(ValueError, match="at most 25"):
        batching_ledger.claim_all(items)
    assert list(batching_ledger.claim_all(items[:MAX_CLAIMS])) == [None] * MAX_CLAIMS
    with pytest.raises(ValueError, match="different"):
        batching_ledger.claim_all([ITEM, RIVAL])
    assert batching_ledger.get(ITEM.transaction_id) is None


def test_one_of_many_batches_wins_each_claim(batching_ledger: Ledger) -> None:
    transaction_ids = [str(number) for number in range(10)]
    rivals = [replace(ITEM, submission_id=f"submission-{number}", user_id=number) for number in range(8)]
    batches = [claims(*transaction_ids, of=rival) for rival in rivals]
    answers = together(*(partial(batching_ledger.claim_all, batch) for batch in batches))
    for index, transaction_id in enumerate(transaction_ids):
        (winner,) = [rival for rival, answer in zip(rivals, answers, strict=True) if answer[index] is None]
        assert batching_ledger.get(transaction_id) == replace(winner, transaction_id=transaction_id)


# --- at the other end of a bad line ---


@pytest.fixture
def proxy(
    ministack_url: str, ministack_table: tuple[boto3.Session, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[AwsProxy]:
    proxy = AwsProxy(ministack_url, {}, seed=0)
    proxy.late_seconds = 60.0  # or until it is released
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def far_ledger(ministack_table: tuple[boto3.Session, str], proxy: AwsProxy) -> Iterator[AwsLedger]:
    session, table = ministack_table
    with closing(AwsLedger(table, session, read_timeout_seconds=60.0)) as ledger:
        yield ledger


@pytest.fixture
def hasty_ledger(ministack_table: tuple[boto3.Session, str], proxy: AwsProxy) -> Iterator[AwsLedger]:
    """Gives up waiting before long; on a busy machine perhaps before the request has arrived."""
    session, table = ministack_table
    with closing(AwsLedger(table, session, read_timeout_seconds=0.3)) as ledger:
        yield ledger


def ask_in_vain(ask: Callable[[], object], proxy: AwsProxy, operation: str, fault: str) -> None:
    proxy.rates = {operation: {fault: 1.0}}
    with pytest.raises(LedgerUnavailable):
        ask()
    if fault in KEPT:
        proxy.wait_until_kept()
    proxy.calm()


LOST = pytest.mark.parametrize("fault", ["lost", "cut", "slow"])


@LOST
def test_a_claim_whose_answer_was_lost_is_found_to_be_made(
    far_ledger: AwsLedger, hasty_ledger: AwsLedger, proxy: AwsProxy, fault: str
) -> None:
    asked = hasty_ledger if fault in KEPT else far_ledger
    ask_in_vain(lambda: asked.claim(ITEM), proxy, "PutItem", fault)
    assert far_ledger.claim(RIVAL) == ITEM
    assert far_ledger.claim(ITEM) == ITEM


@pytest.mark.parametrize("fault", ["refused", "throttled"])
def test_a_claim_that_was_refused_is_not_made(far_ledger: AwsLedger, proxy: AwsProxy, fault: str) -> None:
    proxy.rates = {"PutItem": {fault: 1.0}, "GetItem": {fault: 1.0}}
    with pytest.raises(LedgerUnavailable):
        far_ledger.claim(ITEM)
    with pytest.raises(LedgerUnavailable):
        far_ledger.get(ITEM.transaction_id)
    proxy.calm()
    assert far_ledger.get(ITEM.transaction_id) is None


@pytest.mark.parametrize("is_claimed_meanwhile", [True, False])
def test_a_put_that_arrives_late_takes_nothing_from_anybody(
    far_ledger: AwsLedger, hasty_ledger: AwsLedger, proxy: AwsProxy, is_claimed_meanwhile: bool
) -> None:
    ask_in_vain(lambda: hasty_ledger.claim(ITEM), proxy, "PutItem", "late")
    assert (far_ledger.claim(RIVAL) if is_claimed_meanwhile else far_ledger.get(ITEM.transaction_id)) is None
    proxy.release()
    proxy.wait_until_idle()
    assert far_ledger.claim(ITEM) == (RIVAL if is_claimed_meanwhile else ITEM)


@LOST
def test_a_mark_whose_answer_was_lost_is_found_to_be_made(
    far_ledger: AwsLedger, hasty_ledger: AwsLedger, proxy: AwsProxy, fault: str
) -> None:
    far_ledger.claim(ITEM)
    asked = hasty_ledger if fault in KEPT else far_ledger
    ask_in_vain(lambda: asked.mark_refunded(ITEM.transaction_id, REFUNDED_AT), proxy, "UpdateItem", fault)
    marked = replace(ITEM, refunded_at_seconds=REFUNDED_AT)
    assert far_ledger.get(ITEM.transaction_id) == marked
    assert far_ledger.mark_refunded(ITEM.transaction_id, 1.0) == marked


@pytest.mark.parametrize("operation", ["UpdateItem", "DeleteItem"])
def test_a_reversal_that_failed_can_be_repeated(far_ledger: AwsLedger, proxy: AwsProxy, operation: str) -> None:
    for number, fault in enumerate(["refused", "throttled", "lost", "cut"]):
        far_ledger.mark_refunded(str(number), REFUNDED_AT)
        ask_in_vain(partial(far_ledger.unmark_refunded, str(number), LATER), proxy, operation, fault)
        assert far_ledger.unmark_refunded(str(number), LATER) is None
        assert far_ledger.get(str(number)) is None


def test_a_deletion_that_arrives_late_deletes_no_claim(
    far_ledger: AwsLedger, hasty_ledger: AwsLedger, proxy: AwsProxy
) -> None:
    far_ledger.mark_refunded(ITEM.transaction_id, REFUNDED_AT)
    proxy.rates = {"DeleteItem": {"late": 1.0}}
    while not proxy.happened["DeleteItem", "late"]:  # or it was the step before it that took too long
        with pytest.raises(LedgerUnavailable):
            hasty_ledger.unmark_refunded(ITEM.transaction_id, LATER)
    proxy.wait_until_kept()
    proxy.calm()
    assert far_ledger.unmark_refunded(ITEM.transaction_id, LATER) is None
    assert far_ledger.claim(ITEM) is None
    proxy.release()
    proxy.wait_until_idle()
    assert far_ledger.get(ITEM.transaction_id) == ITEM


@LOST
def test_a_batch_whose_answer_was_lost_is_found_to_be_made(
    far_ledger: AwsLedger, hasty_ledger: AwsLedger, proxy: AwsProxy, fault: str
) -> None:
    items = claims("1", "2")
    asked = hasty_ledger if fault in KEPT else far_ledger
    ask_in_vain(lambda: asked.claim_all(items), proxy, "BatchExecuteStatement", fault)
    assert far_ledger.claim_all([*items, ITEM]) == [TAKEN, TAKEN, None]
    assert [far_ledger.claim(item) for item in items] == items


@pytest.mark.parametrize("fault", ["refused", "throttled"])
def test_a_batch_that_was_refused_is_not_made(far_ledger: AwsLedger, proxy: AwsProxy, fault: str) -> None:
    ask_in_vain(lambda: far_ledger.claim_all([ITEM]), proxy, "BatchExecuteStatement", fault)
    assert far_ledger.claim_all([ITEM]) == [None]


def test_a_batch_that_arrives_late_takes_nothing_from_anybody(
    far_ledger: AwsLedger, hasty_ledger: AwsLedger, proxy: AwsProxy
) -> None:
    ours, theirs = claims("1", "2"), claims("1", of=RIVAL)
    ask_in_vain(lambda: hasty_ledger.claim_all(ours), proxy, "BatchExecuteStatement", "late")
    assert far_ledger.claim_all(theirs) == [None]
    proxy.release()
    proxy.wait_until_idle()
    assert [far_ledger.claim(item) for item in ours] == [*theirs, ours[1]]
