"""The least that a client can do: requests written by hand on raw connections, no signatures, no checks, no retries.

It keeps the contract while nothing fails, and nothing beyond: its figures are what the simulated services cost, and a
floor that no real pipeline reaches. The harness runs it (``tests.benchmark.services_cost``)::

    python -m tests.benchmark.bare
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections import deque
from typing import Any
from urllib.parse import urlsplit

BATCH = 10
CLAIMS = int(os.environ.get("BARE_CLAIMS", "25"))  #: in a request
IN_FLIGHT = int(os.environ.get("BARE_IN_FLIGHT", "2000"))
TABLE = os.environ["RECEIPT_ACTORS_LEDGER_TABLE"]
STATEMENT = f"INSERT INTO \"{TABLE}\" VALUE {{'TransactionId': ?, 'SubmissionId': ?, 'UserId': ?, 'ReceiptSha256': ?}}"


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        start = self._received.index(b"Content-Length: ") + 16
        length = int(self._received[start : self._received.index(b"\r\n", start)])
        if len(self._received) >= end + 4 + length and self._answer is not None:
            received, self._received, future = self._received, b"", self._answer
            assert received.startswith(b"HTTP/1.1 200 "), received
            future.set_result(received[end + 4 :])


class Pool:
    """Connections to one host, kept alive."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._tls = parts.hostname, parts.port, tls
        self._path = parts.path or "/"
        self._idle: list[Connection] = []

    async def ask(self, headers: str, body: bytes) -> bytes:
        connection = self._idle.pop() if self._idle else await self._connect()
        head = f"POST {self._path} HTTP/1.1\r\nHost: {self._host}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        answer = await connection.ask(head.encode() + body)
        self._idle.append(connection)
        return answer

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        return connection


class Pipeline:
    """Receive, verify, claim, answer, delete."""

    def __init__(self) -> None:
        url = os.environ["RECEIPT_ACTORS_APP_STORE_URL"] + "/production/verifyReceipt"
        tls = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]) if url.startswith("https") else None
        self._apple = Pool(url, tls)
        self._aws = Pool(os.environ["AWS_ENDPOINT_URL"], None)
        self._room = asyncio.Semaphore(IN_FLIGHT // BATCH)
        self._tasks: set[asyncio.Task[None]] = set()
        self._claims: deque[tuple[bytes, asyncio.Future[None]]] = deque()

    async def run(self) -> None:
        await asyncio.gather(*(self._consume() for _ in range(8)))

    async def _sqs(self, operation: str, fields: Any) -> Any:
        name = os.environ["RECEIPT_ACTORS_POST_QUEUES" if "Send" in operation else "RECEIPT_ACTORS_SOURCE_QUEUE"]
        body = json.dumps({"QueueUrl": f"http://sqs/1/{name}", **fields}).encode()
        return json.loads(await self._aws.ask(f"X-Amz-Target: AmazonSQS.{operation}\r\n", body))

    async def _consume(self) -> None:
        while True:
            await self._room.acquire()
            answer = await self._sqs("ReceiveMessage", {"MaxNumberOfMessages": BATCH, "WaitTimeSeconds": 10})
            task = asyncio.create_task(self._handle(answer.get("Messages") or []))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _handle(self, messages: list[dict[str, Any]]) -> None:
        if messages:
            entries = await asyncio.gather(*map(self._validate, range(BATCH), messages))
            await self._sqs("SendMessageBatch", {"Entries": entries})
            handles = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
            await self._sqs("DeleteMessageBatch", {"Entries": handles})
        self._room.release()

    async def _validate(self, number: int, message: dict[str, Any]) -> dict[str, Any]:
        fields = json.loads(message["Body"])
        answer = json.loads(await self._apple.ask("", b'{"receipt-data":"%b"}' % fields["receipt"].encode()))
        assert answer["status"] == 0
        transaction_id = answer["receipt"]["in_app"][0]["transaction_id"]
        user_id, message_id = str(fields["user_id"]), message["MessageId"]
        await self._claim([{"S": transaction_id}, {"S": message_id}, {"N": user_id}, {"S": "a" * 64}])
        result = {"user_id": fields["user_id"], "transaction_id": transaction_id, "status": "OK"}
        attributes = {name: {"DataType": "String", "StringValue": message_id} for name in ("a", "b", "c")}
        return {"Id": str(number), "MessageBody": json.dumps(result), "MessageAttributes": attributes}

    async def _claim(self, parameters: list[dict[str, str]]) -> None:
        if CLAIMS == 1:
            names = ("TransactionId", "SubmissionId", "UserId", "ReceiptSha256")
            put = {
                "TableName": TABLE,
                "Item": dict(zip(names, parameters, strict=True)),
                "ConditionExpression": "attribute_not_exists(TransactionId)",
            }
            assert await self._dynamodb("PutItem", json.dumps(put).encode()) == b"{}"
            return
        done = asyncio.get_running_loop().create_future()
        statement = json.dumps({"Statement": STATEMENT, "Parameters": parameters}).encode()
        self._claims.append((statement, done))
        if len(self._claims) == 1:
            asyncio.get_running_loop().call_later(0.002, asyncio.ensure_future, self._claim_all())
        await done

    async def _claim_all(self) -> None:
        while self._claims:
            batch = [self._claims.popleft() for _ in range(min(CLAIMS, len(self._claims)))]
            body = b'{"Statements":[%b]}' % b",".join([statement for statement, _ in batch])
            answer = json.loads(await self._dynamodb("BatchExecuteStatement", body))
            assert not any("Error" in each for each in answer["Responses"]), answer
            for _, done in batch:
                done.set_result(None)

    async def _dynamodb(self, operation: str, body: bytes) -> bytes:
        return await self._aws.ask(f"X-Amz-Target: DynamoDB_20120810.{operation}\r\n", body)


async def main() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await Pipeline().run()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        sys.exit(asyncio.run(main()))
    uvloop.run(main())
