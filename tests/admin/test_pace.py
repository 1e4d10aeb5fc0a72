"""Whoever asks too often waits: nobody can have the processor that the pipeline needs."""

from __future__ import annotations

import pytest

from receipt_actors.admin import server
from receipt_actors.admin.limits import BURST_REQUESTS, LONGEST_TURN_SECONDS, REQUESTS_PER_SECOND
from receipt_actors.admin.server import Pace

from .conftest import Client, FakeSystem
from .test_hostile_clients import connect, read_to_end


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def at_once(pace: Pace, requests: int, weight: int = 1) -> int:
    """Take so many turns, and count those that came at once."""
    return sum(pace.turn(weight) < 1e-6 for _ in range(requests))


def test_a_burst_is_served_at_once_and_then_so_many_a_second() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert at_once(pace, BURST_REQUESTS) == BURST_REQUESTS
    waits = [pace.turn() for _ in range(10)]
    assert waits == pytest.approx([number / REQUESTS_PER_SECOND for number in range(1, 11)])
    clock.now += 13 / REQUESTS_PER_SECOND  # as much room as was not used
    assert at_once(pace, 4) == 3
    clock.now += 3600  # and no more than a burst
    assert at_once(pace, 2 * BURST_REQUESTS) == BURST_REQUESTS
    assert at_once(Pace(clock), BURST_REQUESTS, weight=4) == BURST_REQUESTS / 4  # large answers count as several


def test_nobody_waits_for_those_who_have_hung_up() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert max(pace.turn() for _ in range(100_000)) <= LONGEST_TURN_SECONDS
    clock.now += LONGEST_TURN_SECONDS + 1
    assert pace.turn() == 0


def test_a_request_waits_for_its_turn_and_is_answered(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BURST_REQUESTS", 0)
    monkeypatch.setattr(server, "REQUESTS_PER_SECOND", 50)
    for path, status in {"/healthz": 200, "/api/overview": 200, "/nothing": 404}.items():
        assert client.get(path).status == status
        assert client.get(path, Host="evil.example").status == 421


def test_who_has_hung_up_is_not_served(client: Client, system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BURST_REQUESTS", 0)
    monkeypatch.setattr(server, "REQUESTS_PER_SECOND", 1)  # it has hung up long before its turn comes
    monkeypatch.setattr(server, "LARGE_WEIGHT", 1)
    head = b"POST /api/pause HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    with connect(client) as connection:
        connection.sendall(head + b"{}")
    monkeypatch.setattr(server, "REQUESTS_PER_SECOND", 50)
    assert client.get("/healthz").status == 200  # its turn comes after that of the other
    assert system.told == []
    with connect(client) as connection:
        connection.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"{}")
        assert read_to_end(connection).startswith(b"HTTP/1.1 204 ")
    assert system.told == ["pause"]
