"""``receipt-actors trace``: watch what a running system does about some messages, as it does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from receipt_actors.cli import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.admin_client import AdminClient, admin_options
from receipt_actors.cli.terminal import FiniteFloatRange, clock_time, echo
from receipt_actors.domain.values import printable
from receipt_actors.errors import TraceRefused
from receipt_actors.telemetry.control import TraceRequest
from receipt_actors.telemetry.trace_filters import FIELDS, SLOWER_THAN


def _filter_options(function: Callable[..., int]) -> Callable[..., int]:
    for name, field in reversed(list(FIELDS.items())):
        if field.option is not None:
            meaning = field.holds.replace("``", "").split(";")[0]
            function = click.option(
                f"--{field.option}", name, multiple=True, metavar="VALUE", help=f"{name}: {meaning}."
            )(function)
    return function


@click.command(
    epilog="""\b
Exit codes:
  0     the trace is over: so many events, or so many seconds
  1     the admin port does not answer, the connection broke, or too many traces run
  2     wrong usage; filters that no event can match
  130   interrupted (Ctrl-C), which ends the trace

\b
Examples:
  receipt-actors trace --user 42 --event claim --limit 10 --seconds 15
  receipt-actors trace --event handed_back --event moved --queue Game2SQS --seconds 600
  receipt-actors trace --event crashed --seconds 600 --json | jq .
"""
)
@click.option(
    "--event", multiple=True, metavar="NAME", help="Such as claim or moved; the manual lists all. Default: every event."
)
@_filter_options
@click.option("--slower-than", type=FiniteFloatRange(0), help="Only of messages received longer ago.")
@click.option("--limit", type=click.IntRange(1), default=10, metavar="N", help="End after so many events.")
@click.option("--seconds", type=FiniteFloatRange(0, min_open=True), default=15.0, help="End after so long.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as a JSON line.")
@admin_options
def command(
    client: AdminClient,
    limit: int,
    seconds: float,
    as_json: bool,
    slower_than: float | None,
    **filters: tuple[str, ...],
) -> int:
    """Print each event that matches all filters when it happens, one a line; how it ended goes to stderr.

    A filter that is given several times matches any of its values. A value may have * and ? in it; ! before it
    excludes what it matches. An event has no receipt and no secret in it.
    """
    if slower_than is not None:
        filters[SLOWER_THAN] = (f"{slower_than}",)
    seen = 0
    try:
        request = TraceRequest({name: list(values) for name, values in filters.items() if values}, limit, seconds)
        with client.trace(request) as events:
            for kind, data in events:
                if kind == "trace":
                    seen += 1
                    echo(json.dumps(data) if as_json else line_of(data))
                elif kind == "end":
                    complain(_end(data))
                    return EXIT_DONE
    except TraceRefused as error:
        complain(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt:
        complain(f"{_events(seen)}: interrupted")
        return EXIT_INTERRUPTED
    complain(f"the connection to {client.address} broke after {_events(seen)}")
    return EXIT_WORLD_FAILED


def line_of(event: Any) -> str:
    if not isinstance(event, Mapping):
        return printable(json.dumps(event))
    fields = dict(event)
    at = fields.pop("at_seconds", None)
    when = [f"{clock_time(at)}.{int(at % 1 * 1000):03}"] if isinstance(at, int | float) else []
    what = [_text(fields.pop(name)) for name in ("process", "event") if fields.get(name)]
    return " ".join(printable(each) for each in [*when, *what, *(f"{key}={_text(fields[key])}" for key in fields)])


def _text(value: object) -> str:
    return value if isinstance(value, str) and value and " " not in value else json.dumps(value, ensure_ascii=False)


_ENDS = {
    **{"limit": "the limit is reached", "seconds": "the time is over", "stopped": "it was stopped"},
    "system": "the system has ended",
}


def _end(data: Any) -> str:
    fields = data if isinstance(data, Mapping) else {}
    reason, count, lost = fields.get("reason", "ended"), fields.get("events", 0), fields.get("lost") or 0
    return printable(f"{_events(count)}{f' and {lost} lost' if lost else ''}: {_ENDS.get(reason, reason)}")


def _events(count: int) -> str:
    return f"{count} event{'' if count == 1 else 's'}"
