"""Who owns a transaction: the making of a claim, and the one comparison of a claim that stands with one that asks.

A claim belongs to a submission, which has *asked before* where submission id, user id and the receipt's hash are the
same. Where its answer belongs depends on the way that it comes by now:

===============  ==================  ====================================================================
source queue     post queue          the claim is
===============  ==================  ====================================================================
any              that of the claim   ``OURS``: the same OK, there
the claim's      another             ``OursElsewhere``: the same OK, on the claim's post queue and no other
another          another             another submission's, as any claim is that differs in one of the three
===============  ==================  ====================================================================

So no second post queue ever gets OK for a transaction, and none that got OK gets INVALID for the same submission. What
a claim does not say (another program wrote it) is taken as the one that asks has it.

A claim never changes its owner: a refund and its reversal change nothing of the above. Only a tombstone, which is no
claim of any submission, makes a transaction refunded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

import cachetools

from receipt_actors.domain.messages import Submission
from receipt_actors.domain.ports import MAX_CLAIMS, Environment, LedgerItem, Standing, Tombstone
from receipt_actors.domain.receipts import Transaction


class Ownership(Enum):
    """What the ledger says of a transaction, as seen by one submission."""

    NEW = "new"  #: claimed just now
    OURS = "ours"  #: this very submission claimed it before
    SAME_USER = "same_user"  #: another submission of the same user owns it
    OTHER_USER = "other_user"  #: another user's submission owns it
    REFUNDED = "refunded"  #: it was refunded before any claim
    FREE = "free"  #: looked up, and nobody has claimed it


@dataclass(frozen=True, slots=True)
class OursElsewhere:
    """This very submission claimed it before, and named another post queue then: its OK belongs there."""

    post_queue: str


#: What the ledger's answer means for the one that asks.
Owned: TypeAlias = Ownership | OursElsewhere


def ledger_item(
    submission: Submission, transaction: Transaction, environment: Environment, source_queue: str, now_seconds: float
) -> LedgerItem:
    """Return the claim of a submission on a transaction; ``now_seconds`` is UNIX time."""
    return LedgerItem(
        transaction_id=transaction.transaction_id,
        submission_id=submission.submission_id,
        message_id=submission.message_id,
        user_id=submission.user_id,
        receipt_sha256=submission.receipt_sha256,
        product_id=transaction.product_id,
        original_transaction_id=transaction.original_transaction_id,
        environment=environment,
        source_queue=source_queue,
        post_queue=submission.post_queue,
        claimed_at_seconds=now_seconds,
        quantity=transaction.quantity,
    )


def ownership_after_claim(standing: Standing | None, wanted: LedgerItem) -> Owned:
    """Judge the answer of ``Ledger.claim(wanted)``: None (it was put), or what stood in the way."""
    return Ownership.NEW if standing is None else _compare(standing, wanted)


def ownership_after_lookup(standing: Standing | None, wanted: LedgerItem) -> Owned:
    """Judge the answer of ``Ledger.get``: None (nobody has claimed it), or what stands in the way of ``wanted``."""
    return Ownership.FREE if standing is None else _compare(standing, wanted)


def identity(claim: LedgerItem) -> tuple[str, int, str]:
    """Return what makes two claims one submission's, all three: an id alone can be chosen, or reused by mistake."""
    return claim.submission_id, claim.user_id, claim.receipt_sha256


def _compare(standing: Standing, wanted: LedgerItem) -> Owned:
    if isinstance(standing, Tombstone):
        return Ownership.REFUNDED
    if identity(standing) == identity(wanted):
        if standing.post_queue in ("", wanted.post_queue):
            return Ownership.OURS
        if standing.source_queue in ("", wanted.source_queue):
            return OursElsewhere(standing.post_queue)
    return Ownership.SAME_USER if standing.user_id == wanted.user_id else Ownership.OTHER_USER


_HASH_BYTES = 16


class _Owner(NamedTuple):
    submission_hash: bytes
    user_id: int


class KnownClaims:
    """A bounded memory of who owns which transaction; it forgets the oldest first.

    It learns confirmed answers only, to refuse a replay of *another* submission without a call. It never says that a
    transaction is free or the asker's own. A tombstone is not remembered, for the refund may be reversed.
    """

    def __init__(self, max_transactions: int) -> None:
        self._owners: cachetools.FIFOCache[str, _Owner] = cachetools.FIFOCache(max_transactions)

    def learn(self, owner: Standing) -> None:
        if isinstance(owner, Tombstone):
            return
        self._owners[owner.transaction_id] = _Owner(_hash(owner), owner.user_id)

    def obstacle(self, wanted: LedgerItem) -> Ownership | None:
        """Return who else owns the transaction, or None: ask the ledger."""
        owner = self._owners.get(wanted.transaction_id)
        if owner is None or owner.submission_hash == _hash(wanted):
            return None
        return Ownership.SAME_USER if owner.user_id == wanted.user_id else Ownership.OTHER_USER

    def __len__(self) -> int:
        return len(self._owners)


def _hash(claim: LedgerItem) -> bytes:
    # The receipt's hash has a fixed length and the user id no letters: no two submissions run into the same text.
    submission_id, user_id, receipt_sha256 = identity(claim)
    text = f"{receipt_sha256} {user_id} {submission_id}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


def check_claims(items: Sequence[LedgerItem]) -> None:
    """Raise ``ValueError`` for what no ledger takes as a batch: too many claims, or two on the same transaction."""
    if len(items) > MAX_CLAIMS:
        raise ValueError(f"{len(items)} claims: expected at most {MAX_CLAIMS} a batch")
    if len({item.transaction_id for item in items}) < len(items):
        raise ValueError("two claims on the same transaction: expected different ones in a batch")
