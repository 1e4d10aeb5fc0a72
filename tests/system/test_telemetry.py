"""What the running program tells those who look after it: alerts, log lines, metrics, traces."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage, make_scenario
from receipt_actors.sandbox.receipts import Fault, SampleReceipt, mint
from tests.telemetry.collectors import Collector

from .processes import Program, Programs
from .test_processes import is_alive
from .worlds import BUNDLE_ID, RESULTS, SOURCE, AwsWorld, EmbeddedWorld, World, genuine_messages

ALERTS = "AlertsSQS"
RESTARTS_OF_TWO = 10  #: workers in a minute; one more is a storm


class Inbox:
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
    (message,) = genuine_messages(1, 7)
    body = {**json.loads(message.body), "receipt": mint(SampleReceipt(BUNDLE_ID, (), status=status))}
    return replace(message, body=json.dumps(body))


def test_a_wrong_shared_secret_is_told_at_once(world: World, store: SimulatedAppStore) -> None:
    inbox = Inbox(world)
    world.send([with_status(21004)])
    program = world.start(store, alerts_queue=ALERTS)
    alert = inbox.wait_for("configuration", program)
    assert "21004" in alert["summary"]
    assert (alert["version"], alert["count"], alert["process"]) == (1, 1, "main")
    assert alert["source_queue"] == SOURCE
    assert alert["software_version"]
    program.stop()


@pytest.mark.short
def test_a_long_outage_and_its_end_are_told(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
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
    inbox = Inbox(embedded)
    embedded.module = "tests.chaos.chaotic_program"
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
    messages = genuine_messages(10, 12)
    aws.send([with_status(21004), *messages])
    program = aws.finish(store, alerts_queue=ALERTS)
    answered = {letter.fields["user_id"] for letter in aws.take(RESULTS)}
    assert answered == {message.user_id for message in messages}
    assert program.stderr.count("no alert can be sent to queue AlertsSQS") == 1


# --- several processes ---


def test_a_storm_ends_the_command_and_the_parent_tells_of_it(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
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


SCENARIO = make_scenario(40, 7, BUNDLE_ID, RESULTS)


def objects(program: Program) -> list[dict[str, Any]]:
    return [json.loads(line) for line in program.stderr.splitlines()]


@pytest.mark.short("1")
@pytest.mark.parametrize("processes", [1, 2])
def test_every_line_is_an_object_and_every_answer_has_one(
    programs: Programs, embedded: EmbeddedWorld, store: SimulatedAppStore, processes: int
) -> None:
    embedded.send(SCENARIO.messages)
    program = embedded.finish(store, log_format="auto", log_decisions="all", processes=processes)
    lines = objects(program)
    assert lines[-1]["message"].startswith("stopped: ")
    logged = {
        (line["message_id"], line["user_id"], each["transaction_id"], each["verdict"], each["reason"])
        for line in lines
        if "results" in line
        for each in line["results"]
    }
    answers = {
        (
            letter.attributes["source_message_id"],
            answer["user_id"],
            answer["transaction_id"],
            answer["status"],
            letter.attributes["reason"],
        )
        for letter in embedded.take(RESULTS)
        for answer in [json.loads(letter.body)]
    }
    assert logged == answers
    assert answers
    if processes > 1:
        assert {line.get("process") for line in lines if "results" in line} <= {"worker-1", "worker-2"}


@pytest.mark.parametrize("processes", [1, 2])
def test_metrics_go_to_standard_output_once_for_the_whole_command(
    programs: Programs, embedded: EmbeddedWorld, store: SimulatedAppStore, processes: int
) -> None:
    embedded.send(SCENARIO.messages)
    embedded.module = "tests.system.quick_program"
    program = embedded.start(store, metrics_log="emf", processes=processes, exit_when_idle_seconds=2)
    assert program.wait_for_end() == 0
    lines = [json.loads(line) for line in program.stdout.splitlines()]
    assert len(lines) >= 2
    stopped = re.search(r"stopped: (\d+) deliveries received, (\d+) messages answered, (\d+) moved", program.stderr)
    assert stopped is not None
    totals = [sum(line[name] for line in lines) for name in ("Received", "Answered", "Moved")]
    assert totals == [int(total) for total in stopped.groups()]
    assert max(line["Heartbeat"] for line in lines) == processes


GENUINE = genuine_messages(20, 61)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("processes", [1, 2])
def test_each_receipt_has_a_trace(embedded: EmbeddedWorld, processes: int) -> None:
    first, *others = GENUINE
    message_ids = embedded.send([_with(first, TRACEPARENT), *others])
    with SimulatedAppStore() as store, Collector() as collector:
        embedded.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        embedded.finish(store, processes=processes, traces="otlp")
        traces = collector.traces()
    assert len(traces) == len(GENUINE)
    for spans in traces.values():
        assert sorted(span.name for span in spans) == ["claim", "delete", "receipt", "reply", "verify"]
        (root,) = [span for span in spans if span.name == "receipt"]
        assert all(root.begin_seconds <= span.begin_seconds <= span.end_seconds <= root.end_seconds for span in spans)
        assert {span.parent_id for span in spans if span is not root} == {root.span_id}
    roots = [span for spans in traces.values() for span in spans if span.name == "receipt"]
    assert {root.attributes["messaging.message.id"] for root in roots} == set(message_ids)
    assert {root.attributes["receipt_actors.verdict"] for root in roots} == {"OK"}
    assert 1 <= len({root.resource["process.pid"] for root in roots}) <= processes
    (inside,) = [root for root in roots if root.parent_id]
    assert inside.trace_id in TRACEPARENT
    handed_on = [
        letter.attributes["traceparent"] for letter in embedded.read(RESULTS) if "traceparent" in letter.attributes
    ]
    assert handed_on == [f"00-{inside.trace_id}-{inside.span_id}-01"]


def _with(message: SampleMessage, traceparent: str) -> SampleMessage:
    return replace(message, attributes={**message.attributes, "traceparent": traceparent})
