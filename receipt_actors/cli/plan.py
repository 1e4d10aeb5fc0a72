"""``receipt-actors plan``: what a load takes, and what limits it first. It asks no service and starts nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from receipt_actors.cli.terminal import FiniteFloatRange, choice
from receipt_actors.domain.capacity import COSTS, MAX_ENTRIES, Call, Capacity, LimitReached, Load, plan_capacity
from receipt_actors.domain.roles import LONGEST_LEASE_SECONDS, Role
from receipt_actors.domain.service_limits import PRICES_AS_OF, SECONDS_A_MONTH, TASK_SIZES
from receipt_actors.settings import uses_curl

MIN_RATE_PER_SECOND, MAX_RATE_PER_SECOND = 1 / 86_400, 1e12
MOST = 1_000_000  #: source queues, and spare tasks
_MULTIPLES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_UNIT_SECONDS = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
_RATE = re.compile(r"(?P<number>[0-9][0-9_,]*(?:\.[0-9]+)?(?:e[0-9]{1,2})?)(?P<multiple>[kMG]?)/(?P<unit>s|min|h|day)")
_SIZES = {f"{size.vcpus:g}": size for size in TASK_SIZES}
_LATENCY, _COUNT, _SHARE = FiniteFloatRange(0, 60), click.IntRange(0, MOST), FiniteFloatRange(0.01, 100)

#: Options that are numbers: flag, the field of ``Load``, which has the default, type, unit, help.
_NUMBERS: tuple[tuple[str, str, click.ParamType[Any], str, str], ...] = (
    ("--peak", "peak", FiniteFloatRange(1, 1000), "TIMES", "Ratio of peak to average rate; capacity is for the peak."),
    ("--apple-latency", "apple_seconds", _LATENCY, "SECONDS", "Apple's mean time to answer."),
    ("--dynamodb-latency", "ledger_seconds", _LATENCY, "SECONDS", "Mean time of a claim in DynamoDB."),
    ("--sqs-latency", "queue_seconds", _LATENCY, "SECONDS", "Mean time of a send or a delete of SQS."),
    ("--message-bytes", "message_bytes", click.IntRange(1, 1024 * 1024), "N", "Size of a message: mostly its receipt."),
    ("--claims", "claims", _SHARE, "N", "Mean number of transactions claimed for one receipt."),
    ("--apple-requests", "apple_requests", _SHARE, "N", "Requests to Apple for a receipt; 2 in the sandbox."),
    ("--source-queues", "source_queues", click.IntRange(1, MOST), "N", "Source queues."),
    ("--spare-tasks", "spare_tasks", _COUNT, "N", "Tasks that may be lost at the peak."),
    ("--utilisation", "utilisation", FiniteFloatRange(0.05, 0.95), "SHARE", "Load of a process at the peak, at most."),
    ("--core-speed", "core_speed", FiniteFloatRange(0.05, 20), "TIMES", "Speed of a vCPU against the measured core."),
    ("--lease-seconds", "lease_seconds", FiniteFloatRange(1, LONGEST_LEASE_SECONDS), "SECONDS", "Length of a lease."),
)


def read_rate(text: str) -> float:
    """Read a rate such as ``100000/min``, as receipts a second. Raises ``click.BadParameter``."""
    found = _RATE.fullmatch(text.strip())
    if found is not None:
        number = float(re.sub("[_,]", "", found["number"]))
        rate = number * _MULTIPLES[found["multiple"]] / _UNIT_SECONDS[found["unit"]]
        if MIN_RATE_PER_SECOND <= rate <= MAX_RATE_PER_SECOND:
            return rate
    raise click.BadParameter(
        f"found {text!r}, expected a number and a unit of time, such as 1500/s, 100000/min, 2.5k/h or 10M/day, "
        "from 1/day to 1000G/s"
    )


def _number_options(function: Callable[..., None]) -> Callable[..., None]:
    defaults = {field.name: field.default for field in fields(Load)}
    for flag, name, kind, unit, text in reversed(_NUMBERS):
        add = click.option(flag, name, type=kind, default=defaults[name], metavar=unit, help=text)
        function = add(function)
    return function


@click.command(
    epilog=f"""\b
Examples:
  receipt-actors plan --rate 100000/min --apple-latency 0.3
  # ten million a day, at the busiest hour four times the mean
  receipt-actors plan --rate 10M/day --peak 4
  # with the CPU time of a receipt that bench --no-latency measured
  receipt-actors plan --rate 1500/s --cpu-ms 0.41
  # tasks that share what Apple is known to bear
  receipt-actors plan --rate 3000/s --role load-balanced --apple-limit 3500/s
  # all of the internet, for a program to read
  receipt-actors plan --rate 2M/s --vcpus 16 --source-queues 12 --json

How it is worked out, and all limits: doc/capacity.rst. Prices are list prices of us-east-1, {PRICES_AS_OF}.
"""
)
@click.option(
    "--rate", "rate_per_second", type=read_rate, required=True, metavar="RATE", help="Such as 1500/s or 10M/day."
)
@click.option(
    "--apple-limit",
    "apple_limit_per_second",
    type=read_rate,
    metavar="RATE",
    help="Requests that Apple bears. [default: not known]",
)
@_number_options
@click.option("--fifo", is_flag=True, help="Source and post queues are FIFO queues, without high throughput.")
@click.option("--vcpus", type=click.Choice(list(_SIZES)), default="2", help="vCPUs of a task, one per process.")
@click.option("--role", type=choice(Role), default=Role.ALONE.value, help="How tasks share the work; see start --role.")
@click.option(
    "--transport", type=click.Choice(["auto", "threads"]), help="How requests are made. [default: as start would here]"
)
@click.option(
    "--cpu-ms",
    type=FiniteFloatRange(0.001, 1e6),
    metavar="MS",
    help="CPU time of a receipt, by bench --no-latency. [default: the manual's]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(transport: str | None, cpu_ms: float | None, vcpus: str, role: str, as_json: bool, **numbers: Any) -> None:
    """Say what a load takes, and what limits it first.

    Processes and tasks, the settings of each, requests to SQS, DynamoDB and Apple with what they cost, what is in
    flight, and which limit of AWS or Apple the load meets first. Nothing is asked and nothing is started.
    """
    is_curl = uses_curl("auto") if transport is None else transport == "auto"
    cost = COSTS["curl" if is_curl else "requests"]
    if cpu_ms is not None:
        cost = replace(cost, machine="a machine of yours", cpu_seconds=cpu_ms / 1000)
    capacity = plan_capacity(Load(task=_SIZES[vcpus], role=Role(role), **numbers), cost)
    if not as_json:
        _print(capacity)
        return
    derived = {
        "exceeded": [each.limit.what for each in capacity.exceeded],
        "first_limit": capacity.reached[0].limit.what,
    }
    click.echo(json.dumps({**asdict(capacity), **derived}))


# --- for people ---


def _print(capacity: Capacity) -> None:
    console = Console(highlight=False, emoji=False, markup=False)
    load, cost = capacity.load, capacity.cost
    peak = "" if load.peak == 1 else f", {_number(load.peak_per_second)}/s at the peak"
    console.print(
        f"{_number(load.rate_per_second)} receipts/s{peak}. Apple takes {_seconds_of(load.apple_seconds)}, DynamoDB "
        f"{_seconds_of(load.ledger_seconds)}, SQS {_seconds_of(load.queue_seconds)}.\nThe cost of a receipt is that of "
        f"{cost.machine}; client {cost.client}."
    )
    console.print("\nWhat it takes", style="bold")
    console.print(_table(("", "", ""), _takes(capacity), show_header=False))
    console.print("\nSettings of each task", style="bold")
    console.print(_table(("", "", ""), _settings(capacity), show_header=False))
    console.print("\nRequests", style="bold")
    console.print(_table(("", "a second", "entries each", "a receipt", "billed a month", "USD"), _requests(capacity)))
    console.print(_bill(capacity))
    console.print("\nWhat limits, the first first", style="bold")
    console.print(_table(("", "reached at", "it is", "here"), _limits(capacity)))
    console.print("In the way of this rate:" if capacity.exceeded else "Nothing known is in the way. First to come:")
    for each in capacity.exceeded or capacity.reached[:1]:
        console.print(_remedy(each))
    if unknown := [each for each in capacity.reached if each.at_per_second is None]:
        console.print("Not known:", *map(_remedy, unknown), sep="\n")


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, show_header: bool = True) -> Table:
    """Make a table of a name, which may wrap, and figures, which may not."""
    table = Table(
        box=SIMPLE_HEAD if show_header else None, show_header=show_header, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for number, title in enumerate(titles):
        is_figure = number > 0 if show_header else number == 1
        table.add_column(title, justify="right" if is_figure else "left", no_wrap=is_figure)
    for row in rows:
        table.add_row(*row)
    return table


def _takes(capacity: Capacity) -> Iterator[tuple[str, str, str]]:
    task, memory_gb = capacity.load.task, capacity.memory_of_task_gb
    needed, spare = capacity.tasks_needed, capacity.load.spare_tasks
    of_task = f"of {task.vcpus:g} vCPU and {memory_gb} GB: {needed:,} needed, {spare:,} spare"
    yield "tasks", _number(capacity.tasks), of_task
    yield (
        "processes",
        _number(capacity.processes),
        f"{_number(capacity.processes_needed)} needed; each carries "
        f"{_number(capacity.most_per_process_per_second)}/s, bound by {capacity.bound_by}",
    )
    cpu = f"{capacity.cpu_seconds * 1000:.2f} ms"
    yield "CPU of a receipt", cpu, f"at the peak; cores are {capacity.cores_busy:.0%} busy then"
    yield "in flight", _number(capacity.in_flight), f"messages, each for {_seconds_of(capacity.in_house_seconds)}"
    yield "requests to Apple", _number(capacity.apple_requests_per_second), "a second at the peak"
    yield "under way at Apple", _number(capacity.apple_connections), "at once; each has a connection"
    yield "connections", _number(capacity.connections_of_process), "of a process, at most"
    yield "open files", _number(capacity.open_files_of_process), "of a process, at most"
    yield "memory", f"{capacity.memory_of_process_bytes / 1e6:,.0f} MB", "of a process with all in flight that may be"
    yield "DynamoDB", _number(capacity.write_units_per_second), "write units/s at the peak"
    yield "", f"{_number(capacity.ledger_growth_bytes_per_month / 1e9)} GB", "of claims a month, kept for ever"
    if capacity.roles is not None:
        yield "role table", _number(capacity.roles.write_units_per_second), "write units/s, of its one item"
        yield "takes over", _number(capacity.roles.takeover_seconds), "seconds after the last sign of a task, at most"


def _settings(capacity: Capacity) -> Iterator[tuple[str, str, str]]:
    notes = {"processes": "one for each vCPU", "consumers": "for each process"}
    if capacity.load.role is not Role.ALONE:
        yield "role", capacity.load.role, ""
    if capacity.load.role is Role.LOAD_BALANCED:
        shared = ("app_store_concurrency", "ledger_concurrency", "app_store_rate_per_second")
        notes |= dict.fromkeys(shared, "for all tasks together, which share it")
    for name, value in asdict(capacity.settings).items():
        if value is not None:
            yield name, f"{value:,}", notes.get(name, "for all processes of the task together")


def _requests(capacity: Capacity) -> Iterator[Sequence[str]]:
    for each in capacity.requests:
        yield (
            "DynamoDB claim" if each.call is Call.CLAIM else f"SQS {each.call}",
            _number(each.per_second),
            f"{each.entries:.1f} of {MAX_ENTRIES[each.call]}",
            f"{each.per_receipt:.2f}",
            _number(each.billed_per_month),
            _number(each.usd_per_month),
        )


def _bill(capacity: Capacity) -> str:
    parts = ", ".join(f"{service} {_number(usd)}" for service, usd in capacity.usd_per_month.items())
    total = sum(capacity.usd_per_month.values())
    receipts = capacity.load.rate_per_second * SECONDS_A_MONTH
    return (
        f"USD a month: {parts}: {_number(total)}, or {total / receipts * 1e6:.2f} for a million receipts "
        f"(list prices of us-east-1, {PRICES_AS_OF})"
    )


def _limits(capacity: Capacity) -> Iterator[Sequence[str]]:
    for each in capacity.reached:
        limit, share = each.limit, "" if each.share == 1 else f"{each.share:.0%} of "
        yield (
            f"{limit.service}: {limit.what}",
            "not known" if each.at_per_second is None else f"{_number(each.at_per_second)}/s",
            limit.unit if limit.value is None else f"{share}{_number(limit.value)} {limit.unit}",
            _number(each.used),
        )


def _remedy(reached: LimitReached) -> str:
    return f"- {reached.limit.service}, {reached.limit.what}: {reached.limit.remedy}."


def _number(value: float) -> str:
    """Write a number to three digits or so: M is a million, bn a thousand of these, tn a million."""
    for size, word in ((1e12, "tn"), (1e9, "bn"), (1e6, "M")):
        if value >= size:
            return f"{value / size:,.0f} {word}" if value >= 1000 * size else f"{value / size:.3g} {word}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _seconds_of(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
