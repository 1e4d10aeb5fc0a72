"""What ``plan`` reads of a report that ``bench --json`` wrote: what a receipt cost on the machine that was measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from receipt_actors.domain.capacity import Call, Cost

#: The operations of AWS that make up each kind of request.
OPERATIONS: Mapping[Call, tuple[str, ...]] = {
    Call.RECEIVE: ("ReceiveMessage",),
    Call.SEND: ("SendMessage", "SendMessageBatch"),
    Call.DELETE: ("DeleteMessage", "DeleteMessageBatch"),
    Call.CLAIM: ("PutItem", "BatchExecuteStatement"),
}


def cost_of_report(text: str, otherwise: Cost) -> Cost:
    """Read the first series of a report, which has to be of one process with all messages at once: medians of its runs.

    What it does not tell (the cost of one request, and what the client bears) is ``otherwise``'s. Raises
    ``ValueError``, which says what was found and expected, for anything else.
    """
    try:
        report = _object(json.loads(text), "the report")
    except json.JSONDecodeError as error:
        raise ValueError(f"expected a report of bench --json, found no JSON: {error}") from None
    machine = _object(report.get("machine"), "machine")
    runs = _list(_object(_list(report.get("series"), "series")[0], "a series").get("runs"), "runs")

    def median(name: str, *, is_positive: bool = True) -> float:
        return statistics.median(_number(_object(run, "a run"), name, is_positive=is_positive) for run in runs)

    def requests(run: Any, call: Call) -> float:
        counted = _object(_object(run, "a run").get("requests"), "requests")
        number = sum(_number(counted, name) for name in OPERATIONS[call] if name in counted)
        return number / _number(run, "messages")

    if any(_object(run, "a run").get("rate") is not None for run in runs):
        raise ValueError("expected runs with all messages at once, found runs at a rate: they leave the cores idle")
    in_flight_bytes = report.get("memory_slope_bytes") or median("memory_bytes", is_positive=False)
    return replace(
        otherwise,
        machine=f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('python')}",
        cpu_seconds=median("cpu_ms") / 1000,
        requests={call: statistics.median(requests(run, call) for run in runs) for call in Call},
        process_bytes=round(median("rss_start_bytes")),
        in_flight_bytes=max(0, round(in_flight_bytes)),
    )


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected {name} to be an object, found {type(value).__name__}")
    return value


def _list(value: object, name: str) -> Sequence[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected {name} to be a list with something in it, found {value!r}")
    return value


def _number(fields: Mapping[str, Any], name: str, *, is_positive: bool = True) -> float:
    value = fields.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and (value > 0 or not is_positive):
        return float(value)
    wish = "a number above 0" if is_positive else "a number"
    raise ValueError(f"expected {name} to be {wish}, found {value!r}")
