"""Statistics: counters and latencies of what went through the house, since the actor system was started.

Actors count in a ``StatisticsTable`` themselves, as Erlang's do in an ETS table: a receipt is counted some ten times,
and a message to an actor would cost ten times what counting does (0.03 ms a receipt less). The actor system keeps the
table, so that no crash forgets what was counted. A ``StatisticsSnapshot`` is what is in it at one moment.
"""

from __future__ import annotations

import operator
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import ActorSystem
from receipt_actors.telemetry.json_values import CountsByFate, CountsByVerdict, Histogram, JsonValue
from receipt_actors.telemetry.latencies import Latencies

_TIMED_FATES = frozenset({"answered", "moved"})


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
        """Return what both have counted."""
        both: StatisticsSnapshot = combined(operator.add, self, other)
        return both


def combined(function: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    """Apply a function to each count and each histogram of two snapshots; what only one has is empty in the other."""
    if isinstance(one, ServiceCalls | StatisticsSnapshot):
        values = (combined(function, getattr(one, it.name), getattr(other, it.name)) for it in fields(one))
        return type(one)(*values)
    if not isinstance(one, Mapping):
        return function(one, other)
    counts: dict[Any, Any] = {}
    for key, either in {**one, **other}.items():
        empty = type(either)()
        counts[key] = combined(function, one.get(key, empty), other.get(key, empty))
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
