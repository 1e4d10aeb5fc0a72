"""The log into a pipe: a reader that is slow costs lines, never time."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import select
import threading
from collections.abc import Iterator

import pytest

from receipt_actors.telemetry.logs import LogWriter
from tests.patience import PATIENCE_SECONDS

PIPE_BYTES = 4096
LOST = re.compile(r"([0-9]+) lines lost: the log's reader is too slow")


class Pipe:
    """A pipe that takes a page and no more, with a log at its end."""

    def __init__(self, *, max_waiting_bytes: int = 1000, flush_seconds: float = PATIENCE_SECONDS) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.writer = LogWriter(self.writing, max_waiting_bytes=max_waiting_bytes, flush_seconds=flush_seconds)
        self.logger = logging.Logger("test", logging.DEBUG)
        self.logger.addHandler(self.writer)

    def read_rest(self) -> list[str]:
        """Close the log in another thread, as it may wait for us; read what it has to say until then."""
        closing = threading.Thread(target=self._close)
        closing.start()
        data = b""
        while part := os.read(self.reading, 65536):
            data += part
        closing.join()
        return data.decode().splitlines()

    def _close(self) -> None:
        self.writer.close()
        os.close(self.writing)
        self.writing = -1

    def close(self) -> None:
        os.close(self.reading)
        if self.writing >= 0:
            self._close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_all_lines_are_written_before_the_end(pipe: Pipe) -> None:
    """Whole, in their order, and with their tracebacks."""
    try:
        raise ValueError("this")
    except ValueError:
        pipe.logger.exception("line %d", 1)
    pipe.logger.info("line %d \udcff", 2)
    lines = pipe.read_rest()
    assert (lines[0], lines[1], lines[-2:]) == (
        "line 1",
        "Traceback (most recent call last):",
        ["ValueError: this", "line 2 \\udcff"],
    )


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time(pipe: Pipe) -> None:
    """Whoever logs goes on; once somebody reads, it is told in its place how many lines are missing."""
    for number in range(1000):
        pipe.logger.info("line %d", number)
    lines = pipe.read_rest()
    told = 0
    for line in lines:
        if found := LOST.fullmatch(line):
            told += int(found[1])
        else:
            assert line == f"line {told}"
            told += 1
    assert told == 1000
    assert len(lines) < 1000


def test_it_goes_on_when_somebody_reads_again(pipe: Pipe) -> None:
    """What was lost is told, and then the log is as ever."""
    for number in range(1000):
        pipe.logger.info("line %d", number)
    text = b""
    while b"again\n" not in text.partition(b"lines lost")[2]:
        text += os.read(pipe.reading, 65536)  # there is something: what was logged last, or what left no room for it
        pipe.logger.info("again")


def test_the_end_does_not_wait_for_ever_for_a_reader() -> None:
    """A process ends though nobody reads its log."""
    pipe = Pipe(flush_seconds=0.01)
    for number in range(1000):
        pipe.logger.info("line %04d of many", number)
    assert select.select([pipe.reading], [], [], PATIENCE_SECONDS)[0], "nothing is written"
    pipe.writer.close()  # and not for the reader that comes only now
    assert pipe.read_rest()
    pipe.close()


def test_a_reader_that_is_gone_is_no_trouble(pipe: Pipe) -> None:
    """Lines go nowhere then."""
    os.close(pipe.reading)
    for number in range(100):
        pipe.logger.info("line %d", number)
    pipe.writer.close()
    pipe.reading = os.dup(pipe.writing)  # for the end of the test


def test_a_pipe_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    """Another program that has this pipe may have made it so: no line is lost by that."""
    os.set_blocking(pipe.writing, False)
    pipe.writer.stream._max_waiting_bytes = 100_000
    for number in range(1000):
        pipe.logger.info("line %04d of many", number)
    assert len(pipe.read_rest()) == 1000
