"""The figures that the project means to reach, measured here by ``receipt-actors bench``, beside their marks.

::

    python -m tests.benchmark.figures --output doc/performance-figures.txt   # medians of 5 runs, about a quarter hour
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NO_LATENCY = ("--no-latency",)
IN_FLIGHT = (500, 5000)  #: at which memory is compared
CONNECTIONS = 250  #: to Apple, meanwhile: what is in flight beyond them waits here, without one


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    unit: str
    measured: float
    at_least: float
    aim: float

    def __str__(self) -> str:
        cells = "".join(f"{value:>12,.3g}" if value < 100 else f"{value:>12,.0f}" for value in self._values())
        return f"{self.name:66}{self.unit:>10}{cells}"

    def _values(self) -> Sequence[float]:
        return self.measured, self.at_least, self.aim


class Bench:
    def __init__(self, folder: Path, runs: int, messages: int) -> None:
        self._folder = folder
        self._runs = runs
        self._messages = messages

    def run(self, *flags: str, runs: int | None = None, plot: Path | None = None) -> Mapping[str, Any]:
        report = self._folder / "report.json"
        command = [sys.executable, "-m", "receipt_actors", "bench", "--runs", str(runs or self._runs)]
        command += ["--messages", str(self._messages), "--json", str(report), *flags]
        if plot is not None:
            command[4:4] = ["--plot", str(plot)]
        sys.stderr.write(f"bench {' '.join(flags)}\n")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: Mapping[str, Any] = json.loads(report.read_text())
        return found

    def ratio(self, figure: str, these: Sequence[str], those: Sequence[str]) -> float:
        """Return how many times as large a figure is with these flags as with those: run by turns, for the machine's
        speed changes within minutes.
        """
        ratios = []
        for _ in range(self._runs):
            this, that = (medians(self.run(*flags, runs=1))[figure] for flags in (these, those))
            ratios.append(this / that)
        return statistics.median(ratios)


def medians(report: Mapping[str, Any]) -> Mapping[str, float]:
    found: Mapping[str, float] = report["series"][0]["medians"]
    return found


def memory_slope_bytes(reports: Sequence[Mapping[str, Any]]) -> float:
    """Return what a receipt more in flight takes, beyond its body, without what does not grow with the load."""
    runs = [run for report in reports for run in report["series"][0]["runs"]]
    in_flight, memory = ([run[name] for run in runs] for name in ("in_flight_peak", "rss_peak_bytes"))
    slope, _ = statistics.linear_regression(in_flight, memory)
    return slope - float(runs[0]["body_bytes"])


def measure(bench: Bench, plot: Path | None) -> Sequence[Row]:
    rate, cpu = "rate: of the middle 80 %", "CPU ms a receipt: the program, of the middle 80 %"
    full = medians(bench.run("--", "--processes", "2", plot=plot))
    half = medians(bench.run("--rate", str(full[rate] / 2), "--", "--processes", "2"))
    one = (*NO_LATENCY, "--", "--transport", "auto")
    fast = bench.run(*one)
    requests = bench.run(*NO_LATENCY, "--", "--transport", "threads")
    twice = bench.ratio(cpu, (*one, "--processes", "2"), one)
    concurrency = ("--app-store-concurrency", str(CONNECTIONS))
    memory = [bench.run("--", "--max-in-flight", str(limit), *concurrency) for limit in IN_FLIGHT]
    over_apple = "ms from receive to delete: p99 over Apple's p99"
    return [
        Row("receipts/s, 2 processes on 2 cores, services beside them", "1/s", full[rate], 1500, 3000),
        Row("CPU a receipt, no latency, one process, with curl", "ms", medians(fast)[cpu], 0.8, 0.5),
        Row("CPU a receipt, no latency, one process, with requests", "ms", medians(requests)[cpu], 1.2, 0.9),
        Row("CPU a receipt with two processes, against one", "times", twice, 1.1, 1.03),
        Row("p99 at half load over Apple's own, middle 80 %", "ms", half[f"{over_apple}, of the middle 80 %"], 60, 35),
        Row("the same, with the second in which connections are opened", "ms", half[over_apple], 60, 35),
        Row("memory of one more receipt in flight, beyond its body", "KiB", memory_slope_bytes(memory) / 1024, 12, 6),
        Row("start to the first receive", "s", medians(fast)["start: seconds to the first receive"], 1.5, 0.7),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each; medians are shown (default 5)")
    parser.add_argument("--messages", type=int, default=20_000, help="in each run (default 20000)")
    parser.add_argument("--output", type=Path, help="file that gets the table, too")
    parser.add_argument("--plot", type=Path, help="file that gets the plot of the first of them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="receipt-figures-") as folder:
        rows = measure(Bench(Path(folder), options.runs, options.messages), options.plot)
    title = f"{f'medians of {options.runs} runs of {options.messages:,} messages':76}"
    text = "\n".join([f"{title}{'here':>12}{'mark':>12}{'aim':>12}", *map(str, rows)]) + "\n"
    sys.stdout.write(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
