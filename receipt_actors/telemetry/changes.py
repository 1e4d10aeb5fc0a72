"""What was counted, and what processes took, between two looks at the same system.

A restart of who counts makes counts smaller: then all of the later count is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import TypeVar

from receipt_actors.telemetry.latencies import Latencies
from receipt_actors.telemetry.overview import Overview, Usage
from receipt_actors.telemetry.statistics import ServiceCalls, StatisticsSnapshot

Key = TypeVar("Key", bound=Hashable)


def increase(earlier: int, later: int) -> int:
    """Return by how much a counter that may have begun anew has grown."""
    return later - earlier if later >= earlier else later


def change(earlier: StatisticsSnapshot, later: StatisticsSnapshot) -> StatisticsSnapshot:
    """Return what was counted after ``earlier`` and until ``later``."""
    calls = {
        service: ServiceCalls(
            increase(earlier.calls.get(service, ServiceCalls()).requests, calls.requests),
            increase(earlier.calls.get(service, ServiceCalls()).entries, calls.entries),
        )
        for service, calls in later.calls.items()
    }
    return StatisticsSnapshot(
        increase(earlier.received, later.received),
        _counts(earlier.results, later.results),
        _counts(earlier.fates, later.fates),
        _latencies(earlier.latencies, later.latencies),
        {step: _latencies(earlier.steps.get(step, Latencies()), counted) for step, counted in later.steps.items()},
        calls,
        _counts(earlier.incidents, later.incidents),
    )


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


def _latencies(earlier: Latencies, later: Latencies) -> Latencies:
    return later.since(earlier) if later.count >= earlier.count else later.copy()


def _counts(earlier: Mapping[Key, int], later: Mapping[Key, int]) -> Mapping[Key, int]:
    return Counter({key: grown for key, count in later.items() if (grown := increase(earlier.get(key, 0), count))})
