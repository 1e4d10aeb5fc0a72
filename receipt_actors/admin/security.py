"""``Guard``: who may ask what, decided before anything else is looked at; and the headers of every answer.

* Without a token only this machine is answered, and only under a name that is this machine's: a page of another site
  whose own name leads here (DNS rebinding) is not.
* With a token, all that has data or changes something takes it; the page's own files and the two probes do not.
* What a browser sends on behalf of another site is refused, whether it reads or writes.
* State is changed by POST alone, with a content type that no form can send.
* A request that could be read in two ways, here and by a proxy in front of it, is read in none.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from email.utils import formatdate
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receipt_actors.domain.addresses import is_loopback

PROBES = frozenset({"/healthz", "/readyz"})

_SINGLE = ("Origin", "Sec-Fetch-Site", "Content-Type", "Authorization")  # headers that are decided by
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """See the module. ``host`` is where the server listens; ``open_paths`` are those of the page's files."""

    def __init__(self, app: ASGIApp, host: str, token: str | None, open_paths: Collection[str]) -> None:
        self._app = app
        self._host = host
        self._token = None if token is None else token.encode()
        self._pages = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
                headers["Date"] = formatdate(usegmt=True)
            await send(message)

        if scope["type"] == "http":
            refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
            await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> JSONResponse | None:
        if "transfer-encoding" in headers and "content-length" in headers:
            refusal = _refused(HTTPStatus.BAD_REQUEST, "expected Content-Length or Transfer-Encoding, not both")
            refusal.headers["Connection"] = "close"  # a proxy may see the next request elsewhere
            return refusal
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            return _refused(HTTPStatus.BAD_REQUEST, "expected one Host header")
        for name in _SINGLE:
            if len(headers.getlist(name)) > 1:
                return _refused(HTTPStatus.BAD_REQUEST, f"expected one {name} header at most")
        if self._token is None and not self._is_our_name(hosts[0]):
            return _refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                "expected a Host header that names this machine, such as localhost; for others admin_token is needed",
            )
        if path not in self._pages and _is_of_another_site(headers, hosts[0]):
            return _refused(HTTPStatus.FORBIDDEN, "this comes from a page of another site")
        if self._token is not None and path not in self._pages | PROBES and not self._has_token(headers):
            refusal = _refused(HTTPStatus.UNAUTHORIZED, "expected the header Authorization: Bearer and the admin_token")
            refusal.headers["WWW-Authenticate"] = 'Bearer realm="receipt-actors"'
            return refusal
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected the content type application/json")
        return None

    def _is_our_name(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].strip("[]").lower()
        return name == self._host or is_loopback(name)

    def _has_token(self, headers: Headers) -> bool:
        if self._token is None:
            return False
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), self._token)


def _is_of_another_site(headers: Headers, host: str) -> bool:
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != host.lower()


def _refused(status: HTTPStatus, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status)
