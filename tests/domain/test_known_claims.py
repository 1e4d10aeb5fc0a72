"""The claims that are known never contradict the ledger, whatever it is asked and whatever they have forgotten."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.known_claims import KnownClaims
from receipt_actors.domain.ledger import Ownership, ownership_after_claim, ownership_after_lookup
from receipt_actors.domain.messages import Submission
from receipt_actors.domain.ports import Environment, LedgerItem, Standing, Tombstone

BOUND = 3
transaction_ids = st.sampled_from(["t-1", "t-2", "t-3", "t-4", "t-5"])
submissions = st.builds(
    Submission,
    submission_id=st.sampled_from(["s-1", "s-2", "1 s-1", "\ud800"]),
    message_id=st.just("m"),
    user_id=st.sampled_from([1, 11, -(2**63)]),
    receipt_data=st.just("r"),
    receipt_sha256=st.sampled_from(["ab" * 32, "cd" * 32]),
    post_queue=st.just("q"),
    transaction_id=st.none(),
    product_id=st.none(),
    sent_at_seconds=st.just(0.0),
)
steps = st.one_of(
    st.tuples(st.just("claim"), transaction_ids, submissions),
    st.tuples(st.just("look up"), transaction_ids, submissions),
    st.tuples(st.just("refund"), transaction_ids, st.none()),
    st.tuples(st.just("reversal"), transaction_ids, st.none()),
)


def item(transaction_id: str, submission: Submission) -> LedgerItem:
    return LedgerItem(
        transaction_id,
        submission.submission_id,
        submission.message_id,
        submission.user_id,
        submission.receipt_sha256,
        None,
        None,
        Environment.PRODUCTION,
        "source",
        "post",
        0.0,
    )


def marked(standing: Standing | None, transaction_id: str) -> Standing:
    claim = standing if isinstance(standing, LedgerItem) else None
    return Tombstone(transaction_id, 1.0) if claim is None else replace(claim, refunded_at_seconds=1.0)


def unmarked(standing: Standing | None) -> Standing | None:
    return replace(standing, refunded_at_seconds=None) if isinstance(standing, LedgerItem) else None


@given(st.lists(steps, max_size=40))
def test_what_is_known_agrees_with_the_ledger(history: list[tuple[str, str, Submission | None]]) -> None:
    """Whoever is refused by it is refused by the ledger; the owner is never; nothing is OK or free by it."""
    ledger: dict[str, Standing] = {}
    known = KnownClaims(BOUND)
    for what, transaction_id, asking in history:
        standing = ledger.get(transaction_id)
        if asking is None:
            after = marked(standing, transaction_id) if what == "refund" else unmarked(standing)
            ledger.pop(transaction_id, None)
            ledger |= {} if after is None else {transaction_id: after}
            continue
        wanted = item(transaction_id, asking)
        obstacle = known.obstacle(transaction_id, wanted if what == "claim" else asking)
        truth = ownership_after_claim(standing, wanted) if what == "claim" else ownership_after_lookup(standing, asking)
        if obstacle is not None:
            assert truth in (Ownership.SAME_USER, Ownership.OTHER_USER, Ownership.REFUNDED)
            assert obstacle is truth or Ownership.REFUNDED in (obstacle, truth)  # marked since, or not any more: no OK
            continue
        if what == "claim":
            ledger.setdefault(transaction_id, wanted)
        if transaction_id in ledger:
            known.learn(ledger[transaction_id])
        assert len(known) <= BOUND


@given(transaction_ids, submissions, submissions)
def test_what_is_known_spares_the_ledger(transaction_id: str, owner: Submission, asking: Submission) -> None:
    """A replay of any other submission is refused by it, and says why."""
    known = KnownClaims(BOUND)
    known.learn(item(transaction_id, owner))
    expected = ownership_after_lookup(item(transaction_id, owner), asking)
    assert known.obstacle(transaction_id, asking) is (None if expected is Ownership.OURS else expected)


@given(transaction_ids, submissions)
def test_a_tombstone_is_not_remembered(transaction_id: str, asking: Submission) -> None:
    """It may be taken back, and then the transaction is free: the ledger is asked each time."""
    known = KnownClaims(BOUND)
    known.learn(Tombstone(transaction_id, 1.0))
    assert known.obstacle(transaction_id, asking) is None
    assert len(known) == 0


def test_the_oldest_is_forgotten_first() -> None:
    """It is bounded; who was forgotten is asked for again."""
    known = KnownClaims(2)
    first = Submission("s", "m", 1, "r", "ab" * 32, "q", None, None, 0.0)
    for transaction_id in ("t-1", "t-2", "t-3"):
        known.learn(item(transaction_id, first))
    other = replace(first, user_id=2)
    assert [known.obstacle(each, other) for each in ("t-1", "t-2", "t-3")] == [None, *[Ownership.OTHER_USER] * 2]
