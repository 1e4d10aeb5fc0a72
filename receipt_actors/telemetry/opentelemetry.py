"""Traces for OpenTelemetry: one for each delivery that is over, sent by OTLP over HTTP. Needs the extra ``otel``.

The SDK's batch processor queues the spans and exports them on a thread of its own. What there is no room for, and what
can't be exported, is lost, and the SDK logs it.

The standard variables hold: ``OTEL_EXPORTER_OTLP_...``, ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_SERVICE_NAME``,
``OTEL_TRACES_SAMPLER`` and its ``_ARG``, ``OTEL_BSP_...`` and ``OTEL_SDK_DISABLED``. Import it only where it is wanted:
it brings the whole library along.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator, Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from receipt_actors.domain.messages import TraceContext, Verdict
from receipt_actors.errors import ConfigurationError
from receipt_actors.telemetry.trace_exporter import FinishedDelivery

SERVICE_NAME: Final = "receipt-actors"
CLOSE_SECONDS: Final = 2.0  #: for what there is to be passed on at the end

#: What a span is called that stands for a step, and what it is to who was asked.
_STEPS: Final[Mapping[str, tuple[str, SpanKind]]] = {
    "verifying": ("verify", SpanKind.CLIENT),
    "claiming": ("claim", SpanKind.CLIENT),
    "replying": ("reply", SpanKind.PRODUCER),
    "moving": ("move", SpanKind.PRODUCER),
    "deleting": ("delete", SpanKind.CLIENT),
}


def open_exporter(version: str) -> OpenTelemetryExporter | None:
    """Make what exports deliveries of this version of the program; None where ``OTEL_SDK_DISABLED`` says so.

    Raises:
        ConfigurationError: the variables ``OTEL_BSP_...`` contradict each other.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        return OpenTelemetryExporter(OTLPSpanExporter(), version)
    except ValueError as error:
        raise ConfigurationError([f"OTEL_BSP_...: {error}"]) from error


class OpenTelemetryExporter:
    """See the module; a ``TraceExporter``."""

    def __init__(self, exporter: SpanExporter, version: str) -> None:
        ours: dict[str, str | int] = {
            "service.name": SERVICE_NAME,
            "service.version": version,
            "process.pid": os.getpid(),
        }
        given = OTELResourceDetector().detect().attributes
        self._resource = Resource.create({name: value for name, value in ours.items() if name not in given})
        self._sampler = TracerProvider(resource=self._resource, shutdown_on_exit=False).sampler
        self._scope = InstrumentationScope("receipt_actors", version)
        self._exporter = exporter
        self._processor = BatchSpanProcessor(exporter)
        self._rng = random.Random()  # seeded by the operating system

    def context(self, parent: TraceContext | None) -> TraceContext:
        trace_id = (self._rng.getrandbits(128) or 1) if parent is None else parent.trace_id
        around = Context()
        if parent is not None:
            around = set_span_in_context(NonRecordingSpan(_context(parent, is_remote=True)), around)
        decision = self._sampler.should_sample(around, trace_id, "receipt").decision
        return TraceContext(trace_id, self._rng.getrandbits(64) or 1, decision is Decision.RECORD_AND_SAMPLE)

    def over(self, delivery: FinishedDelivery) -> None:
        for span in self._spans(delivery):
            self._processor.on_end(span)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """See ``TraceExporter``. A request under way that does not end in time is left behind, on a daemon thread."""
        closing = threading.Thread(target=self._processor.shutdown, name="receipt-actors-traces", daemon=True)
        closing.start()
        closing.join(seconds)
        self._exporter.shutdown()  # ends the pauses between retries

    def _spans(self, delivery: FinishedDelivery) -> Iterator[ReadableSpan]:
        """Make the spans of a delivery: those of its steps first, then its own, whose id is known already."""
        root = _context(delivery.context)
        ends = [*(begin for _step, begin in delivery.steps[1:]), delivery.ended_at_seconds]
        for number, ((step, begin), end) in enumerate(zip(delivery.steps, ends, strict=True), start=1):
            name, kind = _STEPS.get(step, (step, SpanKind.INTERNAL))
            is_given_up = number == len(delivery.steps) and delivery.fate == "handed_back"
            yield ReadableSpan(
                name,
                _context(TraceContext(delivery.context.trace_id, self._rng.getrandbits(64) or 1, is_sampled=True)),
                root,
                self._resource,
                dict(_of_step(delivery, step)),
                kind=kind,
                status=_error(delivery) if is_given_up else Status(),
                start_time=_nanoseconds(begin),
                end_time=_nanoseconds(end),
                instrumentation_scope=self._scope,
            )
        yield ReadableSpan(
            "receipt",
            root,
            None if delivery.parent is None else _context(delivery.parent, is_remote=True),
            self._resource,
            _attributes(delivery),
            kind=SpanKind.CONSUMER,
            status=Status() if delivery.fate == "answered" else _error(delivery),
            start_time=_nanoseconds(delivery.began_at_seconds),
            end_time=_nanoseconds(delivery.ended_at_seconds),
            instrumentation_scope=self._scope,
        )


def _attributes(delivery: FinishedDelivery) -> dict[str, str | int | list[str]]:
    """Name what is known of a delivery as the semantic conventions of messaging do, and the rest as ours."""
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


def _context(context: TraceContext, *, is_remote: bool = False) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.is_sampled else TraceFlags.DEFAULT)
    return SpanContext(context.trace_id, context.span_id, is_remote, flags)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
