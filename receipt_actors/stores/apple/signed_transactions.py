"""StoreKit 2's signed transactions: which ``receipt`` is one, and what the payload of a verified one means.

Both are pure and total. That a payload is Apple's is for ``ports.SignedData`` to find out; ``interpret`` gets only what
was verified, and so a payload that it cannot read is a shape that Apple has not documented yet, not somebody's lie:
``TryAgain(UNKNOWN_STATUS)``, unanswerable, and answered once this house can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Interpretation, ProductType, Transaction, TryAgain, Unidentified
from receipt_actors.domain.values import json_type
from receipt_actors.stores.apple.fields import (
    Fields,
    Unreadable,
    read_app_id,
    read_flag,
    read_id,
    read_is_family_shared,
    read_quantity,
    read_revocation_percentage,
    read_revocation_type,
    read_seconds,
    read_token,
)
from receipt_actors.stores.apple.ports import SignatureRefused

_ENVIRONMENTS: Final[Mapping[str, Environment]] = {each.value: each for each in Environment}
_PRODUCT_TYPES: Final[Mapping[str, ProductType]] = {each.value: each for each in ProductType}
_BASE64_OF_A_JWS = "ZXlK"  # of eyJ, as each JWS begins: that is {" in its turn, and no receipt begins so
_WITHOUT_LINE_BREAKS = str.maketrans("", "", "\r\n")


def signed_transaction_of(receipt_data: str) -> str | None:
    """Return what is to be verified where a message's ``receipt`` is meant as a signed transaction (JWS), else None.

    No base64 has a dot in it, so whatever has one can be nothing else; nor can the base64 of a JWS, which somebody has
    encoded once more. Whether it is well made is for the verifier to say. Line breaks, where a mail encoder wrote them,
    are no part of it.
    """
    is_meant = "." in receipt_data or receipt_data.startswith(_BASE64_OF_A_JWS)
    return receipt_data.translate(_WITHOUT_LINE_BREAKS) if is_meant else None


def refusal(refused: SignatureRefused) -> Unidentified:
    """Say what it means that Apple did not sign a transaction: nothing that it holds is anybody's word."""
    return Unidentified(refused.reason, f"Apple did not sign this transaction: {refused.detail}")


def interpret(payload: Mapping[str, object]) -> Interpretation:
    """Say what a verified ``JWSTransactionDecodedPayload`` means. Total: never raises for anything that JSON holds."""
    try:
        return Genuine(
            environment=_environment(payload),
            bundle_id=read_app_id(payload, "bundleId"),
            transactions=(_transaction(payload),),
        )
    except Unreadable as unreadable:
        return TryAgain(Reason.UNKNOWN_STATUS, f"a signed transaction, {unreadable}", then_unanswerable=True)


def _environment(payload: Fields) -> Environment:
    named = payload.get("environment")
    if isinstance(named, str) and named in _ENVIRONMENTS:
        return _ENVIRONMENTS[named]
    raise Unreadable("environment: neither Production nor Sandbox")


def _transaction(payload: Fields) -> Transaction:
    transaction_id = read_id(payload, "transactionId")
    if transaction_id is None:
        raise Unreadable("transactionId: missing")
    return Transaction(
        transaction_id=transaction_id,
        original_transaction_id=read_id(payload, "originalTransactionId"),
        product_id=read_id(payload, "productId"),
        quantity=read_quantity(payload),
        purchased_at_seconds=read_seconds(payload, "purchaseDate"),
        expires_at_seconds=read_seconds(payload, "expiresDate"),
        cancelled=read_seconds(payload, "revocationDate") is not None,
        product_type=_product_type(payload),
        is_upgraded=read_flag(payload, "isUpgraded"),
        is_family_shared=read_is_family_shared(payload, "inAppOwnershipType"),
        app_account_token=read_token(payload, "appAccountToken"),
        revocation_type=read_revocation_type(payload),
        revocation_percentage=read_revocation_percentage(payload),
    )


def _product_type(payload: Fields) -> ProductType | None:
    named = payload.get("type")
    if named is None:
        return None
    if isinstance(named, str) and named in _PRODUCT_TYPES:
        return _PRODUCT_TYPES[named]
    raise Unreadable(f"type: expected one of Apple's kinds of products, found {json_type(named)}")
