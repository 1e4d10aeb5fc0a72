"""What is around the program on each backend: queues, a ledger, and their other users (producers, readers, operators).

``EmbeddedWorld`` is an SQLite file, and the program gets its settings as flags. ``AwsWorld`` is SQS and DynamoDB (moto
over HTTP), prepared and looked at by plain boto3, and the program gets everything by environment variables.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from receipt_actors.clients.embedded import EmbeddedQueues
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS, Environment, LedgerItem, OutgoingMessage
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.check import AnswerSeen, DeadLetterSeen, check
from receipt_actors.sandbox.load import Kind, SampleMessage, Scenario, make_scenario

from .processes import Program, Programs

SOURCE = "ReceiptsSQS"
RESULTS = "ResultsSQS"
DEAD_LETTERS = "ReceiptsSQSDLQ"
TABLE = "TransactionIdTable"
BUNDLE_ID = "com.example.game"
REGION = "eu-west-1"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as a reader of a queue finds it."""

    message_id: str
    body: str
    attributes: Mapping[str, str]

    @property
    def fields(self) -> dict[str, Any]:
        """The body of an answer, or of a message of the contract."""
        fields: dict[str, Any] = json.loads(self.body)
        return fields


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the program left behind: everything on the queues that it writes to."""

    answers: Sequence[Letter]
    dead_letters: Sequence[Letter]

    def faults(self, scenario: Scenario) -> tuple[str, ...]:
        """What is not as the scenario wants it."""
        answers = [AnswerSeen(**letter.fields, reason=letter.attributes["reason"]) for letter in self.answers]
        dead_letters = [DeadLetterSeen(letter.body, letter.attributes["reason"]) for letter in self.dead_letters]
        return check(scenario, answers, dead_letters).wrong

    def transaction_ids(self, status: str) -> set[str]:
        return {letter.fields["transaction_id"] for letter in self.answers if letter.fields["status"] == status}


class World(ABC):
    """See the module. ``start`` takes settings by their names, as in a TOML file."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs

    def start(self, store: SimulatedAppStore, **settings: object) -> Program:
        """Start the program against this App Store."""
        all_settings = {
            "bundle_ids": BUNDLE_ID,
            "app_store_production_url": store.production_url,
            "app_store_sandbox_url": store.sandbox_url,
            "receive_wait_seconds": 1,
            **settings,
        }
        return self.run({name: str(value) for name, value in all_settings.items()})

    @abstractmethod
    def run(self, settings: Mapping[str, str]) -> Program:
        """Start the program with these settings, spelled as this backend's user would."""

    @abstractmethod
    def send(self, messages: Iterable[SampleMessage]) -> None:
        """Send to the source queue, as a producer."""

    @abstractmethod
    def visible(self, queue: str) -> int:
        """Count the messages that can be received now."""

    @abstractmethod
    def total(self, queue: str) -> int:
        """Count all messages: those that can be received now, and those that are hidden because somebody has them."""

    @abstractmethod
    def take(self, queue: str) -> list[Letter]:
        """Receive all that can be received now."""

    @abstractmethod
    def claimed_transaction_ids(self) -> list[str]:
        """List the keys of the ledger."""

    def outcome(self) -> Outcome:
        return Outcome(self.take(RESULTS), self.take(DEAD_LETTERS))


class EmbeddedWorld(World):
    def __init__(self, programs: Programs, folder: Path) -> None:
        super().__init__(programs)
        self.database = folder / "receipts.db"
        self.module = "receipt_actors"  # what is run as the program,
        self.environment: dict[str, str] = {}  # and in what environment
        self._queues = EmbeddedQueues(self.database)
        self._queues.create_queue(SOURCE, DEAD_LETTERS)
        self._queues.create_queue(RESULTS)
        # To a reader who lives after every visibility timeout nothing is hidden.
        self._later = EmbeddedQueues(self.database, clock=lambda: time.time() + MAX_VISIBILITY_SECONDS)

    def close(self) -> None:
        self._queues.close()
        self._later.close()

    def run(self, settings: Mapping[str, str]) -> Program:
        flags = {name.replace("exit_when_idle_seconds", "exit_when_idle"): value for name, value in settings.items()}
        arguments = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", value)]
        command = ["start", "--database", str(self.database), *arguments]
        return self.programs.start(*command, environment=self.environment, module=self.module)

    def send(self, messages: Iterable[SampleMessage]) -> None:
        for batch in _batches([OutgoingMessage(message.body, message.attributes) for message in messages]):
            assert self._queues.send(SOURCE, batch) == [None] * len(batch)

    def visible(self, queue: str) -> int:
        return self._queues.approximate_number_of_messages(queue)

    def total(self, queue: str) -> int:
        return self._later.approximate_number_of_messages(queue)

    def visible_after(self, seconds: float, queue: str) -> int:
        """Count the messages that could be received so much later, if nobody did anything meanwhile."""
        queues = EmbeddedQueues(self.database, clock=lambda: time.time() + seconds)
        try:
            return queues.approximate_number_of_messages(queue)
        finally:
            queues.close()

    def most_receives(self, queue: str) -> int:
        """Tell how often the message of this queue was received that was received most often."""
        select = "SELECT MAX(receive_count) FROM messages JOIN queues USING (queue_id) WHERE name = ?"
        with closing(sqlite3.connect(self.database)) as connection:
            (receives,) = connection.execute(select, (queue,)).fetchone()
        return receives or 0

    def take(self, queue: str) -> list[Letter]:
        return list(self._receive(self._queues, queue))

    def take_away(self, queue: str) -> list[Letter]:
        """Receive and delete up to ten messages, as a reader does who goes on for ever."""
        received = self._queues.receive(queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=600)
        if received:
            self._queues.delete(queue, [message.receipt_handle for message in received])
        return [Letter(message.message_id, message.body, message.attributes) for message in received]

    def bring_back(self, queue: str) -> None:
        """Make the messages of a dead process visible now, instead of waiting for their visibility timeout."""
        handles: list[str] = []
        while received := self._later.receive(
            queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=MAX_VISIBILITY_SECONDS
        ):
            handles += [message.receipt_handle for message in received]
        for batch in _batches(handles):
            assert self._queues.change_visibility(queue, [(handle, 0) for handle in batch]) == [None] * len(batch)

    def claimed_transaction_ids(self) -> list[str]:
        with closing(sqlite3.connect(self.database)) as connection:
            return [transaction_id for (transaction_id,) in connection.execute("SELECT transaction_id FROM ledger")]

    @staticmethod
    def _receive(queues: EmbeddedQueues, queue: str) -> Iterator[Letter]:
        while received := queues.receive(queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=600):
            for message in received:
                yield Letter(message.message_id, message.body, message.attributes)


class AwsServer:
    """moto over HTTP on loopback, with something in front of it that makes trouble.

    ``refused`` are operations that are answered 503 and not carried out. Of each ``lossy`` one the third, sixth,
    ninth and twelfth request is carried out, but answered 500, the worst that a service can do: often enough to meet
    many messages, and too seldom for anyone to give up.
    """

    def __init__(self) -> None:
        self.refused: frozenset[str] = frozenset()
        self.lossy: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._moto = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line for each request
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="moto", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Make an empty account without trouble of it: the names are the same in every test."""
        self.refused = self.lossy = frozenset()
        self._requests.clear()
        with urlopen(Request(f"{self.url}/moto-api/reset", method="POST")):
            pass

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        if operation in self.refused:
            return _error("503 Service Unavailable", start_response)
        if operation in self.lossy and self._is_lost(operation):
            for _chunk in self._moto(environ, lambda *_: None):
                pass
            return _error("500 Internal Server Error", start_response)
        answer: Iterable[bytes] = self._moto(environ, start_response)
        return answer

    def _is_lost(self, operation: str) -> bool:
        with self._lock:
            self._requests[operation] += 1
            return self._requests[operation] in (3, 6, 9, 12)


def _error(status: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = b'{"__type": "InternalServerError", "message": "try again"}'
    headers = [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


class AwsWorld(World):
    """An account in which nothing exists until ``create_queues`` and ``create_table``."""

    def __init__(self, programs: Programs, server: AwsServer) -> None:
        super().__init__(programs)
        self.server = server
        self.environment = {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        session = boto3.Session("testing", "testing", region_name=REGION)
        self._sqs: Any = session.client("sqs", endpoint_url=server.url)
        self._dynamodb: Any = session.client("dynamodb", endpoint_url=server.url)

    def close(self) -> None:
        self._sqs.close()
        self._dynamodb.close()

    def create_queues(self, *, redrive: bool = True) -> None:
        """Create all three; without ``redrive`` the source queue knows nothing of the dead-letter queue."""
        self._sqs.create_queue(QueueName=RESULTS)
        url = self._sqs.create_queue(QueueName=DEAD_LETTERS)["QueueUrl"]
        attributes = {}
        if redrive:
            arn = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 20})
        self._sqs.create_queue(QueueName=SOURCE, Attributes=attributes)

    def create_table(self) -> None:
        self._dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "TransactionId", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "TransactionId", "AttributeType": "S"}],
        )

    def run(self, settings: Mapping[str, str]) -> Program:
        arguments = ["start"]
        variables = dict(settings)
        if "exit_when_idle_seconds" in variables:
            arguments += ["--exit-when-idle", variables.pop("exit_when_idle_seconds")]
        environment = {f"RECEIPT_ACTORS_{name.upper()}": value for name, value in variables.items()}
        return self.programs.start(*arguments, environment=self.environment | environment)

    def send(self, messages: Iterable[SampleMessage]) -> None:
        entries = [
            {
                "Id": str(number),
                "MessageBody": message.body,
                "MessageAttributes": {
                    name: {"DataType": "String", "StringValue": value} for name, value in message.attributes.items()
                },
            }
            for number, message in enumerate(messages)
        ]
        for batch in _batches(entries):
            answer = self._sqs.send_message_batch(QueueUrl=self._url(SOURCE), Entries=batch)
            assert len(answer["Successful"]) == len(batch)

    def visible(self, queue: str) -> int:
        return self._count(queue, "ApproximateNumberOfMessages")

    def total(self, queue: str) -> int:
        return self._count(queue, "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")

    def take(self, queue: str) -> list[Letter]:
        letters: list[Letter] = []
        while received := self._sqs.receive_message(
            QueueUrl=self._url(queue), MaxNumberOfMessages=10, VisibilityTimeout=600, MessageAttributeNames=["All"]
        ).get("Messages"):
            letters += [
                Letter(
                    message["MessageId"],
                    message["Body"],
                    {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()},
                )
                for message in received
            ]
        return letters

    def claimed_transaction_ids(self) -> list[str]:
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=TABLE)
        return [item["TransactionId"]["S"] for page in pages for item in page["Items"]]

    def claims(self) -> list[LedgerItem]:
        """Read every claim of the ledger."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=TABLE)
        return [_claim(item) for page in pages for item in page["Items"]]

    def _count(self, queue: str, *names: str) -> int:
        answer = self._sqs.get_queue_attributes(QueueUrl=self._url(queue), AttributeNames=list(names))
        return sum(int(answer["Attributes"][name]) for name in names)

    def _url(self, queue: str) -> str:
        url: str = self._sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        return url


def _claim(item: Mapping[str, Any]) -> LedgerItem:
    def text(name: str) -> Any:
        return item[name]["S"] if name in item else None

    return LedgerItem(
        transaction_id=text("TransactionId"),
        submission_id=text("SubmissionId"),
        message_id=text("MessageId"),
        user_id=int(item["UserId"]["N"]),
        receipt_sha256=text("ReceiptSha256"),
        product_id=text("ProductId"),
        original_transaction_id=text("OriginalTransactionId"),
        environment=Environment(text("Environment")),
        source_queue=text("SourceQueue"),
        post_queue=text("PostQueue"),
        claimed_at_seconds=float(item["ClaimedAt"]["N"]),
    )


def genuine_messages(count: int, seed: int, post_queue: str = RESULTS) -> list[SampleMessage]:
    """Make messages that must all be answered OK, each for a user of its own."""
    messages = make_scenario(2 * count + 20, seed, BUNDLE_ID, post_queue).messages  # over half of many are genuine
    return [message for message in messages if message.kind == Kind.GENUINE][:count]


def _batches(entries: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(entries), 10):
        yield list(entries[start : start + 10])
