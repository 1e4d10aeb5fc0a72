"""The ASGI application: what each path of the admin port does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from receipt_actors.admin.metrics import exposition
from receipt_actors.admin.security import Guard
from receipt_actors.admin.streams import MEDIA_TYPE, EventStream, TraceStream
from receipt_actors.admin.watch import MAX_PAGES, Calls, NotAnswered, Watch
from receipt_actors.errors import TraceRefused
from receipt_actors.telemetry.control import TraceRequest, UnknownActor
from receipt_actors.telemetry.health import Health

MAX_TRACES = 4  #: that run at once
MAX_BODY_BYTES = 16 * 1024
FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Routes:
    def __init__(self, watch: Watch, calls: Calls) -> None:
        self._watch = watch
        self._calls = calls
        self._traces: set[TraceStream] = set()

    async def overview(self, _request: Request) -> Response:
        overview = await self._watch.overview()
        return JSONResponse(overview.as_json())

    async def history(self, _request: Request) -> Response:
        return JSONResponse(self._watch.history())

    async def events(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type=MEDIA_TYPE)
        if not self._watch.open_page():
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_PAGES} pages are open, and no more may be")
        return EventStream(self._watch.page_events(), self._watch.close_page)

    async def pause(self, request: Request) -> Response:
        return await self._command(request, self._watch.control.pause)

    async def resume(self, request: Request) -> Response:
        return await self._command(request, self._watch.control.resume)

    async def _command(self, request: Request, call: Callable[[], None]) -> Response:
        if await _json_object(request):
            raise HTTPException(HTTPStatus.BAD_REQUEST, "expected an empty object as the body: {}")
        await self._calls.run(call)
        self._watch.forget()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def actor(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            return JSONResponse(await self._calls.run(partial(self._watch.control.actor_state, name)))
        except UnknownActor:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"no actor is named {name!r}") from None

    async def trace(self, request: Request) -> Response:
        body = await _json_object(request)
        if unknown := sorted(set(body) - {"filters", "limit", "seconds"}):
            raise TraceRefused(f"found {unknown[0]!r}, expected filters, limit and seconds only")
        wanted = TraceRequest(**{"filters": {}, **body})
        if len(self._traces) >= MAX_TRACES:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_TRACES} traces run, and no more may")
        stream = TraceStream()
        self._traces.add(stream)
        try:
            trace = stream.trace = await self._calls.run(
                partial(self._watch.control.trace, wanted, stream.take, stream.end),
                if_late=lambda late: self._calls.begin(late.stop),
            )
        except BaseException:
            self._traces.discard(stream)
            raise

        def over() -> None:
            self._traces.discard(stream)
            self._calls.begin(trace.stop)

        return EventStream(stream.events(), over)

    async def metrics(self, request: Request) -> Response:
        overview = await self._watch.overview()
        content, media_type = exposition(overview, request.headers.get("accept", ""))
        return Response(content, media_type=media_type)

    async def healthz(self, _request: Request) -> Response:
        health = await self._watch.health()
        return _probe(health, health.is_healthy)

    async def readyz(self, _request: Request) -> Response:
        health = await self._watch.health()
        return _probe(health, health.is_ready)

    def close(self) -> None:
        for stream in self._traces:
            stream.end("the admin port is being closed")


def _file(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """Answer with a file; a browser that has this very file is not sent it again."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return answer


def application(routes: Routes, host: str, token: str | None) -> ASGIApp:
    names = ["", *sorted(file.name for file in FOLDER.iterdir() if file.suffix in _MEDIA_TYPES)]
    files = {f"/{name}": FOLDER / (name or INDEX) for name in names}
    app = Starlette(
        routes=[
            *(Route(path, _file(file.read_bytes(), _MEDIA_TYPES[file.suffix])) for path, file in files.items()),
            Route("/api/overview", routes.overview),
            Route("/api/history", routes.history),
            Route("/api/events", routes.events),
            Route("/api/pause", routes.pause, methods=["POST"]),
            Route("/api/resume", routes.resume, methods=["POST"]),
            Route("/api/actors/{name:path}", routes.actor),
            Route("/api/trace", routes.trace, methods=["POST"]),
            Route("/metrics", routes.metrics),
            Route("/healthz", routes.healthz),
            Route("/readyz", routes.readyz),
        ],
        exception_handlers=dict.fromkeys((HTTPException, NotAnswered, TraceRefused, Exception), _error),
    )
    app.router.redirect_slashes = False
    return Guard(app, host, token, files)


def _probe(health: Health, is_well: bool) -> Response:
    return JSONResponse(health.as_json(), HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE)


async def _json_object(request: Request) -> Mapping[str, Any]:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected a body of at most {MAX_BODY_BYTES} bytes"
                )
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body never came") from None
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "expected a JSON object as the body")
    return data


async def _error(_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
    if isinstance(error, NotAnswered):
        return JSONResponse({"error": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE)
    if isinstance(error, TraceRefused):
        return JSONResponse({"error": str(error)}, HTTPStatus.BAD_REQUEST)
    return JSONResponse({"error": "an error of the admin port, see its log"}, HTTPStatus.INTERNAL_SERVER_ERROR)
