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
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sqs.models import sqs_backends
from werkzeug.serving import make_server

from receipt_actors.aws.ledger import _standing
from receipt_actors.domain.fifo import is_fifo
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS, LedgerItem, OutgoingMessage
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
    """See the module. ``start`` takes settings by their names, as in a TOML file.

    ``environment``, ``module`` and ``within`` are what every program is started with.
    """

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.environment: dict[str, str] = {}
        self.module = "receipt_actors"
        self.within: Sequence[str] = ()

    def start(self, store: SimulatedAppStore, **settings: object) -> Program:
        """Start the program against this App Store."""
        all_settings = {
            "bundle_ids": BUNDLE_ID,
            "app_store_url": store.url,
            "receive_wait_seconds": 1,
            "drain_seconds": PATIENCE_SECONDS,
            **settings,
        }
        return self.run({name: str(value) for name, value in all_settings.items()})

    @abstractmethod
    def run(self, settings: Mapping[str, str]) -> Program:
        """Start the program with these settings, spelled as this backend's user would."""

    @abstractmethod
    def command(self, *arguments: str) -> Program:
        """Run another command of ours on this backend's queues."""

    @abstractmethod
    def create_queue(self, name: str, dead_letter_queue: str | None = None) -> None:
        """Create one more queue, and the one that its redrive policy names."""

    @abstractmethod
    def bring_back(self, queue: str) -> None:
        """Make the messages of a dead process visible now, instead of waiting for their visibility timeout."""

    @abstractmethod
    def send(self, messages: Iterable[SampleMessage], queue: str = SOURCE) -> list[str]:
        """Send to a source queue, as a producer. Returns the message ids, in this order."""

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
    def read(self, queue: str) -> list[Letter]:
        """Receive all that can be received now and delete it, as those do whom the answers are for."""

    @abstractmethod
    def claimed_transaction_ids(self) -> list[str]:
        """List the keys of the ledger."""

    @abstractmethod
    def ledger_items(self) -> list[LedgerItem]:
        """List all that is claimed."""

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
        with closing(sqlite3.connect(self.database, timeout=PATIENCE_SECONDS)) as connection:
            for batch in _batches([OutgoingMessage(message.body, message.attributes) for message in messages]):
                assert self._queues.send(_OUTBOX, batch) == [None] * len(batch)
                rows = connection.execute(
                    "SELECT message_id FROM messages JOIN queues USING (queue_id) WHERE name = ? ORDER BY row_id",
                    (_OUTBOX,),
                )
                message_ids += [message_id for (message_id,) in rows]
                with connection:
                    connection.execute(
                        "UPDATE messages SET queue_id = (SELECT queue_id FROM queues WHERE name = ?)"
                        " WHERE queue_id = (SELECT queue_id FROM queues WHERE name = ?)",
                        (queue, _OUTBOX),
                    )
        return message_ids

    @contextmanager
    def nobody_writes(self) -> Iterator[None]:
        """Keep everybody else from beginning a transaction: who is stopped in one would hold up all others."""
        with closing(sqlite3.connect(self.database, timeout=PATIENCE_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

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
        with closing(sqlite3.connect(self.database, timeout=PATIENCE_SECONDS)) as connection:
            (receives,) = connection.execute(select, (queue,)).fetchone()
        return receives or 0

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
            with closing(sqlite3.connect(self.database, timeout=PATIENCE_SECONDS)) as connection, connection:
                connection.execute(
                    "UPDATE messages SET visible_at_seconds = received_at_seconds WHERE receipt IS NOT NULL"
                    " AND queue_id = (SELECT queue_id FROM queues WHERE name = ?)",
                    (queue,),
                )
            return
        handles: list[str] = []
        while received := self._later.receive(
            queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=MAX_VISIBILITY_SECONDS
        ):
            handles += [message.receipt_handle for message in received]
        for batch in _batches(handles):
            assert self._queues.change_visibility(queue, [(handle, 0) for handle in batch]) == [None] * len(batch)

    def claimed_transaction_ids(self) -> list[str]:
        with closing(sqlite3.connect(self.database, timeout=PATIENCE_SECONDS)) as connection:
            return [transaction_id for (transaction_id,) in connection.execute("SELECT transaction_id FROM ledger")]

    def ledger_items(self) -> list[LedgerItem]:
        with closing(EmbeddedLedger(self.database)) as ledger:
            items = [ledger.get(transaction_id) for transaction_id in self.claimed_transaction_ids()]
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
    """An error answer of AWS."""

    status: str = "503 Service Unavailable"
    code: str = "ServiceUnavailable"


class AwsServer:
    """moto over HTTP on loopback, with something in front of it that makes trouble for the program.

    It knows no PartiQL.

    ``refused`` are operations that are answered with ``refusal`` (503) and not carried out. Of each ``lossy`` one the
    third, sixth, ninth and twelfth request is carried out, but answered 500, the worst that a service can do: often
    enough to meet many messages, and too seldom for anyone to give up.
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
        """Make an empty account without trouble of it: the names are the same in every test."""
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
    """An account in which nothing exists until ``create_queues`` and ``create_table``.

    ``server`` is anything with a ``url``; the program may be given another one, of what stands in front of it.
    """

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
        """Create all three; without ``redrive`` the source queue knows nothing of the dead-letter queue."""
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
        """Have DynamoDB delete items by the time in an attribute of theirs."""
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

    def send_with(self, body: str, attributes: Mapping[str, Mapping[str, object]], queue: str = SOURCE) -> None:
        """Send one message with attributes of any type."""
        self._sqs.send_message(QueueUrl=self._url(queue), MessageBody=body, MessageAttributes=attributes)

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
        """Receive batch by batch, with receipt handles, until there is nothing."""
        while received := self._sqs.receive_message(
            QueueUrl=self._url(queue), MaxNumberOfMessages=10, VisibilityTimeout=600, MessageAttributeNames=["All"]
        ).get("Messages"):
            yield [(_letter(message), message["ReceiptHandle"]) for message in received]

    def claimed_transaction_ids(self) -> list[str]:
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=TABLE)
        return [item["TransactionId"]["S"] for page in pages for item in page["Items"]]

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
    """Make messages that must all be answered OK, each for a user of its own."""
    messages = make_scenario(2 * count + 20, seed, bundle_id, post_queue).messages  # over half of many are genuine
    return [message for message in messages if message.kind == Kind.GENUINE][:count]


def _batches(entries: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(entries), 10):
        yield list(entries[start : start + 10])
