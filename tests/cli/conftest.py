"""Commands in this process or as processes of their own, and the world around them on each backend."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from receipt_actors.cli import main, patient_queues
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS, OutgoingMessage, Queues, ReceivedMessage
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sqlite import EmbeddedQueues
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
SOURCE, RESULTS, DEAD_LETTERS, TABLE = "ReceiptsSQS", "ResultsSQS", "ReceiptsSQSDLQ", "TransactionIdTable"
BUNDLE_ID = "com.example.game"
REGION = "eu-west-1"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class World:
    """Queues under the default names, as their other users see them; and what tells a command where they are."""

    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    queues: Queues

    def send(self, queue: str, *messages: OutgoingMessage) -> None:
        for start in range(0, len(messages), 10):
            batch = messages[start : start + 10]
            assert self.queues.send(queue, batch) == [None] * len(batch)

    def take(self, queue: str) -> list[ReceivedMessage]:
        """Receive, and hide for long, all that can be received now."""
        taken: list[ReceivedMessage] = []
        while received := self.queues.receive(queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=3600):
            taken += received
        return taken

    def take_in_time(self, queue: str) -> list[ReceivedMessage]:
        """Receive everything, also what is hidden now, when it is visible again."""
        taken: list[ReceivedMessage] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(taken) < self.total(queue):
            assert time.monotonic() < deadline
            taken += self.queues.receive(queue, max_messages=10, wait_seconds=5, visibility_timeout_seconds=3600)
        return taken

    def visible(self, queue: str) -> int:
        return self.queues.approximate_number_of_messages(queue)

    def total(self, queue: str) -> int:
        """Count all messages, hidden ones too."""
        raise NotImplementedError


class EmbeddedWorld(World):
    def __init__(self, database: Path) -> None:
        self.database = database
        self.flags = ("--database", str(database))
        self.queues = self._queues = EmbeddedQueues(database)
        self._queues.create_queue(SOURCE, DEAD_LETTERS)
        self._queues.create_queue(RESULTS)
        self._later = EmbeddedQueues(database, clock=lambda: time.time() + MAX_VISIBILITY_SECONDS)

    def total(self, queue: str) -> int:
        return self._later.approximate_number_of_messages(queue)

    def corrupt(self) -> None:
        """Have every message arrive with a body that is not what was hashed."""
        with closing(sqlite3.connect(self.database, timeout=PATIENCE_SECONDS)) as connection, connection:
            connection.execute("UPDATE contents SET body_md5 = ?", ("0" * 32,))

    def close(self) -> None:
        self._queues.close()
        self._later.close()


class AwsWorld(World):
    """An account with nothing in it until ``create``; moto plays it."""

    def __init__(self) -> None:
        import boto3

        from receipt_actors.aws import AwsQueues
        from tests.system.processes import Programs
        from tests.system.worlds import AwsServer
        from tests.system.worlds import AwsWorld as Account

        self.server = AwsServer()
        self._account = Account(Programs(Path()), self.server)
        self.environment = self._account.environment
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL", self.server.url)
            self.queues = self._queues = AwsQueues(boto3.Session("testing", "testing", region_name=REGION))

    def create(self) -> None:
        self._account.create_queues()
        self._account.create_table()

    def total(self, queue: str) -> int:
        return self._account.total(queue)

    def close(self) -> None:
        self._queues.close()
        self._account.close()
        self.server.close()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings gets in, and relative paths lead nowhere else."""
    for name in os.environ:
        if name.startswith(("RECEIPT_ACTORS_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for processes of our own, where the package is not installed
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def account() -> Iterator[AwsWorld]:
    """The clients of boto3, which take long to make."""
    world = AwsWorld()
    yield world
    world.close()


@pytest.fixture
def empty_account(account: AwsWorld, monkeypatch: pytest.MonkeyPatch) -> AwsWorld:
    account.server.reset()
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(patient_queues, "LAST_WAIT_SECONDS", 0.0)  # moto has no part of its servers to forget
    return account


@pytest.fixture
def aws(empty_account: AwsWorld) -> AwsWorld:
    empty_account.create()
    return empty_account


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedWorld]:
    world = EmbeddedWorld(tmp_path / "receipts.db")
    yield world
    world.close()


@pytest.fixture(params=["embedded", "aws"])
def world(request: pytest.FixtureRequest) -> World:
    """Each backend in turn."""
    world: World = request.getfixturevalue(request.param)
    return world


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run a command in this process, by the very function that the console script calls."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ended(code, *capsys.readouterr())

    return run


class Processes:
    """Commands as processes, none of which outlives its test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []

    def start(
        self,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "receipt_actors"),
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=self._folder,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": str(ROOT),
                "HOME": str(self._folder),
                "RECEIPT_ACTORS_LOG_FORMAT": "text",
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
        self._running.append(process)
        return process

    def run_without_reader(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Ended:
        """Run with a standard output that nobody reads any more."""
        reading, writing = os.pipe()
        os.close(reading)
        process = self.start(*arguments, environment=environment, stdout=writing)
        os.close(writing)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
        return Ended(process.returncode, "", err)

    def close(self) -> None:
        for process in self._running:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.close()
