"""``receipt-actors resume``: have a paused system go on."""

from __future__ import annotations

import click

from receipt_actors.cli import EXIT_DONE
from receipt_actors.cli.admin_client import AdminClient, admin_options


@click.command(
    epilog="""\b
Examples:
  receipt-actors resume
"""
)
@admin_options
def command(client: AdminClient) -> int:
    """Have a system that was paused take receipts in again. One that is not paused goes on as it does."""
    client.resume()
    click.echo("resumed")
    return EXIT_DONE
