"""Counters and latencies since the actor system was started.

Actors count in a ``StatisticsTable``, as Erlang's do in an ETS table: a message to an actor would cost ten times as
much. The actor system keeps the table, so no crash forgets it.
"""

from __future__ import annotations

import math
import operator
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, PlainSerializer, PlainValidator, TypeAdapter

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import ActorSystem

_TIMED_FATES = frozenset({"answered", "moved"})
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
        """Return the percentile; None if nothing was counted."""
        buckets = sorted(self._buckets)
        if not buckets:
            return None
        counts = list(accumulate(self._buckets[bucket] for bucket in buckets))
        return _middle_seconds(buckets[bisect_left(counts, counts[-1] * percent / 100)])

    def __add__(self, other: Latencies) -> Latencies:
        return Latencies(self._buckets + other._buckets)

    def since(self, earlier: Latencies) -> Latencies:
        return Latencies(self._buckets - earlier._buckets)

    def counts(self) -> list[tuple[float, int]]:
        """Return each duration, to 1 %, and its count; the shortest first."""
        return [(_middle_seconds(bucket), self._buckets[bucket]) for bucket in sorted(self._buckets)]

    def counts_up_to(self, bounds_seconds: Sequence[float]) -> list[int]:
        """Count the durations up to each of these rising bounds, to 1 %."""
        counts = [0] * len(bounds_seconds)
        for bucket, count in self._buckets.items():
            first = bisect_left(bounds_seconds, _middle_seconds(bucket))
            if first < len(counts):
                counts[first] += count
        return list(accumulate(counts))

    @property
    def sum_seconds(self) -> float:
        return sum(count * _middle_seconds(bucket) for bucket, count in self._buckets.items())

    def as_json(self) -> dict[str, object]:
        percentiles = {f"p{percent}_seconds": self.percentile_seconds(percent) for percent in (50, 95, 99)}
        buckets = {str(bucket): self._buckets[bucket] for bucket in sorted(self._buckets)}
        return {"count": self.count, **percentiles, "buckets": buckets}

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, int]]) -> Latencies:
        return cls({int(key): count for key, count in data["buckets"].items()})

    def __eq__(self, other: object) -> bool:  # and no hash: it changes
        return isinstance(other, Latencies) and self._buckets == other._buckets


def _middle_seconds(bucket: int) -> float:
    return SHORTEST_SECONDS * math.exp((bucket + 0.5) / _BUCKETS_PER_E)


class JsonValue:
    """Base of a dataclass that goes between processes as JSON: pydantic writes and reads it by its fields' types."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", revalidate_instances="never")

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON's types; ``from_json`` reads it again."""
        data: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what ``as_json`` wrote. Raises ``ValueError`` for anything else."""
        value: Self = _adapter(cls).validate_python(data)
        return value


_adapter: Callable[[Any], TypeAdapter[Any]] = lru_cache(TypeAdapter)


def _rows(first: str, kind: Callable[[Any], Any]) -> tuple[PlainValidator, PlainSerializer]:
    # JSON has no keys that are pairs: such counts are written as a list of objects.

    def read(rows: Any) -> Any:
        if isinstance(rows, Mapping):
            return rows
        return {
            (kind(row[first]), None if row["reason"] is None else Reason(row["reason"])): int(row["count"])
            for row in rows
        }

    def write(counts: Mapping[tuple[Any, Reason | None], int]) -> list[dict[str, object]]:
        return [{first: name, "reason": reason, "count": count} for (name, reason), count in counts.items()]

    return PlainValidator(read), PlainSerializer(write)


def _latencies(value: Any) -> Latencies:
    return value if isinstance(value, Latencies) else Latencies.from_json(value)


CountsByVerdict = Annotated[dict[tuple[Verdict, Reason], int], *_rows("verdict", Verdict)]
CountsByFate = Annotated[dict[tuple[str, Reason | None], int], *_rows("fate", str)]
Histogram = Annotated[Latencies, PlainValidator(_latencies), PlainSerializer(Latencies.as_json)]


@dataclass(slots=True)
class ServiceCalls(JsonValue):
    """The requests to a service."""

    requests: int = 0  #: that the service answered
    entries: int = 0  #: messages, claims or deletes that were in them
    failures: int = 0  #: requests that it did not answer
    retries: int = 0  #: entries that were tried again
    latencies: Histogram = field(default_factory=Latencies)  #: of requests that it answered; not of long polls


@dataclass(slots=True)
class StatisticsSnapshot(JsonValue):
    """What has been counted since the start, by one process or by several together (``merged``)."""

    received: int = 0  #: deliveries, redeliveries included
    results: CountsByVerdict = field(default_factory=dict)  #: that a post queue confirmed
    fates: CountsByFate = field(default_factory=dict)  #: ``answered``, ``moved``, ``handed_back``, ``left``, and why
    latencies: Histogram = field(default_factory=Latencies)  #: from receive to delete, of answered and moved messages
    steps: dict[str, Histogram] = field(default_factory=dict)  #: of that: ``verifying``, ``claiming``, ...
    calls: dict[str, ServiceCalls] = field(default_factory=dict)  #: by service
    incidents: dict[str, int] = field(default_factory=dict)  #: by kind; see ``telemetry.incidents``

    @property
    def answered(self) -> int:
        """The number of results that post queues have confirmed."""
        return sum(self.results.values())

    def count(self, fate: str) -> int:
        return sum(count for (name, _reason), count in self.fates.items() if name == fate)

    def merged(self, other: StatisticsSnapshot) -> StatisticsSnapshot:
        both: StatisticsSnapshot = _combined(operator.add, self, other)
        return both

    def since(self, earlier: StatisticsSnapshot) -> StatisticsSnapshot:
        """Return what was counted after ``earlier``."""
        new: StatisticsSnapshot = _combined(_grown, earlier, self)
        return new


def increase(earlier: int, later: int) -> int:
    """Return the growth of a counter; one that is smaller now has begun anew."""
    return later - earlier if later >= earlier else later


def _grown(earlier: Any, later: Any) -> Any:
    if not isinstance(later, Latencies):
        return increase(earlier, later)
    return later.since(earlier) if later.count >= earlier.count else later


def _combined(function: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    # Each count and each histogram of two snapshots; a missing one is empty.
    if isinstance(one, ServiceCalls | StatisticsSnapshot):
        values = (_combined(function, getattr(one, it.name), getattr(other, it.name)) for it in fields(one))
        return type(one)(*values)
    if not isinstance(one, Mapping):
        return function(one, other)
    counts: dict[Any, Any] = {}
    for key, either in {**one, **other}.items():
        empty = type(either)()
        counts[key] = _combined(function, one.get(key, empty), other.get(key, empty))
    return {key: count for key, count in counts.items() if count != 0}


class StatisticsTable:
    """What was counted. Any thread may count and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the counts
        self._counted = StatisticsSnapshot(
            0, Counter(), Counter(), Latencies(), defaultdict(Latencies), defaultdict(ServiceCalls), Counter()
        )

    def request_answered(self, service: str, entries: int, seconds: float | None = None) -> None:
        """Count an answered request for so many messages, claims or deletes; a long poll has no ``seconds``."""
        with self._lock:
            calls = self._counted.calls[service]
            calls.requests += 1
            calls.entries += entries
            if seconds is not None:
                calls.latencies.record(seconds)

    def request_failed(self, service: str) -> None:
        with self._lock:
            self._counted.calls[service].failures += 1

    def entry_retried(self, service: str) -> None:
        """Count a message, claim or delete that is to be tried again."""
        with self._lock:
            self._counted.calls[service].retries += 1

    def messages_received(self, count: int) -> None:
        with self._lock:
            self._counted.received += count

    def result_posted(self, verdict: Verdict, reason: Reason) -> None:
        with self._lock:
            self._counted.results[verdict, reason] += 1

    def message_finished(
        self, fate: str, reason: Reason | None, seconds: float, steps: Sequence[tuple[str, float]] = ()
    ) -> None:
        """Count a message that is over; see ``StatisticsSnapshot.fates``."""
        with self._lock:
            self._counted.fates[fate, reason] += 1
            if fate in _TIMED_FATES:
                self._counted.latencies.record(seconds)
            for step, step_seconds in steps:
                self._counted.steps[step].record(step_seconds)

    def incident_noticed(self, kind: str) -> None:
        with self._lock:
            self._counted.incidents[kind] += 1

    @property
    def answered(self) -> int:
        with self._lock:
            return self._counted.answered

    def snapshot(self) -> StatisticsSnapshot:
        with self._lock:
            return self._counted.merged(StatisticsSnapshot())


def statistics_of(system: ActorSystem) -> StatisticsTable:
    """Return the table of an actor system; each has its own."""
    table: StatisticsTable | None = system.terms.get(StatisticsTable)
    return system.terms.setdefault(StatisticsTable, StatisticsTable()) if table is None else table
