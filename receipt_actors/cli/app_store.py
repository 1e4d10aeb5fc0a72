"""``receipt-actors app-store``: the simulated App Store alone, for trying things out on this machine."""

from __future__ import annotations

import ipaddress
import secrets

import click

from receipt_actors.cli import EXIT_DONE
from receipt_actors.cli.number_types import FiniteFloatRange
from receipt_actors.cli.stop_signals import StopSignals
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import make_scenario
from receipt_actors.settings import SETTINGS


def _loopback(_context: click.Context, _parameter: click.Parameter, host: str) -> str:
    """Let nobody else in: it speaks plain HTTP, and the settings take such a URL on this machine only."""
    try:
        is_loopback = ipaddress.IPv4Address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise click.BadParameter(f"{host!r} is not 127.0.0.1 or another IPv4 address of this machine alone.")
    return host


@click.command(
    epilog="""\b
Examples:
  receipt-actors app-store
  # slow, with sample messages for it in a file
  receipt-actors app-store --latency 0.25 --jitter 0.1 --mint 50 > messages.jsonl
  # then, in another terminal, with the two variables set
  receipt-actors submit --database receipts.db --file messages.jsonl
  receipt-actors start --database receipts.db --bundle-ids com.example.game

SIGINT (Ctrl-C) and SIGTERM end it with code 0.
"""
)
@click.option(
    "--host",
    callback=_loopback,
    default="127.0.0.1",
    show_default=True,
    metavar="HOST",
    help="Address to listen on, of this machine alone: receipts travel in the clear.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8421, show_default=True, metavar="N", help="0 takes any free one."
)
@click.option(
    "--latency",
    type=FiniteFloatRange(0, 60),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an answer takes.",
)
@click.option(
    "--jitter",
    type=FiniteFloatRange(0, 60),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How much longer it may take, at random.",
)
@click.option("--shared-secret", metavar="SECRET", help="Answer 21004 to requests without this password.")
@click.option(
    "--mint",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Print sample messages of all kinds, good and bad, as lines; the variables go to stderr then.",
)
@click.option(
    "--bundle-id", default="com.example.game", show_default=True, metavar="ID", help="App of the sample messages."
)
@click.option(
    "--post-queue", default="ResultsSQS", show_default=True, metavar="QUEUE", help="Post queue of the sample messages."
)
@click.option(
    "--seed", type=int, metavar="N", help="The same seed makes the same sample messages. [default: new ones each time]"
)
def command(
    host: str,
    port: int,
    latency: float,
    jitter: float,
    shared_secret: str | None,
    mint: int | None,
    bundle_id: str,
    post_queue: str,
    seed: int | None,
) -> int:
    """Run a simulated App Store: Apple's verifyReceipt for sample receipts, on this machine.

    Prints the two variables that make the other commands ask it instead of Apple.
    """
    with (
        StopSignals() as signals,
        SimulatedAppStore(
            host, port, latency_seconds=latency, jitter_seconds=jitter, shared_secret=shared_secret
        ) as store,
    ):
        for setting, url in (
            (SETTINGS["app_store_production_url"], store.production_url),
            (SETTINGS["app_store_sandbox_url"], store.sandbox_url),
        ):
            click.echo(f"export {setting.variable}={url}", err=mint is not None)
        if mint is not None:
            scenario = make_scenario(mint, secrets.randbits(32) if seed is None else seed, bundle_id, post_queue)
            for message in scenario.messages:
                click.echo(message.body)
        signals.wait(None)
    return EXIT_DONE
