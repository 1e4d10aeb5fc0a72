"""What a benchmark asks of the services beside their work, under ``/_bench/``: prepare, begin, tell.

The order is: ``load``; then for each run ``begin``, ``go`` once the program under test waits for messages, ``progress``
until all are deleted, ``finish`` to let its long polls end, and ``report``.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from receipt_actors.sandbox.http_server import Reply, Request, dumps, response
from receipt_actors.sandbox.queues import make_queue
from receipt_actors.sandbox.services.audit import SentAnswer, audit
from receipt_actors.sandbox.services.dynamodb import SimulatedDynamoDb
from receipt_actors.sandbox.services.load import DEAD_LETTER_QUEUE, POST_QUEUE, SOURCE_QUEUE, TABLE, TABLE_KEY, Load
from receipt_actors.sandbox.services.sqs import Content, Message, Queue, SimulatedSqs, make_content

BENCH_PATH = "/_bench/"
MAX_RECEIVE_COUNT = 20  #: as in the CloudFormation template
_RELEASE_SECONDS = 0.001  #: shortest pause between two looks at messages that come at a rate


def command_reply(commands: Mapping[str, Callable[[dict[str, Any]], object]], request: Request) -> Reply:
    """Carry out a command, which takes the fields of a JSON object and returns what to answer."""
    command = commands.get(request.path.removeprefix(BENCH_PATH))
    if command is None:
        return Reply(response(http.client.NOT_FOUND, b""))
    return Reply(response(http.client.OK, dumps(command(json.loads(request.body or b"{}")))))


class AwsControl:
    """The benchmark's view of SQS and DynamoDB."""

    def __init__(self, sqs: SimulatedSqs, dynamodb: SimulatedDynamoDb) -> None:
        self._sqs = sqs
        self._dynamodb = dynamodb
        self._contents: list[Content] = []
        self._answers: list[SentAnswer] = []
        self._messages: list[Message] = []  # of the load, those that are available so far
        self._source: Queue = make_queue(SOURCE_QUEUE)
        self._went_at = 0.0
        self._commands: Mapping[str, Callable[[dict[str, Any]], object]] = {
            "load": self._load,
            "begin": self._begin,
            "go": self._go,
            "progress": self._progress,
            "finish": self._finish,
            "report": self._report,
        }
        sqs.on_sent = lambda queue, content, now: self._answers.append(SentAnswer(queue.name, content, now))

    def handle(self, request: Request) -> Reply:
        return command_reply(self._commands, request)

    def _load(self, fields: dict[str, Any]) -> object:
        load = Load(**fields)
        self._contents = [make_content(load.body(number)) for number in range(load.messages)]
        return {}

    def _begin(self, _fields: dict[str, Any]) -> object:
        for name in (POST_QUEUE, DEAD_LETTER_QUEUE):
            self._sqs.create_queue(name)
        self._source = self._sqs.create_queue(SOURCE_QUEUE)
        self._source.redrive_to(self._sqs.queues[DEAD_LETTER_QUEUE], MAX_RECEIVE_COUNT)
        self._sqs.held = self._source
        self._sqs.is_patient = True
        self._sqs.first_receive_at = None
        self._dynamodb.create_table(TABLE, TABLE_KEY)
        self._answers, self._messages = [], []
        return {}

    def _go(self, fields: dict[str, Any]) -> object:
        for counter in (self._sqs.requests, self._sqs.entries, self._dynamodb.requests, self._dynamodb.entries):
            counter.clear()
        self._sqs.held = None
        self._went_at = time.monotonic()
        rate = fields.get("rate")
        self._release(None if rate is None else float(rate), self._source, 0)
        return {"now": self._went_at}

    def _release(self, rate: float | None, source: Queue, released: int) -> None:
        """Put what is due by now into the queue; without a rate all is due."""
        if source is not self._source:  # another run has begun
            return
        total = len(self._contents)
        due = total if rate is None else min(total, int((time.monotonic() - self._went_at) * rate) + 1)
        now, sent_at = time.monotonic(), time.time()
        for content in self._contents[released:due]:
            message = Message(content.message_id, content, sent_at)
            self._messages.append(message)
            source.send(message, now)
        self._sqs.wake(source)
        if due < total:
            assert rate is not None
            pause = max(_RELEASE_SECONDS, self._went_at + due / rate - time.monotonic())
            asyncio.get_running_loop().call_later(pause, self._release, rate, source, due)

    def _progress(self, _fields: dict[str, Any]) -> object:
        return {"first_receive_at": self._sqs.first_receive_at, "deleted": self._source.deleted}

    def _finish(self, _fields: dict[str, Any]) -> object:
        self._sqs.end_polls()
        return {}

    def _report(self, _fields: dict[str, Any]) -> object:
        finding = audit(
            self._messages,
            self._answers,
            self._dynamodb.tables[TABLE].items.keys(),
            confirmed_after_seconds=self._sqs.latency_seconds,
        )
        return {
            "went_at": self._went_at,
            "wrong": finding.count,
            "shown": finding.shown,
            "repeated": finding.repeated,
            "redelivered": self._source.received - len(self._contents),
            "received_at": [each.first_received_at for each in self._messages if each.deleted_at is not None],
            "deleted_at": [each.deleted_at for each in self._messages if each.deleted_at is not None],
            "requests": {"sqs": dict(self._sqs.requests), "dynamodb": dict(self._dynamodb.requests)},
            "entries": {"sqs": dict(self._sqs.entries), "dynamodb": dict(self._dynamodb.entries)},
        }
