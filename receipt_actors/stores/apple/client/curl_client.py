"""verifyReceipt by way of libcurl's multi interface: any number of transfers at once, on one thread.

``CurlVerifyReceiptClient`` takes questions from any thread and hands them to one place (see ``network_loop``). There an
``_Exchange`` owns everything of libcurl: connections, TLS sessions, and handles that are used again and again. libcurl
says which sockets and which time to wait for, epoll waits (so this needs Linux).

A transfer costs few steps between Python and libcurl, because each may cost a wait for the interpreter's lock: no
callback for headers, for progress or for the moment at which a request is sent; a slow answer is looked for only when
its time may be over.
"""

from __future__ import annotations

import heapq
import logging
import os
import queue
import select
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

import pycurl

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.network_loop import Exchanges, NetworkLoop
from receipt_actors.stores.apple.client.answer_room import NO_ROOM, Place
from receipt_actors.stores.apple.client.answers import (
    MAX_ANSWER_BYTES,
    MAX_RETRY_AFTER_SECONDS,
    no_answer,
    read_answer,
)
from receipt_actors.stores.apple.client.endpoints import HEADERS, Endpoint, Questions, endpoints_at

logger = logging.getLogger(__name__)

MAX_CONNECTING = 32  #: new connections that are being made at once; what else is asked meanwhile waits a little

T = TypeVar("T")
Outcome: TypeAlias = Mapping[str, object] | Exception
Done: TypeAlias = Callable[[Outcome], object]

_HTTP_OK = 200
_UPLOAD_BUFFER_BYTES = 16 * 1024  #: as little as libcurl takes: each transfer has one, and 64 KiB by default


class CurlVerifyReceiptClient(NetworkLoop["_Question"]):
    """The ports ``AppStore`` and ``AppStoreTransfers`` on pycurl.

    ``connect_timeout_seconds`` bounds the look-up of the host, the connection and the TLS handshake together;
    ``read_timeout_seconds`` bounds the whole answer, from the moment at which the request is sent. ``max_connections``
    is how many connections are kept alive; as many transfers may be under way as the caller likes, over HTTP/1.1 each
    on a connection of its own, over HTTP/2 (where a server offers it) many on one. Raises ``ConfigurationError`` for
    URLs that are no HTTP URLs, and for a proxy or a CA bundle of the process environment that can't be used.
    """

    def __init__(
        self,
        production_url: str,
        sandbox_url: str,
        shared_secret: str | None,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        max_connections: int,
    ) -> None:
        super().__init__("app_store-transfers")
        self._questions = Questions(shared_secret)
        self._options = _Options(
            endpoints_at(production_url, sandbox_url), connect_timeout_seconds, read_timeout_seconds, max_connections
        )

    # --- the ports ---

    def begin(
        self, receipt_data: str, environment: Environment, done: Done, *, shared_secret: str | None = None
    ) -> None:
        """See ``AppStoreTransfers``: ``done`` is called in the client's place, or here where that can't be.

        It is closed then; or it does not run yet, and can't, for want of descriptors or threads.
        """
        body = self._questions.body(receipt_data, shared_secret)
        question = _Question(environment, body, self._questions.secrets(receipt_data, shared_secret), done)
        try:
            if not self.submit(question):
                done(_closed(environment))
        except (OSError, RuntimeError) as error:
            done(_lacking(error, environment))

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        """See ``AppStore``. Not in the client's own place: a ``done`` that calls this would wait for ever."""
        outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.begin(receipt_data, environment, outcomes.put, shared_secret=shared_secret)
        outcome = outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    # --- the exchange ---

    def _open(self, wake_fd: int) -> _Exchange:
        return _Exchange(self._options, wake_fd)

    def _end(self, exchanges: Exchanges[_Question], left: deque[_Question], crash: BaseException | None) -> None:
        assert isinstance(exchanges, _Exchange)
        outcome: Callable[[Environment], Outcome] = _closed
        if crash is not None:
            logger.error("all transfers to the App Store are given up; the next question begins anew", exc_info=crash)
            outcome = partial(_crashed, crash)
        exchanges.end(outcome)
        for question in left:
            _tell(question, outcome(question.environment))


def _closed(environment: Environment) -> AppStoreUnavailable:
    return AppStoreUnavailable(f"{environment} App Store is not asked: the client is closed")


def _lacking(error: Exception, environment: Environment) -> AppStoreUnavailable:
    told = f"{environment} App Store can't be asked: this machine lacks something: {error}"
    return AppStoreUnavailable(told, was_sent=False)


def _made(make: Callable[[], T]) -> T:
    """Have libcurl make one; what it lacks for that is memory or descriptors."""
    try:
        return make()
    except pycurl.error as error:
        raise OSError(str(error)) from error


def _crashed(error: BaseException, environment: Environment) -> Exception:
    if isinstance(error, OSError):  # out of descriptors, say: no bug
        return _lacking(error, environment)
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


@dataclass(frozen=True, slots=True)
class _Options:
    """What is the same for all transfers."""

    endpoints: Mapping[Environment, Endpoint]
    connect_timeout_seconds: float
    read_timeout_seconds: float
    max_connections: int


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """A request to be made, and who wants to know."""

    environment: Environment
    body: bytes
    secrets: list[str]
    done: Done


def _tell(question: _Question, outcome: Outcome) -> None:
    try:
        question.done(outcome)
    except BaseException:  # the thread is there for others' answers as well
        logger.exception("whoever asked the App Store could not take the answer")


class _Transfer:
    """A handle of libcurl, which does one question after the other, and what has come of the present one's answer."""

    __slots__ = (
        "_chunks",
        "_found_no_room",
        "_options",
        "_place",
        "begun_at",
        "environment",
        "handle",
        "number",
        "question",
    )

    def __init__(self, environment: Environment, options: _Options, share: pycurl.CurlShare) -> None:
        self.environment = environment
        self.question: _Question | None = None
        self.number = 0  #: of the question, among all of the exchange
        self.begun_at = 0.0  #: monotonic
        self._options = options
        self._chunks: list[bytes] = []
        self._place = Place()
        self._found_no_room = False
        self.handle = _made(pycurl.Curl)
        self._set_up(options.endpoints[environment], share)

    def _set_up(self, endpoint: Endpoint, share: pycurl.CurlShare) -> None:
        set_option = self.handle.setopt
        set_option(pycurl.URL, endpoint.url)
        set_option(pycurl.POST, 1)
        headers = [f"{name}: {value}" for name, value in HEADERS.items() if name != "Accept-Encoding"]
        set_option(pycurl.HTTPHEADER, [*headers, "Expect:"])  # no request waits for leave to send its body
        set_option(pycurl.ACCEPT_ENCODING, HEADERS["Accept-Encoding"])
        set_option(pycurl.WRITEFUNCTION, self._write)
        set_option(pycurl.NOSIGNAL, 1)
        set_option(pycurl.UPLOAD_BUFFERSIZE, _UPLOAD_BUFFER_BYTES)
        set_option(pycurl.FOLLOWLOCATION, 0)
        set_option(pycurl.HTTP09_ALLOWED, 0)
        set_option(pycurl.SHARE, share)
        # The transfers that come while the first connection is being made wait to see whether it can be shared.
        set_option(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        set_option(pycurl.PIPEWAIT, 1)
        # The second is a safety net: the exchange counts the time of the answer alone.
        connect_ms = max(1, round(1000 * self._options.connect_timeout_seconds))
        set_option(pycurl.CONNECTTIMEOUT_MS, connect_ms)
        set_option(pycurl.TIMEOUT_MS, connect_ms + max(1, round(1000 * self._options.read_timeout_seconds)))
        # Only what requests has read of the environment counts: an empty string keeps libcurl from looking there.
        set_option(pycurl.PROXY, endpoint.proxy or "")
        set_option(pycurl.NOPROXY, "")
        is_folder = os.path.isdir(endpoint.ca_bundle)
        for verify_peer, verify_host, version, authorities, folder in (
            (pycurl.SSL_VERIFYPEER, pycurl.SSL_VERIFYHOST, pycurl.SSLVERSION, pycurl.CAINFO, pycurl.CAPATH),
            (
                pycurl.PROXY_SSL_VERIFYPEER,
                pycurl.PROXY_SSL_VERIFYHOST,
                pycurl.PROXY_SSLVERSION,
                pycurl.PROXY_CAINFO,
                pycurl.PROXY_CAPATH,
            ),
        ):
            set_option(verify_peer, 1)
            set_option(verify_host, 2)
            set_option(version, pycurl.SSLVERSION_TLSv1_2)
            # libcurl was built with authorities of its own, which don't count beside ours.
            for option, is_meant in ((authorities, not is_folder), (folder, is_folder)):
                if is_meant:
                    set_option(option, endpoint.ca_bundle)
                else:
                    self.handle.unsetopt(option)

    def take(self, question: _Question, number: int, now: float) -> None:
        """Get ready to ask."""
        self.question = question
        self.number = number
        self.begun_at = now
        self.handle.setopt(pycurl.POSTFIELDS, question.body)

    def let_go(self) -> _Question:
        """Forget the question and its answer."""
        question, self.question = self.question, None
        assert question is not None
        self._chunks.clear()
        self._place.leave()
        self._found_no_room = False
        return question

    def _write(self, data: bytes) -> int | None:
        if not self._place.grow(len(data)):
            self._found_no_room = True
            return 0  # written less than came, which ends the transfer
        self._chunks.append(data)
        return 0 if self._place.size_bytes > MAX_ANSWER_BYTES else None

    @property
    def sent_at(self) -> float | None:
        """When the request was sent, monotonic; None while there is no connection yet."""
        seconds: float = self.handle.getinfo(pycurl.PRETRANSFER_TIME)
        return self.begun_at + seconds if seconds else None

    @property
    def is_connecting(self) -> bool:
        """Whether its request has not been sent yet."""
        return self.question is not None and self.sent_at is None

    def outcome(self, code: int, words: str) -> Outcome:
        """Read what libcurl's result, and what it has received, come to."""
        assert self.question is not None
        environment, secrets = self.question.environment, self.question.secrets
        status = self.handle.getinfo(pycurl.RESPONSE_CODE)
        is_whole = code == pycurl.E_OK or self._place.size_bytes > MAX_ANSWER_BYTES
        if not is_whole and status in (0, _HTTP_OK):  # any other says enough, though its page broke off
            was_sent = bool(self.handle.getinfo(pycurl.REQUEST_SIZE))
            return no_answer(environment, self._cause(code, words), secrets, was_sent=was_sent)
        # libcurl reads seconds and dates; 0 stands for neither as well.
        retry_after = min(float(self.handle.getinfo(pycurl.RETRY_AFTER)), MAX_RETRY_AFTER_SECONDS) or None
        return read_answer(environment, status, b"".join(self._chunks), retry_after, secrets)

    def _cause(self, code: int, words: str) -> str:
        if self._found_no_room:
            return NO_ROOM
        match code:
            case pycurl.E_OPERATION_TIMEDOUT if not self.handle.getinfo(pycurl.REQUEST_SIZE):
                return f"no connection within {self._options.connect_timeout_seconds:g} s"
            case pycurl.E_OPERATION_TIMEDOUT:
                return f"not complete within {self._options.read_timeout_seconds:g} s"
            case pycurl.E_PEER_FAILED_VERIFICATION:
                return f"certificate verify failed: {words}"
            case pycurl.E_COULDNT_CONNECT:
                return f"{words}: {os.strerror(self.handle.getinfo(pycurl.OS_ERRNO))}"
        return words or f"libcurl's error {code}"


class _Exchange:
    """All transfers, and all that libcurl has of them: ``Exchanges``."""

    def __init__(self, options: _Options, wake_fd: int) -> None:
        self._options = options
        self._epoll = select.epoll()
        self._epoll.register(wake_fd, select.EPOLLIN)
        self.fileno = self._epoll.fileno
        self._wake_fd = wake_fd
        self._ready: list[tuple[int, int]] = []  # sockets, and what has happened to them
        self._sockets: set[int] = set()  # that epoll knows
        self._act_at: float | None = None  # monotonic; when libcurl wants to be called without a socket
        self._idle: dict[Environment, list[_Transfer]] = {environment: [] for environment in Environment}
        self._under_way: dict[pycurl.Curl, _Transfer] = {}
        self._begun = 0
        self._waiting: deque[tuple[float, _Question]] = deque()  # since when, monotonic; for a connection to be free
        self._connecting: list[_Transfer] = []  # begun, and not sent when that was looked at last
        self._freed = 0  # connections whose answers have come since something began to wait
        # When to look whether an answer takes too long, and whose; the oldest first, and those that are over stay in.
        self._looks: list[tuple[float, int, _Transfer]] = []
        self._share = _made(pycurl.CurlShare)
        self._share.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_SSL_SESSION)
        self._multi = _made(pycurl.CurlMulti)
        self._multi.setopt(pycurl.M_MAXCONNECTS, options.max_connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    # --- what libcurl asks for ---

    def _watch(self, what: int, socket: int, _multi: object, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._sockets.discard(socket)
            with suppress(OSError):  # closed already: then epoll has forgotten it
                self._epoll.unregister(socket)
            return
        events = (select.EPOLLIN if what & pycurl.POLL_IN else 0) | (select.EPOLLOUT if what & pycurl.POLL_OUT else 0)
        if socket in self._sockets:
            self._epoll.modify(socket, events)
        else:
            self._epoll.register(socket, events)
            self._sockets.add(socket)

    def _set_timer(self, timeout_ms: int) -> None:
        self._act_at = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    # --- a turn ---

    def due_at(self) -> float | None:
        """See ``Exchanges``."""
        due_at = self._act_at
        if self._looks and (due_at is None or self._looks[0][0] < due_at):
            due_at = self._looks[0][0]
        return due_at

    def look(self, timeout_seconds: float | None) -> None:
        """See ``Exchanges``."""
        self._ready = self._epoll.poll(timeout_seconds)

    def go_on(self, work: deque[_Question]) -> None:
        """See ``Exchanges``."""
        for socket, events in self._ready:
            if socket != self._wake_fd:
                self._multi.socket_action(socket, _as_libcurl_says(events))
        now = time.monotonic()
        while work:
            self._waiting.append((now, work.popleft()))
        if self._act_at is not None and self._act_at <= now:
            self._act()
        self._collect()
        while self._begin_what_may(now):
            self._collect()
        self._look_for_late_ones(now)

    def _act(self) -> None:
        self._act_at = None
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _begin_what_may(self, now: float) -> bool:
        """Begin what finds a connection at once, and of the others as many as may connect; False where nothing may.

        Thousands of handshakes at once would take so long that the first of them are given up. And many a connection
        is not needed at all: by the time it would be there, an answer has freed another.
        """
        while self._waiting and self._waiting[0][0] + self._options.read_timeout_seconds < now:
            _, question = self._waiting.popleft()
            cause = f"no connection within {self._options.read_timeout_seconds:g} s, nor for those before it"
            _tell(question, no_answer(question.environment, cause, question.secrets, was_sent=False))
        if not self._waiting:
            self._freed = 0
            return False
        self._connecting = [transfer for transfer in self._connecting if transfer.is_connecting]
        room = min(len(self._waiting), max(MAX_CONNECTING - len(self._connecting), self._freed))
        for _ in range(room):
            _, question = self._waiting.popleft()
            self._connecting.append(self._begin(question, now))
        self._freed = max(0, self._freed - room)
        if room:
            self._act()
        return room > 0

    def _begin(self, question: _Question, now: float) -> _Transfer:
        idle = self._idle[question.environment]
        transfer = idle.pop() if idle else _Transfer(question.environment, self._options, self._share)
        self._begun += 1
        transfer.take(question, self._begun, now)
        self._under_way[transfer.handle] = transfer
        self._multi.add_handle(transfer.handle)
        heapq.heappush(self._looks, (now + self._options.read_timeout_seconds, transfer.number, transfer))
        return transfer

    def _collect(self) -> None:
        remaining = 1
        while remaining:
            remaining, complete, failed = self._multi.info_read()
            for handle in complete:
                self._finish(handle, pycurl.E_OK, "")
            for handle, code, words in failed:
                self._finish(handle, code, words)

    def _finish(self, handle: pycurl.Curl, code: int, words: str) -> None:
        transfer = self._under_way.pop(handle)
        self._multi.remove_handle(handle)
        if code == pycurl.E_OK and self._waiting:
            self._freed += 1
        outcome: Outcome
        try:
            outcome = transfer.outcome(code, words)
        except Exception as error:  # a bug that this answer sets off is no other's concern
            logger.exception("an answer of the App Store could not be read")
            outcome = error
        question = transfer.let_go()
        self._idle[transfer.environment].append(transfer)
        _tell(question, outcome)

    def _look_for_late_ones(self, now: float) -> None:
        looks, read_seconds = self._looks, self._options.read_timeout_seconds
        while looks:
            look_at, number, transfer = looks[0]
            if transfer.question is None or transfer.number != number:  # long over
                heapq.heappop(looks)
                continue
            if look_at > now:
                return
            sent_at = transfer.sent_at
            late_at = (now if sent_at is None else sent_at) + read_seconds
            if late_at > now:
                heapq.heapreplace(looks, (late_at, number, transfer))
            else:
                heapq.heappop(looks)
                self._finish(transfer.handle, pycurl.E_OPERATION_TIMEDOUT, "")

    def end(self, outcome: Callable[[Environment], Outcome]) -> None:
        """Give up everything, and tell so whoever waits."""
        transfers = list(self._under_way.values())
        self._under_way.clear()
        for transfer in transfers:
            question = transfer.let_go()
            _tell(question, outcome(question.environment))
        for _, question in self._waiting:
            _tell(question, outcome(question.environment))
        for transfer in transfers:
            self._multi.remove_handle(transfer.handle)
        for transfer in (*transfers, *(each for idle in self._idle.values() for each in idle)):
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
