"""What this installation accepts of what Apple vouches for, and the source queues. Pure.

A refusal is only a reason: ``verdicts`` asks the ledger first, for a submission keeps the OK that it got.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID, uuid5

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, ProductType, Transaction

#: How an ``appAccountToken`` (a UUID in lower case) follows from a user's id; None: this user can have none.
TokenRule: TypeAlias = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class AccountTokens:
    """Whom the app says it bought for: what has the token of another user is refused."""

    token_of: TokenRule
    required: bool = False  #: what has none is refused as well


@dataclass(frozen=True, slots=True)
class Policy:
    """Allow-lists; None allows any."""

    bundle_ids: frozenset[str] | None
    product_ids: frozenset[str] | None = None
    environments: frozenset[Environment] = frozenset({Environment.PRODUCTION})
    product_types: frozenset[ProductType] | None = None  #: what Apple gives no type for is not refused for it
    takes_family_shared: bool = True
    account_tokens: AccountTokens | None = None  #: None: whatever token is there says nothing


def token_by_uuid5(namespace: UUID) -> TokenRule:
    """Return the rule: a token is the UUID of version 5 (RFC 9562) of the decimal user id."""

    def token_of(user_id: int) -> str:
        return str(uuid5(namespace, str(user_id)))

    return token_of


def token_by_number(user_id: int) -> str | None:
    """Return the UUID whose number is the user id: 7 has 00000000-0000-0000-0000-000000000007, -7 none."""
    return str(UUID(int=user_id)) if user_id >= 0 else None


def refusal_of_receipt(receipt: Genuine, policy: Policy) -> Reason | None:
    if policy.bundle_ids is not None and receipt.bundle_id not in policy.bundle_ids:
        return Reason.FOREIGN_BUNDLE
    if receipt.environment not in policy.environments:
        return Reason.ENVIRONMENT_REFUSED
    return None


def refusal_of_transaction(
    transaction: Transaction, policy: Policy, sent_at_seconds: float, user_id: int
) -> Reason | None:
    """Return why this transaction does not count for this user, or None; times are UNIX times."""
    if transaction.is_upgraded:  # before refunds: verifyReceipt gives a cancellation date for both
        return Reason.UPGRADED
    if transaction.cancelled:
        return Reason.REFUNDED
    if _had_ended(transaction, sent_at_seconds):
        return Reason.EXPIRED
    if policy.product_ids is not None and transaction.product_id not in policy.product_ids:
        return Reason.FOREIGN_PRODUCT
    if not _is_of_a_type(transaction, policy):
        return Reason.PRODUCT_TYPE_REFUSED
    if transaction.is_family_shared and not policy.takes_family_shared:
        return Reason.FAMILY_SHARED
    if not _is_for(user_id, transaction, policy):
        return Reason.FOREIGN_ACCOUNT
    return None


def _had_ended(transaction: Transaction, sent_at_seconds: float) -> bool:
    """Judge a subscription at its submission: our outage must not turn it into INVALID.

    This includes status 21006, which is Apple's view of now; it decides where Apple gave no date.
    """
    if transaction.expires_at_seconds is None:
        return transaction.expired
    return transaction.expires_at_seconds <= sent_at_seconds


def _is_of_a_type(transaction: Transaction, policy: Policy) -> bool:
    # verifyReceipt says nothing of types: to refuse for its silence would be to refuse genuine purchases.
    return (
        policy.product_types is None
        or transaction.product_type is None
        or transaction.product_type in policy.product_types
    )


def _is_for(user_id: int, transaction: Transaction, policy: Policy) -> bool:
    tokens = policy.account_tokens
    if tokens is None:
        return True
    if transaction.app_account_token is None:
        return not tokens.required
    return transaction.app_account_token == tokens.token_of(user_id)


@dataclass(frozen=True, slots=True)
class Source:
    """A source queue and its rules."""

    queue: str
    post_queues: frozenset[str]  #: all that a message from here may name for its answer
    dead_letter_queue: str | None  #: None: what can't be answered stays where it is
    policy: Policy
    answers_unidentified: bool = False  #: INVALID, rather than move what Apple refuses without a transaction id
    is_first: bool = True  #: its actors go by plain names; those of others have the queue's in theirs


@dataclass(frozen=True, slots=True)
class Misuse:
    """A queue that a source may not use so, beside the others."""

    source_queue: str  #: whose setting it is
    setting: str
    queue: str
    expected: str  #: instead


def misuses(uses: Sequence[tuple[str, frozenset[str], str | None]]) -> Iterator[Misuse]:
    """Return queues that cannot work; ``uses`` has each source queue, post queues and dead-letter queue."""
    sources = {queue for queue, _, _ in uses}
    posts = {post for _, post_queues, _ in uses for post in post_queues}
    owners: dict[str, str] = {}  # of dead-letter queues
    for source, post_queues, dead_letter_queue in uses:
        for queue in sorted((post_queues & sources) - {source}):
            expected = "queues that no receipts are taken from: an answer sent there would come back as a receipt"
            yield Misuse(source, "post_queues", queue, expected)
        if dead_letter_queue is None:
            continue
        owner = owners.setdefault(dead_letter_queue, source)
        if dead_letter_queue in sources | posts:
            expected = "a queue that is neither a source queue nor a post queue, of any source"
            yield Misuse(source, "dead_letter_queue", dead_letter_queue, expected)
        elif owner != source:
            expected = f"another one than that of {owner}: nobody could tell what to redrive to which"
            yield Misuse(source, "dead_letter_queue", dead_letter_queue, expected)
