"""Metrics as CloudWatch finds them in a log."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings import load_settings
from receipt_actors.telemetry.embedded_metrics import MetricsLog, embedded_metrics
from receipt_actors.telemetry.overview import (
    NodeOverview,
    NodeState,
    Overview,
    ProcessOverview,
    RoleOverview,
    ServiceOverview,
    State,
    Usage,
)
from receipt_actors.telemetry.statistics import Latencies, ServiceCalls, StatisticsSnapshot
from tests.patience import PATIENCE_SECONDS
from tests.stand_in_system import StandInSystem


def array(items: object, most: int = 100) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": most, "items": items}


def exactly(**properties: object) -> dict[str, Any]:
    return {
        "type": "object", "required": list(properties), "additionalProperties": False, "properties": properties
    }  # fmt: skip


NUMBER = {"type": "number"}
NAME = {"type": "string", "minLength": 1, "maxLength": 1024}
METRIC = exactly(Name=NAME, Unit={"enum": ["Seconds", "Bytes", "Percent", "Count"]})
DIMENSIONS = array({"type": "string", "minLength": 1, "maxLength": 250}, 30)
DIRECTIVE = exactly(Namespace=NAME, Dimensions=array(DIMENSIONS), Metrics=array(METRIC))
#: What the specification of the format says a document is.
SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {"_aws": exactly(Timestamp={"type": "integer", "minimum": 0}, CloudWatchMetrics=array(DIRECTIVE))},
}
COUNTS = array({"type": "number", "exclusiveMinimum": 0})
HISTOGRAM = exactly(Values=array(NUMBER), Counts=COUNTS, Min=NUMBER, Max=NUMBER, Sum=NUMBER, Count=NUMBER)
TARGET = {"anyOf": [NUMBER, HISTOGRAM]}


def check(document: dict[str, Any]) -> None:
    jsonschema.validate(document, SCHEMA)
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    names = [metric["Name"] for metric in directive["Metrics"]]
    assert len(set(names)) == len(names)
    for name in names:
        jsonschema.validate(document[name], TARGET)
        if isinstance(document[name], dict):
            assert len(document[name]["Values"]) == len(document[name]["Counts"])
            assert sum(document[name]["Counts"]) == document[name]["Count"]
    for dimension in {name for each in directive["Dimensions"] for name in each}:
        assert isinstance(document[dimension], str)
        assert 1 <= len(document[dimension]) <= 1024
        assert dimension not in names
    assert len(json.dumps(document)) < 256 * 1024


def statistics(answered: int, seconds: float = 0.25) -> StatisticsSnapshot:
    latencies = Latencies()
    for _ in range(answered):
        latencies.record(seconds)
    return StatisticsSnapshot(
        received=answered + 2,
        results={(Verdict.OK, Reason.CLAIMED): answered - 1, (Verdict.INVALID, Reason.REFUNDED): 1},
        fates={("answered", None): answered, ("moved", Reason.NOT_JSON): 2},
        latencies=latencies,
        steps={"verifying": latencies},
    )


def process(name: str, pid: int, retries: int, cpu_seconds: float) -> ProcessOverview:
    services = (ServiceOverview("ledger", True, 0, 0, retries),)
    usage = Usage(cpu_seconds, 50_000_000, 9, 9)
    return ProcessOverview(name, pid, 0.0, State.CONSUMING, 7, 0, ("app_store",), usage, services)


def overview(at_seconds: float, counted: StatisticsSnapshot, *processes: ProcessOverview) -> Overview:
    return Overview(at_seconds, "1.0", State.CONSUMING, ("ReceiptsSQS",), {}, processes, counted)


EARLIER = overview(1000.0, statistics(10), process("worker-1", 1, 3, 5.0), process("worker-2", 2, 3, 5.0))
LATER = overview(
    1060.0,
    replace(statistics(50), incidents={"crash": 2}),
    process("worker-1", 1, 5, 20.0),
    process("worker-2", 3, 1, 3.0),
)


def test_a_line_has_what_happened_since_the_one_before() -> None:
    (document,) = embedded_metrics(EARLIER, LATER)
    check(document)
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("ReceiptActors", [["SourceQueue"]])
    assert (document["_aws"]["Timestamp"], document["SourceQueue"]) == (1_060_000, "ReceiptsSQS")
    expected = {
        "Heartbeat": 2,
        "Received": 40,
        "Answered": 40,
        "HandedBack": 0,
        "Moved": 0,
        "Left": 0,
        "AnsweredOK": 40,
        "AnsweredINVALID": 0,
        "InFlight": 14,
        "Retries": 3,
        "UnavailableServices": 1,
        "Crashes": 2,
        "Restarts": 0,
        "CPU": 30.0,
        "Memory": 100_000_000,
    }
    assert {name: document[name] for name in expected} == expected
    assert document["Latency"]["Count"] == document["LatencyVerifying"]["Count"] == 40
    assert document["Latency"]["Sum"] == pytest.approx(10, rel=0.01)
    assert document["Latency"]["Values"] == [pytest.approx(0.25, rel=0.01)]
    names = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert (names["Latency"], names["Received"], names["Memory"]) == ("Seconds", "Count", "Bytes")


def test_a_quiet_minute_has_a_heartbeat_and_no_latency() -> None:
    (document,) = embedded_metrics(EARLIER, EARLIER)
    check(document)
    assert (document["Heartbeat"], document["Received"]) == (2, 0)
    assert not any("Latency" in name for name in document)


def test_however_many_latencies_there_were_cloudwatch_takes_them() -> None:
    latencies = Latencies()
    for number in range(1, 4000):
        latencies.record(0.0001 * number**1.5)
    new = replace(LATER, statistics=replace(LATER.statistics, latencies=latencies))
    (document,) = embedded_metrics(replace(EARLIER, statistics=StatisticsSnapshot()), new)
    check(document)
    told = document["Latency"]
    assert told["Count"] == 3999
    assert told["Sum"] == pytest.approx(sum(0.0001 * number**1.5 for number in range(1, 4000)), rel=0.01)
    assert told["Values"] == sorted(told["Values"])
    assert told["Min"] <= told["Values"][0] <= told["Values"][-1] <= told["Max"]
    assert sum(v * n for v, n in zip(told["Values"], told["Counts"], strict=True)) == pytest.approx(
        told["Sum"], rel=0.001
    )


def test_every_source_queue_has_its_heartbeat() -> None:
    calls = {"receive from ReceiptsSQS": ServiceCalls(3, 30), "receive from Game2SQS": ServiceCalls(1, 10)}
    later = replace(LATER, source_queues=("ReceiptsSQS", "Game2SQS"), statistics=replace(LATER.statistics, calls=calls))
    first, second = embedded_metrics(EARLIER, later, dimensions={"Stage": "production"})
    for document in (first, second):
        check(document)
        assert document["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["SourceQueue"], ["SourceQueue", "Stage"]]
    assert (first["SourceQueue"], first["Heartbeat"], first["Received"], first["Answered"]) == (
        "ReceiptsSQS",
        2,
        30,
        40,
    )
    assert {name: value for name, value in second.items() if name != "_aws"} == {
        "SourceQueue": "Game2SQS",
        "Stage": "production",
        "Heartbeat": 2,
        "Received": 10,
    }


class System(StandInSystem):
    """Answers a second more each time it is looked at."""

    def __init__(self) -> None:
        super().__init__(lambda number: replace(LATER, at_seconds=1000.0 + number, statistics=statistics(10 * number)))

    def wait_for(self, looks: int) -> None:
        for _ in range(looks):
            assert self.looked.acquire(timeout=PATIENCE_SECONDS)


def lines_of(use: Callable[[MetricsLog], None], interval_seconds: float) -> list[dict[str, Any]]:
    reading, writing = os.pipe()
    with MetricsLog(writing, interval_seconds=interval_seconds) as log:
        use(log)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_the_lines_add_up_to_all_that_was_counted() -> None:
    """From the start on, before anybody looked, to the end; a line each interval."""
    system = System()

    def use(log: MetricsLog) -> None:
        log.watch(system)
        system.wait_for(4)

    lines = lines_of(use, 0.01)
    assert len(lines) >= 3
    for line in lines:
        check(line)
    assert sum(line["Answered"] for line in lines) == 10 * system.looks


def test_the_end_is_told_at_once() -> None:
    (line,) = lines_of(lambda log: log.watch(System()), 3600)  # type: ignore[arg-type]
    assert line["Answered"] == 20


@pytest.mark.parametrize("dimensions", ["Stage", "Stage=", "SourceQueue=x", "A=1,A=2", "A=1," * 30])
def test_dimensions_that_cloudwatch_would_drop_are_refused(dimensions: str) -> None:
    given = {"bundle_ids": "a", "database": "x.db"}
    taken = load_settings({**given, "emf_dimensions": "Stage=production, Team=coins=gold"}, environ={})
    assert taken.emf_dimensions == ("Stage=production", "Team=coins=gold")
    with pytest.raises(ConfigurationError, match="--emf-dimensions: .*expected NAME=VALUE"):
        load_settings({**given, "emf_dimensions": dimensions}, environ={})


@pytest.mark.parametrize(
    ("node_state", "state", "active"),
    [
        (NodeState.ACTIVE, State.CONSUMING, 1),
        (NodeState.ACTIVE, State.WAITING, 1),  # for Apple: that is another alarm's affair
        (NodeState.ACTIVE, State.PAUSED, 0),
        (NodeState.ACTIVE, State.DRAINING, 0),
        (NodeState.STANDBY, State.STANDBY, 0),
        (NodeState.CUT_OFF, State.WAITING, 0),
    ],
)
def test_where_nodes_share_the_work_it_is_told_who_does_it(node_state: NodeState, state: State, active: int) -> None:
    nodes = (NodeOverview("a", node_state, 1, None, 1, 0.0), NodeOverview("b", NodeState.STANDBY, None, None, 1, 0.4))
    role = RoleOverview("active-standby", "ReceiptsSQS", "a", node_state, 10.0, 9.0, None, nodes)
    (document,) = embedded_metrics(EARLIER, replace(LATER, state=state, role=role))
    check(document)
    assert (document["Active"], document["Nodes"]) == (active, 2)
