"""``CurlTransport``: any number of requests at once by libcurl's multi interface, and no thread that waits for each.

It takes requests from any thread and makes them in one place (see ``loop``). There, ``_Multi`` owns everything of
libcurl. libcurl says which sockets and which time to wait for, epoll waits.

**A server may close an idle connection** just when the next request is sent on it. If a used connection ends before the
first byte of a response, libcurl sends the request once more on a new one, so the server may get it twice. Only
requests that are safe to repeat may be sent here; all of ours are. A time-out is never followed by a second request.

A transfer takes few steps between Python and libcurl, because each may cost a wait for the interpreter's lock: there is
no callback for progress or for the moment at which a request is sent, and the transport looks for a slow response only
when its time may be over.
"""

from __future__ import annotations

import heapq
import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import pycurl

from receipt_actors.transport.loop import NetworkLoop, Running
from receipt_actors.transport.messages import (
    MEMORY_FULL,
    HttpRequest,
    HttpResponse,
    Outcome,
    RequestFailed,
    ResponseSize,
    Server,
    tell,
)

logger = logging.getLogger(__name__)

MAX_CONNECTING = 32  #: new connections to a server that are being made at once; further requests wait a little

T = TypeVar("T")
Done: TypeAlias = Callable[[Outcome], object]

_HTTP_OK = 200
_UPLOAD_BUFFER_BYTES = 16 * 1024  #: as little as libcurl takes: each transfer has one, and 64 KiB by default
_CONNECTION_ENDED = frozenset({pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING})
_CLOSED = RequestFailed("the client is closed", was_sent=False)


class CurlTransport(NetworkLoop["_Call"]):
    """See the module.

    ``max_idle_connections`` is how many connections are kept. As many transfers may be under way as the caller likes:
    over HTTP/1.1 each on a connection of its own, over HTTP/2 many on one.
    """

    blocks = False

    def __init__(self, max_idle_connections: int) -> None:
        super().__init__()
        self._max_idle_connections = max_idle_connections

    def begin(self, request: HttpRequest, done: Done) -> None:
        """Begin a request, and return at once.

        ``done`` is called on the scheduler, or here if the transport is closed. It must be quick. Errors are logged.
        """
        if not self.submit(_Call(request, done)):
            tell(done, _CLOSED)

    def _open(self) -> _Multi:
        return _Multi(self._max_idle_connections)

    def _end(self, running: Running[_Call] | None, left: deque[_Call], crash: BaseException | None) -> None:
        outcome: Outcome = _CLOSED
        if crash is not None:
            logger.error("all requests under way are given up; the next one begins anew", exc_info=crash)
            if isinstance(crash, OSError):  # out of descriptors, say: no bug
                outcome = _lacking(crash)
            else:
                outcome = crash if isinstance(crash, Exception) else RuntimeError(repr(crash))
        if isinstance(running, _Multi):
            running.end(outcome)
        for call in left:
            tell(call.done, outcome)


def _lacking(error: Exception) -> RequestFailed:
    return RequestFailed(f"this machine lacks something: {error}", was_sent=False)


def _made(make: Callable[[], T]) -> T:
    try:
        return make()
    except pycurl.error as error:
        raise OSError(str(error)) from error


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    request: HttpRequest
    done: Done


class _Transfer:
    """A handle of libcurl, which makes one request after the other, and what has arrived of the present response."""

    def __init__(self, server: Server, share: pycurl.CurlShare) -> None:
        self.server = server
        self.call: _Call | None = None
        self.number = 0  #: of the request, among all
        self.begun_at = 0.0  #: monotonic
        self.connects_anew = False
        self._url: str | None = None  # as the handle has it
        self._headers: object = None  # likewise
        self._header_lines: list[bytes] = []
        self._body: list[bytes] = []
        self._size = ResponseSize(server.shares_memory)
        self._is_memory_full = False
        self.handle = _made(pycurl.Curl)
        self._set_up(share)

    def _set_up(self, share: pycurl.CurlShare) -> None:
        set_option, server = self.handle.setopt, self.server
        set_option(pycurl.ACCEPT_ENCODING, server.accept_encoding)
        set_option(pycurl.HEADERFUNCTION, self._header_lines.append)
        set_option(pycurl.WRITEFUNCTION, self._write)
        set_option(pycurl.NOSIGNAL, 1)
        set_option(pycurl.UPLOAD_BUFFERSIZE, _UPLOAD_BUFFER_BYTES)
        set_option(pycurl.FOLLOWLOCATION, 0)
        set_option(pycurl.HTTP09_ALLOWED, 0)
        set_option(pycurl.SHARE, share)
        if server.may_use_http2:
            # Transfers that begin while the first connection is being made wait to see whether it can be shared.
            set_option(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
            set_option(pycurl.PIPEWAIT, 1)
        else:
            set_option(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        # The second is a safety net: ``_Multi`` counts the time of the response alone.
        connect_ms = max(1, round(1000 * server.connect_timeout_seconds))
        set_option(pycurl.CONNECTTIMEOUT_MS, connect_ms)
        set_option(pycurl.TIMEOUT_MS, connect_ms + max(1, round(1000 * server.read_timeout_seconds)))
        set_option(pycurl.PROXY, "")  # else libcurl looks for one in the environment
        set_option(pycurl.SSL_VERIFYPEER, 1)
        set_option(pycurl.SSL_VERIFYHOST, 2)
        set_option(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        # libcurl has built-in authorities, which must not count beside the server's.
        meant, other = pycurl.CAINFO, pycurl.CAPATH
        if os.path.isdir(server.ca_bundle):
            meant, other = other, meant
        set_option(meant, server.ca_bundle)
        self.handle.unsetopt(other)

    def take(self, call: _Call, number: int, now: float) -> None:
        self.call = call
        self.number = number
        self.begun_at = now
        request = call.request
        if request.url != self._url:
            self._url = request.url
            self.handle.setopt(pycurl.URL, request.url)
        if request.headers is not self._headers:
            self._headers = request.headers
            self.handle.setopt(pycurl.HTTPHEADER, [*request.headers, "Expect:"])  # no body waits for permission
        if request.body is not None:
            self.handle.setopt(pycurl.POSTFIELDS, request.body)
        if self.connects_anew:
            self.connects_anew = False
            self.handle.setopt(pycurl.FRESH_CONNECT, 0)

    def may_connect_anew(self, code: int) -> bool:
        """Prepare to make the request again if an idle connection had ended; return False for another failure.

        libcurl does so by itself, but takes a new connection only after several idle ones.
        """
        was_idle = code in _CONNECTION_ENDED and not self._header_lines and not self.handle.getinfo(pycurl.NUM_CONNECTS)
        if not was_idle or self.connects_anew:
            return False
        self.connects_anew = True
        self.handle.setopt(pycurl.FRESH_CONNECT, 1)
        return True

    def reset(self) -> None:
        self.call = None
        self._header_lines.clear()
        self._body.clear()
        self._size.reset()
        self._is_memory_full = False

    def _write(self, data: bytes) -> int | None:
        if not self._size.grow(len(data)):
            self._is_memory_full = True
            return 0  # less than what came, which ends the transfer
        self._body.append(data)
        return 0 if self._size.bytes > self.server.max_response_bytes else None

    @property
    def sent_at(self) -> float | None:
        """When the request was sent, monotonic; None while there is no connection."""
        seconds: float = self.handle.getinfo(pycurl.PRETRANSFER_TIME)
        return self.begun_at + seconds if seconds else None

    @property
    def is_connecting(self) -> bool:
        return self.call is not None and self.sent_at is None

    def outcome(self, code: int, words: str) -> HttpResponse | RequestFailed:
        status = self.handle.getinfo(pycurl.RESPONSE_CODE)
        # libcurl takes an end in the middle of the headers for the end of the response.
        is_whole = code == pycurl.E_OK and (b"\r\n" in self._header_lines or b"\n" in self._header_lines)
        # A status but 200 says enough, though its page broke off.
        if is_whole or status not in (0, _HTTP_OK) or self._size.bytes > self.server.max_response_bytes:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body.clear()  # not kept twice while it is parsed
            return HttpResponse(status, tuple(self._header_lines), body, is_whole)
        return RequestFailed(self._cause(code, words), was_sent=bool(self.handle.getinfo(pycurl.REQUEST_SIZE)))

    def _cause(self, code: int, words: str) -> str:
        if self._is_memory_full:
            return MEMORY_FULL
        match code:
            case pycurl.E_OPERATION_TIMEDOUT if not self.handle.getinfo(pycurl.REQUEST_SIZE):
                return f"no connection within {self.server.connect_timeout_seconds:g} s"
            case pycurl.E_OPERATION_TIMEDOUT:
                return f"not complete within {self.server.read_timeout_seconds:g} s"
            case pycurl.E_PEER_FAILED_VERIFICATION:
                return f"certificate verify failed: {words}"
            case pycurl.E_COULDNT_CONNECT:
                return f"{words}: {os.strerror(self.handle.getinfo(pycurl.OS_ERRNO))}"
        return words or f"libcurl's error {code}, after {len(self._header_lines)} lines of the response"


@dataclass(slots=True)
class _ServerState:
    """The requests to one server, and the free handles."""

    idle: list[_Transfer] = field(default_factory=list)
    waiting: deque[tuple[float, _Call]] = field(default_factory=deque)  #: since when, monotonic
    connecting: list[_Transfer] = field(default_factory=list)  #: begun, and not sent at the last look
    freed: int = 0  #: connections whose responses have come since something began to wait


class _Multi:
    """All transfers and all of libcurl's (see ``Running``)."""

    def __init__(self, max_idle_connections: int) -> None:
        self._epoll = select.epoll()
        self.fileno = self._epoll.fileno
        self._sockets: set[int] = set()  # that libcurl waits for
        self._idle_sockets: set[int] = set()  # of idle connections, and some that libcurl has closed meanwhile
        self._act_at: float | None = None  # monotonic; when libcurl wants to be called without a socket
        self._servers: dict[Server, _ServerState] = {}
        self._under_way: dict[pycurl.Curl, _Transfer] = {}
        self._begun = 0
        # When to look whether a response takes too long, and whose; the oldest first, and those that are over stay in.
        self._looks: list[tuple[float, int, _Transfer]] = []
        self._share = _made(pycurl.CurlShare)
        self._share.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_SSL_SESSION)
        self._multi = _made(pycurl.CurlMulti)
        self._multi.setopt(pycurl.M_MAXCONNECTS, max_idle_connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    # --- what libcurl asks for ---

    def _watch(self, what: int, fd: int, _multi: object, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._sockets.discard(fd)
            with suppress(OSError):  # closed already: then epoll has forgotten it
                self._epoll.unregister(fd)
            return
        events = (select.EPOLLIN if what & pycurl.POLL_IN else 0) | (select.EPOLLOUT if what & pycurl.POLL_OUT else 0)
        self._idle_sockets.discard(fd)
        self._sockets.add(fd)
        try:
            self._epoll.modify(fd, events)
        except FileNotFoundError:
            self._epoll.register(fd, events)

    def _set_timer(self, timeout_ms: int) -> None:
        self._act_at = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    # --- idle connections ---

    # Within a second of its last use, libcurl uses a connection again without a look at it. What the server has sent
    # unasked meanwhile would count as the response to the next request, and could confirm a claim. So idle connections
    # of HTTP/1.1 are watched here.

    def _watch_idle(self, fd: int) -> None:
        if fd >= 0 and fd not in self._sockets:
            with suppress(OSError):
                self._epoll.register(fd, select.EPOLLIN)
                self._idle_sockets.add(fd)

    def _drop_if_idle(self, fd: int) -> bool:
        """Drop an idle connection that can be read: libcurl finds no socket there, and connects anew.

        Only between calls of libcurl: epoll's event shows that the descriptor still is the connection's.
        """
        if fd not in self._idle_sockets:
            return False
        self._idle_sockets.discard(fd)
        os.dup2(self._epoll.fileno(), fd, inheritable=False)  # some descriptor that is no socket's
        return True

    # --- a turn ---

    def due_at(self) -> float | None:
        due_at = self._act_at
        if self._looks and (due_at is None or self._looks[0][0] < due_at):
            due_at = self._looks[0][0]
        return due_at

    def go_on(self, work: deque[_Call]) -> None:
        ready = [(fd, events) for fd, events in self._epoll.poll(0) if not self._drop_if_idle(fd)]
        for fd, events in ready:
            self._multi.socket_action(fd, _as_libcurl_says(events))
        now = time.monotonic()
        while work:
            call = work.popleft()
            self._state_of(call.request.server).waiting.append((now, call))
        if self._act_at is not None and self._act_at <= now:
            self._act()
        self._collect()
        while self._begin_what_may(now):
            for fd, _ in self._epoll.poll(0) if self._idle_sockets else ():
                self._drop_if_idle(fd)
            self._act()
            self._collect()
        self._look_for_late_ones(now)

    def _state_of(self, server: Server) -> _ServerState:
        state = self._servers.get(server)
        if state is None:
            state = self._servers[server] = _ServerState()
        return state

    def _act(self) -> None:
        self._act_at = None
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _begin_what_may(self, now: float) -> bool:
        """Begin requests that find a connection, and as many others as may connect; return False if there are none.

        Thousands of handshakes at once would take so long that the first ones are given up. And many connections are
        not needed: by the time they are there, a response has freed another.
        """
        return any([self._begin_some(server, state, now) for server, state in self._servers.items() if state.waiting])

    def _begin_some(self, server: Server, state: _ServerState, now: float) -> bool:
        waiting = state.waiting
        while waiting and waiting[0][0] + server.read_timeout_seconds < now:
            _, call = waiting.popleft()
            cause = f"no connection within {server.read_timeout_seconds:g} s, nor for those before it"
            tell(call.done, RequestFailed(cause, was_sent=False))
        state.connecting = [transfer for transfer in state.connecting if transfer.is_connecting]
        count = min(len(waiting), max(MAX_CONNECTING - len(state.connecting), state.freed))
        for _ in range(count):
            transfer = state.idle.pop() if state.idle else _Transfer(server, self._share)
            _, call = waiting.popleft()
            state.connecting.append(transfer)
            self._begin(transfer, call, now)
        state.freed = max(0, state.freed - count) if waiting else 0
        return count > 0

    def _begin(self, transfer: _Transfer, call: _Call, now: float) -> None:
        self._begun += 1
        transfer.take(call, self._begun, now)
        self._under_way[transfer.handle] = transfer
        self._multi.add_handle(transfer.handle)
        heapq.heappush(self._looks, (now + transfer.server.read_timeout_seconds, transfer.number, transfer))

    def _collect(self) -> None:
        remaining = 1
        while remaining:
            remaining, complete, failed = self._multi.info_read()
            for handle in complete:
                self._finish(handle, pycurl.E_OK, "")
            for handle, code, words in failed:
                self._finish(handle, code, words)

    def _finish(self, handle: pycurl.Curl, code: int, words: str) -> None:
        transfer = self._under_way[handle]
        if transfer.may_connect_anew(code):
            self._multi.remove_handle(handle)
            self._multi.add_handle(handle)
            return
        del self._under_way[handle]
        if not transfer.server.may_use_http2:
            self._watch_idle(handle.getinfo(pycurl.ACTIVESOCKET))
        self._multi.remove_handle(handle)
        state = self._servers[transfer.server]
        if code == pycurl.E_OK and state.waiting:
            state.freed += 1
        assert transfer.call is not None
        tell(transfer.call.done, transfer.outcome(code, words))
        transfer.reset()
        state.idle.append(transfer)

    def _look_for_late_ones(self, now: float) -> None:
        looks = self._looks
        while looks:
            look_at, number, transfer = looks[0]
            if transfer.call is None or transfer.number != number:  # long over
                heapq.heappop(looks)
                continue
            if look_at > now:
                return
            sent_at = transfer.sent_at
            late_at = (now if sent_at is None else sent_at) + transfer.server.read_timeout_seconds
            if late_at > now:
                heapq.heapreplace(looks, (late_at, number, transfer))
            else:
                heapq.heappop(looks)
                self._finish(transfer.handle, pycurl.E_OPERATION_TIMEDOUT, "")

    def end(self, outcome: Outcome) -> None:
        """Give up everything; ``outcome`` is that of all requests."""
        transfers = list(self._under_way.values())
        self._under_way.clear()
        calls = [transfer.call for transfer in transfers if transfer.call is not None]
        for state in self._servers.values():
            calls += [call for _, call in state.waiting]
        for call in calls:
            tell(call.done, outcome)
        for transfer in transfers:
            transfer.reset()
            self._multi.remove_handle(transfer.handle)
        for transfer in (*transfers, *(each for state in self._servers.values() for each in state.idle)):
            transfer.handle.close()
        self._multi.close()
        self._share.close()
        self._epoll.close()


def _as_libcurl_says(events: int) -> int:
    return (
        (pycurl.CSELECT_IN if events & select.EPOLLIN else 0)
        | (pycurl.CSELECT_OUT if events & select.EPOLLOUT else 0)
        | (pycurl.CSELECT_ERR if events & (select.EPOLLERR | select.EPOLLHUP) else 0)
    )
