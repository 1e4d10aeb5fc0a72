"""The figures of a measurement, in the order in which people read them, and their medians over runs. Pure."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from receipt_actors.sandbox.bench.measurement import Measurement

KIBIBYTE, MEBIBYTE = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one run."""

    section: str
    name: str
    value: float
    digits: int = 0  #: behind the point, where people read it

    @property
    def key(self) -> str:
        return f"{self.section}: {self.name}"


@dataclass(frozen=True, slots=True)
class Series:
    """Several runs under the same conditions."""

    label: str  #: what is special about it
    runs: Sequence[Measurement]
    flags: Sequence[str] = ()  #: of the program, beside those that lead it to the services
    processes: int = 1  #: that do the work
    client: str = ""  #: what asks Apple; "" if nothing does
    way: str = "verify-receipt"  #: how receipts were vouched for

    def medians(self) -> dict[str, Figure]:
        """The median of each figure, by its key; a figure that some runs lack is the median of the others."""
        return {
            key: Figure(figures[0].section, figures[0].name, _median(figures), figures[0].digits)
            for key, figures in self.figures().items()
        }

    def figures(self) -> dict[str, list[Figure]]:
        found: dict[str, list[Figure]] = {}
        for run in self.runs:
            for figure in figures_of(run):
                found.setdefault(figure.key, []).append(figure)
        return found

    def middle_run(self) -> Measurement:
        """The run whose rate is the median: the one to draw."""
        ordered = sorted(self.runs, key=lambda run: run.per_second)
        return ordered[len(ordered) // 2]

    def as_json(self) -> dict[str, Any]:
        medians = {key: figure.value for key, figure in self.medians().items()}
        return asdict(self) | {"medians": medians, "runs": [run.as_json() for run in self.runs]}


def figures_of(run: Measurement) -> Iterator[Figure]:
    """Name every figure of a run."""
    program, latencies = "CPU ms a receipt", "ms from receive to delete"
    yield Figure("rate", "receipts a second", run.per_second)
    yield Figure("rate", "of the middle 80 %", run.steady_per_second)
    yield Figure(program, "the program", run.cpu_ms, 3)
    if run.steady_cpu_ms:
        yield Figure(program, "the program, of the middle 80 %", run.steady_cpu_ms, 3)
    yield Figure(program, "simulated SQS and DynamoDB", run.services_cpu_ms["aws"], 3)
    yield Figure(program, "simulated App Store", run.services_cpu_ms["app_store"], 3)
    yield from (Figure(latencies, name, milliseconds, 1) for name, milliseconds in run.latency_ms.items())
    yield Figure(latencies, "p99 over Apple's p99", run.p99_over_apple_ms, 1)
    yield Figure(latencies, "p99 over Apple's p99, of the middle 80 %", run.steady_p99_over_apple_ms, 1)
    yield from (
        Figure("ms at Apple alone", name, milliseconds, 1) for name, milliseconds in run.apple_latency_ms.items()
    )
    for step, percentiles in run.steps_ms.items():
        yield from (Figure("ms of each step", f"{step} {name}", percentiles[name], 1) for name in ("p50", "p99"))
    yield Figure("machine", "% used by others meanwhile", 100 * run.others_share)
    yield Figure("in flight", "messages, at the peak", run.in_flight_peak)
    yield Figure("in flight", "questions to Apple, at the peak", run.apple_concurrency_peak)
    yield Figure("memory", "MiB before the load", run.rss_start_bytes / MEBIBYTE, 1)
    yield Figure("memory", "MiB at the peak", run.rss_peak_bytes / MEBIBYTE, 1)
    yield Figure("memory", "KiB a receipt in flight, beyond its body", run.memory_bytes / KIBIBYTE, 1)
    yield Figure("start", "seconds to the first receive", run.start_seconds, 2)
    yield Figure("start", "CPU seconds before the load", run.start_cpu_seconds, 2)
    yield Figure("calls a receipt", "all", run.calls_per_receipt, 3)
    for operation, requests in sorted(run.requests.items()):
        yield Figure("calls a receipt", operation, requests / run.messages, 3)
    for operation in sorted(run.requests):
        fill = run.fill(operation)
        if (fill and "Batch" in operation) or operation == "ReceiveMessage":
            yield Figure("entries a call", operation, fill or 0.0, 1)


def rows(series: Sequence[Series]) -> list[tuple[Figure, list[str]]]:
    """Return each figure that some series has, section by section, and what each series has to show for it."""
    columns = [each.figures() for each in series]
    known = {key: figures[0] for column in columns for key, figures in column.items()}
    sections = list(dict.fromkeys(figure.section for figure in known.values()))
    in_order = sorted(known.items(), key=lambda item: sections.index(item[1].section))
    return [(figure, [_shown(column.get(key, ())) for column in columns]) for key, figure in in_order]


def _shown(figures: Sequence[Figure]) -> str:
    """Show the median, and in brackets the least and the most of several runs."""
    if not figures:
        return ""
    values, digits = [figure.value for figure in figures], figures[0].digits
    median = f"{_median(figures):,.{digits}f}"
    return median if len(values) == 1 else f"{median} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def machine(cores: int) -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:  # no Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _median(figures: Sequence[Figure]) -> float:
    return statistics.median(figure.value for figure in figures)
