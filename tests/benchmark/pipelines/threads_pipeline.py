"""The contract as a script of an afternoon: a pool of 200 threads, boto3 and requests, one call each.

It stands beside our figures as what most teams have, and is written as well as such a script is: connections are kept
alive, what is in flight is bounded, a claim is a conditional put that knows its own submission again, and a message is
deleted only when its answer has been accepted. What fails is logged, and comes back by its visibility timeout.

The environment says where everything is, as ``receipt_actors.sandbox.bench`` describes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

THREADS = 200
IN_FLIGHT = 2 * THREADS  #: received and not finished: threads never wait for messages while there are some
VISIBILITY_SECONDS = 120
TIMEOUTS_SECONDS = (3, 10)  #: to connect to Apple, and to wait for its answer

SOURCE_QUEUE = os.environ["RECEIPT_ACTORS_SOURCE_QUEUE"]
POST_QUEUES = os.environ["RECEIPT_ACTORS_POST_QUEUES"].split(",")
TABLE = os.environ["RECEIPT_ACTORS_LEDGER_TABLE"]
BUNDLE_IDS = os.environ["RECEIPT_ACTORS_BUNDLE_IDS"].split(",")
PRODUCTION_URL = os.environ["RECEIPT_ACTORS_APP_STORE_URL"] + "/production/verifyReceipt"
SANDBOX_URL = os.environ["RECEIPT_ACTORS_APP_STORE_URL"] + "/sandbox/verifyReceipt"
SANDBOX_RECEIPT = 21007
EXPIRED = 21006
OK_REASONS = ("claimed", "already_ours")

logger = logging.getLogger("threads_pipeline")


class NotYet(Exception):
    """No verdict can be given now; the message comes back."""


class Pipeline:
    def __init__(self) -> None:
        config = Config(max_pool_connections=THREADS + 1, retries={"mode": "standard"})
        self._sqs = boto3.client("sqs", config=config)
        self._dynamodb = boto3.client("dynamodb", config=config)
        self._source_url = self._sqs.get_queue_url(QueueName=SOURCE_QUEUE)["QueueUrl"]
        self._post_urls = {name: self._sqs.get_queue_url(QueueName=name)["QueueUrl"] for name in POST_QUEUES}
        self._local = threading.local()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._is_stopping = threading.Event()

    def stop(self, *_: object) -> None:
        self._is_stopping.set()

    def run(self) -> None:
        """Receive until stopped, then finish what is in flight."""
        with ThreadPoolExecutor(THREADS) as pool:
            while not self._is_stopping.is_set():
                for message in self._receive():
                    self._room.acquire()
                    pool.submit(self._handle, message)

    def _receive(self) -> list[dict[str, Any]]:
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._source_url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=10,
                VisibilityTimeout=VISIBILITY_SECONDS,
                MessageAttributeNames=["submission_id"],
            )
        except (BotoCoreError, ClientError):
            logger.exception("cannot receive")
            time.sleep(1)
            return []
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def _handle(self, message: dict[str, Any]) -> None:
        try:
            self._answer(message)
            self._sqs.delete_message(QueueUrl=self._source_url, ReceiptHandle=message["ReceiptHandle"])
        except Exception:
            logger.exception("message %s is left on the queue", message["MessageId"])
        finally:
            self._room.release()

    def _answer(self, message: dict[str, Any]) -> None:
        body = json.loads(message["Body"])
        submission = Submission(message, body)
        post_url = self._post_urls[submission.post_queue]
        status, answer = self._verify(submission.receipt)
        for transaction, refusal in _transactions(status, answer):
            reason = refusal or self._claim(transaction, answer.get("environment", "Production"), submission)
            result = {
                "user_id": submission.user_id,
                "transaction_id": str(transaction["transaction_id"]),
                "status": "OK" if reason in OK_REASONS else "INVALID",
            }
            attributes = {
                "reason": reason,
                "submission_id": submission.submission_id,
                "source_message_id": submission.message_id,
                "product_id": transaction["product_id"],
                "environment": answer.get("environment", "Production"),
            }
            self._sqs.send_message(
                QueueUrl=post_url,
                MessageBody=json.dumps(result),
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
                },
            )

    def _verify(self, receipt: str) -> tuple[int, dict[str, Any]]:
        answer = self._ask_apple(PRODUCTION_URL, receipt)
        if answer["status"] == SANDBOX_RECEIPT:
            answer = self._ask_apple(SANDBOX_URL, receipt)
        if answer["status"] not in (0, EXPIRED):
            raise NotYet(f"Apple says {answer['status']}")
        return answer["status"], answer

    def _ask_apple(self, url: str, receipt: str) -> dict[str, Any]:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()  # one a thread: they are not promised to be thread-safe
        response = self._local.session.post(url, json={"receipt-data": receipt}, timeout=TIMEOUTS_SECONDS)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def _claim(self, transaction: dict[str, Any], environment: str, submission: Submission) -> str:
        """Put the claim unless somebody has; whoever has it may be this very submission, delivered before."""
        item = {
            "TransactionId": {"S": str(transaction["transaction_id"])},
            "SubmissionId": {"S": submission.submission_id},
            "MessageId": {"S": submission.message_id},
            "UserId": {"N": str(submission.user_id)},
            "ReceiptSha256": {"S": hashlib.sha256(submission.receipt.encode()).hexdigest()},
            "ProductId": {"S": transaction["product_id"]},
            "OriginalTransactionId": {"S": str(transaction["original_transaction_id"])},
            "Environment": {"S": environment},
            "SourceQueue": {"S": SOURCE_QUEUE},
            "PostQueue": {"S": submission.post_queue},
            "ClaimedAt": {"N": repr(time.time())},
            "SchemaVersion": {"N": "1"},
        }
        try:
            self._dynamodb.put_item(
                TableName=TABLE,
                Item=item,
                ConditionExpression="attribute_not_exists(TransactionId)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            old = error.response.get("Item", {})
            is_ours = all(old.get(name) == item[name] for name in ("SubmissionId", "UserId", "ReceiptSha256"))
            return "already_ours" if is_ours else "claimed_by_another_user"
        return "claimed"


class Submission:
    """What a message says."""

    def __init__(self, message: dict[str, Any], body: dict[str, Any]) -> None:
        self.message_id: str = message["MessageId"]
        attribute = message.get("MessageAttributes", {}).get("submission_id", {})
        self.submission_id: str = attribute.get("StringValue", self.message_id)
        self.receipt: str = body["receipt"]
        self.user_id: int = body["user_id"]
        self.post_queue: str = body["post_queue"]


def _transactions(status: int, answer: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Each transaction of the receipt, and what speaks against claiming it."""
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
        elif status == EXPIRED or float(entry.get("expires_date_ms", "inf")) < now_ms:
            yield entry, "expired"
        else:
            yield entry, None


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    pipeline = Pipeline()
    signal.signal(signal.SIGTERM, pipeline.stop)
    pipeline.run()


if __name__ == "__main__":
    main()
