"""What each path answers, asked over a real connection."""

from __future__ import annotations

import pytest

from receipt_actors.telemetry.overview import Overview, State

from .conftest import Client, FakeSystem, serving


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
