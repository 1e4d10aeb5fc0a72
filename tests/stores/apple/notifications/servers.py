"""The servers that other people would put the handler into, on loopback, and clients that write what they like."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn

from tests.patience import PATIENCE_SECONDS

JSON = {"Content-Type": "application/json"}


class Client:
    """Posts to one port; a connection for each request."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, method: str = "POST", path: str = "/", body: Any = None, headers: Mapping[str, str] = JSON
    ) -> tuple[int, str, Mapping[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with closing(connection):
            connection.request(method, path, body, dict(headers), encode_chunked=True)
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers

    def post(self, body: Any, path: str = "/", headers: Mapping[str, str] = JSON) -> int:
        return self.ask("POST", path, body, headers)[0]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes; a reset is an end as well."""
    data = bytearray()
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionError:
        pass
    return bytes(data)


@contextmanager
def uvicorn_server(app: Any) -> Iterator[Client]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    try:
        yield Client(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)


class _Quiet(WSGIRequestHandler):
    timeout = 1.0  # seconds that a client may keep silent

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has gone


@contextmanager
def wsgiref_server(app: Any) -> Iterator[Client]:
    with make_server("127.0.0.1", 0, app, _ThreadingServer, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield Client(server.server_port)
        finally:
            server.shutdown()
            thread.join(PATIENCE_SECONDS)
