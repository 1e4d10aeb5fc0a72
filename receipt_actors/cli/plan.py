"""``receipt-actors plan``: what a load takes, and what limits it first. It asks nobody and starts nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from receipt_actors.cli._plan_report import print_plan
from receipt_actors.cli.measured_cost import cost_of_report
from receipt_actors.cli.terminal import FiniteFloatRange
from receipt_actors.domain import measured_costs
from receipt_actors.domain.capacity import (
    Capacity,
    Cost,
    Load,
    Setup,
    plan_capacity,
)
from receipt_actors.domain.roles import LONGEST_LEASE_SECONDS, Role
from receipt_actors.domain.service_limits import PRICES_AS_OF, TASK_SIZES, TaskSize
from receipt_actors.pipeline.batchers import PACE_SECONDS
from receipt_actors.settings import Settings, uses_curl

Command = TypeVar("Command", bound=Callable[..., Any])

MIN_RATE_PER_SECOND, MAX_RATE_PER_SECOND = 1 / 86_400, 1e12
MOST = 1_000_000  #: source queues, and spare tasks
UNIT_SECONDS = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
_MULTIPLES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_RATE = re.compile(r"(?P<number>[0-9][0-9_,]*(?:\.[0-9]+)?(?:e[0-9]{1,2})?)(?P<multiple>[kMG]?)/(?P<unit>s|min|h|day)")
_CLIENTS = {"auto": "curl", "threads": "requests"}
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
  # tasks that share what Apple is known to bear
  receipt-actors plan --rate 3000/s --role load-balanced --apple-limit 3500/s
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
@click.option("--fifo", is_flag=True, help="Source and post queues are FIFO queues, without high throughput.")
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
    "--transport",
    type=click.Choice(list(_CLIENTS)),
    help="How requests are made: auto stands for libcurl here. [default: as the report was measured, else as start "
    "would make them here]",
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
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.ALONE.value,
    show_default=True,
    help="How tasks share the work; see start --role.",
)
@click.option(
    "--lease-seconds",
    type=FiniteFloatRange(1, LONGEST_LEASE_SECONDS),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time for which a role is lent.",
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
    fifo: bool,
    vcpus: str,
    spare_tasks: int,
    utilisation: float,
    transport: str | None,
    bench: str | None,
    core_speed: float,
    role: str,
    lease_seconds: float,
    as_json: bool,
) -> None:
    """Say what a load takes, and what limits it first.

    Processes and tasks, the settings of each, requests to SQS, DynamoDB and Apple with what they cost, what is in
    flight, and which limit of AWS or Apple the load meets first. Nothing is asked and nothing is started.
    """
    client = None if transport is None else _CLIENTS[transport]
    if bench is not None:
        cost = _cost_of(bench, client)
    else:
        cost = _COSTS[client or ("curl" if uses_curl("auto") else "requests")]
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
        fifo=fifo,
        role=Role(role),
        lease_seconds=lease_seconds,
    )
    capacity = plan_capacity(load, setup, cost)
    if as_json:
        click.echo(json.dumps(as_plain(capacity)))
    else:
        print_plan(capacity)


def default_setup(task: TaskSize) -> Setup:
    """Return what ``start`` does unless it is told otherwise, on tasks of this size; but only the consumers needed."""

    def default(name: str) -> Any:
        return Settings.model_fields[name].default

    return Setup(
        task=task,
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
