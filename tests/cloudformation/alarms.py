"""CloudWatch's alarms, evaluated here: what the emulators do not do.

Metrics are fed by hand or from lines of the embedded metric format; ``MetricAlarm`` and ``CompositeAlarm`` are made of
the properties of a template's resources. The rules are those of "Configuring how CloudWatch alarms treat missing data".
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .intrinsics import Resolved

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]

#: Periods that CloudWatch looks farther back than it needs, in case some have no data (3 evaluated of 5, it says).
EXTRA_PERIODS = 2

_STATISTICS: Mapping[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "Minimum": min,
    "Maximum": max,
    "Average": lambda values: sum(values) / len(values),
    "SampleCount": len,
}
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}
_STATE_OF = re.compile(r'(ALARM|OK|INSUFFICIENT_DATA)\("([^"]+)"\)')


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric is called; all of it has to be the same."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> Metric:
        """Read it from an alarm, or from a metric of one."""
        dimensions = ((str(each["Name"]), str(each["Value"])) for each in properties.get("Dimensions", ()))
        return cls(str(properties["Namespace"]), str(properties["MetricName"]), frozenset(dimensions))


class Metrics:
    """What CloudWatch has been told."""

    def __init__(self) -> None:
        self._points: dict[Metric, list[tuple[float, float]]] = defaultdict(list)

    def put(self, metric: Metric, at_seconds: float, value: float) -> None:
        """Take down a value at a UNIX time."""
        self._points[metric].append((at_seconds, value))

    def read_log(self, lines: Iterable[str], *, later_by_seconds: float = 0.0) -> int:
        """Find the metrics in lines of a log, as CloudWatch Logs does; return how many lines had some."""
        found = 0
        for line in lines:
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if not isinstance(document, dict) or "_aws" not in document:
                continue
            found += 1
            at_seconds = document["_aws"]["Timestamp"] / 1000 + later_by_seconds
            for directive in document["_aws"]["CloudWatchMetrics"]:
                for names in directive["Dimensions"]:
                    dimensions = frozenset((name, str(document[name])) for name in names)
                    for definition in directive["Metrics"]:
                        metric = Metric(directive["Namespace"], definition["Name"], dimensions)
                        for value in _values(document[definition["Name"]]):
                            self.put(metric, at_seconds, value)
        return found

    def names(self) -> set[tuple[str, str]]:
        """Namespace and name of all."""
        return {(metric.namespace, metric.name) for metric in self._points}

    def last_at(self, metric: Metric) -> float:
        """When it was told last."""
        return max(at for at, _value in self._points[metric])

    def statistic(self, metric: Metric, statistic: str, period_seconds: int) -> dict[int, float]:
        """Return the statistic of each period that has data, by the period's number since 1970."""
        by_period: dict[int, list[float]] = defaultdict(list)
        for at_seconds, value in self._points.get(metric, ()):
            by_period[int(at_seconds // period_seconds)].append(value)
        return {period: float(_STATISTICS[statistic](values)) for period, values in by_period.items()}


def _values(value: Any) -> Iterable[float]:
    if isinstance(value, dict):
        return [each for each, count in zip(value["Values"], value["Counts"], strict=True) for _ in range(int(count))]
    return [float(each) for each in (value if isinstance(value, list) else [value])]


@dataclass
class MetricAlarm:
    """An alarm of a metric, or of an expression of several."""

    properties: Mapping[str, Any]
    state: State = "INSUFFICIENT_DATA"

    @property
    def name(self) -> str:
        return str(self.properties["AlarmName"])

    def evaluate(self, metrics: Metrics, now_seconds: float) -> State:
        """Look at the periods that are over, and go where they lead."""
        period_seconds, values = self._series(metrics)
        newest = int(now_seconds // period_seconds) - 1
        count = int(self.properties["EvaluationPeriods"])
        points = [values.get(newest - back) for back in range(count + EXTRA_PERIODS)]
        self.state = self._judged(points)
        return self.state

    def _series(self, metrics: Metrics) -> tuple[int, dict[int, float]]:
        if "Metrics" not in self.properties:
            period_seconds = int(self.properties["Period"])
            return period_seconds, metrics.statistic(
                Metric.of(self.properties), self.properties["Statistic"], period_seconds
            )
        period_seconds, known, expression = 60, {}, ""
        for query in self.properties["Metrics"]:
            if "Expression" in query:
                expression = query["Expression"]
            else:
                stat = query["MetricStat"]
                period_seconds = int(stat["Period"])
                known[query["Id"]] = metrics.statistic(Metric.of(stat["Metric"]), stat["Stat"], period_seconds)
        return period_seconds, evaluated(expression, known)

    def _judged(self, newest_first: list[float | None]) -> State:
        """Return the state that these points, of the evaluation range, lead to."""
        is_beyond = _COMPARISONS[self.properties["ComparisonOperator"]]
        threshold = float(self.properties["Threshold"])
        count = int(self.properties["EvaluationPeriods"])
        needed = int(self.properties.get("DatapointsToAlarm", count))
        real = [(back, is_beyond(value, threshold)) for back, value in enumerate(newest_first) if value is not None]
        breaching = sum(is_breaching for _back, is_breaching in real[:count])
        if len(real) >= count:
            return "ALARM" if breaching >= needed else "OK"
        match self._treatment():
            case "breaching":
                return "ALARM" if breaching + count - len(real) >= needed else "OK"
            case "notBreaching":
                return "ALARM" if breaching >= needed else "OK"
            case "ignore":
                return self.state if breaching == len(real) else "OK"
        if not real:
            return "INSUFFICIENT_DATA"
        if breaching < len(real):
            return "ALARM" if breaching >= needed else "OK"
        oldest_back = real[-1][0]  # an alarm would be premature while data may still come that are in order
        return "ALARM" if oldest_back + 1 >= needed else self.state

    def _treatment(self) -> str:
        if self.properties.get("Namespace") == "AWS/DynamoDB":
            return "ignore"  # whatever was asked for, says PutMetricAlarm
        return str(self.properties.get("TreatMissingData", "missing"))


def evaluated(expression: str, known: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """Carry out metric math: sums, products, and ``FILL`` with a number.

    Each period has a value for which everything is known but what is filled.
    """
    filled = set(re.findall(r"FILL\((\w+),", expression))
    periods = set.intersection(*(set(values) for name, values in known.items() if name not in filled))
    results = {}
    for period in periods:
        numbers = {name: values.get(period) for name, values in known.items()}
        try:
            results[period] = float(eval(expression, {"__builtins__": {}, "FILL": _fill}, numbers))
        except ZeroDivisionError:  # no data point, says CloudWatch
            continue
    return results


def _fill(value: float | None, missing: float) -> float:
    return missing if value is None else value


@dataclass
class CompositeAlarm:
    """An alarm of the states of others."""

    properties: Mapping[str, Any]
    state: State = "OK"
    asked: set[str] = field(default_factory=set)

    def evaluate(self, states: Mapping[str, State]) -> State:
        """Follow the rule."""

        def holds(match: re.Match[str]) -> str:
            self.asked.add(match[2])
            return str(states[match[2]] == match[1])

        rule = _STATE_OF.sub(holds, self.properties["AlarmRule"])
        for word in ("AND", "OR", "NOT"):
            rule = rule.replace(word, word.lower())
        self.state = "ALARM" if eval(rule, {"__builtins__": {}, "True": True, "False": False}) else "OK"
        return self.state


@dataclass
class SiteAlarms:
    """Those of a source queue that tell that a site is gone."""

    heartbeat_missing: MetricAlarm
    source_queue_age: MetricAlarm
    site_down: CompositeAlarm

    @classmethod
    def of(cls, template: Resolved) -> SiteAlarms:
        """Take them from a template that makes a source queue."""
        alarms = template.resources("AWS::CloudWatch::Alarm")
        composite = template.resources("AWS::CloudWatch::CompositeAlarm")["SiteDown"]
        return cls(
            MetricAlarm(alarms["HeartbeatMissing"]), MetricAlarm(alarms["SourceQueueAge"]), CompositeAlarm(composite)
        )

    def evaluate(self, metrics: Metrics, now_seconds: float) -> tuple[State, State, State]:
        """Return the states of heartbeat, age, and site."""
        parts = (self.heartbeat_missing, self.source_queue_age)
        states = {alarm.name: alarm.evaluate(metrics, now_seconds) for alarm in parts}
        return self.heartbeat_missing.state, self.source_queue_age.state, self.site_down.evaluate(states)
