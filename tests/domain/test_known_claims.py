"""The claims that are known never contradict the ledger, whatever it is asked and whatever they have forgotten."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.ledger import KnownClaims, Ownership, identity, ownership_after_claim, ownership_after_lookup
from receipt_actors.domain.ports import Environment, LedgerItem, Standing, Tombstone

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
    st.tuples(st.sampled_from(["claim", "look up"]), claims),
    st.tuples(st.sampled_from(["refund", "reversal"]), claims),
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
    """A replay of any other submission is refused by it, and says why; its own is not, by whatever way it comes."""
    known = KnownClaims(BOUND)
    wanted = replace(wanted, transaction_id=owner.transaction_id)
    known.learn(owner)
    is_its_own = identity(wanted) == identity(owner)
    assert known.obstacle(wanted) is (None if is_its_own else ownership_after_lookup(owner, wanted))


@given(claims)
def test_a_tombstone_is_not_remembered(wanted: LedgerItem) -> None:
    """It may be taken back, and then the transaction is free: the ledger is asked each time."""
    known = KnownClaims(BOUND)
    known.learn(Tombstone(wanted.transaction_id, 1.0))
    assert known.obstacle(wanted) is None
    assert len(known) == 0


def test_the_oldest_is_forgotten_first() -> None:
    """It is bounded; who was forgotten is asked for again."""
    known = KnownClaims(2)
    first = LedgerItem("t-1", "s", "m", 1, "ab" * 32, None, None, Environment.PRODUCTION, "source", "post", 0.0)
    claimed = [replace(first, transaction_id=each) for each in ("t-1", "t-2", "t-3")]
    for each in claimed:
        known.learn(each)
    others = [known.obstacle(replace(each, user_id=2)) for each in claimed]
    assert others == [None, *[Ownership.OTHER_USER] * 2]
