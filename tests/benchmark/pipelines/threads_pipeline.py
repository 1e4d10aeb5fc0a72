"""The contract as a script of an afternoon: a pool of 200 threads, boto3 and requests, one call each.

It stands beside our figures as what most teams have, and is written as well as such a script is: connections are kept
alive, what is in flight is bounded, a claim is a conditional put that knows its own submission again, and a message is
deleted only when its answer has been accepted. What fails is logged, and comes back by its visibility timeout.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.benchmark.pipelines.contract import (
    POST_QUEUES,
    PRODUCTION_URL,
    RECEIVE,
    SANDBOX_RECEIPT,
    SANDBOX_URL,
    SOURCE_QUEUE,
    Item,
    Submission,
    answer_message,
    claim_of,
    put_of,
    reason_of,
    transactions,
)

THREADS = 200
IN_FLIGHT = 2 * THREADS  #: received and not finished: threads never wait for messages while there are some
TIMEOUTS_SECONDS = (3, 10)  #: to connect to Apple, and to wait for its answer

logger = logging.getLogger("threads_pipeline")


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
        with ThreadPoolExecutor(THREADS) as pool:
            while not self._is_stopping.is_set():
                for message in self._receive():
                    self._room.acquire()
                    pool.submit(self._handle, message)

    def _receive(self) -> list[dict[str, Any]]:
        try:
            answer = self._sqs.receive_message(QueueUrl=self._source_url, **RECEIVE)
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
        submission = Submission.of(message)
        post_url = self._post_urls[submission.post_queue]
        answer = self._ask_apple(PRODUCTION_URL, submission.receipt)
        if answer["status"] == SANDBOX_RECEIPT:
            answer = self._ask_apple(SANDBOX_URL, submission.receipt)
        for transaction, refusal in transactions(answer):
            reason = refusal or self._claim(claim_of(transaction, answer, submission))
            self._sqs.send_message(QueueUrl=post_url, **answer_message(transaction, answer, submission, reason))

    def _ask_apple(self, url: str, receipt: str) -> dict[str, Any]:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()  # one a thread: they are not promised to be thread-safe
        response = self._local.session.post(url, json={"receipt-data": receipt}, timeout=TIMEOUTS_SECONDS)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def _claim(self, item: Item) -> str:
        try:
            self._dynamodb.put_item(**put_of(item))
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            return reason_of(item, error.response.get("Item", {}))
        return "claimed"


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    pipeline = Pipeline()
    signal.signal(signal.SIGTERM, pipeline.stop)
    pipeline.run()


if __name__ == "__main__":
    main()
