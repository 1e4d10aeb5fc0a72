"""``receipt-actors plan``: what a load takes, and what limits it first. It asks no service and starts nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click

from receipt_actors.cli._plan_report import cost_of_report, print_plan
from receipt_actors.cli.terminal import FiniteFloatRange
from receipt_actors.domain import measured_costs
from receipt_actors.domain.capacity import Cost, Load, Setup, plan_capacity
from receipt_actors.domain.roles import LONGEST_LEASE_SECONDS, Role
from receipt_actors.domain.service_limits import PRICES_AS_OF, TASK_SIZES
from receipt_actors.settings import uses_curl

MIN_RATE_PER_SECOND, MAX_RATE_PER_SECOND = 1 / 86_400, 1e12
MOST = 1_000_000  #: source queues, and spare tasks
_MULTIPLES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_UNIT_SECONDS = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
_RATE = re.compile(r"(?P<number>[0-9][0-9_,]*(?:\.[0-9]+)?(?:e[0-9]{1,2})?)(?P<multiple>[kMG]?)/(?P<unit>s|min|h|day)")
_COSTS = {"curl": measured_costs.CURL, "requests": measured_costs.REQUESTS}
_SIZES = {f"{size.vcpus:g}": size for size in TASK_SIZES}
_LATENCY, _COUNT, _SHARE = FiniteFloatRange(0, 60), click.IntRange(0, MOST), FiniteFloatRange(0.01, 100)

#: Options that are numbers: flag, the field of ``Load`` or ``Setup`` that has the default, type, unit, help.
_NUMBERS: tuple[tuple[str, str, click.ParamType[Any], str, str], ...] = (
    ("--peak", "peak", FiniteFloatRange(1, 1000), "TIMES", "Ratio of peak to average rate; capacity is for the peak."),
    ("--apple-latency", "apple_seconds", _LATENCY, "SECONDS", "Apple's mean time to answer."),
    ("--dynamodb-latency", "ledger_seconds", _LATENCY, "SECONDS", "Mean time of a claim in DynamoDB."),
    ("--sqs-latency", "queue_seconds", _LATENCY, "SECONDS", "Mean time of a send or a delete of SQS."),
    ("--message-bytes", "message_bytes", click.IntRange(1, 1024 * 1024), "N", "Size of a message: mostly its receipt."),
    ("--claims", "claims", _SHARE, "N", "Mean number of transactions claimed for one receipt."),
    (
        "--apple-requests",
        "apple_requests",
        _SHARE,
        "N",
        "Requests to Apple for a receipt: sandbox receipts take two.",
    ),
    ("--source-queues", "source_queues", click.IntRange(1, MOST), "N", "Source queues."),
    ("--spare-tasks", "spare_tasks", _COUNT, "N", "Tasks that may be lost at the peak."),
    ("--utilisation", "utilisation", FiniteFloatRange(0.05, 0.95), "SHARE", "Load of a process at the peak, at most."),
    ("--core-speed", "core_speed", FiniteFloatRange(0.05, 20), "TIMES", "Speed of a vCPU against the measured core."),
    ("--lease-seconds", "lease_seconds", FiniteFloatRange(1, LONGEST_LEASE_SECONDS), "SECONDS", "Length of a lease."),
)


def _rate(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """Read a rate such as ``100000/min``, as receipts a second (a callback of click)."""
    if text is None:
        return None
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
    defaults = {field.name: field.default for model in (Load, Setup) for field in fields(model)}
    for flag, name, kind, unit, text in reversed(_NUMBERS):
        add = click.option(flag, name, type=kind, default=defaults[name], show_default=True, metavar=unit, help=text)
        function = add(function)
    return function


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
    "--rate",
    "rate_per_second",
    callback=_rate,
    required=True,
    metavar="RATE",
    help="Receipts: 1500/s, 100000/min, 2.5k/h, 10M/day.",
)
@click.option(
    "--apple-limit",
    "apple_limit_per_second",
    callback=_rate,
    metavar="RATE",
    help="Requests that Apple is known to bear. [default: not documented]",
)
@_number_options
@click.option("--fifo", is_flag=True, help="Source and post queues are FIFO queues, without high throughput.")
@click.option(
    "--vcpus", type=click.Choice(list(_SIZES)), default="2", show_default=True, help="vCPUs of a task, one per process."
)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.ALONE.value,
    show_default=True,
    help="How tasks share the work; see start --role.",
)
@click.option(
    "--transport",
    type=click.Choice(["auto", "threads"]),
    help="How requests are made; auto is libcurl. [default: as the report was measured, else as start would here]",
)
@click.option(
    "--bench", metavar="PATH", help="Take the cost of a receipt from the first series of a report of bench --json."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(transport: str | None, bench: str | None, vcpus: str, role: str, as_json: bool, **numbers: Any) -> None:
    """Say what a load takes, and what limits it first.

    Processes and tasks, the settings of each, requests to SQS, DynamoDB and Apple with what they cost, what is in
    flight, and which limit of AWS or Apple the load meets first. Nothing is asked and nothing is started.
    """
    client = {None: None, "auto": "curl", "threads": "requests"}[transport]
    here = "curl" if uses_curl("auto") else "requests"
    cost = _cost_of(bench, client) if bench else _COSTS[client or here]
    of_load = {field.name for field in fields(Load)}
    load = Load(**{name: value for name, value in numbers.items() if name in of_load})
    setup = Setup(
        task=_SIZES[vcpus],
        role=Role(role),
        **{name: value for name, value in numbers.items() if name not in of_load},
    )
    capacity = plan_capacity(load, setup, cost)
    if not as_json:
        print_plan(capacity)
        return
    derived = {
        "processes": capacity.processes,
        "exceeded": [each.limit.what for each in capacity.exceeded],
        "first_limit": capacity.first_limit.limit.what,
    }
    click.echo(json.dumps({**asdict(capacity), **derived}))


def _cost_of(path: str, client: str | None) -> Cost:
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    try:
        return cost_of_report(text, _COSTS, client)
    except ValueError as error:
        raise click.BadParameter(f"{path}: {error}", param_hint="'--bench'") from error
