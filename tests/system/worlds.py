"""What is around the program on each backend: queues, a ledger, and those who use them beside it."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sqs.models import sqs_backends
from werkzeug.serving import make_server

from receipt_actors.aws.tables import _standing
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS, LedgerItem, OutgoingMessage
from receipt_actors.domain.sqs_rules import is_fifo
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.check import AnswerSeen, DeadLetterSeen, check
from receipt_actors.sandbox.load import Kind, SampleMessage, Scenario, make_scenario
from receipt_actors.sqlite import EmbeddedLedger, EmbeddedQueues
from tests.patience import PATIENCE_SECONDS

from .processes import Program, Programs

SOURCE = "ReceiptsSQS"
RESULTS = "ResultsSQS"
DEAD_LETTERS = "ReceiptsSQSDLQ"
TABLE = "TransactionIdTable"
BUNDLE_ID = "com.example.game"
REGION = "eu-west-1"
_OUTBOX = "OutboxOfTheTests"


@dataclass(frozen=True, slots=True)
class Letter:
    message_id: str
    body: str
    attributes: Mapping[str, str]

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.body)
        return fields


@dataclass(frozen=True, slots=True)
class Outcome:
    answers: Sequence[Letter]
    dead_letters: Sequence[Letter]

    def faults(self, scenario: Scenario) -> tuple[str, ...]:
        answers = [AnswerSeen(**letter.fields, reason=letter.attributes["reason"]) for letter in self.answers]
        dead_letters = [DeadLetterSeen(letter.body, letter.attributes["reason"]) for letter in self.dead_letters]
        return check(scenario, answers, dead_letters).wrong

    def transaction_ids(self, status: str) -> set[str]:
        return {letter.fields["transaction_id"] for letter in self.answers if letter.fields["status"] == status}


class World(ABC):
    """``environment``, ``module`` and ``within`` are what every program is started with."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.environment: dict[str, str] = {}
        self.module = "receipt_actors"
        self.within: Sequence[str] = ()

    def start(self, store: SimulatedAppStore, **settings: object) -> Program:
        all_settings = {
            "bundle_ids": BUNDLE_ID,
            "app_store_url": store.url,
            "receive_wait_seconds": 1,
            "drain_seconds": PATIENCE_SECONDS,
            **settings,
        }
        return self.run({name: str(value) for name, value in all_settings.items()})

    def start_consuming(self, store: SimulatedAppStore, **settings: object) -> Program:
        program = self.start(store, **settings)
        program.wait_for_log("consumers take receipts")
        return program

    def finish(self, store: SimulatedAppStore, **settings: object) -> Program:
        program = self.start(store, **{"exit_when_idle_seconds": 1, **settings})
        assert program.wait_for_end() == 0
        return program

    @abstractmethod
    def run(self, settings: Mapping[str, str]) -> Program: ...

    @abstractmethod
    def command(self, *arguments: str) -> Program: ...

    @abstractmethod
    def create_queue(self, name: str, dead_letter_queue: str | None = None) -> None: ...

    @abstractmethod
    def bring_back(self, queue: str) -> None:
        """Make the messages of a dead process visible now, instead of waiting for their visibility timeout."""

    @abstractmethod
    def send(self, messages: Iterable[SampleMessage], queue: str = SOURCE) -> list[str]:
        """Send to a source queue, as a producer. Returns the message ids, in this order."""

    @abstractmethod
    def visible(self, queue: str) -> int: ...

    @abstractmethod
    def total(self, queue: str) -> int:
        """Count all messages, also those that are hidden because somebody has received them."""

    @abstractmethod
    def take(self, queue: str) -> list[Letter]: ...

    @abstractmethod
    def read(self, queue: str) -> list[Letter]: ...

    @abstractmethod
    def ledger_items(self) -> list[LedgerItem]: ...

    def claimed_transaction_ids(self) -> list[str]:
        return [item.transaction_id for item in self.ledger_items()]

    def outcome(self) -> Outcome:
        return Outcome(self.take(RESULTS), self.take(DEAD_LETTERS))


class EmbeddedWorld(World):
    def __init__(self, programs: Programs, folder: Path) -> None:
        super().__init__(programs)
        self.database = folder / "receipts.db"
        self._queues = EmbeddedQueues(self.database)
        self._queues.create_queue(SOURCE, DEAD_LETTERS)
        self._queues.create_queue(RESULTS)
        self._queues.create_queue(_OUTBOX)
        # To a reader who lives after every visibility timeout nothing is hidden.
        self._later = EmbeddedQueues(self.database, clock=lambda: time.time() + MAX_VISIBILITY_SECONDS)

    def close(self) -> None:
        self._queues.close()
        self._later.close()

    def run(self, settings: Mapping[str, str]) -> Program:
        flags = {name.replace("exit_when_idle_seconds", "exit_when_idle"): value for name, value in settings.items()}
        arguments = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", value)]
        return self.command("start", *arguments)

    def command(self, *arguments: str) -> Program:
        name, *others = arguments
        database = ("--database", str(self.database))
        return self.programs.start(name, *database, *others, environment=self.environment, module=self.module)

    def create_queue(self, name: str, dead_letter_queue: str | None = None) -> None:
        self._queues.create_queue(name, dead_letter_queue)

    def send(self, messages: Iterable[SampleMessage], queue: str = SOURCE) -> list[str]:
        """See ``World``. The port tells no message ids, and a program that runs may delete a message at any time; so
        they are read on a queue that it does not know, and then moved.
        """
        message_ids: list[str] = []
        move = "UPDATE messages SET queue_id = (SELECT queue_id FROM queues WHERE name = ?) WHERE queue_id = ?"
        ((outbox,),) = self.sql("SELECT queue_id FROM queues WHERE name = ?", _OUTBOX)
        for batch in _batches([OutgoingMessage(message.body, message.attributes) for message in messages]):
            assert self._queues.send(_OUTBOX, batch) == [None] * len(batch)
            rows = self.sql("SELECT message_id FROM messages WHERE queue_id = ? ORDER BY row_id", outbox)
            message_ids += [message_id for (message_id,) in rows]
            self.sql(move, queue, outbox)
        return message_ids

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Carry one statement out behind the program's back."""
        with closing(sqlite3.connect(self.database, timeout=PATIENCE_SECONDS)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    def visible(self, queue: str) -> int:
        return self._queues.approximate_number_of_messages(queue)

    def total(self, queue: str) -> int:
        return self._later.approximate_number_of_messages(queue)

    def visible_after(self, seconds: float, queue: str) -> int:
        with closing(EmbeddedQueues(self.database, clock=lambda: time.time() + seconds)) as queues:
            return queues.approximate_number_of_messages(queue)

    def most_receives(self, queue: str) -> int:
        select = "SELECT MAX(receive_count) FROM messages JOIN queues USING (queue_id) WHERE name = ?"
        return self.sql(select, queue)[0][0] or 0

    def take(self, queue: str) -> list[Letter]:
        return list(self._receive(self._queues, queue))

    def read(self, queue: str) -> list[Letter]:
        letters: list[Letter] = []
        while received := self._queues.receive(queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=600):
            letters += [Letter(message.message_id, message.body, message.attributes) for message in received]
            self._queues.delete(queue, [message.receipt_handle for message in received])
        return letters

    def bring_back(self, queue: str) -> None:
        """See ``World``. Of a FIFO queue's messages none may come to be seen before another one of its group."""
        if is_fifo(queue):
            self.sql(
                "UPDATE messages SET visible_at_seconds = received_at_seconds WHERE receipt IS NOT NULL"
                " AND queue_id = (SELECT queue_id FROM queues WHERE name = ?)",
                queue,
            )
            return
        handles: list[str] = []
        while received := self._later.receive(
            queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=MAX_VISIBILITY_SECONDS
        ):
            handles += [message.receipt_handle for message in received]
        for batch in _batches(handles):
            assert self._queues.change_visibility(queue, [(handle, 0) for handle in batch]) == [None] * len(batch)

    def ledger_items(self) -> list[LedgerItem]:
        with closing(EmbeddedLedger(self.database)) as ledger:
            items = [ledger.get(transaction_id) for (transaction_id,) in self.sql("SELECT transaction_id FROM ledger")]
        return [item for item in items if isinstance(item, LedgerItem)]

    @staticmethod
    def _receive(queues: EmbeddedQueues, queue: str) -> Iterator[Letter]:
        while received := queues.receive(queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=600):
            for message in received:
                yield Letter(message.message_id, message.body, message.attributes)


#: What AWS does at one stroke, and moto does not: each delete makes a new list of a queue's messages, and undoes what
#: another request has done meanwhile; two conditional puts may both find that nothing stands in their way.
_ONE_AT_A_TIME = frozenset(
    {"SendMessage", "SendMessageBatch", "DeleteMessage", "DeleteMessageBatch", "PutItem", "UpdateItem", "DeleteItem"}
)

#: What moto answers as if it did it: its INSERT of PartiQL overwrites what stands in its way. Some emulators lack it.
_UNKNOWN = frozenset({"BatchExecuteStatement"})


@dataclass(frozen=True, slots=True)
class Refusal:
    status: str = "503 Service Unavailable"
    code: str = "ServiceUnavailable"


class AwsServer:
    """moto over HTTP on loopback, with something in front of it that makes trouble for the program.

    ``refused`` operations are answered with ``refusal`` and not carried out. Of each ``lossy`` one the third, sixth,
    ninth and twelfth request is carried out, but answered 500: too seldom for the program to give up.
    """

    def __init__(self) -> None:
        self.refused: frozenset[str] = frozenset()
        self.refusal = Refusal()
        self.lossy: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
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
        self.refused = self.lossy = frozenset()
        self.refusal = Refusal()
        self._requests.clear()
        with urlopen(Request(f"{self.url}/moto-api/reset", method="POST")):
            pass

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        is_program = environ.get("HTTP_USER_AGENT", "").startswith("receipt-actors")
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        if is_program and operation in self.refused:
            return _error(self.refusal, start_response)
        if operation in _UNKNOWN:
            return _error(Refusal("400 Bad Request", "UnknownOperationException"), start_response)
        with self._writing if operation in _ONE_AT_A_TIME else nullcontext():
            if is_program and operation in self.lossy and self._is_lost(operation):
                for _chunk in self._moto(environ, lambda *_: None):
                    pass
                return _error(Refusal("500 Internal Server Error", "InternalServerError"), start_response)
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer

    def _is_lost(self, operation: str) -> bool:
        with self._lock:
            self._requests[operation] += 1
            return self._requests[operation] in (3, 6, 9, 12)


def _error(refusal: Refusal, start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = json.dumps({"__type": refusal.code, "message": "made by a test"}).encode()
    headers = [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))]
    start_response(refusal.status, headers)
    return [body]


class AwsWorld(World):
    """An account with nothing in it. ``server`` is anything with a ``url``; the program may be given another URL."""

    def __init__(self, programs: Programs, server: AwsServer, programs_url: str | None = None) -> None:
        super().__init__(programs)
        self.server = server
        self.environment = {
            "AWS_ENDPOINT_URL": programs_url or server.url,
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

    def create_queues(self, *, redrive: bool = True, max_receive_count: int = 20) -> None:
        self.create_queue(RESULTS)
        self.create_queue(DEAD_LETTERS)
        self.create_queue(SOURCE, DEAD_LETTERS if redrive else None, max_receive_count)

    def create_queue(self, name: str, dead_letter_queue: str | None = None, max_receive_count: int = 20) -> None:
        attributes = {"FifoQueue": "true"} if is_fifo(name) else {}
        if dead_letter_queue is not None:
            url = self._sqs.create_queue(QueueName=dead_letter_queue, Attributes=attributes)["QueueUrl"]
            arn = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": max_receive_count})
        self._sqs.create_queue(QueueName=name, Attributes=attributes)

    def delete_queue(self, name: str) -> None:
        self._sqs.delete_queue(QueueUrl=self._url(name))

    def bring_back(self, queue: str) -> None:
        """See ``World``. Of one message after the other moto would lose their order in a FIFO queue."""
        kept = sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues[queue]
        for message in kept._messages:
            message.change_visibility(0)
        kept.pending_messages.clear()

    def create_table(self, name: str = TABLE, key: str = "TransactionId") -> None:
        self._dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        )

    def delete_table(self, name: str = TABLE) -> None:
        self._dynamodb.delete_table(TableName=name)

    def expire_items(self, attribute: str, name: str = TABLE) -> None:
        specification = {"Enabled": True, "AttributeName": attribute}
        self._dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=specification)

    def run(self, settings: Mapping[str, str]) -> Program:
        arguments = ["start"]
        variables = dict(settings)
        if "exit_when_idle_seconds" in variables:
            arguments += ["--exit-when-idle", variables.pop("exit_when_idle_seconds")]
        environment = {f"RECEIPT_ACTORS_{name.upper()}": value for name, value in variables.items()}
        environment |= self.environment
        return self.programs.start(*arguments, environment=environment, module=self.module, within=self.within)

    def command(self, *arguments: str) -> Program:
        return self.programs.start(*arguments, environment=self.environment, module=self.module)

    def send(self, messages: Iterable[SampleMessage], queue: str = SOURCE) -> list[str]:
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
        message_ids: list[str] = []
        for batch in _batches(entries):
            answer = self._sqs.send_message_batch(QueueUrl=self._url(queue), Entries=batch)
            assert len(answer["Successful"]) == len(batch)
            given = {entry["Id"]: entry["MessageId"] for entry in answer["Successful"]}
            message_ids += [given[entry["Id"]] for entry in batch]
        return message_ids

    def visible(self, queue: str) -> int:
        return self._count(queue, "ApproximateNumberOfMessages")

    def total(self, queue: str) -> int:
        """See ``World``. Who comes to be seen between an emulator's two counts is in neither, but then in the next."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return max(self._count(queue, *names), self._count(queue, *names))

    def take(self, queue: str) -> list[Letter]:
        return [letter for letters in self._receive(queue) for letter, _ in letters]

    def read(self, queue: str) -> list[Letter]:
        read: list[Letter] = []
        for letters in self._receive(queue):
            read += [letter for letter, _ in letters]
            entries = [{"Id": str(number), "ReceiptHandle": handle} for number, (_, handle) in enumerate(letters)]
            answer = self._sqs.delete_message_batch(QueueUrl=self._url(queue), Entries=entries)
            assert len(answer["Successful"]) == len(entries)
        return read

    def _receive(self, queue: str) -> Iterator[list[tuple[Letter, str]]]:
        while received := self._sqs.receive_message(
            QueueUrl=self._url(queue), MaxNumberOfMessages=10, VisibilityTimeout=600, MessageAttributeNames=["All"]
        ).get("Messages"):
            yield [(_letter(message), message["ReceiptHandle"]) for message in received]

    def ledger_items(self) -> list[LedgerItem]:
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=TABLE)
        found = (_standing(attributes) for page in pages for attributes in page["Items"])  # reads take minutes
        return [item for item in found if isinstance(item, LedgerItem)]

    def _count(self, queue: str, *names: str) -> int:
        answer = self._sqs.get_queue_attributes(QueueUrl=self._url(queue), AttributeNames=list(names))
        return sum(int(answer["Attributes"][name]) for name in names)

    def _url(self, queue: str) -> str:
        url: str = self._sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        return url


def _letter(message: Mapping[str, Any]) -> Letter:
    attributes = {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}
    return Letter(message["MessageId"], message["Body"], attributes)


def genuine_messages(
    count: int, seed: int, post_queue: str = RESULTS, bundle_id: str = BUNDLE_ID
) -> list[SampleMessage]:
    messages = make_scenario(2 * count + 20, seed, bundle_id, post_queue).messages  # over half of many are genuine
    return [message for message in messages if message.kind == Kind.GENUINE][:count]


def _batches(entries: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(entries), 10):
        yield list(entries[start : start + 10])
