"""What ``plan`` reads of a report that ``bench --json`` wrote: what a receipt cost on the machine that was measured."""

from __future__ import annotations

import json
import reprlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
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
#: What each figure may be: far beyond what any machine does, and far from where figures stop to make sense.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "messages": (1, 1e12),
    "cpu_ms": (1e-3, 1e6),
    "seconds": (1e-6, 1e9),
    "rss_start_bytes": (1, 1e12),
    "memory_bytes": (-1e12, 1e9),
    "memory_slope_bytes": (-1e12, 1e9),
}
BOUNDS_OF_REQUESTS = (0, 1e12)
BUSY_SHARE = 0.8  #: of a core; with less, batches were not as full as they get
MAX_TEXT = 100  #: characters of a name


def cost_of_report(text: str, otherwise: Mapping[str, Cost], client: str | None) -> Cost:
    """Read the first series of a report, of one process with all messages at once: medians of its runs.

    What it does not tell (the cost of one request, and what the client bears) is that of ``otherwise``, for the client
    that was measured, or for ``client``. What makes the figures less than sure is among the remarks of the cost. Raises
    ``ValueError``, which says what was found and expected, for what is no such report.
    """
    try:
        report = _object(json.loads(text), "the report")
    except json.JSONDecodeError as error:
        raise ValueError(f"expected a report of bench --json, found no JSON: {error}") from None
    except RecursionError:
        raise ValueError("expected a report of bench --json, found JSON that is nested too deeply") from None
    machine = _object(report.get("machine"), "machine")
    all_series = _list(report.get("series"), "series")
    series = _object(all_series[0], "a series")
    runs = [_object(run, "a run") for run in _list(series.get("runs"), "runs")]
    _check_conditions(series, runs)

    def median(name: str) -> float:
        return statistics.median(_number(run, name, *BOUNDS[name]) for run in runs)

    def requests(run: Mapping[str, Any], call: Call) -> float:
        counted = _object(run.get("requests"), "requests")
        number = sum(_number(counted, name, *BOUNDS_OF_REQUESTS) for name in OPERATIONS[call] if name in counted)
        return number / _number(run, "messages", *BOUNDS["messages"])

    if report.get("memory_slope_bytes") is None:
        in_flight_bytes = median("memory_bytes")
    else:
        in_flight_bytes = _number(report, "memory_slope_bytes", *BOUNDS["memory_slope_bytes"])
    measured = series.get("client")
    base = otherwise[
        client or (measured if isinstance(measured, str) and measured in otherwise else next(iter(otherwise)))
    ]
    share = statistics.median(_core_share(run) for run in runs)
    return replace(
        base,
        machine=f"{_text(machine.get('cpu'))}, {_text(machine.get('cores'))} cores, {_text(machine.get('python'))}",
        cpu_seconds=median("cpu_ms") / 1000,
        requests={call: statistics.median(requests(run, call) for run in runs) for call in Call},
        process_bytes=round(median("rss_start_bytes")),
        in_flight_bytes=max(0, round(in_flight_bytes)),
        remarks=tuple(_remarks(report, all_series, share)),
    )


def _check_conditions(series: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that say nothing of what one process does at most."""
    processes = series.get("processes")
    if processes != 1 or isinstance(processes, bool):
        raise ValueError(
            f"expected runs of one process, found processes {reprlib.repr(processes)}: the figures of several and of "
            "their parent can't be told apart; leave --processes out of bench"
        )
    way = series.get("way", "verify-receipt")
    if way != "verify-receipt":
        raise ValueError(
            f"expected verifyReceipt to be asked in the first series, found {reprlib.repr(way)}: it is what a plan is "
            "about; give bench --receipts verify-receipt, or give it first"
        )
    if any(run.get("rate") is not None for run in runs):
        raise ValueError("expected runs with all messages at once, found runs at a rate: they leave the cores idle")
    for what, words in (("wrong", "wrong answers"), ("redelivered", "messages that were delivered again")):
        if any(run.get(what) for run in runs):
            raise ValueError(f"expected runs in which all went well, found {words}: their figures are not valid")


def _core_share(run: Mapping[str, Any]) -> float:
    """How busy the one core was that a process uses."""
    cpu_seconds = _number(run, "cpu_ms", *BOUNDS["cpu_ms"]) / 1000 * _number(run, "messages", *BOUNDS["messages"])
    return cpu_seconds / _number(run, "seconds", *BOUNDS["seconds"])


def _remarks(report: Mapping[str, Any], all_series: Sequence[Any], core_share: float) -> Iterator[str]:
    if len(all_series) > 1:
        yield f"Of the report's {len(all_series)} series the first is used: {_text(all_series[0].get('label'))}."
    if core_share < BUSY_SHARE:
        yield (
            f"The report's core was {core_share:.0%} busy, so this is not all that it can do: with more to do, batches "
            "are fuller and a receipt costs less."
        )
    services = report.get("services")
    if isinstance(services, dict):
        apple = services.get("apple")
        answers_at_once = apple in (None, {}, {"seconds": 0, "jitter_seconds": 0})
        if not answers_at_once or services.get("sqs_latency_seconds") or services.get("dynamodb_latency_seconds"):
            yield "The report's services had latencies: without (bench --no-latency) it is the core alone that limits."


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected {name} to be an object, found {type(value).__name__}")
    return value


def _list(value: object, name: str) -> Sequence[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected {name} to be a list with something in it, found {reprlib.repr(value)}")
    return value


def _number(fields: Mapping[str, Any], name: str, least: float, most: float) -> float:
    """Return a figure within its bounds. Integers of any length compare with floats without being converted."""
    value = fields.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise ValueError(f"expected {name} to be a number from {least:g} to {most:g}, found {reprlib.repr(value)}")


def _text(value: object) -> str:
    """Return what can be printed of a name: JSON may hold halves of characters."""
    text = str(value) if isinstance(value, str | int) else "unknown"
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()
