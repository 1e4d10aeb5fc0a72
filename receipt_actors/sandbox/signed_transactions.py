"""Signed transactions of StoreKit 2 (JWS), minted from the purchases of sample receipts.

::

    mint_signed(SampleReceipt("com.example.game", (Purchase("2000000001"),)))      genuine
    ... environment=Environment.SANDBOX                                            bought in the sandbox
    ... Purchase(..., cancelled_at_ms=...)                                         refunded
    mint_signed(receipt, flaw=Flaw.EXPIRED_LEAF)                                   not to be accepted
    mint_signed(receipt, changes={"environment": "Xcode"})                         likewise: Apple signs no such thing

Needs ``cryptography`` (see ``apple_ca``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.sandbox.answers import transaction_payload
from receipt_actors.sandbox.apple_ca import Authority, Flaw, default_authority
from receipt_actors.sandbox.receipts import ForgedReceipt, MalformedReceipt, Purchase, SampleReceipt


def mint_signed(
    receipt: SampleReceipt,
    *,
    authority: Authority | None = None,
    flaw: Flaw | None = None,
    signed_at_ms: int | None = None,
    changes: Mapping[str, object] | None = None,
) -> str:
    """Sign the one purchase of a receipt: the same string for the same arguments.

    ``authority`` is by default the one of ``DEFAULT_KEY``; ``signed_at_ms`` the moment of the purchase, or of its
    refund. ``changes`` are put over the payload's fields; what is changed to None is left out. The receipt's ``shape``
    and ``faults`` say nothing here, for nobody is asked. Raises ``ValueError`` where it has not exactly one purchase.
    """
    if len(receipt.purchases) != 1:
        raise ValueError(f"a signed transaction is one purchase, found {len(receipt.purchases)}")
    payload = transaction_payload(receipt.purchases[0], receipt.bundle_id, receipt.environment, signed_at_ms)
    for name, value in (changes or {}).items():
        payload[name] = value
        if value is None:
            del payload[name]
    return (authority or default_authority()).sign(payload, flaw)


def read_signed(signed: str, *, authority: Authority | None = None) -> SampleReceipt:
    """Read a minted transaction back. Raises ``MalformedReceipt`` or ``ForgedReceipt``."""
    if signed.count(".") != 2:
        raise MalformedReceipt("not a JWS")
    payload: Any = (authority or default_authority()).read(signed)
    if payload is None:
        raise ForgedReceipt("not signed under this key")
    try:
        purchase = Purchase(
            transaction_id=payload["transactionId"],
            product_id=payload["productId"],
            purchased_at_ms=payload["purchaseDate"],
            original_transaction_id=payload["originalTransactionId"],
            quantity=payload["quantity"],
            expires_at_ms=payload.get("expiresDate"),
            cancelled_at_ms=payload.get("revocationDate"),
            product_type=ProductType(payload["type"]),
            is_family_shared=payload["inAppOwnershipType"] == "FAMILY_SHARED",
            app_account_token=payload.get("appAccountToken"),
            is_upgraded=payload.get("isUpgraded", False),
            revocation_type=payload.get("revocationType"),
            revocation_percentage=payload.get("revocationPercentage"),
        )
        return SampleReceipt(payload["bundleId"], (purchase,), environment=Environment(payload["environment"]))
    except (KeyError, ValueError):  # signed with changes, or no transaction
        raise MalformedReceipt("not a transaction of this store") from None
