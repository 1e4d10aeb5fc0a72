"""An OpenTelemetry collector on loopback, which keeps what it is sent."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.patience import PATIENCE_SECONDS


@dataclass(frozen=True)
class SeenSpan:
    """A span, as it came over the wire."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    begin_seconds: float
    end_seconds: float
    attributes: Mapping[str, Any]
    is_error: bool
    description: str
    resource: Mapping[str, Any]


class Collector:
    """Takes OTLP over HTTP; ``status`` is what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[Mapping[str, str]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.requests = 0
        self._spans: list[SeenSpan] = []
        self._changed = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = collector._take(self.path, dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector")
        self._thread.start()

    def _take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        with self._changed:
            self.requests += 1
            self._changed.notify_all()
        self.may_answer.wait(PATIENCE_SECONDS)
        if path != "/v1/traces":
            return 404
        if self.status == 200:
            data = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
            spans = _spans_of(ExportTraceServiceRequest.FromString(data))
            with self._changed:
                self.headers.append(headers)
                self._spans += spans
                self._changed.notify_all()
        return self.status

    def wait_for_requests(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.requests >= count, PATIENCE_SECONDS)

    def wait_for_spans(self, count: int) -> list[SeenSpan]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._spans) >= count, PATIENCE_SECONDS), len(self._spans)
            return list(self._spans)

    def spans(self) -> list[SeenSpan]:
        with self._changed:
            return list(self._spans)

    def traces(self) -> dict[str, list[SeenSpan]]:
        traces: defaultdict[str, list[SeenSpan]] = defaultdict(list)
        for span in self.spans():
            traces[span.trace_id].append(span)
        return traces

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


def _spans_of(request: ExportTraceServiceRequest) -> list[SeenSpan]:
    return [
        SeenSpan(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            span.start_time_unix_nano / 1e9,
            span.end_time_unix_nano / 1e9,
            _attributes(span.attributes),
            span.status.code == 2,
            span.status.message,
            _attributes(resource_spans.resource.attributes),
        )
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
