"""The messages of a benchmark: genuine receipts of one purchase each, every one by another user.

Message ``number`` must become an OK for ``user_id(number)`` and ``transaction_id(number)``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from receipt_actors.sandbox.receipts import REAL_RECEIPT_BYTES, Purchase, SampleReceipt, mint

SOURCE_QUEUE = "ReceiptsSQS"
POST_QUEUE = "ResultsSQS"
DEAD_LETTER_QUEUE = "ReceiptsSQSDLQ"
TABLE = "TransactionIdTable"
TABLE_KEY = "TransactionId"
BUNDLE_ID = "com.example.game"

#: Left out of the padding, so that a sample weighs what it did when figures were first taken, and they can be compared.
_OWN_BYTES = 109
_FIRST_USER_ID = 5_000_000_000
_FIRST_TRANSACTION_ID = 1_000_000_000_000_000


class Way(StrEnum):
    """How a receipt is vouched for, and so what it is."""

    VERIFY_RECEIPT = "verify-receipt"  #: an app receipt, which verifyReceipt is asked about
    STOREKIT2 = "storekit2"  #: a signed transaction, verified by the program
    SERVER_API = "server-api"  #: an app receipt, whose transaction is looked up, and verified by the program


@dataclass(frozen=True, slots=True)
class Load:
    """So many messages, with app receipts of about so many bytes (before base64); signed ones have their own size."""

    messages: int
    receipt_bytes: int = REAL_RECEIPT_BYTES
    way: str = Way.VERIFY_RECEIPT.value

    def receipt(self, number: int) -> str:
        """Mint the receipt of a message (0 to ``messages`` - 1)."""
        if self.way == Way.STOREKIT2:
            from receipt_actors.sandbox.signed_transactions import mint_signed

            return mint_signed(self.sample(number))
        return mint(self.sample(number), padding_bytes=max(0, self.receipt_bytes - _OWN_BYTES))

    def sample(self, number: int) -> SampleReceipt:
        return SampleReceipt(BUNDLE_ID, (Purchase(transaction_id(number)),))

    def body(self, number: int) -> str:
        fields = {"receipt": self.receipt(number), "user_id": user_id(number), "post_queue": POST_QUEUE}
        return json.dumps(fields)


def user_id(number: int) -> int:
    """Return the user that sends a message."""
    return _FIRST_USER_ID + number


def transaction_id(number: int) -> str:
    """Return the transaction of its receipt."""
    return str(_FIRST_TRANSACTION_ID + number)


def number_of(found_user_id: object) -> int | None:
    """Return the number of the message of a user; None if there is no such user."""
    if isinstance(found_user_id, int) and not isinstance(found_user_id, bool) and found_user_id >= _FIRST_USER_ID:
        return found_user_id - _FIRST_USER_ID
    return None
