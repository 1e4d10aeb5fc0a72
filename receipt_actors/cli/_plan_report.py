"""What ``receipt-actors plan`` says to people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from receipt_actors.domain.capacity import MAX_ENTRIES, Call, Capacity, LimitReached
from receipt_actors.domain.roles import Role
from receipt_actors.domain.service_limits import ECS_LAUNCHES, PRICES_AS_OF, SECONDS_A_MONTH


def print_plan(capacity: Capacity) -> None:
    """Print the tables, and what to do about the limits."""
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
        "batch_requests": "for each batcher of a process",
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
