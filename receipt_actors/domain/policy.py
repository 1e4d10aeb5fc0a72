"""What this installation accepts of what Apple vouches for: whose app, which products, which environments, and when.

A refusal is a reason, never yet a verdict: whoever got OK for a transaction keeps it, whatever the policy says by now
(``verdicts`` asks the ledger first).
"""

from __future__ import annotations

from dataclasses import dataclass

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Transaction


@dataclass(frozen=True, slots=True)
class Policy:
    """Allow-lists; None allows any."""

    bundle_ids: frozenset[str] | None
    product_ids: frozenset[str] | None = None
    environments: frozenset[Environment] = frozenset({Environment.PRODUCTION})


def refusal_of_receipt(receipt: Genuine, policy: Policy) -> Reason | None:
    """Say why no transaction of this receipt counts here, or None."""
    if policy.bundle_ids is not None and receipt.bundle_id not in policy.bundle_ids:
        return Reason.FOREIGN_BUNDLE
    if receipt.environment not in policy.environments:
        return Reason.ENVIRONMENT_REFUSED
    return None


def refusal_of_transaction(transaction: Transaction, policy: Policy, sent_at_seconds: float) -> Reason | None:
    """Say why this transaction does not count, or None. ``sent_at_seconds``: UNIX time of its message's sending."""
    if transaction.cancelled:
        return Reason.REFUNDED
    if _had_ended(transaction, sent_at_seconds):
        return Reason.EXPIRED
    if policy.product_ids is not None and transaction.product_id not in policy.product_ids:
        return Reason.FOREIGN_PRODUCT
    return None


def _had_ended(transaction: Transaction, sent_at_seconds: float) -> bool:
    """Judge a subscription at the time when its message was sent, not now.

    An outage of ours, or a long queue, must not turn a subscription that was alive when the player submitted it into
    INVALID. This holds for status 21006 too, which is Apple's view of now; it decides where Apple gave no date.
    """
    if transaction.expires_at_seconds is None:
        return transaction.expired
    return transaction.expires_at_seconds <= sent_at_seconds
