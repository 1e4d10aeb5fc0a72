"""``AdminClient``: asks the admin port of a running ``receipt-actors start --admin``, for the commands that look at it.

A question that is not answered within ``ANSWER_SECONDS`` is an error of one line: nothing listens there, the token is
refused, or another program listens. Proxies and passwords of the environment are not used, redirects are not followed
(they would carry the token along), and an answer is read up to ``MAX_ANSWER_BYTES`` only.
"""

from __future__ import annotations

import functools
import http.client
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import click

from receipt_actors.domain.values import printable
from receipt_actors.errors import ConfigurationError, ReceiptActorsError, TraceRefused

if TYPE_CHECKING:  # a health check is made every minute, and is to be quick
    import requests

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
    """See the module. ``address`` is ``HOST:PORT``, or a URL of http or https where a proxy is in front of it."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address = address
        self._base = base_url(address)
        self._token = token

    def overview(self) -> Overview:
        """Look at the system.

        Raises:
            AdminUnreachable: see the class.
            AdminRefused: likewise.
            ConfigurationError: the token is missing, or another is taken.
        """
        return self.read_overview(self.overview_json())

    def overview_json(self) -> Any:
        """Return what ``read_overview`` reads."""
        return self._get_json("/api/overview")

    def read_overview(self, data: Any) -> Overview:
        """Read an overview; what another version wrote may not be understood."""
        from receipt_actors.telemetry.overview import Overview

        try:
            return Overview.from_json(data)
        except (KeyError, TypeError, ValueError, AttributeError):
            theirs = data.get("version") if isinstance(data, Mapping) else None
        if isinstance(theirs, str) and theirs != _own_version():
            raise AdminUnreachable(
                f"{self.address} runs receipt-actors {printable(theirs[:40])}, and this is {_own_version()}: "
                "they do not understand each other; use the same version"
            )
        raise self._stranger("its overview is none")

    def health(self, path: str) -> tuple[bool, Mapping[str, Any]]:
        """Ask ``/healthz`` or ``/readyz``: whether all is well, and the answer. Takes no token."""
        with self._answer("GET", path, expected=(200, 503)) as response:
            data = self._json(response)
            if not isinstance(data, dict) or "state" not in data:
                raise self._stranger("its health is none")
            return response.status_code == 200, data

    def actor_state(self, name: str) -> Any:
        """Return an actor's state.

        Raises:
            UnknownActor: no actor has this name.
        """
        with self._answer("GET", f"/api/actors/{quote(name, safe='')}", expected=(200, 404)) as response:
            data = self._json(response)
            if response.status_code == 404:
                if not isinstance(data, dict) or "error" not in data:
                    raise self._stranger("it answers 404")
                from receipt_actors.telemetry.control import UnknownActor

                raise UnknownActor(name)
            return data

    def pause(self) -> None:
        """Have nothing more taken in."""
        self._post_nothing("/api/pause")

    def resume(self) -> None:
        """Undo ``pause``."""
        self._post_nothing("/api/resume")

    @contextmanager
    def trace(self, request: TraceRequest) -> Iterator[Iterator[tuple[str, Any]]]:
        """Trace; yields the events as they come: ``trace`` with each, at last ``end``. Leaving it ends the trace.

        Raises:
            TraceRefused: the filters match no event, or count or time are beyond what the server grants.
        """
        body = {"filters": request.filters, "limit": request.limit, "seconds": request.seconds}
        with self._answer("POST", "/api/trace", body=body, silence_seconds=SILENCE_SECONDS) as response:
            if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise self._stranger("it answers a trace with no events")
            yield self._events(response)

    # --- one exchange ---

    def _get_json(self, path: str) -> Any:
        with self._answer("GET", path) as response:
            return self._json(response)

    def _post_nothing(self, path: str) -> None:
        with self._answer("POST", path, body={}, expected=(204,)):
            pass

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        expected: tuple[int, ...] = (200,),
        silence_seconds: float | None = None,
    ) -> Iterator[requests.Response]:
        import requests

        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        with requests.Session() as session, self._told_in_one_line():
            session.trust_env = False
            session.verify = os.environ.get("REQUESTS_CA_BUNDLE", True)
            response = session.request(
                method,
                self._base + path,
                json=body,
                headers=headers,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS if silence_seconds is None else silence_seconds),
                allow_redirects=False,
                stream=True,
            )
            with closing(response):
                if response.status_code not in expected:
                    raise self._refusal(response)
                yield response

    @contextmanager
    def _told_in_one_line(self) -> Iterator[None]:
        import requests

        try:
            yield
        except requests.exceptions.SSLError as error:
            raise AdminUnreachable(f"{self.address} can't be asked by TLS: {_words_of(_innermost(error))}") from error
        except requests.exceptions.ConnectTimeout as error:
            raise AdminUnreachable(
                f"{self.address} can't be connected to within {CONNECT_SECONDS:g} s: is the address right?"
            ) from error
        except requests.exceptions.Timeout as error:
            raise AdminUnreachable(f"{self.address} does not answer in time") from error
        except requests.exceptions.ConnectionError as error:
            cause = _innermost(error)
            hint = ""
            if isinstance(cause, ConnectionRefusedError):
                hint = f"; start one with --admin, or name another by --admin or {ADMIN_VARIABLE}"
            elif isinstance(cause, http.client.BadStatusLine | ConnectionResetError) and "://" not in self.address:
                hint = "; does it speak TLS? Then give https:// with the address"
            if isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, http.client.RemoteDisconnected):
                raise self._stranger(f"it does not speak HTTP{hint}") from error
            raise AdminUnreachable(f"nobody answers at {self.address}: {_words_of(cause)}{hint}") from error
        except requests.exceptions.RequestException as error:
            raise AdminUnreachable(f"{self.address} breaks off: {_words_of(_innermost(error))}") from error

    def _refusal(self, response: requests.Response) -> ReceiptActorsError:
        status = response.status_code
        if status == 401:
            what = "wants a token" if self._token is None else "takes another token"
            return ConfigurationError(
                [f"{self.address} {what}: give it in {TOKEN_VARIABLE}, or a file by --token-file"]
            )
        try:
            said = json.loads(self._body(response))
        except (ValueError, RecursionError):
            return self._stranger(f"it answers {status}")
        if not isinstance(said, dict) or not isinstance(said.get("error"), str):
            return self._stranger(f"it answers {status}")
        text = _lines(said["error"])
        return TraceRefused(text) if status == 400 else AdminRefused(text)  # nothing else of ours can be wrong

    def _json(self, response: requests.Response) -> Any:
        try:
            return json.loads(self._body(response))
        except (ValueError, RecursionError):
            raise self._stranger("its answer is no JSON") from None

    def _body(self, response: requests.Response) -> bytes:
        deadline = time.monotonic() + ANSWER_SECONDS
        parts: list[bytes] = []
        total = 0
        for part in response.iter_content(2**16):
            parts.append(part)
            total += len(part)
            if total > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                raise self._stranger("its answer does not end")
        return b"".join(parts)

    def _events(self, response: requests.Response) -> Iterator[tuple[str, Any]]:
        """Read server-sent events, as far as we send them: ``event`` and one line of ``data``."""
        kind, data = "message", ""
        with self._told_in_one_line():
            for line in self._lines_of(response):
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    kind = value
                elif field == "data":
                    data = value
                elif not line and data:
                    try:
                        yield kind, json.loads(data)
                    except ValueError:
                        raise self._stranger("its events are no JSON") from None
                    kind, data = "message", ""

    def _lines_of(self, response: requests.Response) -> Iterator[str]:
        rest = b""
        for part in response.iter_content(None):  # as they come
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r").decode("utf-8", "replace")
            if len(rest) > MAX_ANSWER_BYTES:
                raise self._stranger("its events do not end")

    def _stranger(self, what: str) -> AdminUnreachable:
        return AdminUnreachable(f"{self.address} is no admin port of receipt-actors: {what}")


def base_url(address: str) -> str:
    """Return the URL that an address stands for.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(address if "://" in address else f"//{address}", scheme="http")
    host, port = parts.hostname, parts.port  # reading the port checks it
    is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not host or not is_bare or (port is None and "://" not in address):
        raise ValueError("no address")
    host = _EVERYWHERE.get(host, host)
    netloc = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{netloc}" + ("" if port is None else f":{port}")


def admin_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Add ``--admin`` and ``--token-file`` to a click command's function, which gets ``client``, an ``AdminClient``."""

    @functools.wraps(command)
    def with_client(*args: Any, address: str, token_file: Path | None, **parameters: Any) -> Result:
        return command(*args, client=AdminClient(address, _token(token_file)), **parameters)

    file_help = f"A file with the token in its first line. [default: the token in {TOKEN_VARIABLE}, if any]"
    decorated = click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help=file_help)(
        with_client
    )
    return click.option(
        "--admin",
        "address",
        metavar="HOST:PORT",
        default=DEFAULT_ADDRESS,
        envvar=ADMIN_VARIABLE,
        callback=_check_address,
        help="Admin port of the running system; http:// or https:// in front of it where a proxy is. "
        f"[{ADMIN_VARIABLE}; default: {DEFAULT_ADDRESS}]",
    )(decorated)


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


def _own_version() -> str:
    try:
        return importlib.metadata.version("receipt-actors")
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return "not installed"


def _innermost(error: BaseException) -> BaseException:
    """Return what the libraries wrapped up: the first that has the system's number, else the last of them."""
    at = error
    while not (isinstance(at, OSError) and at.errno is not None):
        cause = at.__cause__ or at.__context__
        if cause is None:
            break
        at = cause
    return at


def _words_of(error: BaseException) -> str:
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return printable(said[:EXCERPT_CHARACTERS])


def _lines(text: str) -> str:
    """Make what the server says harmless, but leave its lines: one of them may point to a place in the one before."""
    return "\n".join(printable(line) for line in text[:2000].splitlines())
