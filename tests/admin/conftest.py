"""A system of which everything can be decided, an admin port in front of it, and clients that speak plain HTTP."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.admin.server import AdminServer
from receipt_actors.domain.addresses import Address
from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.telemetry.overview import (
    ActorOverview,
    Incident,
    Overview,
    ProcessOverview,
    ServiceOverview,
    State,
    Usage,
)
from receipt_actors.telemetry.statistics import Latencies, ServiceCalls, StatisticsSnapshot
from tests.patience import PATIENCE_SECONDS
from tests.stand_in_system import StandInSystem

TOKEN = "0123456789abcdef0123456789abcdef"
JSON = {"Content-Type": "application/json"}


def latencies(*seconds: float) -> Latencies:
    counted = Latencies()
    for each in seconds:
        counted.record(each)
    return counted


def a_process(name: str = "main", state: State = State.CONSUMING, **changes: Any) -> ProcessOverview:
    validators = ActorOverview(
        "validators",
        "supervisor",
        "running",
        strategy="simple_one_for_one",
        children=(ActorOverview("validator of m-1", "worker", "running", 1),),
        children_unlisted=41,
    )
    intake = ActorOverview("intake", "worker", "running", 3, messages=7, restarts=2)
    process = ProcessOverview(
        name=name,
        pid=4711,
        started_at_seconds=1_000_000.0,
        state=state,
        in_flight=42,
        reserved=10,
        unavailable=(),
        usage=Usage(1.5, 2_000_000, 9, 33),
        services=(ServiceOverview("ledger", True, 5, 6, 7),),
        tree=ActorOverview("root", "supervisor", "running", strategy="one_for_one", children=(intake, validators)),
        statistics=STATISTICS,
    )
    return replace(process, **changes)


STATISTICS = StatisticsSnapshot(
    received=100,
    results={(Verdict.OK, Reason.CLAIMED): 60, (Verdict.INVALID, Reason.REFUNDED): 5},
    fates={("answered", None): 65, ("moved", Reason.NOT_JSON): 3},
    latencies=latencies(*[0.02] * 60, *[0.2] * 8),
    steps={"verifying": latencies(0.015, 0.15)},
    calls={"ledger": ServiceCalls(30, 65)},
    incidents={"crash": 4},
)


def an_overview(*processes: ProcessOverview, state: State = State.CONSUMING, **changes: Any) -> Overview:
    overview = Overview(
        at_seconds=1_000_100.0,
        version="1.2.3",
        state=state,
        source_queues=("ReceiptsSQS",),
        queues={"ReceiptsSQS": 12, "ReceiptsSQSDLQ": None},
        processes=processes or (a_process(state=state),),
        statistics=STATISTICS,
        incidents=(Incident(1_000_050.0, "crash", "the validator crashed", ("because",), "m-1"),),
    )
    return replace(overview, **changes)


class FakeSystem(StandInSystem):
    """A system that does what it is told, or does not answer."""

    def __init__(self) -> None:
        super().__init__(self._look)
        self.now = an_overview()
        self.states = {name: {"name": name, "in_flight": 42} for name in ("intake", "result_batcher ResultsSQS")}
        self.answers = threading.Event()  # while it is not set, overviews do not come
        self.answers.set()
        self.failure: Exception | None = None

    def _look(self, _number: int) -> Overview:
        assert self.answers.wait(PATIENCE_SECONDS)
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
