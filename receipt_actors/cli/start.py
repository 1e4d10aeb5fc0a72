"""``receipt-actors start``: consume the source queue until told to stop."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pykka

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.cli.open_files import raise_limit
from receipt_actors.cli.options import settings_options
from receipt_actors.cli.stop_signals import StopSignals
from receipt_actors.settings import Settings, load_settings
from receipt_actors.telemetry.log_floods import FloodGuard
from receipt_actors.telemetry.statistics import StatisticsSnapshot

if TYPE_CHECKING:
    from receipt_actors.receipt_system import ReceiptSystem

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
    raise_limit(settings)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[FloodGuard(handler)])
    for library in ("botocore", "boto3", "urllib3"):  # their DEBUG lines hold receipts and credentials
        logging.getLogger(library).setLevel(logging.WARNING)
    from receipt_actors.receipt_system import ReceiptSystem  # after the settings: faults are told without a wait

    with StopSignals() as signals:
        system = ReceiptSystem.start(settings)
        system.on_end(signals.wake)
        logger.info(
            "%d consumers take receipts from %s (%s), at most %d in flight",
            settings.consumers,
            settings.source_queue,
            settings.backend,
            settings.max_in_flight,
        )
        _wait(system, signals, settings)
        if system.end_reason is not None:
            logger.critical("the supervision tree has ended: too many crashes, see above. Messages were handed back")
            system.stop()
            return EXIT_WORLD_FAILED
        logger.info("%s: draining for at most %g s", signals.received or "idle", settings.drain_seconds)
        unfinished = system.drain(settings.drain_seconds)
        try:
            statistics = system.statistics()
        except pykka.ActorDeadError:  # telemetry has given up, which nobody else minds
            statistics = StatisticsSnapshot()
        _log_totals(statistics, unfinished)
        if settings.statistics_file is not None:
            _write(statistics, settings.statistics_file)
    return EXIT_DONE


def _write(statistics: StatisticsSnapshot, file: Path) -> None:
    try:
        file.write_text(json.dumps(statistics.as_json(), indent=2) + "\n")
    except OSError as error:
        logger.error("the statistics could not be written: %s", error)


def _log_totals(statistics: StatisticsSnapshot, unfinished: int) -> None:
    logger.info(
        "stopped: %d deliveries received, %d messages answered, %d moved to the dead-letter queue, %d handed back",
        statistics.received,
        statistics.count("answered"),
        statistics.count("moved"),
        statistics.count("handed_back") + unfinished,
    )


def _wait(system: ReceiptSystem, signals: StopSignals, settings: Settings) -> None:
    """Wait for a signal, for the tree's end, or until nothing has been in flight for as long as the settings say."""
    limit = settings.exit_when_idle_seconds
    pause_seconds = limit
    while not signals.wait(pause_seconds):
        assert limit is not None
        try:
            idle_seconds = system.in_flight().idle_seconds
        except pykka.ActorDeadError:
            idle_seconds = 0.0  # intake is being restarted
        if idle_seconds >= limit:
            return
        pause_seconds = max(SHORTEST_LOOK_SECONDS, limit - idle_seconds)
