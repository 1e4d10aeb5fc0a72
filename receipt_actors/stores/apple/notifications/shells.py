"""``asgi_app`` and ``wsgi_app``: a ``NotificationHandler`` as an application, for frameworks and servers.

Whatever the path, a POST is taken for a notification: where it is mounted decides. The content type is not looked at;
the signature says whether it is Apple's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

from receipt_actors.stores.apple.notifications.contents import MAX_BODY_BYTES
from receipt_actors.stores.apple.notifications.handler import HandlerAnswer, NotificationHandler

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

THREADS = 8  #: that deal with POSTs at once
MAX_ARRIVING = 64  #: bodies that are waited for at once; for a further one the slowest is given up
MAX_WAITING = 64  #: POSTs that are here at once; a further one is refused for now
BODY_SECONDS = 10.0  #: for a body to arrive

_ALIVE = HandlerAnswer(HTTPStatus.OK, "ok")
_NO_POST = HandlerAnswer(HTTPStatus.METHOD_NOT_ALLOWED, "expected a POST")
_NO_LENGTH = HandlerAnswer(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
_TOO_LARGE = HandlerAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BODY_BYTES} bytes")
_TOO_SLOW = HandlerAnswer(HTTPStatus.REQUEST_TIMEOUT, f"expected the body within {BODY_SECONDS:g} seconds")
_TOO_MANY = HandlerAnswer(HTTPStatus.SERVICE_UNAVAILABLE, "too many at once, please send it again")
_CUT_SHORT = HandlerAnswer(HTTPStatus.BAD_REQUEST, "the body was cut short")


def _content(answer: HandlerAnswer, method: str) -> bytes:
    return b"" if method == "HEAD" else answer.text.encode() + b"\n"


def _headers(answer: HandlerAnswer) -> list[tuple[str, str]]:
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(_content(answer, "")))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    if answer is _NO_POST:
        headers.append(("Allow", "POST"))
    return headers


def _length(announced: str) -> int | None:
    return int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 20 else None


def asgi_app(
    handler: NotificationHandler, *, body_seconds: float = BODY_SECONDS, health_path: str | None = None
) -> AsgiApp:
    """Return ``handler`` as an ASGI application (3.0), which does not close it.

    A body has ``body_seconds`` to arrive. A GET of ``health_path`` is answered with 200.
    """
    bodies = _Bodies(body_seconds)
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="receipt-actors-notification")
    here = 0

    async def answer_to(scope: Scope, receive: Receive) -> HandlerAnswer | None:
        nonlocal here
        if scope["method"] in ("GET", "HEAD") and scope["path"] == health_path:
            return _ALIVE
        if scope["method"] != "POST":
            return _NO_POST
        announced = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if (_length(announced.get(b"content-length", "")) or 0) > MAX_BODY_BYTES:
            return _TOO_LARGE
        body = await bodies.wait_for(receive)
        if not isinstance(body, bytes):
            return body
        if here >= MAX_WAITING:
            return _TOO_MANY
        here += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, handler.handle, body)
        finally:
            here -= 1

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                answer = await answer_to(scope, receive)
                if answer is None:
                    return
                headers = [(name.lower().encode(), value.encode()) for name, value in _headers(answer)]
                if answer in (_TOO_LARGE, _TOO_SLOW):  # the rest of the body is not waited for
                    headers.append((b"connection", b"close"))
                await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
                await send({"type": "http.response.body", "body": _content(answer, scope["method"])})
            case "lifespan":  # nothing is to be done at the server's beginning and its end
                while True:
                    message = await receive()
                    await send({"type": f"{message['type']}.complete"})
                    if message["type"] == "lifespan.shutdown":
                        return

    return app


class _Bodies:
    """The bodies that are arriving. Slow ones, however many, keep out no quick one: the slowest is given up for it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._arriving: dict[asyncio.Timeout, None] = {}  # in the order in which they began

    async def wait_for(self, receive: Receive) -> bytes | HandlerAnswer | None:
        """Return a body, or what to answer instead; None: the client has gone."""
        if len(self._arriving) >= MAX_ARRIVING:
            slowest = next(iter(self._arriving))
            del self._arriving[slowest]
            slowest.reschedule(0)  # at once
        try:
            async with asyncio.timeout(self._seconds) as timeout:
                self._arriving[timeout] = None
                try:
                    return await _read_asgi(receive)
                finally:
                    self._arriving.pop(timeout, None)
        except TimeoutError:
            return _TOO_SLOW


async def _read_asgi(receive: Receive) -> bytes | HandlerAnswer | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return _TOO_LARGE
        if not message.get("more_body", False):
            return bytes(body)


def wsgi_app(handler: NotificationHandler) -> WSGIApplication:
    """Return ``handler`` as a WSGI application (PEP 3333), which does not close it.

    The server limits how long a body may take: WSGI has no way to stop waiting.
    """

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        body = _read_wsgi(environ) if method == "POST" else _NO_POST
        answer = handler.handle(body) if isinstance(body, bytes) else body
        status = HTTPStatus(answer.status)
        start_response(f"{status.value} {status.phrase}", _headers(answer))
        return [_content(answer, method)]

    return app


def _read_wsgi(environ: dict[str, Any]) -> bytes | HandlerAnswer:
    read: Callable[[int], bytes] = environ["wsgi.input"].read
    length = _length(environ.get("CONTENT_LENGTH", ""))
    if length is None:
        if not environ.get("wsgi.input_terminated", False):  # chunked, which few servers of WSGI can
            return _NO_LENGTH
        return _read(read, MAX_BODY_BYTES + 1)
    if length > MAX_BODY_BYTES:
        return _TOO_LARGE
    try:
        body = _read(read, length)
    except OSError:  # it has gone, or the server waits no longer
        return _CUT_SHORT
    return body if len(body) == length else _CUT_SHORT


def _read(read: Callable[[int], bytes], length: int) -> bytes:
    body = bytearray()
    while len(body) < length and (part := read(length - len(body))):
        body += part
    return bytes(body)
