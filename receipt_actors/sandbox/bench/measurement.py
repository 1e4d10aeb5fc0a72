"""What a run came to: figures out of what the services saw and what the processes used. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

STEADY_SHARE = 0.8  #: of the messages, those in the middle: no ramp, no tail
PERCENTS = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at the program under load."""

    at_seconds: float  #: since the load began
    in_flight: int  #: received and not deleted
    deleted: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run. Latencies are from the response that brought a message to the request that deleted it."""

    messages: int
    body_bytes: int
    seconds: float  #: from the first receive to the last delete
    per_second: float
    steady_per_second: float  #: of the middle 80 %
    cpu_ms: float  #: of the program and its children, for each receipt, from the load's begin to its end
    services_cpu_ms: Mapping[str, float]  #: of each simulated service, likewise
    start_seconds: float  #: from the start of the process to its first request for messages
    start_cpu_seconds: float  #: what it had used when the load began
    rss_start_bytes: int
    rss_peak_bytes: int
    in_flight_peak: int
    latency_ms: Mapping[str, float]  #: p50, p95, p99
    apple_latency_ms: Mapping[str, float]  #: what the simulated App Store took, likewise
    apple_concurrency_peak: int
    requests: Mapping[str, int]  #: by operation
    entries: Mapping[str, int]  #: in them: messages, statements
    wrong: int  #: answers that were not as they should be, or not in order
    wrong_shown: Sequence[str]
    redelivered: int
    exit_code: int | None
    samples: Sequence[Sample] = field(repr=False)
    finished: Sequence[tuple[float, float]] = field(
        repr=False
    )  #: when (since the load began), and its latency, in seconds

    @property
    def memory_bytes(self) -> float:
        """For each receipt in flight at the peak, beyond its body."""
        if not self.in_flight_peak:
            return 0.0
        return (self.rss_peak_bytes - self.rss_start_bytes) / self.in_flight_peak - self.body_bytes

    @property
    def calls_per_receipt(self) -> float:
        """Requests to all services for each receipt."""
        return sum(self.requests.values()) / self.messages

    def fill(self, operation: str) -> float | None:
        """Entries in each request of an operation; None where there was none."""
        requests = self.requests.get(operation, 0)
        return self.entries.get(operation, 0) / requests if requests else None

    def as_json(self) -> dict[str, Any]:
        """All of it, derived figures too."""
        return {**asdict(self), "memory_bytes": self.memory_bytes, "calls_per_receipt": self.calls_per_receipt}


def percentiles_ms(values_seconds: Sequence[float]) -> dict[str, float]:
    """The values that 50, 95 and 99 % do not exceed, in milliseconds; nothing of nothing."""
    ordered = sorted(values_seconds)
    return {
        f"p{percent}": 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
        for percent in PERCENTS
        if ordered
    }


def steady_per_second(finished_at: Sequence[float]) -> float:
    """The rate of the middle 80 %."""
    ordered = sorted(finished_at)
    margin = int(len(ordered) * (1 - STEADY_SHARE) / 2)
    first, last = margin, len(ordered) - 1 - margin
    if last <= first or ordered[last] <= ordered[first]:
        return 0.0
    return (last - first) / (ordered[last] - ordered[first])
