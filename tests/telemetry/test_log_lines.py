"""How log lines look, in either form."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from receipt_actors.domain.messages import Result, Verdict
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import ActorSystem, GenServer
from receipt_actors.telemetry import decisions
from receipt_actors.telemetry.logs import JsonLines, TextLines
from tests.patience import PATIENCE_SECONDS

HOSTILE = "\x1b[2J\r\nERROR forged: line\u202e\x00"


class Lines(logging.Handler):
    """Keeps what is logged, formatted."""

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
    logger = logging.getLogger(decisions.ANSWERED_LOGGER)
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
    """Whatever a service, a message or an exception says: its control characters are escaped."""
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


def test_text_has_time_level_logger_and_words(log: Callable[[logging.Formatter], Lines]) -> None:
    """As it always had."""
    lines = log(TextLines())
    logging.getLogger("receipt_actors.test").warning("all is %s", "well")
    date, time_, level, rest = lines.lines[0].split(" ", 3)
    datetime.strptime(f"{date} {time_}", "%Y-%m-%d %H:%M:%S,%f")
    assert (level, rest) == ("WARNING", "receipt_actors.test: all is well")


class TestJson:
    def test_what_every_line_has(self, log: Callable[[logging.Formatter], Lines]) -> None:
        """The time is UTC, with milliseconds; a worker names itself."""
        lines = log(JsonLines("worker-2"))
        logging.getLogger("receipt_actors.test").info("all is %s", "well")
        (line,) = lines.objects
        assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
        assert line == {
            "level": "INFO",
            "logger": "receipt_actors.test",
            "process": "worker-2",
            "message": "all is well",
        }

    def test_a_decision_has_its_facts_as_fields(
        self, log: Callable[[logging.Formatter], Lines], answered_too: None
    ) -> None:
        """To be searched for by message, user or transaction."""
        lines = log(JsonLines())
        decisions.log_answered("m-1", 42, RESULTS, 0.25)
        decisions.log_moved("m-2", Reason.NOT_JSON, "no JSON", 0.1)
        decisions.log_handed_back("m-3", Reason.GAVE_UP_FOR_NOW, "ledger: throttled", 31.0)
        decisions.log_left("m-4", Reason.BODY_MD5_MISMATCH, "arrived corrupt")
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

    def test_a_report_of_the_otp_layer_is_an_object(self, log: Callable[[logging.Formatter], Lines]) -> None:
        """A crash: who, what, where, with its traceback."""
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

    def test_what_others_add_to_their_records_is_left_out(self, log: Callable[[logging.Formatter], Lines]) -> None:
        """It may be a receipt, or nothing that JSON knows; nor is a field taken that is of another make."""
        lines = log(JsonLines())
        extra = {"body": "a receipt", "reason": object(), "report": "none of ours"}
        logging.getLogger("receipt_actors.test").info("sent", extra=extra)
        assert set(lines.objects[0]) == {"time", "level", "logger", "message"}


def test_answers_are_told_only_to_those_who_want_them(log: Callable[[logging.Formatter], Lines]) -> None:
    """A line for each receipt is most of a log, even of one at DEBUG; problems are always told."""
    lines = log(TextLines())
    decisions.log_answered("m-1", 42, RESULTS, 0.25)
    assert lines.lines == []
    decisions.log_moved("m-2", Reason.NOT_JSON, "no JSON", 0.1)
    assert len(lines.lines) == 1
