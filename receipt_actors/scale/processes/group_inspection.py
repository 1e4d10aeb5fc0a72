"""``GroupInspection``: what several processes look like together, without waiting for any of them.

Each worker has said a second ago at most how it goes; the parent's own actors are looked at where they are. Only who
asks for the state of an actor waits for the processes' answers, and not for long.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
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
from receipt_actors.otp import ActorSystem, Ref, look_at
from receipt_actors.scale.nodes.role_keeper import ROLE_KEEPER
from receipt_actors.scale.processes.collector import FRESH_SECONDS, Heard, collected_by
from receipt_actors.scale.processes.protocol import COLLECTOR, DescribeActorOf, Group, WorkerView
from receipt_actors.telemetry.control import UnknownActor
from receipt_actors.telemetry.incidents import incidents_of
from receipt_actors.telemetry.overview import Overview, ProcessOverview, RoleOverview, State, Usage, state_of
from receipt_actors.telemetry.queue_depths import QUEUE_DEPTHS, LookAtQueues
from receipt_actors.telemetry.statistics import StatisticsSnapshot, statistics_of
from receipt_actors.telemetry.usage import usage_now

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
        keeper = self._actors.whereis(ROLE_KEEPER)
        role = None if keeper is None else role_in({ROLE_KEEPER: look_at(keeper).view})
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
