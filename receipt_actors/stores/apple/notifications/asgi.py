"""``asgi_app``: a ``NotificationHandler`` as an ASGI application, for FastAPI, Starlette, Django, or a bare server.

Whatever the path, a POST is taken for a notification: where it is mounted decides. The content type is not looked at;
the signature says whether it is Apple's. Each POST waits on a thread, not in the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, TypeAlias

from receipt_actors.stores.apple.notifications.contents import MAX_BODY_BYTES
from receipt_actors.stores.apple.notifications.handler import HandlerAnswer, NotificationHandler

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

THREADS = 8  #: that deal with POSTs at once
MAX_ARRIVING = 64  #: bodies that are waited for at once; for a further one the slowest is given up
MAX_WAITING = 64  #: POSTs that are here at once; a further one is told to come again
BODY_SECONDS = 10.0  #: for a body to arrive

_ALIVE = HandlerAnswer(HTTPStatus.OK, "ok")
_NO_POST = HandlerAnswer(HTTPStatus.METHOD_NOT_ALLOWED, "expected a POST")
_TOO_LARGE = HandlerAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BODY_BYTES} bytes")
_TOO_SLOW = HandlerAnswer(HTTPStatus.REQUEST_TIMEOUT, f"expected the body within {BODY_SECONDS:g} seconds")
_TOO_MANY = HandlerAnswer(HTTPStatus.SERVICE_UNAVAILABLE, "too many at once, please send it again")


def asgi_app(
    handler: NotificationHandler,
    *,
    threads: int = THREADS,
    body_seconds: float = BODY_SECONDS,
    health_path: str | None = None,
) -> AsgiApp:
    """Return ``handler`` as an ASGI application (3.0). Closing the handler is left to the caller.

    Args:
        handler: deals with the POSTs.
        threads: that call ``handler.handle`` at once; they are started when they are needed.
        body_seconds: time for a body to arrive.
        health_path: a GET of it is answered with 200, to tell that this lives. None: there is no such path.
    """
    app = _AsgiApp(handler, threads, body_seconds, health_path)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return call


class _TooLarge(Exception):
    """The body has no end."""


class _Gone(Exception):
    """Whoever sent it has gone."""


class _AsgiApp:
    def __init__(
        self, handler: NotificationHandler, threads: int, body_seconds: float, health_path: str | None
    ) -> None:
        self._handler = handler
        self._health_path = health_path
        self._body_seconds = body_seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="receipt-actors-notification")
        self._arriving: dict[asyncio.Timeout, None] = {}  # of bodies, in the order in which they began
        self._here = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                answer = await self._answer(scope, receive)
                if answer is not None:
                    await _send(answer, scope, send)
            case "lifespan":
                await _live(receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, scope: Scope, receive: Receive) -> HandlerAnswer | None:
        if scope["method"] in ("GET", "HEAD") and scope["path"] == self._health_path:
            return _ALIVE
        if scope["method"] != "POST":
            return _NO_POST
        if _announced_bytes(scope) > MAX_BODY_BYTES:
            return _TOO_LARGE
        try:
            body = await self._body_in_time(receive)
        except TimeoutError:
            return _TOO_SLOW
        except _TooLarge:
            return _TOO_LARGE
        except _Gone:
            return None
        if self._here >= MAX_WAITING:
            return _TOO_MANY
        self._here += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._handler.handle, body)
        finally:
            self._here -= 1

    async def _body_in_time(self, receive: Receive) -> bytes:
        """Wait for the body. Slow bodies, however many, keep out no quick one: the slowest is given up for it."""
        if len(self._arriving) >= MAX_ARRIVING:
            slowest = next(iter(self._arriving))
            del self._arriving[slowest]
            slowest.reschedule(0)  # at once
        async with asyncio.timeout(self._body_seconds) as patience:
            self._arriving[patience] = None
            try:
                return await _body(receive)
            finally:
                self._arriving.pop(patience, None)


def _announced_bytes(scope: Scope) -> int:
    """Return what the client says of the body's length; 0 where it says nothing that can be read."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return 0


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _TooLarge
        if not message.get("more_body", False):
            return bytes(body)


async def _send(answer: HandlerAnswer, scope: Scope, send: Send) -> None:
    content = answer.text.encode() + b"\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if answer is _NO_POST:
        headers.append((b"allow", b"POST"))
    if answer in (_TOO_LARGE, _TOO_SLOW):  # the rest of the body is not waited for
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


async def _live(receive: Receive, send: Send) -> None:
    """Take part in the server's life: nothing is to be done at its beginning and its end."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
