"""HTTP with an end: the transport of the blocking adapters, on requests' adapter and urllib3's pools.

Owns the connections. There is no ``requests.Session``: one is not promised to be thread-safe (its cookie jar is
shared), and what it adds is unwanted here. urllib3's connection pools underneath are thread-safe.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.client.answer_room import NO_ROOM, Place
from receipt_actors.stores.apple.client.answers import EXCERPT_BYTES, MAX_ANSWER_BYTES, no_answer
from receipt_actors.stores.apple.client.endpoints import Endpoint, endpoints_at

_CHUNK_BYTES = 4 * 1024  #: of what is compressed, perhaps: a thousand times as much when it is not


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back: of a status but 200 no more of the body than ``EXCERPT_BYTES``, or nothing where it failed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class BoundedTransport:
    """Requests whose answers come to an end, on connections that are kept alive.

    ``connect_timeout_seconds`` bounds the connection to each address of the host, and the TLS handshake;
    ``read_timeout_seconds`` bounds the whole answer, from the request's last byte to the answer's. ``pool_size`` is how
    many connections are kept alive, and should be the number of threads that call; more callers get connections that
    are not kept. Raises ``ConfigurationError`` for URLs that are no HTTP URLs, and for a proxy or a CA bundle of the
    process environment that can't be used.
    """

    def __init__(
        self,
        production_url: str,
        sandbox_url: str,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        pool_size: int,
    ) -> None:
        self._timeouts = (connect_timeout_seconds, read_timeout_seconds)
        self._adapter = _BoundedAdapter(pool_connections=len(Environment), pool_maxsize=pool_size)
        self.endpoints: Mapping[Environment, Endpoint] = endpoints_at(production_url, sandbox_url)
        proxies = [endpoint.proxy or "" for endpoint in self.endpoints.values()]
        if any(proxy.startswith("socks") for proxy in proxies) and find_spec("socks") is None:
            raise ConfigurationError(
                [
                    "proxy of the environment: found SOCKS, expected PySocks to be installed, which the client "
                    "requests needs for it; pip install pysocks, or choose app_store_client curl"
                ]
            )

    @contextmanager
    def exchange(
        self, environment: Environment, request: requests.PreparedRequest, secrets: Sequence[str]
    ) -> Iterator[HttpAnswer]:
        """Send one request to ``environment``, and give the answer, which is to be parsed within the context.

        Raises ``AppStoreUnavailable`` where none comes, or not all of it in time; nothing of ``secrets`` is in it.
        """
        place = Place()
        try:
            try:
                answer = self._answer(environment, request, place)
            except (OSError, HTTPError) as error:  # OSError is the base of requests' exceptions as well
                was_sent = not isinstance(_root(error), ConnectTimeoutError | NewConnectionError)
                cause = self._cause(error)
                error.__traceback__ = None  # its frames have what has come of the answer
                raise no_answer(environment, cause, secrets, was_sent=was_sent) from None
            yield answer
        finally:
            place.leave()

    def _answer(self, environment: Environment, request: requests.PreparedRequest, place: Place) -> HttpAnswer:
        endpoint = self.endpoints[environment]
        with self._adapter.send(
            request, stream=True, timeout=self._timeouts, verify=endpoint.verify, proxies=dict(endpoint.proxies)
        ) as response:
            is_ok = response.status_code == http.client.OK
            body = _read(response, MAX_ANSWER_BYTES + 1, place) if is_ok else _read_beginning(response, place)
            return HttpAnswer(response.status_code, response.headers, body)

    def close(self) -> None:
        """Close the idle connections; one that is in use closes when its call ends. May be called twice."""
        self._adapter.close()

    def _cause(self, error: Exception) -> str:
        connect_seconds, read_seconds = self._timeouts
        if isinstance(error, requests.ConnectTimeout):
            return f"no connection within {connect_seconds:g} s"
        wrapped = error.args[0] if error.args else None
        if isinstance(error, requests.ReadTimeout) or isinstance(wrapped, ReadTimeoutError):
            return f"not complete within {read_seconds:g} s"
        root = _root(error)
        return f"{type(root).__name__}: {root}"


def _root(error: Exception) -> Exception:
    wrapped = error.args[0] if error.args else None
    return getattr(wrapped, "reason", None) or error  # urllib3 keeps the first cause there


def _read(response: requests.Response, limit_bytes: int, place: Place) -> bytes:
    """Read the body, decompressed, up to ``limit_bytes`` or a little more."""
    body = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        if not place.grow(len(chunk)):
            raise HTTPError(NO_ROOM)
        body += chunk
        if len(body) >= limit_bytes:
            break
    return bytes(body)


def _read_beginning(response: requests.Response, place: Place) -> bytes:
    """Read what an excerpt needs. The status says enough where the body of a failure fails as well."""
    try:
        return _read(response, EXCERPT_BYTES, place)
    except (OSError, HTTPError):
        return b""


# A time-out of a socket bounds the silence between two bytes only: a server that drips one byte every few seconds holds
# a thread for ever, in the headers as well as in the body. So the reader under http.client's answer gets a deadline.


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a deadline, whatever trickles in meanwhile."""

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
    """An answer that has to be complete within the read time-out, which the socket has when the answer begins."""

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
        """Connect; a TLS handshake that takes too long is no connection, where urllib3 calls it a slow answer."""
        try:
            super().connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no TLS handshake in time") from error


class _DeadlineHTTPConnectionPool(HTTPConnectionPool):
    ConnectionCls = _DeadlineHTTPConnection


class _DeadlineHTTPSConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _DeadlineHTTPSConnection


class _BoundedAdapter(HTTPAdapter):
    """requests' transport with a deadline for answers, and TLS 1.2 at least.

    It finds the pool of connections of each server once, with its proxy and its CA bundle, which never change: to look
    for them takes requests a tenth of the time of a call.
    """

    poolmanager: PoolManager

    def __init__(self, pool_connections: int, pool_maxsize: int) -> None:
        self._pools: dict[str, ConnectionPool] = {}
        super().__init__(pool_connections=pool_connections, pool_maxsize=pool_maxsize)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> ConnectionPool:
        url = request.url
        assert url is not None
        server = "/".join(url.split("/", 3)[:3])
        pool: ConnectionPool | None = self._pools.get(server)
        if pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            super().cert_verify(pool, url, verify, cert)  # type: ignore[no-untyped-call]
            assert pool is not None
            self._pools[server] = pool
        return pool

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Do nothing: the pool has been told."""

    def close(self) -> None:
        """Forget the pools: closed ones take no calls."""
        self._pools.clear()
        super().close()

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
