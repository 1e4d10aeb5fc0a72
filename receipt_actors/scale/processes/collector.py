"""The collector: one view of all workers, from what each says of itself every second.

It owns the newest report of each worker, the counts of those that have ended, and the incidents of all: a worker that
dies takes with it what happened since its last report. The actor system keeps them (``collected_by``), so that a crash
of the collector forgets nothing, and that they can be looked at while it is busy, and after the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from receipt_actors.otp import NO_REPLY, ActorSystem, ExitReason, From, GenServer
from receipt_actors.scale.processes.messages import Stopped
from receipt_actors.scale.processes.protocol import (
    COLLECTOR,
    DescribeGroup,
    DescribeInFlight,
    DescribeWorker,
    Group,
    WorkerReport,
)
from receipt_actors.telemetry.incidents import MAX_INCIDENTS
from receipt_actors.telemetry.overview import Incident, ProcessOverview
from receipt_actors.telemetry.queue_depths import LOOK_SECONDS, LookAtQueues
from receipt_actors.telemetry.statistics import StatisticsSnapshot

REPORT_SECONDS = 1.0  #: between two questions to a worker
FRESH_SECONDS = 5.0  #: without a report; then nobody knows how a worker goes


@dataclass(frozen=True, slots=True)
class GroupTotals:
    """What all workers together have done."""

    statistics: StatisticsSnapshot
    handed_back: int  #: at the end, and not in the statistics


@dataclass(frozen=True, slots=True)
class Heard:
    """What a worker process said of itself last."""

    process: ProcessOverview
    at_seconds: float  #: monotonic


@dataclass(frozen=True, slots=True)
class Collected:
    """All that workers have said. It is replaced and never changed."""

    heard: Mapping[str, Heard] = field(default_factory=dict)  #: by worker
    newest: Mapping[str, WorkerReport] = field(default_factory=dict)  #: likewise; the last words included
    before: StatisticsSnapshot = field(default_factory=StatisticsSnapshot)  #: of processes that have ended
    handed_back: int = 0
    queues: Mapping[str, int | None] = field(default_factory=dict)
    incidents: Mapping[str, tuple[Incident, ...]] = field(default_factory=dict)  #: by worker, of its process
    former_incidents: tuple[Incident, ...] = ()  #: of processes that have ended

    @property
    def statistics(self) -> StatisticsSnapshot:
        """What all of them have counted."""
        total = self.before
        for report in self.newest.values():
            total = total.merged(report.said.statistics)
        return total

    @property
    def answered(self) -> int:
        """How many results post queues have confirmed to all of them."""
        return self.before.answered + sum(report.said.statistics.answered for report in self.newest.values())

    def incidents_with(self, others: tuple[Incident, ...]) -> tuple[Incident, ...]:
        """Return the last incidents of all processes, and the others, the newest first."""
        groups = (others, self.former_incidents, *self.incidents.values())
        return _newest([incident for group in groups for incident in group])

    def having(self, report: WorkerReport, now: float) -> Collected:
        """Return what it is with another report."""
        name, said = report.name, report.said
        collected = self
        former = self.newest.get(name)
        is_new = former is None or former.pid != report.pid
        if former is not None and former.pid != report.pid:
            gone = (*self.incidents.get(name, ()), *self.former_incidents)
            collected = replace(
                self,
                before=self.before.merged(former.said.statistics),
                incidents={**self.incidents, name: ()},
                former_incidents=_newest(gone),
            )
        collected = replace(collected, newest={**collected.newest, name: report})
        if isinstance(said, Stopped):
            return replace(collected, handed_back=collected.handed_back + said.handed_back)
        incidents = collected.incidents
        if said.incidents is not None:
            incidents = {**incidents, name: tuple(replace(each, process=name) for each in said.incidents)}
        queues = collected.queues
        if said.queues is not None and not (is_new and all(depth is None for depth in said.queues.values())):
            queues = said.queues  # a process that has just begun has not looked, and knows less than others
        return replace(
            collected,
            heard={**collected.heard, name: Heard(said.process, now)},
            queues=queues,
            incidents=incidents,
        )


def _newest(incidents: Iterable[Incident]) -> tuple[Incident, ...]:
    return tuple(sorted(incidents, key=lambda incident: incident.at_seconds, reverse=True)[:MAX_INCIDENTS])


def collected_by(system: ActorSystem) -> Collected:
    """Return what the collector of a group's actor system knows; from any thread."""
    collected: Collected = system.terms.get(COLLECTOR, Collected())
    return collected


@dataclass(frozen=True, slots=True)
class _AskEveryone:
    """To itself: it is time."""


@dataclass(slots=True)
class _Look:
    """A question about what is in flight now, under way."""

    from_: From
    until_seconds: float  #: monotonic; by then nobody waits for the answer any more
    missing: set[str]
    reports: list[WorkerReport]


class Collector(GenServer):
    """See the module."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._wants_queues = False  # whether somebody wants to know how many messages wait
        self._queues_again_at_seconds = -inf  # monotonic
        self._queue_looks = 0  # so that each worker has its turn
        self._asked: set[str] = set()  # who has not answered yet: one that hangs is not asked on and on
        self._looks: list[_Look] = []

    def init(self) -> None:
        """Begin to ask."""
        self.send_after(REPORT_SECONDS, _AskEveryone())

    def _ask_everyone(self) -> None:
        free = [name for name in self._group.names if name not in self._asked]
        looker = self._choose_looker(free)
        for name in free:
            self._asked.add(name)
            self.send_request(name, DescribeWorker(name == looker), name)

    def _choose_looker(self, names: Sequence[str]) -> str | None:
        """Choose a worker that looks at the queues, where somebody wants to know and nobody looked a moment ago."""
        now = self.clock.monotonic()
        if not names or not self._wants_queues or now < self._queues_again_at_seconds:
            return None
        self._wants_queues = False
        self._queues_again_at_seconds = now + LOOK_SECONDS
        self._queue_looks += 1
        return names[self._queue_looks % len(names)]

    def handle_info(self, message: Any) -> Any:
        """Ask how it goes."""
        if not isinstance(message, _AskEveryone):
            return super().handle_info(message)
        now = self.clock.monotonic()
        self._looks = [look for look in self._looks if look.until_seconds > now]
        self._ask_everyone()
        self.send_after(REPORT_SECONDS, _AskEveryone())
        return None

    def handle_reply(self, label: Any, value: Any) -> None:
        """Keep what a worker said."""
        self._asked.discard(label)
        if value is not None:
            self._keep(value)
        self._tell(label, value)

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """There is no such worker just now."""
        self._asked.discard(label)
        self._tell(label, None)

    def handle_cast(self, request: Any) -> Any:
        """Keep the last words of a process, or see to it that somebody looks at the queues."""
        match request:
            case WorkerReport():
                self._keep(request)
            case LookAtQueues():
                self._wants_queues = True
            case _:
                return super().handle_cast(request)
        return None

    def _keep(self, report: WorkerReport) -> None:
        now = self.clock.monotonic()
        self.system.terms[COLLECTOR] = collected_by(self.system).having(report, now)

    def _tell(self, name: str, report: WorkerReport | None) -> None:
        """Answer those who want to know what is in flight, when all have been heard or one is not there."""
        for look in list(self._looks):
            look.missing.discard(name)
            if report is not None:
                look.reports.append(report)
            if report is None or not look.missing:
                self._looks.remove(look)
                look.from_.reply(None if report is None else tuple(look.reports))

    def handle_call(self, request: Any, from_: From) -> Any:
        """Sum up."""
        match request:
            case DescribeGroup():
                collected = collected_by(self.system)
                return GroupTotals(collected.statistics, collected.handed_back)
            case DescribeInFlight():
                until = self.clock.monotonic() + request.patience_seconds
                self._looks.append(_Look(from_, until, set(self._group.names), []))
                self._ask_everyone()
                return NO_REPLY
            case _:
                return super().handle_call(request, from_)
