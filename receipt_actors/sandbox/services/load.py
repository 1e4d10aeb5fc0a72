"""The messages of a benchmark, and whether each was answered as it should be, and in order. Pure.

They are genuine receipts of one purchase each, every one by another user: message ``number`` must become an OK for
``user_id(number)`` and ``transaction_id(number)``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from receipt_actors.sandbox.receipts import REAL_RECEIPT_BYTES, Purchase, SampleReceipt, mint
from receipt_actors.sandbox.services.sqs import Content, Message

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


MAX_SHOWN = 20  #: of what was wrong; all of it is counted
CLOCK_SLACK_SECONDS = 0.003  #: timers go off so much too early, at worst


@dataclass(frozen=True, slots=True)
class SentAnswer:
    """A message that the program under test sent."""

    queue: str
    content: Content
    sent_at: float  #: monotonic, when the request came in


@dataclass(frozen=True, slots=True)
class Finding:
    """What was wrong: how often, and the first few in words; and what was answered again, which is no fault."""

    count: int
    shown: tuple[str, ...]
    repeated: int  #: answers like an earlier one, to messages that were delivered more than once


def audit(
    messages: Sequence[Message],
    answers: Iterable[SentAnswer],
    claimed: Collection[str],
    *,
    confirmed_after_seconds: float,
) -> Finding:
    """Compare what happened with what should have.

    Each message of the load must have been answered OK, on the post queue, with its user and transaction, once or as
    often as it was delivered; claimed; and deleted when its answer had been confirmed, which is
    ``confirmed_after_seconds`` after it was sent.
    """
    wrong: list[str] = []
    answers_to: Counter[int] = Counter()
    answered_at: dict[int, float] = {}
    for answer in answers:
        number, fault = _judge(answer, len(messages))
        if fault is None and number is not None:
            answers_to[number] += 1
            if answers_to[number] > max(1, messages[number].receive_count):
                fault = f"message {number}: answered more often than it was delivered"
        if fault is not None:
            wrong.append(fault)
        if number is not None:
            answered_at.setdefault(number, answer.sent_at)
    for number, message in enumerate(messages):
        answered, gone = answered_at.get(number), message.deleted_at
        if answered is None:
            wrong.append(f"message {number}: not answered")
        if gone is None:
            wrong.append(f"message {number}: not deleted")
        elif answered is not None and gone < answered + confirmed_after_seconds - CLOCK_SLACK_SECONDS:
            wrong.append(f"message {number}: deleted before its answer was confirmed")
        if transaction_id(number) not in claimed:
            wrong.append(f"message {number}: not claimed")
    if len(claimed) > len(messages):
        wrong.append(f"{len(claimed)} claims of {len(messages)} transactions")
    repeated = sum(min(count, messages[number].receive_count) - 1 for number, count in answers_to.items())
    return Finding(len(wrong), tuple(wrong[:MAX_SHOWN]), repeated)


def _judge(answer: SentAnswer, messages: int) -> tuple[int | None, str | None]:
    """Whose answer it is, and what is wrong with it."""
    try:
        fields = json.loads(json.loads(answer.content.body_json))
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return None, f"an answer that is no JSON object: {answer.content.body_json[:80]!r}"
    number = number_of(fields.get("user_id"))
    if number is None or number >= messages:
        return None, f"an answer to nobody: {fields}"
    expected = {"user_id": user_id(number), "transaction_id": transaction_id(number), "status": "OK"}
    if fields != expected:
        return number, f"message {number}: expected {expected}, found {fields}"
    if answer.queue != POST_QUEUE:
        return number, f"message {number}: answered on {answer.queue}, expected {POST_QUEUE}"
    return number, None
