"""What a page is told every second, and traces: from the first event to the last."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.admin import watch
from receipt_actors.admin.routes import MAX_TRACES
from receipt_actors.admin.streams import MAX_TRACE_QUEUE
from receipt_actors.admin.watch import MAX_PAGES
from receipt_actors.telemetry.control import TraceRequest
from receipt_actors.telemetry.overview import Overview, State
from tests.patience import PATIENCE_SECONDS
from tests.stand_in_system import StandInTrace

from .conftest import Client, FakeSystem, serving


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are short."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(watch, "FRESH_SECONDS", 0.01)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second is ever over."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(watch, "FRESH_SECONDS", 3600.0)


def test_a_page_is_told_at_once_and_then_every_second(quick: None, system: FakeSystem, client: Client) -> None:
    with client.stream("GET", "/api/events") as events:
        kind, data = next(events)
        assert kind == "overview"
        assert Overview.from_json(data["overview"]).state is State.CONSUMING
        assert data["overview"]["statistics"]["latencies"]["p50_seconds"] == pytest.approx(0.25, rel=0.02)
        assert data["overview"]["processes"][0]["statistics"]["steps"]["verifying"]["buckets"] == {}
        system.now = replace(system.now, state=State.WAITING, at_seconds=system.now.at_seconds + 2)
        assert any(data["overview"]["state"] == "waiting" for _, data in events)
        assert any(data["sample"] is not None for _, data in events)


def test_one_look_serves_all_pages(endless: None, system: FakeSystem, client: Client) -> None:
    with ExitStack() as pages:
        for _ in range(MAX_PAGES):
            events = pages.enter_context(client.stream("GET", "/api/events"))
            assert next(events)[0] == "overview"
        answer = client.get("/api/events")
        assert (answer.status, answer.json) == (503, {"error": f"{MAX_PAGES} pages are open, and no more may be"})
    assert system.looks == 1
    while client.ask("GET", "/api/events", read=False).status == 503:
        pass  # those that were closed make room, as soon as their end is noticed


def test_a_system_that_cannot_be_looked_at_leaves_a_page_open(quick: None, system: FakeSystem, client: Client) -> None:
    with client.stream("GET", "/api/events") as events:
        next(events)
        system.failure = RuntimeError("a bug")
        looks = system.looks
        while system.looks < looks + 3:
            client.get("/api/history")
        system.now = replace(system.now, state=State.PAUSED)
        system.failure = None
        assert any(data["overview"]["state"] == "paused" for _, data in events)


def test_a_bug_in_looking_at_the_system_is_logged(quick: None, caplog: pytest.LogCaptureFixture) -> None:
    system = FakeSystem()
    system.failure = RuntimeError("a bug")
    with serving(system) as client:
        answer = client.get("/api/overview")
        assert (answer.status, answer.json) == (503, {"error": "the system can't be looked at, see the log"})
        assert client.get("/healthz").status == 503
        assert "RuntimeError: a bug" in caplog.text
        system.failure = None
        while client.get("/api/overview").status != 200:  # a look that failed may still be on its way
            pass


def test_a_trace_is_passed_on_event_by_event(system: FakeSystem, client: Client) -> None:
    with client.stream("POST", "/api/trace", {"filters": {"event": ["claim"]}, "limit": 2, "seconds": 3}) as events:
        assert system.traced.acquire(timeout=PATIENCE_SECONDS)
        (trace,) = system.traces
        assert trace.request == TraceRequest({"event": ["claim"]}, 2, 3.0)
        trace.on_event({"event": "claimed", "user_id": 42})
        assert next(events) == ("trace", {"event": "claimed", "user_id": 42})
        trace.on_event({"event": "claimed", "user_id": 43})
        trace.lost = 5
        trace.on_end("2 events")
        assert next(events) == ("trace", {"event": "claimed", "user_id": 43})
        assert next(events) == ("end", {"reason": "2 events", "events": 2, "lost": 5})
        assert list(events) == []
    assert trace.stopped.wait(PATIENCE_SECONDS)


def test_a_trace_that_nobody_reads_loses_events_and_says_how_many(system: FakeSystem, client: Client) -> None:
    with client.stream("POST", "/api/trace", {"filters": {"event": ["received"]}}) as events:
        assert system.traced.acquire(timeout=PATIENCE_SECONDS)
        (trace,) = system.traces
        sent = 20_000
        text = "x" * 1000
        for number in range(sent):
            trace.on_event({"number": number, "text": text})
        trace.on_end("enough")
        (*traced, (kind, end)) = list(events)
        assert kind == "end"
        assert end["events"] == len(traced)
        assert end["events"] + end["lost"] == sent
        assert end["lost"] > MAX_TRACE_QUEUE


def test_filters_that_match_nothing_are_refused_in_the_systems_words(system: FakeSystem, client: Client) -> None:
    answer = client.post("/api/trace", {"filters": {"event": ["nonsense"]}})
    assert (answer.status, answer.json) == (400, {"error": "no event is called nonsense"})


@pytest.mark.parametrize(
    "body",
    [
        {"filters": "claim"},
        {"filters": {"event": "claim"}},
        {"filters": {"user_id": [42]}},
        {"predicate": "claim"},
        {"limit": 0},
        {"limit": True},
        {"limit": 1.5},
        {"limit": 10**9},
        {"seconds": 0},
        {"seconds": "15"},
        {"seconds": 10**6},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"secs": 3},
    ],
)
def test_a_trace_is_bounded(system: FakeSystem, client: Client, body: dict[str, object]) -> None:
    answer = client.post("/api/trace", body)
    assert answer.status == 400
    assert "expected" in json.loads(answer.body)["error"]
    assert system.traces == []


def test_only_some_traces_run_at_once(system: FakeSystem, client: Client) -> None:
    with ExitStack() as streams:
        for _ in range(MAX_TRACES):
            streams.enter_context(client.stream("POST", "/api/trace", {"filters": {"event": ["received"]}}))
        answer = client.post("/api/trace", {"filters": {"event": ["received"]}})
        assert (answer.status, answer.json) == (503, {"error": f"{MAX_TRACES} traces run, and no more may"})
        system.traces[0].on_end("enough")
        assert system.traces[0].stopped.wait(PATIENCE_SECONDS)
        streams.enter_context(client.stream("POST", "/api/trace", {"filters": {"event": ["received"]}}))


def test_a_trace_that_began_too_late_is_stopped(
    system: FakeSystem, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = threading.Event()
    trace = system.trace

    def begin_late(*arguments: Any) -> StandInTrace:
        assert begins.wait(PATIENCE_SECONDS)
        return trace(*arguments)

    monkeypatch.setattr(system, "trace", begin_late)
    monkeypatch.setattr(watch, "ANSWER_SECONDS", 0.05)
    assert client.post("/api/trace", {"filters": {"event": ["received"]}}).status == 503
    begins.set()
    assert system.traced.acquire(timeout=PATIENCE_SECONDS)
    assert system.traces[0].stopped.wait(PATIENCE_SECONDS)
