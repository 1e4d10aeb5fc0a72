"""How the workers of a command share limits: who is told what, in which order, and what other nodes lend to all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.roles import Work
from receipt_actors.pipeline.protocol import ObeyLimits
from receipt_actors.scale.processes.group import GroupLessee
from receipt_actors.scale.processes.group_inspection import FRESH_SECONDS, collect
from receipt_actors.scale.processes.protocol import GrantAnew, Release, Reported
from receipt_actors.scale.processes.shared import Group, Shares
from receipt_actors.scale.processes.worker_process import WorkerProcess
from receipt_actors.settings import Settings
from receipt_actors.telemetry.overview import ProcessOverview, State
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from tests.pipeline.stand_ins import Stage

SETTINGS = Settings(bundle_ids=("*",), backend="aws")
WHOLE = Limits(12, 6, 6, 30.0)
HALF = Limits(6, 3, 3, 15.0)
PIDS = {"worker-1": 11, "worker-2": 12}
FIRST, SECOND = NAMES = tuple(PIDS)


class House:
    """The shares of a group, and stand-ins for its workers' actors, which confirm when a test says so."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.shares = Shares(WHOLE)
        self.group = Group(NAMES, (), SETTINGS, WHOLE, self.shares, on_refusal=lambda: None, on_complete=lambda: None)
        self.workers = {name: stage.stand_in(name) for name in NAMES}

    def join(self, *names: str) -> None:
        for name in names:
            self.shares.join(name, self.workers[name])

    def may_use(self) -> list[Limits | None]:
        return [None if (share := self.shares.of(name)) is None else share.told for name in NAMES]

    def told(self, name: str) -> list[Any]:
        return self.stage.told(self.workers[name], object)

    def confirm(self, name: str) -> None:
        share = self.shares.of(name)
        assert share is not None
        self.shares.confirm(name, share.number)

    @property
    def lessee(self) -> GroupLessee:
        return GroupLessee(self.group, self.stage.actors)


@pytest.fixture
def house() -> Iterator[House]:
    stage = Stage()
    yield House(stage)
    stage.close()


def test_a_newcomer_has_its_share_when_the_others_have_confirmed(house: House) -> None:
    house.join(FIRST, SECOND)
    assert house.may_use() == [HALF, None]
    assert house.told(SECOND) == []
    house.shares.confirm(FIRST, 1)  # which is out of date
    assert house.may_use() == [HALF, None]
    house.confirm(FIRST)
    assert house.may_use() == [HALF, HALF]
    assert (house.told(FIRST), house.told(SECOND)) == ([GrantAnew()] * 2, [GrantAnew()])


def test_a_successor_is_told_and_not_the_actor_before_it(house: House) -> None:
    house.join(FIRST, SECOND)
    house.confirm(FIRST)
    successor = house.stage.stand_in()
    house.shares.leave(FIRST)
    assert house.may_use() == [None, WHOLE]
    house.shares.join(FIRST, successor)
    house.confirm(SECOND)
    assert house.may_use() == [HALF, HALF]
    assert house.stage.told(successor, GrantAnew) == [GrantAnew()]
    assert len(house.told(FIRST)) == 2


# --- what other nodes lend ---


def test_before_other_nodes_lend_anything_no_worker_has_anything(house: House) -> None:
    lessee = house.lessee
    house.join(FIRST, SECOND)
    assert (house.may_use(), house.shares.until_seconds) == ([None, None], -inf)
    assert lessee.grant(WHOLE) == [(name, ObeyLimits()) for name in NAMES]
    assert house.may_use() == [HALF, HALF]


def test_what_is_known_is_not_told_again(house: House) -> None:
    lessee = house.lessee
    house.join(FIRST)
    lessee.grant(WHOLE)
    for until_seconds, told in ((7.0, 2), (7.0, 2), (-inf, 3)):
        lessee.lend_until(until_seconds)
        assert house.shares.until_seconds == until_seconds
        assert len(house.told(FIRST)) == told


def test_all_workers_hand_back_when_other_nodes_do_the_work(house: House) -> None:
    house.lessee.release()
    assert [house.told(name) for name in NAMES] == [[Release()]] * 2


# --- how the work goes ---


def report(house: House, name: str, unable_seconds: float, answered: int = 0, pid: int | None = None) -> None:
    counts = StatisticsSnapshot(results={(Verdict.OK, Reason.CLAIMED): answered})
    process = ProcessOverview(name, pid or PIDS[name], 1.0, State.CONSUMING, statistics=counts)
    process = replace(process, unavailable=("ledger",) if unable_seconds else (), unable_seconds=unable_seconds)
    collect(house.stage.actors, name, process.pid, Reported(process))


@pytest.fixture
def lessee(house: House) -> GroupLessee:
    for name, pid in PIDS.items():
        house.group.processes[name] = cast(WorkerProcess, SimpleNamespace(pid=pid))
    return house.lessee


def test_a_node_is_unable_for_as_long_as_all_its_processes_are(house: House, lessee: GroupLessee) -> None:
    report(house, FIRST, 9.0, answered=2)
    report(house, SECOND, 4.0, answered=3)
    assert lessee.work() == Work(5, 4.0, ("ledger",))
    report(house, SECOND, 0.0, answered=4)
    assert lessee.work().unable_seconds == 0.0
    assert lessee.work().answered == 6


def test_who_has_not_said_a_moment_ago_that_it_is_unable_may_not_be(house: House, lessee: GroupLessee) -> None:
    report(house, FIRST, 9.0)
    assert lessee.work() == Work()
    report(house, SECOND, 9.0, pid=99)
    assert lessee.work() == Work()
    report(house, SECOND, 9.0)
    assert lessee.work().unable_seconds == 9.0
    house.group.is_closing = True
    assert lessee.work() == Work()
    house.group.is_closing = False
    house.stage.advance(FRESH_SECONDS + 0.1)
    assert lessee.work() == Work()
