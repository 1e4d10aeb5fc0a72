"""Servers for the clients of verifyReceipt: raw bytes, TLS, HTTP/2."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events

from receipt_actors.sandbox.bench.services import make_certificate as make_certificate
from tests.patience import PATIENCE_SECONDS
from tests.transport.wire import Wire


@contextmanager
def raw_server(converse: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Read a request from each connection and hand it to ``converse``; yields the URL."""
    with closing(Wire(lambda _asked: converse, tls)) as server:
        yield f"{server.url}/verifyReceipt"


def answers(body: bytes, head: bytes = b"") -> Callable[[socket.socket], None]:
    def converse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), head, body))

    return converse


def tls_server(certificate: Path, *, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    return context


@contextmanager
def http2_server(certificate: Path, *, gathers: int) -> Iterator[tuple[str, list[int]]]:
    """Answer over HTTP/2 once ``gathers`` requests wait on one connection; yields the URL and their numbers so far."""
    gathered: list[int] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        tls = context.wrap_socket(connection, server_side=True)
        assert tls.selected_alpn_protocol() == "h2"
        http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http2.initiate_connection()
        waiting: list[int] = []
        given_up: set[int] = set()
        with tls:
            while True:
                tls.sendall(http2.data_to_send())
                data = tls.recv(65536)
                if not data:
                    return
                for event in http2.receive_data(data):
                    if isinstance(event, h2.events.DataReceived):
                        http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        waiting.append(event.stream_id)
                    elif isinstance(event, h2.events.StreamReset):
                        given_up.add(event.stream_id)
                if len(waiting) == gathers:
                    gathered.append(gathers)
                    for stream in set(waiting) - given_up:
                        http2.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
                        http2.send_data(stream, b'{"status":0}', end_stream=True)
                    waiting.clear()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
            threads[-1].start()

    threads = [threading.Thread(target=accept, daemon=True)]
    threads[0].start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/verifyReceipt", gathered
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
