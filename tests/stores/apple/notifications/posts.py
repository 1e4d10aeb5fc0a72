"""Notifications that an authority of the tests has signed as Apple does, and the claim that they are about."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from receipt_actors.domain.ports import Environment, LedgerItem
from receipt_actors.sandbox.apple_ca import Authority

BUNDLE_ID = "com.example.game"
RESULTS = "ResultsSQS"
NOW = 1_750_000_000.0  # past: nothing is signed ahead of the clock of who verifies it
NOW_MS = int(NOW * 1000)
REFUNDED_AT = NOW - 60.0
CLAIM = LedgerItem(
    transaction_id="1000000046178817",
    submission_id="submission-1",
    message_id="message-1",
    user_id=42,
    receipt_sha256="ab" * 32,
    product_id="com.example.coins.100",
    original_transaction_id=None,
    environment=Environment.PRODUCTION,
    source_queue="ReceiptsSQS",
    post_queue=RESULTS,
    claimed_at_seconds=NOW - 3600,
    quantity=3,
)
INVALID = {"user_id": 42, "transaction_id": CLAIM.transaction_id, "status": "INVALID"}
OK = {**INVALID, "status": "OK"}
AUTHORITY = Authority()


def transaction_payload(transaction_id: str = CLAIM.transaction_id, **changes: object) -> dict[str, object]:
    return {
        "transactionId": transaction_id,
        "originalTransactionId": transaction_id,
        "bundleId": BUNDLE_ID,
        "productId": "com.example.coins.100",
        "environment": "Production",
        "type": "Consumable",
        "quantity": 3,
        "purchaseDate": NOW_MS - 7_200_000,
        "signedDate": NOW_MS,
        "revocationDate": int(REFUNDED_AT * 1000),
        "revocationReason": 0,
        **changes,
    }


@dataclass(frozen=True)
class Posted:
    type: str = "REFUND"
    transaction: Mapping[str, object] | None = field(default_factory=transaction_payload)
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    data: Mapping[str, object] = field(default_factory=dict)  #: changes of it
    payload: Mapping[str, object] = field(default_factory=dict)  #: changes of it
    signed_ms: int = NOW_MS
    authority: Authority = AUTHORITY

    @property
    def body(self) -> bytes:
        data: dict[str, object] = {
            "appAppleId": 1000001,
            "bundleId": BUNDLE_ID,
            "bundleVersion": "1",
            "environment": "Production",
        }
        if self.transaction is not None:
            data["signedTransactionInfo"] = self.authority.sign(self.transaction)
        payload = {
            "notificationType": self.type,
            "notificationUUID": self.uuid,
            "version": "2.0",
            "signedDate": self.signed_ms,
            "data": data | self.data,
            **self.payload,
        }
        payload = {name: value for name, value in payload.items() if value is not None}
        return json.dumps({"signedPayload": self.authority.sign(payload)}).encode()
