"""A database that is damaged, or a disk that is full: one line says so, and what is known is told."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.sqlite import EmbeddedQueues

from .conftest import DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld, Ended

Cli = Callable[..., Ended]
PAGE_BYTES = 4096
ANSWER = json.dumps({"user_id": 1, "transaction_id": "t", "status": "OK"})
RECEIPT = json.dumps({"receipt": "M" * 20_000, "user_id": 1, "post_queue": RESULTS})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with messages on each queue."""
    path = tmp_path_factory.mktemp("whole") / "receipts.db"
    with closing(EmbeddedQueues(path)) as queues:
        queues.create_queue(SOURCE, DEAD_LETTERS)
        queues.create_queue(RESULTS)
        for queue in (SOURCE, RESULTS, DEAD_LETTERS):
            for _ in range(20):
                queues.send(queue, [OutgoingMessage(ANSWER + " " * 200, {"submission_id": "s"})] * 10)
    return path.read_bytes()


def damaged(whole: bytes, seed: int) -> bytes:
    """Spoil a page: zeros, noise, or another page in its place."""
    rng = random.Random(seed)
    data = bytearray(whole)
    page = rng.randrange(1, len(data) // PAGE_BYTES) * PAGE_BYTES
    other = rng.randrange(1, len(data) // PAGE_BYTES) * PAGE_BYTES
    spoilt = [bytes(PAGE_BYTES), rng.randbytes(PAGE_BYTES), whole[other : other + PAGE_BYTES]][seed % 3]
    data[page : page + PAGE_BYTES] = spoilt
    return bytes(data)


@pytest.mark.parametrize("command", ["results", "redrive", "submit"])
@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_database_is_told_in_a_line(cli: Cli, whole: bytes, tmp_path: Path, command: str, seed: int) -> None:
    path = tmp_path / "receipts.db"
    path.write_bytes(damaged(whole, seed))
    more = {"results": ("--delete",), "redrive": ("--all",), "submit": ("--file", "-")}[command]
    ended = cli(command, "--database", str(path), *more, stdin=RECEIPT.encode())
    assert ended.code in (0, 1)
    assert ended.code == 0 or f"database {path}: " in ended.err or "stays on the queue" in ended.err


@pytest.mark.parametrize("processes", ["1", "2"])
def test_start_does_not_work_with_a_damaged_database(whole: bytes, tmp_path: Path, processes: str) -> None:
    path = tmp_path / "receipts.db"
    middle = len(whole) // 2 // PAGE_BYTES * PAGE_BYTES
    path.write_bytes(whole[:middle] + random.Random(1).randbytes(PAGE_BYTES) + whole[middle + PAGE_BYTES :])
    command = [sys.executable, "-m", "receipt_actors", "start", "--database", str(path), "--processes", processes]
    settings = ["--post-queues", RESULTS, "--bundle-ids", "com.example.game"]
    ended = subprocess.run([*command, *settings], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert f"database {path}: the file is damaged: " in line


@contextmanager
def full_disk(bytes_a_file: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_submit_says_which_messages_a_full_disk_has_taken(cli: Cli, embedded: EmbeddedWorld) -> None:
    with full_disk(600_000):
        ended = cli("submit", *embedded.flags, "--file", "-", stdin="\n".join([RECEIPT] * 60).encode())
    accepted = len(ended.out.splitlines())
    assert ended.code == 1
    assert 0 < accepted < 60
    assert f"{accepted} messages are accepted; line {accepted + 1} and all after it are not" in ended.err
    assert embedded.total(SOURCE) == accepted
