"""The alert book: what is worth an alert, and that there can be no flood of them."""

from __future__ import annotations

import itertools
import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.telemetry.alert_book import (
    DEAD_LETTERS,
    MAX_SUMMARIES,
    OUTAGE_SECONDS,
    PERIOD_SECONDS,
    Alert,
    AlertBook,
    AlertKind,
    Origin,
)
from receipt_actors.telemetry.incidents import MAX_LINE_CHARACTERS, MAX_STORY_LINES
from receipt_actors.telemetry.overview import Incident

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
