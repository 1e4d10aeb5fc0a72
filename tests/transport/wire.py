"""A server on a real socket that answers with the very bytes that it is told to."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from tests.patience import PATIENCE_SECONDS


class Asked(NamedTuple):
    connection: int
    target: str  #: of the request line
    headers: Mapping[str, str]  #: names in lower case
    body: bytes


Answer: TypeAlias = bytes | Callable[[socket.socket], None] | None


class Wire:
    """A server on loopback that takes requests down and sends back the very bytes that it is told to.

    ``answer`` says what; None closes the connection without a word. It is closed as well after an answer that ends in
    ``CLOSE``, and after one that is a function, which writes to the connection by itself.
    """

    CLOSE = b"<closed>"

    def __init__(self, answer: Callable[[Asked], Answer], tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.closed = threading.Semaphore(0)  # released for each connection that has been closed from here
        self._answer = answer
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self._is_closing = False
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        with socket.create_connection(("127.0.0.1", self.port)):  # wakes who accepts
            self._threads[0].join(PATIENCE_SECONDS)
        self._listening.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def say(self, data: bytes, connection: int = 0) -> None:
        self._open[connection].sendall(data)

    def hang_up(self) -> None:
        for connected in self._open:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            connected, _ = self._listening.accept()
            if self._is_closing:
                connected.close()
                return
            thread = threading.Thread(target=self._serve, args=(connected, len(self._open)), daemon=True)
            self._open.append(connected)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        with ExitStack() as at_end:
            at_end.callback(self.closed.release)
            connected = at_end.enter_context(plain)
            try:
                if self._tls is not None:
                    connected = at_end.enter_context(self._tls.wrap_socket(plain, server_side=True))
                with connected.makefile("rb") as reader:
                    while (asked := _read_request(reader, number)) is not None:
                        self.asked.append(asked)
                        answer = self._answer(asked)
                        if not isinstance(answer, bytes):
                            if answer is not None:
                                answer(connected)
                            return
                        connected.sendall(answer.removesuffix(self.CLOSE))
                        if answer.endswith(self.CLOSE):
                            return
            except OSError:
                return


@dataclass
class Reply:
    status: int = 200
    body: bytes | Callable[[bytes], bytes] = b'{"status":0}'  #: or made from the request's body
    headers: dict[str, str] = field(default_factory=dict)

    def to(self, asked: Asked) -> bytes:
        body = self.body(asked.body) if callable(self.body) else self.body
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"HTTP/1.1 {self.status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Recorder(Wire):
    def __init__(self) -> None:
        self.reply = Reply()
        super().__init__(lambda asked: self.reply.to(asked))


def _read_request(reader: Any, connection: int) -> Asked | None:
    line = reader.readline()
    if not line:
        return None
    headers: dict[str, str] = {}
    while header := reader.readline().strip().decode():
        name, _, value = header.partition(": ")
        headers[name.lower()] = value
    return Asked(connection, line.split()[1].decode(), headers, reader.read(int(headers.get("content-length", 0))))
