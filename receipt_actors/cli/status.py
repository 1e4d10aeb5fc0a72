"""``receipt-actors status``: how a running system is, in a few lines and in the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.admin_client import AdminClient, AdminUnreachable, admin_options
from receipt_actors.cli.plain_text import duration, echo, moment, number
from receipt_actors.domain.values import printable

if TYPE_CHECKING:
    from receipt_actors.telemetry.overview import Incident, Overview

EXIT_NOBODY = 3


@click.command(
    epilog="""\b
Exit codes:
  0   healthy and ready: it consumes, stands by for other nodes, or waits for a service that is unavailable
  1   not ready (starting, paused, draining) or not healthy (its tree is not whole)
  2   wrong usage, or a token that is not taken
  3   nobody answers there, or it is no admin port

\b
Examples:
  receipt-actors status
  # a container's health check, which must not end one that is paused
  receipt-actors status --quiet --alive
  # of another machine
  RECEIPT_ACTORS_ADMIN_TOKEN=... receipt-actors status --admin 10.0.0.7:9464 --json
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print health, readiness and the whole overview as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing; needs no token.")
@click.option("--alive", is_flag=True, help="Let the exit code say whether it is healthy, be it ready or not.")
@admin_options
def command(client: AdminClient, as_json: bool, quiet: bool, alive: bool) -> int:
    """Say how a running system is: what it does, what is in flight, what was done, what went wrong last.

    Where other nodes share the work it says what part each of them has, as the node that is asked knows it.
    """
    try:
        is_healthy, health = client.health("/healthz")
        is_ready, readiness = client.health("/readyz")
        overview_json = None if quiet else client.overview_json()
        overview = None if quiet else client.read_overview(overview_json)
    except AdminUnreachable as error:
        if not quiet:
            complain(str(error))
        return EXIT_NOBODY
    if as_json and not quiet:
        verdict = {"healthy": is_healthy, "ready": is_ready, "why": _reasons(health, readiness)}
        click.echo(json.dumps({**verdict, "overview": overview_json}))
    elif overview is not None:
        for line in _lines(overview, is_healthy, is_ready, _reasons(health, readiness)):
            echo(line)
    return EXIT_DONE if is_healthy and (is_ready or alive) else EXIT_WORLD_FAILED


def _reasons(*answers: object) -> list[str]:
    """Gather why it is not well, each once."""
    said = [why for answer in answers if isinstance(answer, dict) for why in answer.get("why") or ()]
    return list(dict.fromkeys(str(why) for why in said))


def _lines(overview: Overview, is_healthy: bool, is_ready: bool, why: list[str]) -> list[str]:
    verdict = f"{'healthy' if is_healthy else 'NOT HEALTHY'}, {'ready' if is_ready else 'not ready'}"
    lines = [f"{overview.state}: {verdict}" + (f" ({printable('; '.join(why))})" if why else "")]
    depths = [f"{name} {'?' if depth is None else number(depth)}" for name, depth in overview.queues.items()]
    lines.append(
        printable(
            f"takes from {', '.join(overview.source_queues)}" + (f"; on queues: {', '.join(depths)}" if depths else "")
        )
    )
    processes = overview.processes
    if processes:
        count = "1 process" if len(processes) == 1 else f"{len(processes)} processes"
        age = "" if overview.up_for_seconds is None else f"up for {duration(overview.up_for_seconds)}, "
        in_flight = sum(process.in_flight for process in processes)
        lines.append(f"{count}, {age}{number(in_flight)} in flight; receipt-actors {printable(overview.version)}")
    counted = overview.statistics
    lines.append(
        f"received {number(counted.received)}, answered {number(counted.count('answered'))}, "
        f"handed back {number(counted.count('handed_back'))}, moved {number(counted.count('moved'))}"
    )
    if overview.role is not None:
        from receipt_actors.cli.roles import role_lines  # a health check needs none of it

        lines += map(printable, role_lines(overview.role))
    unavailable = sorted({service for process in processes for service in process.unavailable})
    if unavailable:
        lines.append(printable(f"unavailable: {', '.join(unavailable)}"))
    return [*lines, *_last_incidents(overview)]


def _last_incidents(overview: Overview) -> Iterator[str]:
    """Say what happened last to the system, and to a message: bad messages must not hide that a process has died."""
    if not overview.incidents:
        return
    from receipt_actors.telemetry.incidents import OF_MESSAGES  # a health check needs none of it

    last: dict[bool, Incident] = {}
    for incident in overview.incidents:  # the newest first
        last.setdefault(incident.kind in OF_MESSAGES, incident)
    for is_of_message, incident in last.items():
        times = f" ({number(incident.count)} times)" if incident.count > 1 else ""
        what = "last incident of a message" if is_of_message else "last incident"
        at = moment(incident.at_seconds, overview.at_seconds)
        yield f"{what} at {at}: {printable(incident.summary)}{times}"
