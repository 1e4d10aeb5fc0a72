"""What ``receipt-actors plan`` reads of a report of ``bench --json``, and what it says to people."""

from __future__ import annotations

import math
import reprlib
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from receipt_actors.domain.capacity import MAX_ENTRIES, Call, Capacity, Cost, LimitReached
from receipt_actors.domain.roles import Role
from receipt_actors.domain.service_limits import ECS_LAUNCHES, PRICES_AS_OF, SECONDS_A_MONTH

#: The operations of AWS that make up each kind of request.
OPERATIONS: Mapping[Call, tuple[str, ...]] = {
    Call.RECEIVE: ("ReceiveMessage",),
    Call.SEND: ("SendMessage", "SendMessageBatch"),
    Call.DELETE: ("DeleteMessage", "DeleteMessageBatch"),
    Call.CLAIM: ("PutItem", "BatchExecuteStatement"),
}
BUSY_SHARE = 0.8  #: of a core; with less, batches were not as full as they get
MAX_TEXT = 100  #: characters of a name
_VERIFY_RECEIPT = "verify-receipt"
_Bytes = Annotated[float, Field(ge=-1e12, le=1e9)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Run(_Part):
    """Bounds are far beyond what any machine does, and far from where figures stop to make sense."""

    messages: float = Field(ge=1, le=1e12)
    cpu_ms: float = Field(ge=1e-3, le=1e6)
    seconds: float = Field(ge=1e-6, le=1e9)
    rss_start_bytes: float = Field(ge=1, le=1e12)
    memory_bytes: _Bytes
    requests: dict[str, Annotated[float, Field(ge=0, le=1e12)]]
    rate: Any = None
    wrong: Any = None
    redelivered: Any = None

    def requests_for_a_receipt(self, call: Call) -> float:
        return sum(self.requests.get(name, 0.0) for name in OPERATIONS[call]) / self.messages


class _Series(_Part):
    label: Any = None
    processes: Any = None
    client: Any = None
    way: Any = _VERIFY_RECEIPT
    runs: list[_Run] = Field(min_length=1)


class _Report(_Part):
    machine: dict[str, Any]
    memory_slope_bytes: _Bytes | None = None
    services: Any = None
    series: list[Any] = Field(min_length=1)


def cost_of_report(text: str, otherwise: Mapping[str, Cost], client: str | None) -> Cost:
    """Read the first series of a report, of one process with all messages at once: medians of its runs.

    What it does not say (the cost of one request, and what the client bears) is that of ``otherwise``, for the client
    that was measured, or for ``client``. What makes the figures less than sure is among the remarks of the cost.

    Raises:
        ValueError: it is no such report; the message says what was found and expected.
    """
    try:
        report = _Report.model_validate_json(text)
        series = _Series.model_validate(report.series[0])
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "report"
        raise ValueError(
            f"expected a report of bench --json: {where}: {fault['msg']}, found {reprlib.repr(fault['input'])}"
        ) from None
    _check_conditions(series)
    runs = series.runs
    in_flight_bytes = report.memory_slope_bytes
    if in_flight_bytes is None:
        in_flight_bytes = statistics.median(run.memory_bytes for run in runs)
    machine = report.machine
    measured = series.client if isinstance(series.client, str) else ""
    return replace(
        otherwise[client or (measured if measured in otherwise else next(iter(otherwise)))],
        machine=f"{_text(machine.get('cpu'))}, {_text(machine.get('cores'))} cores, {_text(machine.get('python'))}",
        cpu_seconds=statistics.median(run.cpu_ms for run in runs) / 1000,
        requests={call: statistics.median(run.requests_for_a_receipt(call) for run in runs) for call in Call},
        process_bytes=round(statistics.median(run.rss_start_bytes for run in runs)),
        in_flight_bytes=max(0, round(in_flight_bytes)),
        remarks=tuple(_remarks(report, series)),
    )


def _check_conditions(series: _Series) -> None:
    """Refuse runs that say nothing of what one process does at most."""
    if series.processes != 1 or isinstance(series.processes, bool):
        raise ValueError(
            f"expected runs of one process, found processes {reprlib.repr(series.processes)}: the figures of several "
            "and of their parent can't be told apart; leave --processes out of bench"
        )
    if series.way != _VERIFY_RECEIPT:
        raise ValueError(
            f"expected verifyReceipt to be asked in the first series, found {reprlib.repr(series.way)}: it is what a "
            "plan is about; give bench --receipts verify-receipt, or give it first"
        )
    if any(run.rate is not None for run in series.runs):
        raise ValueError("expected runs with all messages at once, found runs at a rate: they leave the cores idle")
    for found, words in (("wrong", "wrong answers"), ("redelivered", "messages that were delivered again")):
        if any(getattr(run, found) for run in series.runs):
            raise ValueError(f"expected runs in which all went well, found {words}: their figures are not valid")


def _remarks(report: _Report, series: _Series) -> Iterator[str]:
    if len(report.series) > 1:
        yield f"Of the report's {len(report.series)} series the first is used: {_text(series.label)}."
    core_share = statistics.median(run.cpu_ms / 1000 * run.messages / run.seconds for run in series.runs)
    if core_share < BUSY_SHARE:
        yield (
            f"The report's core was {core_share:.0%} busy, so this is not all that it can do: with more to do, batches "
            "are fuller and a receipt costs less."
        )
    if isinstance(report.services, dict):
        answers_at_once = report.services.get("apple") in (None, {}, {"seconds": 0, "jitter_seconds": 0})
        latencies = (report.services.get(f"{service}_latency_seconds") for service in ("sqs", "dynamodb"))
        if not answers_at_once or any(latencies):
            yield "The report's services had latencies: without (bench --no-latency) it is the core alone that limits."


def _text(value: object) -> str:
    """Return what can be printed of a name: JSON may hold halves of characters."""
    text = str(value) if isinstance(value, str | int) else "unknown"
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


# --- for people ---


def print_plan(capacity: Capacity) -> None:
    """Print the tables, and what to do about the limits."""
    console = Console(highlight=False, emoji=False, markup=False)
    load = capacity.load
    peak = "" if load.peak == 1 else f", {_number(load.peak_per_second)}/s at the peak"
    console.print(
        f"{_number(load.rate_per_second)} receipts/s{peak}. Apple takes {_seconds_of(load.apple_seconds)}, DynamoDB "
        f"{_seconds_of(load.ledger_seconds)}, SQS {_seconds_of(load.queue_seconds)}.\nThe cost of a receipt is that of "
        f"{capacity.cost.machine}; client {capacity.cost.client}."
    )
    for remark in capacity.cost.remarks:
        console.print(f"- {remark}")
    for title, rows in (
        ("What it takes", _takes(capacity)),
        ("Settings of each task", _settings(capacity)),
    ):
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column()
        for row in rows:
            table.add_row(*row)
        console.print(f"\n{title}", style="bold")
        console.print(table)
    console.print("\nRequests", style="bold")
    console.print(_requests(capacity))
    console.print(_bill(capacity))
    console.print("\nWhat limits, the first first", style="bold")
    console.print(_limits(capacity))
    for line in _advice(capacity):
        console.print(line)


def _takes(capacity: Capacity) -> Iterator[tuple[str, str, str]]:
    task, memory_gb = capacity.setup.task, capacity.memory_of_task_gb
    needed, spare = capacity.tasks_needed, capacity.setup.spare_tasks
    yield (
        "tasks",
        _number(capacity.tasks),
        f"of {task.vcpus:g} vCPU and {memory_gb} GB: {needed:,} needed, {spare:,} spare",
    )
    yield (
        "processes",
        _number(capacity.processes),
        f"{_number(capacity.processes_needed)} needed; each carries "
        f"{_number(capacity.most_per_process_per_second)}/s, bound by {capacity.bound_by}",
    )
    yield (
        "CPU of a receipt",
        f"{capacity.cpu_seconds * 1000:.2f} ms",
        f"at the peak; cores are {capacity.cores_busy:.0%} busy then",
    )
    yield "in flight", _number(capacity.in_flight), f"messages, each for {_seconds_of(capacity.in_house_seconds)}"
    yield "requests to Apple", _number(capacity.apple_requests_per_second), "a second at the peak"
    yield "under way at Apple", _number(capacity.apple_connections), "at once; each has a connection"
    yield "connections", _number(capacity.connections_of_task), "of a task, at most"
    yield "open files", _number(capacity.open_files_of_process), "of a process, at most"
    yield "memory", f"{capacity.memory_of_process_bytes / 1e6:,.0f} MB", "of a process with all in flight that may be"
    yield "DynamoDB", _number(capacity.write_units_per_second), "write units/s at the peak"
    yield "", _number(capacity.partitions), "partitions that the table needs for it"
    yield "", _bytes(capacity.ledger_growth_bytes_per_month), "of claims a month, kept for ever"
    roles = capacity.roles
    if roles is not None:
        yield "role table", _number(roles.write_units_per_second), "write units/s, of its one item"
        yield "takes over", _number(roles.takeover_seconds), "seconds after the last sign of a task, at most"
    start_seconds = capacity.tasks / (ECS_LAUNCHES.value or math.inf)
    if start_seconds > 60:
        yield "from nothing", f"{start_seconds / 60:,.0f} min", "until ECS has launched all tasks of one service"


def _settings(capacity: Capacity) -> Iterator[tuple[str, str, str]]:
    notes = {
        "processes": "one for each vCPU",
        "consumers": "for each process",
    }
    if capacity.setup.role is not Role.ALONE:
        yield "role", capacity.setup.role, ""
    if capacity.setup.role is Role.LOAD_BALANCED:
        shared = ("app_store_concurrency", "ledger_concurrency", "app_store_rate_per_second")
        notes |= dict.fromkeys(shared, "for all tasks together, which share it")
    for name, value in asdict(capacity.settings).items():
        if value is not None:
            yield name, f"{value:,}", notes.get(name, "for all processes of the task together")


def _requests(capacity: Capacity) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for title in ("a second", "entries each", "a receipt", "billed a month", "USD"):
        table.add_column(title, justify="right", no_wrap=True)
    names = {call: f"SQS {call}" for call in Call} | {Call.CLAIM: "DynamoDB claim"}
    for each in capacity.requests:
        table.add_row(
            names[each.call],
            _number(each.per_second),
            f"{each.entries:.1f} of {MAX_ENTRIES[each.call]}",
            f"{each.per_receipt:.2f}",
            _number(each.billed_per_month),
            _number(each.usd_per_month),
        )
    return table


def _bill(capacity: Capacity) -> str:
    parts = ", ".join(f"{service} {_number(usd)}" for service, usd in capacity.usd_per_month.items())
    total = sum(capacity.usd_per_month.values())
    receipts = capacity.load.rate_per_second * SECONDS_A_MONTH
    return (
        f"USD a month: {parts}: {_number(total)}, or {total / receipts * 1e6:.2f} for a million receipts "
        f"(list prices of us-east-1, {PRICES_AS_OF})"
    )


def _limits(capacity: Capacity) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("reached at", justify="right", no_wrap=True)
    table.add_column("limit")
    table.add_column("it is", justify="right")
    table.add_column("here", justify="right", no_wrap=True)
    for each in capacity.reached:
        table.add_row(
            "not known" if each.at_per_second is None else f"{_number(each.at_per_second)}/s",
            f"{each.limit.service}: {each.limit.what}",
            _amount(each),
            "-" if each.used is None else _number(each.used),
            style="bold" if each in capacity.exceeded else None,
        )
    return table


def _amount(reached: LimitReached) -> str:
    limit = reached.limit
    if limit.value is None:
        return limit.unit
    share = "" if reached.share == 1 else f"{reached.share:.0%} of "
    return f"{share}{_number(limit.value)} {limit.unit}"


def _advice(capacity: Capacity) -> Iterator[str]:
    """Say what to do about each limit that is in the way, or else which comes next."""
    yield "In the way of this rate:" if capacity.exceeded else "Nothing that is known is in the way. First to come:"
    for each in capacity.exceeded or (capacity.first_limit,):
        yield _remedy(each)
    if unknown := [each for each in capacity.reached if each.at_per_second is None]:
        yield "Not known:"
        yield from map(_remedy, unknown)


def _remedy(reached: LimitReached) -> str:
    return f"- {reached.limit.service}, {reached.limit.what}: {reached.limit.remedy}."


def _number(value: float) -> str:
    """Write a number to three digits or so: M is a million, bn a thousand of these, tn a million."""
    for size, word in ((1e12, "tn"), (1e9, "bn"), (1e6, "M")):
        if value >= size:
            return f"{value / size:,.0f} {word}" if value >= 1000 * size else f"{value / size:.3g} {word}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _bytes(value: float) -> str:
    for size, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= size:
            return f"{value / size:,.3g} {unit}"
    return f"{value / 1e3:,.3g} kB"


def _seconds_of(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
