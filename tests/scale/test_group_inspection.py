"""What several processes look like together: all their counts and incidents, and who looks at the queues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

import pytest

from receipt_actors.domain.limits import Limits
from receipt_actors.otp import GenServer
from receipt_actors.scale.processes.group_inspection import Collected, GroupInspection
from receipt_actors.scale.processes.protocol import Phase, Reported, Stopped, WorkerView
from receipt_actors.scale.processes.shared import Group, Shares
from receipt_actors.settings import Settings
from receipt_actors.telemetry.overview import Incident, ProcessOverview, State
from receipt_actors.telemetry.queue_depths import LOOK_SECONDS, LookAtQueues
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from tests.pipeline.stand_ins import Stage

NAMES = ("worker-1", "worker-2")
WHOLE = Limits(12, 6, 6)
SETTINGS = Settings(bundle_ids=("*",), backend="aws")
Report: TypeAlias = tuple[str, int, Reported | Stopped]


def process(name: str, pid: int, received: int = 0) -> ProcessOverview:
    return ProcessOverview(name, pid, 0.0, State.CONSUMING, statistics=StatisticsSnapshot(received))


def report(
    name: str,
    pid: int,
    received: int = 0,
    incidents: tuple[Incident, ...] | None = None,
    queues: Mapping[str, int | None] | None = None,
) -> Report:
    return name, pid, Reported(process(name, pid, received), queues, incidents)


def collected(*reports: Report) -> Collected:
    collected = Collected()
    for name, pid, said in reports:
        collected = collected.having(name, pid, said, 0.0)
    return collected


def test_the_newest_counts_of_all_workers_are_added_up() -> None:
    last_words = NAMES[0], 2, Stopped(4, StatisticsSnapshot(5))
    seen = collected(
        report(NAMES[0], 1, 7), report(NAMES[0], 1, 10), report(NAMES[1], 3, 1), report(NAMES[0], 2, 3), last_words
    )
    assert (seen.statistics.received, seen.handed_back) == (16, 4)
    assert seen.heard[NAMES[0]].pid == 2


def test_incidents_of_all_processes_are_kept_with_their_names() -> None:
    crash, outage = Incident(1.0, "crash", "a crash"), Incident(2.0, "outage", "an outage")
    seen = collected(
        report(NAMES[0], 1, incidents=(crash,)), report(NAMES[0], 1), report(NAMES[0], 2, incidents=(outage,))
    )
    own = Incident(1.5, "restart", "another one", process="parent")
    assert seen.incidents_with((own,)) == (replace(outage, process=NAMES[0]), own, replace(crash, process=NAMES[0]))


def test_a_process_that_has_not_looked_does_not_make_others_forget() -> None:
    reports = [report(name, pid, queues={"Q": depth}) for name, pid, depth in [("a", 1, 17), ("b", 2, None)]]
    assert collected(*reports).queues == {"Q": 17}
    assert collected(*reports, report("a", 1, queues={"Q": None})).queues == {"Q": None}


class Looker(GenServer):
    """Stands for a worker's actor that consumes, and counts how often it is to look at the queues."""

    def __init__(self, is_running: bool) -> None:
        self.looks = 0
        self._is_running = is_running

    def outside_view(self) -> WorkerView:
        return WorkerView(1, Phase.RUNNING if self._is_running else Phase.LOADED)

    def handle_cast(self, request: object) -> None:
        self.looks += isinstance(request, LookAtQueues)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


@pytest.mark.parametrize(("running", "looks"), [((True, True), [1, 1]), ((False, True), [0, 2])])
def test_one_worker_at_a_time_looks_at_the_queues(stage: Stage, running: tuple[bool, bool], looks: list[int]) -> None:
    workers = [stage.actors.start(Looker, is_up, name=name) for name, is_up in zip(NAMES, running, strict=True)]
    group = Group(NAMES, (), SETTINGS, WHOLE, Shares(WHOLE), on_refusal=lambda: None, on_complete=lambda: None)
    inspection = GroupInspection(group, stage.actors, ("Q",))
    inspection.overview(looks_at_queues=False)
    for _ in range(2):
        inspection.overview(looks_at_queues=True)
        inspection.overview(looks_at_queues=True)
        stage.advance(LOOK_SECONDS)
    assert [worker.process.actor.looks for worker in workers] == looks  # type: ignore[union-attr]
