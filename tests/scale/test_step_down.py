"""StepDown: when an active node that can't work steps down, and how that changes."""

from __future__ import annotations

from math import inf

import pytest

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.roles import LONGEST_STEP_DOWN_SECONDS, Group, Lease, Node, Role, StepDown, Work

SECONDS = 10.0
LIMITS = Limits(100, 50, 200, 10.0)
FIRST = 12.0
NOTHING_DONE = Work()


class Player:
    """A node of two: its lease, its StepDown, and a clock that the test turns."""

    def __init__(self, name: str = "a") -> None:
        self.lease = Lease(Node(name, Role.ACTIVE_STANDBY, LIMITS), SECONDS)
        self.step_down = StepDown(FIRST)
        self.other = Node("other", Role.ACTIVE_STANDBY, LIMITS)
        self.now = 100.0

    def look(self, group: Group, work: Work = NOTHING_DONE) -> None:
        before, self.lease = self.lease, self.lease.looked(group, self.now)
        self.step_down = self.step_down.looked(before, self.lease, work, self.now)

    def renew(self, work: Work = NOTHING_DONE, *, steps_down: bool = False) -> None:
        obeyed = self.lease.share
        lease = self.lease if obeyed is None else self.lease.obeys(obeyed.number)
        self.lease, written = lease.renewal(self.now, steps_down=steps_down)
        self.look(written, work)

    def other_renews(self, *, steps_down: bool = False) -> None:
        group = self.lease.group
        member = group.members.get("other")
        obeyed = None if member is None or member.share is None else member.share.number
        self.look(group.renewed(self.other, group.version, SECONDS, obeyed=obeyed, steps_down=steps_down))

    def yield_and_be_back(self) -> None:
        """Step down, and be active again when the other one has stepped down."""
        self.renew(steps_down=True)
        self.renew()
        self.other_renews()
        self.other_renews(steps_down=True)
        self.other_renews()
        self.renew()
        assert self.lease.is_held(self.now)


@pytest.fixture
def player() -> Player:
    player = Player()
    player.renew()
    player.other_renews()
    player.renew()
    return player


@pytest.mark.parametrize(("lease", "wait", "seconds"), [(10.0, 10.0, 12.0), (2.0, 1.0, 3.0), (20.0, 5.0, 24.0)])
def test_it_lasts_longer_than_a_lease_and_a_receive(lease: float, wait: float, seconds: float) -> None:
    assert StepDown.of(lease, wait).seconds == seconds


def test_it_is_over_when_nothing_was_taken_in_for_so_long(player: Player) -> None:
    player.now += FIRST
    assert not player.step_down.is_over(Work(), player.now)
    assert not player.step_down.is_over(Work(unable_seconds=FIRST - 0.1), player.now)
    assert player.step_down.is_over(Work(unable_seconds=FIRST), player.now)


def test_what_was_before_it_was_active_does_not_count(player: Player) -> None:
    player.now += 1.0
    assert player.step_down.unable_seconds(Work(unable_seconds=50.0), player.now) == 1.0
    player.now += FIRST  # and nothing was renewed: the lease is over
    player.look(player.lease.group)
    assert player.step_down.since_seconds == inf
    assert player.step_down.unable_seconds(Work(unable_seconds=50.0), player.now) == 0.0
    player.renew()
    assert player.step_down.since_seconds == player.now


def test_each_time_it_is_twice_as_long_and_at_most_an_hour(player: Player) -> None:
    seen = []
    for _ in range(40):
        seen.append(player.step_down.seconds)
        player.yield_and_be_back()
    assert seen[:4] == [12.0, 24.0, 48.0, 96.0]
    assert set(seen[9:]) == {LONGEST_STEP_DOWN_SECONDS}


def test_it_begins_anew_with_an_answer(player: Player) -> None:
    player.yield_and_be_back()
    player.renew(Work(answered=0))
    assert player.step_down.seconds == 24.0
    player.renew(Work(answered=1))
    assert player.step_down.seconds == 12.0


def test_who_was_taken_for_gone_has_not_stepped_down(player: Player) -> None:
    group = player.lease.group
    player.look(group.renewed(player.other, 500, SECONDS, gone=frozenset("a")))
    assert player.lease.me is None
    player.renew()
    assert player.step_down.seconds == FIRST
