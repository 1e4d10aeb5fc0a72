"""What the running program logs, one line a message where that is asked for, for people and for machines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import make_scenario

from .processes import Program, Programs
from .worlds import BUNDLE_ID, RESULTS, EmbeddedWorld

SCENARIO = make_scenario(40, 7, BUNDLE_ID, RESULTS)


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


def objects(program: Program) -> list[dict[str, Any]]:
    return [json.loads(line) for line in program.stderr.splitlines()]


@pytest.mark.short("1")
@pytest.mark.parametrize("processes", [1, 2])
def test_every_line_is_an_object_and_every_answer_has_one(
    programs: Programs, embedded: EmbeddedWorld, store: SimulatedAppStore, processes: int
) -> None:
    """With all that the answer said; where there are several processes a line says whose it is.

    A log that goes into a file is for machines unless told otherwise; its last line is written before the end.
    """
    embedded.send(SCENARIO.messages)
    program = embedded.start(
        store, log_format="auto", log_decisions="all", processes=processes, exit_when_idle_seconds=1
    )
    assert program.wait_for_end() == 0
    lines = objects(program)
    assert lines[-1]["message"].startswith("stopped: ")
    logged = {
        (line["message_id"], line["user_id"], each["transaction_id"], each["verdict"], each["reason"])
        for line in lines
        if "results" in line
        for each in line["results"]
    }
    answers = {
        (
            letter.attributes["source_message_id"],
            answer["user_id"],
            answer["transaction_id"],
            answer["status"],
            letter.attributes["reason"],
        )
        for letter in embedded.take(RESULTS)
        for answer in [json.loads(letter.body)]
    }
    assert logged == answers
    assert answers
    if processes > 1:
        assert {line.get("process") for line in lines if "results" in line} <= {"worker-1", "worker-2"}


@pytest.mark.parametrize("processes", [1, 2])
def test_metrics_go_to_standard_output_once_for_the_whole_command(
    programs: Programs, embedded: EmbeddedWorld, store: SimulatedAppStore, processes: int
) -> None:
    """Their lines add up to what the log says at the end, and are nothing but JSON."""
    embedded.send(SCENARIO.messages)
    embedded.module = "tests.system.quick_program"
    program = embedded.start(store, metrics_log="emf", processes=processes, exit_when_idle_seconds=2)
    assert program.wait_for_end() == 0
    lines = [json.loads(line) for line in program.stdout.splitlines()]
    assert len(lines) >= 2
    stopped = re.search(r"stopped: (\d+) deliveries received, (\d+) messages answered, (\d+) moved", program.stderr)
    assert stopped is not None
    totals = [sum(line[name] for line in lines) for name in ("Received", "Answered", "Moved")]
    assert totals == [int(total) for total in stopped.groups()]
    assert max(line["Heartbeat"] for line in lines) == processes
