"""Clients that are slow, greedy, many, or speak no HTTP: they are cut off or wait, and no other client notices."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import pytest

from receipt_actors.admin import server
from receipt_actors.admin.routes import MAX_BODY_BYTES
from receipt_actors.admin.server import BURST_REQUESTS, LONGEST_TURN_SECONDS, REQUESTS_PER_SECOND, Pace
from receipt_actors.web import serving as web_serving
from receipt_actors.web.limits import ACCEPTED_AT_ONCE, LISTEN_BACKLOG, MAX_CONNECTIONS, MAX_HEAD_BYTES
from tests.patience import PATIENCE_SECONDS

from .conftest import Client, FakeSystem, an_overview, serving

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
PAUSE = b"POST /api/pause HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
PART_OF_HEAD, PART_OF_BODY = HEALTH[:-2], PAUSE + b"{"

T = TypeVar("T")


@pytest.fixture
def raw(client: Client) -> Iterator[socket.socket]:
    """A connection to write on what one likes."""
    with connect(client) as connection:
        yield connection


def connect(client: Client) -> socket.socket:
    return socket.create_connection(("127.0.0.1", client.address.port), timeout=PATIENCE_SECONDS)


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes; a reset is an end as well."""
    data = bytearray()
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionError:
        pass
    return bytes(data)


def in_time(ask: Callable[[], T]) -> T:
    """Ask until the request comes in time: on a busy machine that may be over before it is sent."""
    while True:
        try:
            return ask()
        except ConnectionError:
            continue


def served(client: Client, request: bytes = HEALTH) -> tuple[socket.socket, bytes]:
    """Connect and send; return the connection and the beginning of the answer."""
    connection = connect(client)
    try:
        connection.sendall(request)
        answer = connection.recv(1000)
        if not answer:
            raise ConnectionAbortedError("it was closed before it was served")
    except BaseException:
        connection.close()
        raise
    return connection, answer


def send_for_ever(connection: socket.socket, data: bytes) -> None:
    """Send until the server has had enough of it."""
    try:
        while True:
            connection.sendall(data)
    except ConnectionError:
        pass


@pytest.mark.parametrize("beginning", [b"", b"G", PART_OF_HEAD, PART_OF_BODY])
def test_a_request_that_does_not_come_is_not_waited_for(
    client: Client, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(web_serving, "REQUEST_SECONDS", 0.5)
    with connect(client) as connection:
        with suppress(ConnectionError):
            connection.sendall(beginning)
        read_to_end(connection)
    connection, answer = in_time(lambda: served(client))
    with connection:
        assert answer.startswith(b"HTTP/1.1 200 ")
        with suppress(ConnectionError):
            connection.sendall(beginning or b"\r\n")
        read_to_end(connection)


@pytest.mark.parametrize("beginning", [PART_OF_HEAD, PART_OF_BODY])
def test_one_that_hides_behind_another_is_not_waited_for_either(
    client: Client, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(web_serving, "REQUEST_SECONDS", 0.5)
    connection, answer = in_time(lambda: served(client, HEALTH + beginning))
    with connection:
        assert (answer + read_to_end(connection)).count(b"HTTP/1.1 200 ") == 1


def test_one_byte_now_and_then_is_no_sign_of_life(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_serving, "REQUEST_SECONDS", 0.5)
    with connect(client) as connection:
        send_for_ever(connection, b"x")


def test_an_answer_that_takes_long_is_waited_for(
    client: Client, system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_serving, "REQUEST_SECONDS", 0.5)
    with ExitStack() as stack:
        events = in_time(
            lambda: stack.enter_context(client.stream("POST", "/api/trace", {"filters": {"event": ["received"]}}))
        )
        assert system.traced.acquire(timeout=PATIENCE_SECONDS)
        with connect(client) as other:
            read_to_end(other)  # the time is over for this one, so it was for the stream
        system.traces[-1].on_end("enough")
        assert next(events)[0] == "end"


def test_who_reads_nothing_is_cut_off(client: Client, system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_serving, "STALL_SECONDS", 0.05)
    system.now = an_overview(source_queues=("Q" * 1_000_000,))
    with connect(client) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /api/overview HTTP/1.1\r\nHost: localhost\r\n\r\n"
        send_for_ever(connection, request)


@pytest.mark.parametrize("beginning", [b"", PART_OF_HEAD, PART_OF_BODY, HEALTH])
def test_slow_connections_keep_out_no_probe(client: Client, beginning: bytes) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(client)) for _ in range(2 * MAX_CONNECTIONS)]
        for connection in slow:
            with suppress(ConnectionError):  # it has made room already
                connection.sendall(beginning)
        assert [client.get("/healthz").status for _ in range(30)] == [200] * 30


def test_the_slowest_makes_room_for_a_new_connection(client: Client) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(client)) for _ in range(MAX_CONNECTIONS + 1)]
        assert read_to_end(slow[0]) == b""
        slow[1].sendall(HEALTH)
        assert slow[1].recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_flood_of_connections_takes_few_files(system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    all_are_there = threading.Event()
    open_connections: set[web_serving.Connection] = set()
    peak = 0

    class Counted(web_serving.Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            nonlocal peak
            assert all_are_there.wait(PATIENCE_SECONDS)
            super().__init__(*args, **kwargs)
            open_connections.add(self)
            peak = max(peak, len(open_connections))

        def connection_lost(self, exc: Exception | None) -> None:
            open_connections.discard(self)
            super().connection_lost(exc)

    monkeypatch.setattr(web_serving, "Connection", Counted)
    with serving(system) as client, ExitStack() as stack:
        flood = [stack.enter_context(connect(client)) for _ in range(LISTEN_BACKLOG)]
        all_are_there.set()
        assert read_to_end(flood[-1]) == b""
    assert MAX_CONNECTIONS < peak < MAX_CONNECTIONS + 5 * ACCEPTED_AT_ONCE


def test_a_huge_body_is_not_read(client: Client, raw: socket.socket, system: FakeSystem) -> None:
    head = b"POST /api/trace HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    raw.sendall(head + b"Content-Length: 1000000000000\r\n\r\n" + b"x" * (MAX_BODY_BYTES + 1))
    assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
    with connect(client) as chunked:
        chunked.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        send_for_ever(chunked, b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
    assert system.traces == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET  /  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * (MAX_HEAD_BYTES + 1),
        b"GET /" + b"a" * (MAX_HEAD_BYTES + 1) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\r\n" * 100_000,
        b"\xff" * 100_000,
    ],
)
def test_what_is_no_http_is_refused(client: Client, raw: socket.socket, request_bytes: bytes) -> None:
    try:
        raw.sendall(request_bytes)
        raw.shutdown(socket.SHUT_WR)
    except OSError:  # it has been cut off already
        pass
    answer = read_to_end(raw)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert client.get("/healthz").status == 200


def test_nonsense_after_an_answer_ends_the_connection_alone(
    client: Client, raw: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /api/pause HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
    raw.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
    answer = raw.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 415 ")
    raw.sendall(b"this is no chunk\r\n")
    assert b"HTTP/1.1 " not in read_to_end(raw)
    assert client.get("/healthz").status == 200
    assert caplog.records == []


def test_requests_may_come_all_at_once(raw: socket.socket) -> None:
    raw.sendall(HEALTH * 9 + HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert read_to_end(raw).count(b"HTTP/1.1 200 ") == 10


def test_an_upgrade_is_not_made(raw: socket.socket) -> None:
    raw.sendall(
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert read_to_end(raw).startswith(b"HTTP/1.1 200 ")


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
    with connect(client) as connection:
        connection.sendall(PAUSE + b"{}")
    monkeypatch.setattr(server, "REQUESTS_PER_SECOND", 50)
    assert client.get("/healthz").status == 200  # its turn comes after that of the other
    assert system.told == []
    with connect(client) as connection:
        connection.sendall(PAUSE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"{}")
        assert read_to_end(connection).startswith(b"HTTP/1.1 204 ")
    assert system.told == ["pause"]
