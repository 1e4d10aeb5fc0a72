"""When an alarm of a template goes off, in a line; and CloudWatch's metric math, which the emulators do not do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def watched(alarm: Mapping[str, Any]) -> str:
    dimensions = ",".join(f"{each['Name']}={each['Value']}" for each in alarm["Dimensions"])
    metric = f"{alarm['Namespace']} {alarm['MetricName']} {alarm['Statistic']} of {dimensions}"
    return f"{metric} {alarm['ComparisonOperator']} {alarm['Threshold']} x{alarm['EvaluationPeriods']}"


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
