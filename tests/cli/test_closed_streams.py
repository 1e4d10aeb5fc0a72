"""Standard streams that whoever started us has closed: a cron job, a careless script, a process manager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.sqlite import EmbeddedQueues
from tests.patience import PATIENCE_SECONDS

ANSWER = {"user_id": 7, "transaction_id": "1", "status": "OK"}


def run(database: Path, *arguments: str, closed: tuple[int, ...]) -> int:
    """Run a command whose standard streams of these numbers are closed; return its exit code."""

    def close() -> None:
        for number in closed:
            os.close(number)

    command = [sys.executable, "-m", "receipt_actors", arguments[0], "--database", str(database), *arguments[1:]]
    return subprocess.run(
        command, preexec_fn=close, timeout=PATIENCE_SECONDS, check=False, capture_output=True
    ).returncode


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file with an answer on the post queue, and nothing to do."""
    database = tmp_path / "receipts.db"
    with closing(EmbeddedQueues(database)) as queues:
        queues.create_queue("ReceiptsSQS", "ReceiptsSQSDLQ")
        queues.create_queue("ResultsSQS")
        queues.send("ResultsSQS", [OutgoingMessage(json.dumps(ANSWER))])
    return database


def answers(database: Path) -> int:
    with closing(EmbeddedQueues(database)) as queues:
        return queues.approximate_number_of_messages("ResultsSQS")


def test_an_answer_that_nobody_could_read_stays_on_the_queue(database: Path) -> None:
    assert run(database, "results", closed=(1,)) == 1
    assert answers(database) == 1
    assert run(database, "results", "--delete", closed=(0, 2)) == 0
    assert answers(database) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("closed", "processes"), [((1,), 1), ((2,), 1), ((0, 1, 2), 1), ((0, 1, 2), 2)])
def test_the_service_needs_no_standard_streams(database: Path, closed: tuple[int, ...], processes: int) -> None:
    arguments = ("--bundle-ids", "com.example.game", "--exit-when-idle", "0", "--processes", str(processes))
    assert run(database, "start", *arguments, closed=closed) == 0
    assert answers(database) == 1
