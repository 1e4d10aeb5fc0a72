"""``receipt-actors app-store``: the simulated App Store alone, for trying things out on this machine."""

from __future__ import annotations

import json
import secrets
import shlex
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import requests

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.cli.process import StopSignals
from receipt_actors.cli.terminal import FiniteFloatRange, choice
from receipt_actors.domain.addresses import is_loopback
from receipt_actors.domain.ports import WHOLE_PERCENTAGE, Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.errors import ReceiptActorsError
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Receipts, make_scenario
from receipt_actors.sandbox.receipts import DEFAULT_KEY
from receipt_actors.settings import SETTINGS

if TYPE_CHECKING:
    from receipt_actors.sandbox.notifications import Delivery

TIMEOUT_SECONDS = 30.0
LOOK_SECONDS = 0.05
FORMS = {"signed": "signed_transaction", "app": "app_receipt", "transaction": "transaction_receipt"}
_store_option = click.option("--store", default="http://127.0.0.1:8421", metavar="URL", help="Where the store listens.")
_SECONDS, _HOUR = FiniteFloatRange(0, 60), FiniteFloatRange(0.001, 3600)
_COUNT, _PERCENTAGE = click.IntRange(1, 100_000), click.IntRange(0, WHOLE_PERCENTAGE)
_FOLDER = click.Path(path_type=Path, file_okay=False)


class StoreRefused(ReceiptActorsError):
    """The simulated App Store does not answer, or did not do what it was asked for."""


def _loopback(_context: click.Context, _parameter: click.Parameter, host: str) -> str:
    """Let nobody else in: it speaks plain HTTP, and the settings take such a URL on this machine only."""
    if ":" in host or not is_loopback(host):
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
@click.option("--host", callback=_loopback, default="127.0.0.1", metavar="HOST", help="Loopback address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8421, metavar="N", help="0 takes any free one.")
@click.option("--latency", "latency_seconds", type=_SECONDS, default=0.0, help="How long an answer takes.")
@click.option("--jitter", "jitter_seconds", type=_SECONDS, default=0.0, help="How much longer, at random.")
@click.option("--shared-secret", metavar="SECRET", help="Answer 21004 to requests without this password.")
@click.option("--key", metavar="TEXT", help="Secret from which all that it signs follows. [default: a public one]")
@click.option(
    "--files", type=_FOLDER, metavar="FOLDER", help="Folder for its root and its API key. [default: a temporary one]"
)
@click.option(
    "--api-rate",
    "api_requests_per_second",
    type=_COUNT,
    metavar="N",
    help="Answer 429 above this rate of the Server API (Apple: 50).",
)
@click.option("--notify", "notification_url", metavar="URL", help="Where notifications go (see the command notify).")
@click.option(
    "--notify-hour",
    "notification_hour_seconds",
    type=_HOUR,
    default=1.0,
    help="Length of an hour: retries come after 1, 12, 24, 48, 72.",
)
@click.option("--mint", type=_COUNT, metavar="N", help="Print sample messages; the variables go to stderr then.")
@click.option("--receipts", type=choice(Receipts), default=Receipts.APP.value, help="What is in the sample messages.")
@click.option("--bundle-id", default="com.example.game", metavar="ID", help="App of the sample messages.")
@click.option("--post-queue", default="ResultsSQS", metavar="QUEUE", help="Post queue of the sample messages.")
@click.option("--seed", type=int, metavar="N", help="The same seed makes the same samples. [default: new ones]")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    key: str | None,
    files: Path | None,
    mint: int | None,
    receipts: str,
    bundle_id: str,
    post_queue: str,
    seed: int | None,
    **of_store: Any,
) -> int:
    """Run a simulated App Store on this machine: verifyReceipt, the Server API, notifications.

    It judges sample receipts as Apple would, and signs as Apple does, with a certificate authority of its own. Prints
    the variables that make the other commands ask it, and trust it, instead of Apple.

    The commands are for another terminal: they tell a store that runs to sell and to refund. A test suite tells it the
    same by HTTP (POST /simulated/purchases and /simulated/notifications).
    """
    if ctx.invoked_subcommand is not None:
        return EXIT_DONE
    secret = DEFAULT_KEY if key is None else key.encode()
    with (
        StopSignals() as signals,
        SimulatedAppStore(key=secret, on_delivery=_tell, **of_store) as store,
        tempfile.TemporaryDirectory(prefix="receipt-actors-app-store-") as temporary,
    ):
        folder = files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for line in _variables(store, folder):
            click.echo(line, err=mint is not None)
        if mint is not None:
            seed = secrets.randbits(32) if seed is None else seed
            scenario = make_scenario(mint, seed, bundle_id, post_queue, secret, receipts=Receipts(receipts))
            for receipt in scenario.sold:
                store.record(receipt)
            for message in scenario.messages:
                click.echo(message.body)
        signals.wait(None)
    return EXIT_DONE


def _variables(store: SimulatedAppStore, folder: Path) -> list[str]:
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


# --- orders to a store that runs ---


@command.command(
    epilog="""\b
Examples:
  receipt-actors app-store buy
  receipt-actors app-store buy --form signed --product-id gold_monthly --lasts 2592000 > receipt.txt
"""
)
@_store_option
@click.option("--product-id", default="coins_100", metavar="ID", help="What is bought.")
@click.option("--bundle-id", default="com.example.game", metavar="ID", help="In which app.")
@click.option(
    "--environment", type=choice(Environment), default=Environment.PRODUCTION.value, help="In which of Apple's worlds."
)
@click.option(
    "--type", "product_type", type=choice(ProductType), help="[default: a subscription if it ends, else a consumable]"
)
@click.option("--lasts", type=FiniteFloatRange(1, 10**9), help="When a subscription ends, from now.")
@click.option("--app-account-token", metavar="UUID", help="Whom the app buys it for.")
@click.option("--quantity", type=click.IntRange(1, 1000), metavar="N", help="How many at once. [default: 1]")
@click.option("--family-shared", is_flag=True, help="Bought by somebody else of the family.")
@click.option("--transaction-id", metavar="ID", help="Of this purchase. [default: a new one]")
@click.option("--form", type=click.Choice(list(FORMS)), help="Print this form alone; transaction is that of iOS 6.")
def buy(store: str, lasts: float | None, family_shared: bool, form: str | None, **fields: str | int | None) -> int:
    """Buy something in a simulated App Store that runs.

    Prints its transaction id and all that an app could send for it, as JSON; or one form of it, for submit.
    """
    order: dict[str, object] = {name: value for name, value in fields.items() if value is not None}
    order["is_family_shared"] = family_shared
    if lasts is not None:
        order["expires_at_ms"] = int((time.time() + lasts) * 1000)
    sold = _ask("POST", store, "purchases", order)
    click.echo(json.dumps(sold) if form is None else sold[FORMS[form]])
    return EXIT_DONE


@command.command(
    epilog="""\b
Examples:
  receipt-actors app-store notify REFUND 1764392732000001
  receipt-actors app-store notify REFUND 1764392732000001 --revocation-percentage 33333
  receipt-actors app-store notify TEST --bundle-id com.example.game
  # of a receipt that another store of this key has sold
  receipt-actors app-store notify REFUND 42 --receipt-file receipt.txt --url http://127.0.0.1:8080/notifications

\b
Exit codes:
  0  it was taken, or it was printed because no URL is known
  1  it was not taken yet; the store sends it again
"""
)
@click.argument("notification_type", metavar="TYPE")
@click.argument("transaction_id", required=False, metavar="[TRANSACTION_ID]")
@_store_option
@click.option("--url", metavar="URL", help="Where to send it. [default: the --notify of the store]")
@click.option("--subtype", metavar="SUBTYPE", help="As Apple names it, such as BILLING_RECOVERY.")
@click.option("--bundle-id", metavar="ID", help="App that a TEST is about.")
@click.option(
    "--revocation-percentage",
    type=_PERCENTAGE,
    metavar="N",
    help="Part that a REFUND gives back; 33333 is 33.333 %. [default: all]",
)
@click.option(
    "--receipt-file", type=click.File("r"), metavar="PATH", help="Receipt that the store gets first; - is stdin."
)
def notify(
    notification_type: str, transaction_id: str | None, store: str, receipt_file: Any, **fields: str | int | None
) -> int:
    """Have something happen to a purchase, and the store send Apple's notification of it.

    TYPE is one of Apple's: REFUND and REVOKE take the purchase back, REFUND_REVERSED gives it back; DID_RENEW, EXPIRED,
    ONE_TIME_CHARGE, TEST and others only tell. Where no URL is known, the body that would be posted is printed.
    """
    if receipt_file is not None:
        _ask("POST", store, "receipts", {"receipt": receipt_file.read().strip()})
    order = {"notification_type": notification_type, "transaction_id": transaction_id, **fields}
    told = _ask("POST", store, "notifications", {name: value for name, value in order.items() if value is not None})
    if not told["is_sent"]:
        click.echo(json.dumps({"signedPayload": told["signed_payload"]}))
        return EXIT_DONE
    uuid = told["notification_uuid"]
    while True:  # for the first attempt, which a backend that answers nothing makes last half a minute
        for delivery in _ask("GET", store, "deliveries", None):
            if delivery["notification_uuid"] == uuid:
                click.echo(f"{notification_type} {uuid}: {delivery['outcome']}")
                return EXIT_DONE if delivery["accepted"] else EXIT_WORLD_FAILED
        time.sleep(LOOK_SECONDS)


def _ask(method: str, store: str, path: str, order: Mapping[str, object] | None) -> Any:
    url = f"{store.rstrip('/')}/simulated/{path}"
    try:
        answer = requests.request(method, url, json=order, timeout=TIMEOUT_SECONDS)
        content = answer.json()
    except requests.RequestException:
        raise StoreRefused(f"no simulated App Store at {store}: start one with `receipt-actors app-store`") from None
    if not answer.ok:
        raise StoreRefused(f"the simulated App Store at {store}: {content.get('error', answer.status_code)}")
    return content
