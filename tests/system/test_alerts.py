"""Alerts of the running program: what somebody who reads the alerts queue learns, and when."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage
from receipt_actors.sandbox.receipts import Fault, SampleReceipt, mint

from .processes import Program
from .test_processes import is_alive
from .worlds import BUNDLE_ID, RESULTS, SOURCE, AwsWorld, EmbeddedWorld, World, genuine_messages

ALERTS = "AlertsSQS"
RESTARTS_OF_TWO = 10  #: workers in a minute; one more is a storm


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


class Inbox:
    """Whoever reads the alerts queue."""

    def __init__(self, world: World) -> None:
        world.create_queue(ALERTS)
        self._world = world
        self.alerts: list[dict[str, Any]] = []

    def look(self) -> None:
        self.alerts += [letter.fields for letter in self._world.read(ALERTS)]

    def of(self, kind: str) -> list[dict[str, Any]]:
        self.look()
        return [alert for alert in self.alerts if alert["kind"] == kind]

    def wait_for(self, kind: str, program: Program) -> dict[str, Any]:
        program.wait_until(lambda: self.of(kind), f"it alerts of {kind}")
        return self.of(kind)[0]


def with_status(status: int) -> SampleMessage:
    """Make a message whose receipt Apple answers with this status."""
    (message,) = genuine_messages(1, 7)
    body = {**json.loads(message.body), "receipt": mint(SampleReceipt(BUNDLE_ID, (), status=status))}
    return replace(message, body=json.dumps(body))


def test_a_wrong_shared_secret_is_told_at_once(world: World, store: SimulatedAppStore) -> None:
    """Whoever is on call learns of 21004, of whom, and of which version, while the program runs."""
    inbox = Inbox(world)
    world.send([with_status(21004)])
    program = world.start(store, alerts_queue=ALERTS)
    alert = inbox.wait_for("configuration", program)
    assert "21004" in alert["summary"]
    assert (alert["version"], alert["count"], alert["process"]) == (1, 1, "main")
    assert alert["source_queue"] == SOURCE
    assert alert["software_version"]
    program.send_signal(signal.SIGTERM)
    assert program.wait_for_end() == EXIT_DONE


@pytest.mark.short
def test_a_long_outage_and_its_end_are_told(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
    """Once each, and everything is answered afterwards."""
    inbox = Inbox(embedded)
    embedded.send(genuine_messages(20, 8))
    store.outage(Fault.http(503))
    embedded.module = "tests.system.quick_program"
    program = embedded.start(store, alerts_queue=ALERTS, exit_when_idle_seconds=1)
    outage = inbox.wait_for("outage", program)
    assert outage["summary"].startswith("app_store is unavailable")
    store.recover()
    assert program.wait_for_end() == EXIT_DONE
    assert len(inbox.of("recovered")) == len(inbox.of("outage")) == 1
    assert embedded.total(RESULTS) == 20


def test_a_storm_is_told_before_the_process_ends(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
    """Who gave up, up to the root, and because of whom."""
    inbox = Inbox(embedded)
    embedded.module = "tests.chaos.storming_program"
    embedded.environment = {"RECEIPT_STORM": "consumers"}
    embedded.send(genuine_messages(10, 11))
    program = embedded.start(store, alerts_queue=ALERTS, consumers=2, receive_wait_seconds=0)
    assert program.wait_for_end() == EXIT_WORLD_FAILED
    told = [line for storm in inbox.of("storm") for line in (storm["summary"], *storm["story"])]
    for supervisor in ("root", "pipeline", "consumers"):
        assert any(f"Supervisor ({supervisor}): gives up because of child" in line for line in told)
    assert inbox.of("crash")
    assert len(inbox.alerts) < 10


def test_an_alerts_queue_that_does_not_exist_disturbs_nobody(aws: AwsWorld, store: SimulatedAppStore) -> None:
    """Answers go out as ever; the log says once that alerts don't."""
    messages = genuine_messages(10, 12)
    aws.send([with_status(21004), *messages])
    program = aws.start(store, alerts_queue=ALERTS, exit_when_idle_seconds=1)
    assert program.wait_for_end() == EXIT_DONE
    answered = {letter.fields["user_id"] for letter in aws.take(RESULTS)}
    assert answered == {message.user_id for message in messages}
    assert program.stderr.count("no alert can be sent to queue AlertsSQS") == 1


# --- several processes ---


def test_a_storm_ends_the_command_and_the_parent_tells_of_it(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
    """A worker that was killed can't; and when the parent gives up, the last word is sent before it ends.

    More restarts than its share within a minute: exit code 1, and the workers that are left hand back.
    """
    inbox = Inbox(embedded)
    store.outage(Fault.hang(600))
    program = embedded.start(store, alerts_queue=ALERTS, processes=2)
    program.wait_for_log("2 processes of 4 consumers take receipts")
    embedded.send(genuine_messages(60, 13))
    program.wait_until(lambda: embedded.visible(SOURCE) == 0, "all are in flight")
    survivor, victim = program.children()
    killed: set[int] = set()
    while len(killed) <= RESTARTS_OF_TWO:
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
        if len(killed) == 1:
            crash = inbox.wait_for("crash", program)
            assert crash["process"] == "parent"
            assert "was killed by signal 9" in crash["summary"]
        if len(killed) <= RESTARTS_OF_TWO:
            program.wait_until(lambda: set(program.children()) - {survivor, *killed}, "there is another one")
            (victim,) = set(program.children()) - {survivor, *killed}
    assert program.wait_for_end() == EXIT_WORLD_FAILED
    assert not is_alive(survivor)
    assert embedded.total(SOURCE) == 60
    (storm,) = inbox.of("storm")
    assert storm["process"] == "parent"
    assert "Supervisor (workers): gives up because of child worker-" in storm["summary"]
    assert any("was killed by signal 9" in line for line in storm["story"])
    told = sum(alert["count"] for alert in inbox.of("crash") if alert["process"] == "parent")
    assert told == len(killed)
