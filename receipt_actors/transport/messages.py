"""Requests, responses, failures; and the memory that large responses share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_EXEMPT_BYTES = 256 * 1024  #: of each response, which are not counted: large responses never keep out usual ones
MAX_SHARED_BYTES = 32 * 1024 * 1024  #: of what all responses of the process have beyond that
MEMORY_FULL = f"a response of more than {MAX_EXEMPT_BYTES} bytes, while other large ones fill the memory for these"


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """What is the same for all requests to a server, which share connections and their limits."""

    ca_bundle: str  #: a file or a folder of those that may vouch for the server
    connect_timeout_seconds: float  #: for the name look-up, the connection and the TLS handshake
    read_timeout_seconds: float  #: for the whole response, from the moment at which the request is sent
    max_response_bytes: int  #: after decompression; a little more may be read
    shares_memory: bool = False  #: whether its large responses share the memory for these
    accept_encoding: str = "identity"
    may_use_http2: bool = False  #: where the server offers it, all requests share a connection
    proxies: Mapping[str, str] = field(default_factory=dict)  #: by scheme; only ``blocking`` uses them


@dataclass(frozen=True, slots=True, eq=False)
class HttpRequest:
    """A POST of ``body``, or a GET where that is None. One server gets requests of one method."""

    server: Server
    url: str
    headers: Sequence[str]  #: lines such as ``Accept: text/html``; the same object where they are the same
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response. Where its body broke off, or is too large, it is not whole."""

    status: int
    header_lines: Sequence[bytes]  #: among others, which are no headers
    body: bytes = field(repr=False)
    is_whole: bool = True

    def header(self, name: str) -> str | None:
        """Return the last header of this name, given in lower case."""
        prefix = f"{name}:".encode()
        for line in reversed(self.header_lines):
            if line[: len(prefix)].lower() == prefix:
                return line[len(prefix) :].strip().decode("latin-1")
        return None


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """There is no response."""

    cause: str  #: may quote what the server sent
    was_sent: bool = True  #: False: the server has seen nothing of the request


#: What a request comes to. An exception is a bug.
Outcome: TypeAlias = HttpResponse | RequestFailed | Exception


class Transport(Protocol):
    """Makes requests. Any number of threads may use it."""

    blocks: bool  #: whether ``begin`` returns only when ``done`` has been called

    def begin(self, request: HttpRequest, done: Callable[[Outcome], object]) -> None:
        """Begin a request; ``done`` is called exactly once, on whatever thread.

        The response keeps its memory until ``done`` returns.
        """

    def close(self) -> None:
        """Close the connections. May be called twice."""


def tell(done: Callable[[Any], object], outcome: object) -> None:
    """Call ``done``, and log what it raises: other requests need this thread."""
    try:
        done(outcome)
    except BaseException:
        logger.exception("the caller failed to take the outcome of its request")


def wait_for(begin: Callable[[Callable[[T | Exception], object]], object]) -> T:
    """Return what ``begin(done)`` calls ``done`` with; raise that if it is an exception.

    Not to be called on a scheduler, which would wait for itself.
    """
    outcomes: SimpleQueue[T | Exception] = SimpleQueue()
    begin(outcomes.put)
    outcome = outcomes.get()
    if not isinstance(outcome, Exception):
        return outcome
    try:
        raise outcome
    finally:
        del outcome  # else only a garbage collection frees it


class ResponseSize:
    """How much of a response has come, and how much of that counts as shared memory. Used by one thread.

    A server that is not Apple's, or has gone wrong, may answer each request with as much as a response may have:
    together more than the process can hold. So what is beyond ``MAX_EXEMPT_BYTES`` of each response counts until it has
    been parsed: the result of parsing may be several times as large.
    """

    __slots__ = ("_counts", "_taken_bytes", "bytes")
    _lock: ClassVar = threading.Lock()
    _shared_bytes: ClassVar[int] = 0  # of all responses of the process

    def __init__(self, counts: bool) -> None:
        self.bytes = 0
        self._counts = counts
        self._taken_bytes = 0

    def grow(self, more_bytes: int) -> bool:
        """Add what has come; return False, and add nothing, if there is no memory for it."""
        size_bytes = self.bytes + more_bytes
        if self._counts and (excess_bytes := max(0, size_bytes - MAX_EXEMPT_BYTES) - self._taken_bytes):
            with ResponseSize._lock:
                if ResponseSize._shared_bytes + excess_bytes > MAX_SHARED_BYTES:
                    return False
                ResponseSize._shared_bytes += excess_bytes
            self._taken_bytes += excess_bytes
        self.bytes = size_bytes
        return True

    def reset(self) -> None:
        """Begin with the next response; nothing of this one counts any more."""
        if self._taken_bytes:
            with ResponseSize._lock:
                ResponseSize._shared_bytes -= self._taken_bytes
        self.bytes = self._taken_bytes = 0
