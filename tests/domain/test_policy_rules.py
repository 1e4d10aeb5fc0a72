"""What an installation accepts: whose app, which environments and products, and until when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from receipt_actors.domain.policy import Policy, refusal_of_receipt, refusal_of_transaction
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Transaction

PRODUCTION, SANDBOX = Environment
OUR_APP = frozenset({"com.example.game"})
COINS = Transaction("1", "1", "coins", 1, 100.0, None, cancelled=False, expired=False)
SUBSCRIPTION = replace(COINS, product_id="gold", expires_at_seconds=200.0)


@pytest.mark.parametrize(
    ("environment", "bundle_id", "policy", "refusal"),
    [
        (PRODUCTION, "com.example.game", Policy(OUR_APP), None),
        (PRODUCTION, "com.example.other", Policy(OUR_APP), Reason.FOREIGN_BUNDLE),
        (PRODUCTION, None, Policy(OUR_APP), Reason.FOREIGN_BUNDLE),
        (PRODUCTION, "com.example.other", Policy(None), None),
        (PRODUCTION, None, Policy(None), None),
        (PRODUCTION, "com.example.game", Policy(frozenset()), Reason.FOREIGN_BUNDLE),
        (SANDBOX, "com.example.game", Policy(OUR_APP), Reason.ENVIRONMENT_REFUSED),
        (SANDBOX, "com.example.game", Policy(OUR_APP, environments=frozenset({PRODUCTION, SANDBOX})), None),
        (
            PRODUCTION,
            "com.example.game",
            Policy(OUR_APP, environments=frozenset({SANDBOX})),
            Reason.ENVIRONMENT_REFUSED,
        ),
    ],
)
def test_a_receipt_counts_for_our_apps_and_environments(
    environment: Environment, bundle_id: str | None, policy: Policy, refusal: Reason | None
) -> None:
    """Receipts of other apps, of no app, and of environments that are not allowed are refused; None allows any app."""
    assert refusal_of_receipt(Genuine(environment, bundle_id, (COINS,)), policy) is refusal


@pytest.mark.parametrize(
    ("transaction", "policy", "refusal"),
    [
        (COINS, Policy(None), None),
        (COINS, Policy(None, product_ids=frozenset({"coins"})), None),
        (COINS, Policy(None, product_ids=frozenset({"gems"})), Reason.FOREIGN_PRODUCT),
        (replace(COINS, product_id=None), Policy(None, product_ids=frozenset({"coins"})), Reason.FOREIGN_PRODUCT),
        (replace(COINS, product_id=None), Policy(None), None),
        (replace(COINS, cancelled=True), Policy(None), Reason.REFUNDED),
        (replace(SUBSCRIPTION, cancelled=True), Policy(None), Reason.REFUNDED),
        (replace(COINS, expired=True), Policy(None), Reason.EXPIRED),
    ],
)
def test_a_transaction_counts_unless_refunded_expired_or_foreign(
    transaction: Transaction, policy: Policy, refusal: Reason | None
) -> None:
    """Refunds, ended subscriptions and products that are not listed are refused."""
    assert refusal_of_transaction(transaction, policy, sent_at_seconds=500.0) is refusal


@pytest.mark.parametrize(
    ("sent_at_seconds", "refusal"), [(199.9, None), (200.0, Reason.EXPIRED), (10_000.0, Reason.EXPIRED)]
)
@pytest.mark.parametrize("expired", [False, True])
def test_expiry_is_judged_when_the_message_was_sent(
    sent_at_seconds: float, refusal: Reason | None, expired: bool
) -> None:
    """A subscription that was alive when it was submitted counts, even if Apple says 21006 by the time we ask."""
    transaction = replace(SUBSCRIPTION, expired=expired)
    assert refusal_of_transaction(transaction, Policy(None), sent_at_seconds) is refusal
