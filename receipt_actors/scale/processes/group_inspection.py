"""What several processes look like together, from the reports that each sends every second.

The workers' actors put them together as ``Collected``, and the actor system keeps it: no crash forgets it, and it can
be read after the end. A worker that dies takes with it what happened since its last report.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice
from math import inf
from typing import Any

import pykka

from receipt_actors.inspection import STATE_SECONDS, actor_overview, actor_state, role_in, state_with_role, version
from receipt_actors.otp import ActorSystem, Ref
from receipt_actors.otp.tree import look_at
from receipt_actors.scale.membership import MEMBERSHIP
from receipt_actors.scale.processes.protocol import DescribeActor, Phase, Reported, Stopped, WorkerView
from receipt_actors.scale.processes.shared import Group
from receipt_actors.telemetry.control import UnknownActor
from receipt_actors.telemetry.incidents import MAX_INCIDENTS, incidents_of
from receipt_actors.telemetry.overview import (
    Incident,
    Overview,
    ProcessOverview,
    RoleOverview,
    State,
    state_of,
    usage_now,
)
from receipt_actors.telemetry.queue_depths import LOOK_SECONDS, QUEUE_DEPTHS, LookAtQueues
from receipt_actors.telemetry.statistics import StatisticsSnapshot, statistics_of

FRESH_SECONDS = 5.0  #: after which a report is out of date
PROCESS_SECONDS = STATE_SECONDS + 1.0  #: for a process to describe one of its actors
PARENT = "parent"  #: the name of the parent beside its workers
COLLECTED = "collected"  #: the term of the actor system


@dataclass(frozen=True, slots=True)
class Heard:
    pid: int
    process: ProcessOverview | None = None
    at_seconds: float = 0.0  #: monotonic; of ``process``
    statistics: StatisticsSnapshot = field(default_factory=StatisticsSnapshot)
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Collected:
    # The newest report of each worker, and the counts and incidents of processes that have ended.
    heard: Mapping[str, Heard] = field(default_factory=dict)  #: by worker
    before: StatisticsSnapshot = field(default_factory=StatisticsSnapshot)  #: of processes that have ended
    handed_back: int = 0
    queues: Mapping[str, int | None] = field(default_factory=dict)
    former_incidents: tuple[Incident, ...] = ()  #: of processes that have ended

    @property
    def statistics(self) -> StatisticsSnapshot:
        total = self.before
        for heard in self.heard.values():
            total = total.merged(heard.statistics)
        return total

    @property
    def answered(self) -> int:
        return self.before.answered + sum(heard.statistics.answered for heard in self.heard.values())

    def incidents_with(self, others: tuple[Incident, ...]) -> tuple[Incident, ...]:
        return _newest(chain(others, self.former_incidents, *(each.incidents for each in self.heard.values())))

    def having(self, name: str, pid: int, said: Reported | Stopped, now: float) -> Collected:
        collected, heard = self, self.heard.get(name, Heard(pid))
        if heard.pid != pid:
            collected = replace(
                collected,
                before=self.before.merged(heard.statistics),
                former_incidents=_newest([*heard.incidents, *self.former_incidents]),
            )
            heard = Heard(pid)
        if isinstance(said, Stopped):
            heard = replace(heard, statistics=said.statistics)
            collected = replace(collected, handed_back=self.handed_back + said.handed_back)
        else:
            # A process that has just begun has not looked at the queues, and knows less than others.
            has_looked = heard.process is not None or any(depth is not None for depth in (said.queues or {}).values())
            if said.queues is not None and has_looked:
                collected = replace(collected, queues=said.queues)
            heard = replace(heard, process=said.process, at_seconds=now, statistics=said.process.statistics)
            if said.incidents is not None:
                heard = replace(heard, incidents=tuple(replace(each, process=name) for each in said.incidents))
        return replace(collected, heard={**self.heard, name: heard})


def _newest(incidents: Iterable[Incident]) -> tuple[Incident, ...]:
    return tuple(sorted(incidents, key=lambda incident: incident.at_seconds, reverse=True)[:MAX_INCIDENTS])


def collected_by(system: ActorSystem) -> Collected:
    """Return what workers have reported; on any thread."""
    collected: Collected = system.terms.get(COLLECTED, Collected())
    return collected


def collect(system: ActorSystem, name: str, pid: int, said: Reported | Stopped) -> None:
    """Keep what a worker reported; on the actors' thread."""
    system.terms[COLLECTED] = collected_by(system).having(name, pid, said, system.clock.monotonic())


def fresh_reports(group: Group, system: ActorSystem) -> Sequence[ProcessOverview] | None:
    """Return the reports of all workers; None if one of them has sent none for ``FRESH_SECONDS``."""
    heard, now = collected_by(system).heard, system.clock.monotonic()
    reports = []
    for name in group.names:
        process, said = group.processes.get(name), heard.get(name)
        if process is None or said is None or said.process is None or process.pid != said.pid:
            return None
        if now - said.at_seconds > FRESH_SECONDS:
            return None
        reports.append(said.process)
    return reports


class GroupInspection:
    """Look at all processes, and at the parent's own actors; on any thread."""

    def __init__(self, group: Group, actors: ActorSystem, source_queues: tuple[str, ...]) -> None:
        self._group = group
        self._actors = actors
        self._source_queues = source_queues
        self._look_again_at_seconds = -inf  # monotonic; at the queues
        self._lookers = cycle(group.names)  # so that each worker has its turn

    def overview(self, *, looks_at_queues: bool) -> Overview:
        queue_depths = self._actors.whereis(QUEUE_DEPTHS)
        looker = queue_depths or self._next_looker()
        if looker is not None and looks_at_queues:
            looker.cast(LookAtQueues())
            self._look_again_at_seconds = self._actors.clock.monotonic() + LOOK_SECONDS
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

    def _next_looker(self) -> Ref | None:
        if self._actors.clock.monotonic() >= self._look_again_at_seconds:
            for name in islice(self._lookers, len(self._group.names)):
                if self._view(name).phase is Phase.RUNNING:
                    return self._actors.whereis(name)
        return None

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
            last = None if heard is None else heard.process
            last = last or ProcessOverview(name, 0, 0.0, State.ENDED)
            return replace(last, state=State.ENDED, in_flight=0, reserved=0, services=(), tree=None)
        view = self._view(name)
        if heard is None or heard.process is None or heard.pid != view.pid:
            state = self._idle_state(role) if view.phase is Phase.LOADED else State.STARTING
            return ProcessOverview(name, view.pid, 0.0, state)
        if view.phase is Phase.DRAINING or self._group.is_closing:
            return replace(heard.process, state=State.DRAINING)
        if self._actors.clock.monotonic() - heard.at_seconds > FRESH_SECONDS:
            return replace(heard.process, state=State.SILENT)
        return replace(heard.process, state=state_with_role(heard.process.state, role))

    def _idle_state(self, role: RoleOverview | None) -> State:
        if role is None or role.is_active:
            return State.STARTING  # it has no share yet, and gets one soon
        return State.PAUSED if self._group.is_paused else state_with_role(State.STANDBY, role)

    def _view(self, name: str) -> WorkerView:
        worker = self._actors.whereis(name)
        view = None if worker is None else look_at(worker).view
        return view if isinstance(view, WorkerView) else WorkerView()

    def actor_state(self, name: str) -> dict[str, Any]:
        asked = [
            (process, worker.ask(DescribeActor(name), block=False))
            for process in self._group.names
            if (worker := self._actors.whereis(process)) is not None and worker.is_alive()
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
