"""Statistics: counters and latencies of what went through the house.

It owns the counts since it was started; a crash of it forgets them, and nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import From, GenServer
from receipt_actors.telemetry.events import MessageFinished, MessagesReceived, ResultPosted

REMEMBERED_LATENCIES = 10_000  #: the newest of them; percentiles are of these


@dataclass(frozen=True, slots=True)
class DescribeStatistics:
    """Say what has been counted: ``StatisticsSnapshot``."""


@dataclass(frozen=True, slots=True)
class StatisticsSnapshot:
    """What has been counted since the start."""

    received: int  #: deliveries, redeliveries included
    results: Mapping[tuple[Verdict, Reason], int]  #: answers that a post queue confirmed
    fates: Mapping[tuple[str, Reason | None], int]  #: ``answered``, ``moved``, ``handed_back``, ``left``, and why
    latencies_seconds: Sequence[float]  #: from receive to delete, of answered and moved messages, sorted

    def count(self, fate: str) -> int:
        """Count the messages of one fate."""
        return sum(count for (name, _reason), count in self.fates.items() if name == fate)

    def percentile_seconds(self, percent: float) -> float | None:
        """Return the latency that so many percent do not exceed; None where nothing was finished."""
        latencies = self.latencies_seconds
        if not latencies:
            return None
        return latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))]


class Statistics(GenServer):
    """See the module."""

    def __init__(self) -> None:
        self._received = 0
        self._results: Counter[tuple[Verdict, Reason]] = Counter()
        self._fates: Counter[tuple[str, Reason | None]] = Counter()
        self._latencies: deque[float] = deque(maxlen=REMEMBERED_LATENCIES)

    def handle_cast(self, request: Any) -> Any:
        """Count."""
        match request:
            case MessagesReceived(count):
                self._received += count
            case ResultPosted(verdict, reason):
                self._results[verdict, reason] += 1
            case MessageFinished(fate, reason, seconds):
                self._fates[fate, reason] += 1
                if fate in ("answered", "moved"):
                    self._latencies.append(seconds)
            case _:
                return super().handle_cast(request)
        return None

    def handle_call(self, request: Any, from_: From) -> Any:
        """Describe what has been counted."""
        if not isinstance(request, DescribeStatistics):
            return super().handle_call(request, from_)
        return StatisticsSnapshot(
            self._received, dict(self._results), dict(self._fates), tuple(sorted(self._latencies))
        )
