"""The membership among others like it: what is lent when, what is confirmed when, and how it begins and ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

import pytest

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.places import MAX_WRITES
from receipt_actors.domain.ports import RoleRecord
from receipt_actors.domain.roles import (
    EXPIRY_FACTOR,
    RENEWALS_PER_LEASE,
    Group,
    Node,
    Role,
    StepDown,
    Work,
    group_in,
    record_of,
)
from receipt_actors.errors import LedgerUnavailable
from receipt_actors.otp import SHUTDOWN, Name, Ref
from receipt_actors.pipeline.protocol import Done, ObeyLimits
from receipt_actors.scale.membership import ASK_AGAIN_SECONDS, ROLE_TABLE, Membership
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from receipt_actors.telemetry.overview import NodeState, RoleOverview
from receipt_actors.testing import FakeRoles, ManualClock
from tests.patience import PATIENCE_SECONDS
from tests.pipeline.stand_ins import SILENT, Stage

GROUP = "receipts"
LEASE = 10.0
INTERVAL = LEASE / RENEWALS_PER_LEASE
LIMITS = Limits(100, 50, 200, 10.0)
HALF = Limits(100, 25, 100, 5.0)
NOTHING = LIMITS.nothing
STEP_DOWN = StepDown(12.0)
UNAVAILABLE = LedgerUnavailable("injected by a test")


class Held:
    """A ``Lessee`` that notes what it is told; ``worker`` is who has to say that limits are kept to."""

    def __init__(self, clock: ManualClock, worker: Ref | Name) -> None:
        self._clock = clock
        self._worker = worker
        self.until_seconds = -inf
        self.limits = NOTHING
        self.used: list[Limits] = []
        self.releases = 0
        self.unable_since: float | None = None  #: of ``boottime``; an outage keeps everything away

    def lend_until(self, seconds: float) -> None:
        self.until_seconds = seconds

    def grant(self, limits: Limits) -> Sequence[tuple[Ref | Name, object]]:
        self.limits = limits
        self.used.append(limits)
        return [(self._worker, ObeyLimits())]

    def release(self) -> None:
        self.releases += 1

    def work(self) -> Work:
        if self.unable_since is None:
            return Work()
        return Work(0, self._clock.boottime() - self.unable_since, ("receive from receipts",))

    def fall(self) -> None:
        self.unable_since = self._clock.boottime()

    @property
    def is_held(self) -> bool:
        return self._clock.boottime() < self.until_seconds

    @property
    def begins(self) -> Limits:
        return self.limits if self.is_held else NOTHING


class RacedRoles(FakeRoles):
    others_are_faster = False

    def write(self, group: str, record: RoleRecord, before: int | None = None) -> RoleRecord | None:
        if self.others_are_faster:
            standing = self.standing(group)
            assert standing is not None
            super().write(group, RoleRecord(standing.version + 1, standing.content))
            self._counts["write"] -= 1  # that was somebody else's
        return super().write(group, record, before)


class House:
    def __init__(self, stage: Stage, table: RacedRoles | None = None) -> None:
        self.stage = stage
        self.table: RacedRoles = stage.with_fake(table or RacedRoles())
        self.incidents = stage.stand_in(INCIDENTS)

    def start(
        self,
        name: str,
        role: Role = Role.LOAD_BALANCED,
        *,
        obeys: bool = True,
        worker: Ref | Name | None = None,
        limits: Limits = LIMITS,
        held: Held | None = None,
    ) -> tuple[Ref, Held]:
        """Start a membership, whose worker obeys at once, or when the test says so."""
        answer: Callable[[object], object] = (lambda _: Done()) if obeys else (lambda _: SILENT)
        held = held or Held(self.stage.clock, worker or self.stage.stand_in(answer=answer))
        me = Node(name, role, limits, shares_app_store_concurrency=True)
        keeper = self.stage.actors.start(Membership, self.table, GROUP, me, LEASE, held, STEP_DOWN)
        self.stage.settle()
        return keeper, held

    @property
    def record(self) -> Group:
        record = self.table.standing(GROUP)
        return Group() if record is None else group_in(record)

    def told(self, *kinds: IncidentKind) -> list[str]:
        """Return the incidents, in order; of these kinds, or all but faults of the configuration."""
        wanted = kinds or frozenset(IncidentKind) - {IncidentKind.CONFIGURATION}
        return [noticed.summary for noticed in self.noticed() if noticed.kind in wanted]

    def noticed(self) -> list[Noticed]:
        return self.stage.told(self.incidents, Noticed)

    def write_garbage(self, version: int, text: str) -> RoleRecord:
        garbage = RoleRecord(version, text)
        self.table.write(GROUP, garbage)
        return garbage


def node(name: str, role: Role) -> Node:
    return Node(name, role, LIMITS, shares_app_store_concurrency=True)


@pytest.fixture
def house(stage: Stage) -> House:
    return House(stage)


def view(keeper: Ref) -> RoleOverview:
    actor = keeper.process.actor
    assert isinstance(actor, Membership)
    return actor.outside_view()


def test_the_first_node_has_everything_at_once_and_renews_it_in_time(
    house: House, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keeper, held = house.start("a")
    assert held.begins == LIMITS
    assert held.until_seconds == stage.clock.boottime() + LEASE
    assert view(keeper).state is NodeState.ACTIVE
    for _ in range(30):
        stage.advance(INTERVAL)
        assert held.until_seconds == stage.clock.boottime() + LEASE
    words = "node a of group receipts is active (load-balanced, token 1, 1 node)"
    assert house.noticed() == [Noticed(IncidentKind.ROLE, "a", words)]
    (record,) = [record for record in caplog.records if record.message == words]
    facts = {"levelname": "INFO", "event": "role", "group": "receipts", "node": "a", "state": "active"}
    assert vars(record).items() >= facts.items()
    assert (house.table.count("read"), house.table.count("write")) == (31, 31)
    assert held.used == [NOTHING, LIMITS]


def test_the_lease_counts_from_when_it_was_asked_for(house: House, stage: Stage) -> None:
    began = stage.clock.boottime()
    with house.table.hold_answer("write", times=1):
        _, held = house.start("a")
        stage.advance(4.0)
        assert not held.is_held
    stage.settle()
    assert held.until_seconds == began + LEASE


def test_who_is_slower_every_time_tries_again_later(house: House, stage: Stage) -> None:
    keeper, held = house.start("a")
    house.table.others_are_faster = True
    before = house.table.count("write")
    stage.advance(INTERVAL)
    assert house.table.count("write") - before == MAX_WRITES
    stage.advance(LEASE)
    assert keeper.is_alive()
    assert not held.is_held
    house.table.others_are_faster = False
    stage.advance(INTERVAL)
    assert held.is_held


def test_what_is_lent_is_over_in_time_though_nobody_says_so(house: House, stage: Stage) -> None:
    keeper, held = house.start("a")
    began = stage.clock.boottime()
    with house.table.hold("read"):
        stage.advance(LEASE - 0.01)
        assert held.begins == LIMITS
        assert view(keeper).held_for_seconds == pytest.approx(0.01)
        stage.advance(0.01)
        assert held.begins == NOTHING
        assert view(keeper).state is NodeState.CUT_OFF
        assert view(keeper).held_for_seconds is None
        assert held.until_seconds == began + LEASE
    stage.settle()
    assert held.begins == LIMITS
    assert held.used[-2:] == [LIMITS, LIMITS]  # the same again, so that who has stopped goes on
    assert held.releases == 0


def test_the_table_is_out_of_reach_when_the_lease_is_over_and_until_it_is_renewed(
    house: House, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    house.start("a")
    for times in (1, 2):
        house.table.fail("read", UNAVAILABLE, times=None)
        caplog.clear()
        with caplog.at_level(logging.DEBUG):
            stage.advance(LEASE + INTERVAL)
        told = [it.levelname for it in caplog.records if "could not be renewed: injected by a test" in it.message]
        assert told == ["WARNING", *["DEBUG"] * (len(told) - 1)]
        cut_off = (
            "node a of group receipts is cut off from the table of roles: its lease is over, it begins nothing new"
        )
        assert house.told(IncidentKind.OUTAGE) == [cut_off] * times
        house.table.recover()
        stage.advance(INTERVAL)
        outage, recovered = house.noticed()[-2:]
        assert (outage.kind, recovered.kind) == (IncidentKind.OUTAGE, IncidentKind.RECOVERED)
        assert outage.subject == recovered.subject == ROLE_TABLE


def test_a_node_that_has_not_reached_the_table_yet_has_no_place(house: House) -> None:
    house.table.fail("read", UNAVAILABLE, times=None)
    house.start("a")
    words = "node a of group receipts has not found its place yet: the table of roles does not answer"
    assert house.noticed() == [Noticed(IncidentKind.OUTAGE, ROLE_TABLE, words)]


def test_why_a_node_stands_by_is_told_where_it_is_not_expected(house: House) -> None:
    few = replace(LIMITS, ledger_concurrency=1)
    house.start("a", limits=few)
    house.start("b", limits=few)
    stands_by = "node b of group receipts stands by for a"
    assert house.told()[-1] == f"{stands_by}: the limits that are shared are too small for one more node"
    house.start("c", Role.ACTIVE_STANDBY)
    house.start("d")
    because = "one works at a time while c is here, whose role is active-standby"
    assert house.told()[-1] == f"node d of group receipts stands by for a: {because}"


def test_a_record_that_cannot_be_read_is_a_configuration_fault_and_left_alone(house: House, stage: Stage) -> None:
    keeper, held = house.start("a")
    version = house.record.version + 1
    for text, times in (("no record", 1), ("{}", 2)):
        garbage = house.write_garbage(version, text)
        version += 1
        stage.advance(3 * LEASE)
        assert keeper.is_alive()
        assert not held.is_held
        assert len(house.told(IncidentKind.CONFIGURATION)) == times
    line = house.told(IncidentKind.CONFIGURATION)[0]
    assert "the record of group 'receipts' in the table of roles can't be read" in line
    assert "cut off" in house.told()[-1]
    leaving, _ = house.start("b")
    leave(stage, leaving)
    assert not leaving.is_alive()
    assert house.table.standing(GROUP) == garbage
    house.table.forget(GROUP)
    stage.advance(INTERVAL)
    assert held.begins == LIMITS
    assert view(keeper).state is NodeState.ACTIVE
    told = len(house.told(IncidentKind.CONFIGURATION))
    house.write_garbage(house.record.version + 1, "{}")
    stage.advance(INTERVAL)
    assert len(house.told(IncidentKind.CONFIGURATION)) == told + 1


def test_who_stands_by_has_nothing_and_hands_back(house: House, stage: Stage) -> None:
    house.start("a", Role.ACTIVE_STANDBY)
    keeper, held = house.start("b", Role.ACTIVE_STANDBY)
    assert held.begins == NOTHING
    assert view(keeper).state is NodeState.STANDBY
    assert house.told()[-1] == "node b of group receipts stands by for a"
    assert held.releases == 1
    stage.advance(INTERVAL)
    assert held.releases == 2


def test_who_stands_by_takes_over_when_the_active_one_is_not_heard_of(house: House, stage: Stage) -> None:
    first, held = house.start("a", Role.ACTIVE_STANDBY)
    _, standby = house.start("b", Role.ACTIVE_STANDBY)
    stage.advance(2 * LEASE)
    stage.crash(first)
    last = held.until_seconds - LEASE
    while not standby.is_held or standby.begins == NOTHING:
        stage.advance(0.1)
        assert not (held.is_held and standby.begins != NOTHING)
        assert stage.clock.boottime() < last + 1.5 * LEASE
    assert stage.clock.boottime() >= last + EXPIRY_FACTOR * LEASE
    assert house.told()[-2:] == [
        "node a has not been heard of for a lease: it is out of the group",
        f"node b of group receipts is active (active-standby, token {house.record.members['b'].token}, 1 node)",
    ]


def test_who_was_taken_for_gone_stops_at_once_and_joins_again(house: House, stage: Stage) -> None:
    keeper, held = house.start("a", Role.ACTIVE_STANDBY)
    _, other = house.start("b", Role.ACTIVE_STANDBY)
    taken = house.record.renewed(node("b", Role.ACTIVE_STANDBY), 1, LEASE, gone=frozenset("a"))
    house.table.write(GROUP, record_of(taken))
    used = len(held.used)
    stage.advance(INTERVAL)
    assert held.used[used:][:1] == [NOTHING]
    assert (held.begins, other.begins) == (NOTHING, LIMITS)
    assert view(keeper).state is NodeState.STANDBY
    assert "the others have taken this node for gone: it joins again" in house.told()


def test_a_machine_that_is_suspended_has_no_lease_left_when_it_wakes(house: House, stage: Stage) -> None:
    keeper, held = house.start("a")
    stage.clock.suspend(LEASE - 0.01)
    assert held.begins == LIMITS
    stage.clock.suspend(0.01)
    assert held.begins == NOTHING
    assert view(keeper).state is NodeState.CUT_OFF
    stage.advance(INTERVAL)
    assert held.begins == LIMITS
    assert held.used[-2:] == [LIMITS, LIMITS]  # so that who has stopped goes on


@pytest.mark.parametrize("role", [Role.ACTIVE_STANDBY, Role.LOAD_BALANCED])
def test_a_record_that_was_lost_is_put_back(house: House, stage: Stage, role: Role) -> None:
    all_held = [house.start(name, role)[1] for name in "ab"]
    stage.advance(LEASE)
    tokens = {name: (member.token, member.share) for name, member in house.record.members.items()}
    used = [list(held.used) for held in all_held]
    house.table.forget(GROUP)
    for _ in range(6):
        stage.advance(INTERVAL / 5)
        assert sum(held.begins.ledger_concurrency for held in all_held) == LIMITS.ledger_concurrency
    assert {name: (member.token, member.share) for name, member in house.record.members.items()} == tokens
    assert [held.used for held in all_held] == used
    (line,) = house.told(IncidentKind.CONFIGURATION)
    assert line.startswith("the table of roles had no record of group 'receipts', though version 1")
    assert "it was lost, and is put back as version 10000" in line
    assert not house.told(IncidentKind.NODE_LOST, IncidentKind.OUTAGE)


def test_a_share_goes_to_another_node_only_when_it_is_not_used_any_more(house: House, stage: Stage) -> None:
    keeper, first = house.start("a", obeys=False)
    worker = first._worker
    assert isinstance(worker, Ref)
    second_keeper, second = house.start("b")
    stage.advance(4 * LEASE)
    assert first.begins == HALF
    assert second.begins == NOTHING
    assert view(second_keeper).state is NodeState.WAITING
    assert house.told()[-1] == "node b of group receipts waits for its share of the limits (2 nodes)"
    for call in range(len(stage.calls(worker, ObeyLimits))):
        stage.answer(worker, Done(), call)
    stage.advance(INTERVAL / 4)  # who waits looks more often
    assert second.begins == HALF
    assert view(keeper).state is view(second_keeper).state is NodeState.ACTIVE


def test_who_is_asked_may_be_restarted_meanwhile(house: House, stage: Stage) -> None:
    house.start("a", worker="gateway")
    _, second = house.start("b")
    stage.advance(LEASE)
    assert second.begins == NOTHING
    stage.stand_in("gateway", lambda _: Done())
    stage.advance(ASK_AGAIN_SECONDS + INTERVAL)
    assert second.begins == HALF


def test_a_share_that_was_given_back_costs_no_more_renewals(house: House, stage: Stage) -> None:
    keeper, held = house.start("a", obeys=False)
    worker = held._worker
    assert isinstance(worker, Ref)
    for number in range(3):
        other, _ = house.start(f"b{number}")
        stage.advance(INTERVAL + 0.7)  # until it obeys, between two renewals
        stage.answer(worker, Done())
        stage.advance(LEASE)
        other.exit(SHUTDOWN)
        stage.advance(LEASE)
    before = house.table.count("write")
    stage.advance(10 * LEASE)
    assert keeper.is_alive()
    assert house.table.count("write") - before == 10 * RENEWALS_PER_LEASE


def test_what_is_held_stays_held_in_a_crash(house: House, stage: Stage) -> None:
    keeper, held = house.start("a", Role.ACTIVE_STANDBY)
    stage.advance(LEASE)
    until = held.until_seconds
    house.table.fail("read", UNAVAILABLE, times=None)
    stage.crash(keeper)
    house.start("a", Role.ACTIVE_STANDBY, held=held)
    assert (held.begins, held.until_seconds) == (LIMITS, until)
    stage.advance(2 * LEASE)
    assert (held.begins, held.until_seconds) == (NOTHING, until)
    house.table.recover()
    stage.advance(INTERVAL)
    assert held.begins == LIMITS


def leave(stage: Stage, keeper: Ref) -> None:
    keeper.exit(SHUTDOWN)
    stage.settle()


def test_who_leaves_is_followed_at_once(house: House, stage: Stage) -> None:
    first, _ = house.start("a", Role.ACTIVE_STANDBY)
    _, standby = house.start("b", Role.ACTIVE_STANDBY)
    leave(stage, first)
    assert not first.is_alive()
    assert list(house.record.members) == ["b"]
    stage.advance(INTERVAL)
    assert standby.begins == LIMITS


@pytest.mark.parametrize("operation", ["read", "write"])
def test_who_leaves_while_it_waits_for_the_table_leaves_with_what_that_says(
    house: House, stage: Stage, operation: str
) -> None:
    keeper, _ = house.start("a")
    with house.table.hold(operation, times=1) as hold:
        stage.advance(INTERVAL)
        hold.wait_for_call()
        leave(stage, keeper)
        assert list(house.record.members) == ["a"]
    assert keeper.wait(PATIENCE_SECONDS) == SHUTDOWN
    stage.settle()
    assert not keeper.is_alive()
    assert not house.record.members


@pytest.mark.parametrize("operation", ["read", "write"])
def test_who_cannot_leave_ends_all_the_same(
    house: House, stage: Stage, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, _ = house.start("a")
    hold = house.table.hold(operation, times=1, then=UNAVAILABLE)
    house.table.fail("write", UNAVAILABLE, times=None)
    stage.advance(INTERVAL)
    with caplog.at_level(logging.WARNING):
        leave(stage, keeper)
        hold.release()
        assert keeper.wait(PATIENCE_SECONDS) == SHUTDOWN
    assert list(house.record.members) == ["a"]
    assert "could not leave its group" in caplog.text


def test_who_cannot_work_steps_down(house: House, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    _, first = house.start("a", Role.ACTIVE_STANDBY)
    _, second = house.start("b", Role.ACTIVE_STANDBY)
    stage.advance(LEASE)
    first.fall()
    stage.advance(STEP_DOWN.seconds - 0.1)
    assert first.begins == LIMITS
    with caplog.at_level(logging.WARNING):
        stage.advance(INTERVAL + 0.1)
    assert first.begins == NOTHING
    assert first.releases
    stage.advance(INTERVAL)
    assert second.begins == LIMITS
    told = next(line for line in house.told(IncidentKind.STEPPED_DOWN) if "steps down" in line)
    assert told.startswith("node a steps down: for 1")
    assert told.endswith(" s nothing could be received (receive from receipts unavailable); b takes over")
    assert told in caplog.text
    assert "node a of group receipts stands by for b" in house.told()
    assert "node a of group receipts stands by for b" in caplog.text  # as a warning
    assert [name for name, member in house.record.members.items() if member.token is not None] == ["b"]
