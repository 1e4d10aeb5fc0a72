"""``receipt-actors trace``: watch what a running system does about some messages, as it does it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from receipt_actors.cli import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.admin_client import AdminClient, admin_options
from receipt_actors.cli.number_types import FiniteFloatRange
from receipt_actors.cli.plain_text import clock_time, echo
from receipt_actors.domain.values import printable
from receipt_actors.errors import PredicateRefused
from receipt_actors.telemetry.control import TraceRequest


@click.command(
    epilog="""\b
Exit codes:
  0     the trace is over: so many events, or so many seconds
  1     nobody answers there, the connection broke, or as many traces run as may
  2     wrong usage; a predicate that can't be read
  130   interrupted (Ctrl-C), which ends the trace

\b
Examples:
  receipt-actors trace "claim where user_id == 42" --limit 10 --seconds 15
  receipt-actors trace "handed_back|moved where source_queue == 'Game2SQS'" --seconds 600
  receipt-actors trace "crashed" --seconds 600 --json | jq .
"""
)
@click.argument("predicate")
@click.option(
    "--limit", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="End after so many events."
)
@click.option(
    "--seconds",
    type=FiniteFloatRange(0, min_open=True),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="End after so long.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as a JSON line.")
@admin_options
def command(client: AdminClient, predicate: str, limit: int, seconds: float, as_json: bool) -> int:
    """Print each event that PREDICATE matches when it happens, one a line; how it ended goes to stderr.

    An event has no receipt and no secret in it. The manual's page on tracing tells what can be matched.
    """
    seen = 0
    try:
        with client.trace(TraceRequest(predicate, limit, seconds)) as events:
            for kind, data in events:
                if kind == "trace":
                    seen += 1
                    echo(json.dumps(data) if as_json else line_of(data))
                elif kind == "end":
                    complain(_end(data))
                    return EXIT_DONE
    except PredicateRefused as error:
        complain(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt:
        complain(f"{_events(seen)}: interrupted")
        return EXIT_INTERRUPTED
    complain(f"the connection to {client.address} broke after {_events(seen)}")
    return EXIT_WORLD_FAILED


def line_of(event: Any) -> str:
    """Write an event on one line: when, what, and its other fields."""
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
    "limit": "the limit is reached",
    "seconds": "the time is over",
    "stopped": "it was stopped",
    "system": "the system has ended",
}


def _end(data: Any) -> str:
    fields = data if isinstance(data, Mapping) else {}
    reason, count, lost = fields.get("reason", "ended"), fields.get("events", 0), fields.get("lost") or 0
    return printable(f"{_events(count)}{f' and {lost} lost' if lost else ''}: {_ENDS.get(reason, reason)}")


def _events(count: int) -> str:
    return f"{count} event{'' if count == 1 else 's'}"
