"""Servers for the clients of verifyReceipt: raw bytes, TLS, HTTP/2, a proxy that tunnels."""

from __future__ import annotations

import itertools
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events

from receipt_actors.sandbox.bench.services import make_certificate as make_certificate
from tests.patience import PATIENCE_SECONDS


def read_request(connection: socket.socket) -> None:
    """Read it all: to close a connection with something unread in it would reset it, answer and all."""
    with connection.makefile("rb") as stream:
        lines = itertools.takewhile(lambda line: line != b"\r\n", stream)
        headers = dict(line.split(b": ") for line in lines if line.count(b": ") == 1)
        stream.read(int(headers.get(b"Content-Length", 0)))


@contextmanager
def raw_server(converse: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Accept connections one after the other, read a request from each and hand it to ``converse``; yields the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                with connection:
                    read_request(connection)
                    converse(connection)
            except OSError:
                continue  # the client hung up, which some tests are about

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    scheme = "http" if tls is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/verifyReceipt"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE_SECONDS)


def answers(body: bytes, head: bytes = b"") -> Callable[[socket.socket], None]:
    """Answer HTTP 200 with the body as it is."""

    def converse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), head, body))

    return converse


@contextmanager
def tunnelling_proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that does CONNECT, one connection after the other; yields its URL and where it was asked to go."""
    targets: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as stream:
                lines = list(iter(stream.readline, b"\r\n"))
                target = lines[0].split()[1].decode()
                targets.append(target)
                host, port = target.rsplit(":", 1)
                with socket.create_connection((host, int(port))) as server:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    _relay(client, server)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", targets
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE_SECONDS)


def _relay(one: socket.socket, other: socket.socket) -> None:
    while True:
        for side in select.select([one, other], [], [])[0]:
            try:
                data = side.recv(65536)
                (other if side is one else one).sendall(data)
            except OSError:
                return
            if not data:
                return


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
