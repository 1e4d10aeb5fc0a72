"""``receipt-actors bench``: what a receipt costs on this machine, measured from outside on the real program."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.start import command as start
from receipt_actors.cli.start import process_count
from receipt_actors.cli.terminal import FiniteFloatRange, comma_separated, progress_bar
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings import SETTINGS, Settings, load_settings
from receipt_actors.telemetry.statistics import StatisticsSnapshot

if TYPE_CHECKING:  # they need the extra
    from rich.table import Table

    from receipt_actors.sandbox.bench import Load, Measurement, Series, ServiceOptions, Services

MAX_MESSAGES = 1_000_000
BYTES_A_MESSAGE = 4096  #: that the simulated services hold, beyond twice its receipt
MEMORY_SHARE = 0.5  #: of what is available, that the messages may take
VISIBILITY_SECONDS = 30  #: what the program has for ``visibility_timeout_seconds``, unless the flags set it
PATIENCE_SECONDS = 60.0  #: without a message that is finished, at least
SPARE_PATIENCE_SECONDS = 30.0  #: for a message that came back to be finished
DEFAULT_WAY = "verify-receipt"
WAYS = {
    DEFAULT_WAY: "app receipts of {bytes} bytes, about which verifyReceipt is asked",
    "storekit2": "signed transactions, verified by the program; nobody is asked",
    "server-api": "app receipts of {bytes} bytes, whose transactions the App Store Server API is asked for; what it "
    "answers is verified by the program",
}
QUIET_SHARE = 0.1  #: of the machine that others may use without a word
PIPE_COLUMNS = 120  #: width of the table where nobody's terminal says
PLOT_EXTENSIONS = (".png", ".svg")
DEFAULT_JITTER_SECONDS = 0.1  #: of Apple's latency; no more than that
#: Settings of ``start`` that bench sets, so that the program uses what is simulated, and tells what it counted.
OWN = (
    *("database", "backend", "source_queue", "sources", "post_queues", "ledger_table", "app_store_url"),
    *("app_receipts", "apple_roots", "server_api_key", "server_api_key_id", "server_api_issuer_id"),
    *("exit_when_idle_seconds", "statistics_file"),
)


_PATH = click.Path(path_type=Path)


def _new_file(_context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse now what could not be written after minutes of measuring."""
    if path is None:
        return None
    if parameter.name == "plot_path" and path.suffix not in PLOT_EXTENSIONS:
        raise click.BadParameter(f"{str(path)!r} does not end in {', '.join(PLOT_EXTENSIONS)}.")
    was_there = os.path.lexists(path)
    try:
        if not was_there or path.is_file() or path.is_dir():  # to open a pipe would wait for its reader
            path.open("ab").close()
    except OSError as error:
        raise click.BadParameter(f"{str(path)!r} can't be written: {error.strerror}.") from None
    if not was_there:
        path.unlink()
    return path


def _latency(name: str, default: float | None, help: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    seconds = FiniteFloatRange(0, 60)
    return click.option(name, type=seconds, default=default, metavar="SECONDS", help=help)


@click.command(
    epilog="""\b
Examples:
  # one run of 20,000 messages: Apple takes 0.15 to 0.35 s, DynamoDB 5 ms, SQS 10 ms
  receipt-actors bench
  # CPU alone, medians of five runs
  receipt-actors bench --no-latency --runs 5
  # on all cores, with a plot over time
  receipt-actors bench --messages 200000 --processes auto --plot bench.svg
  # what Apple is asked about, beside what is verified here
  receipt-actors bench --receipts verify-receipt,storekit2,server-api
  # latencies at a part of the load; flags of `start` come last
  receipt-actors bench --rate 500 --json bench.json -- --consumers 8

\b
Needs the extra: pip install "receipt-actors[bench]"
"""
)
@click.option("--messages", type=click.IntRange(1, MAX_MESSAGES), default=20_000, metavar="N", help="How many.")
@click.option(
    "--receipts",
    "ways",
    callback=comma_separated(click.Choice(list(WAYS))),
    default=DEFAULT_WAY,
    metavar="WAY,...",
    help="A series each: verify-receipt, storekit2 (signed), server-api (looked up).",
)
@click.option("--runs", type=click.IntRange(1, 100), default=1, help="Runs to take the median of.")
@click.option("--processes", metavar="N|auto", help="As for start, and so are the next two.")
@click.option("--max-in-flight", type=click.IntRange(1, MAX_MESSAGES), metavar="N", help="Messages in flight, at most.")
@click.option("--transport", type=click.Choice(["auto", "threads"]), help="How requests are made.")
@click.option(
    "--rate", type=FiniteFloatRange(0.001, 1e6), metavar="R", help="Messages available a second, not all at once."
)
@_latency("--apple-latency", 0.25, "How long the simulated App Store takes,")
@_latency(
    "--apple-jitter", None, f"so much more or less, evenly spread. [default: {DEFAULT_JITTER_SECONDS:g}, or less]"
)
@_latency("--dynamodb-latency", 0.005, "How long the simulated DynamoDB takes.")
@_latency("--sqs-latency", 0.01, "How long the simulated SQS takes.")
@click.option("--no-latency", is_flag=True, help="All of them answer at once: what remains is CPU time.")
@click.option("--tls/--no-tls", default=True, help="To the App Store, as Apple is spoken to.")
@click.option(
    "--receipt-bytes", type=click.IntRange(0, 500_000), default=5 * 1024, metavar="N", help="Size before base64."
)
@click.option(
    "--json", "json_path", type=_PATH, callback=_new_file, metavar="FILE", help="Write all figures of all runs."
)
@click.option("--plot", "plot_path", type=_PATH, callback=_new_file, metavar="FILE", help="Draw them: .png or .svg.")
@click.argument("start_flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- FLAGS OF START]")
def command(
    *,
    messages: int,
    ways: tuple[str, ...],
    runs: int,
    processes: str | None,
    max_in_flight: int | None,
    transport: str | None,
    rate: float | None,
    apple_latency: float,
    apple_jitter: float | None,
    dynamodb_latency: float,
    sqs_latency: float,
    no_latency: bool,
    tls: bool,
    receipt_bytes: int,
    json_path: Path | None,
    plot_path: Path | None,
    start_flags: tuple[str, ...],
) -> int:
    """Measure what a receipt costs on this machine.

    Runs the real program (`receipt-actors start`, on SQS, DynamoDB and an App Store that are simulated by processes of
    their own) on prepared messages with genuine receipts, and measures it from outside: rate, CPU time, memory,
    latencies, calls. Every answer is checked: the exit code is 1 if one is missing, wrong, sent more often than its
    message was delivered, or deleted before it was sent. What starting takes is told apart.
    """
    if apple_jitter is None:
        apple_jitter = min(DEFAULT_JITTER_SECONDS, apple_latency)
    elif apple_jitter > apple_latency:
        raise click.UsageError(
            "--apple-jitter: expected at most --apple-latency, for no answer takes less than no time"
        )
    given = {"processes": processes, "transport": transport, "max_in_flight": max_in_flight}
    own = {name: str(value) for name, value in given.items() if value is not None}
    _check_flags(start_flags, own)
    _check_extra(["psutil", "matplotlib"] if plot_path else ["psutil"])
    from receipt_actors.sandbox.bench import Load, ServiceOptions, Services

    flags = (*(word for name, value in own.items() for word in (SETTINGS[name].flag, value)), *start_flags)
    plans = _plans(flags, rate, ways)
    latencies = (0.0,) * 4 if no_latency else (apple_latency, apple_jitter, sqs_latency, dynamodb_latency)
    options = ServiceOptions(*latencies, tls)
    load = Load(messages, receipt_bytes)
    _check_memory(load)
    with _sigterm_as_interrupt(), Services(options) as services:
        series = [_measured(services, plan, load, runs) for plan in plans]
    print_report(series, options, load)
    if json_path is not None:
        write_json(json_path, series, options, load)
    if plot_path is not None:
        from receipt_actors.sandbox.bench.measurement import write_plot

        write_plot(plot_path, series, f"receipt-actors bench: {_conditions(series, options, load)}")
    wrong = [run for each in series for run in each.runs if run.wrong]
    for run in wrong:
        complain(f"{run.wrong} answers or claims were wrong, among them:")
        for line in run.wrong_shown:
            complain(line)
    return EXIT_WORLD_FAILED if wrong else EXIT_DONE


# --- what to run ---


@dataclass(frozen=True, slots=True)
class _Plan:
    label: str
    flags: tuple[str, ...]
    settings: Settings  #: that the program makes of the flags
    rate: float | None
    way: str  #: how receipts are vouched for (``sandbox.bench.Way``)

    @property
    def visibility_seconds(self) -> int:
        """How long a message stays away that a process had in flight when it died; shorter than by default."""
        is_given = "visibility_timeout_seconds" in self.settings.model_fields_set
        return self.settings.visibility_timeout_seconds if is_given else VISIBILITY_SECONDS

    @property
    def patience_seconds(self) -> float:
        """How long nothing may be finished: what a process that dies had in flight comes back before."""
        pause_seconds = 0.0 if self.rate is None else 1 / self.rate
        return max(PATIENCE_SECONDS, self.visibility_seconds + pause_seconds + SPARE_PATIENCE_SECONDS)


def _plans(flags: tuple[str, ...], rate: float | None, ways: Sequence[str]) -> list[_Plan]:
    """Plan a series for each way. Raises ``ConfigurationError`` for flags of no use."""
    how = "all at once" if rate is None else f"{rate:g}/s"
    settings = _settings(flags)
    return [_Plan(f"{way}, {how}" if len(ways) > 1 else how, flags, settings, rate, way) for way in ways]


def _check_flags(flags: Sequence[str], given_before: Iterable[str]) -> None:
    """Complain of flags of ``start`` that are bench's own business, or given before the ``--`` as well."""
    given, _ = _parsed(flags)
    faults = [f"{SETTINGS[name].flag}: found it after --, expected not: bench sets it" for name in given if name in OWN]
    for name in given_before:
        if name in given:
            faults.append(f"{SETTINGS[name].flag}: found it after --, and before as an option of bench; expected one")
    if faults:
        raise ConfigurationError(faults)


def _settings(flags: Sequence[str]) -> Settings:
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


def _check_memory(load: Load) -> None:
    """Complain of a load that this machine can't hold: the simulated services keep all of it."""
    import psutil

    needed = load.messages * (2 * load.receipt_bytes + BYTES_A_MESSAGE)
    available = int(psutil.virtual_memory().available * MEMORY_SHARE)
    if needed > available:
        raise ConfigurationError(
            [
                f"bench: {load.messages:,} messages take {needed >> 20:,} MiB of memory, expected at most "
                f"{available >> 20:,} MiB, {MEMORY_SHARE:.0%} of what is available; give fewer --messages"
            ]
        )


def _check_extra(modules: Sequence[str]) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigurationError(
            [f'bench: {", ".join(missing)} not found, expected the extra: pip install "receipt-actors[bench]"']
        )


# --- the runs ---


def _measured(services: Services, plan: _Plan, load: Load, runs: int) -> Series:
    from receipt_actors.sandbox.bench import Series

    load = replace(load, way=plan.way)
    if services.load != load:
        services.prepare(load)
    measurements = []
    for number in range(1, runs + 1):
        title = f"{plan.label}, run {number} of {runs}" if runs > 1 else plan.label
        measurements.append(_run(services, plan, title))
    client = "" if plan.way == "storekit2" else "curl" if plan.settings.uses_curl else "requests"
    count = process_count(plan.settings)
    return Series(plan.label, measurements, plan.flags, count, client, plan.way)


def _run(services: Services, plan: _Plan, title: str) -> Measurement:
    from rich.console import Console

    from receipt_actors.sandbox.bench import run

    with (
        progress_bar(Console(stderr=True), transient=True) as progress,
        tempfile.TemporaryDirectory(prefix="receipt-actors-bench-") as folder,
    ):
        statistics_file = Path(folder) / "statistics.json"
        own_flags = ["--backend", "aws", "--log-level", "WARNING", "--statistics-file", str(statistics_file)]
        own_flags += ["--visibility-timeout-seconds", str(plan.visibility_seconds)]
        program = [sys.executable, "-m", "receipt_actors", "start", *own_flags, *plan.flags]
        task = progress.add_task(title, total=services.load.messages)

        def tell(done: int) -> None:
            progress.update(task, completed=done)

        measurement = run(program, services, rate=plan.rate, patience_seconds=plan.patience_seconds, on_progress=tell)
        return replace(measurement, steps_ms=_steps_ms(statistics_file))


def _steps_ms(statistics_file: Path) -> Mapping[str, Mapping[str, float]]:
    """Return the percentiles of each step, as the program itself counted them; in buckets of 2 %."""
    statistics = StatisticsSnapshot.from_json(json.loads(statistics_file.read_text(encoding="utf-8")))
    return {
        step: {f"p{percent}": 1000 * (latencies.percentile_seconds(percent) or 0.0) for percent in (50, 95, 99)}
        for step, latencies in statistics.steps.items()
    }


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Have SIGTERM end us as Ctrl-C does, so that no process of ours stays behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- what is told of them ---


def print_report(series: Sequence[Series], options: ServiceOptions, load: Load) -> None:
    from rich.console import Console

    from receipt_actors.sandbox.bench.measurement import machine

    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False)
    where = machine(os.cpu_count() or 1)
    console.print(f"{_conditions(series, options, load)}; {'TLS' if options.tls else 'no TLS'} to Apple")
    for way in _ways(series):
        console.print(f"{way}: {WAYS[way].format(bytes=f'{load.receipt_bytes:,}')}")
    console.print(f"{where['cpu']}, {where['cores']} cores, {where['python']}, {where['system']}\n")
    console.print(_table(series))
    runs = [run for each in series for run in each.runs]
    if redelivered := sum(run.redelivered for run in runs):
        console.print(
            f"{redelivered:,} messages were delivered again: a process of the program died, or was too slow. These "
            f"figures are not valid. {sum(run.repeated for run in runs):,} answers were repeated, each the same, which "
            "is no fault."
        )
    others_share = max(run.others_share for run in runs)
    if others_share > QUIET_SHARE:
        console.print(
            f"Other programs used up to {others_share:.0%} of the machine: without them rates would be higher, and "
            "latencies shorter."
        )


def _table(series: Sequence[Series]) -> Table:
    """One column for each series: medians, and in brackets the least and the most."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from receipt_actors.sandbox.bench.measurement import rows

    table = Table("", box=SIMPLE_HEAD)
    for each in series:
        table.add_column(each.label, justify="right")
    for section, lines in itertools.groupby(rows(series), key=lambda row: row[0].section):
        table.add_section()
        table.add_row(f"[bold]{section}[/bold]")
        for figure, cells in lines:
            table.add_row(f"  {figure.name}", *cells)
    return table


def write_json(path: Path, series: Sequence[Series], options: ServiceOptions, load: Load) -> None:
    from receipt_actors.sandbox.bench.measurement import machine

    content = {
        "machine": machine(os.cpu_count() or 1),
        "load": {"messages": load.messages, "receipt_bytes": load.receipt_bytes},
        "services": asdict(options),
        "series": [each.as_json() for each in series],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _conditions(series: Sequence[Series], options: ServiceOptions, load: Load) -> str:
    milliseconds = [f"{1000 * seconds:g}" for name, seconds in asdict(options).items() if name != "tls"]
    latencies = "Apple {} ms +- {}, SQS {} ms, DynamoDB {} ms".format(*milliseconds)
    receipts = "" if _ways(series) else f" with receipts of {load.receipt_bytes:,} bytes"
    return f"{load.messages:,} messages{receipts}; {latencies}"


def _ways(series: Sequence[Series]) -> Sequence[str]:
    ways = tuple(dict.fromkeys(each.way for each in series))
    return () if ways == (DEFAULT_WAY,) else ways
