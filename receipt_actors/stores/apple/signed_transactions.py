"""StoreKit 2's signed transactions: which ``receipt`` is one, and what the payload of a verified one means.

Both are pure and total. ``interpret`` gets only what was verified. So a payload that it cannot read is no forgery but a
shape that Apple has not documented yet: ``TryAgain(UNKNOWN_STATUS)``.
"""

from __future__ import annotations

from collections.abc import Mapping

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

_BASE64_OF_A_JWS = "ZXlK"  # of eyJ, as each JWS begins: that is {" in its turn, and no receipt begins so
_WITHOUT_LINE_BREAKS = str.maketrans("", "", "\r\n")


def signed_transaction_of(receipt_data: str) -> str | None:
    """Return what is to be verified where a message's ``receipt`` is meant as a signed transaction (JWS), else None.

    No base64 has a dot in it, so what has one can be nothing else; nor can a JWS that was encoded in base64 once more.
    The verifier says whether it is well made. Line breaks, which a mail encoder may have written, are no part of it.
    """
    is_meant = "." in receipt_data or receipt_data.startswith(_BASE64_OF_A_JWS)
    return receipt_data.translate(_WITHOUT_LINE_BREAKS) if is_meant else None


def refusal(refused: SignatureRefused) -> Unidentified:
    return Unidentified(refused.reason, f"Apple did not sign this transaction: {refused.detail}")


def interpret(payload: Mapping[str, object]) -> Interpretation:
    """Say what a verified ``JWSTransactionDecodedPayload`` means. Total: never raises for anything that JSON holds."""
    try:
        return Genuine(
            environment=_environment(payload.get("environment")),
            bundle_id=read_app_id(payload, "bundleId"),
            transactions=(_transaction(payload),),
        )
    except Unreadable as unreadable:
        return TryAgain(Reason.UNKNOWN_STATUS, f"a signed transaction, {unreadable}", then_unanswerable=True)


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
        product_type=_product_type(payload.get("type")),
        is_upgraded=read_flag(payload, "isUpgraded"),
        is_family_shared=read_is_family_shared(payload, "inAppOwnershipType"),
        app_account_token=read_token(payload, "appAccountToken"),
        revocation_type=read_revocation_type(payload),
        revocation_percentage=read_revocation_percentage(payload),
    )


def _environment(named: object) -> Environment:
    if isinstance(named, str) and named in set(Environment):
        return Environment(named)
    raise Unreadable("environment: neither Production nor Sandbox")


def _product_type(named: object) -> ProductType | None:
    if named is None:
        return None
    if isinstance(named, str) and named in set(ProductType):
        return ProductType(named)
    raise Unreadable(f"type: expected one of Apple's kinds of products, found {json_type(named)}")
