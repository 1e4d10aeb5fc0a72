"""CloudWatch's alarms, evaluated here: what the emulators do not do.

Metrics are fed by hand or from lines of the embedded metric format. Alarms are the properties of a template's
resources. The rules are those of "Configuring how CloudWatch alarms treat missing data", for alarms that treat them as
breaching or as not breaching, and whose data points must all breach.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["OK", "ALARM"]

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


@dataclass(frozen=True, slots=True)
class Metric:
    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> Metric:
        dimensions = ((str(each["Name"]), str(each["Value"])) for each in properties.get("Dimensions", ()))
        return cls(str(properties["Namespace"]), str(properties["MetricName"]), frozenset(dimensions))


class Metrics:
    def __init__(self) -> None:
        self._points: dict[Metric, list[tuple[float, float]]] = defaultdict(list)

    def put(self, metric: Metric, at_seconds: float, value: float) -> None:
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

    def last_at(self, metric: Metric) -> float:
        return max(at for at, _value in self._points[metric])

    def statistic(self, metric: Metric, statistic: str, period_seconds: int) -> dict[int, float]:
        by_period: dict[int, list[float]] = defaultdict(list)
        for at_seconds, value in self._points.get(metric, ()):
            by_period[int(at_seconds // period_seconds)].append(value)
        return {period: float(_STATISTICS[statistic](values)) for period, values in by_period.items()}


def _values(value: Any) -> Iterable[float]:
    if isinstance(value, dict):
        return [each for each, count in zip(value["Values"], value["Counts"], strict=True) for _ in range(int(count))]
    return [float(each) for each in (value if isinstance(value, list) else [value])]


def state_of(alarm: Mapping[str, Any], metrics: Metrics, now_seconds: float) -> State:
    period_seconds, values = _series(alarm, metrics)
    newest = int(now_seconds // period_seconds) - 1
    count = int(alarm["EvaluationPeriods"])
    is_beyond = _COMPARISONS[alarm["ComparisonOperator"]]
    looked_at = (values.get(newest - back) for back in range(count + EXTRA_PERIODS))
    real = [is_beyond(value, float(alarm["Threshold"])) for value in looked_at if value is not None][:count]
    if len(real) < count and alarm["TreatMissingData"] != "breaching":
        return "OK"
    return "ALARM" if all(real) else "OK"


def _series(alarm: Mapping[str, Any], metrics: Metrics) -> tuple[int, dict[int, float]]:
    if "Metrics" not in alarm:
        period_seconds = int(alarm["Period"])
        return period_seconds, metrics.statistic(Metric.of(alarm), alarm["Statistic"], period_seconds)
    period_seconds, known, expression = 60, {}, ""
    for query in alarm["Metrics"]:
        if "Expression" in query:
            expression = query["Expression"]
        else:
            stat = query["MetricStat"]
            period_seconds = int(stat["Period"])
            known[query["Id"]] = metrics.statistic(Metric.of(stat["Metric"]), stat["Stat"], period_seconds)
    return period_seconds, evaluated(expression, known)


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
