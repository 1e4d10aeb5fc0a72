"""Who owns a transaction: the making of a claim, and the one comparison of a claim that stands with one that asks."""

from __future__ import annotations

from enum import Enum

from receipt_actors.domain.messages import Submission
from receipt_actors.domain.ports import Environment, LedgerItem, Standing, Tombstone
from receipt_actors.domain.receipts import Transaction


class Ownership(Enum):
    """What the ledger says of a transaction, as seen by one submission."""

    NEW = "new"  #: claimed just now
    OURS = "ours"  #: this very submission claimed it before
    SAME_USER = "same_user"  #: another submission of the same user owns it
    OTHER_USER = "other_user"  #: another user's submission owns it
    REFUNDED = "refunded"  #: another submission owned it until it was refunded, or it was refunded before any claim
    FREE = "free"  #: looked up, and nobody has claimed it


def ledger_item(
    submission: Submission, transaction: Transaction, environment: Environment, source_queue: str, now_seconds: float
) -> LedgerItem:
    """Make the claim of a submission on a transaction. ``now_seconds`` is UNIX time."""
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


def ownership_after_claim(standing: Standing | None, wanted: LedgerItem) -> Ownership:
    """Judge the answer of ``Ledger.claim(wanted)``: None (it was put), or what stood in the way."""
    return Ownership.NEW if standing is None else _compare(standing, wanted)


def ownership_after_lookup(standing: Standing | None, submission: Submission) -> Ownership:
    """Judge the answer of ``Ledger.get``: None (nobody has claimed it), or what stands."""
    return Ownership.FREE if standing is None else _compare(standing, submission)


def _compare(standing: Standing, asking: LedgerItem | Submission) -> Ownership:
    """Being the same submission takes all three: an id alone can be chosen by a producer, or reused by mistake.

    It goes before the mark of a refund: the same submission asking again gets the same OK, whatever happened since.
    A tombstone is nobody's claim: no submission has got OK.
    """
    if isinstance(standing, Tombstone):
        return Ownership.REFUNDED
    if (standing.submission_id, standing.user_id, standing.receipt_sha256) == (
        asking.submission_id,
        asking.user_id,
        asking.receipt_sha256,
    ):
        return Ownership.OURS
    if standing.refunded_at_seconds is not None:
        return Ownership.REFUNDED
    return Ownership.SAME_USER if standing.user_id == asking.user_id else Ownership.OTHER_USER
