"""The small HTTP server under the simulated App Store, spoken to over raw sockets."""

from __future__ import annotations

import gc
import http.client
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from receipt_actors.sandbox.http_server import MAX_BODY_BYTES, MAX_HEAD_BYTES, HttpServer, Reply, Request, response
from tests.patience import PATIENCE_SECONDS


def echo(request: Request) -> Reply:
    said = f"{request.method} {request.path} ".encode() + request.body
    return Reply(response(200, said, "text/plain"))


@pytest.fixture
def serve() -> Iterator[Callable[..., HttpServer]]:
    with ExitStack() as stack:
        yield lambda handler: stack.enter_context(HttpServer(handler))


def connect(server: HttpServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def test_requests_of_a_connection_are_answered_in_order(serve: Callable[..., HttpServer]) -> None:
    def first_takes_longest(request: Request) -> Reply:
        return echo(request)._replace(delay_seconds=0.05 if request.path == "/a" else 0.0)

    with connect(serve(first_takes_longest)) as connection:
        connection.sendall(
            b"POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\none"
            b"GET /b HTTP/1.1\r\n\r\n"
            b"POST /c HTTP/1.1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nthree"
        )
        received = read_all(connection)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    first, second, third = (received.index(text) for text in (b"POST /a one", b"GET /b ", b"POST /c three"))
    assert first < second < third


def test_thousands_of_requests_may_come_in_one_piece(serve: Callable[..., HttpServer]) -> None:
    with connect(serve(echo)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 3000 + b"GET / HTTP/1.1\r\nCONNECTION:close\r\n\r\n")
        assert read_all(connection).count(b"HTTP/1.1 200 OK") == 3001


def test_a_request_may_come_byte_by_byte(serve: Callable[..., HttpServer]) -> None:
    with connect(serve(echo)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST /a HTTP/1.0\r\nContent-Length: 3\r\n\r\none":
            connection.sendall(bytes([byte]))
        assert read_all(connection).endswith(b"POST /a one")


def test_a_delayed_answer_does_not_hold_up_other_connections(serve: Callable[..., HttpServer]) -> None:
    arrived = threading.Event()

    def handler(request: Request) -> Reply:
        if request.path == "/slow":
            arrived.set()
            return Reply(response(200, b"", "text/plain"), delay_seconds=3600.0)
        return echo(request)

    server = serve(handler)
    with connect(server) as slow, connect(server) as fast:
        slow.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
        assert arrived.wait(PATIENCE_SECONDS)
        fast.sendall(b"GET /fast HTTP/1.0\r\n\r\n")
        assert read_all(fast).endswith(b"GET /fast ")
        server.stop()
        assert read_all(slow) == b""


def test_hundreds_of_connections_at_once(serve: Callable[..., HttpServer]) -> None:
    count = 300
    all_arrived = threading.Event()
    seen = 0

    def handler(_: Request) -> Reply:
        nonlocal seen
        seen += 1
        if seen == count:
            all_arrived.set()
        return Reply(b"", delay_seconds=3600.0, hangs=True)

    server = serve(handler)
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(count)]
        for connection in connections:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert all_arrived.wait(PATIENCE_SECONDS)
        server.drop_hanging()
        assert [read_all(connection) for connection in connections] == [b""] * count
    assert server.concurrent_requests_high_water == count


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"nonsense\r\n\r\n", http.client.BAD_REQUEST),
        (b"GET / HTTP/2\r\n\r\n", http.client.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", http.client.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", http.client.LENGTH_REQUIRED),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES, http.client.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_what_is_no_request_is_refused(serve: Callable[..., HttpServer], request_head: bytes, status: int) -> None:
    with connect(serve(echo)) as connection:
        connection.sendall(request_head)
        assert read_all(connection).startswith(b"HTTP/1.1 %d " % status)


def test_a_client_that_asks_first_is_told_to_continue(serve: Callable[..., HttpServer]) -> None:
    with connect(serve(echo)) as connection:
        connection.sendall(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ok")
        assert read_all(connection).endswith(b"POST / ok")


def test_a_taken_address_is_an_error_at_start(serve: Callable[..., HttpServer]) -> None:
    port = int(serve(echo).url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        HttpServer(echo, port=port).start()


def test_stop_may_be_called_twice_and_before_start() -> None:
    server = HttpServer(echo)
    server.stop()
    server.start()
    server.stop()
    server.stop()
    server.drop_hanging()


def test_who_comes_as_the_server_stops_leaves_no_socket_open(serve: Callable[..., HttpServer]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(20):
            is_busy, may_answer = threading.Event(), threading.Event()

            def keep_the_loop_busy(
                request: Request, busy: threading.Event = is_busy, go_on: threading.Event = may_answer
            ) -> Reply:
                busy.set()
                assert go_on.wait(PATIENCE_SECONDS)
                return echo(request)

            server = serve(keep_the_loop_busy)
            with ExitStack() as stack:
                stack.enter_context(connect(server)).sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert is_busy.wait(PATIENCE_SECONDS)
                for _ in range(5):
                    stack.enter_context(connect(server))
                stopping = threading.Thread(target=server.stop)
                stopping.start()
                may_answer.set()
                stopping.join(PATIENCE_SECONDS)
                assert not stopping.is_alive()
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_a_handler_sees_the_headers_of_its_request(serve: Callable[..., HttpServer]) -> None:
    def show(request: Request) -> Reply:
        return Reply(response(200, (request.header("authorization") or "nobody").encode(), "text/plain"))

    with connect(serve(show)) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nAUTHORIZATION:  Bearer AbC \r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        received = read_all(connection)
    assert received.index(b"\r\n\r\nBearer AbC") < received.index(b"\r\n\r\nnobody")
