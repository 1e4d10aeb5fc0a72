"""``wsgi_app``: a ``NotificationHandler`` as a WSGI application, for Flask, Django, or a bare server.

The same rules as in ``asgi``. How long a body may take is the server's affair: WSGI has no way to stop waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from receipt_actors.stores.apple.notifications.contents import MAX_BODY_BYTES
from receipt_actors.stores.apple.notifications.handler import HandlerAnswer, NotificationHandler

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_NO_POST = HandlerAnswer(HTTPStatus.METHOD_NOT_ALLOWED, "expected a POST")
_NO_LENGTH = HandlerAnswer(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
_TOO_LARGE = HandlerAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BODY_BYTES} bytes")
_CUT_SHORT = HandlerAnswer(HTTPStatus.BAD_REQUEST, "the body was cut short")


def wsgi_app(handler: NotificationHandler) -> WSGIApplication:
    """Return ``handler`` as a WSGI application (PEP 3333). Closing the handler is left to the caller."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        answer = _answer(handler, environ)
        content = answer.text.encode() + b"\n"
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if answer is _NO_POST:
            headers.append(("Allow", "POST"))
        status = HTTPStatus(answer.status)
        start_response(f"{status.value} {status.phrase}", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else content]

    return app


def _answer(handler: NotificationHandler, environ: dict[str, Any]) -> HandlerAnswer:
    if environ["REQUEST_METHOD"] != "POST":
        return _NO_POST
    read: Callable[[int], bytes] = environ["wsgi.input"].read
    announced = environ.get("CONTENT_LENGTH", "")
    if announced.isascii() and announced.isdigit() and len(announced) < 20:
        length = int(announced)
        if length > MAX_BODY_BYTES:
            return _TOO_LARGE
        try:
            body = _read(read, length)
        except OSError:  # it has gone, or the server's patience has
            return _CUT_SHORT
        return handler.handle(body) if len(body) == length else _CUT_SHORT
    if not environ.get("wsgi.input_terminated", False):  # chunked, which few servers of WSGI can
        return _NO_LENGTH
    return handler.handle(_read(read, MAX_BODY_BYTES + 1))


def _read(read: Callable[[int], bytes], length: int) -> bytes:
    """Read so many bytes, or all where there are fewer."""
    body = bytearray()
    while len(body) < length and (part := read(length - len(body))):
        body += part
    return bytes(body)
