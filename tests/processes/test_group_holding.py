"""What other nodes lend to a node of several processes: who of them is told what, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from receipt_actors.actors.protocol import Done
from receipt_actors.domain.limits import Limits, Share
from receipt_actors.otp import Ref
from receipt_actors.processes.divider import Divider
from receipt_actors.processes.group_holding import GroupHolding
from receipt_actors.processes.messages import HoldUntil, Release
from receipt_actors.processes.protocol import (
    DIVIDER,
    ChangeShare,
    ConfirmShare,
    Group,
    HoldLonger,
    JoinDivision,
    ShareDescribed,
    TellProcess,
)
from tests.actors.stand_ins import Stage

WHOLE = Limits(12, 6, 6, 30.0)
HALF = Limits(6, 3, 3, 15.0)
NAMES = ("worker-1", "worker-2")


class House:
    """Two workers, their divider, and what is lent to all of them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.group = Group(NAMES, (), {}, WHOLE, on_refusal=lambda: None, on_complete=lambda: None)
        self.workers: list[Ref] = []
        self.holding = GroupHolding(self.group, stage.actors)

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
        ((name, question),) = self.holding.use(limits)
        return self.stage.ask(name, question)

    def told(self, worker: Ref) -> list[Any]:
        """What a worker was told, in order: its limits, and until when."""
        return [
            each.share.told if isinstance(each, ChangeShare) else each.message
            for each in self.stage.told(worker, object)
            if isinstance(each, ChangeShare | TellProcess)
        ]

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
    house.holding.hold(99.0)
    house.use(Limits(4, 2, 2, 10.0))
    for worker in house.workers:
        house.stage.answer(worker, ShareDescribed(worker, True, Share(7, HALF, HALF)))
    for worker in house.workers:
        told = house.told(worker)
        assert told.index(WHOLE.nothing) < told.index(HoldUntil(99.0))


def test_that_it_is_over_is_told_at_once(house: House) -> None:
    """Without the divider, which may just be restarted."""
    house.start_workers()
    house.holding.hold(7.0)
    assert house.told(house.workers[0]) == []
    house.holding.hold(-inf)
    assert [house.told(worker) for worker in house.workers] == [[HoldUntil(-inf)], [HoldUntil(-inf)]]


def test_what_is_known_is_not_told_again(house: House) -> None:
    """A renewal that was not carried out changes nothing."""
    divider = house.stage.stand_in(DIVIDER)
    for until_seconds in (7.0, 7.0, 9.0):
        house.holding.hold(until_seconds)
    assert len(house.stage.told(divider, HoldLonger)) == 2


def test_all_workers_hand_back(house: House) -> None:
    """When other nodes do the work."""
    house.start_workers()
    house.holding.release()
    assert [house.told(worker) for worker in house.workers] == [[Release()], [Release()]]


def test_a_new_divider_divides_what_is_lent_now(house: House) -> None:
    """The one before took what it knew with it."""
    house.start_workers()
    house.holding.use(WHOLE)
    divider = house.start_divider()
    for worker in house.workers:
        house.stage.answer(worker, ShareDescribed(worker, True, None))
    assert [house.told(worker) for worker in house.workers] == [[HALF], [HALF]]
    assert divider.is_alive()
