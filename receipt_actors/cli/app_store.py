"""``receipt-actors app-store``: the simulated App Store alone, for trying things out on this machine."""

from __future__ import annotations

import ipaddress
import secrets
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receipt_actors.cli import EXIT_DONE
from receipt_actors.cli._store_orders import buy, notify
from receipt_actors.cli.process import StopSignals
from receipt_actors.cli.terminal import FiniteFloatRange
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Receipts, make_scenario
from receipt_actors.sandbox.receipts import DEFAULT_KEY
from receipt_actors.settings import SETTINGS

if TYPE_CHECKING:
    from receipt_actors.sandbox.notifications import Delivery


def _loopback(_context: click.Context, _parameter: click.Parameter, host: str) -> str:
    """Let nobody else in: it speaks plain HTTP, and the settings take such a URL on this machine only."""
    try:
        is_loopback = ipaddress.IPv4Address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise click.BadParameter(f"{host!r} is not 127.0.0.1 or another IPv4 address of this machine alone.")
    return host


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND ...]",
    epilog="""\b
Examples:
  receipt-actors app-store
  # slow, with sample messages for it in a file
  receipt-actors app-store --latency 0.25 --jitter 0.1 --mint 50 --receipts mixed > messages.jsonl
  # then, in another terminal, with the variables set; some samples are bad on purpose
  receipt-actors submit --database receipts.db --file messages.jsonl --keep-going
  receipt-actors start --database receipts.db --bundle-ids com.example.game
  # for staging: files that stay, and notifications to the backend
  receipt-actors app-store --files apple --notify http://127.0.0.1:8080/notifications
  receipt-actors app-store buy --form signed | receipt-actors submit --receipt-file - --user-id 42
  receipt-actors app-store notify REFUND 1764392732000001

SIGINT (Ctrl-C) and SIGTERM end it with code 0.
""",
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
    "--key",
    metavar="TEXT",
    help="What all that it sells and signs follows from: whoever knows it can mint. [default: what everybody knows]",
)
@click.option(
    "--files",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where to write its root certificate and the key for its Server API. [default: a folder that goes with it]",
)
@click.option(
    "--api-rate",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Answer 429 to more requests a second of the Server API (Apple: to more than 50).",
)
@click.option("--notify", "notify_url", metavar="URL", help="Where notifications go (see the command notify).")
@click.option(
    "--notify-hour",
    type=FiniteFloatRange(0.001, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an hour lasts: what nobody takes comes again after 1, 12, 24, 48 and 72 of them.",
)
@click.option(
    "--mint",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Print sample messages of all kinds, good and bad, as lines; the variables go to stderr then.",
)
@click.option(
    "--receipts",
    type=click.Choice([each.value for each in Receipts]),
    default=Receipts.APP.value,
    show_default=True,
    help="What is in the sample messages: app receipts, signed transactions, or both.",
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
@click.pass_context
def command(
    ctx: click.Context,
    host: str,
    port: int,
    latency: float,
    jitter: float,
    shared_secret: str | None,
    key: str | None,
    files: Path | None,
    api_rate: int | None,
    notify_url: str | None,
    notify_hour: float,
    mint: int | None,
    receipts: str,
    bundle_id: str,
    post_queue: str,
    seed: int | None,
) -> int:
    """Run a simulated App Store on this machine: verifyReceipt, the Server API, notifications.

    It judges sample receipts as Apple would, and signs as Apple does, with a certificate authority of its own. Prints
    the variables that make the other commands ask it, and trust it, instead of Apple.

    The commands are for another terminal: they tell a store that runs to sell and to refund. A test suite tells it the
    same by HTTP (POST /simulated/purchases and /simulated/notifications).
    """
    if ctx.invoked_subcommand is not None:
        return EXIT_DONE
    is_minting = mint is not None
    secret = DEFAULT_KEY if key is None else key.encode()
    with (
        StopSignals() as signals,
        SimulatedAppStore(
            host,
            port,
            latency_seconds=latency,
            jitter_seconds=jitter,
            shared_secret=shared_secret,
            key=secret,
            api_requests_per_second=api_rate,
            notification_url=notify_url,
            notification_hour_seconds=notify_hour,
            on_delivery=_tell,
        ) as store,
        _folder(files) as folder,
    ):
        for line in _variables(store, folder):
            click.echo(line, err=is_minting)
        if mint is not None:
            seed = secrets.randbits(32) if seed is None else seed
            scenario = make_scenario(mint, seed, bundle_id, post_queue, secret, receipts=Receipts(receipts))
            for receipt in scenario.sold:
                store.record(receipt)
            for message in scenario.messages:
                click.echo(message.body)
        signals.wait(None)
    return EXIT_DONE


command.add_command(buy)
command.add_command(notify)


@contextmanager
def _folder(files: Path | None) -> Iterator[Path]:
    if files is not None:
        files.mkdir(parents=True, exist_ok=True)
        yield files
        return
    with tempfile.TemporaryDirectory(prefix="receipt-actors-app-store-") as folder:
        yield Path(folder)


def _variables(store: SimulatedAppStore, folder: Path) -> Sequence[str]:
    """Write what leads the other commands to a store, for a shell."""
    files = store.write_files(folder.absolute())
    return [
        _export("app_store_url", store.url),
        _export("apple_roots", files.roots),
        _export("server_api_key", files.key),
        _export("server_api_key_id", files.key_id),
        _export("server_api_issuer_id", files.issuer_id),
        f"# the Server API instead of verifyReceipt: {_export('app_receipts', 'server-api')}",
    ]


def _export(setting: str, value: object) -> str:
    return f"export {SETTINGS[setting].variable}={shlex.quote(str(value))}"


def _tell(delivery: Delivery) -> None:
    again = "" if delivery.next_in_seconds is None else f", again in {delivery.next_in_seconds:g} s"
    click.echo(f"{delivery.type} {delivery.notification_uuid}: {delivery.outcome}{again}", err=True)
