"""An OpenTelemetry collector on loopback, which keeps what it is sent."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, response
from tests.patience import PATIENCE_SECONDS


@dataclass(frozen=True)
class SeenSpan:
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


class Collector(HttpServer):
    """Takes OTLP over HTTP; as a context manager it serves. While it ``hangs`` it answers nothing."""

    def __init__(self) -> None:
        super().__init__(self._take)
        self.hangs = False
        self.seen_headers: list[Callable[[str], str | None]] = []  #: of each request, by name
        self.requests = 0
        self._spans: list[SeenSpan] = []
        self._changed = threading.Condition()

    def _take(self, request: Request) -> Reply:
        assert (request.method, request.path) == ("POST", "/v1/traces")
        with self._changed:
            self.requests += 1
            self._changed.notify_all()
            if self.hangs:
                return Reply(b"", 3600.0, hangs=True)
            is_packed = request.header("content-encoding") == "gzip"
            data = gzip.decompress(request.body) if is_packed else request.body
            self.seen_headers.append(request.header)
            self._spans += _spans_of(ExportTraceServiceRequest.FromString(data))
        return Reply(response(200, b""))

    def wait_for_requests(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.requests >= count, PATIENCE_SECONDS)

    def wait_for_spans(self, count: int) -> list[SeenSpan]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._spans) >= count, PATIENCE_SECONDS), len(self._spans)
            return list(self._spans)

    def traces(self) -> dict[str, list[SeenSpan]]:
        traces: defaultdict[str, list[SeenSpan]] = defaultdict(list)
        for span in self.wait_for_spans(0):
            traces[span.trace_id].append(span)
        return traces

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.drop_hanging()
        self.stop()


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
