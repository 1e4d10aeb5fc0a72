"""Traces for OpenTelemetry: one for each delivery that is over, by OTLP over HTTP. Needs the extra ``otel``.

The SDK queues the spans and exports them on a thread of its own; it logs those that it loses. Its standard variables
``OTEL_...`` hold. Import this module only where it is needed: it imports the whole library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from receipt_actors.domain.messages import TraceContext, Verdict
from receipt_actors.errors import ConfigurationError
from receipt_actors.telemetry.tracing import FinishedDelivery

SERVICE_NAME: Final = "receipt-actors"
CLOSE_SECONDS: Final = 2.0  #: for what there is to be passed on at the end

#: Name and kind of the span of a step.
_STEPS: Final[Mapping[str, tuple[str, SpanKind]]] = {
    "verifying": ("verify", SpanKind.CLIENT),
    "claiming": ("claim", SpanKind.CLIENT),
    "replying": ("reply", SpanKind.PRODUCER),
    "moving": ("move", SpanKind.PRODUCER),
    "deleting": ("delete", SpanKind.CLIENT),
}


def open_exporter(version: str) -> OpenTelemetryExporter | None:
    """Open the exporter; None if ``OTEL_SDK_DISABLED``. Raises ``ConfigurationError`` for a wrong ``OTEL_BSP_...``."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        return OpenTelemetryExporter(OTLPSpanExporter(), version)
    except ValueError as error:
        raise ConfigurationError([f"OTEL_BSP_...: {error}"]) from error


class OpenTelemetryExporter:
    """Any thread may call its methods, which return at once, except ``close``."""

    def __init__(self, exporter: SpanExporter, version: str) -> None:
        ours: dict[str, str | int] = {
            "service.name": SERVICE_NAME,
            "service.version": version,
            "process.pid": os.getpid(),
        }
        given = OTELResourceDetector().detect().attributes
        resource = Resource.create({name: value for name, value in ours.items() if name not in given})
        self._exporter = exporter
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("receipt_actors", version)

    def begin(self, parent: TraceContext | None, began_at_seconds: float) -> DeliverySpan:
        """Begin the span of a delivery (UNIX time); ``parent`` is the context of its message."""
        around = Context()
        if parent is not None:
            flags = TraceFlags(TraceFlags.SAMPLED if parent.is_sampled else TraceFlags.DEFAULT)
            remote = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
            around = set_span_in_context(NonRecordingSpan(remote), around)
        began_at = _nanoseconds(began_at_seconds)
        span = self._tracer.start_span("receipt", around, SpanKind.CONSUMER, start_time=began_at)
        return DeliverySpan(self._tracer, span)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Export the rest. A request that takes longer is left to a daemon thread."""
        closing = threading.Thread(target=self._provider.shutdown, name="receipt-actors-traces", daemon=True)
        closing.start()
        closing.join(seconds)
        self._exporter.shutdown()  # ends the pauses between retries


class DeliverySpan:
    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def is_wanted(self) -> bool:
        return self._span.is_recording()

    @property
    def context(self) -> TraceContext:
        context = self._span.get_span_context()
        return TraceContext(context.trace_id, context.span_id, context.trace_flags.sampled)

    def end(self, delivery: FinishedDelivery) -> None:
        within = set_span_in_context(self._span, Context())
        ends = [*(begin for _step, begin in delivery.steps[1:]), delivery.ended_at_seconds]
        for number, ((step, begin), end) in enumerate(zip(delivery.steps, ends, strict=True), start=1):
            name, kind = _STEPS.get(step, (step, SpanKind.INTERNAL))
            attributes = dict(_of_step(delivery, step))
            span = self._tracer.start_span(name, within, kind, attributes, start_time=_nanoseconds(begin))
            if number == len(delivery.steps) and delivery.fate == "handed_back":
                span.set_status(_error(delivery))
            span.end(_nanoseconds(end))
        self._span.set_attributes(_attributes(delivery))
        if delivery.fate != "answered":
            self._span.set_status(_error(delivery))
        self._span.end(_nanoseconds(delivery.ended_at_seconds))


def _attributes(delivery: FinishedDelivery) -> dict[str, str | int | list[str]]:
    # Named as in the semantic conventions of messaging; the others have our own prefix.
    attributes: dict[str, str | int | list[str] | None] = {
        "messaging.system": "aws_sqs",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": delivery.source_queue,
        "messaging.message.id": delivery.message_id,
        "receipt_actors.receive_count": delivery.receive_count,
        "receipt_actors.fate": delivery.fate,
        "receipt_actors.user_id": delivery.user_id,
        "receipt_actors.submission_id": delivery.submission_id,
        "receipt_actors.post_queue": delivery.post_queue,
        "receipt_actors.reason": None if delivery.reason is None else delivery.reason.value,
    }
    if delivery.results:
        shown = next((result for result in delivery.results if result.verdict is Verdict.OK), delivery.results[0])
        attributes["receipt_actors.verdict"] = shown.verdict.value
        attributes["receipt_actors.transaction_id"] = shown.transaction_id or None
        if delivery.reason is None:
            attributes["receipt_actors.reason"] = shown.reason.value
        if len(delivery.results) > 1:
            attributes["receipt_actors.transaction_ids"] = [result.transaction_id for result in delivery.results]
    return {name: value for name, value in attributes.items() if value is not None}


def _of_step(delivery: FinishedDelivery, step: str) -> Iterator[tuple[str, str]]:
    if step == "claiming":
        yield "db.system.name", "aws.dynamodb"
    if step in ("replying", "deleting", "moving"):
        yield "messaging.system", "aws_sqs"
    if step == "replying" and delivery.post_queue is not None:
        yield "messaging.destination.name", delivery.post_queue
    if step == "deleting":
        yield "messaging.destination.name", delivery.source_queue


def _error(delivery: FinishedDelivery) -> Status:
    return Status(StatusCode.ERROR, None if delivery.reason is None else delivery.reason.value)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
