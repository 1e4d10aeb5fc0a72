"""The log: how a line looks, floods of alike lines, and a reader that is slow, stuck or gone."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import select
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from receipt_actors.domain.messages import Result, Verdict
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import ActorSystem, GenServer
from receipt_actors.telemetry import logs
from receipt_actors.telemetry.logs import MAX_FLOODS, FloodGuard, JsonLines, LogWriter, TextLines
from tests.patience import PATIENCE_SECONDS

HOSTILE = "\x1b[2J\r\nERROR forged: line\u202e\x00"


class Lines(logging.Handler):
    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def log() -> Iterator[Callable[[logging.Formatter], Lines]]:
    """Have everything under ``receipt_actors`` logged by a formatter."""
    logger = logging.getLogger("receipt_actors")
    before = logger.level
    handlers: list[logging.Handler] = []

    def start(formatter: logging.Formatter) -> Lines:
        lines = Lines(formatter)
        handlers.append(lines)
        logger.addHandler(lines)
        logger.setLevel(logging.DEBUG)
        return lines

    yield start
    logger.setLevel(before)
    for handler in handlers:
        logger.removeHandler(handler)


@pytest.fixture
def answered_too() -> Iterator[None]:
    logger = logging.getLogger(logs.ANSWERED_LOGGER)
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(logging.WARNING)


RESULTS = (
    Result("1000", Verdict.OK, Reason.CLAIMED, "coins", Environment.PRODUCTION),
    Result("1001", Verdict.INVALID, Reason.CLAIMED_BY_ANOTHER_USER, "coins", Environment.PRODUCTION),
)


@pytest.mark.parametrize("formatter", [TextLines("worker-1"), JsonLines("worker-1")], ids=["text", "json"])
def test_a_line_is_a_line_and_commands_no_terminal(
    log: Callable[[logging.Formatter], Lines], formatter: logging.Formatter
) -> None:
    lines = log(formatter)
    logger = logging.getLogger("receipt_actors.test")
    logger.warning("Apple answered %s", HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("it failed")
    text = "\n".join(lines.lines)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "worker-1" in text
    assert "ValueError" in text


def test_what_every_json_line_has(log: Callable[[logging.Formatter], Lines]) -> None:
    lines = log(JsonLines("worker-2"))
    logging.getLogger("receipt_actors.test").info("all is %s", "well")
    (line,) = lines.objects
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {"level": "INFO", "logger": "receipt_actors.test", "process": "worker-2", "message": "all is well"}


def test_a_decision_has_its_facts_as_fields(log: Callable[[logging.Formatter], Lines], answered_too: None) -> None:
    lines = log(JsonLines())
    logs.log_answered("m-1", 42, RESULTS, 0.25)
    logs.log_moved("m-2", Reason.NOT_JSON, "no JSON", 0.1)
    logs.log_handed_back("m-3", Reason.GAVE_UP_FOR_NOW, "ledger: throttled", 31.0)
    logs.log_left("m-4", Reason.BODY_MD5_MISMATCH, "arrived corrupt")
    answered, moved, handed_back, left = lines.objects
    assert (answered["message_id"], answered["user_id"], answered["seconds"]) == ("m-1", 42, 0.25)
    assert answered["results"] == [
        {"transaction_id": "1000", "verdict": "OK", "reason": "claimed"},
        {"transaction_id": "1001", "verdict": "INVALID", "reason": "claimed_by_another_user"},
    ]
    assert [
        (line["level"], line["fate"], line["message_id"], line["reason"]) for line in (moved, handed_back, left)
    ] == [
        ("INFO", "moved", "m-2", "not_json"),
        ("WARNING", "handed_back", "m-3", "gave_up_for_now"),
        ("WARNING", "left", "m-4", "body_md5_mismatch"),
    ]
    assert handed_back["message"] == "message m-3 is handed back, gave_up_for_now: ledger: throttled"


def test_a_report_of_the_otp_layer_is_an_object(log: Callable[[logging.Formatter], Lines]) -> None:
    lines = log(JsonLines())

    class Crashing(GenServer):
        def handle_cast(self, request: Any) -> None:
            raise KeyError("lost")

    system = ActorSystem("test")
    ref = system.start(Crashing, name="victim")
    ref.cast("go")
    assert ref.wait(PATIENCE_SECONDS) is not None
    system.stop(PATIENCE_SECONDS)
    (crash,) = [line for line in lines.objects if line.get("report", {}).get("kind") == "crash_report"]
    assert crash["report"]["reason"] == "KeyError: 'lost'"
    assert "handle_cast" in crash["traceback"]


def test_what_others_add_to_their_records_is_left_out(log: Callable[[logging.Formatter], Lines]) -> None:
    lines = log(JsonLines())
    extra = {"body": "a receipt", "reason": object(), "report": "none of ours"}
    logging.getLogger("receipt_actors.test").info("sent", extra=extra)
    assert set(lines.objects[0]) == {"time", "level", "logger", "message"}


class Log:
    """A logger whose handler is guarded, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        target = logging.Handler()
        target.emit = lambda record: self.lines.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
        self.guard = FloodGuard(target, lambda: self.now)
        self.logger = logging.Logger("test", logging.DEBUG)
        self.logger.addHandler(self.guard)


@pytest.fixture
def guarded() -> Iterator[Log]:
    log = Log()
    yield log
    log.guard.close()


def test_lines_that_differ_in_ids_only_are_summed_up(guarded: Log) -> None:
    for number in range(414):
        guarded.logger.warning("message 5fea7756-0ea4-451a-a703-%012d is handed back, %s", number, "gave_up_for_now")
    assert len(guarded.lines) == 5
    guarded.now = 60
    guarded.logger.info("something else")
    *_, told, other = guarded.lines
    assert told.startswith("WARNING 409 more like this in 60 s: message 5fea7756-0ea4-451a-a703-000000000413")
    assert (len(guarded.lines), other) == (7, "INFO something else")
    for _ in range(100):
        guarded.logger.info("another flood")
    assert len(guarded.lines) == 7 + 20


def test_other_lines_come_through_in_the_middle_of_a_flood(guarded: Log) -> None:
    for _ in range(100):
        guarded.logger.warning("message 1 is handed back, gave_up_for_now")
    guarded.logger.warning("message 1 is handed back, misconfigured")
    guarded.logger.error("message 1 is handed back, gave_up_for_now")
    assert guarded.lines[5:] == [
        "WARNING message 1 is handed back, misconfigured",
        "ERROR message 1 is handed back, gave_up_for_now",
    ]


def test_what_was_asked_for_is_not_summed_up(guarded: Log) -> None:
    for number in range(100):
        guarded.logger.debug("message %d received", number)
        guarded.logger.info("trace: actor received %d", number, extra={"event": number})
    assert len(guarded.lines) == 200


def test_ever_new_lines_cost_no_memory(guarded: Log) -> None:
    names = [f"{chr(97 + a)}{chr(97 + b)}{chr(97 + c)}" for a in range(26) for b in range(26) for c in range(3)]
    for name in names:
        for _ in range(6):
            guarded.logger.error("trouble with %s", name)
    assert len(guarded.guard._floods) == MAX_FLOODS
    guarded.guard.close()
    assert len(guarded.lines) == 6 * len(names)


PIPE_BYTES = 4096
LOST = re.compile(r"([0-9]+) lines lost: the log's reader is too slow")


class Pipe:
    """A pipe that takes a page and no more, with a log at its end."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.writer = LogWriter(self.writing)
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
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    monkeypatch.setattr(logs, "MAX_WAITING_BYTES", 1000)
    monkeypatch.setattr(logs, "FLUSH_SECONDS", PATIENCE_SECONDS)
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_all_lines_are_written_before_the_end(pipe: Pipe) -> None:
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


def test_the_end_does_not_wait_for_ever_for_a_reader(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.01)
    for number in range(1000):
        pipe.logger.info("line %04d of many", number)
    assert select.select([pipe.reading], [], [], PATIENCE_SECONDS)[0], "nothing is written"
    pipe.writer.close()  # and not for the reader that comes only now
    assert pipe.read_rest()


def test_a_reader_that_is_gone_is_no_trouble(pipe: Pipe) -> None:
    os.close(pipe.reading)
    for number in range(100):
        pipe.logger.info("line %d", number)
    pipe.writer.close()
    pipe.reading = os.dup(pipe.writing)  # for the end of the test


def test_a_pipe_that_does_not_block_is_waited_for(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_WAITING_BYTES", 100_000)
    os.set_blocking(pipe.writing, False)
    for number in range(1000):
        pipe.logger.info("line %04d of many", number)
    assert len(pipe.read_rest()) == 1000
