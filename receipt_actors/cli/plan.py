"""``receipt-actors plan``: what a load takes, and what limits it first. It asks nobody and starts nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from receipt_actors.actors.batchers import PACE_SECONDS
from receipt_actors.cli.measured_cost import cost_of_report
from receipt_actors.cli.number_types import FiniteFloatRange
from receipt_actors.domain import measured_costs
from receipt_actors.domain.capacity import (
    MAX_ENTRIES,
    Call,
    Capacity,
    Cost,
    LimitReached,
    Load,
    Setup,
    plan_capacity,
)
from receipt_actors.domain.service_limits import ECS_LAUNCHES, PRICES_AS_OF, SECONDS_A_MONTH, TASK_SIZES, TaskSize
from receipt_actors.settings import Settings, default_app_store_client

Command = TypeVar("Command", bound=Callable[..., Any])

MIN_RATE_PER_SECOND, MAX_RATE_PER_SECOND = 1 / 86_400, 1e12
MOST = 1_000_000  #: source queues, and spare tasks
UNIT_SECONDS = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
_MULTIPLES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_RATE = re.compile(r"(?P<number>[0-9][0-9_,]*(?:\.[0-9]+)?(?:e[0-9]{1,2})?)(?P<multiple>[kMG]?)/(?P<unit>s|min|h|day)")
_COSTS = {"curl": measured_costs.CURL, "requests": measured_costs.REQUESTS}
_SIZES = {f"{size.vcpus:g}": size for size in TASK_SIZES}


def _rate(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """Read a rate such as ``100000/min``, as receipts a second (a callback of click)."""
    if text is None:
        return None
    found = _RATE.fullmatch(text.strip())
    if found is not None:
        number = float(re.sub("[_,]", "", found["number"]))
        rate = number * _MULTIPLES[found["multiple"]] / UNIT_SECONDS[found["unit"]]
        if MIN_RATE_PER_SECOND <= rate <= MAX_RATE_PER_SECOND:
            return rate
    raise click.BadParameter(
        f"found {text!r}, expected a number and a unit of time, such as 1500/s, 100000/min, 2.5k/h or 10M/day, "
        "from 1/day to 1000G/s"
    )


def _seconds(name: str, of: str, default: float, most: float) -> Callable[[Command], Command]:
    """Make an option for how long a service takes."""
    return click.option(
        name,
        type=FiniteFloatRange(0, most),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=f"How long {of} takes, on average.",
    )


@click.command(
    epilog=f"""\b
Examples:
  receipt-actors plan --rate 100000/min --apple-latency 0.3
  # ten million a day, at the busiest hour four times the mean
  receipt-actors plan --rate 10M/day --peak 4
  # by what this machine was measured to do
  receipt-actors bench --no-latency --runs 5 --json bench.json
  receipt-actors plan --rate 1500/s --bench bench.json
  # all of the internet, for a program to read
  receipt-actors plan --rate 2M/s --vcpus 16 --source-queues 12 --json

How it is worked out, and all limits: doc/capacity.rst. Prices are list prices of us-east-1, {PRICES_AS_OF}.
"""
)
@click.option(
    "--rate", callback=_rate, required=True, metavar="RATE", help="Receipts: 1500/s, 100000/min, 2.5k/h, 10M/day."
)
@click.option(
    "--peak",
    type=FiniteFloatRange(1, 1000),
    default=1.0,
    show_default=True,
    metavar="TIMES",
    help="How many times the rate the peak is: all is sized for the peak, requests are billed at the rate.",
)
@_seconds("--apple-latency", "Apple's answer", 0.25, 60)
@_seconds("--dynamodb-latency", "a claim in DynamoDB", 0.005, 60)
@_seconds("--sqs-latency", "a send or a delete of SQS", 0.010, 60)
@click.option(
    "--message-bytes",
    type=click.IntRange(1, 1024 * 1024),
    default=7000,
    show_default=True,
    metavar="N",
    help="Size of a message: its receipt, mostly.",
)
@click.option(
    "--claims",
    type=FiniteFloatRange(0.01, 100),
    default=1.0,
    show_default=True,
    metavar="N",
    help="Transactions claimed for one receipt, on average.",
)
@click.option(
    "--apple-requests",
    type=FiniteFloatRange(0.01, 100),
    default=1.0,
    show_default=True,
    metavar="N",
    help="Requests to Apple for one receipt, on average: sandbox receipts take two.",
)
@click.option(
    "--apple-limit",
    callback=_rate,
    metavar="RATE",
    help="Requests that Apple is known to bear. [default: not documented]",
)
@click.option(
    "--source-queues", type=click.IntRange(1, MOST), default=1, show_default=True, metavar="N", help="Source queues."
)
@click.option(
    "--vcpus",
    type=click.Choice(list(_SIZES)),
    default="2",
    show_default=True,
    help="vCPUs of a task; each is a process.",
)
@click.option(
    "--spare-tasks",
    type=click.IntRange(0, MOST),
    default=1,
    show_default=True,
    metavar="N",
    help="Tasks that may be lost at the peak.",
)
@click.option(
    "--utilisation",
    type=FiniteFloatRange(0.05, 0.95),
    default=0.65,
    show_default=True,
    metavar="SHARE",
    help="How much a process may have at the peak, of what it carries at most.",
)
@click.option(
    "--app-store-client",
    type=click.Choice(list(_COSTS)),
    help="What asks Apple: curl (the extra fast), or requests. [default: what the report was measured with, else what "
    "start would take here]",
)
@click.option(
    "--bench",
    metavar="PATH",
    help="Report of bench --json, of one process, to take the cost of a receipt from: of its first series.",
)
@click.option(
    "--core-speed",
    type=FiniteFloatRange(0.05, 20),
    default=1.0,
    show_default=True,
    metavar="TIMES",
    help="Speed of a vCPU, against a core of the machine that was measured.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    rate: float,
    peak: float,
    apple_latency: float,
    dynamodb_latency: float,
    sqs_latency: float,
    message_bytes: int,
    claims: float,
    apple_requests: float,
    apple_limit: float | None,
    source_queues: int,
    vcpus: str,
    spare_tasks: int,
    utilisation: float,
    app_store_client: str | None,
    bench: str | None,
    core_speed: float,
    as_json: bool,
) -> None:
    """Say what a load takes, and what limits it first.

    Processes and tasks, the settings of each, requests to SQS, DynamoDB and Apple with what they cost, what is in
    flight, and which limit of AWS or Apple the load meets first. Nothing is asked and nothing is started.
    """
    cost = (
        _COSTS[app_store_client or default_app_store_client()] if bench is None else _cost_of(bench, app_store_client)
    )
    load = Load(
        rate_per_second=rate,
        peak=peak,
        apple_seconds=apple_latency,
        ledger_seconds=dynamodb_latency,
        queue_seconds=sqs_latency,
        message_bytes=message_bytes,
        claims=claims,
        apple_requests=apple_requests,
        apple_limit_per_second=apple_limit,
    )
    setup = replace(
        default_setup(_SIZES[vcpus]),
        spare_tasks=spare_tasks,
        utilisation=utilisation,
        core_speed=core_speed,
        source_queues=source_queues,
    )
    capacity = plan_capacity(load, setup, cost)
    if as_json:
        click.echo(json.dumps(as_plain(capacity)))
    else:
        _print(capacity)


def default_setup(task: TaskSize) -> Setup:
    """Return what ``start`` does unless it is told otherwise, on tasks of this size; but only the consumers needed."""

    def default(name: str) -> Any:
        return Settings.model_fields[name].default

    return Setup(
        task=task,
        batch_requests=default("batch_requests"),
        ledger_concurrency=default("ledger_concurrency"),
        receive_wait_seconds=default("receive_wait_seconds"),
        pace_seconds=PACE_SECONDS,
    )


def _cost_of(path: str, client: str | None) -> Cost:
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    try:
        return cost_of_report(text, _COSTS, client)
    except ValueError as error:
        raise click.BadParameter(f"{path}: {error}", param_hint="'--bench'") from error


def as_plain(capacity: Capacity) -> dict[str, Any]:
    """Return all figures as JSON has them; their names say the units."""
    plain = asdict(capacity)
    return {
        **plain,
        "processes": capacity.processes,
        "exceeded": [each.limit.what for each in capacity.exceeded],
        "first_limit": capacity.first_limit.limit.what,
    }


# --- for people ------------------------------------------------------------------------------------------------------


def _print(capacity: Capacity) -> None:
    console = Console(highlight=False, emoji=False, markup=False)
    load = capacity.load
    peak = "" if load.peak == 1 else f", {_number(load.peak_per_second)}/s at the peak"
    console.print(
        f"{_number(load.rate_per_second)} receipts/s{peak}. Apple takes {_seconds_of(load.apple_seconds)}, DynamoDB "
        f"{_seconds_of(load.ledger_seconds)}, SQS {_seconds_of(load.queue_seconds)}.\nThe cost of a receipt is that of "
        f"{capacity.cost.machine}; client {capacity.cost.client.name}."
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
    start_seconds = capacity.tasks / (ECS_LAUNCHES.value or math.inf)
    if start_seconds > 60:
        yield "from nothing", f"{start_seconds / 60:,.0f} min", "until ECS has launched all tasks of one service"


def _settings(capacity: Capacity) -> Iterator[tuple[str, str, str]]:
    notes = {
        "processes": "one for each vCPU",
        "consumers": "for each process",
        "batch_requests": "for each batcher of a process",
    }
    for name, value in asdict(capacity.settings).items():
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
            "nobody knows" if each.at_per_second is None else f"{_number(each.at_per_second)}/s",
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
        yield "What nobody knows:"
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
