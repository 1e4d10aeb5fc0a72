"""How the workers of a command share limits: who is told what, in which order, and what other nodes lend to all."""

from __future__ import annotations

from collections.abc import Iterator
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
from receipt_actors.scale.processes.messages import Release, Reported
from receipt_actors.scale.processes.protocol import Group
from receipt_actors.scale.processes.shares import ChangeShare, LendUntil, Shares
from receipt_actors.scale.processes.worker_process import WorkerProcess
from receipt_actors.settings import Settings
from receipt_actors.telemetry.overview import ProcessOverview, State, Usage
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

    def told(self, name: str) -> list[Any]:
        """What a worker was told, in order: limits, until when they are lent, and what else."""
        messages = self.stage.told(self.workers[name], object)
        return [message.share.told if isinstance(message, ChangeShare) else message for message in messages]

    def confirm(self, name: str) -> None:
        """Have a worker say that it uses no more than it was told last."""
        self.shares.confirm(name, self.stage.told(self.workers[name], ChangeShare)[-1].share.number)

    @property
    def lessee(self) -> GroupLessee:
        return GroupLessee(self.group, self.stage.actors)


@pytest.fixture
def house() -> Iterator[House]:
    stage = Stage()
    yield House(stage)
    stage.close()


def test_a_newcomer_is_told_when_the_others_have_confirmed(house: House) -> None:
    """And who has left, with its process, leaves its share to the others at once."""
    house.join(FIRST, SECOND)
    assert (house.told(FIRST), house.told(SECOND)) == ([WHOLE, HALF], [])
    house.shares.confirm(FIRST, 1)  # which is out of date
    assert house.told(SECOND) == []
    house.confirm(FIRST)
    assert house.told(SECOND) == [HALF]
    house.shares.leave(FIRST)
    assert house.told(SECOND) == [HALF, WHOLE]
    house.shares.lend_until(7.0)
    assert house.told(FIRST) == [WHOLE, HALF]


def test_a_successor_is_told_and_not_the_actor_before_it(house: House) -> None:
    """It joins by the same name."""
    house.join(FIRST, SECOND)
    house.confirm(FIRST)
    successor = house.stage.stand_in()
    house.shares.leave(FIRST)
    house.shares.join(FIRST, successor)
    house.confirm(SECOND)
    assert [order.share.told for order in house.stage.told(successor, ChangeShare)] == [HALF]
    assert house.told(FIRST) == [WHOLE, HALF]


# --- what other nodes lend ---


def test_at_first_nothing_is_lent(house: House) -> None:
    """Before the node has found its place no worker has anything to begin with; then all are asked to keep to it."""
    lessee = house.lessee
    house.join(FIRST, SECOND)
    assert [house.told(name) for name in NAMES] == [[], []]
    assert lessee.grant(WHOLE) == [(name, ObeyLimits()) for name in NAMES]
    lessee.lend_until(9.0)
    assert [house.told(name) for name in NAMES] == [[HALF, LendUntil(9.0)]] * 2
    (order,) = house.stage.told(house.workers[FIRST], ChangeShare)
    assert order.until_seconds == -inf


def test_what_is_known_is_not_told_again(house: House) -> None:
    """A renewal that was not carried out changes nothing; another share says until when, too."""
    lessee = house.lessee
    house.join(FIRST)
    lessee.grant(WHOLE)
    for until_seconds in (7.0, 7.0, -inf):
        lessee.lend_until(until_seconds)
    assert house.told(FIRST) == [WHOLE, LendUntil(7.0), LendUntil(-inf)]
    lessee.lend_until(9.0)
    lessee.grant(HALF)
    assert house.stage.told(house.workers[FIRST], ChangeShare)[-1].until_seconds == 9.0


def test_all_workers_hand_back(house: House) -> None:
    """When other nodes do the work."""
    house.lessee.release()
    assert [house.told(name) for name in NAMES] == [[Release()]] * 2


# --- how the work goes ---


def report(house: House, name: str, unable_seconds: float, answered: int = 0, pid: int | None = None) -> None:
    """Have a worker say how it goes."""
    results = {(Verdict.OK, Reason.CLAIMED): answered}
    process = ProcessOverview(
        name, pid or PIDS[name], 1.0, State.CONSUMING, 0, 0, ("ledger",) if unable_seconds else (),
        Usage(0.0, 0, 0, 0), (), None, StatisticsSnapshot(results=results), unable_seconds=unable_seconds,
    )  # fmt: skip
    collect(house.stage.actors, name, process.pid, Reported(process))


@pytest.fixture
def lessee(house: House) -> GroupLessee:
    """Of a group both of whose processes live."""
    for name, pid in PIDS.items():
        house.group.processes[name] = cast(WorkerProcess, SimpleNamespace(pid=pid))
    return house.lessee


def test_a_node_is_unable_for_as_long_as_all_its_processes_are(house: House, lessee: GroupLessee) -> None:
    """And has answered what they have together."""
    report(house, FIRST, 9.0, answered=2)
    report(house, SECOND, 4.0, answered=3)
    assert lessee.work() == Work(5, 4.0, ("ledger",))
    report(house, SECOND, 0.0, answered=4)
    assert lessee.work().unable_seconds == 0.0
    assert lessee.work().answered == 6


def test_who_has_not_said_a_moment_ago_that_it_is_unable_may_not_be(house: House, lessee: GroupLessee) -> None:
    """One that has not been heard of, one that has been replaced since, or all while the node ends."""
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
