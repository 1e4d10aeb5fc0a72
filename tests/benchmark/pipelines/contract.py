"""What any pipeline of the contract knows, whichever way it makes its calls: messages, Apple's answers, claims.

The environment says where everything is, as ``receipt_actors.sandbox.bench`` describes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

VISIBILITY_SECONDS = 120
SOURCE_QUEUE = os.environ["RECEIPT_ACTORS_SOURCE_QUEUE"]
POST_QUEUES = os.environ["RECEIPT_ACTORS_POST_QUEUES"].split(",")
TABLE = os.environ["RECEIPT_ACTORS_LEDGER_TABLE"]
BUNDLE_IDS = os.environ["RECEIPT_ACTORS_BUNDLE_IDS"].split(",")
PRODUCTION_URL = os.environ["RECEIPT_ACTORS_APP_STORE_URL"] + "/production/verifyReceipt"
SANDBOX_URL = os.environ["RECEIPT_ACTORS_APP_STORE_URL"] + "/sandbox/verifyReceipt"
SANDBOX_RECEIPT = 21007
EXPIRED = 21006
RECEIVE = {
    "MaxNumberOfMessages": 10,
    "WaitTimeSeconds": 10,
    "VisibilityTimeout": VISIBILITY_SECONDS,
    "MessageAttributeNames": ["submission_id"],
}

Item = dict[str, dict[str, str]]


class NotYet(Exception):
    """No verdict can be given now; the message comes back."""


@dataclass(frozen=True, slots=True)
class Submission:
    message_id: str
    submission_id: str
    receipt: str
    user_id: int
    post_queue: str

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Submission:
        body = json.loads(message["Body"])
        message_id = message["MessageId"]
        attribute = message.get("MessageAttributes", {}).get("submission_id", {})
        submission_id = attribute.get("StringValue", message_id)
        return cls(message_id, submission_id, body["receipt"], body["user_id"], body["post_queue"])


def transactions(answer: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str | None]]:
    if answer["status"] not in (0, EXPIRED):
        raise NotYet(f"Apple says {answer['status']}")
    receipt = answer["receipt"]
    entries = receipt.get("in_app", [receipt])  # a receipt of iOS 6 is its one transaction
    if not entries:
        raise NotYet("the receipt holds no transaction")
    is_ours = receipt.get("bundle_id", receipt.get("bid")) in BUNDLE_IDS
    now_ms = time.time() * 1000
    for entry in entries:
        if not is_ours:
            yield entry, "foreign_bundle"
        elif "cancellation_date" in entry:
            yield entry, "refunded"
        elif answer["status"] == EXPIRED or float(entry.get("expires_date_ms", "inf")) < now_ms:
            yield entry, "expired"
        else:
            yield entry, None


def claim_of(transaction: Mapping[str, Any], answer: Mapping[str, Any], submission: Submission) -> Item:
    return {
        "TransactionId": {"S": str(transaction["transaction_id"])},
        "SubmissionId": {"S": submission.submission_id},
        "MessageId": {"S": submission.message_id},
        "UserId": {"N": str(submission.user_id)},
        "ReceiptSha256": {"S": hashlib.sha256(submission.receipt.encode()).hexdigest()},
        "ProductId": {"S": transaction["product_id"]},
        "OriginalTransactionId": {"S": str(transaction["original_transaction_id"])},
        "Environment": {"S": answer.get("environment", "Production")},
        "SourceQueue": {"S": SOURCE_QUEUE},
        "PostQueue": {"S": submission.post_queue},
        "ClaimedAt": {"N": repr(time.time())},
        "SchemaVersion": {"N": "1"},
    }


def put_of(item: Item) -> dict[str, Any]:
    return {
        "TableName": TABLE,
        "Item": item,
        "ConditionExpression": "attribute_not_exists(TransactionId)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def reason_of(item: Item, old: Mapping[str, Any]) -> str:
    """Say whose claim stands in the way: perhaps this very submission's, which was delivered before."""
    is_ours = all(old.get(name) == item[name] for name in ("SubmissionId", "UserId", "ReceiptSha256"))
    return "already_ours" if is_ours else "claimed_by_another_user"


def answer_message(
    transaction: Mapping[str, Any], answer: Mapping[str, Any], submission: Submission, reason: str
) -> dict[str, Any]:
    result = {
        "user_id": submission.user_id,
        "transaction_id": str(transaction["transaction_id"]),
        "status": "OK" if reason in ("claimed", "already_ours") else "INVALID",
    }
    attributes = {
        "reason": reason,
        "submission_id": submission.submission_id,
        "source_message_id": submission.message_id,
        "product_id": transaction["product_id"],
        "environment": answer.get("environment", "Production"),
    }
    return {
        "MessageBody": json.dumps(result),
        "MessageAttributes": {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()},
    }
