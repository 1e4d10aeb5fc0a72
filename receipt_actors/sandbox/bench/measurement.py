"""What a run came to: its figures, their medians over runs, and plots over time. Pure but for the plots."""

from __future__ import annotations

import math
import platform
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

STEADY_SHARE = 0.8  #: of the messages, those in the middle: no ramp, no tail
MIN_LOOKS = 5  #: at the middle 80 %, to say what CPU time that took
PERCENTS = (50, 95, 99)
TITLE_COLUMNS = 80  #: characters that a line of a plot's title has room for
MAX_SLICES = 60
SHORTEST_SLICE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Slice:
    """What happened in a piece of the run."""

    at_seconds: float  #: its middle, since the load began
    per_second: float
    latency_ms: Mapping[str, float]  #: of the messages that were finished in it; empty where none was


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run. Latencies are from the response that brought a message to the request that deleted it."""

    messages: int
    body_bytes: int
    rate: float | None  #: messages made available a second; None: all at once
    seconds: float  #: from the first receive to the last delete
    per_second: float
    steady_per_second: float  #: of the middle 80 %
    cpu_ms: float  #: of the program and its children, for each receipt, from the load's begin to its end
    steady_cpu_ms: float  #: the same of the middle 80 %: without what it takes to open connections; 0: too few to say
    services_cpu_ms: Mapping[str, float]  #: of each simulated service, likewise
    start_seconds: float  #: from the start of the process to its first request for messages
    start_cpu_seconds: float  #: what it had used when the load began
    rss_start_bytes: int
    rss_peak_bytes: int
    in_flight_peak: int
    latency_ms: Mapping[str, float]  #: p50, p95, p99
    steady_latency_ms: Mapping[str, float]  #: of those that came in the middle 80 %: without the first connections
    apple_latency_ms: Mapping[str, float]  #: what the simulated App Store took, likewise
    apple_concurrency_peak: int
    requests: Mapping[str, int]  #: by operation
    entries: Mapping[str, int]  #: in them: messages, statements
    wrong: int  #: answers that were not as they should be, or not in order
    wrong_shown: Sequence[str]  #: the first of them, in words
    redelivered: int
    repeated: int  #: answers that were sent again, the same, because their message was delivered again
    others_share: float  #: of the machine's CPU time during the load, used by programs that have no part in it
    slices: Sequence[Slice] = field(repr=False)
    steps_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Percentiles of the program's own steps, where it tells of them; the harness does not see them."""

    @property
    def memory_bytes(self) -> float:
        """For each receipt in flight at the peak, beyond its body: all that the process has grown by."""
        if not self.in_flight_peak:
            return 0.0
        return (self.rss_peak_bytes - self.rss_start_bytes) / self.in_flight_peak - self.body_bytes

    @property
    def calls_per_receipt(self) -> float:
        """Requests to all services for each receipt."""
        return sum(self.requests.values()) / self.messages

    @property
    def p99_over_apple_ms(self) -> float:
        """How much longer than Apple alone: the difference of the two p99."""
        return self.latency_ms.get("p99", 0.0) - self.apple_latency_ms.get("p99", 0.0)

    @property
    def steady_p99_over_apple_ms(self) -> float:
        return self.steady_latency_ms.get("p99", 0.0) - self.apple_latency_ms.get("p99", 0.0)

    def fill(self, operation: str) -> float | None:
        """Entries in each request of an operation; None where there was none."""
        requests = self.requests.get(operation, 0)
        return self.entries.get(operation, 0) / requests if requests else None

    def as_json(self) -> dict[str, Any]:
        derived = ("memory_bytes", "calls_per_receipt", "p99_over_apple_ms", "steady_p99_over_apple_ms")
        return asdict(self) | {name: getattr(self, name) for name in derived}


def percentiles_ms(values_seconds: Sequence[float]) -> dict[str, float]:
    """The values that 50, 95 and 99 % do not exceed, in milliseconds; nothing of nothing."""
    ordered = sorted(values_seconds)
    return {
        f"p{percent}": 1000 * ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
        for percent in PERCENTS
        if ordered
    }


def steady(values_in_order: Sequence[float]) -> Sequence[float]:
    """The middle 80 % of values that are in the order of time."""
    margin = round(len(values_in_order) * (1 - STEADY_SHARE) / 2)
    return values_in_order[margin : len(values_in_order) - margin]


def steady_per_second(finished_at: Sequence[float]) -> float:
    """The rate of the middle 80 %; 0 where there are too few to say."""
    middle = steady(sorted(finished_at))
    if len(middle) < 2 or middle[-1] <= middle[0]:
        return 0.0
    return (len(middle) - 1) / (middle[-1] - middle[0])


def steady_cpu_ms(looks: Sequence[tuple[int, float]]) -> float:
    """CPU time for each message of the middle 80 %, out of looks at (messages done, CPU seconds used), in their order.

    0 where the looks are too few or too far between.
    """
    total = looks[-1][0] if looks else 0
    margin = total * (1 - STEADY_SHARE) / 2
    inside = [look for look in looks if margin <= look[0] <= total - margin]
    if len(inside) < MIN_LOOKS or inside[-1][0] == inside[0][0]:
        return 0.0
    (first_done, first_seconds), (last_done, last_seconds) = inside[0], inside[-1]
    return 1000 * (last_seconds - first_seconds) / (last_done - first_done)


def in_flight_peak(received_at: Sequence[float], deleted_at: Sequence[float]) -> int:
    """The most messages that were received and not deleted at one time."""
    changes = sorted([*((at, 1) for at in received_at), *((at, -1) for at in deleted_at)])
    peak = now = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak


def slices(finished: Sequence[tuple[float, float]]) -> list[Slice]:
    """Cut a run into at most 60 equal pieces; ``finished`` says of each message when, and its latency, in seconds."""
    if not finished:
        return []
    end = max(at for at, _ in finished)
    width = max(end / MAX_SLICES, SHORTEST_SLICE_SECONDS)
    pieces: list[list[float]] = [[] for _ in range(max(1, math.ceil(end / width)))]
    for at, latency in finished:
        pieces[min(int(at / width), len(pieces) - 1)].append(latency)
    return [
        Slice((number + 0.5) * width, len(latencies) / width, percentiles_ms(latencies))
        for number, latencies in enumerate(pieces)
    ]


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
        return {key: replace(figures[0], value=_median(figures)) for key, figures in self.figures().items()}

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


def write_plot(path: Path, series: Sequence[Series], title: str) -> None:
    """Draw rate and latency over time, in the format that the extension says. Needs matplotlib."""
    from matplotlib.figure import Figure as Drawing  # takes its time to import

    drawing = Drawing(figsize=(9.0, 6.4), layout="constrained")
    drawing.suptitle(textwrap.fill(title, TITLE_COLUMNS))
    rate, latency = drawing.subplots(2, 1)
    for each in series:
        slices = each.middle_run().slices
        rate.plot([piece.at_seconds for piece in slices], [piece.per_second for piece in slices], label=each.label)
        finished = [piece for piece in slices if piece.latency_ms]
        color = None
        for percentile, style in (("p50", "-"), ("p99", "--")):
            times, values = [each.at_seconds for each in finished], [each.latency_ms[percentile] for each in finished]
            (line,) = latency.plot(times, values, style, color=color, label=f"{each.label}, {percentile}")
            color = line.get_color()
    for axes, what in ((rate, "receipts a second"), (latency, "ms from receive to delete")):
        axes.set(xlabel="seconds since the load began", ylabel=what, ylim=(0, None))
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    drawing.savefig(path, dpi=150)
