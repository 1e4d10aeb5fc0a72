"""Connections of ``CurlTransport`` to servers that close them, speak unasked, or do not finish."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from receipt_actors.transport.curl import CurlTransport, _Multi
from receipt_actors.transport.messages import HttpRequest, HttpResponse, RequestFailed, Server, wait_for
from tests.patience import PATIENCE_SECONDS
from tests.ports import reserved_port
from tests.stores.apple.app_store_servers import make_certificate, tls_server
from tests.transport.places import running
from tests.transport.wire import Asked, Wire

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
MAX_RESPONSE_BYTES = 1_000_000
MAX_IDLE = 2


@pytest.fixture
def serve() -> Iterator[Callable[..., Wire]]:
    with ExitStack() as at_end:
        yield lambda *args: at_end.enter_context(closing(Wire(*args)))


@pytest.fixture
def transport() -> Iterator[CurlTransport]:
    with running(CurlTransport(MAX_IDLE)) as transport:
        yield transport


def server_of(read_timeout_seconds: float = 10.0) -> Server:
    return Server(DEFAULT_CA_BUNDLE_PATH, 5.0, read_timeout_seconds, MAX_RESPONSE_BYTES)


class Asker:
    def __init__(self, transport: CurlTransport, url: str, read_timeout_seconds: float = 10.0) -> None:
        self._transport = transport
        self._url = url
        self._server = server_of(read_timeout_seconds)

    def outcome(self, body: bytes = b"x") -> HttpResponse | RequestFailed:
        return wait_for(partial(self._transport.begin, HttpRequest(self._server, self._url, (), body)))

    def ask(self, body: bytes = b"x") -> bytes:
        outcome = self.outcome(body)
        assert isinstance(outcome, HttpResponse), outcome
        assert (outcome.status, outcome.is_whole) == (200, True)
        return outcome.body


def test_a_connection_serves_one_request_after_the_other(serve: Callable[..., Wire], transport: CurlTransport) -> None:
    server = serve(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(asked.body), asked.body))
    asker = Asker(transport, server.url)
    for body in (b"0", b"1", bytes(range(256)) * 3000, b"3"):
        assert asker.ask(body) == body
    assert {asked.connection for asked in server.asked} == {0}


def test_requests_at_once_have_a_connection_each(serve: Callable[..., Wire], transport: CurlTransport) -> None:
    together = threading.Barrier(4)

    def answer(asked: Asked) -> bytes:
        together.wait(PATIENCE_SECONDS)
        return ANSWER

    server = serve(answer)
    asker = Asker(transport, server.url)
    threads = [threading.Thread(target=asker.ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert {asked.connection for asked in server.asked} == {0, 1, 2, 3}
    for _ in range(4 - MAX_IDLE):
        assert server.closed.acquire(timeout=PATIENCE_SECONDS)


def test_a_server_that_does_not_accept_holds_up_no_other(serve: Callable[..., Wire], transport: CurlTransport) -> None:
    with ExitStack() as at_end:
        deaf = at_end.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(8):  # more than the backlog takes: from then on there are no connections
            waiting = at_end.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        request = HttpRequest(server_of(), f"http://127.0.0.1:{deaf.getsockname()[1]}/", (), b"x")
        for _ in range(100):
            transport.begin(request, lambda outcome: None)
        assert Asker(transport, serve(lambda asked: ANSWER).url).ask() == b"{}"


def test_a_connection_that_was_closed_while_idle_is_not_used(
    serve: Callable[..., Wire], transport: CurlTransport
) -> None:
    """Whether the server announces that or not; and the system may give its number to the next file."""
    server = serve(
        lambda asked: (
            ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
            if asked.body == b"announced"
            else ANSWER + Wire.CLOSE
        )
    )
    asker = Asker(transport, server.url)
    for body in (b"announced", b"at once") * 2:
        asker.ask(body)
        assert server.closed.acquire(timeout=PATIENCE_SECONDS)
        with ExitStack() as at_end:
            for end in (end for _ in range(4) for end in socket.socketpair()):
                at_end.enter_context(end)
            asker.ask(b"announced")
        assert server.closed.acquire(timeout=PATIENCE_SECONDS)
    assert [asked.connection for asked in server.asked] == list(range(8))


def test_a_request_that_meets_the_end_of_a_used_connection_is_sent_once_more(
    serve: Callable[..., Wire], transport: CurlTransport
) -> None:
    server = serve(lambda asked: None if (asked.connection, asked.body) == (0, b"second") else ANSWER)
    asker = Asker(transport, server.url)
    asker.ask(b"first")
    assert asker.ask(b"second") == b"{}"
    assert [(asked.connection, asked.body) for asked in server.asked] == [(0, b"first"), (0, b"second"), (1, b"second")]


def test_any_number_of_connections_may_be_closed_at_once(serve: Callable[..., Wire]) -> None:
    """The next request does not fail, though libcurl gives up after a few connections that have ended."""
    together = threading.Barrier(20)

    def answer(asked: Asked) -> bytes:
        if asked.body == b"together":
            together.wait(PATIENCE_SECONDS)
        return ANSWER

    server = serve(answer)
    with running(CurlTransport(50)) as transport:
        asker = Asker(transport, server.url)
        threads = [threading.Thread(target=asker.ask, args=(b"together",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        server.hang_up()
        assert asker.ask() == b"{}"


def test_a_request_is_sent_twice_at_most(serve: Callable[..., Wire], transport: CurlTransport) -> None:
    server = serve(lambda asked: ANSWER if asked.body == b"first" else None)
    asker = Asker(transport, server.url)
    asker.ask(b"first")
    for sent in (2, 1):  # on a used connection, and when there is none
        before = len(server.asked)
        outcome = asker.outcome()
        assert isinstance(outcome, RequestFailed)
        assert outcome.was_sent
        assert len(server.asked) - before == sent


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhe",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500_000,
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
    ids=["headers", "body", "chunks", "endless headers", "another protocol"],
)
def test_an_answer_that_has_begun_is_not_asked_for_again(
    serve: Callable[..., Wire], transport: CurlTransport, cut: bytes
) -> None:
    server = serve(lambda asked: ANSWER if asked.body == b"first" else cut + Wire.CLOSE)
    asker = Asker(transport, server.url)
    asker.ask(b"first")
    assert isinstance(asker.outcome(), RequestFailed)
    assert len(server.asked) == 2
    assert asker.ask(b"first") == b"{}"


def test_what_is_too_large_is_not_read_to_its_end(serve: Callable[..., Wire], transport: CurlTransport) -> None:
    body = b" " * (4 * MAX_RESPONSE_BYTES)
    server = serve(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    outcome = Asker(transport, server.url).outcome()
    assert isinstance(outcome, HttpResponse)
    assert not outcome.is_whole
    assert MAX_RESPONSE_BYTES < len(outcome.body) < 2 * MAX_RESPONSE_BYTES


def test_a_time_out_is_not_asked_for_again(serve: Callable[..., Wire], transport: CurlTransport) -> None:
    release = threading.Event()

    def answer(asked: Asked) -> bytes:
        if asked.body == b"slow":
            release.wait(PATIENCE_SECONDS)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + asked.body

    server = serve(answer)
    asker = Asker(transport, server.url, read_timeout_seconds=0.5)
    asker.ask(b"1st.")
    assert asker.outcome(b"slow") == RequestFailed("not complete within 0.5 s")
    release.set()
    assert Asker(transport, server.url).ask(b"next") == b"next"
    assert [asked.body for asked in server.asked] == [b"1st.", b"slow", b"next"]


def test_a_request_to_a_server_that_is_not_there_was_not_sent(transport: CurlTransport) -> None:
    with reserved_port() as port:
        for url in (f"http://127.0.0.1:{port}/", f"http://{'x' * 64}.invalid/"):
            outcome = Asker(transport, url).outcome()
            assert isinstance(outcome, RequestFailed)
            assert not outcome.was_sent


def test_what_a_server_says_unasked_is_no_answer(serve: Callable[..., Wire], transport: CurlTransport) -> None:
    told: list[bytes] = []
    is_over = threading.Event()
    wrong = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
    server = serve(lambda asked: ANSWER + (wrong if asked.body == b"twice" else b""))
    asker = Asker(transport, server.url)
    assert [asker.ask(b"twice"), asker.ask(b"once")] == [b"{}", b"{}"]

    def speak_unasked_and_ask(body: bytes, outcome: object) -> None:
        assert isinstance(outcome, HttpResponse)
        told.append(outcome.body)
        if len(told) == 3:
            is_over.set()
            return
        server.say(wrong, server.asked[-1].connection)
        multi = transport._running
        assert isinstance(multi, _Multi)
        select.select(list(multi._idle_sockets), [], [], PATIENCE_SECONDS)  # until it has come
        transport.begin(HttpRequest(server_, server.url, (), body), partial(speak_unasked_and_ask, body))

    server_ = server_of()
    transport.begin(HttpRequest(server_, server.url, (), b"x"), partial(speak_unasked_and_ask, b"x"))
    assert is_over.wait(PATIENCE_SECONDS)
    assert told == [b"{}"] * 3


def test_a_connection_with_tls_is_kept_and_dropped_likewise(
    serve: Callable[..., Wire], transport: CurlTransport, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path)

    def answer(asked: Asked) -> bytes:
        return {b"close": ANSWER + Wire.CLOSE, b"twice": ANSWER + ANSWER}.get(asked.body, ANSWER)

    server = serve(answer, tls_server(certificate))
    trusting = Server(str(certificate), 5.0, 10.0, MAX_RESPONSE_BYTES)
    for body in (b"1", b"2", b"close", b"3", b"twice", b"4", b"5"):
        response = wait_for(partial(transport.begin, HttpRequest(trusting, server.url, (), body)))
        assert isinstance(response, HttpResponse)
        assert response.body == b"{}"
    assert [asked.connection for asked in server.asked] == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Y: 1\r\nx-y:  2 \r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Y: 2\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nX-Y: 2\r\n\r\nhello" + Wire.CLOSE,
    ],
    ids=["interim", "chunks", "no length"],
)
def test_an_answer_is_read_as_http_has_it(serve: Callable[..., Wire], transport: CurlTransport, answer: bytes) -> None:
    """What AWS never does, something in between may. Of a header that comes twice the last counts."""
    asker = Asker(transport, serve(lambda asked: answer).url)
    for _ in range(2):
        outcome = asker.outcome()
        assert isinstance(outcome, HttpResponse)
        assert (outcome.body, outcome.header("x-y"), outcome.header("x-z")) == (b"hello", "2", None)
