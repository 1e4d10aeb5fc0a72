"""``receipt-actors start``: consume the source queue until told to stop."""

from __future__ import annotations

import json
import logging
import os
import resource
from collections.abc import Callable, Mapping, Set
from contextlib import ExitStack, suppress
from math import inf
from pathlib import Path
from resource import RLIMIT_NOFILE
from typing import TYPE_CHECKING

import click
import pykka

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.cli.options import settings_options
from receipt_actors.cli.process import (
    StopSignals,
    collect_seldom,
    ending_with_threads,
    log_end,
    warn_of_foreign_roots,
    watched,
    write_log,
)
from receipt_actors.domain.limits import BATCH_REQUESTS, divide
from receipt_actors.domain.ports import Environment
from receipt_actors.errors import ConfigurationError
from receipt_actors.scale.processes.cores import usable_cores
from receipt_actors.settings import Settings, load_settings
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from receipt_actors.telemetry.systemd import SystemdNotifier
from receipt_actors.web.limits import MAX_CONNECTIONS

if TYPE_CHECKING:
    from receipt_actors.pipeline.protocol import InFlightStatus
    from receipt_actors.receipt_system import ReceiptSystem
    from receipt_actors.scale.processes.group import ProcessGroup

logger = logging.getLogger("receipt_actors")

WORKER_PROGRAM = ("-m", "receipt_actors.cli.worker")
SHORTEST_LOOK_SECONDS = 0.05  #: between two looks at whether it is idle
SPARE_FILES = 64  #: standard streams, the database, libraries, and what else a process opens
LONGEST_LOOK_SECONDS = 0.5  #: likewise, while it is not known since when it has been idle


@click.command(
    epilog="""\b
Examples:
  # on AWS, with the credentials that boto3 finds
  AWS_REGION=eu-west-1 receipt-actors start --bundle-ids com.example.game
  # on one machine, from a SQLite file
  receipt-actors start --database receipts.db --bundle-ids com.example.game
  # a batch run: end once nothing could be received for 30 seconds; hidden messages stay
  receipt-actors start --config receipts.toml --exit-when-idle 30
  # one process a core
  receipt-actors start --config receipts.toml --processes auto
  # with a page that shows it at work, and metrics
  receipt-actors start --config receipts.toml --admin 127.0.0.1:9464

\b
Signals:
  SIGTERM, SIGINT   drain: take nothing in, finish or hand back what is in flight, exit code 0
  a second one      stop at once; what is in flight comes back by its visibility timeout. The same
                    signal within 0.2 s counts once: some programs send it twice

\b
Exit codes:
  0  told to end: by a signal, or by --exit-when-idle
  1  can't start or can't go on: the last lines of the log say why. Trouble that passes is
     waited for, 30 seconds at a start
  2  wrong settings, all of them listed
"""
)
@settings_options
def command(flags: Mapping[str, object], config: Path | None) -> int:
    """Validate the receipts of the source queue until told to stop.

    Settings come from a TOML file, the environment and flags; the later beat the earlier.
    """
    settings = load_settings(flags, config=config)
    _check_statistics_file(settings)
    raise_limit_of_open_files(settings)
    write_log(settings)
    warn_of_foreign_roots(settings)
    with (
        StopSignals() as signals,
        ending_with_threads(),
        watched(settings) as watch,
        SystemdNotifier() as systemd,
        ExitStack() as begun,
    ):
        system, check = _start(settings, signals)
        begun.callback(system.stop)  # whatever goes wrong: nothing is left of it
        watch(system)
        systemd.watch(system)
        system.on_end(signals.wake)
        wait_for_the_end(system.in_flight, signals.wait, settings)
        check()
        if system.end_reason is not None:
            log_end(system.end_reason)
            return EXIT_WORLD_FAILED
        systemd.stopping()
        logger.info("%s: draining for at most %g s", signals.received or "idle", settings.drain_seconds)
        unfinished = system.drain(settings.drain_seconds)
        begun.pop_all()
        try:
            statistics = system.statistics()
        except pykka.ActorDeadError:  # telemetry has given up; the rest goes on without it
            statistics = StatisticsSnapshot()
        _log_totals(statistics, unfinished)
        is_written = settings.statistics_file is None or _write(statistics, settings.statistics_file)
    return EXIT_DONE if is_written else EXIT_WORLD_FAILED


def _tell_of_the_sandbox(settings: Settings) -> None:
    """Log what becomes of purchases in Apple's Sandbox, which are free; nothing if only the Sandbox is served."""
    sources = [each for each in settings.every_source if Environment.PRODUCTION in each.environments]
    counting = [each.source_queue for each in sources if Environment.SANDBOX in each.environments]
    refusing = [each.source_queue for each in sources if Environment.SANDBOX not in each.environments]
    if refusing:
        logger.info(
            "environments: purchases in Apple's Sandbox are refused on %s. App Review and TestFlight buy there; "
            "Production,Sandbox lets them count",
            ", ".join(refusing),
        )
    if counting:
        logger.info(
            "environments: purchases in Apple's Sandbox count on %s. Nobody pays there: an answer's attribute "
            "environment tells them apart",
            ", ".join(counting),
        )


def files_needed(settings: Settings) -> int:
    """Count the files that may be open at once: nearly all of them are connections that are kept alive."""
    environments = 1 if settings.uses_curl else 2  # production and sandbox: pools of their own with requests
    app_store = environments * settings.effective_app_store_concurrency
    batchers = settings.batchers * BATCH_REQUESTS
    admin = 0 if settings.admin is None else MAX_CONNECTIONS
    return SPARE_FILES + admin + app_store + settings.ledger_concurrency + 2 * max(batchers, settings.all_consumers)


def raise_limit_of_open_files(settings: Settings) -> None:
    """Raise the soft limit of open files to what the settings need; ``ConfigurationError`` if the hard one is lower."""
    needed = files_needed(settings)
    soft, hard = (inf if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(RLIMIT_NOFILE))
    if hard < needed:
        raise ConfigurationError(
            [
                f"open files: these settings need {needed}, the hard limit is {hard}; raise it (ulimit -Hn {needed}), "
                "or lower app_store_concurrency, ledger_concurrency or consumers"
            ]
        )
    if soft < needed:
        resource.setrlimit(RLIMIT_NOFILE, (needed, resource.getrlimit(RLIMIT_NOFILE)[1]))


def process_count(settings: Settings) -> int:
    chosen = settings.processes
    return chosen if isinstance(chosen, int) else min(usable_cores(), settings.limits_of(1).smallest_count)


def _start(
    settings: Settings, signals: StopSignals
) -> tuple[ReceiptSystem, Callable[[], None]] | tuple[ProcessGroup, Callable[[], None]]:
    """Start the system in this process, or the processes that run one each; and return what raises why it ended.

    What each takes is imported here: faults of the settings are told without a wait, and no start loads both.
    """
    count = process_count(settings)
    what = (", ".join(settings.source_queues), settings.backend, settings.max_in_flight)
    if count == 1:
        from receipt_actors.receipt_system import ReceiptSystem

        system = ReceiptSystem.start(settings, pause=signals.pause_start)
        _tell_of_the_sandbox(settings)
        collect_seldom()
        # A node that shares the work has no place in its group yet; its news say when it has.
        take = "take" if settings.is_alone else "are ready; while this node is active, they take"
        logger.info("%d consumers %s receipts from %s (%s), at most %d in flight", settings.consumers, take, *what)
        return system, lambda: None  # a start that fails has raised by now

    from receipt_actors.scale.processes.group import ProcessGroup
    from receipt_actors.scale.processes.shared import described

    def tell() -> None:
        share = described(divide(settings.limits_of(count), count)[-1])
        logger.info(
            "%d processes of %d consumers take receipts from %s (%s), at most %d in flight; each may have %s",
            *(count, settings.consumers, *what, share),
        )
        _tell_of_the_sandbox(settings)

    group = ProcessGroup.start(
        settings, count, WORKER_PROGRAM, on_refusal=signals.wake, on_complete=tell, pause=signals.pause_start
    )
    signals.before_end = group.kill
    return group, group.check


def _check_statistics_file(settings: Settings) -> None:
    """Find out now that the file can't be written, and not when there is something to lose."""
    file = settings.statistics_file
    if file is None or (not file.is_dir() and os.access(file if file.exists() else file.parent, os.W_OK)):
        return
    origin = settings.origins.get("statistics_file", "statistics_file")
    expected = "a file that may be written, in a folder that exists"
    raise ConfigurationError([f"{origin}: found {str(file)!r}, expected {expected}"])


def _write(statistics: StatisticsSnapshot, file: Path) -> bool:
    try:
        file.write_text(json.dumps(statistics.as_json(), indent=2) + "\n")
    except OSError as error:
        logger.error("the statistics could not be written: %s", error)
        return False
    return True


def _log_totals(statistics: StatisticsSnapshot, unfinished: int) -> None:
    logger.info(
        "stopped: %d deliveries received, %d messages answered, %d moved to the dead-letter queue, %d handed back",
        statistics.received,
        statistics.count("answered"),
        statistics.count("moved"),
        statistics.count("handed_back") + unfinished,
    )


def wait_for_the_end(
    in_flight: Callable[[], InFlightStatus], wait: Callable[[float | None], bool], settings: Settings
) -> None:
    """Wait for a signal, for the tree's end, or until there has been nothing to do for as long as the settings say."""
    limit = settings.exit_when_idle_seconds
    pause_seconds = limit
    told: Set[str] = frozenset()
    while not wait(pause_seconds):
        assert limit is not None
        pause_seconds = min(limit, LONGEST_LOOK_SECONDS)
        with suppress(pykka.ActorDeadError, pykka.Timeout):  # who would know is being started, or has stood still
            status = in_flight()
            if status.idle_seconds > 0:
                if status.idle_seconds >= limit:
                    return
                pause_seconds = limit - status.idle_seconds
            elif not status.troubles <= told:
                found = ", ".join(sorted(status.troubles))
                logger.warning("this is not idle time, and is waited out (a signal ends it): unavailable: %s", found)
            told = status.troubles
        pause_seconds = max(SHORTEST_LOOK_SECONDS, pause_seconds)
