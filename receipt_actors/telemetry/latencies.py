"""``Latencies``: a histogram of durations that can be added up over processes.

Its buckets grow by 2 % each, so a percentile is right to 1 %; what is shorter than 10 microseconds counts as that. It
costs a dictionary entry for each bucket in use, however many durations are counted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

SHORTEST_SECONDS = 1e-5
_BUCKETS_PER_E = 1 / math.log(1.02)
_log = math.log


class Latencies:
    """See the module."""

    __slots__ = ("_buckets",)

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self._buckets: Counter[int] = Counter(buckets)

    def record(self, seconds: float) -> None:
        # Some five a receipt: without a call that can be avoided, 0.2 microseconds.
        self._buckets[int(_log(seconds / SHORTEST_SECONDS) * _BUCKETS_PER_E) if seconds > SHORTEST_SECONDS else 0] += 1

    @property
    def count(self) -> int:
        return self._buckets.total()

    def percentile_seconds(self, percent: float) -> float | None:
        """Return the duration that so many percent do not exceed; None where nothing was counted."""
        (percentile,) = _percentiles(sorted(self._buckets.items()), (percent,))
        return percentile

    def __add__(self, other: Latencies) -> Latencies:
        return Latencies(self._buckets + other._buckets)

    def since(self, earlier: Latencies) -> Latencies:
        """Return what was counted after ``earlier`` was; a bucket that has become smaller since counts as empty."""
        return Latencies(self._buckets - earlier._buckets)

    def counts(self) -> list[tuple[float, int]]:
        """Return each duration that was counted, to 1 %, and how often; the shortest first."""
        return [(_middle_seconds(bucket), self._buckets[bucket]) for bucket in sorted(self._buckets)]

    def counts_up_to(self, bounds_seconds: Sequence[float]) -> list[int]:
        """Count the durations up to each of these bounds, which rise. One near a bound may count as beyond it."""
        counts = [0] * len(bounds_seconds)
        for bucket, count in self._buckets.items():
            first = bisect_left(bounds_seconds, _middle_seconds(bucket))
            if first < len(counts):
                counts[first] += count
        return list(accumulate(counts))

    @property
    def sum_seconds(self) -> float:
        """All durations together, to 1 %."""
        return sum(count * _middle_seconds(bucket) for bucket, count in self._buckets.items())

    def copy(self) -> Latencies:
        return Latencies(self._buckets)

    def as_json(self) -> dict[str, object]:
        """Return what ``from_json`` reads, and the percentiles that people look for."""
        buckets = sorted(self._buckets.items())
        p50, p95, p99 = _percentiles(buckets, (50, 95, 99))
        return {
            "count": self.count,
            "p50_seconds": p50,
            "p95_seconds": p95,
            "p99_seconds": p99,
            "buckets": {str(key): n for key, n in buckets},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, int]]) -> Latencies:
        return cls({int(key): count for key, count in data["buckets"].items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Latencies) and self._buckets == other._buckets

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"<Latencies count={self.count} p50={self.percentile_seconds(50)} p99={self.percentile_seconds(99)}>"


def _middle_seconds(bucket: int) -> float:
    return SHORTEST_SECONDS * math.exp((bucket + 0.5) / _BUCKETS_PER_E)


def _percentiles(buckets: Sequence[tuple[int, int]], percents: Sequence[float]) -> list[float | None]:
    """Return the durations that so many percent (ascending) do not exceed, of sorted buckets."""
    if not buckets:
        return [None] * len(percents)
    total = sum(count for _, count in buckets)
    found: list[float | None] = []
    seen, rest = 0, iter(buckets)
    bucket, count = next(rest)
    for percent in percents:
        while seen + count < total * percent / 100:
            seen += count
            bucket, count = next(rest)
        found.append(SHORTEST_SECONDS * math.exp((bucket + 0.5) / _BUCKETS_PER_E))
    return found
