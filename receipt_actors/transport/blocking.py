"""``BlockingTransport``: one request on the calling thread, on requests' adapter and urllib3's connection pools.

There is no ``requests.Session``: one is not promised to be thread-safe (its cookie jar is shared), and what it adds is
unwanted here. urllib3's connection pools underneath are thread-safe.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from receipt_actors.transport.messages import (
    MEMORY_FULL,
    HttpRequest,
    HttpResponse,
    Outcome,
    RequestFailed,
    ResponseSize,
    Server,
)

_CHUNK_BYTES = 4 * 1024  #: of what is compressed, perhaps: a thousand times as much when it is not
_EXCERPT_BYTES = 4096  #: of the body of a status but 200 that are read


class BlockingTransport:
    """See the module. Any number of threads may call it.

    ``pool_size`` is how many connections to each server are kept, and should be the number of threads that call; more
    callers get connections that are not kept.
    """

    blocks = True

    def __init__(self, pool_size: int) -> None:
        self._adapter = _BoundedAdapter(pool_connections=2, pool_maxsize=pool_size)

    def begin(self, request: HttpRequest, done: Callable[[Outcome], object]) -> None:
        size = ResponseSize(request.server.shares_memory)
        outcome: HttpResponse | RequestFailed
        try:
            try:
                outcome = self._response(request, size)
            except (OSError, HTTPError) as error:  # OSError is the base of requests' exceptions as well
                was_sent = not isinstance(_root(error), ConnectTimeoutError | NewConnectionError)
                outcome = RequestFailed(_cause(error, request.server), was_sent)
                error.__traceback__ = None  # its frames have what has come of the response
            done(outcome)
        finally:
            size.reset()

    def _response(self, request: HttpRequest, size: ResponseSize) -> HttpResponse:
        server = request.server
        headers = dict(line.split(": ", 1) for line in request.headers)
        prepared = requests.Request(
            "GET" if request.body is None else "POST",
            request.url,
            headers={**headers, "Accept-Encoding": server.accept_encoding},
            data=request.body,
        ).prepare()
        with self._adapter.send(
            prepared,
            stream=True,
            timeout=(server.connect_timeout_seconds, server.read_timeout_seconds),
            verify=server.ca_bundle,
            proxies=dict(server.proxies),
        ) as response:
            is_ok = response.status_code == http.client.OK
            limit_bytes = server.max_response_bytes + 1
            body = _read(response, limit_bytes, size) if is_ok else _read_beginning(response, size)
            lines = [f"{name}: {value}".encode("latin-1") for name, value in response.headers.items()]
            return HttpResponse(response.status_code, lines, body)

    def close(self) -> None:
        self._adapter.close()


def _cause(error: Exception, server: Server) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {server.connect_timeout_seconds:g} s"
    wrapped = error.args[0] if error.args else None
    if isinstance(error, requests.ReadTimeout) or isinstance(wrapped, ReadTimeoutError):
        return f"not complete within {server.read_timeout_seconds:g} s"
    root = _root(error)
    return f"{type(root).__name__}: {root}"


def _root(error: Exception) -> Exception:
    wrapped = error.args[0] if error.args else None
    return getattr(wrapped, "reason", None) or error  # urllib3 keeps the first cause there


def _read(response: requests.Response, limit_bytes: int, size: ResponseSize) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        if not size.grow(len(chunk)):
            raise HTTPError(MEMORY_FULL)
        body += chunk
        if len(body) >= limit_bytes:
            break
    return bytes(body)


def _read_beginning(response: requests.Response, size: ResponseSize) -> bytes:
    """Read what an excerpt needs. The status says enough if the body of a failure fails as well."""
    try:
        return _read(response, _EXCERPT_BYTES, size)
    except (OSError, HTTPError):
        return b""


# A socket's time-out bounds the silence between two bytes only: a server that drips one byte every few seconds holds a
# thread for ever, in headers and body. So the reader under http.client's response gets a deadline.


class _DeadlineReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limit_seconds: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = time.monotonic() + limit_seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        remaining_seconds = self._deadline - time.monotonic()
        if remaining_seconds <= 0:
            raise TimeoutError("the answer was not complete in time")
        self._sock.settimeout(remaining_seconds)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    """Has to be complete within the read time-out, which the socket has when the response begins."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        limit_seconds = sock.gettimeout()
        if limit_seconds is not None:
            self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock, limit_seconds))


class _DeadlineHTTPConnection(HTTPConnection):
    response_class = _DeadlineResponse


class _DeadlineHTTPSConnection(HTTPSConnection):
    response_class = _DeadlineResponse

    def connect(self) -> None:
        """Connect; report a slow TLS handshake as no connection (urllib3: a slow answer)."""
        try:
            super().connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no TLS handshake in time") from error


class _DeadlineHTTPConnectionPool(HTTPConnectionPool):
    ConnectionCls = _DeadlineHTTPConnection


class _DeadlineHTTPSConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _DeadlineHTTPSConnection


class _BoundedAdapter(HTTPAdapter):
    """requests' transport with a deadline for answers, and TLS 1.2 at least."""

    poolmanager: PoolManager

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_minimum_version=ssl.TLSVersion.TLSv1_2, **pool_kwargs)
        _set_deadlines(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> ProxyManager:
        manager: ProxyManager = super().proxy_manager_for(
            proxy, ssl_minimum_version=ssl.TLSVersion.TLSv1_2, **proxy_kwargs
        )
        if isinstance(manager, ProxyManager):  # a SOCKS manager has pool classes of its own, and needs them
            _set_deadlines(manager)
        return manager


def _set_deadlines(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _DeadlineHTTPConnectionPool, "https": _DeadlineHTTPSConnectionPool}
