"""The admin port's life: where it listens, what it refuses, and that nothing of it is left."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack

import pytest

from receipt_actors.admin.server import AdminServer
from receipt_actors.domain.addresses import Address
from receipt_actors.errors import ConfigurationError
from receipt_actors.web import serving as web_serving
from receipt_actors.web.serving import AddressRefused
from tests.open_files import open_files
from tests.patience import PATIENCE_SECONDS

from .conftest import JSON, TOKEN, Client, FakeSystem, serving
from .test_hostile_clients import read_to_end


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("receipt-actors-admin")]


def test_it_listens_on_ipv6_too(system: FakeSystem) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with AdminServer(Address("::1", 0)) as server, socket.create_connection(("::1", server.address.port)) as client:
        server.serve(system)
        client.sendall(f"GET /healthz HTTP/1.1\r\nHost: {server.address}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["192.0.2.1", "nobody.invalid"])
def test_a_host_that_is_not_this_machine_is_told_in_one_line(host: str) -> None:
    with pytest.raises(AddressRefused, match=rf"^admin: {host}:9464 can't be listened on: .+; choose another$"):
        AdminServer(Address(host, 9464), TOKEN)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "127.0.0.1.example.com"])
def test_without_a_token_no_other_machine_may_reach_it(host: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AdminServer(Address(host, 9464))
    (fault,) = refused.value.faults
    assert fault.startswith(f"admin: found '{Address(host, 9464)}'")
    assert "admin_token" in fault


def test_it_stops_at_once_whoever_is_connected(system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("REQUEST_SECONDS", "STALL_SECONDS"):  # what a stop that waits for a client would wait for
        monkeypatch.setattr(web_serving, limit, 2 * PATIENCE_SECONDS)
    threads_before, files_before = own_threads(), set(open_files().values())
    with ExitStack() as clients:
        server = AdminServer(Address("127.0.0.1", 0))
        server.serve(system)
        client = Client(server.address)
        events = clients.enter_context(client.stream("GET", "/api/events"))
        assert next(events)[0] == "overview"
        trace = clients.enter_context(client.stream("POST", "/api/trace", {"filters": {"event": ["received"]}}))
        clients.enter_context(socket.create_connection(("127.0.0.1", server.address.port)))
        half = clients.enter_context(socket.create_connection(("127.0.0.1", server.address.port)))
        half.sendall(b"POST /api/pause HTTP/1.1\r\nHost: localhost\r\n" + b"Content-Type: application/json\r\n")
        half.sendall(b"Content-Length: 2\r\n\r\n{")
        deaf = clients.enter_context(socket.create_connection(("127.0.0.1", server.address.port)))
        deaf.sendall(b"GET /api/overview HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert deaf.recv(1)
        began_at = time.monotonic()
        server.stop()
        assert time.monotonic() - began_at < PATIENCE_SECONDS
        assert [kind for kind, _ in events] in ([], ["overview"])
        assert list(trace) == [("end", {"reason": "the admin port is being closed", "events": 0, "lost": 0})]
        assert read_to_end(half) == b""
        assert system.traces[0].stopped.is_set()
    assert own_threads() == threads_before
    assert set(open_files().values()) <= files_before
    server.stop()  # and once more


def test_it_stops_while_the_system_does_not_answer(system: FakeSystem) -> None:
    system.answers.clear()
    server = AdminServer(Address("127.0.0.1", 0))
    with socket.create_connection(("127.0.0.1", server.address.port)) as client:
        client.sendall(b"GET /api/overview HTTP/1.1\r\nHost: localhost\r\n\r\n")
        server.serve(system)
        while not system.looks:  # the sampler's, or the client's
            threading.Event().wait(0.01)
        server.stop()
        answer = read_to_end(client)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 503 ")
    system.answers.set()


def test_a_client_that_hangs_up_ends_its_trace(system: FakeSystem) -> None:
    with serving(system) as client:
        with client.stream("POST", "/api/trace", {"filters": {"event": ["received"]}}):
            assert system.traced.acquire(timeout=PATIENCE_SECONDS)
        assert system.traces[0].stopped.wait(PATIENCE_SECONDS)


def test_nothing_is_asked_of_the_environment(system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with serving(system) as client:
        assert client.ask("GET", "/healthz", None, {"X-Forwarded-For": "192.0.2.7", **JSON}).status == 200
