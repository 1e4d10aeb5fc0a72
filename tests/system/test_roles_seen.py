"""Nodes that share the work, as an operator sees them: two programs on one backend, by probes, commands and alerts."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from receipt_actors.aws import AwsRoles
from receipt_actors.cli import EXIT_DONE
from receipt_actors.sandbox.app_store import SimulatedAppStore

from .processes import Program
from .test_admin_port import ANY_PORT, Port
from .test_telemetry import ALERTS, Inbox
from .worlds import RESULTS, SOURCE, AwsWorld, EmbeddedWorld, World, genuine_messages

PROCESSES = [1, 2]
GENUINE = genuine_messages(20, 11)
LEASE_SECONDS = 5  #: a busy machine keeps nobody from renewing for so long


class Node:
    def __init__(self, world: World, store: SimulatedAppStore, name: str, role: str, **settings: object) -> None:
        sharing = {"role": role, "lease_seconds": LEASE_SECONDS}
        world.environment["HOSTNAME"] = name
        self._world = world
        self.name = name
        self.program: Program = world.start(store, admin=ANY_PORT, **sharing, **settings)
        self.port = Port(self.program)
        self.metric = self.port.metric

    def wait_for(self, state: str) -> None:
        self.program.wait_until(lambda: self.port.state() == state, f"{self.name} is {state}")

    def wait_for_nodes(self, count: int, state: str) -> None:
        nodes = partial(self.metric, "receipt_actors_role_nodes", state=state)
        self.program.wait_until(lambda: nodes() == count, f"{self.name} sees {count} that are {state}")

    def probes(self) -> tuple[int, int]:
        return self.port.status("/healthz"), self.port.status("/readyz")

    def role(self) -> dict[str, Any]:
        role: dict[str, Any] = json.loads(self.port.ask("/api/overview")[1])["role"]
        return role

    def depths(self) -> dict[str, int | None]:
        depths: dict[str, int | None] = json.loads(self.port.ask("/api/overview")[1])["queues"]
        return depths

    def command(self, *arguments: str) -> tuple[int, str]:
        name, *others = arguments
        address = self.port.url.removeprefix("http://")
        program = self._world.programs.start(name, *others, "--admin", address)
        return program.wait_for_end(), program.stdout


def prepare(world: World) -> Inbox:
    if isinstance(world, AwsWorld):
        world.create_table("RoleTable", AwsRoles.key)
    return Inbox(world)


@pytest.mark.short("embedded-1")
@pytest.mark.parametrize("processes", PROCESSES)
def test_one_works_and_another_stands_by_until_it_is_needed(
    world: World, store: SimulatedAppStore, processes: int
) -> None:
    inbox = prepare(world)
    active = Node(world, store, "one", "active-standby", processes=processes, alerts_queue=ALERTS)
    active.wait_for("consuming")
    standby = Node(world, store, "two", "active-standby", processes=processes, alerts_queue=ALERTS)
    standby.wait_for("standby")
    assert active.probes() == standby.probes() == (200, 200)
    assert "consumers take receipts" not in standby.program.stderr
    if processes == 1:
        assert "while this node is active, they take receipts from" in standby.program.stderr
    active.wait_for_nodes(1, "standby")
    assert (active.metric("receipt_actors_role_active"), standby.metric("receipt_actors_role_active")) == (1, 0)
    code, text = standby.command("status")
    assert (code, text.splitlines()[0]) == (EXIT_DONE, "standby: healthy, ready")
    assert "active-standby in group ReceiptsSQS: standby\n" in text
    assert "50 of 50 requests to the ledger" in text
    world.send(GENUINE)
    active.program.wait_until(lambda: world.visible(RESULTS) >= len(GENUINE), "all are answered")
    standby.program.wait_until(lambda: None not in standby.depths().values(), "it knows what waits on the queues")
    assert standby.depths().keys() == active.depths().keys() > {SOURCE, RESULTS}
    assert standby.metric("receipt_actors_messages_received_total") == 0
    before = active.metric("receipt_actors_role_token")
    active.program.kill()
    standby.wait_for("consuming")
    assert standby.metric("receipt_actors_role_token") > before
    assert standby.metric("receipt_actors_incidents_total", kind="node_lost") == 1
    alert = inbox.wait_for("node_lost", standby.program)
    assert alert["summary"].startswith("node one-")
    standby.program.stop()


@pytest.mark.parametrize("processes", PROCESSES)
def test_one_that_stops_in_good_order_is_no_alert(
    embedded: EmbeddedWorld, store: SimulatedAppStore, processes: int
) -> None:
    inbox = prepare(embedded)
    active = Node(embedded, store, "one", "active-standby", alerts_queue=ALERTS)
    active.wait_for("consuming")
    standby = Node(embedded, store, "two", "active-standby", processes=processes, alerts_queue=ALERTS)
    standby.wait_for("standby")
    active.program.stop()
    standby.wait_for("consuming")
    assert [node["state"] for node in standby.role()["nodes"]] == ["active"]
    standby.program.stop()
    assert inbox.of("node_lost") == []
