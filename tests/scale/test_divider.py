"""The divider among workers that join, confirm and die, and after a crash of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receipt_actors.domain.limits import Limits, Share
from receipt_actors.otp import NORMAL, Ref, Stop
from receipt_actors.scale.processes.divider import Divider
from receipt_actors.scale.processes.protocol import (
    DIVIDER,
    ChangeShare,
    ConfirmShare,
    DescribeShare,
    Group,
    JoinDivision,
    LeaveDivision,
    ShareDescribed,
)
from tests.pipeline.stand_ins import Stage

WHOLE = Limits(12, 6, 6, 30.0)
NAMES = ("worker-1", "worker-2", "worker-3")


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def start_divider(stage: Stage) -> Ref:
    group = Group(NAMES, (), {}, WHOLE, on_refusal=lambda: None, on_complete=lambda: None)
    return stage.actors.start(Divider, group, name=DIVIDER)


def told(stage: Stage, worker: Ref) -> list[tuple[int, int]]:
    """Number and messages in flight of what a worker was told."""
    return [(order.share.number, order.share.told.max_in_flight) for order in stage.told(worker, ChangeShare)]


def test_all_have_equal_shares_in_the_end(stage: Stage) -> None:
    """Each that joins gets what the others have confirmed to have given back."""
    divider = start_divider(stage)
    workers = [stage.stand_in(name) for name in NAMES]
    divider.cast(JoinDivision(NAMES[0], workers[0]))
    divider.cast(JoinDivision(NAMES[1], workers[1]))
    assert told(stage, workers[0]) == [(1, 12), (2, 6)]
    assert told(stage, workers[1]) == []
    divider.cast(ConfirmShare(NAMES[0], 2))
    assert told(stage, workers[1]) == [(3, 6)]
    divider.cast(JoinDivision(NAMES[2], workers[2]))
    divider.cast(ConfirmShare(NAMES[0], 4))
    divider.cast(ConfirmShare(NAMES[1], 4))
    assert [told(stage, worker)[-1][1] for worker in workers] == [4, 4, 4]


@pytest.mark.parametrize("how", ["dies", "leaves"])
def test_who_is_gone_leaves_its_share_to_the_others(stage: Stage, how: str) -> None:
    """At once, for it has no process any more."""
    divider = start_divider(stage)
    first, second = stage.stand_in(NAMES[0]), stage.stand_in(NAMES[1])
    divider.cast(JoinDivision(NAMES[0], first))
    divider.cast(JoinDivision(NAMES[1], second))
    divider.cast(ConfirmShare(NAMES[0], 2))
    assert told(stage, second) == [(3, 6)]
    if how == "dies":
        first.cast(Stop(NORMAL))
    else:
        divider.cast(LeaveDivision(NAMES[0]))
    assert told(stage, second) == [(3, 6), (4, 12)]


def test_a_new_divider_divides_nothing_before_all_workers_have_answered(stage: Stage) -> None:
    """What they hold is what they say; who joins meanwhile is not forgotten."""
    first = stage.stand_in(NAMES[0])
    second = stage.stand_in(NAMES[1])
    divider = start_divider(stage)
    assert stage.calls(first, DescribeShare) == [DescribeShare()]
    third = stage.stand_in(NAMES[2])
    divider.cast(JoinDivision(NAMES[2], third))
    limits = Limits(12, 6, 6, 30.0)
    stage.answer(first, ShareDescribed(first, True, Share(7, limits, limits)))
    assert told(stage, first) == []
    stage.answer(second, ShareDescribed(second, False, None))
    assert told(stage, first) == [(8, 6)]
    assert (told(stage, second), told(stage, third)) == ([], [])
    divider.cast(ConfirmShare(NAMES[0], 7))  # sent before the crash
    assert told(stage, third) == []
    divider.cast(ConfirmShare(NAMES[0], 8))
    assert told(stage, third) == [(9, 6)]
