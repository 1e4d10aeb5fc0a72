"""What was counted, and what processes took, between two looks at the same system.

A restart of who counts makes counts smaller: then all of the later count is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from receipt_actors.telemetry.latencies import Latencies
from receipt_actors.telemetry.overview import Overview, Usage
from receipt_actors.telemetry.statistics import StatisticsSnapshot, combined


def increase(earlier: int, later: int) -> int:
    """Return by how much a counter that may have begun anew has grown."""
    return later - earlier if later >= earlier else later


def _grown(earlier: Any, later: Any) -> Any:
    if not isinstance(later, Latencies):
        return increase(earlier, later)
    return later.since(earlier) if later.count >= earlier.count else later.copy()


def change(earlier: StatisticsSnapshot, later: StatisticsSnapshot) -> StatisticsSnapshot:
    """Return what was counted after ``earlier`` and until ``later``."""
    new: StatisticsSnapshot = combined(_grown, earlier, later)
    return new


def cpu_seconds(earlier: Overview, later: Overview) -> float:
    """Sum up what the processes took; one that is new took all it has in this time."""
    before = usages(earlier)
    return sum(
        max(0.0, usage.cpu_seconds - (before[pid].cpu_seconds if pid in before else 0.0))
        for pid, usage in usages(later).items()
    )


def usages(overview: Overview) -> Mapping[int, Usage]:
    """Return what each process takes, by its id; 0 stands for the parent."""
    of_processes = {process.pid: process.usage for process in overview.processes}
    return of_processes if overview.parent_usage is None else {0: overview.parent_usage, **of_processes}
