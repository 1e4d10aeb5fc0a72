"""What other nodes lend to a node of several processes: who of them is told what, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest

from receipt_actors.domain.limits import Limits, Share
from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.roles import Work
from receipt_actors.otp import Ref
from receipt_actors.pipeline.protocol import Done
from receipt_actors.scale.processes.collector import FRESH_SECONDS, collected_by
from receipt_actors.scale.processes.divider import Divider, GroupLessee
from receipt_actors.scale.processes.messages import Release, Reported
from receipt_actors.scale.processes.protocol import (
    COLLECTOR,
    DIVIDER,
    ChangeShare,
    ConfirmShare,
    ExtendLease,
    Group,
    JoinDivision,
    LendUntil,
    ShareDescribed,
    TellProcess,
    WorkerReport,
)
from receipt_actors.scale.processes.worker_process import WorkerProcess
from receipt_actors.telemetry.overview import ProcessOverview, State, Usage
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from tests.pipeline.stand_ins import Stage

WHOLE = Limits(12, 6, 6, 30.0)
HALF = Limits(6, 3, 3, 15.0)
NAMES = ("worker-1", "worker-2")


class House:
    """Two workers, their divider, and what is lent to all of them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.group = Group(NAMES, (), {}, WHOLE, on_refusal=lambda: None, on_complete=lambda: None)
        self.workers: list[Ref] = []
        self.lessee = GroupLessee(self.group, stage.actors)

    def start_divider(self) -> Ref:
        return self.stage.actors.start(Divider, self.group, name=DIVIDER)

    def start_workers(self) -> None:
        self.workers = [self.stage.stand_in(name) for name in NAMES]

    def start(self) -> Ref:
        """Start the divider, and then the workers, who join."""
        divider = self.start_divider()
        self.stage.settle()
        self.start_workers()
        for name, worker in zip(NAMES, self.workers, strict=True):
            divider.cast(JoinDivision(name, worker))
        self.stage.settle()
        return divider

    def use(self, limits: Limits) -> Ref:
        ((name, question),) = self.lessee.grant(limits)
        return self.stage.ask(name, question)

    def told(self, worker: Ref) -> list[Any]:
        """What a worker was told, in order: its limits, and until when."""
        shares = (
            each.share.told if isinstance(each, ChangeShare) else each for each in self.stage.told(worker, object)
        )
        messages = (each.message if isinstance(each, TellProcess) else each for each in shares)
        return [each for each in messages if isinstance(each, Limits | LendUntil | Release)]

    def confirm(self, divider: Ref) -> None:
        """Have both workers say that they use no more than they were told last."""
        for name, worker in zip(NAMES, self.workers, strict=True):
            orders = self.stage.told(worker, ChangeShare)
            if orders:
                divider.cast(ConfirmShare(name, orders[-1].share.number))
        self.stage.settle()


@pytest.fixture
def house() -> Iterator[House]:
    stage = Stage()
    yield House(stage)
    stage.close()


def test_at_first_nothing_is_lent(house: House) -> None:
    """Before the role keeper has found the node's place, no worker has anything to begin with."""
    assert house.group.whole == WHOLE.nothing
    assert house.group.held_until_seconds == -inf


def test_what_is_lent_is_divided(house: House) -> None:
    """And again when it changes; it is said to be kept to when all workers have confirmed it."""
    divider = house.start()
    assert house.stage.replies(house.use(WHOLE)) == [(None, Done())]
    assert [house.told(worker) for worker in house.workers] == [[HALF], [HALF]]
    less = house.use(Limits(4, 2, 2, 10.0))
    assert house.stage.replies(less) == []
    house.confirm(divider)
    assert house.stage.replies(less) == [(None, Done())]
    nothing = house.use(WHOLE.nothing)
    assert house.stage.replies(nothing) == []
    house.confirm(divider)
    assert house.stage.replies(nothing) == [(None, Done())]
    assert [house.told(worker)[-1] for worker in house.workers] == [WHOLE.nothing] * 2


def test_a_rate_that_comes_is_divided_too(house: House) -> None:
    """A node of another setting has joined the group: every process has a rate from now on."""
    house.start()
    house.use(Limits(12, 6, 6))
    house.use(WHOLE)
    assert [house.told(worker)[-1] for worker in house.workers] == [HALF, HALF]


def test_nobody_hears_that_it_is_lent_for_longer_before_it_hears_that_it_is_less(house: House) -> None:
    """Also while the divider does not know who has what: what others got meanwhile is used by nobody here."""
    house.start_workers()
    house.start_divider()  # after a crash of the one before
    house.use(WHOLE.nothing)
    house.lessee.lend_until(99.0)
    house.use(Limits(4, 2, 2, 10.0))
    for worker in house.workers:
        house.stage.answer(worker, ShareDescribed(worker, True, Share(7, HALF, HALF)))
    for worker in house.workers:
        told = house.told(worker)
        assert told.index(WHOLE.nothing) < told.index(LendUntil(99.0))


def test_that_it_is_over_is_told_at_once(house: House) -> None:
    """Without the divider, which may just be restarted."""
    house.start_workers()
    house.lessee.lend_until(7.0)
    assert house.told(house.workers[0]) == []
    house.lessee.lend_until(-inf)
    assert [house.told(worker) for worker in house.workers] == [[LendUntil(-inf)], [LendUntil(-inf)]]


def test_what_is_known_is_not_told_again(house: House) -> None:
    """A renewal that was not carried out changes nothing."""
    divider = house.stage.stand_in(DIVIDER)
    for until_seconds in (7.0, 7.0, 9.0):
        house.lessee.lend_until(until_seconds)
    assert len(house.stage.told(divider, ExtendLease)) == 2


def test_all_workers_hand_back(house: House) -> None:
    """When other nodes do the work."""
    house.start_workers()
    house.lessee.release()
    assert [house.told(worker) for worker in house.workers] == [[Release()], [Release()]]


def test_a_new_divider_divides_what_is_lent_now(house: House) -> None:
    """The one before took what it knew with it."""
    house.start_workers()
    house.lessee.grant(WHOLE)
    divider = house.start_divider()
    for worker in house.workers:
        house.stage.answer(worker, ShareDescribed(worker, True, None))
    assert [house.told(worker) for worker in house.workers] == [[HALF], [HALF]]
    assert divider.is_alive()


# --- how the work goes ---


def report(house: House, name: str, unable_seconds: float, answered: int = 0, pid: int | None = None) -> None:
    """Have the collector know what a worker says of itself."""
    results = {(Verdict.OK, Reason.CLAIMED): answered}
    process = ProcessOverview(
        name, pid or PIDS[name], 1.0, State.CONSUMING, 0, 0, ("ledger",) if unable_seconds else (),
        Usage(0.0, 0, 0, 0), (), None, StatisticsSnapshot(results=results), unable_seconds=unable_seconds,
    )  # fmt: skip
    said = WorkerReport(name, process.pid, Reported(process))
    terms = house.stage.actors.terms
    terms[COLLECTOR] = collected_by(house.stage.actors).having(said, house.stage.clock.monotonic())


PIDS = {"worker-1": 11, "worker-2": 12}


@pytest.fixture
def processes(house: House) -> None:
    """Both workers' processes live."""
    for name, pid in PIDS.items():
        house.group.processes[name] = cast(WorkerProcess, SimpleNamespace(pid=pid))


@pytest.mark.usefixtures("processes")
def test_a_node_is_unable_for_as_long_as_all_its_processes_are(house: House) -> None:
    """And has answered what they have together."""
    report(house, "worker-1", 9.0, answered=2)
    report(house, "worker-2", 4.0, answered=3)
    assert house.lessee.work() == Work(5, 4.0, ("ledger",))
    report(house, "worker-2", 0.0, answered=4)
    assert house.lessee.work().unable_seconds == 0.0
    assert house.lessee.work().answered == 6


@pytest.mark.usefixtures("processes")
def test_who_has_not_said_a_moment_ago_that_it_is_unable_may_not_be(house: House) -> None:
    """One that has not been heard of, one that has been replaced since, or all while the node ends."""
    report(house, "worker-1", 9.0)
    assert house.lessee.work() == Work()
    report(house, "worker-2", 9.0, pid=99)
    assert house.lessee.work() == Work()
    report(house, "worker-2", 9.0)
    assert house.lessee.work().unable_seconds == 9.0
    house.group.is_closing = True
    assert house.lessee.work() == Work()
    house.group.is_closing = False
    house.stage.advance(FRESH_SECONDS + 0.1)
    assert house.lessee.work() == Work()
