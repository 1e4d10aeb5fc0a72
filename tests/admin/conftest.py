"""A system of which everything can be decided, an admin port in front of it, and clients that speak plain HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.admin.server import AdminServer
from receipt_actors.domain.addresses import Address
from receipt_actors.telemetry.overview import Overview, ProcessOverview, State
from tests.patience import PATIENCE_SECONDS
from tests.stand_in_system import StandInSystem, overview_of

TOKEN = "0123456789abcdef0123456789abcdef"
JSON = {"Content-Type": "application/json"}


def an_overview(*processes: ProcessOverview, state: State = State.CONSUMING, **changes: Any) -> Overview:
    overview = overview_of(1, state=state, **changes)
    return replace(overview, processes=processes) if processes else overview


class FakeSystem(StandInSystem):
    """A system that does what it is told, or fails."""

    def __init__(self) -> None:
        super().__init__(self._look)
        self.now = an_overview()
        self.states = {name: {"name": name, "in_flight": 42} for name in ("intake", "result_batcher ResultsSQS")}
        self.failure: Exception | None = None

    def _look(self, _number: int) -> Overview:
        if self.failure is not None:
            raise self.failure
        return replace(self.now)  # another value each time, as of a real system

    def pause(self) -> None:
        super().pause()
        self.now = replace(self.now, state=State.PAUSED)

    def resume(self) -> None:
        super().resume()
        self.now = replace(self.now, state=State.CONSUMING)


class Answer:
    def __init__(self, response: http.client.HTTPResponse, read: bool) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read() if read else b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks one admin port; a connection for each request."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        read: bool = True,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.address.port, timeout=PATIENCE_SECONDS)
        with closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            with closing(connection.getresponse()) as response:
                return Answer(response, read)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, data: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("POST", path, json.dumps({} if data is None else data).encode(), {**JSON, **(headers or {})})

    @contextmanager
    def stream(
        self, method: str, path: str, data: object = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[Iterator[tuple[str, Any]]]:
        """Yield the events of a stream as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.address.port, timeout=PATIENCE_SECONDS)
        with closing(connection):
            body = None if data is None else json.dumps(data)
            connection.request(method, path, body, {**({} if data is None else JSON), **(headers or {})})
            with closing(connection.getresponse()) as response:
                assert response.status == 200, response.read()
                assert response.headers["Content-Type"].startswith("text/event-stream")
                yield events_of(response)


def events_of(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    kind = ""
    for line in response:
        if line.startswith(b"event: "):
            kind = line[7:].decode().strip()
        elif line.startswith(b"data: "):
            yield kind, json.loads(line[6:])


@pytest.fixture
def system() -> FakeSystem:
    return FakeSystem()


@contextmanager
def serving(system: FakeSystem | None, host: str = "127.0.0.1", token: str | None = None) -> Iterator[Client]:
    with AdminServer(Address(host, 0), token) as server:
        if system is not None:
            server.serve(system)
        yield Client(server.address)


@pytest.fixture
def client(system: FakeSystem) -> Iterator[Client]:
    with serving(system) as client:
        yield client
