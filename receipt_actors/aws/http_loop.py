"""``HttpLoop``: any number of exchanges over HTTP at once, on one thread, which epoll wakes (so it needs Linux).

It owns its connections, idle or not; what is promised of an answer, of a connection and of a second try is what
``http_pool`` promises, with the same limits, time-outs and errors. What would block is done on the threads of
``helpers``: a new connection is made there (name server, TLS handshake), and an answer in an unusual shape is read
there.

A connection that is idle is watched like the others, and looked at once more before it is used again (0.3 us): it is
closed when the server closes it, or speaks unasked. What a server says unasked after the next request is on its way is
taken for the answer, as anywhere in HTTP.
"""

from __future__ import annotations

import heapq
import http.client
import logging
import select
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import count
from math import inf
from typing import TypeAlias

from botocore.exceptions import BotoCoreError, HTTPClientError

from receipt_actors.aws.http_answer import CHUNK_BYTES, AnswerReader, HttpAnswer, Origin, read_unusual
from receipt_actors.aws.http_pool import HttpPool, Unanswered, trouble
from receipt_actors.aws.steps import Exchange

logger = logging.getLogger(__name__)

MAX_EVENTS = 1024  #: that one look brings; more than there are connections

Outcome: TypeAlias = HttpAnswer | BaseException


class HttpLoop:
    """See the module. Of one thread only.

    Args:
        wake_fd: what ends a ``look`` when it can be read. Reading it is the caller's affair.
        helper: runs a function on a thread that may block; what that returns is run on the loop's thread.
    """

    def __init__(self, wake_fd: int, helper: Callable[[Callable[[], Callable[[], None]]], None]) -> None:
        self._epoll = select.epoll()
        self._epoll.register(wake_fd, select.EPOLLIN)
        self._wake_fd = wake_fd
        self.fileno = self._epoll.fileno
        self._ready: list[tuple[int, int]] = []  # connections, and what has happened to them
        self._helper = helper
        self._connections: dict[int, _Connection] = {}  # by file descriptor
        self._idle: defaultdict[tuple[HttpPool, Origin], list[_Connection]] = defaultdict(list)
        self._elsewhere: set[_Transfer] = set()  # in the hands of helpers
        # When to look whether an answer takes too long; one entry a connection, until it is idle at that time.
        self._looks: list[tuple[float, int, _Connection]] = []
        self._look_numbers = count()

    def begin(self, exchange: Exchange, done: Callable[[Outcome], None]) -> None:
        """Send a request. ``done`` gets its answer, or what ``HttpPool.exchange`` raises; perhaps before this ends."""
        transfer = _Transfer(exchange, done)
        idle = self._idle[exchange.pool, exchange.origin]
        while idle:
            connection = idle[-1]  # the one used last: the others may grow old and be closed
            if connection.has_news:
                self._go_on(connection, select.EPOLLIN)  # closes it, unless the news are TLS's own affair
            if idle and idle[-1] is connection:
                idle.pop()
                self._send(connection, transfer)
                return
        self._connect(transfer)

    def due_at(self) -> float | None:
        """Return when ``go_on`` has to look whether an answer takes too long."""
        return self._looks[0][0] if self._looks else None

    def look(self, timeout_seconds: float | None) -> None:
        """Wait for something to happen, for so long at most."""
        self._ready = self._epoll.poll(timeout_seconds, MAX_EVENTS)

    def go_on(self) -> None:
        """See to what has happened."""
        busy = []
        for fd, events in self._ready:
            connection = self._connections.get(fd)
            if connection is None:  # it is the one that wakes
                continue
            if connection.transfer is None:  # closed, or spoken to: before one of the others is answered and takes it
                self._go_on(connection, events)
            else:
                busy.append((connection, events))
        for connection, events in busy:
            self._go_on(connection, events)
        if self._looks:
            self._look(time.monotonic())

    def end(self) -> None:
        """Close everything; nobody is told of what is under way."""
        for connection in self._connections.values():
            connection.socket.close()
        self._connections.clear()
        self._idle.clear()
        self._elsewhere.clear()
        self._epoll.close()

    # --- connections ---

    def _connect(self, transfer: _Transfer) -> None:
        self._elsewhere.add(transfer)
        pool, origin = transfer.exchange.pool, transfer.exchange.origin

        def connect() -> Callable[[], None]:
            try:
                connected = pool.connect(origin)
            except BotoCoreError as error:
                return partial(self._failed, transfer, error)
            return partial(self._connected, transfer, connected)

        self._ask_helper(transfer, connect)

    def _ask_helper(self, transfer: _Transfer, work: Callable[[], Callable[[], None]]) -> None:
        def careful() -> Callable[[], None]:
            try:
                return work()
            except BaseException as error:
                logger.exception("an exchange with %s is given up", transfer.exchange.origin.url)
                return partial(self._failed, transfer, error)

        try:
            self._helper(careful)
        except RuntimeError as error:  # out of threads
            self._failed(transfer, HTTPClientError(error=error))

    def _failed(self, transfer: _Transfer, error: BaseException) -> None:
        if self._is_back(transfer):
            transfer.done(error)

    def _is_back(self, transfer: _Transfer) -> bool:
        """Take a transfer back from a helper; False where it has been given up meanwhile."""
        is_wanted = transfer in self._elsewhere
        self._elsewhere.discard(transfer)
        return is_wanted

    def _connected(self, transfer: _Transfer, connected: socket.socket) -> None:
        if not self._is_back(transfer):
            connected.close()
            return
        connected.setblocking(False)
        connection = _Connection(connected, transfer.exchange.pool, transfer.exchange.origin)
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLIN)
        self._send(connection, transfer)

    def _forget(self, connection: _Connection) -> None:
        """Let go of a connection, idle or not, without closing it."""
        connection.give_up_at = inf
        del self._connections[connection.fd]
        self._epoll.unregister(connection.fd)
        idle = self._idle[connection.pool, connection.origin]
        if connection in idle:
            idle.remove(connection)

    def _close(self, connection: _Connection) -> None:
        self._forget(connection)
        connection.socket.close()

    # --- a request and its answer ---

    def _send(self, connection: _Connection, transfer: _Transfer) -> None:
        connection.begin(transfer, time.monotonic())
        if not connection.is_watched:
            connection.is_watched = True
            heapq.heappush(self._looks, (connection.give_up_at, next(self._look_numbers), connection))
        self._go_on(connection, 0)

    def _go_on(self, connection: _Connection, events: int) -> None:
        """Write what is to be written, read what is there."""
        try:
            if connection.unsent:
                self._want(connection, connection.write())
            is_over = events & ~select.EPOLLOUT and connection.read()
        except (OSError, http.client.HTTPException) as error:
            self._broken(connection, error)
            return
        if is_over:
            self._answered(connection)

    def _want(self, connection: _Connection, events: int) -> None:
        if connection.events != events:
            connection.events = events
            self._epoll.modify(connection.fd, events)

    def _answered(self, connection: _Connection) -> None:
        transfer, reader = connection.finish()
        if reader.is_unusual:
            self._forget(connection)
            self._read_unusual(transfer, reader.head, connection.socket)
            return
        idle = self._idle[connection.pool, connection.origin]
        if reader.may_follow and connection.is_quiet and len(idle) < connection.pool.max_idle:
            idle.append(connection)
        else:
            self._close(connection)
        transfer.done(reader.answer())

    def _read_unusual(self, transfer: _Transfer, received: bytes, connected: socket.socket) -> None:
        self._elsewhere.add(transfer)
        pool, origin = transfer.exchange.pool, transfer.exchange.origin

        def read() -> Callable[[], None]:
            outcome: Outcome
            try:
                with connected:
                    connected.settimeout(pool.read_timeout_seconds)
                    outcome = read_unusual(received, connected)
            except (OSError, http.client.HTTPException) as error:
                outcome = trouble(error, origin)
            return partial(self._unusual_read, transfer, outcome)

        self._ask_helper(transfer, read)

    def _unusual_read(self, transfer: _Transfer, outcome: Outcome) -> None:
        if self._is_back(transfer):
            transfer.done(outcome)

    def _broken(self, connection: _Connection, error: OSError | http.client.HTTPException) -> None:
        transfer = connection.transfer
        was_used, origin = connection.was_used, connection.origin
        self._close(connection)
        if transfer is None:  # it was idle
            return
        if isinstance(error, Unanswered) and was_used:
            self._connect(transfer)  # the second try is on a new connection, hence the last one
        else:
            transfer.done(trouble(error, origin))

    # --- time ---

    def _look(self, now: float) -> None:
        looks = self._looks
        while looks and looks[0][0] <= now:
            _, _, connection = heapq.heappop(looks)
            connection.is_watched = False
            if connection.give_up_at <= now:
                self._broken(connection, TimeoutError("timed out"))
            elif connection.give_up_at < inf:
                connection.is_watched = True
                heapq.heappush(looks, (connection.give_up_at, next(self._look_numbers), connection))


class _Transfer:
    """An exchange under way, and who wants to know."""

    __slots__ = ("done", "exchange")

    def __init__(self, exchange: Exchange, done: Callable[[Outcome], None]) -> None:
        self.exchange = exchange
        self.done = done


class _Connection:
    """A connection, idle where it has no transfer."""

    __slots__ = (
        "_is_tls",
        "_poll",
        "_reader",
        "events",
        "fd",
        "give_up_at",
        "is_watched",
        "origin",
        "pool",
        "socket",
        "transfer",
        "unsent",
        "was_used",
    )

    def __init__(self, connected: socket.socket, pool: HttpPool, origin: Origin) -> None:
        self.socket = connected
        self.fd = connected.fileno()
        self.pool = pool
        self.origin = origin
        self.events = select.EPOLLIN  #: that epoll waits for
        self.transfer: _Transfer | None = None
        self.unsent = memoryview(b"")  #: what of the request has not been taken by the system
        self.give_up_at = inf  #: monotonic; when the server has been silent for too long
        self.is_watched = False  #: whether somebody will look at that time
        self.was_used = False  #: whether it has brought an answer before
        self._is_tls = isinstance(connected, ssl.SSLSocket)
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)
        self._reader: AnswerReader | None = None  # from the first byte of an answer on

    def begin(self, transfer: _Transfer, now: float) -> None:
        """Take a request."""
        self.transfer = transfer
        self.unsent = memoryview(transfer.exchange.request)
        self.give_up_at = now + self.pool.read_timeout_seconds

    def finish(self) -> tuple[_Transfer, AnswerReader]:
        """Let go of a request that is answered."""
        transfer, reader = self.transfer, self._reader
        assert transfer is not None and reader is not None
        self.transfer = self._reader = None
        self.give_up_at = inf
        self.was_used = True
        return transfer, reader

    @property
    def is_quiet(self) -> bool:
        """Whether all has been written, and nothing is left to read of what has come."""
        return not self.unsent and not (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending())

    @property
    def has_news(self) -> bool:
        """Whether the server has closed it, or said something that nobody has read."""
        return bool(self._poll.poll(0))

    def write(self) -> int:
        """Write as much as goes now, and return what epoll is to wait for. Raises ``OSError``."""
        try:
            while self.unsent:
                sent = self.socket.send(self.unsent)
                self.unsent = self.unsent[sent:]
                self._hear()
        except ssl.SSLWantReadError:
            pass
        except (BlockingIOError, ssl.SSLWantWriteError):
            return select.EPOLLIN | select.EPOLLOUT
        except (ConnectionError, ssl.SSLEOFError) as error:
            raise Unanswered(*error.args) from error
        return select.EPOLLIN

    def read(self) -> bool:
        """Read what is there; True when the answer is over. Raises ``OSError`` and ``http.client.HTTPException``."""
        while True:
            try:
                received = self.socket.recv(CHUNK_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except (ConnectionError, ssl.SSLEOFError) as error:
                if self._reader is None:
                    raise Unanswered(*error.args) from error
                raise
            if self.transfer is None:
                raise ConnectionError("closed while it was idle, or spoken to unasked")
            if not received:
                if self._reader is None:
                    raise Unanswered("closed without an answer")
                raise http.client.HTTPException("closed in the middle of an answer")
            self._hear()
            if self._reader is None:
                self._reader = AnswerReader()
            if self._reader.take(received):
                return True
            if len(received) < CHUNK_BYTES and not self._is_tls:  # what TLS has read ahead, epoll does not see
                return False

    def _hear(self) -> None:
        self.give_up_at = time.monotonic() + self.pool.read_timeout_seconds
