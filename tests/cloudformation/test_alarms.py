"""The evaluator of alarms: it decides as CloudWatch's documentation says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .alarms import Metric, Metrics, State, evaluated, state_of

METRIC = Metric("N", "M", frozenset({("D", "d")}))


def alarm(treatment: str) -> dict[str, Any]:
    return {
        "Namespace": "N",
        "MetricName": "M",
        "Dimensions": [{"Name": "D", "Value": "d"}],
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 3,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 0,
        "TreatMissingData": treatment,
    }


def told(points: str) -> Metrics:
    """Return metrics of these minutes, the newest (minute 99) last: 0 is in order, X is not, - is missing."""
    metrics = Metrics()
    for minute, point in enumerate(points.split(), 100 - len(points.split())):
        if point != "-":
            metrics.put(METRIC, minute * 60 + 30, {"0": 0.0, "X": 1.0}[point])
    return metrics


@pytest.mark.parametrize(
    ("points", "breaching", "not_breaching"),
    [
        ("0 - X - X", "OK", "OK"),
        ("0 - - - -", "OK", "OK"),
        ("- - - - -", "ALARM", "OK"),
        ("0 X X - X", "ALARM", "ALARM"),
        ("- - X - -", "ALARM", "OK"),
    ],
)
def test_the_table_of_the_documentation_holds(points: str, breaching: State, not_breaching: State) -> None:
    assert state_of(alarm("breaching"), told(points), 6000.0) == breaching
    assert state_of(alarm("notBreaching"), told(points), 6000.0) == not_breaching


def test_a_minute_counts_once_it_is_over() -> None:
    metrics = told("X X X")
    assert state_of(alarm("notBreaching"), metrics, 5999.9) == "OK"
    assert state_of(alarm("notBreaching"), metrics, 6000.0) == "ALARM"


@pytest.mark.parametrize(
    ("statistic", "value"), [("Sum", 6.0), ("Minimum", 1.0), ("Maximum", 3.0), ("Average", 2.0), ("SampleCount", 3.0)]
)
def test_a_period_is_one_number(statistic: str, value: float) -> None:
    metrics = Metrics()
    for at, told_value in [(60, 1.0), (61, 3.0), (119.9, 2.0), (120, 50.0)]:
        metrics.put(METRIC, at, told_value)
    assert metrics.statistic(METRIC, statistic, 60) == {1: value, 2: 1.0 if statistic == "SampleCount" else 50.0}


def test_metrics_are_found_in_a_log() -> None:
    """By every set of dimensions; what is no metric is passed over."""
    document = {
        "_aws": {
            "Timestamp": 90_000,
            "CloudWatchMetrics": [
                {"Namespace": "N", "Dimensions": [["D"], ["D", "E"]], "Metrics": [{"Name": "M"}, {"Name": "L"}]}
            ],
        },
        "D": "d",
        "E": "e",
        "M": 7,
        "L": {"Values": [0.5, 2], "Counts": [2, 1], "Min": 0.5, "Max": 2, "Sum": 3, "Count": 3},
    }
    metrics = Metrics()
    assert metrics.read_log(["text", "[1]", "{}", json.dumps(document)], later_by_seconds=60.0) == 1
    assert metrics.statistic(METRIC, "Sum", 60) == {2: 7.0}
    both = frozenset({("D", "d"), ("E", "e")})
    assert metrics.statistic(Metric("N", "L", both), "Maximum", 60) == {2: 2.0}
    assert metrics.statistic(Metric("N", "L", both), "SampleCount", 60) == {2: 3.0}
    assert metrics.statistic(Metric("N", "M", frozenset()), "Sum", 60) == {}


def test_an_expression_is_of_all_its_metrics() -> None:
    known = {"a": {1: 10.0, 2: 10.0, 3: 10.0}, "b": {1: 2.0, 3: 0.0}}
    assert evaluated("a / (b * 5)", known) == {1: 1.0}


def test_what_is_filled_is_never_missing() -> None:
    """Where the rest of the expression has a value; a metric without any data is missing everywhere."""
    known = {"a": {1: 10.0, 2: 20.0}, "b": {2: 2.0, 3: 3.0}, "c": {}}
    assert evaluated("(a + FILL(b, 0) + FILL(c, 7)) / 1", known) == {1: 17.0, 2: 29.0}
