"""What a verified payload of a signed transaction means, and which receipts are meant as one."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Interpretation, ProductType, Transaction, TryAgain, Unidentified
from receipt_actors.stores.apple.ports import SignatureRefused
from receipt_actors.stores.apple.signed_transactions import interpret, refusal, signed_transaction_of
from tests.stores.apple import signing

PRODUCTION, SANDBOX = Environment

PAYLOAD = {
    **signing.TRANSACTION,
    "transactionId": "2000",
    "originalTransactionId": "1999",
    "productId": "gold",
    "purchaseDate": 1_700_000_000_500,
    "expiresDate": 1_700_086_400_000,
    "type": "Auto-Renewable Subscription",
    "appAccountToken": "7F5D9A1E-0000-4000-8000-00000000002A",
}
READ = Transaction(
    transaction_id="2000",
    original_transaction_id="1999",
    product_id="gold",
    quantity=1,
    purchased_at_seconds=1_700_000_000.5,
    expires_at_seconds=1_700_086_400.0,
    cancelled=False,
    product_type=ProductType.AUTO_RENEWABLE_SUBSCRIPTION,
    app_account_token="7f5d9a1e-0000-4000-8000-00000000002a",
)
UNUSABLE: dict[str, list[object]] = {
    "transactionId": [None, "", True, 1.5, "a\nb", []],
    "originalTransactionId": ["", 0.5, {}],
    "bundleId": [5, "", True],
    "productId": ["", "x" * 257, []],
    "purchaseDate": ["yesterday", -1, 1.5, {}],
    "expiresDate": ["never", True],
    "revocationDate": ["", False, -1, []],
    "quantity": ["two", -1, 0, 0.5, 3.0, float("nan"), float("inf"), True, 2**31],
    "revocationType": ["", 0, True, "a\nb", "x" * 257, ["REFUND_FULL"]],
    "revocationPercentage": ["all", "33.333", -1, 33.333, float("nan"), True, 100_001, 10**40, []],
    "type": ["", "consumable", 1, []],
    "isUpgraded": ["yes", 2, []],
    "inAppOwnershipType": ["", "BORROWED", 1],
    "appAccountToken": ["", 0.5, []],
    "environment": [None, "Xcode", "LocalTesting", "production", 1, []],
}


def genuine(**fields: object) -> Genuine:
    meaning = interpret({**PAYLOAD, **fields})
    assert isinstance(meaning, Genuine), meaning
    return meaning


def transaction(**fields: object) -> Transaction:
    (only,) = genuine(**fields).transactions
    return only


def assert_unknown(meaning: object) -> None:
    """Try again, then let an operator look; never a verdict."""
    assert isinstance(meaning, TryAgain), meaning
    assert (meaning.reason, meaning.then_unanswerable) == (Reason.UNKNOWN_STATUS, True)
    assert 0 < len(meaning.detail) < 200


def test_a_payload_is_one_transaction() -> None:
    assert interpret(PAYLOAD) == Genuine(PRODUCTION, "com.example.game", (READ,))
    assert genuine(environment="Sandbox").environment is SANDBOX


@pytest.mark.parametrize("named", list(ProductType))
def test_every_type_of_apples_is_known(named: ProductType) -> None:
    assert transaction(type=str(named)).product_type is named


def test_how_much_was_refunded_is_read() -> None:
    read = transaction(revocationDate=1, revocationType="REFUND_PRORATED", revocationPercentage=33333)
    assert read.cancelled
    assert not transaction(revocationDate=None).cancelled
    assert (read.revocation_type, read.revocation_percentage) == ("REFUND_PRORATED", 33333)
    for percentage in (0, 100_000):
        assert transaction(revocationPercentage=percentage).revocation_percentage == percentage
    assert transaction(revocationType="NEW_IN_2030").revocation_type == "NEW_IN_2030"
    read = transaction(revocationType=None)
    assert (read.revocation_type, read.revocation_percentage) == (None, None)


@pytest.mark.parametrize("quantity", [1, 3, "10", 2**31 - 1])
def test_any_quantity_of_apples_is_read(quantity: object) -> None:
    assert transaction(quantity=quantity).quantity == int(str(quantity))


def test_upgrades_and_family_sharing_are_read() -> None:
    assert transaction(isUpgraded=True).is_upgraded
    assert not transaction(isUpgraded=False).is_upgraded
    assert transaction(inAppOwnershipType="FAMILY_SHARED").is_family_shared


def test_what_apple_leaves_out_is_unknown_not_made_up() -> None:
    read = interpret({"transactionId": "7", "environment": "Sandbox"})
    assert read == Genuine(SANDBOX, None, (Transaction("7", None, None, 1, None, None, cancelled=False),))


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in UNUSABLE.items() for value in values])
def test_a_payload_that_cannot_be_read_is_no_verdict(key: str, value: object) -> None:
    assert_unknown(interpret({**PAYLOAD, key: value}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*PAYLOAD, *UNUSABLE]) | st.text(max_size=3), JSON, max_size=8))
def test_any_json_has_a_meaning(fields: dict[str, Any]) -> None:
    meaning = interpret({**PAYLOAD, **fields})
    assert isinstance(meaning, Interpretation)
    assert not isinstance(meaning, Genuine) or meaning.transactions[0].transaction_id


@pytest.mark.parametrize(
    ("receipt_data", "signed"),
    [
        ("eyJh.eyJi.c2ln", "eyJh.eyJi.c2ln"),
        ("eyJh.eyJi.", "eyJh.eyJi."),  # alg none has no signature
        ("eyJh.eyJi.c2ln\r\n", "eyJh.eyJi.c2ln"),
        ("eyJh\n.eyJi", "eyJh.eyJi"),
        (".", "."),
        ("a.b.c.d", "a.b.c.d"),
        ("MIIT/gYJKoZIhvcNAQ+=", None),
        ("MIIT\r\ngYJK", None),
        ("ewoJInNpZ25hdHVyZSI", None),
    ],
)
def test_whatever_has_a_dot_is_meant_as_a_signed_transaction(receipt_data: str, signed: str | None) -> None:
    """Well made or not, or encoded once more: it goes to the verifier, which refuses it, and never to Apple."""
    encoded = base64.b64encode(b"eyJhbGciOiJFUzI1NiJ9.e30.AAAA").decode()
    assert signed_transaction_of(encoded) == encoded
    assert signed_transaction_of(receipt_data) == signed


@given(st.binary(min_size=1, max_size=200).filter(lambda receipt: not receipt.startswith(b"eyJ")))
def test_no_app_receipt_is_taken_for_a_signed_transaction(receipt: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes):
        assert signed_transaction_of(encode(receipt).decode()) is None


def test_a_refused_signature_names_no_transaction() -> None:
    refused = refusal(SignatureRefused(Reason.JWS_FOREIGN_ROOT, "the root is not Apple's"))
    assert isinstance(refused, Unidentified)
    assert refused.reason is Reason.JWS_FOREIGN_ROOT
    assert "the root is not Apple's" in refused.detail
