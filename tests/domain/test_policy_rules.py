"""What an installation accepts: whose app, which environments and products, whose purchase, and until when."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.policy import (
    AccountTokens,
    Policy,
    TokenRule,
    refusal_of_receipt,
    refusal_of_transaction,
    token_by_number,
    token_by_uuid5,
)
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, ProductType, Transaction

PRODUCTION, SANDBOX = Environment
OUR_APP = frozenset({"com.example.game"})
COINS = Transaction("1", "1", "coins", 1, 100.0, None, cancelled=False, expired=False)
SUBSCRIPTION = replace(COINS, product_id="gold", expires_at_seconds=200.0)
NAMESPACE = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
BY_NUMBER, BY_NAME = token_by_number, token_by_uuid5(NAMESPACE)
TOKEN_OF_42 = "00000000-0000-0000-0000-00000000002a"
USER_IDS = st.integers(-(2**63), 2**63 - 1)  # what a message may have


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
    assert refusal_of_transaction(transaction, policy, sent_at_seconds=500.0, user_id=42) is refusal


@pytest.mark.parametrize(
    ("sent_at_seconds", "refusal"), [(199.9, None), (200.0, Reason.EXPIRED), (10_000.0, Reason.EXPIRED)]
)
@pytest.mark.parametrize("expired", [False, True])
def test_expiry_is_judged_when_the_message_was_sent(
    sent_at_seconds: float, refusal: Reason | None, expired: bool
) -> None:
    transaction = replace(SUBSCRIPTION, expired=expired)
    assert refusal_of_transaction(transaction, Policy(None), sent_at_seconds, user_id=42) is refusal


@pytest.mark.parametrize("said", [None, *ProductType])
@pytest.mark.parametrize("allowed", [None, frozenset(), *(frozenset({each}) for each in ProductType)])
def test_a_product_counts_by_its_type(said: ProductType | None, allowed: frozenset[ProductType] | None) -> None:
    """A type that is not listed is refused. Where Apple gives none nothing is: silence is no reason for INVALID."""
    refusal = refusal_of_transaction(replace(COINS, product_type=said), Policy(None, product_types=allowed), 150.0, 42)
    counts = allowed is None or said is None or said in allowed
    assert refusal is (None if counts else Reason.PRODUCT_TYPE_REFUSED)


@pytest.mark.parametrize(
    ("shared", "takes", "refusal"),
    [(False, True, None), (False, False, None), (True, True, None), (True, False, Reason.FAMILY_SHARED)],
)
def test_what_the_family_shares_counts_unless_refused(shared: bool, takes: bool, refusal: Reason | None) -> None:
    policy = Policy(None, takes_family_shared=takes)
    assert refusal_of_transaction(replace(COINS, is_family_shared=shared), policy, 150.0, 42) is refusal


def test_what_was_left_for_a_better_subscription_never_counts() -> None:
    upgraded = replace(SUBSCRIPTION, is_upgraded=True)
    assert refusal_of_transaction(upgraded, Policy(None), 150.0, 42) is Reason.UPGRADED
    assert refusal_of_transaction(replace(upgraded, cancelled=True), Policy(None), 150.0, 42) is Reason.UPGRADED


@pytest.mark.parametrize(
    ("token", "tokens", "refusal"),
    [
        (None, None, None),
        (TOKEN_OF_42, None, None),
        ("somebody's", None, None),
        (None, AccountTokens(BY_NUMBER), None),
        (TOKEN_OF_42, AccountTokens(BY_NUMBER), None),
        ("00000000-0000-0000-0000-00000000002b", AccountTokens(BY_NUMBER), Reason.FOREIGN_ACCOUNT),
        ("somebody's", AccountTokens(BY_NUMBER), Reason.FOREIGN_ACCOUNT),
        ("", AccountTokens(BY_NUMBER), Reason.FOREIGN_ACCOUNT),
        (None, AccountTokens(BY_NUMBER, required=True), Reason.FOREIGN_ACCOUNT),
        (TOKEN_OF_42, AccountTokens(BY_NUMBER, required=True), None),
        (TOKEN_OF_42, AccountTokens(BY_NAME), Reason.FOREIGN_ACCOUNT),
        (str(uuid.uuid5(NAMESPACE, "42")), AccountTokens(BY_NAME), None),
    ],
)
def test_a_token_binds_a_purchase_to_its_user(
    token: str | None, tokens: AccountTokens | None, refusal: Reason | None
) -> None:
    transaction = replace(COINS, app_account_token=token)
    assert refusal_of_transaction(transaction, Policy(None, account_tokens=tokens), 150.0, 42) is refusal


@given(USER_IDS, USER_IDS)
@pytest.mark.parametrize("rule", [BY_NUMBER, BY_NAME])
def test_no_two_users_have_the_same_token(rule: TokenRule, one: int, other: int) -> None:
    token = rule(one)
    assert token == rule(one)
    if token is not None:
        assert token == str(uuid.UUID(token))
        assert (token == rule(other)) == (one == other)


@given(USER_IDS)
def test_a_users_own_token_is_never_foreign(user_id: int) -> None:
    for tokens in (AccountTokens(BY_NAME, required=True), AccountTokens(BY_NUMBER)):
        transaction = replace(COINS, app_account_token=tokens.token_of(user_id))
        assert refusal_of_transaction(transaction, Policy(None, account_tokens=tokens), 150.0, user_id) is None
