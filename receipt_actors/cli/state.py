"""``receipt-actors state``: what an actor of a running system knows."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator

import click

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.admin_client import AdminClient, admin_options
from receipt_actors.domain.values import printable
from receipt_actors.telemetry.control import UnknownActor
from receipt_actors.telemetry.overview import ActorOverview, Overview

SUGGESTIONS = 3


@click.command(
    epilog="""\b
Examples:
  receipt-actors state intake
  receipt-actors state "result_batcher ResultsSQS"
"""
)
@click.argument("name")
@admin_options
def command(client: AdminClient, name: str) -> int:
    """Print an actor's state as JSON, by process where there are several; without receipts and secrets.

    NAME is one that ``receipt-actors tree`` shows.
    """
    try:
        state = client.actor_state(name)
    except UnknownActor:
        complain(f"no actor is called {printable(name)!r}; {_advice(name, client.overview())}")
        return EXIT_WORLD_FAILED
    click.echo(json.dumps(state, indent=2))
    return EXIT_DONE


def _advice(name: str, overview: Overview) -> str:
    trees = [overview.parent, *(process.tree for process in overview.processes)]
    names = list(dict.fromkeys(known for tree in trees if tree is not None for known in _names(tree)))
    near = difflib.get_close_matches(name, names, SUGGESTIONS, 0.5)
    near += [known for known in names if name and name in known and known not in near][: SUGGESTIONS - len(near)]
    if not near:
        return "receipt-actors tree shows all there are"
    return f"did you mean {' or '.join(repr(printable(known)) for known in near)}?"


def _names(actor: ActorOverview) -> Iterator[str]:
    yield actor.name
    for child in actor.children:
        yield from _names(child)
