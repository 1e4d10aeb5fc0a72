"""``HttpPool``: a request and its whole answer over a kept HTTP/1.1 connection, and nothing that costs more than that.

It owns the connections that are idle; it knows nothing of AWS but the names that botocore gives to trouble. It promises
a whole answer, of the length that was announced, or an exception; a connection is used again only after a whole answer,
and only where the server keeps it. Against urllib3 and ``http.client`` it saves 0.25 ms of CPU time a request: they
parse headers as if they were mail, and every layer copies them. What is rare in an answer (chunks, no length, an
interim status) is left to ``http.client`` all the same.

**A server may close a connection that is idle** at the moment at which the next request is sent on it. Where a used
connection ends before the first byte of an answer, the request is therefore sent once more, on a new one. The server
may have carried it out: so only requests that are safe to repeat may come here. All of ours are (see ``domain.ports``):
deleting and setting a visibility twice changes nothing; a claim that was made is found and recognised as our own; a
message that was sent twice is the same submission; messages of a lost receive come back. A time-out is never followed
by a second try.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)

MAX_ANSWER_BYTES = 16 * 1024 * 1024  #: ten messages of 1 MiB in all, each character of them written as ``\\u0000``
MAX_HEAD_BYTES = 64 * 1024  #: of status line and headers
CHUNK_BYTES = 64 * 1024  #: of a read; beyond, CPython asks the system for the buffer each time

_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Where to connect to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin | None:
        """Read a URL of nothing but scheme, host, port and the path ``/``; None for any other."""
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
        if port is None or not parts.hostname or parts.username or parts.path not in ("", "/") or parts.query:
            return None
        return cls(parts.scheme, parts.hostname, port)

    @property
    def netloc(self) -> str:
        """What the header ``Host`` says: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer; the names of the headers in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes


class HttpPool:
    """See the module; used by any number of threads at once.

    Args:
        max_idle: how many idle connections to keep.
        connect_timeout_seconds: for each address of the host, and for the TLS handshake.
        read_timeout_seconds: the longest silence of the server.
        make_tls_context: makes what https verifies the server with; called once, with the first https request.
    """

    def __init__(
        self,
        *,
        max_idle: int,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        make_tls_context: Callable[[], ssl.SSLContext],
    ) -> None:
        self._max_idle = max_idle
        self._connect_timeout_seconds = connect_timeout_seconds
        self._read_timeout_seconds = read_timeout_seconds
        self._make_tls_context = make_tls_context
        self._lock = threading.Lock()  # over the line below
        self._tls_context: ssl.SSLContext | None = None
        self._idle: dict[Origin, deque[_Connection]] = {}

    def exchange(self, origin: Origin, request: bytes) -> HttpAnswer:
        """Send a request, head and body, and return its answer.

        Raises what botocore raises for no connection, a time-out, a certificate that is not trusted, and an answer that
        is cut short, too large or no HTTP: a ``BotoCoreError`` each.
        """
        url = f"{origin.scheme}://{origin.netloc}/"
        connection = self._take(origin)
        try:
            if connection is not None:
                try:
                    return self._exchange_on(connection, origin, request)
                except _Unanswered:  # it was closed while it was idle, or as we wrote
                    pass
            return self._exchange_on(self._connect(origin, url), origin, request)
        except BotoCoreError:  # from ``_connect``; some of botocore's are an OSError as well
            raise
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=url, error=error) from error
        except ssl.SSLError as error:
            raise SSLError(endpoint_url=url, error=error) from error
        except OSError as error:
            raise ConnectionClosedError(endpoint_url=url, error=error) from error
        except http.client.HTTPException as error:
            raise HTTPClientError(error=error) from error

    def close(self) -> None:
        """Close the connections that are idle. Those in use are kept when they become idle; closing twice is fine."""
        for idle in list(self._idle.values()):
            while idle:
                try:
                    idle.pop().close()
                except IndexError:  # another thread took the last one
                    break

    def _take(self, origin: Origin) -> _Connection | None:
        idle = self._idle.get(origin)
        while idle:
            try:
                connection = idle.pop()  # the one used last: the others may grow old and be closed
            except IndexError:  # another thread was faster
                break
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def _exchange_on(self, connection: _Connection, origin: Origin, request: bytes) -> HttpAnswer:
        is_kept = False
        try:
            answer, may_follow = connection.exchange(request)
            idle = self._idle.get(origin) or self._idle.setdefault(origin, deque())
            is_kept = may_follow and len(idle) < self._max_idle
        finally:
            if not is_kept:
                connection.close()
        if is_kept:
            idle.append(connection)
        return answer

    def _connect(self, origin: Origin, url: str) -> _Connection:
        try:
            plain = socket.create_connection((origin.host, origin.port), self._connect_timeout_seconds)
        except TimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=url, error=error) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA does not allow
            raise EndpointConnectionError(endpoint_url=url, error=error) from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected = plain if origin.scheme == "http" else self._secure(plain, origin.host)
            connected.settimeout(self._read_timeout_seconds)
        except TimeoutError as error:
            plain.close()
            raise ConnectTimeoutError(endpoint_url=url, error=error) from error
        except BaseException:
            plain.close()
            raise
        return _Connection(connected)

    def _secure(self, plain: socket.socket, host: str) -> ssl.SSLSocket:
        with self._lock:
            if self._tls_context is None:
                self._tls_context = self._make_tls_context()
        return self._tls_context.wrap_socket(plain, server_hostname=host)


class _Unanswered(OSError):
    """The connection ended before the first byte of an answer."""


class _Connection:
    """A connection in the hands of one thread, or idle."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)

    def close(self) -> None:
        self._socket.close()

    def is_quiet(self) -> bool:
        """Tell whether the server has neither closed the connection nor said anything unasked."""
        unread_of_tls = self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0
        return not unread_of_tls and not self._poll.poll(0)

    def exchange(self, request: bytes) -> tuple[HttpAnswer, bool]:
        """Return the answer to a request, and whether another one may follow."""
        try:
            self._socket.sendall(request)
            beginning = self._socket.recv(CHUNK_BYTES)
        except (ConnectionError, ssl.SSLEOFError) as error:
            raise _Unanswered(*error.args) from error
        if not beginning:
            raise _Unanswered("closed without an answer")
        received = beginning
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > MAX_HEAD_BYTES:
                raise http.client.LineTooLong("headers")
            received += self._more(CHUNK_BYTES)
        status_line, *lines = received[:end].decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            if (name := name.lower()) in headers:
                return self._read_unusual(received)
            headers[name] = value.strip()
        version, _, rest = status_line.partition(" ")
        length = headers.get("content-length", "")
        status = rest[:3]
        is_plain = version == "HTTP/1.1" and _is_number(status) and status >= "200" and _is_number(length)
        if not is_plain or "transfer-encoding" in headers:
            return self._read_unusual(received)
        content = self._read(received[end + 4 :], int(length))
        is_kept = len(content) == int(length) and "close" not in headers.get("connection", "").lower()
        return HttpAnswer(int(status), headers, content[: int(length)]), is_kept

    def _read(self, content: bytes, length: int) -> bytes:
        """Return a body of ``length`` bytes of which there is the beginning, and whatever came after it unasked."""
        if length > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"an answer of {length} bytes; at most {MAX_ANSWER_BYTES} are read")
        missing = length - len(content)
        if missing <= 0:
            return content
        pieces = [content]
        while missing > 0:
            pieces.append(self._more(min(missing, CHUNK_BYTES)))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _more(self, most: int) -> bytes:
        more = self._socket.recv(most)
        if not more:
            raise http.client.HTTPException("closed in the middle of an answer")
        return more

    def _read_unusual(self, received: bytes) -> tuple[HttpAnswer, bool]:
        """Have ``http.client`` read an answer whose beginning has been received; the connection ends with it."""
        answer = http.client.HTTPResponse(_Replay(received, self._socket), method="POST")  # type: ignore[arg-type]
        answer.begin()
        content = answer.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        if answer.length:  # is still to come; unlike a whole read, one with a limit does not mind
            raise http.client.IncompleteRead(content, answer.length)
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return HttpAnswer(answer.status, headers, content), False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


class _Replay(io.RawIOBase):
    """What has been received of an answer, and then the socket: for ``http.client``, which asks a socket for a file."""

    def __init__(self, received: bytes, connected: socket.socket) -> None:
        self._received = memoryview(received)
        self._socket = connected

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._received:
            return self._socket.recv_into(buffer)
        count = min(len(buffer), len(self._received))
        buffer[:count] = self._received[:count]
        self._received = self._received[count:]
        return count
