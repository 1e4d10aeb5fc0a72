"""Statistics: counters and latencies since the actor system was started.

Actors count in a ``StatisticsTable`` themselves, as Erlang's do in an ETS table: a receipt is counted some ten times,
and a message to an actor would cost ten times as much. The actor system keeps the table, so no crash forgets it.
"""

from __future__ import annotations

import operator
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, PlainSerializer, PlainValidator, TypeAdapter

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import ActorSystem
from receipt_actors.telemetry.latencies import Latencies

_TIMED_FATES = frozenset({"answered", "moved"})


class JsonValue:
    """Base of a dataclass that goes between processes as JSON: pydantic writes and reads it by its fields' types."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", revalidate_instances="never")

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON's types; ``from_json`` reads it again."""
        cls: Any = type(self)
        data: dict[str, Any] = _adapter(cls).dump_python(self, mode="json")
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what ``as_json`` wrote. Raises ``ValueError`` for anything else."""
        kind: Any = cls
        value: Self = _adapter(kind).validate_python(data)
        return value


@lru_cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


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


CountsByVerdict = Annotated[Mapping[tuple[Verdict, Reason], int], *_rows("verdict", Verdict)]
CountsByFate = Annotated[Mapping[tuple[str, Reason | None], int], *_rows("fate", str)]
Histogram = Annotated[Latencies, PlainValidator(_latencies), PlainSerializer(Latencies.as_json)]


@dataclass(frozen=True, slots=True)
class ServiceCalls(JsonValue):
    """What was asked of a service."""

    requests: int = 0  #: that it answered
    entries: int = 0  #: messages, claims or deletes that were in them
    failures: int = 0  #: requests that it did not answer
    retries: int = 0  #: entries that were tried again
    latencies: Histogram = field(default_factory=Latencies)  #: of requests that it answered; not of long polls


@dataclass(frozen=True, slots=True)
class StatisticsSnapshot(JsonValue):
    """What has been counted since the start, by one process or by several together (``merged``)."""

    received: int = 0  #: deliveries, redeliveries included
    results: CountsByVerdict = field(default_factory=dict)  #: that a post queue confirmed
    fates: CountsByFate = field(default_factory=dict)
    """``answered``, ``moved``, ``handed_back``, ``left``, and why."""
    latencies: Histogram = field(default_factory=Latencies)  #: from receive to delete, of answered and moved messages
    steps: Mapping[str, Histogram] = field(default_factory=dict)  #: of that: ``verifying``, ``claiming``, ...
    calls: Mapping[str, ServiceCalls] = field(default_factory=dict)  #: by service
    incidents: Mapping[str, int] = field(default_factory=dict)  #: by kind; see ``telemetry.incidents``

    @property
    def answered(self) -> int:
        """How many results post queues have confirmed."""
        return sum(self.results.values())

    def count(self, fate: str) -> int:
        return sum(count for (name, _reason), count in self.fates.items() if name == fate)

    def merged(self, other: StatisticsSnapshot) -> StatisticsSnapshot:
        """Return the sums of both."""
        both: StatisticsSnapshot = _combined(operator.add, self, other)
        return both

    def since(self, earlier: StatisticsSnapshot) -> StatisticsSnapshot:
        """Return what was counted after ``earlier``."""
        new: StatisticsSnapshot = _combined(_grown, earlier, self)
        return new


def increase(earlier: int, later: int) -> int:
    """Return by how much a counter has grown; one that is smaller now has begun anew."""
    return later - earlier if later >= earlier else later


def _grown(earlier: Any, later: Any) -> Any:
    if not isinstance(later, Latencies):
        return increase(earlier, later)
    return later.since(earlier) if later.count >= earlier.count else later.copy()


def _combined(function: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    """Apply a function to each count and each histogram of two snapshots; a missing one is empty."""
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


class _Calls:
    """``ServiceCalls`` that are being counted."""

    __slots__ = ("entries", "failures", "latencies", "requests", "retries")

    def __init__(self) -> None:
        self.requests = self.entries = self.failures = self.retries = 0
        self.latencies = Latencies()

    def snapshot(self) -> ServiceCalls:
        return ServiceCalls(self.requests, self.entries, self.failures, self.retries, self.latencies.copy())


class StatisticsTable:
    """What was counted. Any thread may count and read; the lock is held for a moment only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all of these
        self._received = 0
        self._results: Counter[tuple[Verdict, Reason]] = Counter()
        self._fates: Counter[tuple[str, Reason | None]] = Counter()
        self._latencies = Latencies()
        self._steps: defaultdict[str, Latencies] = defaultdict(Latencies)
        self._calls: defaultdict[str, _Calls] = defaultdict(_Calls)
        self._incidents: Counter[str] = Counter()

    def request_answered(self, service: str, entries: int, seconds: float | None = None) -> None:
        """Count a request that a service answered: ``app_store``, ``ledger``, ``send to ResultsSQS``, ...

        It was for so many messages, claims or deletes. ``seconds`` None: they say nothing, as of a long poll.
        """
        with self._lock:
            calls = self._calls[service]
            calls.requests += 1
            calls.entries += entries
            if seconds is not None:
                calls.latencies.record(seconds)

    def request_failed(self, service: str) -> None:
        with self._lock:
            self._calls[service].failures += 1

    def entry_retried(self, service: str) -> None:
        """Count a message, claim or delete that is to be tried again."""
        with self._lock:
            self._calls[service].retries += 1

    def messages_received(self, count: int) -> None:
        with self._lock:
            self._received += count

    def result_posted(self, verdict: Verdict, reason: Reason) -> None:
        with self._lock:
            self._results[verdict, reason] += 1

    def message_finished(
        self, fate: str, reason: Reason | None, seconds: float, steps: Sequence[tuple[str, float]] = ()
    ) -> None:
        """Count a message that left the house, after so many seconds; ``steps`` say what took how many of them.

        Its fate is ``answered`` (and deleted), ``moved``, ``handed_back``, or ``left`` as it is; the reason says why.
        """
        with self._lock:
            self._fates[fate, reason] += 1
            if fate in _TIMED_FATES:
                self._latencies.record(seconds)
            for step, step_seconds in steps:
                self._steps[step].record(step_seconds)

    def incident_noticed(self, kind: str) -> None:
        with self._lock:
            self._incidents[kind] += 1

    @property
    def answered(self) -> int:
        with self._lock:
            return sum(self._results.values())

    def snapshot(self) -> StatisticsSnapshot:
        with self._lock:
            return StatisticsSnapshot(
                self._received,
                dict(self._results),
                dict(self._fates),
                self._latencies.copy(),
                {step: latencies.copy() for step, latencies in self._steps.items()},
                {service: calls.snapshot() for service, calls in self._calls.items()},
                dict(self._incidents),
            )


def statistics_of(system: ActorSystem) -> StatisticsTable:
    """Return the table of an actor system; each has its own."""
    table: StatisticsTable | None = system.terms.get(StatisticsTable)
    return system.terms.setdefault(StatisticsTable, StatisticsTable()) if table is None else table
