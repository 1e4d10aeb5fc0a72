"""Real role keepers while everything happens to them: no more is begun than the record lends, and all is well soon.

What it decides is tried far more often in ``tests/scale/test_roles_model.py``; this is about the actor around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.ports import RoleRecord
from receipt_actors.domain.roles import Node, Role, StepDown, Work, group_in
from receipt_actors.errors import LedgerUnavailable
from receipt_actors.otp import SHUTDOWN, Ref
from receipt_actors.pipeline.protocol import Done, ObeyLimits
from receipt_actors.scale.nodes.membership import Membership
from receipt_actors.testing import FakeRoles, Hold
from receipt_actors.testing._faults import Fake
from tests.pipeline.stand_ins import SILENT, Stage

GROUP = "receipts"
LEASE = 10.0
LIMITS = Limits(100, 12, 24, 10.0)
MAX_NODES = 4
STEP_DOWN = StepDown(12.0)
DOWN = LedgerUnavailable("injected by a test")


class FarTable(Fake):
    """A node's way to the table, with faults of its own."""

    operations: ClassVar[frozenset[str]] = frozenset({"read", "write", "check"})

    def __init__(self, table: FakeRoles) -> None:
        super().__init__()
        self._table = table

    def read(self, group: str) -> RoleRecord | None:
        return self._carry_out("read", lambda: self._table.read(group))

    def write(self, group: str, record: RoleRecord, before: int | None = None) -> RoleRecord | None:
        return self._carry_out("write", lambda: self._table.write(group, record, before))

    def check(self) -> None:
        self._carry_out("check", self._table.check)


class KeptNode:
    """A node: its keeper, which may be replaced, and its worker, who obeys at once or later."""

    def __init__(self, stage: Stage, table: FakeRoles, name: str, role: Role) -> None:
        self.stage = stage
        self.name = name
        self.role = role
        self.table: FarTable = stage.with_fake(FarTable(table))
        self.obeys_at_once = True
        self.until_seconds = -inf
        self.limits = LIMITS.nothing
        self.in_use = 0  # requests to the ledger that may have been begun
        self.worker = stage.stand_in(answer=lambda _: self.obey() if self.obeys_at_once else SILENT)
        self.holds: list[Hold] = []
        self.start_keeper()

    def start_keeper(self) -> None:
        node = Node(self.name, self.role, LIMITS, shares_app_store_concurrency=True)
        self.keeper: Ref = self.stage.actors.start(Membership, self.table, GROUP, node, LEASE, self, STEP_DOWN)
        self.stage.settle()

    # --- as ``Lessee`` ---

    def lend_until(self, seconds: float) -> None:
        self.until_seconds = seconds
        if seconds == -inf:
            self.in_use = 0  # it is out of the group, and what it had begun is no more of that

    def grant(self, limits: Limits) -> Sequence[tuple[Ref, object]]:
        self.limits = limits
        return [(self.worker, ObeyLimits())]

    def release(self) -> None:
        """Nothing is in flight here."""

    def work(self) -> Work:
        return Work()

    # --- who works ---

    @property
    def is_held(self) -> bool:
        return self.stage.clock.boottime() < self.until_seconds

    def note_use(self) -> None:
        if self.is_held:
            self.in_use = max(self.in_use, self.limits.ledger_concurrency)

    def obey(self) -> Done:
        self.in_use = min(self.in_use, self.limits.ledger_concurrency)
        return Done()

    def obey_at_last(self) -> None:
        self.obey()
        actor = self.worker.process.actor
        for from_ in list(actor.froms):  # type: ignore[union-attr]
            from_.reply(Done())
        self.stage.settle()

    def let_go(self) -> None:
        for hold in self.holds:
            hold.release()
        self.holds.clear()
        self.stage.settle()


class Keepers(RuleBasedStateMachine):
    """Keepers crash and come back, and calls fail, stand still, or lose their answers."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.table: FakeRoles = self.stage.with_fake(FakeRoles())
        self.nodes: list[KeptNode] = []
        self.started = 0
        self.role = Role.LOAD_BALANCED
        self.is_lost_until_seconds = -inf

    @initialize(role=st.sampled_from([Role.ACTIVE_STANDBY, Role.LOAD_BALANCED]))
    def begin(self, role: Role) -> None:
        self.role = role

    def node(self, index: int) -> KeptNode:
        return self.nodes[index % len(self.nodes)]

    def check(self) -> None:
        """Each uses no more than the record says that it holds, and so do all of them together."""
        for node in self.nodes:
            node.note_use()
        if self.is_lost_until_seconds > -inf:
            if self.stage.clock.boottime() < self.is_lost_until_seconds:
                return
            self.is_lost_until_seconds = -inf
            for node in self.nodes:
                node.obey()  # what it had begun before is no more of the record's
        record = self.table.standing(GROUP)
        members = {} if record is None else group_in(record).members
        used = 0
        for node in self.nodes:
            if not node.is_held or not node.in_use:
                continue
            share = members[node.name].share
            assert share is not None, f"{node.name} uses {node.in_use} of nothing"
            assert node.in_use <= share.held.ledger_concurrency
            used += node.in_use
        assert used <= LIMITS.ledger_concurrency

    @precondition(lambda self: len(self.nodes) < MAX_NODES)
    @rule(obeys_at_once=st.booleans())
    def start(self, obeys_at_once: bool) -> None:
        self.started += 1
        self.nodes.append(KeptNode(self.stage, self.table, f"n{self.started}", self.role))
        self.nodes[-1].obeys_at_once = obeys_at_once
        self.check()

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9))
    def crash_keeper(self, index: int) -> None:
        """Whatever it waits for goes on, and may be carried out later."""
        node = self.node(index)
        node.keeper.kill()
        node.start_keeper()
        self.check()

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9))
    def die(self, index: int) -> None:
        node = self.node(index)
        self.nodes.remove(node)
        node.keeper.kill()
        self.check()

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9))
    def leave(self, index: int) -> None:
        node = self.node(index)
        self.nodes.remove(node)  # who leaves has ended its work before
        node.keeper.exit(SHUTDOWN)
        node.let_go()
        self.check()

    @precondition(lambda self: self.nodes)
    @rule(
        index=st.integers(0, 9), operation=st.sampled_from(["read", "write"]), fault=st.sampled_from("flha"),
        times=st.integers(1, 6),
    )  # fmt: skip
    def befall(self, index: int, operation: str, fault: str, times: int) -> None:
        node = self.node(index)
        match fault:
            case "f":
                node.table.fail(operation, DOWN, times=times)
            case "l":
                node.table.lose_answer(operation, DOWN, times=times)
            case "h":
                node.holds.append(node.table.hold(operation, times=1))
            case "a":
                node.holds.append(node.table.hold_answer(operation, times=1))

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9))
    def let_go(self, index: int) -> None:
        self.node(index).let_go()
        self.check()

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9), at_once=st.booleans())
    def obey(self, index: int, at_once: bool) -> None:
        node = self.node(index)
        node.obeys_at_once = at_once
        if at_once:
            node.obey_at_last()
        self.check()

    def end_all_trouble(self) -> None:
        for node in self.nodes:
            node.table.recover()
            node.let_go()
            node.obeys_at_once = True
            node.obey_at_last()

    @rule()
    def lose(self) -> None:
        """Somebody deletes the record: for a lease some may use what others have now."""
        self.table.forget(GROUP)
        self.is_lost_until_seconds = self.stage.clock.boottime() + LEASE

    @rule(seconds=st.floats(0.0, 30.0))
    def sleep(self, seconds: float) -> None:
        """The machine on which all of them run is suspended."""
        self.stage.clock.suspend(seconds)
        self.check()

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0, 11.0]))
    def go_on(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.5)):
            self.stage.advance(0.5)
            self.check()

    def teardown(self) -> None:
        """When nothing fails any more all have what is due to them, and nobody has crashed."""
        self.end_all_trouble()
        self.stage.advance(3 * LEASE)
        self.check()
        shares = sorted(node.limits.ledger_concurrency for node in self.nodes if node.is_held)
        count = len(self.nodes)
        if self.role is Role.LOAD_BALANCED:
            assert shares == [LIMITS.ledger_concurrency // count] * count if count else not shares
        else:
            assert shares == [0] * (count - 1) + [LIMITS.ledger_concurrency] * bool(count)
        assert all(node.keeper.is_alive() for node in self.nodes)
        self.stage.close()


TestKeepers = Keepers.TestCase
TestKeepers.settings = settings(
    max_examples=settings.default.max_examples // 3,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
