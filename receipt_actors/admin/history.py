"""The last minutes in samples: what was done from one look at the system to another. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any

from receipt_actors.admin.limits import HISTORY_SAMPLES, LOOK_SECONDS, SAMPLE_LOOKS
from receipt_actors.telemetry.overview import Overview
from receipt_actors.telemetry.statistics import Latencies


def sample_between(before: Overview, after: Overview) -> dict[str, Any]:
    """Say in JSON's types what was done between two looks. Counts are of this interval."""
    done = after.statistics.since(before.statistics)
    return {
        "at_seconds": after.at_seconds,  # UNIX time of its end
        "seconds": max(0.0, after.at_seconds - before.at_seconds),
        "received": done.received,
        "answered": done.count("answered"),
        "handed_back": done.count("handed_back"),
        "moved": done.count("moved"),
        "in_flight": sum(process.in_flight for process in after.processes),
        **_percentiles(done.latencies),  # from receive to delete, of what was finished in it; None: nothing was
        "cpu_seconds": after.cpu_seconds_since(before),  # of all processes
        "queue_depth": after.waiting,  # of the source queues together; None: not known
        "steps": {step: _percentiles(latencies) for step, latencies in done.steps.items()},
    }


def _percentiles(latencies: Latencies) -> dict[str, float | None]:
    return {f"p{percent}_seconds": latencies.percentile_seconds(percent) for percent in (50, 95, 99)}


class History:
    """The newest samples; the first look makes none."""

    def __init__(self) -> None:
        self._samples: deque[dict[str, Any]] = deque(maxlen=HISTORY_SAMPLES)
        self._last: Overview | None = None

    @property
    def newest(self) -> dict[str, Any] | None:
        return self._samples[-1] if self._samples else None

    def add(self, overview: Overview) -> None:
        if self._last is not None:
            self._samples.append(sample_between(self._last, overview))
        self._last = overview

    def as_json(self) -> dict[str, Any]:
        interval_seconds = LOOK_SECONDS * SAMPLE_LOOKS
        return {"interval_seconds": interval_seconds, "samples": list(self._samples)}
