"""``Latencies``: a histogram of durations that can be added up over processes."""

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
    """A histogram whose buckets grow by 2 % each: a percentile is right to 1 %. Shorter than 10 us counts as that."""

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
        """Return the duration that so many percent do not exceed; None if nothing was counted."""
        buckets = sorted(self._buckets)
        if not buckets:
            return None
        counts = list(accumulate(self._buckets[bucket] for bucket in buckets))
        return _middle_seconds(buckets[bisect_left(counts, counts[-1] * percent / 100)])

    def __add__(self, other: Latencies) -> Latencies:
        return Latencies(self._buckets + other._buckets)

    def since(self, earlier: Latencies) -> Latencies:
        """Return what was counted after ``earlier``; a bucket that is smaller now counts as empty."""
        return Latencies(self._buckets - earlier._buckets)

    def counts(self) -> list[tuple[float, int]]:
        """Return each duration, to 1 %, and how often it was counted; the shortest first."""
        return [(_middle_seconds(bucket), self._buckets[bucket]) for bucket in sorted(self._buckets)]

    def counts_up_to(self, bounds_seconds: Sequence[float]) -> list[int]:
        """Count the durations up to each of these rising bounds. One near a bound may count as beyond it."""
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
        """Return what ``from_json`` reads, and the usual percentiles."""
        percentiles = {f"p{percent}_seconds": self.percentile_seconds(percent) for percent in (50, 95, 99)}
        buckets = {str(bucket): self._buckets[bucket] for bucket in sorted(self._buckets)}
        return {"count": self.count, **percentiles, "buckets": buckets}

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
