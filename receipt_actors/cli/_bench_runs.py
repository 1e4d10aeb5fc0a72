"""The runs of ``receipt-actors bench``: what to run, and the program run again and again. Needs no extra to import."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receipt_actors.cli.start import command as start
from receipt_actors.cli.start import process_count
from receipt_actors.cli.terminal import SlowProgress
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings import SETTINGS, Settings, load_settings
from receipt_actors.telemetry.statistics import StatisticsSnapshot

if TYPE_CHECKING:
    from receipt_actors.sandbox.bench import Load, Measurement, Series, Services

MAX_MESSAGES = 1_000_000
PILOT_MESSAGES = 2_000  #: of the run that tells how many messages ``--seconds`` takes
BYTES_A_MESSAGE = 4096  #: that the simulated services hold, beyond twice its receipt
MEMORY_SHARE = 0.5  #: of what is available, that the messages may take
PERCENTS = (50, 95, 99)
VISIBILITY_SECONDS = 30  #: what the program has for ``visibility_timeout_seconds``, unless it is told otherwise
PATIENCE_SECONDS = 60.0  #: without a message that is finished, at least
SPARE_PATIENCE_SECONDS = 30.0  #: for a message that came back to be finished
#: Settings of ``start`` that bench sets, so that the program uses what is simulated, and tells what it counted.
OWN = (
    "database",
    "backend",
    "source_queue",
    "sources",
    "post_queues",
    "ledger_table",
    "app_store_url",
    "app_receipts",
    "apple_roots",
    "server_api_key",
    "server_api_key_id",
    "server_api_issuer_id",
    "exit_when_idle_seconds",
    "statistics_file",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: one series of runs."""

    label: str
    flags: tuple[str, ...]
    settings: Settings  #: that the program makes of the flags
    rate: float | None = None
    max_in_flight: int | None = None
    way: str = "verify-receipt"  #: how receipts are vouched for (``sandbox.bench.Way``)

    @property
    def patience_seconds(self) -> float:
        """How long nothing may be finished: what a process that dies had in flight comes back before."""
        pause_seconds = 0.0 if self.rate is None else 1 / self.rate
        return max(PATIENCE_SECONDS, _visibility_seconds(self.settings) + pause_seconds + SPARE_PATIENCE_SECONDS)

    def series(self, runs: Sequence[Measurement]) -> Series:
        """What the runs are a series of."""
        from receipt_actors.sandbox.bench import Series

        client = "" if self.way == "storekit2" else "curl" if self.settings.uses_curl else "requests"
        return Series(self.label, runs, self.max_in_flight, self.flags, process_count(self.settings), client, self.way)


def half_load(plans: Sequence[Plan], series: Sequence[Series]) -> Plan:
    """Plan another series, at half the rate of the quickest."""
    best = max(range(len(series)), key=lambda number: series[number].middle_run().steady_per_second)
    middle = series[best].middle_run()
    rate = (middle.steady_per_second or middle.per_second) / 2  # the former takes more than a few messages
    label = f"half load, {rate:.0f}/s"
    if len({plan.way for plan in plans}) > 1:
        label = f"{plans[best].way}, {label}"
    return replace(plans[best], label=label, rate=rate, max_in_flight=None)


def check_flags(flags: Sequence[str], given_before: Mapping[str, bool]) -> None:
    """Complain of flags of ``start`` that are bench's own business, or given before the ``--`` as well."""
    given, _ = _parsed(flags)
    faults = [f"{SETTINGS[name].flag}: found it after --, expected not: bench sets it" for name in given if name in OWN]
    for name, is_given in given_before.items():
        if is_given and name in given:
            faults.append(f"{SETTINGS[name].flag}: found it after --, and before as an option of bench; expected one")
    if faults:
        raise ConfigurationError(faults)


def make_plans(
    flags: Sequence[str],
    max_in_flight: int | None,
    in_flight_sweep: Sequence[int],
    rate: float | None,
    ways: Sequence[str],
) -> list[Plan]:
    """Plan a series for each way, or for each way one for each limit of the sweep.

    Raises ``ConfigurationError`` for flags of no use.
    """
    plans = _plans_of_one_way(flags, max_in_flight, in_flight_sweep, rate)
    if len(ways) == 1:
        return [replace(plan, way=ways[0]) for plan in plans]
    return [replace(plan, way=way, label=f"{way}, {plan.label}") for way in ways for plan in plans]


def _plans_of_one_way(
    flags: Sequence[str], max_in_flight: int | None, in_flight_sweep: Sequence[int], rate: float | None
) -> list[Plan]:
    how = "all at once" if rate is None else f"{rate:g}/s"
    if in_flight_sweep:
        swept = [("--max-in-flight", str(limit), *flags) for limit in in_flight_sweep]
        return [
            Plan(f"{limit} in flight, {how}", its_flags, _settings(its_flags), rate, limit)
            for limit, its_flags in zip(in_flight_sweep, swept, strict=True)
        ]
    limit_flags = () if max_in_flight is None else ("--max-in-flight", str(max_in_flight))
    return [Plan(how, (*limit_flags, *flags), _settings((*limit_flags, *flags)), rate)]


def check_memory(load: Load) -> None:
    """Complain of a load that this machine can't hold: the simulated services keep all of it."""
    import psutil

    needed = load.messages * (2 * load.receipt_bytes + BYTES_A_MESSAGE)
    available = int(psutil.virtual_memory().available * MEMORY_SHARE)
    if needed > available:
        raise ConfigurationError(
            [
                f"bench: {load.messages:,} messages take {needed >> 20:,} MiB of memory, expected at most "
                f"{available >> 20:,} MiB, {MEMORY_SHARE:.0%} of what is available; give fewer --messages or --seconds"
            ]
        )


def messages_in(seconds: float, services: Services, plan: Plan, receipt_bytes: int) -> int:
    """How many messages take about so long."""
    if plan.rate is not None:
        return min(MAX_MESSAGES, max(1, round(plan.rate * seconds)))
    from receipt_actors.sandbox.bench import Load

    services.prepare(Load(PILOT_MESSAGES, receipt_bytes, plan.way))
    (pilot,) = run_all(services, replace(plan, label="short run"), 1)
    return min(MAX_MESSAGES, max(PILOT_MESSAGES, round(pilot.steady_per_second * seconds)))


def run_all(services: Services, plan: Plan, runs: int) -> list[Measurement]:
    """Run the program again and again, each time as a new process."""
    from receipt_actors.sandbox.bench import run

    measurements = []
    for number in range(1, runs + 1):
        title = f"{plan.label}, run {number} of {runs}" if runs > 1 else plan.label
        done = 0
        with (
            SlowProgress(title, services.load.messages) as progress,
            tempfile.TemporaryDirectory(prefix="receipt-actors-bench-") as folder,
        ):

            def show(now: int) -> None:
                nonlocal done
                progress.advance(now - done)
                done = now

            statistics_file = Path(folder) / "statistics.json"
            own_flags = ["--backend", "aws", "--log-level", "WARNING", "--statistics-file", str(statistics_file)]
            own_flags += ["--visibility-timeout-seconds", str(_visibility_seconds(plan.settings))]
            program = [sys.executable, "-m", "receipt_actors", "start", *own_flags, *plan.flags]
            measurement = run(
                program, services, rate=plan.rate, patience_seconds=plan.patience_seconds, on_progress=show
            )
            measurements.append(replace(measurement, steps_ms=_steps_ms(statistics_file)))
    return measurements


def _settings(flags: Sequence[str]) -> Settings:
    """Return what the program makes of its flags. Raises ``ConfigurationError``, with what it would complain of."""
    from receipt_actors.sandbox.bench import settings_variables

    given, config = _parsed(flags)
    environ = settings_variables("https://127.0.0.1:1")  # the services have no address yet
    settings = load_settings({**given, "backend": "aws"}, config=config, environ=environ)
    if settings.exit_when_idle_seconds is not None:
        raise ConfigurationError(["exit_when_idle_seconds: found it set, expected not: bench says when it ends"])
    return settings


def _parsed(flags: Sequence[str]) -> tuple[dict[str, object], Path | None]:
    """Read flags as ``start`` does: the settings that are given, and the file. Complains of what it would not take."""
    with start.make_context("start", list(flags), parent=click.get_current_context().parent) as context:
        given = {name: value for name, value in context.params.items() if value is not None}
    config: Path | None = given.pop("config", None)
    return given, config


def _visibility_seconds(settings: Settings) -> int:
    """How long a message stays away that a process had in flight when it died; shorter than by default."""
    is_given = "visibility_timeout_seconds" in settings.model_fields_set
    return settings.visibility_timeout_seconds if is_given else VISIBILITY_SECONDS


def _steps_ms(statistics_file: Path) -> Mapping[str, Mapping[str, float]]:
    """The percentiles of each step, as the program itself counted them; in buckets of 2 %."""
    statistics = StatisticsSnapshot.from_json(json.loads(statistics_file.read_text(encoding="utf-8")))
    return {
        step: {f"p{percent}": 1000 * (latencies.percentile_seconds(percent) or 0.0) for percent in PERCENTS}
        for step, latencies in statistics.steps.items()
    }
