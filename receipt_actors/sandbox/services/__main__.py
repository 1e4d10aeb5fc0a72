"""A process that serves SQS and DynamoDB, or the App Store, on loopback.

::

    python -m receipt_actors.sandbox.services aws --sqs-latency 0.01 --dynamodb-latency 0.005
    python -m receipt_actors.sandbox.services app-store --latency 0.25 --jitter 0.1 --certificate C.pem

It prints one line, its URL, once it listens, and ends when its standard input does: it never outlives who started it.

A benchmark controls it under ``/_bench/``: ``load``; then for each run ``begin``, ``go`` once the program under test
waits for messages, ``progress`` until all are deleted, ``finish`` to let its long polls end, and ``report``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import http.client
import json
import resource
import signal
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox.answers import read_question
from receipt_actors.sandbox.app_store import PRODUCTION_API_PATH, PRODUCTION_PATH, SimulatedAppStore
from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, Run, dumps, response
from receipt_actors.sandbox.queues import make_queue
from receipt_actors.sandbox.services import load as loads
from receipt_actors.sandbox.services.dynamodb import SimulatedDynamoDb
from receipt_actors.sandbox.services.load import Load, SentAnswer, Way, audit, transaction_id
from receipt_actors.sandbox.services.sqs import Content, Message, Queue, SimulatedSqs, make_content

BENCH_PATH = "/_bench/"
MAX_CONNECTIONS = 20_000
MAX_RECEIVE_COUNT = 20  #: as in the CloudFormation template
_RELEASE_SECONDS = 0.001  #: shortest pause between two looks at messages that come at a rate


def main() -> None:
    """Serve until standard input ends."""
    options = _parse()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and then our standard input ends
    _raise_file_limit()
    gc.disable()  # nothing here makes cycles, and a full collection over a whole load is a pause that would be measured
    run: Run = asyncio.run
    with contextlib.suppress(ImportError):
        from uvloop import run
    if options.service == "app-store":
        url = _FastAppStore(options, run).start().url
    else:
        url = _Aws(options.sqs_latency, options.dynamodb_latency).serve(run)
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m receipt_actors.sandbox.services")
    services = parser.add_subparsers(dest="service", required=True)
    aws = services.add_parser("aws")
    aws.add_argument("--sqs-latency", type=float, default=0.0)
    aws.add_argument("--dynamodb-latency", type=float, default=0.0)
    app_store = services.add_parser("app-store")
    app_store.add_argument("--latency", type=float, default=0.0)
    app_store.add_argument("--jitter", type=float, default=0.0)
    app_store.add_argument("--certificate", help="PEM, with its private key")
    return parser.parse_args()


def _raise_file_limit() -> None:
    """Let in a connection for each receipt in flight, where the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Controlled:
    """Carries out the commands of a benchmark: methods, which take a JSON object's fields and return what to answer."""

    commands: frozenset[str]

    def control(self, request: Request) -> Reply:
        command = request.path.removeprefix(BENCH_PATH)
        if not request.path.startswith(BENCH_PATH) or command not in self.commands:
            return Reply(response(http.client.NOT_FOUND, b""))
        carry_out: Callable[..., object] = getattr(self, f"_{command}")
        return Reply(response(http.client.OK, dumps(carry_out(**json.loads(request.body or b"{}")) or {})))


class _Aws(_Controlled):
    """SQS and DynamoDB, at one address."""

    commands = frozenset({"load", "begin", "go", "progress", "finish", "report"})

    def __init__(self, sqs_latency_seconds: float, dynamodb_latency_seconds: float) -> None:
        self._sqs = SimulatedSqs(sqs_latency_seconds)
        self._dynamodb = SimulatedDynamoDb(dynamodb_latency_seconds)
        self._services = {"AmazonSQS": self._sqs, "DynamoDB_20120810": self._dynamodb}
        self._contents: list[Content] = []
        self._answers: list[SentAnswer] = []
        self._messages: list[Message] = []  # of the load, those that are available so far
        self._source: Queue = make_queue(loads.SOURCE_QUEUE)
        self._went_at = 0.0
        self._sqs.on_sent = lambda queue, content, now: self._answers.append(SentAnswer(queue.name, content, now))

    def serve(self, run: Run) -> str:
        self._sqs.url = HttpServer(self._handle, run=run).start().url
        return self._sqs.url

    def _handle(self, request: Request) -> Reply | None:
        service, _, operation = (request.header("x-amz-target") or "").partition(".")
        if service in self._services:
            return self._services[service].handle(operation, request)
        return self.control(request)

    def _load(self, **fields: Any) -> None:
        load = Load(**fields)
        self._contents = [make_content(load.body(number)) for number in range(load.messages)]

    def _begin(self) -> None:
        for name in (loads.POST_QUEUE, loads.DEAD_LETTER_QUEUE):
            self._sqs.create_queue(name)
        self._source = self._sqs.create_queue(loads.SOURCE_QUEUE)
        self._source.redrive_to(self._sqs.queues[loads.DEAD_LETTER_QUEUE], MAX_RECEIVE_COUNT)
        self._sqs.held = self._source
        self._sqs.is_patient = True
        self._sqs.first_receive_at = None
        self._dynamodb.create_table(loads.TABLE, loads.TABLE_KEY)
        self._answers, self._messages = [], []

    def _go(self, rate: float | None) -> None:
        for service in self._services.values():
            service.requests.clear()
            service.entries.clear()
        self._sqs.held = None
        self._went_at = time.monotonic()
        self._release(rate, self._source, 0)

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

    def _progress(self) -> Mapping[str, object]:
        return {"first_receive_at": self._sqs.first_receive_at, "deleted": self._source.deleted}

    def _finish(self) -> None:
        self._sqs.end_polls()

    def _report(self) -> Mapping[str, object]:
        claimed = self._dynamodb.tables[loads.TABLE].items.keys()
        finding = audit(self._messages, self._answers, claimed, confirmed_after_seconds=self._sqs.latency_seconds)
        deleted = [each for each in self._messages if each.deleted_at is not None]
        return {
            "went_at": self._went_at,
            "wrong": finding.count,
            "wrong_shown": finding.shown,
            "repeated": finding.repeated,
            "redelivered": self._source.received - len(self._contents),
            "received_at": [each.first_received_at for each in deleted],
            "deleted_at": [each.deleted_at for each in deleted],
            "requests": {**self._sqs.requests, **self._dynamodb.requests},
            "entries": {**self._sqs.entries, **self._dynamodb.entries},
        }


class _FastAppStore(SimulatedAppStore, _Controlled):
    """The simulated App Store under a load: the answers are encoded in advance, and found by receipt or transaction id.

    It answers a prepared load without faults, and to any bearer token.
    """

    commands = frozenset({"load", "begin", "report"})

    def __init__(self, options: argparse.Namespace, run: Run) -> None:
        lowest = max(0.0, options.latency - options.jitter)
        super().__init__(latency_seconds=lowest, jitter_seconds=2 * options.jitter)
        tls = None
        if options.certificate is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(options.certificate)
        self._server = HttpServer(self._handle, tls=tls, run=run)
        self._prepared: dict[str | int, bytes] = {}  # by path (Server API), or hash of the receipt
        self._delays_seconds: list[float] = []  # what each prepared answer took

    def _handle(self, request: Request) -> Reply | None:
        if request.path.startswith(BENCH_PATH):
            return self.control(request)
        answer = self._answer_of(request)
        if answer is None:
            return super()._handle(request)
        began_at = time.monotonic()
        connection = request.connection

        def finish() -> None:
            connection.respond(answer)
            self._delays_seconds.append(time.monotonic() - began_at)

        connection.after(self._delay_seconds(), finish)
        return None

    def _answer_of(self, request: Request) -> bytes | None:
        if request.path != PRODUCTION_PATH:
            has_token = b"\r\nauthorization: bearer " in request.lower_head  # checking it is not the benchmark's work
            return self._prepared.get(request.path) if has_token else None
        receipt_data, _ = read_question(request.body)
        # 64 bits are enough to tell some million receipts apart.
        return None if receipt_data is None else self._prepared.get(hash(receipt_data))

    def _load(self, **fields: Any) -> None:
        load = Load(**fields)
        self._prepared.clear()
        for number in range(load.messages):
            if load.way == Way.SERVER_API:
                self.record(load.sample(number))
                said = self._look_up(transaction_id(number), Environment.PRODUCTION, load.sample(number).bundle_id)
                self._prepared[f"{PRODUCTION_API_PATH}{transaction_id(number)}"] = said[1].data
            elif load.way == Way.VERIFY_RECEIPT:
                receipt = load.receipt(number)
                self._prepared[hash(receipt)] = self._judge(receipt, Environment.PRODUCTION)[1].data

    def _begin(self) -> None:
        self._server.concurrent_requests_high_water = 0
        self._delays_seconds = []

    def _report(self) -> Mapping[str, object]:
        return {
            "requests": len(self._delays_seconds),
            "concurrent_requests_high_water": self._server.concurrent_requests_high_water,
            "delays_seconds": self._delays_seconds,
        }


if __name__ == "__main__":
    main()
