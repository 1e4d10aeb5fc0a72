"""The last minutes in samples: what was done from one look at the system to another. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from receipt_actors.admin.limits import HISTORY_SAMPLES, LOOK_SECONDS, SAMPLE_LOOKS
from receipt_actors.telemetry.overview import Overview
from receipt_actors.telemetry.statistics import Latencies


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened between two looks. Counts are of this interval."""

    at_seconds: float  #: UNIX time of its end
    seconds: float  #: how long it was
    received: int
    answered: int
    handed_back: int
    moved: int
    in_flight: int  #: at its end
    p50_seconds: float | None  #: from receive to delete, of what was finished in it; None: nothing was
    p95_seconds: float | None
    p99_seconds: float | None
    cpu_seconds: float  #: of all processes
    queue_depth: int | None  #: of the source queues together, at its end; None: not known
    steps: Mapping[str, Mapping[str, float | None]]  #: the same percentiles, of each step

    def as_json(self) -> dict[str, Any]:
        """Return its fields; to be read only: ``asdict`` would copy hundreds of samples for each page."""
        return {name: getattr(self, name) for name in self.__slots__}


def sample_between(before: Overview, after: Overview) -> Sample:
    """Say what was done between two looks."""
    done = after.statistics.since(before.statistics)
    return Sample(
        at_seconds=after.at_seconds,
        seconds=max(0.0, after.at_seconds - before.at_seconds),
        received=done.received,
        answered=done.count("answered"),
        handed_back=done.count("handed_back"),
        moved=done.count("moved"),
        in_flight=sum(process.in_flight for process in after.processes),
        **_percentiles(done.latencies),
        cpu_seconds=after.cpu_seconds_since(before),
        queue_depth=after.waiting,
        steps={step: _percentiles(latencies) for step, latencies in done.steps.items()},
    )


def _percentiles(latencies: Latencies) -> dict[str, float | None]:
    return {f"p{percent}_seconds": latencies.percentile_seconds(percent) for percent in (50, 95, 99)}


class History:
    """The newest samples; the first look makes none."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=HISTORY_SAMPLES)
        self._last: Overview | None = None

    @property
    def newest(self) -> Sample | None:
        """The last sample, if there is one."""
        return self._samples[-1] if self._samples else None

    def add(self, overview: Overview) -> None:
        """Take the sample from the last look to this one."""
        if self._last is not None:
            self._samples.append(sample_between(self._last, overview))
        self._last = overview

    def as_json(self) -> dict[str, Any]:
        """Return all samples, oldest first."""
        interval_seconds = LOOK_SECONDS * SAMPLE_LOOKS
        return {"interval_seconds": interval_seconds, "samples": [sample.as_json() for sample in self._samples]}
