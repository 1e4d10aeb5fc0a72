"""What each path answers, asked over a real connection; and the samples of the history."""

from __future__ import annotations

from dataclasses import replace

import pytest

from receipt_actors.admin import watch
from receipt_actors.admin.watch import HISTORY_SAMPLES, History, sample_between
from receipt_actors.telemetry.overview import Overview, State, Usage
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from tests.stand_in_system import latencies, process_of

from .conftest import Client, FakeSystem, an_overview, serving


def test_an_overview_is_what_the_system_says(client: Client, system: FakeSystem) -> None:
    answer = client.get("/api/overview")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert Overview.from_json(answer.json) == system.now


def test_the_system_is_paused_and_resumed(client: Client, system: FakeSystem) -> None:
    assert client.get("/readyz").status == 200
    answer = client.post("/api/pause")
    assert (answer.status, answer.body) == (204, b"")
    assert client.get("/api/overview").json["state"] == State.PAUSED
    assert client.post("/api/resume").status == 204
    assert client.get("/readyz").status == 200
    assert system.told == ["pause", "resume"]


@pytest.mark.parametrize("path", ["/api/actors/intake", "/api/actors/result_batcher%20ResultsSQS"])
def test_the_state_of_an_actor_is_told(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status == 200
    assert answer.json["in_flight"] == 42


def test_an_unknown_actor_is_told_as_one(client: Client) -> None:
    answer = client.get("/api/actors/in%2Ftake")
    assert (answer.status, answer.json) == (404, {"error": "no actor is named 'in/take'"})


def test_before_there_is_a_system_nothing_is_known() -> None:
    with serving(None) as client:
        assert client.get("/healthz").status == 200
        answer = client.get("/readyz")
        assert (answer.status, answer.json) == (503, {"state": "starting", "why": ["it is being started"]})
        for path in ("/api/overview", "/metrics", "/api/actors/intake"):
            answer = client.get(path)
            assert (answer.status, answer.json) == (503, {"error": "the system has not been started yet"})
        assert client.post("/api/pause").status == 503
        assert client.get("/api/history").json["samples"] == []


def test_a_sample_is_what_was_done_in_its_interval() -> None:
    slow, quick = [2.0] * 10, [0.01] * 10
    before = an_overview(
        at_seconds=10.0,
        statistics=StatisticsSnapshot(
            received=10, fates={("answered", None): 8}, latencies=latencies(*slow), steps={"claiming": latencies(0.5)}
        ),
    )
    after = an_overview(
        process_of(1, in_flight=3, usage=Usage(1.5, 1, 1, 1)),
        at_seconds=12.0,
        statistics=StatisticsSnapshot(
            received=25,
            fates={("answered", None): 18, ("moved", None): 2, ("handed_back", None): 1},
            latencies=latencies(*slow, *quick),
            steps={"claiming": latencies(0.5), "replying": latencies(*quick)},
        ),
    )
    sample = sample_between(before, after)
    assert (sample["at_seconds"], sample["seconds"]) == (12.0, 2.0)
    assert (sample["received"], sample["answered"], sample["moved"], sample["handed_back"]) == (15, 10, 2, 1)
    assert (sample["in_flight"], sample["queue_depth"]) == (3, 1234)
    assert sample["p99_seconds"] == pytest.approx(0.01, rel=0.02)
    assert sample["cpu_seconds"] == pytest.approx(1.0)
    assert sample["steps"]["claiming"]["p50_seconds"] is None
    assert sample["steps"]["replying"]["p50_seconds"] == pytest.approx(0.01, rel=0.02)


def test_what_was_lost_is_not_undone() -> None:
    before = an_overview(process_of(1, "worker-1"), process_of(1, "worker-2", pid=5), parent_usage=Usage(1.0, 1, 1, 1))
    after = replace(
        an_overview(process_of(1, "worker-1", pid=6, usage=Usage(0.25, 1, 1, 1)), at_seconds=5.0),
        statistics=StatisticsSnapshot(),
        parent_usage=Usage(1.5, 1, 1, 1),
        queues={},
    )
    sample = sample_between(before, after)
    assert (sample["seconds"], sample["received"], sample["answered"]) == (0.0, 0, 0)
    assert sample["cpu_seconds"] == pytest.approx(0.25 + 0.5)
    assert sample["queue_depth"] is None
    assert [sample[f"p{percent}_seconds"] for percent in (50, 95, 99)] == [None] * 3


def test_the_history_is_ten_minutes_long() -> None:
    history = History()
    assert history.as_json() == {"interval_seconds": 2.0, "samples": []}
    for number in range(HISTORY_SAMPLES + 11):
        history.add(an_overview(at_seconds=2.0 * number))
    samples = history.as_json()["samples"]
    assert len(samples) == HISTORY_SAMPLES == 300
    assert samples[0]["at_seconds"] == 2.0 * 11
    assert samples[-1]["at_seconds"] == 2.0 * (HISTORY_SAMPLES + 10)


def test_the_port_samples_by_itself(client: Client, system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watch, "FRESH_SECONDS", 0.0)
    while len(client.get("/api/history").json["samples"]) < 3:
        pass
