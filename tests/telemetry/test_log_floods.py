"""The log in a flood: the first lines of a sort come through, the rest is one line with their number."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from receipt_actors.telemetry.logs import MAX_FLOODS, FloodGuard


class Log:
    """A logger whose handler is guarded, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        target = logging.Handler()
        target.emit = lambda record: self.lines.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
        self.guard = FloodGuard(target, burst=2, info_burst=3, period_seconds=60, clock=lambda: self.now)
        self.logger = logging.Logger("test", logging.DEBUG)
        self.logger.addHandler(self.guard)


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.guard.close()


def test_lines_that_differ_in_ids_only_are_summed_up(log: Log) -> None:
    """Two come through in a minute, and after it one that says how many more there were."""
    for number in range(414):
        log.logger.warning("message 5fea7756-0ea4-451a-a703-%012d is handed back, %s", number, "gave_up_for_now")
    assert len(log.lines) == 2
    log.now = 60
    log.logger.info("something else")
    assert log.lines[2].startswith("WARNING 412 more like this in 60 s: message 5fea7756-0ea4-451a-a703-000000000413")
    assert log.lines[3:] == ["INFO something else"]


def test_other_lines_come_through_in_the_middle_of_a_flood(log: Log) -> None:
    """Another reason, another actor, another level: each is told."""
    for _ in range(100):
        log.logger.warning("message 1 is handed back, gave_up_for_now")
    log.logger.warning("message 1 is handed back, misconfigured")
    log.logger.error("message 1 is handed back, gave_up_for_now")
    assert log.lines[2:] == [
        "WARNING message 1 is handed back, misconfigured",
        "ERROR message 1 is handed back, gave_up_for_now",
    ]


def test_a_flood_of_news_is_summed_up_as_well(log: Log) -> None:
    """A source queue full of garbage is no line for each message; a few more come through than of warnings."""
    for number in range(100):
        log.logger.info("message %d moved, not_json", number)
    log.guard.close()
    assert log.lines[3:] == ["INFO 97 more like this in 60 s: message 99 moved, not_json"]


def test_what_was_asked_for_is_not_summed_up(log: Log) -> None:
    """DEBUG is there because somebody set the level, a trace because somebody watches an actor: all of it."""
    for number in range(100):
        log.logger.debug("message %d received", number)
        log.logger.info("trace: actor received %d", number, extra={"event": number})
    assert len(log.lines) == 200


def test_a_lasting_flood_is_told_once_a_minute(log: Log) -> None:
    """An hour of it is two lines and a sum each minute."""
    for second in range(3600):
        log.now = float(second)
        log.logger.error("cannot receive, attempt %d", second)
    assert len(log.lines) == 60 * 3 - 1


def test_a_flood_that_ends_with_the_process_is_told_at_the_end(log: Log) -> None:
    """``logging.shutdown`` closes the handler."""
    for _ in range(10):
        log.logger.error("down")
    log.guard.close()
    assert log.lines == ["ERROR down", "ERROR down", "ERROR 8 more like this in 60 s: down"]


def test_ever_new_lines_cost_no_memory(log: Log) -> None:
    """The oldest sort is summed up early; nothing is left untold."""
    names = [f"{chr(97 + a)}{chr(97 + b)}{chr(97 + c)}" for a in range(26) for b in range(26) for c in range(3)]
    for name in names:
        for _ in range(3):
            log.logger.error("trouble with %s", name)
    assert len(log.guard._floods) == MAX_FLOODS
    log.guard.close()
    assert len(log.lines) == 3 * len(names)


def test_a_line_whose_arguments_do_not_fit_is_handed_on(log: Log) -> None:
    """What is wrong with it is for the target to say, as without the guard."""
    seen: list[logging.LogRecord] = []
    log.guard._target.emit = seen.append  # type: ignore[method-assign]
    log.logger.error("%d failures", "many")
    assert [record.args for record in seen] == [("many",)]
