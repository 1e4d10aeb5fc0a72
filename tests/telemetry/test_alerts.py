"""Alerts: what is worth one, that there can be no flood of them, and how they are sent without making actors wait."""

from __future__ import annotations

import itertools
import json
import queue
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.ports import EntryFailure
from receipt_actors.errors import QueueUnavailable
from receipt_actors.otp import ONE_FOR_ONE, SHUTDOWN, ActorSystem, ManualClock, Ref, Start, supervisor_spec
from receipt_actors.otp import sys as otp_sys
from receipt_actors.telemetry.alerts import (
    ALERTS,
    DEAD_LETTERS,
    MAX_SUMMARIES,
    OUTAGE_SECONDS,
    PERIOD_SECONDS,
    Alert,
    AlertBook,
    AlertKind,
    Alerts,
    AlertSink,
    Origin,
    alert_function,
    alerts_queue,
    incident_specs,
)
from receipt_actors.telemetry.incidents import (
    INCIDENTS,
    MAX_LINE_CHARACTERS,
    MAX_STORY_LINES,
    IncidentKind,
    Noticed,
)
from receipt_actors.telemetry.overview import Incident
from receipt_actors.testing import PATIENCE_SECONDS, FakeQueues, settle

AT_SECONDS = 1_750_000_000.0
ORIGIN = Origin("host-1", "worker-2", "ReceiptsSQS", "1.2.3")
INCIDENT_KINDS = ["crash", "restart", "storm", "unknown_answer", "configuration"]
INCIDENT_KINDS += ["abandoned", "node_lost", "stepped_down"]


def book() -> AlertBook:
    return AlertBook(ORIGIN)


def incident(kind: str, summary: str = "it happened", at: float = 0.0, count: int = 1, subject: str = "") -> Incident:
    return Incident(AT_SECONDS + at, kind, summary, ("first this", "then that"), count=count, subject=subject)


def only(due: list[Alert]) -> Alert:
    (alert,) = due
    return alert


def test_what_follows_is_summed_up_for_a_minute() -> None:
    alerts = book()
    alerts.note(incident("crash", "a crashed"), 0.0)
    alerts.take_due(0.0)
    for second in range(1, 31):
        alerts.note(incident("crash", f"{'ab'[second % 2]} crashed", at=second), float(second))
        assert alerts.take_due(float(second)) == []
    assert alerts.next_due_seconds() == PERIOD_SECONDS
    rest = only(alerts.take_due(PERIOD_SECONDS))
    assert (rest.count, rest.first_at_seconds, rest.last_at_seconds) == (30, AT_SECONDS + 1, AT_SECONDS + 30)
    assert rest.as_json()["story"] == ["15 x b crashed", "15 x a crashed", "first this", "then that"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*INCIDENT_KINDS, "outage", "recovered", "moved", "handed_back"]),
            st.floats(0.0, 30.0),
            st.integers(1, 1000),
            st.sampled_from(["ledger", "app_store"]),
        ),
        max_size=60,
    )
)
def test_there_are_never_more_alerts_in_a_minute_than_kinds(steps: list[tuple[str, float, int, str]]) -> None:
    alerts, now, sent = book(), 0.0, []
    noted: Counter[str] = Counter()
    for kind, pause_seconds, count, subject in steps:
        now += pause_seconds
        alerts.note(incident(kind, count=count, subject=subject), now)
        noted[kind] += count
        sent += [(gathered.kind, now, gathered.count) for gathered in alerts.take_due(now)]
    last = alerts.take_all(now)
    for kind in AlertKind:
        times = [at for sent_kind, at, _ in sent if sent_kind is kind]
        assert all(later - earlier >= PERIOD_SECONDS - 1e-6 for earlier, later in itertools.pairwise(times))
    told: Counter[str] = Counter()
    for kind, count in [*((kind, count) for kind, _, count in sent), *((each.kind, each.count) for each in last)]:
        told[kind.value] += count
    assert {kind: told[kind] for kind in INCIDENT_KINDS} == {kind: noted[kind] for kind in INCIDENT_KINDS}


def test_a_short_outage_is_none() -> None:
    alerts = book()
    alerts.note(incident("outage", subject="ledger"), 0.0)
    alerts.note(incident("recovered", subject="ledger"), OUTAGE_SECONDS - 1)
    assert alerts.take_due(10 * OUTAGE_SECONDS) == []
    assert alerts.next_due_seconds() is None


def test_a_long_outage_is_told_once_and_so_is_its_end() -> None:
    alerts = book()
    alerts.note(incident("outage", "ledger is unavailable", subject="ledger"), 0.0)
    assert alerts.next_due_seconds() == OUTAGE_SECONDS
    outage = only(alerts.take_due(OUTAGE_SECONDS))
    assert (outage.summary, outage.story[0]) == ("ledger is unavailable", "unavailable for 60 s by now")
    assert outage.last_at_seconds - outage.first_at_seconds == OUTAGE_SECONDS
    assert alerts.take_due(50 * OUTAGE_SECONDS) == []
    alerts.note(incident("recovered", "ledger is available again", subject="ledger"), 60 * OUTAGE_SECONDS)
    recovered = only(alerts.take_due(60 * OUTAGE_SECONDS))
    assert recovered.kind is AlertKind.RECOVERED
    assert recovered.story[0] == "it was unavailable for 3600 s"


def test_an_outage_that_was_forgotten_and_is_met_again_is_told_again() -> None:
    alerts = book()
    for begin in (0.0, 1000.0):
        alerts.note(incident("outage", subject="ledger"), begin)
        assert only(alerts.take_due(begin + OUTAGE_SECONDS)).kind is AlertKind.OUTAGE


def test_a_few_dead_letters_are_everyday() -> None:
    alerts = book()
    for minute in range(5):
        alerts.note(incident("moved", count=DEAD_LETTERS), minute * PERIOD_SECONDS)
        assert alerts.take_due(minute * PERIOD_SECONDS) == []


def test_many_dead_letters_within_a_minute_are_told_with_their_number() -> None:
    alerts = book()
    for second in range(DEAD_LETTERS + 1):
        assert alerts.take_due(float(second)) == []
        alerts.note(incident("moved", "moved: bad_receipt"), float(second))
    assert only(alerts.take_due(float(DEAD_LETTERS))).count == DEAD_LETTERS + 1
    alerts.note(incident("moved", count=3), 20.0)
    assert only(alerts.take_due(DEAD_LETTERS + PERIOD_SECONDS)).count == 3


def test_a_body_says_everything_in_json() -> None:
    alerts = book()
    alerts.note(Incident(AT_SECONDS, "crash", "validator crashed", ("a line",), message_id="m-1"), 0.0)
    body = only(alerts.take_due(0.0)).body
    assert json.loads(body) == {
        "version": 1,
        "kind": "crash",
        "count": 1,
        "first_at": "2025-06-15T15:06:40.000Z",
        "last_at": "2025-06-15T15:06:40.000Z",
        "summary": "validator crashed",
        "story": ["message m-1", "a line"],
        "host": "host-1",
        "process": "worker-2",
        "source_queue": "ReceiptsSQS",
        "software_version": "1.2.3",
    }


@given(st.lists(st.text(max_size=40), min_size=1, max_size=40), st.text(max_size=40))
def test_a_body_is_bounded_and_can_be_sent(lines: list[str], summary: str) -> None:
    alerts = book()
    alerts.note(incident("storm"), 0.0)
    alerts.take_due(0.0)
    for line in lines:
        story = tuple(line * 100 for line in lines)
        alerts.note(Incident(AT_SECONDS, "storm", f"{line[:5]} {summary * 100}", story), 1.0)
    alert = only(alerts.take_all(2.0))
    story = alert.as_json()["story"]
    assert alert.count == len(lines)
    assert len(story) <= MAX_STORY_LINES + MAX_SUMMARIES + 1
    assert all(len(line) <= MAX_LINE_CHARACTERS + len("1234 x ") for line in (alert.summary, *story))
    assert len(alert.body.encode()) < 40_000
    assert json.loads(alert.body)["count"] == len(lines)


# --- the actor ---


QUEUE = "AlertsSQS"
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
    assert (body["summary"], body["count"], body["process"]) == ("Apple refuses our requests", 1, "worker-2")


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
