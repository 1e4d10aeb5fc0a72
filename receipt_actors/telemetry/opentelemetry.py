"""Traces for OpenTelemetry: one for each walk that is over, sent by OTLP over HTTP. Needs the extra ``otel``.

It owns a queue of walks, which is bounded, and a thread that makes spans of them and exports these in batches. Trouble
of the receiver disturbs nobody: what there is no room for, and what can't be exported, is counted, told in one line
when it begins, and in one when it is over.

The standard variables hold: ``OTEL_EXPORTER_OTLP_...``, ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_SERVICE_NAME``,
``OTEL_TRACES_SAMPLER`` and its ``_ARG``, ``OTEL_BSP_MAX_QUEUE_SIZE``, ``OTEL_BSP_SCHEDULE_DELAY``,
``OTEL_BSP_MAX_EXPORT_BATCH_SIZE``, the limits of spans, and ``OTEL_SDK_DISABLED``. Import it only where it is wanted:
it brings the whole library along.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.trace_context import TraceContext
from receipt_actors.telemetry.walks import Walk

logger = logging.getLogger(__name__)

SERVICE_NAME: Final = "receipt-actors"
SPANS_A_WALK: Final = 5  #: of most
CLOSE_SECONDS: Final = 2.0  #: for what there is to be passed on at the end
THREAD_NAME: Final = "receipt-actors-traces"

#: What a span is called that stands for a step, and what it is to who was asked.
_STEPS: Final[Mapping[str, tuple[str, SpanKind]]] = {
    "verifying": ("verify", SpanKind.CLIENT),
    "claiming": ("claim", SpanKind.CLIENT),
    "replying": ("reply", SpanKind.PRODUCER),
    "moving": ("move", SpanKind.PRODUCER),
    "deleting": ("delete", SpanKind.CLIENT),
}
_ALWAYS: Final = 1 << 64


def open_walks(version: str, sample_ratio: float | None = None) -> OpenTelemetryWalks | None:
    """Make what exports walks; None where ``OTEL_SDK_DISABLED`` says so.

    Args:
        version: of this program.
        sample_ratio: which share of walks is kept that belong to no trace yet. None: what ``OTEL_TRACES_SAMPLER`` says;
            all where that says nothing.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    return OpenTelemetryWalks(OTLPSpanExporter(), Sampling.of(os.environ, sample_ratio), version)


class Sampling:
    """Which walks are kept: as ``OTEL_TRACES_SAMPLER`` means it, without a call into the library for each."""

    def __init__(self, ratio: float, *, obeys_parent: bool) -> None:
        self._bound = round(min(1.0, max(0.0, ratio)) * _ALWAYS)
        self._obeys_parent = obeys_parent

    @classmethod
    def of(cls, environ: Mapping[str, str], ratio: float | None) -> Sampling:
        """Read the standard variables; a ratio that is given goes before them."""
        if ratio is not None:
            return cls(ratio, obeys_parent=True)
        name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
        shares = {"always_on": 1.0, "always_off": 0.0, "traceidratio": _share(environ)}
        share = shares.get(name.removeprefix("parentbased_"))
        if share is None:
            logger.warning("OTEL_TRACES_SAMPLER: %r is not known here; parentbased_always_on is taken", name)
            return cls(1.0, obeys_parent=True)
        return cls(share, obeys_parent=name.startswith("parentbased_"))

    def keeps(self, trace_id: int, parent: TraceContext | None) -> bool:
        """Decide on a trace."""
        if parent is not None and self._obeys_parent:
            return parent.is_sampled
        return trace_id % _ALWAYS < self._bound


def _share(environ: Mapping[str, str]) -> float:
    try:
        return float(environ.get("OTEL_TRACES_SAMPLER_ARG", "1.0"))
    except ValueError:
        logger.warning("OTEL_TRACES_SAMPLER_ARG: a number from 0 to 1 is expected; every receipt is traced")
        return 1.0


class OpenTelemetryWalks:
    """See the module; ``telemetry.walks.Walks``."""

    def __init__(self, exporter: SpanExporter, sampling: Sampling, version: str) -> None:
        self._exporter = exporter
        self._sampling = sampling
        self._rng = random.Random()  # seeded by the operating system
        self._spans = _Spans(version)
        self._most = max(1, _variable("OTEL_BSP_MAX_QUEUE_SIZE", 2048))
        self._batch = max(1, _variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512) // SPANS_A_WALK)
        self._delay_seconds = _variable("OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000
        self._changed = threading.Condition(
            threading.RLock()
        )  # held for a moment; a finalizer may come back to it on the same thread
        self._waiting: deque[Walk] = deque()
        self._is_closing = False
        self._is_in_trouble = False
        self.lost = 0  #: walks that were not exported
        self._quiet = _QuietExporter()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    def context(self, parent: TraceContext | None) -> TraceContext:
        """See ``Walks``."""
        trace_id = (self._rng.getrandbits(128) or 1) if parent is None else parent.trace_id
        return TraceContext(trace_id, self._rng.getrandbits(64) or 1, self._sampling.keeps(trace_id, parent))

    def over(self, walk: Walk) -> None:
        """See ``Walks``."""
        with self._changed:
            if len(self._waiting) >= self._most or self._is_closing:
                self.lost += 1
                return
            self._waiting.append(walk)
            if len(self._waiting) == self._batch:
                self._changed.notify()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """See ``Walks``. A request under way that does not end in time is left behind, on a daemon thread. Once."""
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
            self._changed.notify()
        self._thread.join(seconds)
        self._exporter.shutdown()  # ends the pauses between retries
        self._thread.join(0.5)
        with self._changed:
            self.lost += len(self._waiting)
            self._waiting.clear()
        self._quiet.end()
        if self.lost:
            logger.warning("the traces of %d receipts were not exported", self.lost)

    def _run(self) -> None:
        while walks := self._next():
            spans = [span for walk in walks for span in self._spans.of(walk)]
            if self._exporter.export(spans) is SpanExportResult.SUCCESS:
                self._told_trouble(False, "traces are exported again; those of %d receipts were lost")
            else:
                self.lost += len(walks)
                self._told_trouble(True, "traces can't be exported; those of %d receipts are lost so far")

    def _next(self) -> list[Walk]:
        """Wait for a batch, or until some have waited long enough; an empty one is the end."""
        with self._changed:
            deadline = time.monotonic() + self._delay_seconds
            while not self._is_closing and len(self._waiting) < self._batch:
                left = deadline - time.monotonic()
                if left <= 0:
                    if self._waiting:
                        break
                    deadline, left = time.monotonic() + self._delay_seconds, self._delay_seconds
                self._changed.wait(left)
            return [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]

    def _told_trouble(self, is_in_trouble: bool, text: str) -> None:
        if is_in_trouble is not self._is_in_trouble:
            self._is_in_trouble = is_in_trouble
            logger.warning(text, self.lost)


class _QuietExporter(logging.Filter):
    """Keeps the library from telling of each request that failed: it is told here, once."""

    def __init__(self) -> None:
        super().__init__()
        self._logger = logging.getLogger(OTLPSpanExporter.__module__)
        self._logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != THREAD_NAME

    def end(self) -> None:
        self._logger.removeFilter(self)


class _Spans(RandomIdGenerator, SpanProcessor):
    """Makes the spans of a walk, with the ids that it has already; on one thread."""

    def __init__(self, version: str) -> None:
        ours: dict[str, str | int] = {
            "service.name": SERVICE_NAME,
            "service.version": version,
            "process.pid": os.getpid(),
        }
        given = OTELResourceDetector().detect().attributes
        resource = Resource.create({name: value for name, value in ours.items() if name not in given})
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self)
        provider.add_span_processor(self)
        self._tracer = provider.get_tracer("receipt_actors", version)
        self._ended: list[ReadableSpan] = []
        self._next: TraceContext | None = None  # of the span that is made now

    def generate_trace_id(self) -> int:
        """See ``IdGenerator``."""
        return super().generate_trace_id() if self._next is None else self._next.trace_id

    def generate_span_id(self) -> int:
        """See ``IdGenerator``."""
        return super().generate_span_id() if self._next is None else self._next.span_id

    def on_end(self, span: ReadableSpan) -> None:
        """See ``SpanProcessor``."""
        self._ended.append(span)

    def of(self, walk: Walk) -> list[ReadableSpan]:
        """Return the spans of a walk."""
        self._ended = []
        parent = Context() if walk.parent is None else _remote(walk.parent)
        self._next = walk.context
        root = self._tracer.start_span(
            "receipt", parent, SpanKind.CONSUMER, _attributes(walk), start_time=_nanoseconds(walk.began_at_seconds)
        )
        self._next = None
        inside = set_span_in_context(root, Context())
        ends = [*(begin for _step, begin in walk.steps[1:]), walk.ended_at_seconds]
        for number, ((step, begin), end) in enumerate(zip(walk.steps, ends, strict=True), start=1):
            name, kind = _STEPS.get(step, (step, SpanKind.INTERNAL))
            about = dict(_of_step(walk, step))
            span = self._tracer.start_span(name, inside, kind, about, start_time=_nanoseconds(begin))
            if number == len(walk.steps) and walk.fate == "handed_back":
                span.set_status(_error(walk))
            span.end(_nanoseconds(end))
        if walk.fate != "answered":
            root.set_status(_error(walk))
        root.end(_nanoseconds(walk.ended_at_seconds))
        return self._ended


def _attributes(walk: Walk) -> dict[str, str | int | list[str]]:
    """Name what is known of a walk as the semantic conventions of messaging do, and the rest as ours."""
    attributes: dict[str, str | int | list[str] | None] = {
        "messaging.system": "aws_sqs",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": walk.source_queue,
        "messaging.message.id": walk.message_id,
        "receipt_actors.receive_count": walk.receive_count,
        "receipt_actors.fate": walk.fate,
        "receipt_actors.user_id": walk.user_id,
        "receipt_actors.submission_id": walk.submission_id,
        "receipt_actors.post_queue": walk.post_queue,
        "receipt_actors.reason": None if walk.reason is None else walk.reason.value,
    }
    if walk.results:
        shown = next((result for result in walk.results if result.verdict is Verdict.OK), walk.results[0])
        attributes["receipt_actors.verdict"] = shown.verdict.value
        attributes["receipt_actors.transaction_id"] = shown.transaction_id or None
        if walk.reason is None:
            attributes["receipt_actors.reason"] = shown.reason.value
        if len(walk.results) > 1:
            attributes["receipt_actors.transaction_ids"] = [result.transaction_id for result in walk.results]
    return {name: value for name, value in attributes.items() if value is not None}


def _of_step(walk: Walk, step: str) -> Iterator[tuple[str, str]]:
    if step == "claiming":
        yield "db.system.name", "aws.dynamodb"
    if step in ("replying", "deleting", "moving"):
        yield "messaging.system", "aws_sqs"
    if step == "replying" and walk.post_queue is not None:
        yield "messaging.destination.name", walk.post_queue
    if step == "deleting":
        yield "messaging.destination.name", walk.source_queue


def _error(walk: Walk) -> Status:
    return Status(StatusCode.ERROR, None if walk.reason is None else walk.reason.value)


def _remote(parent: TraceContext) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if parent.is_sampled else TraceFlags.DEFAULT)
    context = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context), Context())


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdecimal() else default
