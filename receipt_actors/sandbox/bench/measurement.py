"""What a run came to: figures out of what the services saw and what the processes used. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

STEADY_SHARE = 0.8  #: of the messages, those in the middle: no ramp, no tail
MIN_LOOKS = 5  #: at the middle 80 %, to say what CPU time that took
PERCENTS = (50, 95, 99)
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
