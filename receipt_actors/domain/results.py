"""Answers as they are read back from a post queue."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from receipt_actors.domain.messages import SUBMISSION_ID_ATTRIBUTE, Verdict
from receipt_actors.domain.ports import OutgoingMessage, ReceivedMessage

_DIGITS = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class PostedResult:
    """One answer: the contract's three fields, and what its message attributes tell (None where they do not)."""

    user_id: int
    transaction_id: str  #: empty only where Apple refused the receipt for good and ``unidentified`` is ``reply``
    status: Verdict
    submission_id: str | None
    source_message_id: str | None
    reason: str | None  #: a ``Reason``, or one that a newer version knows
    product_id: str | None
    environment: str | None
    quantity: int | None = None  #: how many were bought at once
    revocation_type: str | None = None  #: of a refund: Apple's ``revocationType``
    revocation_percentage: int | None = None  #: of a refund: how much of it, in thousandths of a percent
    decided_at_ms: int | None = None  #: when Apple decided on a refund or its reversal, as UNIX time


def parse_result(message: ReceivedMessage | OutgoingMessage) -> PostedResult | None:
    """Read an answer; None where the message is none (somebody else writes to that queue)."""
    try:
        body = json.loads(message.body)
    except (ValueError, RecursionError):
        return None
    match body:
        case {
            "user_id": int() as user_id,
            "transaction_id": str() as transaction_id,
            "status": "OK" | "INVALID" as status,
        } if not isinstance(user_id, bool):
            get = message.attributes.get
            return PostedResult(
                user_id=user_id,
                transaction_id=transaction_id,
                status=Verdict(status),
                submission_id=get(SUBMISSION_ID_ATTRIBUTE),
                source_message_id=get("source_message_id"),
                reason=get("reason"),
                product_id=get("product_id"),
                environment=get("environment"),
                quantity=_number(get("quantity")),
                revocation_type=get("revocation_type"),
                revocation_percentage=_number(get("revocation_percentage")),
                decided_at_ms=_number(get("decided_at")),
            )
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _DIGITS.fullmatch(text) else None
