"""The handler in other people's servers, over sockets: uvicorn (ASGI) and the standard library's (WSGI)."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from receipt_actors.errors import LedgerUnavailable
from receipt_actors.notifications import asgi_app, wsgi_app
from receipt_actors.stores.apple.notifications import shells
from receipt_actors.stores.apple.notifications.contents import MAX_BODY_BYTES
from tests.patience import PATIENCE_SECONDS
from tests.stores.apple.notifications.conftest import House
from tests.stores.apple.notifications.posts import CLAIM, INVALID, Posted
from tests.stores.apple.notifications.servers import Client, read_to_end, uvicorn_server, wsgiref_server

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextmanager
def serving(house: House, shell: str) -> Iterator[Client]:
    if shell == "asgi":
        with uvicorn_server(asgi_app(house.handler, body_seconds=0.5)) as client:
            yield client
    else:
        with wsgiref_server(wsgi_app(house.handler)) as client:
            yield client


@pytest.fixture(params=["asgi", "wsgi"])
def client(request: pytest.FixtureRequest, house: House) -> Iterator[Client]:
    house.ledger.claim(CLAIM)
    with serving(house, request.param) as client:
        yield client


def raw_post(body: bytes, more: bytes = b"") -> bytes:
    return HEAD + b"Content-Length: %d\r\n%b\r\n%b" % (len(body), more, body)


def test_statuses_are_the_handlers(house: House, client: Client) -> None:
    house.ledger.fail("mark_refunded", LedgerUnavailable("time-out"))
    posted, theirs = Posted(), Posted(data={"bundleId": "com.example.theirs"})
    bodies = (posted.body, posted.body, b"garbage", b"{}", b"", theirs.body, Posted("TEST", None).body)
    assert [client.post(body) for body in bodies] == [503, 200, 400, 400, 400, 403, 200]
    status, text, headers = client.ask(body=posted.body)
    assert (status, text) == (200, "done\n")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_other_methods_are_refused(house: House, client: Client, method: str) -> None:
    status, text, headers = client.ask(method, "/", None, {})
    assert (status, headers["Allow"]) == (405, "POST")
    assert text == ("" if method == "HEAD" else "expected a POST\n")
    assert house.ledger.count("mark_refunded") == 0


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "multipart/form-data", ""])
def test_neither_the_path_nor_the_content_type_decides(house: House, client: Client, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert client.post(Posted().body, "/apple/notifications?x=1", headers) == 200
    assert client.post(b"signedPayload=a.b.c", "/", headers) == 400


def test_a_body_that_is_announced_too_large_is_not_waited_for(client: Client) -> None:
    with client.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000000000000\r\n\r\n{")
        assert connection.recv(1000).split(b" ")[1] == b"413"
    assert client.post(Posted().body) == 200


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "٣", "9" * 30])
def test_a_length_that_is_none_is_refused(house: House, client: Client, length: str) -> None:
    with client.connect() as connection:
        connection.sendall(HEAD + f"Content-Length: {length}\r\nConnection: close\r\n\r\n{{}}".encode())
        with suppress(OSError):  # it has been refused and cut off already
            connection.shutdown(socket.SHUT_WR)
        answer = read_to_end(connection)
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"411", b"413")
    assert client.post(Posted().body) == 200


@pytest.mark.parametrize("part", [b"", b"{", Posted().body[:1000]], ids=["nothing", "a byte", "the beginning"])
def test_a_body_that_does_not_come_is_not_waited_for_ever(house: House, client: Client, part: bytes) -> None:
    with client.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 5000\r\n\r\n" + part)
        assert client.post(Posted().body) == 200
        answer = read_to_end(connection)
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"408")
    assert house.answers == [INVALID]


def test_a_body_that_is_cut_short_changes_nothing(house: House, client: Client) -> None:
    body = Posted().body
    with client.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body) + 1, body))
        connection.shutdown(socket.SHUT_WR)
        read_to_end(connection)
    assert house.answers == []


# --- ASGI alone ---


def test_a_chunked_body_is_taken_up_to_its_bound(house: House) -> None:
    house.ledger.claim(CLAIM)
    with serving(house, "asgi") as client:
        body = Posted().body
        assert client.post(iter([body[:100], body[100:]])) == 200
        with client.connect() as connection:
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            try:
                while True:
                    connection.sendall(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
            except ConnectionError:
                pass
    assert house.answers == [INVALID]


def test_a_chunked_body_needs_a_length_in_wsgi(house: House) -> None:
    """The standard has no end for it; where the server says that it has, it is read up to its bound."""
    with serving(house, "wsgi") as client, client.connect() as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        assert connection.recv(1000).split(b" ")[1] == b"411"

    assert status_of(house, Pieces(Posted().body)) == "200"
    largest = Posted().body.ljust(MAX_BODY_BYTES)
    assert status_of(house, Pieces(largest)) == "200"
    assert status_of(house, Pieces(largest + b" ")) == "413"


def status_of(house: House, source: Any) -> str:
    """Ask as a server does that can tell where a chunked body ends."""
    statuses: list[str] = []
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": source, "wsgi.input_terminated": True}
    list(wsgi_app(house.handler)(environ, lambda status, _headers: statuses.append(status)))  # type: ignore[arg-type, misc]
    return statuses[0].split(" ")[0]


class Pieces:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        part, self._data = self._data[: min(size, 700)], self._data[min(size, 700) :]
        return part


def test_too_many_at_once_are_told_to_come_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "MAX_WAITING", 2)
    house.ledger.claim(CLAIM)
    with serving(house, "asgi") as client, house.ledger.hold("mark_refunded") as hold, ThreadPoolExecutor(2) as pool:
        first = [pool.submit(client.post, Posted().body) for _ in range(2)]
        hold.wait_for_call(2)
        assert client.post(Posted().body) == 503
        hold.release()
        assert [each.result(timeout=PATIENCE_SECONDS) for each in first] == [200, 200]
        assert client.post(Posted().body) == 200


def test_slow_bodies_keep_out_no_notification(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "MAX_ARRIVING", 3)
    house.ledger.claim(CLAIM)
    with uvicorn_server(asgi_app(house.handler, body_seconds=3600)) as client, ExitStack() as stack:
        slow = [stack.enter_context(client.connect()) for _ in range(5)]
        for connection in slow:
            connection.sendall(HEAD + b"Content-Length: 5000\r\n\r\n{")
        posted = Posted()
        assert [client.post(posted.body) for _ in range(10)] == [200] * 10
        waiting = list(slow)
        while len(waiting) > 2:  # three have made room
            (told, *_), _, _ = select.select(waiting, [], [], PATIENCE_SECONDS)
            assert read_to_end(told).split(b" ")[1] == b"408"
            waiting.remove(told)
    assert house.answers == [INVALID]


def test_a_client_that_does_not_wait_for_the_answer_changes_nothing(house: House) -> None:
    house.ledger.claim(CLAIM)
    with serving(house, "asgi") as client, house.ledger.hold("mark_refunded") as hold:
        posted = Posted()
        with client.connect() as connection:
            connection.sendall(raw_post(posted.body))
            hold.wait_for_call()
        hold.release()
        assert client.post(posted.body) == 200
    assert house.ledger.items[CLAIM.transaction_id].refunded_at_seconds is not None


# --- in frameworks ---


def test_it_takes_part_in_the_life_of_a_server(house: House) -> None:
    import asyncio

    async def talk(scope: dict[str, Any], *received: dict[str, Any]) -> list[str]:
        sent: list[str] = []
        messages = iter(received)

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await asgi_app(house.handler)(scope, receive, send)
        return sent

    startup, shutdown = ({"type": f"lifespan.{what}"} for what in ("startup", "shutdown"))
    assert asyncio.run(talk({"type": "lifespan"}, startup, shutdown)) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
