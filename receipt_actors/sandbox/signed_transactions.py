"""Signed transactions of StoreKit 2 (JWS), minted from the purchases of sample receipts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import ProductType
from receipt_actors.sandbox.answers import transaction_payload
from receipt_actors.sandbox.apple_ca import Authority, Flaw, default_authority
from receipt_actors.sandbox.receipts import ForgedReceipt, MalformedReceipt, Purchase, SampleReceipt


def mint_signed(
    receipt: SampleReceipt,
    authority: Authority | None = None,
    *,
    flaw: Flaw | None = None,
    signed_at_ms: int | None = None,
    changes: Mapping[str, object] | None = None,
) -> str:
    """Sign the one purchase of a receipt: the same string for the same arguments.

    ``authority`` is by default the one of ``DEFAULT_KEY``; ``signed_at_ms`` the moment of the purchase, or of its
    refund. ``changes`` are put over the payload's fields; what is changed to None is left out. The receipt's ``shape``
    and ``faults`` say nothing here: no store is asked. Raises ``ValueError`` where it has not exactly one purchase.
    """
    if len(receipt.purchases) != 1:
        raise ValueError(f"a signed transaction is one purchase, found {len(receipt.purchases)}")
    payload = transaction_payload(receipt.purchases[0], receipt.bundle_id, receipt.environment, signed_at_ms)
    payload = {name: value for name, value in {**payload, **(changes or {})}.items() if value is not None}
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


#: Why what has this flaw is refused.
REASONS: Final[Mapping[Flaw, Reason]] = {
    Flaw.ALGORITHM_NONE: Reason.JWS_ALGORITHM,
    Flaw.SWAPPED_PAYLOAD: Reason.JWS_SIGNATURE,
    Flaw.FOREIGN_ROOT: Reason.JWS_FOREIGN_ROOT,
    Flaw.EXPIRED_LEAF: Reason.JWS_EXPIRED_CERTIFICATE,
    Flaw.LEAF_WITHOUT_OID: Reason.JWS_CERTIFICATE,
    Flaw.TWO_CERTIFICATES: Reason.JWS_CHAIN_LENGTH,
    Flaw.FOREIGN_SIGNATURE: Reason.JWS_SIGNATURE,
    Flaw.ALGORITHM_HS256: Reason.JWS_ALGORITHM,
    Flaw.FOREIGN_CHAIN: Reason.JWS_FOREIGN_ROOT,
    Flaw.INTERMEDIATE_WITHOUT_OID: Reason.JWS_CERTIFICATE,
    Flaw.FOUR_CERTIFICATES: Reason.JWS_CHAIN_LENGTH,
    Flaw.NO_CERTIFICATES: Reason.JWS_CHAIN_LENGTH,
    Flaw.GARBLED_CERTIFICATE: Reason.JWS_CERTIFICATE,
}
OVERSIZE_CHARACTERS = 200_000  #: of a field of a signed transaction, which has some hundred in all
_CHANGES: Final[Sequence[tuple[Reason, Mapping[str, object]]]] = (
    (Reason.JWS_ENVIRONMENT, {"environment": "Xcode"}),
    (Reason.JWS_ENVIRONMENT, {"environment": "LocalTesting"}),
    (Reason.JWS_MALFORMED, {"storefront": "x" * OVERSIZE_CHARACTERS}),
    (Reason.JWS_SIGNED_DATE, {"signedDate": "today"}),
)
#: Every reason to refuse a signed transaction, and what mints one.
HOSTILE: Final[Sequence[tuple[Reason, Callable[[SampleReceipt, Authority], str]]]] = (
    *((reason, partial(mint_signed, flaw=flaw)) for flaw, reason in REASONS.items()),
    *((reason, partial(mint_signed, changes=changes)) for reason, changes in _CHANGES),
    (Reason.JWS_MALFORMED, lambda receipt, authority: mint_signed(receipt, authority).rpartition(".")[0]),
    (Reason.JWS_MALFORMED, lambda receipt, authority: mint_signed(receipt, authority).replace(".", "..")),
)
