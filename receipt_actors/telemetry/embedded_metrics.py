"""CloudWatch's embedded metric format: metrics as lines of the log. The manual (operations) lists them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from receipt_actors.domain.messages import Verdict
from receipt_actors.telemetry.control import SystemControl, Watcher
from receipt_actors.telemetry.logs import LogWriter
from receipt_actors.telemetry.overview import Overview, State
from receipt_actors.telemetry.statistics import Latencies, ServiceCalls, StatisticsSnapshot, increase

NAMESPACE = "ReceiptActors"
SOURCE_QUEUE_DIMENSION = "SourceQueue"
MAX_VALUES = 100  #: that a metric may have in a line, says CloudWatch
_NO_LIFE = frozenset({State.ENDED, State.SILENT})
_NO_WORK = frozenset({State.PAUSED, State.DRAINING, State.ENDED})  #: whatever share it has
_INCIDENTS = {"crash": "Crashes", "restart": "Restarts", "unknown_answer": "UnknownAnswers"}
_Metrics: TypeAlias = dict[str, tuple[str, object]]  # unit and value by name
_FATES = {"answered": "Answered", "handed_back": "HandedBack", "moved": "Moved", "left": "Left"}


def embedded_metrics(
    earlier: Overview, later: Overview, dimensions: Mapping[str, str] | None = None
) -> Sequence[dict[str, Any]]:
    """Return the documents of what happened between two overviews, one for each source queue.

    With ``dimensions`` every metric is there twice: by ``SourceQueue``, and by all of them.
    """
    new = later.statistics.since(earlier.statistics)
    seconds = later.at_seconds - earlier.at_seconds
    first, *others = later.source_queues
    of_each = {queue: _metrics_of_source(later, new, queue) for queue in others}
    metrics: _Metrics = {
        **_metrics_of_source(later, new, first if others else None),
        **{name: ("Count", new.count(fate)) for fate, name in _FATES.items()},
        **{f"Answered{verdict}": ("Count", _results(new.results, verdict)) for verdict in Verdict},
        "InFlight": ("Count", sum(process.in_flight for process in later.processes)),
        "Retries": ("Count", _retries(earlier, later)),
        "UnavailableServices": ("Count", len({name for process in later.processes for name in process.unavailable})),
        **{name: ("Count", new.incidents.get(kind, 0)) for kind, name in _INCIDENTS.items()},
        "CPU": ("Percent", round(100 * later.cpu_seconds_since(earlier) / seconds, 1) if seconds > 0 else 0.0),
        "Memory": ("Bytes", sum(usage.memory_bytes for usage in later.usages.values())),
    }
    if later.role is not None:
        is_active = later.role.is_active and later.state not in _NO_WORK
        metrics |= {"Active": ("Count", int(is_active)), "Nodes": ("Count", len(later.role.nodes))}
    timed = {"Latency": new.latencies}
    timed |= {f"Latency{step.title().replace('_', '')}": latencies for step, latencies in new.steps.items()}
    metrics |= {name: ("Seconds", _values(latencies)) for name, latencies in timed.items() if latencies.count}
    return [_document(later, queue, its, dict(dimensions or {})) for queue, its in {first: metrics, **of_each}.items()]


def _metrics_of_source(later: Overview, new: StatisticsSnapshot, queue: str | None) -> _Metrics:
    received = new.received if queue is None else new.calls.get(f"receive from {queue}", ServiceCalls()).entries
    return {
        "Heartbeat": ("Count", sum(process.state not in _NO_LIFE for process in later.processes)),
        "Received": ("Count", received),
    }


def _document(later: Overview, queue: str, metrics: _Metrics, more: Mapping[str, str]) -> dict[str, Any]:
    shared = {SOURCE_QUEUE_DIMENSION: queue}
    sets = [list(shared), [*shared, *more]] if more else [list(shared)]
    definitions = [{"Name": name, "Unit": unit} for name, (unit, _value) in metrics.items()]
    return {
        "_aws": {
            "Timestamp": int(later.at_seconds * 1000),
            "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": sets, "Metrics": definitions}],
        },
        **shared,
        **more,
        **{name: value for name, (_unit, value) in metrics.items()},
    }


def _results(results: Mapping[tuple[Verdict, Any], int], wanted: Verdict) -> int:
    return sum(count for (verdict, _reason), count in results.items() if verdict is wanted)


def _retries(earlier: Overview, later: Overview) -> int:
    def counted(overview: Overview) -> dict[int, int]:
        return {process.pid: sum(each.retries for each in process.services) for process in overview.processes}

    before = counted(earlier)  # a process that is new has all it has from this time
    return sum(increase(before.get(pid, 0), count) for pid, count in counted(later).items())


def _values(latencies: Latencies) -> dict[str, object]:
    # At most ``MAX_VALUES``: neighbours become one, their mean.
    counts = latencies.counts()
    width = -(-len(counts) // MAX_VALUES)
    groups = [counts[start : start + width] for start in range(0, len(counts), width)]
    totals = [sum(count for _seconds, count in group) for group in groups]
    sums = [sum(seconds * count for seconds, count in group) for group in groups]
    return {
        "Values": [_rounded(sum_ / total) for sum_, total in zip(sums, totals, strict=True)],
        "Counts": totals,
        "Min": _rounded(counts[0][0]),
        "Max": _rounded(counts[-1][0]),
        "Sum": _rounded(sum(sums)),
        "Count": sum(totals),
    }


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.4g}")


class MetricsLog(Watcher):
    """Writes the metrics to a file descriptor at each interval, and when it is closed, without waiting for a reader."""

    def __init__(
        self, descriptor: int, *, interval_seconds: float = 60.0, dimensions: Mapping[str, str] | None = None
    ) -> None:
        super().__init__("metrics")
        self._writer = LogWriter(descriptor)
        self._interval_seconds = interval_seconds
        self._dimensions = dimensions

    def close(self) -> None:
        super().close()
        self._writer.close()

    def _run(self, system: SystemControl) -> None:
        # What was counted since the start belongs to the first line.
        earlier = replace(system.overview(), statistics=StatisticsSnapshot())
        is_over = False
        while not is_over:
            is_over = self._is_over.wait(self._interval_seconds)
            later = system.overview()
            for document in embedded_metrics(earlier, later, self._dimensions):
                self._writer.handle(logging.makeLogRecord({"msg": json.dumps(document), "levelno": logging.INFO}))
            earlier = later
