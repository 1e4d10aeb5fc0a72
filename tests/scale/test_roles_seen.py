"""What operators see of a node that shares the work: its state, its incidents, what its keeper knows, and a pause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from receipt_actors.backends import Backend
from receipt_actors.errors import AppStoreUnavailable, LedgerUnavailable, QueueUnavailable
from receipt_actors.settings import Settings
from receipt_actors.telemetry.overview import Overview, RoleOverview, Standing, State
from receipt_actors.testing import FakeRoles, FakeServices
from tests.pipeline.trees import SETTINGS, Tree

LEASE_SECONDS = 10.0
A_MOMENT_SECONDS = LEASE_SECONDS / 4  #: within which a lease is renewed


class ServicesOfNode(FakeServices):
    """Services whose backend has a table of roles."""

    def __init__(self, settings: Settings, table: FakeRoles) -> None:
        super().__init__(settings)
        self._table = table

    @property
    def backend(self) -> Backend:
        return replace(super().backend, roles=self._table)


class Nodes:
    """Nodes of one group, each with services and a clock of its own; they have nothing in common but the table."""

    def __init__(self, role: str, *names: str) -> None:
        self.table = FakeRoles()
        self._stack = ExitStack()
        self.nodes: dict[str, Tree] = {}
        for name in names:
            changes = {"role": role, "lease_seconds": LEASE_SECONDS}
            settings = SETTINGS.model_copy(update=changes)
            with pytest.MonkeyPatch.context() as patched:
                patched.setenv("HOSTNAME", name)
                tree = Tree(settings, ServicesOfNode(settings, self.table))
            self.nodes[name] = self._stack.enter_context(closing(tree))
        self.advance(A_MOMENT_SECONDS)

    def advance(self, seconds: float, *, without: str | None = None) -> None:
        """Let the same time pass for all, a moment after the other."""
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
        """Return the kinds of the incidents of a node, the oldest first."""
        return [incident.kind for incident in reversed(self.look(name).incidents)]

    def close(self) -> None:
        self.table.recover()
        self._stack.close()


@pytest.fixture
def pair() -> Iterator[Nodes]:
    with closing(Nodes("active-standby", "a", "b")) as nodes:
        yield nodes


def test_who_stands_by_says_so_everywhere(pair: Nodes) -> None:
    """In the state of the system and of its process; who is active is known to both, with its token."""
    seen = [pair.look(name) for name in ("a", "b")]
    assert [overview.state for overview in seen] == [State.CONSUMING, State.STANDBY]
    assert [overview.processes[0].state for overview in seen] == [State.CONSUMING, State.STANDBY]
    for name in ("a", "b"):
        assert [(node.name[0], node.standing) for node in pair.role(name).nodes] == [
            ("a", Standing.ACTIVE),
            ("b", Standing.STANDBY),
        ]
    own = pair.role("a").own
    assert own is not None
    assert (own.token, pair.role("a").part_of(own)) == (1, 1.0)
    assert pair.kinds("a") == pair.kinds("b") == ["role"]


def test_a_node_that_is_lost_is_told_of_once(pair: Nodes) -> None:
    """By the one that took it out, which has its work now: that is an alert; what follows is none."""
    pair.advance(2 * LEASE_SECONDS, without="a")
    assert pair.look("b").state is State.CONSUMING
    assert pair.kinds("b") == ["role", "node_lost", "role"]
    lost = pair.look("b").incidents[1]
    assert lost.count == 1
    assert lost.summary.startswith("node a-")
    assert pair.nodes["b"].system.statistics().incidents["node_lost"] == 1
    pair.advance(A_MOMENT_SECONDS)  # the lost one comes back, and stands at the end of the line
    assert pair.look("a").state is State.STANDBY
    assert "node_lost" not in pair.kinds("a")


def test_a_table_that_does_not_answer_is_an_outage(pair: Nodes) -> None:
    """Told once by each node, and its end; nobody is taken for lost, and who was active is so again."""
    for operation in ("read", "write"):
        pair.table.fail(operation, LedgerUnavailable("down"), times=None)
    pair.advance(3 * LEASE_SECONDS)
    for name in ("a", "b"):
        assert pair.role(name).standing is Standing.CUT_OFF
        assert pair.look(name).state is State.WAITING
        assert pair.kinds(name) == ["role", "outage"]
        assert pair.look(name).incidents[0].subject == "role table"
    pair.table.recover()
    pair.advance(A_MOMENT_SECONDS)
    assert [pair.role(name).standing for name in ("a", "b")] == [Standing.ACTIVE, Standing.STANDBY]
    for name in ("a", "b"):
        assert pair.kinds(name) == ["role", "outage", "recovered"]


def test_the_keeper_tells_what_it_knows(pair: Nodes) -> None:
    """For people: the whole group, the lease, and what is done with the share; nothing but JSON's types."""
    described = pair.nodes["a"].system.actor_state("membership")
    assert [node["name"][0] for node in described["seen"]["nodes"]] == ["a", "b"]
    assert described["seen"]["nodes"][1]["standing"] == "standby"
    state = described["state"]
    assert state["limits"]["max_in_flight"] == SETTINGS.max_in_flight
    assert (state["share_number"], state["share_used"]) == (1, 1)
    assert state["not_heard_of"] == []
    assert 0 <= state["renewed_seconds_ago"] <= A_MOMENT_SECONDS


def cut_off_from_its_queue(node: Tree) -> None:
    node.services.queues.fail("receive", QueueUnavailable("down"), times=None)


def test_a_node_that_cannot_receive_gives_up_its_seat(pair: Nodes) -> None:
    """The other one works; and the first one says why."""
    a, b = pair.nodes.values()
    cut_off_from_its_queue(a)
    pair.advance(LEASE_SECONDS)
    assert pair.role("a").standing is Standing.ACTIVE
    assert pair.look("a").processes[0].unable_seconds > 0  # since its long poll is over
    pair.advance(1.5 * LEASE_SECONDS)
    assert [pair.role(name).standing for name in ("a", "b")] == [Standing.STANDBY, Standing.ACTIVE]
    assert pair.look("a").processes[0].unable_seconds == 0.0
    why = pair.look("a").incidents[1]
    assert why.kind == "stepped_down"
    assert "steps down: for 1" in why.summary
    assert "(receive from ReceiptsSQS unavailable); b-" in why.summary
    b.services.submit(b.services.app_store.sell("t-1"), user_id=1)
    pair.advance(A_MOMENT_SECONDS)
    assert len(b.results()) == 1


@pytest.mark.parametrize("service", ["app_store", "ledger"])
def test_a_node_that_reaches_its_queue_alone_keeps_its_seat(pair: Nodes, service: str) -> None:
    """And what it has taken in: each of those messages would lose a delivery, for the sake of what nobody knows."""
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
    assert [pair.role(name).standing for name in ("a", "b")] == [Standing.ACTIVE, Standing.STANDBY]
    a.services.recover()
    pair.advance(LEASE_SECONDS)
    assert len(a.results()) == 20
    assert a.system.statistics().count("handed_back") == b.system.statistics().count("handed_back") == 0


def test_a_node_that_cannot_delete_gives_up_its_seat(pair: Nodes) -> None:
    """So one that is full, and does not receive, meets an outage of its queue."""
    a, _ = pair.nodes.values()
    for operation in ("delete", "change_visibility"):
        a.services.queues.fail(operation, QueueUnavailable("down"), times=None)
    for number in range(5):
        a.services.submit(a.services.app_store.sell(f"t-{number}"), user_id=number)
    pair.advance(5 * LEASE_SECONDS)
    assert [pair.role(name).standing for name in ("a", "b")] == [Standing.STANDBY, Standing.ACTIVE]


def test_a_node_that_is_paused_keeps_a_seat_that_it_holds_in_vain(pair: Nodes) -> None:
    """An operator wished that nothing be done; from then on it has all its patience again."""
    a, _ = pair.nodes.values()
    cut_off_from_its_queue(a)
    pair.advance(LEASE_SECONDS)
    a.system.pause()
    pair.advance(3 * LEASE_SECONDS)
    assert [pair.role(name).standing for name in ("a", "b")] == [Standing.ACTIVE, Standing.STANDBY]
    a.system.resume()
    pair.advance(LEASE_SECONDS)
    assert pair.role("a").standing is Standing.ACTIVE
    pair.advance(1.5 * LEASE_SECONDS)
    assert pair.role("a").standing is Standing.STANDBY


def test_nodes_that_share_the_limits_show_their_parts() -> None:
    """They sum up to the whole."""
    with closing(Nodes("load-balanced", "a", "b")) as nodes:
        nodes.advance(LEASE_SECONDS)
        role = nodes.role("b")
        assert [node.standing for node in role.nodes] == [Standing.ACTIVE] * 2
        assert [role.part_of(node) for node in role.nodes] == [0.5, 0.5]
        assert nodes.look("b").state is State.CONSUMING
