"""``receipt-actors notifications``: take Apple's server notifications until told to stop."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import click

from receipt_actors.cli import EXIT_DONE
from receipt_actors.cli.options import options_of
from receipt_actors.cli.process import StopSignals, ending_with_threads, warn_of_foreign_roots, write_log
from receipt_actors.domain.addresses import Address
from receipt_actors.notifications import asgi_app, open_handler
from receipt_actors.settings import LogSettings, NotificationSettings, load_some_settings
from receipt_actors.web.serving import Serving, listen

logger = logging.getLogger("receipt_actors")

DEFAULT_PORT = 8430
HEALTH_PATH = "/healthz"
STOP_SECONDS = 20.0  #: for requests under way, after a signal; ECS gives 30 before it kills


class ServeSettings(LogSettings, NotificationSettings, frozen=True):
    """What it takes to serve notifications."""


#: Settings that nothing here depends on. They may stand in a file that other commands share.
_UNUSED = (
    *("app_account_token", "app_account_token_rule", "dead_letter_queue", "family_sharing", "max_receive_count"),
    *("product_ids", "product_types", "source_queue", "unidentified"),
)


@click.command(
    epilog="""\b
Examples:
  # beside a `start` on the same machine
  receipt-actors notifications --database receipts.db --bundle-ids com.example.game
  # on AWS; with the file that `start` has, and behind a load balancer that speaks TLS
  receipt-actors notifications --config receipts.toml --host 0.0.0.0 --port 8430
  # of a simulated App Store, in a test
  receipt-actors notifications --database receipts.db --bundle-ids com.example.game --apple-roots roots

\b
Apple sends to an https URL only, which App Store Connect is given ("App Store Server Notifications",
version 2): let a proxy or a load balancer take TLS off and pass the POSTs on. Any path will do.
GET /healthz is answered with 200 as long as this runs.

\b
Signals:
  SIGTERM, SIGINT   accept no more, finish the requests under way, exit code 0
  a second one      stop at once; what was not answered Apple sends again
"""
)
@click.option("--host", default="127.0.0.1", metavar="HOST", help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, metavar="N", help="0: any free one.")
@options_of(ServeSettings, leave_out=_UNUSED)
def command(flags: Mapping[str, object], config: Path | None, host: str, port: int) -> int:
    """Take Apple's server notifications (version 2), and take refunded purchases back.

    A refund marks the transaction's claim and posts INVALID, reason refunded, to the queue that got the OK. A refund
    before its claim is kept: the claim is answered INVALID.
    """
    settings = load_some_settings(ServeSettings, flags, config=config)
    write_log(settings)
    warn_of_foreign_roots(settings)
    with (
        StopSignals() as signals,
        ending_with_threads(),
        closing(listen("notifications", Address(host, port))) as listener,
        open_handler(settings, pause=signals.pause_start) as handler,
    ):
        url = f"http://{Address(host, listener.getsockname()[1])}/"
        logger.info("Apple's notifications are taken at %s, for %s", url, ", ".join(settings.bundle_ids))
        asyncio.run(_serve(Serving(asgi_app(handler, health_path=HEALTH_PATH), listener), signals))
        totals: Counter[str] = Counter()
        for (_, done), count in handler.counts.items():
            totals[done] += count
        counted = ", ".join(f"{count} {done}" for done, count in totals.most_common())
        logger.info("stopped: %s", counted or "there were no notifications")
    return EXIT_DONE


async def _serve(serving: Serving, signals: StopSignals) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(signals.fileno(), stopped.set)
    await serving.begin()
    await stopped.wait()
    asyncio.get_running_loop().remove_reader(signals.fileno())
    logger.info("%s: finishing the requests under way, for at most %g s", signals.received, STOP_SECONDS)
    await serving.end(STOP_SECONDS)
