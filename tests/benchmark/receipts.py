"""What a receipt costs, here and in pipelines that others would write, on the same messages in the same run.

::

    python -m tests.benchmark.receipts                          # medians of 5 runs, about half an hour
    python -m tests.benchmark.receipts --messages 500 --runs 1  # does everything still work?

All programs run by turns against the simulated services of ``receipt_actors.sandbox``, and every answer is checked.
``pipelines.asyncio_pipeline`` needs aiobotocore, which pins botocore: an environment is made for it, unless
``--asyncio-python`` names one. CPU is that of the program and its children, from outside.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from receipt_actors.sandbox.bench import BenchFailed, Load, Measurement, ServiceOptions, Services, run

ROOT = Path(__file__).parents[2]
PIPELINES = "tests.benchmark.pipelines"
ASYNCIO_REQUIREMENTS = ("aiobotocore", "aiohttp", "orjson", "uvloop")
TRANSPORT_VARIABLE = "RECEIPT_ACTORS_TRANSPORT"

#: What the services are like, and what that shows.
CONDITIONS = {
    "Apple 250 +- 100 ms, DynamoDB 5 ms, SQS 10 ms": ServiceOptions(),
    "no latency: CPU alone": ServiceOptions(0.0, 0.0, 0.0, 0.0),
}
TWO_PROCESSES_CONDITION = next(iter(CONDITIONS))


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def several(self, count: int) -> Program:
        return Program(
            f"{self.name}, {count} processes",
            [sys.executable, "-m", f"{PIPELINES}.several", str(count), *self.command],
            self.environment,
        )


def ours(transport: str, processes: int) -> Program:
    command = [sys.executable, "-m", "receipt_actors", "start", "--backend", "aws", "--log-level", "WARNING"]
    many = [] if processes == 1 else ["--processes", str(processes)]
    name = _ours(transport) + ("" if processes == 1 else f", {processes} processes")
    return Program(name, [*command, *many], {TRANSPORT_VARIABLE: transport})


def _ours(transport: str) -> str:
    return "receipt_actors" if transport == "auto" else f"receipt_actors [{transport}]"


def threads() -> Program:
    return Program("threads, boto3, requests", [sys.executable, "-m", f"{PIPELINES}.threads_pipeline"])


def asyncio_pipeline(python: Path) -> Program:
    return Program("asyncio, aiobotocore, aiohttp", [str(python), "-m", f"{PIPELINES}.asyncio_pipeline"])


REFERENCE = _ours("auto")


def programs(condition: str, asyncio_python: Path) -> Iterator[Program]:
    yield ours("auto", 1)
    yield ours("threads", 1)
    yield threads()
    yield asyncio_pipeline(asyncio_python)
    if condition == TWO_PROCESSES_CONDITION:
        yield ours("auto", 2)
        yield ours("threads", 2)
        yield threads().several(2)
        yield asyncio_pipeline(asyncio_python).several(2)


@dataclass(slots=True)
class Findings:
    measurements: dict[str, list[Measurement]] = field(default_factory=lambda: defaultdict(list))  #: by program
    failures: list[str] = field(default_factory=list)  #: runs that came to nothing, or to wrong answers


def measure(services: Services, all_programs: Sequence[Program], runs: int, tell: Callable[[str], None]) -> Findings:
    """Run each program so many times, by turns. What fails is told, and the others go on."""
    findings = Findings()
    for number in range(1, runs + 1):
        for program in all_programs:
            try:
                measurement = _measure_once(services, program)
            except BenchFailed as error:
                findings.failures.append(f"{program.name}, run {number}: {error}")
                tell(findings.failures[-1])
            else:
                findings.measurements[program.name].append(measurement)
                tell(f"run {number} of {runs}: {program.name}: {measurement.steady_per_second:,.0f}/s")
    return findings


def _measure_once(services: Services, program: Program) -> Measurement:
    environment = {**program.environment, "PYTHONPATH": str(ROOT)}
    measurement = run(program.command, services, environment=environment)
    if measurement.wrong:
        raise BenchFailed(f"{measurement.wrong} answers are wrong, such as {measurement.wrong_shown[0]}")
    return measurement


# --- the table -------------------------------------------------------------------------------------------------------

COLUMNS: Mapping[str, Callable[[Measurement], float]] = {
    "receipts/s": lambda measurement: measurement.steady_per_second,
    "CPU ms": lambda measurement: measurement.cpu_ms,
    "p50 ms": lambda measurement: measurement.latency_ms["p50"],
    "p99 ms": lambda measurement: measurement.latency_ms["p99"],
    "calls": lambda measurement: sum(measurement.requests.values()) / measurement.messages,
    "MiB": lambda measurement: measurement.rss_peak_bytes / 2**20,
}


def table(condition: str, found: Mapping[str, Sequence[Measurement]]) -> Iterator[str]:
    titles = "".join(f"{title:>11}" for title in COLUMNS)
    yield f"{condition:63}{titles}{'rate x':>9}{'CPU x':>9}"
    medians = {
        name: {title: statistics.median(map(figure, measurements)) for title, figure in COLUMNS.items()}
        for name, measurements in found.items()
        if measurements
    }
    reference = medians.get(REFERENCE)
    for name, figures in medians.items():
        cells = "".join(f"{_shown(value):>11}" for value in figures.values())
        faster = reference["receipts/s"] / figures["receipts/s"] if reference else math.nan
        cheaper = figures["CPU ms"] / reference["CPU ms"] if reference else math.nan
        yield f"{name:63}{cells}{faster:>9.2f}{cheaper:>9.2f}"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def environment_for_asyncio(folder: Path, tell: Callable[[str], None]) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        tell(f"making an environment for aiobotocore in {folder}")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *ASYNCIO_REQUIREMENTS], check=True)
    return python


def describe(asyncio_python: Path) -> Iterator[str]:
    script = f"from importlib.metadata import version; print(*map(version, {ASYNCIO_REQUIREMENTS!r}))"
    theirs = subprocess.run([str(asyncio_python), "-c", script], capture_output=True, text=True, check=True)
    versions = zip(ASYNCIO_REQUIREMENTS, theirs.stdout.split(), strict=True)
    libraries = [f"{name} {version(name)}" for name in ("boto3", "requests")] + [" ".join(each) for each in versions]
    yield f"CPython {platform.python_version()}, {os.cpu_count()} cores, {', '.join(libraries)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each program; medians are shown (default 5)")
    parser.add_argument("--messages", type=int, default=10_000, help="in each run (default 10000)")
    parser.add_argument("--output", type=Path, help="file that gets the tables, too")
    parser.add_argument("--asyncio-python", type=Path, help="a Python that has aiobotocore, aiohttp, orjson and uvloop")
    parser.add_argument("--work-dir", type=Path, help="where the environment for aiobotocore is made, and kept")
    options = parser.parse_args()

    def tell(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    with tempfile.TemporaryDirectory(prefix="receipt-benchmark-") as temporary:
        folder = (options.work_dir or Path(temporary)) / "asyncio-environment"
        asyncio_python = options.asyncio_python or environment_for_asyncio(folder, tell)
        lines = [*describe(asyncio_python), f"{options.messages:,} messages, medians of {options.runs} runs"]
        lines += [f"rate x, CPU x: how many times as fast, and as cheap, {REFERENCE} in one process is"]
        failures: list[str] = []
        for condition, service_options in CONDITIONS.items():
            tell(condition)
            with Services(service_options) as services:
                services.prepare(Load(options.messages))
                findings = measure(services, list(programs(condition, asyncio_python)), options.runs, tell)
            lines += ["", *table(condition, findings.measurements)]
            failures += findings.failures
    text = "\n".join([*lines, *(f"failed: {failure}" for failure in failures)]) + "\n"
    sys.stdout.write(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
