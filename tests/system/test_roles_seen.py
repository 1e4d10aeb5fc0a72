"""Nodes that share the work, as an operator sees them: two programs on one backend, by probes, commands and alerts."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from receipt_actors.aws import AwsRoles
from receipt_actors.cli import EXIT_DONE
from receipt_actors.sandbox.app_store import SimulatedAppStore

from .processes import Program
from .test_admin_port import ANY_PORT, Port
from .test_alerts import ALERTS, Inbox
from .worlds import RESULTS, SOURCE, AwsWorld, EmbeddedWorld, World, genuine_messages

PROCESSES = [1, 2]
#: What makes a program believe that its machine was suspended for eleven days in all.
OFTEN_SUSPENDED = ("unshare", "--time", "--boottime", "1000000")
CAN_HAVE_TIME_NAMESPACES = (
    shutil.which("unshare") is not None
    and subprocess.run([*OFTEN_SUSPENDED, "true"], capture_output=True, check=False).returncode == 0
)
GENUINE = genuine_messages(20, 11)
LEASE_SECONDS = 5  #: a busy machine keeps nobody from renewing for so long


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


class Node:
    """A program that shares the work with others, and whoever looks at it."""

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

    def wait_for_nodes(self, count: int, standing: str) -> None:
        nodes = partial(self.metric, "receipt_actors_role_nodes", standing=standing)
        self.program.wait_until(lambda: nodes() == count, f"{self.name} sees {count} that are {standing}")

    def probes(self) -> tuple[int, int]:
        return self.port.status("/healthz"), self.port.status("/readyz")

    def role(self) -> dict[str, Any]:
        role: dict[str, Any] = json.loads(self.port.ask("/api/overview")[1])["role"]
        return role

    def depths(self) -> dict[str, int | None]:
        """What a client of the page sees: how many messages wait on each queue, as far as that is known."""
        depths: dict[str, int | None] = json.loads(self.port.ask("/api/overview")[1])["queues"]
        return depths

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command of ours against it; its exit code and output."""
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
    """Both are healthy and ready, whatever the processes of the one that waits lack. A node that is killed is told of,
    and its work is taken over.
    """
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
    standby.program.send_signal(signal.SIGTERM)
    assert standby.program.wait_for_end() == EXIT_DONE


@pytest.mark.parametrize("processes", PROCESSES)
def test_one_that_stops_in_good_order_is_no_alert(
    embedded: EmbeddedWorld, store: SimulatedAppStore, processes: int
) -> None:
    """It leaves the group, and the other one has its seat at once. It drains, though it had only stood by before."""
    inbox = prepare(embedded)
    active = Node(embedded, store, "one", "active-standby", alerts_queue=ALERTS)
    active.wait_for("consuming")
    standby = Node(embedded, store, "two", "active-standby", processes=processes, alerts_queue=ALERTS)
    standby.wait_for("standby")
    active.program.send_signal(signal.SIGTERM)
    assert active.program.wait_for_end() == EXIT_DONE
    standby.wait_for("consuming")
    assert [node["standing"] for node in standby.role()["nodes"]] == ["active"]
    standby.program.send_signal(signal.SIGTERM)
    assert standby.program.wait_for_end() == EXIT_DONE
    assert inbox.of("node_lost") == []


def test_a_pause_is_of_one_node_and_it_keeps_its_seat(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
    """The one that stands by goes on standing by; one that is paused while it stands by says that it is paused."""
    active = Node(embedded, store, "one", "active-standby")
    active.wait_for("consuming")
    standby = Node(embedded, store, "two", "active-standby", processes=2)
    standby.wait_for("standby")
    assert active.command("pause")[0] == EXIT_DONE
    active.wait_for("paused")
    assert active.probes() == (200, 503)
    assert (active.role()["standing"], standby.role()["standing"]) == ("active", "standby")
    assert standby.command("pause")[0] == EXIT_DONE
    standby.wait_for("paused")
    active.program.kill()
    standby.program.wait_until(lambda: standby.role()["standing"] == "active", "it takes over")
    standby.wait_for("paused")
    embedded.send(GENUINE)
    assert standby.command("resume")[0] == EXIT_DONE
    standby.program.wait_until(lambda: embedded.visible(RESULTS) == len(GENUINE), "all are answered")
