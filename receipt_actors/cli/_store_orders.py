"""``receipt-actors app-store buy`` and ``notify``: what a simulated App Store that runs is told, over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import click
import requests

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.terminal import FiniteFloatRange
from receipt_actors.domain.ports import WHOLE_PERCENTAGE, Environment
from receipt_actors.domain.receipts import ProductType

TIMEOUT_SECONDS = 30.0
LOOK_SECONDS = 0.05
FORMS = {"signed": "signed_transaction", "app": "app_receipt", "transaction": "transaction_receipt"}

_store_option = click.option(
    "--store", default="http://127.0.0.1:8421", show_default=True, metavar="URL", help="Where the store listens."
)


class _Refused(click.ClickException):
    """The store did not do it; ends the command with code 1."""

    exit_code = EXIT_WORLD_FAILED

    def show(self, file: Any = None) -> None:
        complain(self.message)


@click.command(
    epilog="""\b
Examples:
  receipt-actors app-store buy
  receipt-actors app-store buy --form signed --product-id gold_monthly --lasts 2592000 > receipt.txt
"""
)
@_store_option
@click.option("--product-id", default="coins_100", show_default=True, metavar="ID", help="What is bought.")
@click.option("--bundle-id", default="com.example.game", show_default=True, metavar="ID", help="In which app.")
@click.option(
    "--environment",
    type=click.Choice([each.value for each in Environment]),
    default=Environment.PRODUCTION.value,
    show_default=True,
    help="In which of Apple's worlds.",
)
@click.option(
    "--type",
    "product_type",
    type=click.Choice([each.value for each in ProductType]),
    help="Of the product. [default: a subscription if it ends, else a consumable]",
)
@click.option("--lasts", type=FiniteFloatRange(1, 10**9), metavar="SECONDS", help="When a subscription ends, from now.")
@click.option("--app-account-token", metavar="UUID", help="Whom the app buys it for.")
@click.option("--quantity", type=click.IntRange(1, 1000), metavar="N", help="How many at once. [default: 1]")
@click.option("--family-shared", is_flag=True, help="Bought by somebody else of the family.")
@click.option("--transaction-id", metavar="ID", help="Of this purchase. [default: a new one]")
@click.option(
    "--form",
    type=click.Choice(list(FORMS)),
    help="Print this form of it alone: a signed transaction, an app receipt, or a transaction receipt of iOS 6.",
)
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


@click.command(
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
    type=click.IntRange(0, WHOLE_PERCENTAGE),
    metavar="N",
    help="How much of the purchase a REFUND gives back by now, as Apple writes it: 33333 is 33.333 %. [default: all]",
)
@click.option(
    "--receipt-file",
    type=click.File("r"),
    metavar="PATH",
    help="Receipt or signed transaction to tell the store of before; - reads standard input.",
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
    delivery = _first_delivery(store, told["notification_uuid"])
    click.echo(f"{notification_type} {told['notification_uuid']}: {delivery['outcome']}")
    return EXIT_DONE if delivery["accepted"] else EXIT_WORLD_FAILED


def _first_delivery(store: str, notification_uuid: str) -> Mapping[str, Any]:
    """Wait for the first attempt, which a backend that answers nothing makes last half a minute."""
    while True:
        for delivery in _ask("GET", store, "deliveries", None):
            if delivery["notification_uuid"] == notification_uuid:
                first: Mapping[str, Any] = delivery
                return first
        time.sleep(LOOK_SECONDS)


def _ask(method: str, store: str, path: str, order: Mapping[str, object] | None) -> Any:
    url = f"{store.rstrip('/')}/simulated/{path}"
    try:
        answer = requests.request(method, url, json=order, timeout=TIMEOUT_SECONDS)
        content = answer.json()
    except requests.RequestException:
        raise _Refused(f"no simulated App Store at {store}: start one with `receipt-actors app-store`") from None
    if not answer.ok:
        raise _Refused(f"the simulated App Store at {store}: {content.get('error', answer.status_code)}")
    return content
