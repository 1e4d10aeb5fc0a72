"""``HttpPool``: a request and its whole answer over a kept HTTP/1.1 connection, and nothing that costs more than that.

It owns the connections that are idle; it knows nothing of AWS but the names that botocore gives to trouble. It promises
a whole answer, of the length that was announced, or an exception; a connection is used again only after a whole answer,
and only where the server keeps it. Its thread waits for the answer; ``http_loop`` makes its connections here as well,
and waits for many.

**A server may close a connection that is idle** at the moment at which the next request is sent on it. Where a used
connection ends before the first byte of an answer, the request is therefore sent once more, on a new one. The server
may have carried it out: so only requests that are safe to repeat may come here. All of ours are (see ``domain.ports``):
deleting and setting a visibility twice changes nothing; a claim that was made is found and recognised as our own; a
message that was sent twice is the same submission; messages of a lost receive come back. A time-out is never followed
by a second try.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable

from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)

from receipt_actors.aws.http_answer import CHUNK_BYTES, AnswerReader, HttpAnswer, Origin, read_unusual


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
        self.max_idle = max_idle
        self._connect_timeout_seconds = connect_timeout_seconds
        self.read_timeout_seconds = read_timeout_seconds
        self._make_tls_context = make_tls_context
        self._lock = threading.Lock()  # over the line below
        self._tls_context: ssl.SSLContext | None = None
        self._idle: dict[Origin, deque[_Connection]] = {}

    def exchange(self, origin: Origin, request: bytes) -> HttpAnswer:
        """Send a request, head and body, and return its answer.

        Raises what botocore raises for no connection, a time-out, a certificate that is not trusted, and an answer that
        is cut short, too large or no HTTP: a ``BotoCoreError`` each.
        """
        connection = self._take(origin)
        try:
            if connection is not None:
                try:
                    return self._exchange_on(connection, origin, request)
                except Unanswered:  # it was closed while it was idle, or as we wrote
                    pass
            return self._exchange_on(_Connection(self.connect(origin)), origin, request)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, BotoCoreError):  # from ``connect``; some of botocore's are an OSError as well
                raise
            raise trouble(error, origin) from error

    def connect(self, origin: Origin) -> socket.socket:
        """Make a new connection, which blocks. Raises a ``BotoCoreError`` as ``exchange`` does."""
        try:
            plain = socket.create_connection((origin.host, origin.port), self._connect_timeout_seconds)
        except TimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=origin.url, error=error) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA does not allow
            raise EndpointConnectionError(endpoint_url=origin.url, error=error) from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected = plain if origin.scheme == "http" else self._secure(plain, origin.host)
            connected.settimeout(self.read_timeout_seconds)
        except TimeoutError as error:
            plain.close()
            raise ConnectTimeoutError(endpoint_url=origin.url, error=error) from error
        except OSError as error:
            plain.close()
            raise trouble(error, origin) from error
        except BaseException:
            plain.close()
            raise
        return connected

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
            is_kept = may_follow and len(idle) < self.max_idle
        finally:
            if not is_kept:
                connection.close()
        if is_kept:
            idle.append(connection)
        return answer

    def _secure(self, plain: socket.socket, host: str) -> ssl.SSLSocket:
        with self._lock:
            if self._tls_context is None:
                self._tls_context = self._make_tls_context()
        try:
            return self._tls_context.wrap_socket(plain, server_hostname=host)
        except ssl.SSLError:  # of which a certificate that is not trusted is a ValueError, too
            raise
        except ValueError as error:  # a host name that TLS does not allow
            raise EndpointConnectionError(endpoint_url=host, error=error) from error


class Unanswered(OSError):
    """The connection ended before the first byte of an answer."""


def trouble(error: OSError | http.client.HTTPException, origin: Origin) -> BotoCoreError:
    """Return what botocore would call trouble with a connection."""
    match error:
        case TimeoutError():
            return ReadTimeoutError(endpoint_url=origin.url, error=error)
        case ssl.SSLError():
            return SSLError(endpoint_url=origin.url, error=error)
        case OSError():
            return ConnectionClosedError(endpoint_url=origin.url, error=error)
        case _:
            return HTTPClientError(error=error)


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
            received = self._socket.recv(CHUNK_BYTES)
        except (ConnectionError, ssl.SSLEOFError) as error:
            raise Unanswered(*error.args) from error
        if not received:
            raise Unanswered("closed without an answer")
        reader = AnswerReader()
        while not reader.take(received):
            received = self._socket.recv(CHUNK_BYTES)
            if not received:
                raise http.client.HTTPException("closed in the middle of an answer")
        if reader.is_unusual:
            return read_unusual(reader.head, self._socket), False
        return reader.answer(), reader.may_follow
