"""``receipt-actors start``: consume the source queue until told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
import pykka

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.cli.options import settings_options
from receipt_actors.settings import Settings, load_settings

if TYPE_CHECKING:
    from receipt_actors.application import ReceiptSystem

logger = logging.getLogger("receipt_actors")

SHORTEST_LOOK_SECONDS = 0.05  #: between two looks at whether it is idle


@click.command(
    epilog="""\b
Examples:
  # on AWS, with the credentials that boto3 finds
  AWS_REGION=eu-west-1 receipt-actors start --bundle-ids com.example.game
  # on one machine, from a SQLite file
  receipt-actors start --database receipts.db --bundle-ids com.example.game
  # a batch run: end once nothing has come for 30 seconds
  receipt-actors start --config receipts.toml --exit-when-idle 30

\b
Signals:
  SIGTERM, SIGINT   drain: take nothing in, finish or hand back what is in flight, exit code 0
  a second one      stop at once; what is in flight comes back by its visibility timeout
"""
)
@settings_options
def command(flags: Mapping[str, object], config: Path | None) -> int:
    """Validate the receipts of the source queue until told to stop.

    Settings come from a TOML file, the environment and flags; the later beat the earlier.
    """
    settings = load_settings(flags, config=config)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for library in ("botocore", "boto3", "urllib3"):  # their DEBUG lines hold receipts and credentials
        logging.getLogger(library).setLevel(logging.WARNING)
    from receipt_actors.application import ReceiptSystem  # after the settings: faults are told without a wait

    wake = threading.Event()
    with _signals(wake) as received:
        system = ReceiptSystem.start(settings)
        system.on_end(wake.set)
        logger.info(
            "%d consumers take receipts from %s (%s), at most %d in flight",
            settings.consumers,
            settings.source_queue,
            settings.backend,
            settings.max_in_flight,
        )
        _wait(system, wake, settings)
        if system.end_reason is not None:
            logger.critical("the supervision tree has ended: too many crashes, see above. Messages were handed back")
            system.stop()
            return EXIT_WORLD_FAILED
        logger.info("%s: draining for at most %g s", received[0] if received else "idle", settings.drain_seconds)
        statistics = system.statistics()
        unfinished = system.drain(settings.drain_seconds)
        logger.info(
            "stopped: %d deliveries received, %d messages answered, %d moved to the dead-letter queue, %d handed back",
            statistics.received,
            statistics.count("answered"),
            statistics.count("moved"),
            statistics.count("handed_back") + unfinished,
        )
    return EXIT_DONE


@contextmanager
def _signals(wake: threading.Event) -> Iterator[list[str]]:
    """Collect the names of stop signals; the second one ends the process on the spot."""
    received: list[str] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(signal.Signals(number).name)
        wake.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(system: ReceiptSystem, wake: threading.Event, settings: Settings) -> None:
    """Wait for a signal, for the tree's end, or until nothing has been in flight for as long as the settings say."""
    limit = settings.exit_when_idle_seconds
    pause_seconds = limit
    while not wake.wait(pause_seconds):
        assert limit is not None
        try:
            idle_seconds = system.in_flight().idle_seconds
        except pykka.ActorDeadError:
            idle_seconds = 0.0  # intake is being restarted
        if idle_seconds >= limit:
            return
        pause_seconds = max(SHORTEST_LOOK_SECONDS, limit - idle_seconds)
