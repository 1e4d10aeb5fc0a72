"""``AdminClient``: asks the admin port of a running ``receipt-actors start --admin``, for the commands that look at it.

Every failure is an error of one line. Proxies of the environment are not used and redirects are not followed: they
would carry the token along.
"""

from __future__ import annotations

import functools
import http.client
import importlib.metadata
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import click

from receipt_actors.domain.values import printable
from receipt_actors.errors import ConfigurationError, ReceiptActorsError, TraceRefused

if TYPE_CHECKING:  # a health check is made every minute, and is to be quick
    from receipt_actors.telemetry.control import TraceRequest
    from receipt_actors.telemetry.overview import Overview

ADMIN_VARIABLE = "RECEIPT_ACTORS_ADMIN"
TOKEN_VARIABLE = "RECEIPT_ACTORS_ADMIN_TOKEN"
DEFAULT_ADDRESS = "127.0.0.1:9464"
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 15.0  #: a system under load looks at each of its actors
SILENCE_SECONDS = 30.0  #: of a trace: the server says something more often
MAX_ANSWER_BYTES = 64 * 2**20
EXCERPT_CHARACTERS = 120
# Addresses that a server listens on and a client can't connect to.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # nosec B104 # to ask, not to listen

Result = TypeVar("Result")


class AdminUnreachable(ReceiptActorsError):
    """Nothing answers at that address, or another program does."""


class AdminRefused(ReceiptActorsError):
    """The admin port understands us, and does not do it."""


class AdminClient:
    """Asks one admin port; ``address`` is ``HOST:PORT``, or a URL of http or https where a proxy is in front of it.

    Every question may raise ``AdminUnreachable``, ``AdminRefused``, and ``ConfigurationError`` for a missing or another
    token.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address = address
        self._url = urlsplit(base_url(address))
        self._token = token

    def overview(self) -> Overview:
        from receipt_actors.telemetry.overview import Overview

        data = self._ask("GET", "/api/overview", 200)[1]
        try:
            return Overview.from_json(data)
        except (KeyError, TypeError, ValueError, AttributeError):
            theirs = data.get("version") if isinstance(data, Mapping) else None
        ours = importlib.metadata.version("receipt-actors")
        if isinstance(theirs, str) and theirs != ours:
            raise AdminUnreachable(
                f"{self.address} runs receipt-actors {printable(theirs[:40])}, and this is {ours}: "
                "they do not understand each other; use the same version"
            )
        raise self._stranger("its overview is none")

    def health(self, path: str) -> tuple[bool, Mapping[str, Any]]:
        """Ask ``/healthz`` or ``/readyz``: whether all is well, and the answer. Takes no token."""
        status, data = self._ask("GET", path, 200, 503)
        if not isinstance(data, dict) or "state" not in data:
            raise self._stranger("its health is none")
        return status == 200, data

    def actor_state(self, name: str) -> Any:
        """Return an actor's state; None if no actor has this name."""
        status, data = self._ask("GET", f"/api/actors/{quote(name, safe='')}", 200, 404)
        if status == 404 and (not isinstance(data, dict) or "error" not in data):
            raise self._stranger("it answers 404")
        return data if status == 200 else None

    def pause(self) -> None:
        self._ask("POST", "/api/pause", 204)

    def resume(self) -> None:
        self._ask("POST", "/api/resume", 204)

    @contextmanager
    def trace(self, request: TraceRequest) -> Iterator[Iterator[tuple[str, Any]]]:
        """Trace; yields the events as they come: ``trace`` with each, at last ``end``. Leaving it ends the trace.

        Raises:
            TraceRefused: the filters match no event, or count or time are beyond what the server grants.
        """
        body = {"filters": request.filters, "limit": request.limit, "seconds": request.seconds}
        with self._answer("POST", "/api/trace", body, SILENCE_SECONDS) as response:
            if response.status != 200:
                raise self._refusal(response)
            if not response.getheader("Content-Type", "").startswith("text/event-stream"):
                raise self._stranger("it answers a trace with no events")
            yield self._events(response)

    # --- one exchange ---

    def _ask(self, method: str, path: str, *expected: int) -> tuple[int, Any]:
        """Return the status, one of those that are expected, and the JSON that came with it."""
        with self._answer(method, path, {}, ANSWER_SECONDS) as response:
            if response.status not in expected:
                raise self._refusal(response)
            if response.status == 204:
                return 204, None
            try:
                return response.status, json.loads(self._body(response))
            except (ValueError, RecursionError):
                raise self._stranger("its answer is no JSON") from None

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Mapping[str, Any], silence_seconds: float
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        if method == "POST":
            headers["Content-Type"] = "application/json"
        with ExitStack() as opened:
            with self._told_in_one_line():
                connection = opened.enter_context(closing(self._connection()))
                try:
                    connection.connect()
                except TimeoutError as error:
                    raise AdminUnreachable(
                        f"{self.address} can't be connected to within {CONNECT_SECONDS:g} s: is the address right?"
                    ) from error
                connection.sock.settimeout(silence_seconds)
                connection.request(method, path, json.dumps(body) if method == "POST" else None, headers)
                response = opened.enter_context(connection.getresponse())
            yield response

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        trust = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE"))
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=trust)

    @contextmanager
    def _told_in_one_line(self) -> Iterator[None]:
        hint = "; does it speak TLS? Then give https:// with the address" if "://" not in self.address else ""
        try:
            yield
        except ssl.SSLError as error:
            raise AdminUnreachable(f"{self.address} can't be asked by TLS: {_words_of(error)}") from error
        except TimeoutError as error:
            raise AdminUnreachable(f"{self.address} does not answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionResetError):
                raise self._stranger(f"it does not speak HTTP{hint}") from error
            if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionResetError):
                raise AdminUnreachable(f"{self.address} breaks off: {_words_of(error)}") from error
            if not isinstance(error, ConnectionResetError):
                hint = f"; start one with --admin, or name another by --admin or {ADMIN_VARIABLE}"
            raise AdminUnreachable(f"nobody answers at {self.address}: {_words_of(error)}{hint}") from error

    def _refusal(self, response: http.client.HTTPResponse) -> ReceiptActorsError:
        if response.status == 401:
            what = "wants a token" if self._token is None else "takes another token"
            return ConfigurationError(
                [f"{self.address} {what}: give it in {TOKEN_VARIABLE}, or a file by --token-file"]
            )
        try:
            said = json.loads(self._body(response))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or not isinstance(said.get("error"), str):
            return self._stranger(f"it answers {response.status}")
        # Its lines stay: one of them may point to a place in the one before.
        text = "\n".join(printable(line) for line in said["error"][:2000].splitlines())
        return TraceRefused(text) if response.status == 400 else AdminRefused(text)  # nothing else can be wrong

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        deadline = time.monotonic() + ANSWER_SECONDS
        body = bytearray()
        with self._told_in_one_line():
            while part := response.read1(2**16):
                body += part
                if len(body) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                    raise self._stranger("its answer does not end")
            if response.length:
                raise http.client.IncompleteRead(bytes(body), response.length)
        return bytes(body)

    def _events(self, response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
        """Read server-sent events, as far as we send them: ``event`` and one line of ``data``."""
        kind, data = "", ""
        with self._told_in_one_line():
            while line := response.readline(MAX_ANSWER_BYTES):
                if not line.endswith(b"\n"):
                    raise self._stranger("its events do not end")
                field, _, value = line.decode("utf-8", "replace").strip().partition(": ")
                if field == "event":
                    kind = value
                elif field == "data":
                    data = value
                elif not field and data:
                    try:
                        yield kind, json.loads(data)
                    except ValueError:
                        raise self._stranger("its events are no JSON") from None
                    kind, data = "", ""

    def _stranger(self, what: str) -> AdminUnreachable:
        return AdminUnreachable(f"{self.address} is no admin port of receipt-actors: {what}")


def base_url(address: str) -> str:
    """Return the URL of an address. Raises ``ValueError`` if it is none."""
    parts = urlsplit(address if "://" in address else f"//{address}", scheme="http")
    host, port = parts.hostname, parts.port  # reading the port checks it
    is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not host or not is_bare or (port is None and "://" not in address):
        raise ValueError("no address")
    host.encode("idna")  # raises for a name that no resolver takes
    host = _EVERYWHERE.get(host, host)
    netloc = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{netloc}" + ("" if port is None else f":{port}")


def admin_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Add ``--admin`` and ``--token-file`` to a click command's function, which gets ``client``, an ``AdminClient``."""

    @click.option(
        "--admin",
        "address",
        metavar="HOST:PORT",
        default=DEFAULT_ADDRESS,
        show_default=False,
        envvar=ADMIN_VARIABLE,
        callback=_check_address,
        help="Admin port of the running system; http:// or https:// in front of it where a proxy is. "
        f"[{ADMIN_VARIABLE}; default: {DEFAULT_ADDRESS}]",
    )
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"A file with the token in its first line. [default: the token in {TOKEN_VARIABLE}, if any]",
    )
    @functools.wraps(command)
    def with_client(*args: Any, address: str, token_file: Path | None, **parameters: Any) -> Result:
        return command(*args, client=AdminClient(address, _token(token_file)), **parameters)

    return with_client


def _check_address(_context: click.Context, _parameter: click.Parameter, address: str) -> str:
    try:
        base_url(address)
    except ValueError:
        raise click.BadParameter(f"found {address!r}, expected HOST:PORT, such as {DEFAULT_ADDRESS}.") from None
    return address


def _token(file: Path | None) -> str | None:
    if file is None:
        token, origin = os.environ.get(TOKEN_VARIABLE, "").strip(), TOKEN_VARIABLE
    else:
        origin = str(file)
        try:
            token = (file.read_text(encoding="ascii", errors="replace").splitlines() or [""])[0].strip()
        except OSError as error:
            fault = f"--token-file: found {origin!r}, expected a readable file with a token; {error.strerror}"
            raise ConfigurationError([fault]) from error
        if not token:
            raise ConfigurationError([f"{origin}: found no token in its first line"])
    if not (token.isascii() and token.isprintable()):
        raise ConfigurationError([f"{origin}: found what can't be a token, expected printable ASCII characters"])
    return token or None


def _words_of(error: Exception) -> str:
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return printable(said[:EXCERPT_CHARACTERS])
