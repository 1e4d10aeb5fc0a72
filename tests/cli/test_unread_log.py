"""A log that goes into a pipe which nobody reads: a log shipper that hangs, a terminal that is held up."""

from __future__ import annotations

import fcntl
import os
import subprocess

import pytest

from receipt_actors.domain.ports import OutgoingMessage
from tests.patience import PATIENCE_SECONDS

from .conftest import BUNDLE_ID, DEAD_LETTERS, SOURCE, EmbeddedWorld, Processes

PIPE_BYTES = 4096
GARBAGE = 200


@pytest.mark.slow
@pytest.mark.parametrize("processes_flag", [[], ["--processes", "2"]], ids=["one process", "several"])
def test_nobody_waits_for_who_reads_the_log(
    embedded: EmbeddedWorld, processes: Processes, processes_flag: list[str]
) -> None:
    embedded.send(SOURCE, *[OutgoingMessage("garbage")] * GARBAGE)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    program = processes.start(
        *("start", "--database", embedded.database, "--bundle-ids", BUNDLE_ID, "--receive-wait-seconds", "1"),
        *("--exit-when-idle", "1", "--log-level", "DEBUG", *processes_flag),
        stderr=writing,
        stdout=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as log:
        assert program.wait(PATIENCE_SECONDS) == 0
        assert len(log.read()) > PIPE_BYTES / 2  # as many whole lines as it takes
    assert embedded.total(SOURCE) == 0
    assert embedded.total(DEAD_LETTERS) == GARBAGE
