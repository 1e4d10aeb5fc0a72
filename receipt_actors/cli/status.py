"""``receipt-actors status``: views of a running system, from a few lines and an exit code to a live picture."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.admin_client import AdminClient, AdminUnreachable, admin_options
from receipt_actors.cli.terminal import FiniteFloatRange, duration, echo, moment, number
from receipt_actors.domain.values import printable

if TYPE_CHECKING:  # a health check needs none of it
    from receipt_actors.telemetry.overview import ActorOverview, Incident, NodeOverview, Overview, RoleOverview

EXIT_NOBODY = 3
QUIET_SECONDS = 1.0  #: a node that has not been heard of for longer is named as such: each renews again and again
SHORTEST_INTERVAL_SECONDS = 0.2
SUGGESTIONS = 3  #: of names of actors
_UNITS = {"ledger_concurrency": "requests to the ledger", "app_store_rate_per_second": "requests to Apple a second"}


@click.command(
    epilog="""\b
Exit codes:
  0   healthy and ready: it consumes, stands by for other nodes, or waits for a service that is unavailable;
      with --tree, --actor and --live: it was shown
  1   not ready (starting, paused, draining) or not healthy (its tree is not whole)
  2   wrong usage, or a token that is not taken
  3   nothing answers there, or it is no admin port

\b
Keys of --live:
  q   quit
  p   pause; resume where it is paused

\b
Examples:
  receipt-actors status
  # a container's health check, which must not end one that is paused
  receipt-actors status --quiet --alive
  # of another machine
  RECEIPT_ACTORS_ADMIN_TOKEN=... receipt-actors status --admin 10.0.0.7:9464 --json
  # every actor that was restarted
  receipt-actors status --tree --json | jq '.. | objects | select(.restarts? > 0) | .name'
  # one actor
  receipt-actors status --actor "result_batcher ResultsSQS"
  # rates and latencies, live; or one picture of them, into a file or a pipe
  receipt-actors status --live
  receipt-actors status --live > now.txt
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print health, readiness and the whole overview as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing; needs no token.")
@click.option("--alive", is_flag=True, help="Exit 0 if the process is healthy, even when it is not ready.")
@click.option(
    "--tree", is_flag=True, help="Print the supervision tree: each actor's state, mailbox, messages and restarts."
)
@click.option(
    "--actor", metavar="NAME", help="Print the state of one actor of the tree as JSON, without receipts and secrets."
)
@click.option("--live", is_flag=True, help="Show rates, latencies, services, processes and the busiest actors, live.")
@click.option(
    "--interval",
    "interval_seconds",
    type=FiniteFloatRange(SHORTEST_INTERVAL_SECONDS, 3600),
    metavar="SECONDS",
    help="With --live: time between two looks. [default: 1; 3 without a terminal, where it prints one snapshot]",
)
@admin_options
def command(
    client: AdminClient,
    as_json: bool,
    quiet: bool,
    alive: bool,
    tree: bool,
    actor: str | None,
    live: bool,
    interval_seconds: float | None,
) -> int:
    """Say how a running system is: what it does, what is in flight, what was done, what went wrong last.

    Where other nodes share the work it says what part each of them has, as the node that is asked knows it.
    """
    if sum((tree, actor is not None, live, quiet or alive)) > 1:
        raise click.UsageError("--tree, --actor, --live, and --quiet or --alive exclude each other")
    if not live and interval_seconds is not None:
        raise click.UsageError("--interval belongs to --live")
    if live:
        from receipt_actors.cli._live import show  # and rich

        show(client, interval_seconds)
        return EXIT_DONE
    if tree:
        return _print_tree(client.overview(), as_json)
    if actor is not None:
        return _print_actor(client, actor)
    return _print_status(client, as_json, quiet, alive)


def _print_status(client: AdminClient, as_json: bool, quiet: bool, alive: bool) -> int:
    try:
        is_healthy, health = client.health("/healthz")
        is_ready, readiness = client.health("/readyz")
        overview = None if quiet else client.overview()
    except AdminUnreachable as error:
        if not quiet:
            complain(str(error))
        return EXIT_NOBODY
    why = list(dict.fromkeys(str(why) for answer in (health, readiness) for why in answer.get("why") or ()))
    if overview is not None and as_json:
        verdict = {"healthy": is_healthy, "ready": is_ready, "why": why}
        click.echo(json.dumps({**verdict, "overview": overview.as_json()}))
    elif overview is not None:
        words = f"{'healthy' if is_healthy else 'NOT HEALTHY'}, {'ready' if is_ready else 'not ready'}"
        first, *others = lines_of(overview)
        echo(f"{first}: {words}" + (f" ({printable('; '.join(why))})" if why else ""))
        for line in others:
            echo(line)
    return EXIT_DONE if is_healthy and (is_ready or alive) else EXIT_WORLD_FAILED


def lines_of(overview: Overview) -> list[str]:
    """Say in a few lines what the system does, and what went wrong last; the first is its state alone."""
    depths = [f"{name} {'?' if depth is None else number(depth)}" for name, depth in overview.queues.items()]
    on_queues = f"; on queues: {', '.join(depths)}" if depths else ""
    lines = [printable(overview.state), printable(f"takes from {', '.join(overview.source_queues)}{on_queues}")]
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
        lines += map(printable, _role_lines(overview.role))
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


# --- nodes that share the work ---


def _role_lines(role: RoleOverview) -> Iterator[str]:
    """Say what part this node has in its group, and what the others have: a line for each node."""
    from receipt_actors.telemetry.overview import NodeState

    words = [_state_of(role.state, role.own)]
    if role.held_for_seconds is not None:
        words.append(f"its lease held for {role.held_for_seconds:.1f} s")
    elif role.state is NodeState.CUT_OFF:
        words.append("its lease is over")
    yield f"{role.role} in group {role.group}: {', '.join(words)}"
    for node in role.nodes:
        parts = ["this node" if node is role.own else _state_of(node.state, node)]
        shares = []
        for limit, unit in _UNITS.items():
            part, whole = (node.share or {}).get(limit), (role.whole or {}).get(limit)
            if part is not None and whole is not None:
                shares.append(f"{_figure(part)} of {_figure(whole)} {unit}")
        parts += [", ".join(shares)] if shares else []
        if node.seconds_since_heard >= QUIET_SECONDS:
            parts.append(f"not heard of for {duration(node.seconds_since_heard)}")
        yield f"  {node.name}: {'; '.join(parts)}"


def _figure(value: float) -> str:
    return number(value) if value >= 10 or value == int(value) else f"{value:.2g}"


def _state_of(state: str, node: NodeOverview | None) -> str:
    return state if node is None or node.token is None else f"{state}, token {node.token}"


# --- one actor, and all of them ---


def _print_actor(client: AdminClient, name: str) -> int:
    state = client.actor_state(name)
    if state is None:
        complain(f"no actor is called {printable(name)!r}; {_advice(name, client.overview())}")
        return EXIT_WORLD_FAILED
    click.echo(json.dumps(state, indent=2))
    return EXIT_DONE


def _advice(name: str, overview: Overview) -> str:
    trees = [tree for tree in overview.trees.values() if tree is not None]
    names = list(dict.fromkeys(actor.name for tree in trees for actor in tree.with_descendants()))
    near = difflib.get_close_matches(name, names, SUGGESTIONS, 0.5)
    near += [known for known in names if name and name in known and known not in near][: SUGGESTIONS - len(near)]
    if not near:
        return "receipt-actors status --tree shows all there are"
    return f"did you mean {' or '.join(repr(printable(known)) for known in near)}?"


def _print_tree(overview: Overview, as_json: bool) -> int:
    trees = overview.trees
    if as_json:
        click.echo(json.dumps({name: None if tree is None else asdict(tree) for name, tree in trees.items()}))
        return EXIT_DONE
    rows = [("ACTOR", "STATE", "MAILBOX", "MESSAGES", "RESTARTS")]
    for name, tree in trees.items():
        if len(trees) > 1:
            rows.append((printable(name), "" if tree is not None else "no tree", "", "", ""))
        elif tree is None:
            rows.append(("its tree has ended", "", "", "", ""))
        if tree is not None:
            rows += _rows(tree)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left, right = zip(row[:2], widths[:2], strict=True), zip(row[2:], widths[2:], strict=True)
        cells = [*(cell.ljust(width) for cell, width in left), *(cell.rjust(width) for cell, width in right)]
        echo("  ".join(cells).rstrip())
    return EXIT_DONE


def _rows(actor: ActorOverview, indent: str = "") -> Iterator[tuple[str, str, str, str, str]]:
    strategy = "" if actor.strategy is None else f" ({printable(actor.strategy)})"
    numbers = (number(actor.mailbox_length), number(actor.messages), number(actor.restarts))
    yield (f"{indent}{printable(actor.name)}{strategy}", printable(actor.status), *numbers)
    for child in actor.children:
        yield from _rows(child, f"{indent}  ")
    if actor.children_unlisted:
        yield (f"{indent}  and {number(actor.children_unlisted)} more", "", "", "", "")
