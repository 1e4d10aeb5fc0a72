"""The messages of a benchmark: genuine receipts of one purchase each, every one by another user.

What must become of message ``number`` follows from the number alone: an OK for ``user_id(number)`` and
``transaction_id(number)``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from receipt_actors.sandbox.receipts import REAL_RECEIPT_BYTES, Purchase, SampleReceipt, mint

SOURCE_QUEUE = "ReceiptsSQS"
POST_QUEUE = "ResultsSQS"
DEAD_LETTER_QUEUE = "ReceiptsSQSDLQ"
TABLE = "TransactionIdTable"
TABLE_KEY = "TransactionId"
BUNDLE_ID = "com.example.game"

_FIRST_USER_ID = 5_000_000_000
_FIRST_TRANSACTION_ID = 1_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """So many messages, with receipts of about so many bytes (before base64)."""

    messages: int
    receipt_bytes: int = REAL_RECEIPT_BYTES

    def receipt(self, number: int) -> str:
        """Mint the receipt of a message (0 to ``messages`` - 1)."""
        receipt = SampleReceipt(BUNDLE_ID, (Purchase(transaction_id(number)),))
        return mint(receipt, padding_bytes=self.receipt_bytes)

    def body(self, number: int) -> str:
        """Write the message."""
        fields = {"receipt": self.receipt(number), "user_id": user_id(number), "post_queue": POST_QUEUE}
        return json.dumps(fields)


def user_id(number: int) -> int:
    """Who sends a message."""
    return _FIRST_USER_ID + number


def transaction_id(number: int) -> str:
    """What its receipt is for."""
    return str(_FIRST_TRANSACTION_ID + number)


def number_of(found_user_id: object) -> int | None:
    """Whose message it was; None where nobody has that user id."""
    if isinstance(found_user_id, int) and not isinstance(found_user_id, bool) and found_user_id >= _FIRST_USER_ID:
        return found_user_id - _FIRST_USER_ID
    return None
