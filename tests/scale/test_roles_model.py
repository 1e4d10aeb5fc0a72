"""Nodes that agree on roles whatever happens to them: a model of the protocol, and that it can fail."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.roles import Group, Lease, Role
from tests.scale.roles_world import LIMITS, Clock, Fault, SimulatedNode, Violation, World

MAX_NODES = 5
LEASE_SECONDS = 10.0

roles = st.sampled_from([Role.ACTIVE_STANDBY, Role.LOAD_BALANCED])
limits = st.builds(
    Limits,
    st.integers(8, 100),
    st.sampled_from([8, 20, 50]),
    st.sampled_from([8, 30, 200]),
    st.none() | st.sampled_from([5.0, 12.5]),
)
clocks = st.builds(Clock, st.floats(-1e6, 1e6), st.floats(0.98, 1.02))
faults = st.builds(
    Fault, st.booleans(), st.booleans(), st.sampled_from([0.0, 1.0, 4.0, 11.0, 40.0]), st.sampled_from([0.0, 2.0])
)
moments = st.sampled_from([0.01, 0.05, 0.3, 1.0, 2.1, 5.0, 10.3, 10.8, 11.5, 25.0])


class Roles(RuleBasedStateMachine):
    """Nodes join, crash, stand still and are cut off in any order; what they send is lost or comes late."""

    world_class: ClassVar[type[World]] = World

    def __init__(self) -> None:
        super().__init__()
        self.world = self.world_class()
        self.mixed: Role | None = None

    @initialize(role=st.none() | roles)
    def begin(self, role: Role | None) -> None:
        self.mixed = role

    def node(self, index: int) -> SimulatedNode:
        return self.world.nodes[index % len(self.world.nodes)]

    @precondition(lambda self: len(self.world.nodes) < MAX_NODES)
    @rule(
        role=roles,
        limits=limits,
        processes=st.sampled_from([1, 1, 2, 4]),
        is_shared=st.booleans(),
        lease_seconds=st.sampled_from([LEASE_SECONDS, LEASE_SECONDS, 4.0]),
        clock=clocks,
    )
    def start(
        self, role: Role, limits: Limits, processes: int, is_shared: bool, lease_seconds: float, clock: Clock
    ) -> None:
        self.world.start(
            self.mixed or role,
            limits,
            processes,
            shares_app_store_concurrency=is_shared,
            lease_seconds=lease_seconds,
            clock=clock,
        )

    @precondition(lambda self: self.world.nodes)
    @rule(index=st.integers(0, 9))
    def kill(self, index: int) -> None:
        self.node(index).kill()

    @precondition(lambda self: self.world.nodes)
    @rule(index=st.integers(0, 9))
    def crash_keeper(self, index: int) -> None:
        self.node(index).crash_keeper()

    @precondition(lambda self: self.world.nodes)
    @rule(index=st.integers(0, 9), seconds=moments)
    def stand_still(self, index: int, seconds: float) -> None:
        """SIGSTOP and SIGCONT, with anything in between; its clock goes on."""
        node = self.node(index)
        node.is_paused = True
        self.world.advance(seconds)
        node.resume()

    @precondition(lambda self: self.world.nodes)
    @rule(index=st.integers(0, 9), is_cut=st.booleans())
    def cut(self, index: int, is_cut: bool) -> None:
        self.node(index).is_cut = is_cut

    @precondition(lambda self: self.world.nodes)
    @rule(index=st.integers(0, 9), to_come=st.lists(faults, min_size=1, max_size=4))
    def befall(self, index: int, to_come: list[Fault]) -> None:
        self.node(index).faults.extend(to_come)

    @precondition(lambda self: self.world.nodes)
    @rule(
        index=st.integers(0, 9),
        to_come=st.lists(faults, max_size=2),
        seconds=moments,
        how=st.sampled_from(["cut", "pause", "crash_keeper"]),
    )
    def fail_suddenly(self, index: int, to_come: list[Fault], seconds: float, how: str) -> None:
        node = self.node(index)
        node.faults[:] = to_come
        self.world.advance(seconds)
        if how == "cut":
            node.is_cut = True
        elif how == "pause":
            node.is_paused = True
        else:
            node.crash_keeper()
        self.world.advance(10.6)

    @precondition(lambda self: self.world.nodes)
    @rule(index=st.integers(0, 9), seconds=st.sampled_from([0.1, 3.0, 15.0]))
    def obey_slowly(self, index: int, seconds: float) -> None:
        self.node(index).obey_seconds = seconds

    @precondition(lambda self: self.world.nodes)
    @rule(index=st.integers(0, 9), is_able=st.booleans())
    def change_ability(self, index: int, is_able: bool) -> None:
        if is_able:
            self.node(index).rise()
        else:
            self.node(index).fall()

    @precondition(lambda self: self.world.nodes)
    @rule(to_come=st.lists(faults, max_size=2), seconds=st.sampled_from([12.1, 14.5, 30.0]))
    def be_in_vain(self, to_come: list[Fault], seconds: float) -> None:
        for node in self.world.nodes:
            node.fall()
        self.node(0).faults.extend(to_come)
        self.world.advance(seconds)

    @rule(seconds=moments)
    def go_on(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(dice=st.integers(0, 3))
    def delete_the_item(self, dice: int) -> None:
        if dice == 0:  # seldom: it makes the world forget much
            self.world.delete()

    def teardown(self) -> None:
        self.world.settle()


TestRoles = Roles.TestCase
# A third of what the profile says: each example is a long story.
TestRoles.settings = settings(max_examples=settings.default.max_examples // 3, stateful_step_count=40, deadline=None)


# --- the model can fail: what it is to find, made wrong on purpose ---


class Impatient(Lease):
    __slots__ = ()

    def gone(self, now_seconds: float) -> frozenset[str]:
        return super().gone(now_seconds + self.seconds * 0.55)


class HeldFromTheAnswer(Lease):
    __slots__ = ()

    def looked(self, group: Group, now_seconds: float) -> Lease:
        looked = super().looked(group, now_seconds)
        is_renewed = looked.me is not None and looked.me.beat == self.beat
        return replace(looked, held_until_seconds=now_seconds + self.seconds) if is_renewed else looked


class ConfirmsUnheard(Lease):
    __slots__ = ()

    def looked(self, group: Group, now_seconds: float) -> Lease:
        looked = super().looked(group, now_seconds)
        return replace(looked, obeyed=None if looked.share is None else looked.share.number)


class Careless(World):
    def is_refused(self, standing: int) -> bool:
        return False


def with_lease(lease: type[Lease]) -> type[World]:
    return type("WrongWorld", (World,), {"lease_class": lease})


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(with_lease(Impatient), id="impatient"),
        pytest.param(with_lease(HeldFromTheAnswer), id="held from the answer"),
        pytest.param(with_lease(ConfirmsUnheard), id="confirms unheard"),
        pytest.param(Careless, id="careless table"),
    ],
)
def test_the_model_finds_what_is_wrong(wrong: type[World]) -> None:
    machine = type("Wrong", (Roles,), {"world_class": wrong})
    with pytest.raises(Violation):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=400,
                stateful_step_count=40,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )


@pytest.mark.parametrize("role", list(Role)[1:])
@pytest.mark.parametrize("able", range(3))
def test_the_only_one_that_can_work_is_active_in_the_end(role: Role, able: int) -> None:
    world = World()
    few = replace(LIMITS, ledger_concurrency=2)
    nodes = [world.start(role, few) for _ in range(3) if world.advance(0.7) is None]
    world.advance(LEASE_SECONDS)
    for number, node in enumerate(nodes):
        if number != able:
            node.fall()
    world.advance(4 * 1.2 * LEASE_SECONDS)
    nodes[able].answered += 1
    assert nodes[able].limit.ledger_concurrency
    token = world.record.group.members[nodes[able].node.name].token
    world.advance(60.0)
    assert world.record.group.members[nodes[able].node.name].token == token
    world.settle()


@pytest.mark.parametrize(("count", "moves"), [(2, 8), (3, 10)])
def test_in_an_outage_for_all_they_step_down_ever_more_seldom(count: int, moves: int) -> None:
    world = World()
    for _ in range(count):
        world.start(Role.ACTIVE_STANDBY).fall()
        world.advance(0.7)
    world.advance(400.0)
    assert moves - 2 <= world.steps_down <= moves
