"""The collector: one view of all workers, from what each says of itself every second.

It owns the newest report of each worker, the counts of those that have ended, and the incidents of all: a worker that
dies takes with it what happened since its last report. The actor system keeps them (``collected_by``), so that a crash
of the collector forgets nothing, and that they can be looked at while it is busy, and after the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import pykka

from receipt_actors.inspection import (
    STATE_SECONDS,
    actor_overview,
    actor_state,
    role_in,
    state_with_role,
    version,
)
from receipt_actors.otp import NO_REPLY, ActorSystem, ExitReason, From, GenServer, Ref, look_at
from receipt_actors.scale.nodes.membership import MEMBERSHIP
from receipt_actors.scale.processes.messages import Stopped
from receipt_actors.scale.processes.protocol import (
    COLLECTOR,
    DescribeActorOf,
    DescribeGroup,
    DescribeInFlight,
    DescribeWorker,
    Group,
    WorkerReport,
    WorkerView,
)
from receipt_actors.telemetry.control import UnknownActor
from receipt_actors.telemetry.incidents import MAX_INCIDENTS, incidents_of
from receipt_actors.telemetry.overview import Incident, Overview, ProcessOverview, RoleOverview, State, Usage, state_of
from receipt_actors.telemetry.queue_depths import LOOK_SECONDS, QUEUE_DEPTHS, LookAtQueues
from receipt_actors.telemetry.statistics import StatisticsSnapshot, statistics_of
from receipt_actors.telemetry.usage import usage_now

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


PARENT = "parent"  #: what the parent is called beside its workers
SILENT_SECONDS = FRESH_SECONDS  #: without a report
PROCESS_SECONDS = STATE_SECONDS + 1.0  #: for a process to say what one of its actors said


class GroupInspection:
    """See the module. Any thread may look."""

    def __init__(self, group: Group, actors: ActorSystem, source_queues: tuple[str, ...]) -> None:
        self._group = group
        self._actors = actors
        self._source_queues = source_queues

    def overview(self, *, looks_at_queues: bool) -> Overview:
        """Look at everything."""
        queue_depths = self._actors.whereis(QUEUE_DEPTHS)
        looker = queue_depths or self._actors.whereis(COLLECTOR)
        if looker is not None and looks_at_queues:
            looker.cast(LookAtQueues())
        collected = collected_by(self._actors)
        root = self._actors.whereis("root")
        keeper = self._actors.whereis(MEMBERSHIP)
        role = None if keeper is None else role_in({MEMBERSHIP: look_at(keeper).view})
        processes = tuple(
            self._process(name, collected.heard.get(name), role, has_ended=root is None) for name in self._group.names
        )
        own = tuple(replace(incident, process=PARENT) for incident in incidents_of(self._actors))
        return Overview(
            at_seconds=self._actors.clock.time(),
            version=version(),
            state=self._state(processes, root),
            source_queues=self._source_queues,
            queues=self._queues(queue_depths) or collected.queues or dict.fromkeys(self._source_queues),
            processes=processes,
            statistics=collected.statistics.merged(statistics_of(self._actors).snapshot()),  # the parent's incidents
            incidents=collected.incidents_with(own),
            parent=None if root is None else actor_overview(look_at(root)),
            parent_usage=usage_now(),
            role=role,
        )

    def _queues(self, queue_depths: Ref | None) -> Mapping[str, int | None] | None:
        depths = None if queue_depths is None else look_at(queue_depths).view
        return depths if isinstance(depths, Mapping) else None

    def _state(self, processes: tuple[ProcessOverview, ...], root: Ref | None) -> State:
        if root is None:
            return State.ENDED
        return State.DRAINING if self._group.is_closing else state_of(processes)

    def _process(
        self, name: str, heard: Heard | None, role: RoleOverview | None, *, has_ended: bool
    ) -> ProcessOverview:
        if has_ended:
            last = _unheard(name, 0) if heard is None else heard.process
            return replace(last, state=State.ENDED, in_flight=0, reserved=0, services=(), tree=None)
        view = self._view(name)
        if heard is None or heard.process.pid != view.pid:
            unheard = _unheard(name, view.pid)
            return replace(unheard, state=self._idle_state(role)) if view.waits_for_its_share else unheard
        if view.is_draining or self._group.is_closing:
            return replace(heard.process, state=State.DRAINING)
        if self._actors.clock.monotonic() - heard.at_seconds > SILENT_SECONDS:
            return replace(heard.process, state=State.SILENT)
        return replace(heard.process, state=state_with_role(heard.process.state, role))

    def _idle_state(self, role: RoleOverview | None) -> State:
        """Tell what a process does that has nothing to work with yet: it is soon given it, or other nodes have it."""
        if role is None or role.is_active:
            return State.STARTING
        return State.PAUSED if self._group.is_paused else state_with_role(State.STANDBY, role)

    def _view(self, name: str) -> WorkerView:
        worker = self._actors.whereis(name)
        view = None if worker is None else look_at(worker).view
        return view if isinstance(view, WorkerView) else WorkerView(0, False, False)

    def actor_state(self, name: str) -> dict[str, Any]:
        """See ``ProcessGroup``."""
        workers = [(process, self._actors.whereis(process)) for process in self._group.names]
        asked = [
            (process, worker.ask(DescribeActorOf(name), block=False))
            for process, worker in workers
            if worker is not None and worker.is_alive()
        ]
        described: dict[str, Any] = {}
        with suppress(UnknownActor):
            described[PARENT] = actor_state(self._actors, name)
        until = time.monotonic() + PROCESS_SECONDS
        for process, future in asked:
            try:
                answer: Mapping[str, Any] | None = future.get(timeout=max(0.0, until - time.monotonic()))
            except pykka.ActorDeadError:
                continue
            except pykka.Timeout:
                why = f"the process has not answered for {PROCESS_SECONDS:g} s"
                answer = {"name": name, "state": None, "why": why}
            if answer is not None:
                described[process] = dict(answer)
        if all("class" not in answer for answer in described.values()):  # those that hang may know of it, or not
            raise UnknownActor(f"no actor is called {name!r}, in none of the processes that answer")
        return described


def _unheard(name: str, pid: int) -> ProcessOverview:
    """Describe a process that is being started, or has not said yet how it goes."""
    return ProcessOverview(
        name, pid, 0.0, State.STARTING, 0, 0, (), Usage(0.0, 0, 0, 0), (), None, StatisticsSnapshot()
    )
