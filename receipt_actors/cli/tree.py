"""``receipt-actors tree``: the supervision tree of a running system."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator

import click

from receipt_actors.cli import EXIT_DONE
from receipt_actors.cli.admin_client import AdminClient, admin_options
from receipt_actors.cli.plain_text import can_print, echo, number
from receipt_actors.domain.values import printable
from receipt_actors.telemetry.overview import ActorOverview, Overview

_LINES = ("├─ ", "└─ ", "│  ")
_PLAIN_LINES = ("+- ", "`- ", "|  ")
_HEADINGS = ("ACTOR", "STATE", "MAILBOX", "MESSAGES", "RESTARTS")


@click.command(
    epilog="""\b
Examples:
  receipt-actors tree
  # every actor that was restarted
  receipt-actors tree --json | jq '.. | objects | select(.restarts? > 0) | .name'
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print the trees as JSON: an object with one for each process.")
@admin_options
def command(client: AdminClient, as_json: bool) -> int:
    """Print the supervision tree: each actor's state, mailbox, messages handled and restarts.

    Where there are several processes, the parent's tree comes first.
    """
    trees = list(_trees(client.overview()))
    if as_json:
        click.echo(json.dumps({name: None if tree is None else dataclasses.asdict(tree) for name, tree in trees}))
        return EXIT_DONE
    rows: list[tuple[str, ...]] = [_HEADINGS]
    lines = _LINES if can_print("".join(_LINES)) else _PLAIN_LINES
    for name, tree in trees:
        if len(trees) > 1:
            rows.append((printable(name), "" if tree is not None else "no tree", "", "", ""))
        if tree is not None:
            rows += _rows(tree, lines)
        elif len(trees) == 1:
            rows.append(("its tree has ended", "", "", "", ""))
    for row in _aligned(rows):
        echo(row)
    return EXIT_DONE


def _trees(overview: Overview) -> Iterator[tuple[str, ActorOverview | None]]:
    if overview.parent is not None:
        yield "parent", overview.parent
    for process in overview.processes:
        yield process.name, process.tree


def _rows(
    actor: ActorOverview, lines: tuple[str, str, str], first: str = "", others: str = ""
) -> Iterator[tuple[str, ...]]:
    name = printable(actor.name)
    label = name if actor.strategy is None else f"{name} ({printable(actor.strategy)})"
    numbers = (number(actor.mailbox_length), number(actor.messages), number(actor.restarts))
    yield (first + label, printable(actor.status), *numbers)
    branch, last_branch, trunk = lines
    for child in actor.children:
        is_last = child is actor.children[-1] and not actor.children_unlisted
        ahead, below = (last_branch, "   ") if is_last else (branch, trunk)
        yield from _rows(child, lines, others + ahead, others + below)
    if actor.children_unlisted:
        yield (f"{others}{last_branch}and {number(actor.children_unlisted)} more", "", "", "", "")


def _aligned(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Set names and states to the left, and numbers to the right."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
