"""Who owns a transaction, and what a node remembers of that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.messages import Submission
from receipt_actors.domain.ports import Environment, LedgerItem, Standing, Tombstone
from receipt_actors.domain.receipts import Transaction
from receipt_actors.domain.verdicts import (
    OursElsewhere,
    Owned,
    Ownership,
    identity,
    ledger_item,
    ownership_after_claim,
    ownership_after_lookup,
)
from receipt_actors.pipeline.ledger_gateway import KnownClaims

SUBMISSION = Submission("s-1", "m-1", 42, "AAAA", "ab" * 32, "answers", None, None, sent_at_seconds=90.0)
TRANSACTION = Transaction("1000", "999", "coins", 3, 80.0, None, cancelled=False, expired=False)
ITEM = ledger_item(SUBMISSION, TRANSACTION, Environment.SANDBOX, "receipts", now_seconds=100.0)


def test_a_claim_records_who_claimed_what_where_and_when() -> None:
    assert ITEM == LedgerItem(
        transaction_id="1000",
        submission_id="s-1",
        message_id="m-1",
        user_id=42,
        receipt_sha256="ab" * 32,
        product_id="coins",
        original_transaction_id="999",
        environment=Environment.SANDBOX,
        source_queue="receipts",
        post_queue="answers",
        claimed_at_seconds=100.0,
        refunded_at_seconds=None,
        quantity=3,
        schema_version=2,
    )


def test_what_nobody_claimed_is_new_after_a_claim_and_free_after_a_lookup() -> None:
    assert ownership_after_claim(None, ITEM) is Ownership.NEW
    assert ownership_after_lookup(None, ITEM) is Ownership.FREE


@pytest.mark.parametrize(
    ("standing", "ownership"),
    [
        (ITEM, Ownership.OURS),
        (replace(ITEM, message_id="m-2", claimed_at_seconds=1.0), Ownership.OURS),
        (replace(ITEM, refunded_at_seconds=200.0), Ownership.OURS),
        (replace(ITEM, submission_id="s-2"), Ownership.SAME_USER),
        (replace(ITEM, receipt_sha256="cd" * 32), Ownership.SAME_USER),
        (replace(ITEM, user_id=43), Ownership.OTHER_USER),
        (replace(ITEM, user_id=43, submission_id="s-2"), Ownership.OTHER_USER),
        (replace(ITEM, submission_id="s-2", refunded_at_seconds=200.0), Ownership.SAME_USER),
        (replace(ITEM, user_id=43, refunded_at_seconds=200.0), Ownership.OTHER_USER),
    ],
)
def test_a_standing_claim_is_ours_only_with_the_same_submission_user_and_receipt(
    standing: LedgerItem, ownership: Ownership
) -> None:
    """All three must agree; a refund changes nothing of whose it is; a claim and a lookup judge alike."""
    assert ownership_after_claim(standing, ITEM) is ownership
    assert ownership_after_lookup(standing, ITEM) is ownership


@pytest.mark.parametrize(
    ("standing", "owned"),
    [
        (replace(ITEM, source_queue="game-2"), Ownership.OURS),
        (replace(ITEM, post_queue="elsewhere"), OursElsewhere("elsewhere")),
        (replace(ITEM, post_queue="elsewhere", refunded_at_seconds=200.0), OursElsewhere("elsewhere")),
        (replace(ITEM, source_queue="game-2", post_queue="elsewhere"), Ownership.SAME_USER),
        (replace(ITEM, post_queue="elsewhere", user_id=43), Ownership.OTHER_USER),
        (replace(ITEM, post_queue="elsewhere", submission_id="s-2"), Ownership.SAME_USER),
        (replace(ITEM, post_queue=""), Ownership.OURS),
        (replace(ITEM, source_queue="game-2", post_queue=""), Ownership.OURS),
        (replace(ITEM, source_queue="", post_queue="elsewhere"), OursElsewhere("elsewhere")),
    ],
)
def test_the_way_of_a_submission_says_where_its_ok_belongs(standing: LedgerItem, owned: Owned) -> None:
    assert ownership_after_claim(standing, ITEM) == owned
    assert ownership_after_lookup(standing, ITEM) == owned


ways = st.builds(
    replace,
    st.just(ITEM),
    submission_id=st.sampled_from(["s-1", "s-2"]),
    user_id=st.sampled_from([42, 43]),
    receipt_sha256=st.sampled_from(["ab" * 32, "cd" * 32]),
    source_queue=st.sampled_from(["receipts", "game-2", "game-3"]),
    post_queue=st.sampled_from(["answers", "elsewhere", "shared"]),
    refunded_at_seconds=st.none() | st.just(200.0),
)


@given(st.lists(ways, min_size=1, max_size=20))
def test_one_post_queue_gets_ok_and_takes_no_harm(arrivals: list[LedgerItem]) -> None:
    """Whoever comes, in whatever order and by whatever way: the rules of the ledger, each as a property.

    One submission and one post queue get OK; what names that queue again as this submission never gets INVALID; and a
    claim that was made is never anybody's anew.
    """
    claim = arrivals[0]
    for wanted in arrivals:
        owned = ownership_after_claim(claim, wanted)
        same = (wanted.submission_id, wanted.user_id, wanted.receipt_sha256) == (
            claim.submission_id,
            claim.user_id,
            claim.receipt_sha256,
        )
        assert owned == ownership_after_lookup(claim, wanted)
        assert owned == ownership_after_claim(replace(claim, refunded_at_seconds=300.0), wanted)
        assert owned not in (Ownership.NEW, Ownership.FREE, Ownership.REFUNDED)
        got_ok = {Ownership.OURS: wanted.post_queue}.get(owned) if isinstance(owned, Ownership) else owned.post_queue
        assert got_ok in (None, claim.post_queue)
        assert same or got_ok is None
        if same and wanted.post_queue == claim.post_queue:
            assert owned is Ownership.OURS
        if same and wanted.source_queue == claim.source_queue:
            assert got_ok == claim.post_queue


def test_a_tombstone_is_nobodys_claim() -> None:
    tombstone = Tombstone(ITEM.transaction_id, 50.0)
    assert ownership_after_claim(tombstone, ITEM) is Ownership.REFUNDED
    assert ownership_after_lookup(tombstone, ITEM) is Ownership.REFUNDED


BOUND = 3
transaction_ids = st.sampled_from(["t-1", "t-2", "t-3", "t-4", "t-5"])
claims = st.builds(
    LedgerItem,
    transaction_id=transaction_ids,
    submission_id=st.sampled_from(["s-1", "s-2", "1 s-1", "\ud800"]),
    message_id=st.just("m"),
    user_id=st.sampled_from([1, 11, -(2**63)]),
    receipt_sha256=st.sampled_from(["ab" * 32, "cd" * 32]),
    product_id=st.none(),
    original_transaction_id=st.none(),
    environment=st.just(Environment.PRODUCTION),
    source_queue=st.sampled_from(["source", "source-2"]),
    post_queue=st.sampled_from(["post", "post-2"]),
    claimed_at_seconds=st.just(0.0),
)
steps = st.one_of(
    st.tuples(st.sampled_from(["claim", "look up"]), claims), st.tuples(st.sampled_from(["refund", "reversal"]), claims)
)


def marked(standing: Standing | None, transaction_id: str) -> Standing:
    claim = standing if isinstance(standing, LedgerItem) else None
    return Tombstone(transaction_id, 1.0) if claim is None else replace(claim, refunded_at_seconds=1.0)


def unmarked(standing: Standing | None) -> Standing | None:
    return replace(standing, refunded_at_seconds=None) if isinstance(standing, LedgerItem) else None


@given(st.lists(steps, max_size=40))
def test_what_is_known_agrees_with_the_ledger(history: list[tuple[str, LedgerItem]]) -> None:
    """Whoever is refused by it hears what the ledger would say; the owner is never; nothing is OK or free by it."""
    ledger: dict[str, Standing] = {}
    known = KnownClaims(BOUND)
    for what, wanted in history:
        transaction_id = wanted.transaction_id
        standing = ledger.get(transaction_id)
        if what in ("refund", "reversal"):
            after = marked(standing, transaction_id) if what == "refund" else unmarked(standing)
            ledger.pop(transaction_id, None)
            ledger |= {} if after is None else {transaction_id: after}
            continue
        obstacle = known.obstacle(wanted)
        judge = ownership_after_claim if what == "claim" else ownership_after_lookup
        if obstacle is not None:
            assert obstacle in (Ownership.SAME_USER, Ownership.OTHER_USER)
            assert obstacle is judge(standing, wanted)
            continue
        if what == "claim":
            ledger.setdefault(transaction_id, wanted)
        if transaction_id in ledger:
            known.learn(ledger[transaction_id])
        assert len(known) <= BOUND


@given(claims, claims)
def test_what_is_known_spares_the_ledger(owner: LedgerItem, wanted: LedgerItem) -> None:
    known = KnownClaims(BOUND)
    wanted = replace(wanted, transaction_id=owner.transaction_id)
    known.learn(owner)
    is_its_own = identity(wanted) == identity(owner)
    assert known.obstacle(wanted) is (None if is_its_own else ownership_after_lookup(owner, wanted))


@given(claims)
def test_a_tombstone_is_not_remembered(wanted: LedgerItem) -> None:
    known = KnownClaims(BOUND)
    known.learn(Tombstone(wanted.transaction_id, 1.0))
    assert known.obstacle(wanted) is None
    assert len(known) == 0


def test_the_oldest_is_forgotten_first() -> None:
    known = KnownClaims(2)
    first = LedgerItem("t-1", "s", "m", 1, "ab" * 32, None, None, Environment.PRODUCTION, "source", "post", 0.0)
    claimed = [replace(first, transaction_id=each) for each in ("t-1", "t-2", "t-3")]
    for each in claimed:
        known.learn(each)
    others = [known.obstacle(replace(each, user_id=2)) for each in claimed]
    assert others == [None, *[Ownership.OTHER_USER] * 2]
