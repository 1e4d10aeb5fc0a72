"""The evaluator of alarms: it decides as CloudWatch's documentation says."""

from __future__ import annotations

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


def test_an_expression_has_a_value_where_all_but_the_filled_metrics_have_one() -> None:
    known = {"a": {1: 10.0, 2: 20.0, 4: 1.0}, "b": {2: 2.0, 3: 3.0}, "c": {}, "d": {1: 1.0, 2: 1.0, 3: 1.0, 4: 0.0}}
    assert evaluated("(a + FILL(b, 0) + FILL(c, 7)) / d", known) == {1: 17.0, 2: 29.0}
