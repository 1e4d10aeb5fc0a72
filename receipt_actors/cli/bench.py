"""``receipt-actors bench``: what a receipt costs on this machine, measured from outside on the real program."""

from __future__ import annotations

import importlib.util
import os
import signal
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli._bench_runs import (
    MAX_MESSAGES,
    check_flags,
    check_memory,
    half_load,
    make_plans,
    messages_in,
    run_all,
)
from receipt_actors.cli.terminal import FiniteFloatRange
from receipt_actors.errors import ConfigurationError

if TYPE_CHECKING:
    from receipt_actors.sandbox.bench import Load, Series, ServiceOptions, Services

DEFAULT_MESSAGES = 20_000
WAYS = ("verify-receipt", "storekit2", "server-api")  #: the first is the default
PLOT_EXTENSIONS = (".png", ".svg", ".html")
DEFAULT_JITTER_SECONDS = 0.1  #: of Apple's latency; no more than that


def _plot_path(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix not in PLOT_EXTENSIONS:
        raise click.BadParameter(f"{str(path)!r} does not end in {', '.join(PLOT_EXTENSIONS)}.")
    return _new_file(_context, _parameter, path)


def _new_file(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse now what could not be written after minutes of measuring."""
    if path is not None:
        was_there = os.path.lexists(path)
        try:
            if not was_there or path.is_file() or path.is_dir():  # to open a pipe would wait for its reader
                path.open("ab").close()
        except OSError as error:
            raise click.BadParameter(f"{str(path)!r} can't be written: {error.strerror}.") from None
        if not was_there:
            path.unlink()
    return path


def _numbers(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    # What has more digits than the highest is told by its length: Python refuses to read thousands of them.
    if not all(
        part.isascii() and part.isdigit() and len(part) <= len(str(MAX_MESSAGES)) and 0 < int(part) <= MAX_MESSAGES
        for part in parts
    ):
        raise click.BadParameter(
            f"{textwrap.shorten(text, 60)!r}: expected numbers above 0, of at most {MAX_MESSAGES:,}, comma separated."
        )
    return tuple(dict.fromkeys(map(int, parts)))


def _ways(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    ways = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(WAYS)}.")
    return ways


def _latency(name: str, default: float | None, help: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    seconds = FiniteFloatRange(0, 60)
    shown = default is not None
    return click.option(name, type=seconds, default=default, show_default=shown, metavar="SECONDS", help=help)


@click.command(
    epilog="""\b
Examples:
  # one run of 20,000 messages: Apple takes 0.15 to 0.35 s, DynamoDB 5 ms, SQS 10 ms
  receipt-actors bench
  # CPU alone, medians of five runs
  receipt-actors bench --no-latency --runs 5
  # a minute on all cores, then latencies at half that load, with plots
  receipt-actors bench --seconds 60 --processes auto --half-load --plot bench.html
  # what Apple is asked about, beside what is verified here
  receipt-actors bench --receipts verify-receipt,storekit2,server-api
  # what more in flight brings; flags of `start` come last
  receipt-actors bench --in-flight-sweep 100,500,2000 --json bench.json -- --consumers 8

\b
Needs the extra: pip install "receipt-actors[bench]"
"""
)
@click.option(
    "--messages", type=click.IntRange(1, MAX_MESSAGES), metavar="N", help=f"How many. [default: {DEFAULT_MESSAGES:,}]"
)
@click.option(
    "--seconds",
    type=FiniteFloatRange(1, 3600),
    metavar="S",
    help="As many as take about so long, found by a short run.",
)
@click.option(
    "--receipts",
    "ways",
    callback=_ways,
    default=WAYS[0],
    show_default=True,
    metavar="WAY,...",
    help="A series of runs for each: verify-receipt (app receipts), storekit2 (signed transactions), server-api (app "
    "receipts, whose transactions are looked up).",
)
@click.option("--runs", type=click.IntRange(1, 100), default=1, show_default=True, help="Runs to take the median of.")
@click.option("--processes", metavar="N|auto", help="As for start, and so are the next two.")
@click.option("--max-in-flight", type=click.IntRange(1, MAX_MESSAGES), metavar="N", help="Messages in flight, at most.")
@click.option(
    "--transport",
    type=click.Choice(["auto", "threads"]),
    help="How requests are made.",
)
@click.option(
    "--in-flight-sweep",
    callback=_numbers,
    metavar="N,N,...",
    help="A series of runs for each of these --max-in-flight.",
)
@click.option(
    "--rate", type=FiniteFloatRange(0.001, 1e6), metavar="R", help="Messages available a second, not all at once."
)
@click.option("--half-load", is_flag=True, help="Then another series at half the rate that was found.")
@_latency("--apple-latency", 0.25, "How long the simulated App Store takes,")
@_latency(
    "--apple-jitter", None, f"so much more or less, evenly spread. [default: {DEFAULT_JITTER_SECONDS:g}, or less]"
)
@_latency("--dynamodb-latency", 0.005, "How long the simulated DynamoDB takes.")
@_latency("--sqs-latency", 0.01, "How long the simulated SQS takes.")
@click.option("--no-latency", is_flag=True, help="All of them answer at once: what remains is CPU time.")
@click.option("--tls/--no-tls", default=True, show_default=True, help="To the App Store, as Apple is spoken to.")
@click.option(
    "--receipt-bytes",
    type=click.IntRange(0, 500_000),
    default=5 * 1024,
    show_default=True,
    metavar="N",
    help="Of each receipt, before base64.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    callback=_new_file,
    metavar="FILE",
    help="Write all figures of all runs.",
)
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(path_type=Path),
    callback=_plot_path,
    metavar="FILE",
    help="Draw rate and latency over time, and the sweep: .png, .svg or .html.",
)
@click.argument("start_flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- FLAGS OF START]")
def command(**options: Any) -> int:
    """Measure what a receipt costs on this machine.

    Runs the real program (`receipt-actors start`, on SQS, DynamoDB and an App Store that are simulated by processes of
    their own) on prepared messages with genuine receipts, and measures it from outside: rate, CPU time, memory,
    latencies, calls. Every answer is checked: the exit code is 1 if one is missing, wrong, sent more often than its
    message was delivered, or deleted before it was sent. What starting takes is told apart.
    """
    chosen = _Options(**options)
    chosen.check()
    services = chosen.services()
    load, series = _measure(chosen, services)
    _report(chosen, services, load, series)
    wrong = [run for each in series for run in each.runs if run.wrong]
    for run in wrong:
        complain(f"{run.wrong} answers or claims were wrong, among them:")
        for line in run.wrong_shown:
            complain(line)
    return EXIT_WORLD_FAILED if wrong else EXIT_DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The command's options, by their names."""

    messages: int | None
    seconds: float | None
    ways: tuple[str, ...]
    runs: int
    processes: str | None
    max_in_flight: int | None
    transport: str | None
    in_flight_sweep: tuple[int, ...]
    rate: float | None
    half_load: bool
    apple_latency: float
    apple_jitter: float | None
    dynamodb_latency: float
    sqs_latency: float
    no_latency: bool
    tls: bool
    receipt_bytes: int
    json_path: Path | None
    plot_path: Path | None
    start_flags: tuple[str, ...]

    def check(self) -> None:
        """Complain of what does not go together, and of what is missing."""
        if self.messages is not None and self.seconds is not None:
            raise click.UsageError("--messages and --seconds: give one of them")
        if self.max_in_flight is not None and self.in_flight_sweep:
            raise click.UsageError("--max-in-flight and --in-flight-sweep: give one of them")
        if self.rate is not None and self.half_load:
            raise click.UsageError("--rate and --half-load: give one of them")
        if self.apple_jitter is not None and self.apple_jitter > self.apple_latency:
            raise click.UsageError(
                "--apple-jitter: expected at most --apple-latency, for no answer takes less than no time"
            )
        given_before = {
            "processes": self.processes is not None,
            "transport": self.transport is not None,
            "max_in_flight": self.max_in_flight is not None or bool(self.in_flight_sweep),
        }
        check_flags(self.start_flags, given_before)
        modules = {"psutil": True, "matplotlib": self.plot_path is not None}
        _check_extra([module for module, is_needed in modules.items() if is_needed])

    @property
    def flags(self) -> list[str]:
        """What ``start`` is told."""
        processes = [] if self.processes is None else ["--processes", self.processes]
        transport = [] if self.transport is None else ["--transport", self.transport]
        return [*processes, *transport, *self.start_flags]

    def services(self) -> ServiceOptions:
        """How the simulated services behave."""
        from receipt_actors.sandbox.bench import Latency, ServiceOptions

        if self.no_latency:
            return ServiceOptions(Latency(), 0.0, 0.0, self.tls)
        default_jitter = min(DEFAULT_JITTER_SECONDS, self.apple_latency)
        jitter = default_jitter if self.apple_jitter is None else self.apple_jitter
        return ServiceOptions(Latency(self.apple_latency, jitter), self.sqs_latency, self.dynamodb_latency, self.tls)


def _measure(chosen: _Options, options: ServiceOptions) -> tuple[Load, Sequence[Series]]:
    """Run every series; what they are made of, and what they came to."""
    from receipt_actors.sandbox.bench import Load, Services

    plans = make_plans(chosen.flags, chosen.max_in_flight, chosen.in_flight_sweep, chosen.rate, chosen.ways)
    with _sigterm_as_interrupt(), Services(options) as services:
        count = chosen.messages or DEFAULT_MESSAGES
        if chosen.seconds is not None:
            count = messages_in(chosen.seconds, services, plans[0], chosen.receipt_bytes)
        load = Load(count, chosen.receipt_bytes)
        check_memory(load)
        series = []
        for plan in plans:
            _prepare(services, replace(load, way=plan.way))
            series.append(plan.series(run_all(services, plan, chosen.runs)))
        if chosen.half_load:
            plan = half_load(plans, series)
            _prepare(services, replace(load, way=plan.way))
            series.append(plan.series(run_all(services, plan, chosen.runs)))
    return load, series


def _prepare(services: Services, load: Load) -> None:
    """Prepare a load, unless it is the one that was prepared last."""
    if services.load != load:
        services.prepare(load)


def _report(chosen: _Options, options: ServiceOptions, load: Load, series: Sequence[Series]) -> None:
    """Print the table, and write the files that were asked for."""
    from receipt_actors.cli._bench_report import BenchReport

    report = BenchReport(series, options, load)
    report.print()
    if chosen.json_path is not None:
        report.write_json(chosen.json_path)
    if chosen.plot_path is not None:
        report.write_plot(chosen.plot_path)


def _check_extra(modules: Sequence[str]) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigurationError(
            [f'bench: {", ".join(missing)} not found, expected the extra: pip install "receipt-actors[bench]"']
        )


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Have SIGTERM end us as Ctrl-C does, so that no process of ours stays behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
