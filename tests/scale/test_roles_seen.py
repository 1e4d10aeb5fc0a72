"""What operators see of a node that shares the work: its state, its incidents, what its keeper knows, and a pause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from receipt_actors.backends import Backend
from receipt_actors.errors import AppStoreUnavailable, LedgerUnavailable, QueueUnavailable
from receipt_actors.settings import Settings
from receipt_actors.telemetry.overview import NodeState, Overview, RoleOverview, State
from receipt_actors.testing import FakeRoles, FakeServices
from tests.pipeline.trees import SETTINGS, Tree

LEASE_SECONDS = 10.0
A_MOMENT_SECONDS = LEASE_SECONDS / 4  #: within which a lease is renewed


class ServicesOfNode(FakeServices):
    def __init__(self, settings: Settings, table: FakeRoles) -> None:
        super().__init__(settings)
        self._table = table

    @property
    def backend(self) -> Backend:
        return replace(super().backend, roles=self._table)


class Nodes:
    """Nodes of one group, each with services and a clock of its own; they have nothing in common but the table."""

    def __init__(self, *names: str) -> None:
        self.table = FakeRoles()
        self._stack = ExitStack()
        self.nodes: dict[str, Tree] = {}
        for name in names:
            changes = {"role": "active-standby", "lease_seconds": LEASE_SECONDS}
            settings = SETTINGS.model_copy(update=changes)
            with pytest.MonkeyPatch.context() as patched:
                patched.setenv("HOSTNAME", name)
                tree = Tree(settings, ServicesOfNode(settings, self.table))
            self.nodes[name] = self._stack.enter_context(closing(tree))
        self.advance(A_MOMENT_SECONDS)

    def advance(self, seconds: float, *, without: str | None = None) -> None:
        while seconds > 0:
            moment = min(seconds, A_MOMENT_SECONDS / 2)
            for name, node in self.nodes.items():
                if name != without:
                    node.advance(moment)
            seconds -= moment

    def look(self, name: str) -> Overview:
        return self.nodes[name].system.overview()

    def role(self, name: str) -> RoleOverview:
        role = self.look(name).role
        assert role is not None
        return role

    def kinds(self, name: str) -> list[str]:
        return [incident.kind for incident in reversed(self.look(name).incidents)]

    def close(self) -> None:
        self.table.recover()
        self._stack.close()


@pytest.fixture
def pair() -> Iterator[Nodes]:
    with closing(Nodes("a", "b")) as nodes:
        yield nodes


def test_who_stands_by_says_so_everywhere(pair: Nodes) -> None:
    seen = [pair.look(name) for name in ("a", "b")]
    assert [overview.state for overview in seen] == [State.CONSUMING, State.STANDBY]
    assert [overview.processes[0].state for overview in seen] == [State.CONSUMING, State.STANDBY]
    for name in ("a", "b"):
        assert [(node.name[0], node.state) for node in pair.role(name).nodes] == [
            ("a", NodeState.ACTIVE),
            ("b", NodeState.STANDBY),
        ]
    own = pair.role("a").own
    assert own is not None
    assert own.token == 1
    assert replace(pair.role("a"), node="x").own is None
    assert pair.kinds("a") == pair.kinds("b") == ["role"]
    described = pair.nodes["a"].system.actor_state("membership")
    assert described["seen"]["nodes"][1]["state"] == "standby"
    assert described["state"]["limits"]["max_in_flight"] == SETTINGS.max_in_flight


def cut_off_from_its_queue(node: Tree) -> None:
    node.services.queues.fail("receive", QueueUnavailable("down"), times=None)


def test_a_node_that_cannot_receive_steps_down(pair: Nodes) -> None:
    a, b = pair.nodes.values()
    cut_off_from_its_queue(a)
    pair.advance(LEASE_SECONDS)
    assert pair.role("a").state is NodeState.ACTIVE
    assert pair.look("a").processes[0].unable_seconds > 0  # since its long poll is over
    pair.advance(1.5 * LEASE_SECONDS)
    assert [pair.role(name).state for name in ("a", "b")] == [NodeState.STANDBY, NodeState.ACTIVE]
    assert pair.look("a").processes[0].unable_seconds == 0.0
    why = pair.look("a").incidents[1]
    assert why.kind == "stepped_down"
    assert "steps down: for 1" in why.summary
    assert "(receive from ReceiptsSQS unavailable); b-" in why.summary
    b.services.submit(b.services.app_store.sell("t-1"), user_id=1)
    pair.advance(A_MOMENT_SECONDS)
    assert len(b.results()) == 1


@pytest.mark.parametrize("service", ["app_store", "ledger"])
def test_a_node_that_reaches_its_queue_alone_stays_active(pair: Nodes, service: str) -> None:
    a, b = pair.nodes.values()
    if service == "app_store":
        a.services.app_store.fail("verify_receipt", AppStoreUnavailable("down"), times=None)
    else:
        for operation in a.services.ledger.operations:
            a.services.ledger.fail(operation, LedgerUnavailable("down"), times=None)
    for number in range(20):
        a.services.submit(a.services.app_store.sell(f"t-{number}"), user_id=number)
    pair.advance(20 * LEASE_SECONDS)
    assert pair.look("a").processes[0].unavailable == (service,)
    assert [pair.role(name).state for name in ("a", "b")] == [NodeState.ACTIVE, NodeState.STANDBY]
    a.services.recover()
    pair.advance(LEASE_SECONDS)
    assert len(a.results()) == 20
    assert a.system.statistics().count("handed_back") == b.system.statistics().count("handed_back") == 0


def test_a_node_that_is_full_and_cannot_delete_steps_down(pair: Nodes) -> None:
    a, _ = pair.nodes.values()
    for operation in ("delete", "change_visibility"):
        a.services.queues.fail(operation, QueueUnavailable("down"), times=None)
    for number in range(5):
        a.services.submit(a.services.app_store.sell(f"t-{number}"), user_id=number)
    pair.advance(5 * LEASE_SECONDS)
    assert [pair.role(name).state for name in ("a", "b")] == [NodeState.STANDBY, NodeState.ACTIVE]


def test_a_node_that_is_paused_stays_active(pair: Nodes) -> None:
    a, _ = pair.nodes.values()
    cut_off_from_its_queue(a)
    pair.advance(LEASE_SECONDS)
    a.system.pause()
    pair.advance(3 * LEASE_SECONDS)
    assert [pair.role(name).state for name in ("a", "b")] == [NodeState.ACTIVE, NodeState.STANDBY]
    a.system.resume()
    pair.advance(LEASE_SECONDS)
    assert pair.role("a").state is NodeState.ACTIVE
    pair.advance(1.5 * LEASE_SECONDS)
    assert pair.role("a").state is NodeState.STANDBY
