"""The contract on one event loop, by somebody who knows how: aiobotocore and aiohttp, batches wherever there are any.

It stands beside our figures as the best that is commonly done. Messages are received ten at a time by several tasks,
what is in flight is bounded, Apple is asked over a pool of connections that are kept alive, claims go 25 to a request
(PartiQL; where somebody has the transaction a single conditional put decides), answers and deletes go ten to a request,
and entries wait a few milliseconds for others. A message is deleted only when its answer has been accepted. What fails
is logged, and comes back by its visibility timeout.

aiobotocore pins botocore,
so this runs in an environment of its own: ``pip install aiobotocore aiohttp orjson uvloop``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import cache
from typing import Any, Generic, TypeVar

import aiohttp
import orjson
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from tests.benchmark.pipelines.contract import (
    POST_QUEUES,
    PRODUCTION_URL,
    RECEIVE,
    SANDBOX_RECEIPT,
    SANDBOX_URL,
    SOURCE_QUEUE,
    TABLE,
    Item,
    NotYet,
    Submission,
    answer_message,
    claim_of,
    put_of,
    reason_of,
    transactions,
)

try:
    from uvloop import run
except ImportError:
    from asyncio import run

RECEIVERS = 4
IN_FLIGHT = 2000
APPLE_CONNECTIONS = 1000
AWS_CONNECTIONS = 50
LINGER_SECONDS = 0.005
APPLE_TIMEOUT = aiohttp.ClientTimeout(connect=3, sock_read=10)

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("asyncio_pipeline")


class Batcher(Generic[T, R]):
    def __init__(self, send: Callable[[Sequence[T]], Awaitable[Sequence[R]]], max_entries: int) -> None:
        self._send = send
        self._max_entries = max_entries
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    def put(self, entry: T) -> asyncio.Future[R]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((entry, future))
        if len(self._waiting) >= self._max_entries:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(LINGER_SECONDS, self._flush)
        return future

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        task = asyncio.create_task(self._carry_out(batch))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _carry_out(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._send([entry for entry, _ in batch])
        except (BotoCoreError, ClientError, aiohttp.ClientError, NotYet) as error:
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)


class Pipeline:
    def __init__(self, sqs: Any, dynamodb: Any, http: aiohttp.ClientSession, urls: dict[str, str]) -> None:
        self._sqs = sqs
        self._dynamodb = dynamodb
        self._http = http
        self._urls = urls
        self._room = asyncio.Semaphore(IN_FLIGHT // 10)  # in receives of ten
        self._under_way: set[asyncio.Task[None]] = set()
        self._claims = Batcher(self._claim_batch, 25)
        self._answers = {name: Batcher(self._sender(name), 10) for name in POST_QUEUES}
        self._deletes = Batcher(self._delete_batch, 10)

    async def run(self) -> None:
        try:
            await asyncio.gather(*(self._consume() for _ in range(RECEIVERS)))
        except asyncio.CancelledError:
            await asyncio.gather(*self._under_way)

    async def _consume(self) -> None:
        while True:
            await self._room.acquire()
            messages = await self._receive()
            task = asyncio.create_task(self._handle_all(messages))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _receive(self) -> list[dict[str, Any]]:
        try:
            answer = await self._sqs.receive_message(QueueUrl=self._urls[SOURCE_QUEUE], **RECEIVE)
        except (BotoCoreError, ClientError, aiohttp.ClientError):
            logger.exception("cannot receive")
            await asyncio.sleep(1)
            return []
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    async def _handle_all(self, messages: list[dict[str, Any]]) -> None:
        try:
            await asyncio.gather(*map(self._handle, messages))
        finally:
            self._room.release()

    async def _handle(self, message: dict[str, Any]) -> None:
        try:
            await self._answer(message)
            await self._deletes.put(message["ReceiptHandle"])
        except Exception:
            logger.exception("message %s is left on the queue", message["MessageId"])

    async def _answer(self, message: dict[str, Any]) -> None:
        submission = Submission.of(message)
        answers = self._answers[submission.post_queue]
        answer = await self._ask_apple(PRODUCTION_URL, submission.receipt)
        if answer["status"] == SANDBOX_RECEIPT:
            answer = await self._ask_apple(SANDBOX_URL, submission.receipt)
        sent = []
        for transaction, refusal in transactions(answer):
            reason = refusal or await self._claim(claim_of(transaction, answer, submission))
            sent.append(answers.put(answer_message(transaction, answer, submission, reason)))
        for each in sent:
            await each

    async def _ask_apple(self, url: str, receipt: str) -> dict[str, Any]:
        async with self._http.post(url, data=orjson.dumps({"receipt-data": receipt})) as response:
            response.raise_for_status()
            answer: dict[str, Any] = orjson.loads(await response.read())
            return answer

    # --- claims ---

    async def _claim(self, item: Item) -> str:
        """Claim in a batch; where somebody has it, perhaps this submission delivered before, a single put decides."""
        return "claimed" if await self._claims.put(item) else await self._claim_alone(item)

    async def _claim_batch(self, items: Sequence[Item]) -> Sequence[bool]:
        if len({item["TransactionId"]["S"] for item in items}) < len(items):  # DynamoDB refuses such a batch
            return [False] * len(items)
        statements = [{"Statement": _insert(tuple(item)), "Parameters": list(item.values())} for item in items]
        answer = await self._dynamodb.batch_execute_statement(Statements=statements)
        return ["Error" not in each for each in answer["Responses"]]

    async def _claim_alone(self, item: Item) -> str:
        try:
            await self._dynamodb.put_item(**put_of(item))
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            return reason_of(item, error.response.get("Item", {}))
        return "claimed"

    # --- answers and deletes ---

    def _sender(self, queue: str) -> Callable[[Sequence[dict[str, Any]]], Awaitable[Sequence[None]]]:
        async def send(messages: Sequence[dict[str, Any]]) -> Sequence[None]:
            entries = [{"Id": str(number), **message} for number, message in enumerate(messages)]
            return _all_confirmed(await self._sqs.send_message_batch(QueueUrl=self._urls[queue], Entries=entries))

        return send

    async def _delete_batch(self, handles: Sequence[str]) -> Sequence[None]:
        entries = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles)]
        url = self._urls[SOURCE_QUEUE]
        return _all_confirmed(await self._sqs.delete_message_batch(QueueUrl=url, Entries=entries))


def _all_confirmed(answer: dict[str, Any]) -> Sequence[None]:
    """Nothing for each entry. If one failed all count as failed: they come back, and are answered again the same."""
    if answer.get("Failed"):
        raise NotYet(f"SQS says {answer['Failed'][0]}")
    return [None] * len(answer["Successful"])


@cache
def _insert(names: tuple[str, ...]) -> str:
    values = ", ".join(f"'{name}': ?" for name in names)
    return f'INSERT INTO "{TABLE}" VALUE {{{values}}}'


async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    config = AioConfig(
        max_pool_connections=AWS_CONNECTIONS, retries={"mode": "standard"}, parameter_validation=False, read_timeout=30
    )
    trust = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
    async with AsyncExitStack() as stack:
        session = get_session()
        sqs = await stack.enter_async_context(session.create_client("sqs", config=config))
        dynamodb = await stack.enter_async_context(session.create_client("dynamodb", config=config))
        connector = aiohttp.TCPConnector(limit=APPLE_CONNECTIONS, ssl=trust)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector, timeout=APPLE_TIMEOUT, headers={"Content-Type": "application/json"}
            )
        )
        names = [SOURCE_QUEUE, *POST_QUEUES]
        urls = {name: (await sqs.get_queue_url(QueueName=name))["QueueUrl"] for name in names}
        task = asyncio.create_task(Pipeline(sqs, dynamodb, http, urls).run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await task


if __name__ == "__main__":
    run(main())
