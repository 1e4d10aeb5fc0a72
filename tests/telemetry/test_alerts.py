"""The alerts actor: what happens becomes messages on the alerts queue, and nobody ever waits for that."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest

from receipt_actors.domain.ports import EntryFailure
from receipt_actors.errors import QueueUnavailable
from receipt_actors.otp import ONE_FOR_ONE, SHUTDOWN, ActorSystem, ManualClock, Ref, Start, supervisor_spec
from receipt_actors.otp import sys as otp_sys
from receipt_actors.telemetry.alert_book import PERIOD_SECONDS, Alert, AlertKind, Origin
from receipt_actors.telemetry.alerts import ALERTS, Alerts, AlertSink, alert_function, alerts_queue, incident_specs
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from receipt_actors.telemetry.overview import Incident
from receipt_actors.testing import PATIENCE_SECONDS, FakeQueues, settle

QUEUE = "AlertsSQS"
ORIGIN = Origin("host-1", "main", "ReceiptsSQS", "1.2.3")
LONGEST_PAUSE_SECONDS = 61.0


class Desk:
    """The alerts actor of a system on a manual clock, what it hears from, and the queue that it sends to."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.actors = ActorSystem("test", self.clock)
        self.queues = FakeQueues(self.clock)
        self.queues.create_queue(QUEUE)

    def start(self, sink: AlertSink | None = None) -> Ref:
        sink = sink or alerts_queue(lambda: self.queues, QUEUE)
        return self.actors.start(Alerts, sink, ORIGIN, name=ALERTS)

    def happen(self, kind: str, summary: str = "it happened", **fields: Any) -> None:
        alerts = self.actors.whereis(ALERTS)
        assert alerts is not None
        alerts.cast(Incident(self.clock.time(), kind, summary, **fields))

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in self.queues.messages(QUEUE)]

    def wait_for(self, alerts: Ref, **expected: int) -> None:
        """Wait until the actor says so of itself: what it sends takes its time on another thread."""

        deadline = time.monotonic() + PATIENCE_SECONDS
        while not expected.items() <= (status := otp_sys.describe_state(alerts, PATIENCE_SECONDS)).items():
            assert time.monotonic() < deadline, f"{status}, but expected {expected}"

    def advance(self, seconds: float) -> None:
        settle(self.actors, self.queues)
        self.clock.advance(seconds)

    def close(self) -> None:
        self.queues.recover()
        self.actors.stop()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def test_an_incident_becomes_a_message(desk: Desk) -> None:
    alerts = desk.start()
    desk.happen("configuration", "Apple refuses our requests")
    desk.wait_for(alerts, sent=1)
    (message,) = desk.queues.messages(QUEUE)
    assert message.attributes == {"kind": "configuration"}
    body = json.loads(message.body)
    assert (body["summary"], body["count"], body["process"]) == ("Apple refuses our requests", 1, "main")


def test_a_fifo_alerts_queue_gets_each_kind_in_a_group(desk: Desk) -> None:
    desk.queues.create_queue("alerts.fifo")
    alerts = desk.start(alerts_queue(lambda: desk.queues, "alerts.fifo"))
    desk.happen("configuration", "Apple refuses our requests")
    desk.wait_for(alerts, sent=1)
    desk.advance(PERIOD_SECONDS)
    desk.happen("configuration", "Apple refuses our requests, again")
    desk.wait_for(alerts, sent=2)
    assert [message.group_id for message in desk.queues.messages("alerts.fifo")] == ["configuration"] * 2


def test_an_outage_is_told_when_it_is_long_even_if_nothing_else_happens(desk: Desk) -> None:
    alerts = desk.start()
    desk.happen("crash")
    desk.advance(10)
    desk.happen("outage", "ledger is unavailable", subject="ledger")
    desk.advance(20)
    desk.happen("restart")
    desk.wait_for(alerts, sent=2)
    desk.advance(40)
    desk.wait_for(alerts, sent=3)
    desk.happen("recovered", "ledger is available again", subject="ledger")
    desk.wait_for(alerts, sent=4)
    assert [alert["kind"] for alert in desk.sent()] == ["crash", "restart", "outage", "recovered"]


def test_while_the_queue_is_down_alerts_are_kept_and_summed_up(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    alerts = desk.start()
    desk.queues.fail("send", QueueUnavailable("down"), times=None)
    for _ in range(20):
        desk.happen("crash")
        desk.happen("storm")
        desk.advance(LONGEST_PAUSE_SECONDS)
        desk.wait_for(alerts, waiting=2)
    assert caplog.text.count("no alert can be sent to queue AlertsSQS") == 1
    desk.queues.recover()
    desk.advance(LONGEST_PAUSE_SECONDS)
    desk.wait_for(alerts, sent=2, waiting=0)
    assert {alert["kind"]: alert["count"] for alert in desk.sent()} == {"crash": 20, "storm": 20}
    assert "alerts are sent to queue AlertsSQS again" in caplog.text


def test_an_entry_that_failed_is_sent_again_alone(desk: Desk) -> None:
    alerts = desk.start()
    with desk.queues.hold("send", times=1) as hold:
        desk.happen("crash")
        hold.wait_for_call()
        desk.queues.fail_entries("send", befalls=lambda message: message.attributes["kind"] == "storm")
        desk.happen("storm")
        desk.happen("restart")
    desk.wait_for(alerts, sent=2, waiting=1)
    desk.advance(LONGEST_PAUSE_SECONDS)
    desk.wait_for(alerts, sent=3, waiting=0)
    assert sorted(alert["kind"] for alert in desk.sent()) == ["crash", "restart", "storm"]


def test_an_alert_that_can_never_be_sent_is_dropped_and_said_so(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    alerts = desk.start()
    desk.queues.fail_entries("send", failure=EntryFailure("InvalidMessageContents", "no", True))
    desk.happen("crash")
    desk.wait_for(alerts, dropped=1, waiting=0)
    desk.happen("storm")
    desk.wait_for(alerts, sent=1)
    assert "queue AlertsSQS does not take the alert crash" in caplog.text


def test_at_the_end_everything_is_sent(desk: Desk) -> None:
    alerts = desk.start()
    for _ in range(5):
        desk.happen("crash")
    desk.happen("abandoned", count=7)
    alerts.exit(SHUTDOWN)
    assert alerts.wait(PATIENCE_SECONDS) is SHUTDOWN
    told = {(alert["kind"], alert["count"]) for alert in desk.sent()}
    assert ("abandoned", 7) in told
    assert sum(count for kind, count in told if kind == "crash") == 5


def test_at_the_end_a_queue_that_is_down_holds_nobody_up(desk: Desk) -> None:
    desk.start()
    desk.queues.fail("send", QueueUnavailable("down"), times=None)
    desk.happen("crash")
    desk.happen("storm")
    desk.actors.stop(PATIENCE_SECONDS)
    assert 1 <= desk.queues.count("send") <= 5
    assert desk.sent() == []


def test_the_queue_is_opened_when_there_is_something_to_send(desk: Desk) -> None:
    opened = []

    def open_queues() -> FakeQueues:
        opened.append(1)
        return desk.queues

    alerts = desk.start(alerts_queue(open_queues, QUEUE))
    desk.wait_for(alerts, sent=0)
    assert opened == []
    desk.happen("crash")
    desk.happen("storm")
    desk.wait_for(alerts, sent=2)
    assert opened == [1]


def test_a_function_that_raises_loses_this_alert_alone(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    heard: queue.SimpleQueue[Alert] = queue.SimpleQueue()

    def take(alert: Alert) -> None:
        if alert.kind is AlertKind.CRASH:
            raise RuntimeError("the embedding program's own bug")
        heard.put(alert)

    alerts = desk.start(alert_function(take))
    desk.happen("crash")
    desk.happen("storm")
    assert heard.get(timeout=PATIENCE_SECONDS).kind is AlertKind.STORM
    desk.wait_for(alerts, sent=1, dropped=1)
    assert "on_alert failed" in caplog.text
    assert "the embedding program's own bug" in caplog.text


def test_what_has_just_happened_is_told_before_the_end(desk: Desk) -> None:
    sinks = {ALERTS: alerts_queue(lambda: desk.queues, QUEUE)}
    spec = supervisor_spec("telemetry", ONE_FOR_ONE, incident_specs(sinks, ["ReceiptsSQS"], "main"))
    assert isinstance(spec.start, Start)
    root = desk.actors.start(spec.start.actor_class, *spec.start.args, **spec.start.kwargs)
    incidents = desk.actors.whereis(INCIDENTS)
    assert incidents is not None
    incidents.cast(Noticed(IncidentKind.STORM, "root", "root gives up"))
    root.exit(SHUTDOWN)
    assert root.wait(PATIENCE_SECONDS) is SHUTDOWN
    assert [(alert["kind"], alert["process"]) for alert in desk.sent()] == [("storm", "main")]
