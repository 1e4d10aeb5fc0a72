"""``receipt-actors pause`` and ``resume``: have a running system take nothing more in, and go on."""

from __future__ import annotations

import click

from receipt_actors.cli import EXIT_DONE
from receipt_actors.cli.admin_client import AdminClient, admin_options


@click.command(
    epilog="""\b
Examples:
  receipt-actors pause
  receipt-actors status
  receipt-actors resume
"""
)
@admin_options
def command(client: AdminClient) -> int:
    """Have a running system take nothing more in; what is in flight is finished.

    It stays paused until it is resumed, or started anew. One that is paused already stays so.

    Where other nodes share the work, it is this node that is paused, and it stays active and keeps its share: no other
    takes over. To have another one take over, stop this one: it leaves the group when it has drained. One that stands
    by can be paused, too; then it takes nothing in when it takes over.
    """
    client.pause()
    click.echo("paused: what is in flight is finished, and nothing more is taken in")
    return EXIT_DONE


@click.command(
    epilog="""\b
Examples:
  receipt-actors resume
"""
)
@admin_options
def resume(client: AdminClient) -> int:
    """Have a system that was paused take receipts in again. One that is not paused goes on as it does."""
    client.resume()
    click.echo("resumed")
    return EXIT_DONE
