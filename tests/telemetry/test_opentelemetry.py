"""Traces for OpenTelemetry, told to a collector on loopback: what is in them, and what trouble does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from receipt_actors.domain.messages import Result, TraceContext, Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import ConfigurationError
from receipt_actors.telemetry.opentelemetry import OpenTelemetryExporter, open_exporter
from receipt_actors.telemetry.tracing import FinishedDelivery, tracer_of
from tests.patience import PATIENCE_SECONDS
from tests.pipeline.trees import Tree, tree_of
from tests.telemetry.collectors import Collector, SeenSpan

Opened: TypeAlias = Callable[[], OpenTelemetryExporter]
PARENT = TraceContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, is_sampled=True)
STEPS = (("verifying", 100.0), ("claiming", 100.25), ("replying", 100.5), ("deleting", 100.75))


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        yield collector


@pytest.fixture
def opened(collector: Collector) -> Iterator[Opened]:
    all_exporters: list[OpenTelemetryExporter] = []

    def start() -> OpenTelemetryExporter:
        exporter = open_exporter("1.2.3")
        assert exporter is not None
        all_exporters.append(exporter)
        return exporter

    yield start
    collector.drop_hanging()
    for exporter in all_exporters:
        exporter.close()
    for thread in threading.enumerate():
        if thread.name.startswith(("OtelBatch", "receipt-actors-traces")):
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()


def export(exporter: OpenTelemetryExporter, parent: TraceContext | None = None, **fields: Any) -> TraceContext:
    known: dict[str, Any] = {
        "source_queue": "ReceiptsSQS",
        "message_id": "m-1",
        "receive_count": 2,
        "ended_at_seconds": 101.0,
        "steps": STEPS,
        "fate": "answered",
        "reason": None,
        "user_id": 42,
        "submission_id": "s-1",
        "post_queue": "ResultsSQS",
        "results": (Result("t-1", Verdict.OK, Reason.CLAIMED),),
    }
    span = exporter.begin(parent, 100.0)
    span.end(FinishedDelivery(**(known | fields)))
    return span.context


def of_name(spans: list[SeenSpan], name: str) -> SeenSpan:
    (span,) = [span for span in spans if span.name == name]
    return span


def test_a_delivery_becomes_a_span_with_one_for_each_step(collector: Collector, opened: Opened) -> None:
    exporter = opened()
    export(exporter)
    spans = collector.wait_for_spans(5)
    root = of_name(spans, "receipt")
    assert root.kind == "CONSUMER"
    assert (root.begin_seconds, root.end_seconds, root.parent_id, root.is_error) == (100.0, 101.0, "", False)
    assert root.attributes == {
        "messaging.system": "aws_sqs",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "ReceiptsSQS",
        "messaging.message.id": "m-1",
        "receipt_actors.receive_count": 2,
        "receipt_actors.fate": "answered",
        "receipt_actors.user_id": 42,
        "receipt_actors.submission_id": "s-1",
        "receipt_actors.post_queue": "ResultsSQS",
        "receipt_actors.reason": "claimed",
        "receipt_actors.verdict": "OK",
        "receipt_actors.transaction_id": "t-1",
    }
    steps = [span for span in spans if span is not root]
    assert [(span.name, span.begin_seconds, span.end_seconds) for span in steps] == [
        ("verify", 100.0, 100.25),
        ("claim", 100.25, 100.5),
        ("reply", 100.5, 100.75),
        ("delete", 100.75, 101.0),
    ]
    assert {(span.trace_id, span.parent_id) for span in steps} == {(root.trace_id, root.span_id)}
    assert of_name(spans, "reply").attributes["messaging.destination.name"] == "ResultsSQS"
    assert root.resource["service.name"] == "receipt-actors"
    assert root.resource["service.version"] == "1.2.3"


@pytest.mark.parametrize(
    ("fate", "reason", "last_is_error"),
    [("handed_back", Reason.GAVE_UP_FOR_NOW, True), ("moved", Reason.NOT_JSON, False)],
)
def test_what_has_no_answer_is_an_error(
    collector: Collector, opened: Opened, fate: str, reason: Reason, last_is_error: bool
) -> None:
    exporter = opened()
    export(exporter, fate=fate, reason=reason, steps=STEPS[:2], results=())
    spans = collector.wait_for_spans(3)
    root = of_name(spans, "receipt")
    assert (root.is_error, root.description) == (True, reason.value)
    assert not of_name(spans, "verify").is_error
    assert of_name(spans, "claim").is_error is last_is_error


def test_a_delivery_belongs_to_the_trace_that_its_message_came_with(collector: Collector, opened: Opened) -> None:
    exporter = opened()
    context = export(exporter, PARENT)
    root = of_name(collector.wait_for_spans(5), "receipt")
    assert (root.trace_id, root.parent_id) == (f"{PARENT.trace_id:032x}", f"{PARENT.span_id:016x}")
    assert context.traceparent == f"00-{root.trace_id}-{root.span_id}-01"


def test_the_standard_variables_hold(collector: Collector, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=staging,service.version=9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=k")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    exporter = opened()
    export(exporter)
    (span, *_others) = collector.wait_for_spans(5)
    assert span.resource.items() >= {
        ("service.name", "shop"),
        ("service.version", "9"),
        ("deployment.environment", "staging"),
    }
    header = collector.seen_headers[0]
    assert (header("api-key"), header("content-encoding")) == ("k", "gzip")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")  # less than a batch
    with pytest.raises(ConfigurationError, match="OTEL_BSP_"):
        open_exporter("1.2.3")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_exporter("1.2.3") is None


@pytest.mark.parametrize(
    ("sampler", "argument", "kept", "kept_of_parents"),
    [("", "", 1.0, (True, False)), ("parentbased_traceidratio", "0.25", 0.25, (True, False))],
)
def test_sampling(
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    argument: str,
    kept: float,
    kept_of_parents: tuple[bool, bool],
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    exporter = opened()
    share = sum(exporter.begin(None, 0.0).is_wanted for _ in range(2000)) / 2000
    assert abs(share - kept) < 0.08
    parents = (PARENT, TraceContext(PARENT.trace_id, PARENT.span_id, is_sampled=False))
    assert tuple(exporter.begin(parent, 0.0).is_wanted for parent in parents) == kept_of_parents


def test_a_collector_that_hangs_holds_up_nobody(
    collector: Collector, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")
    collector.hangs = True
    exporter = opened()
    for _ in range(15):
        export(exporter)
    collector.wait_for_requests(1)
    exporter.close(0.1)


@pytest.fixture
def tree() -> Iterator[Tree]:
    yield from tree_of()


def test_every_message_has_a_trace(tree: Tree, collector: Collector, opened: Opened) -> None:
    tracer_of(tree.actors).exporter = opened()
    services = tree.services
    source = services.settings.source_queue
    services.submit(services.app_store.sell("t-1"), user_id=1)
    with_context = services.app_store.sell("t-2")
    body = f'{{"receipt": "{with_context}", "user_id": 2, "post_queue": "ResultsSQS"}}'
    services.queues.put(source, body, {"traceparent": PARENT.traceparent})
    services.queues.put(source, "no json", {"traceparent": PARENT.traceparent})
    services.app_store.script("misconfigured", {"status": 21004})
    services.submit("misconfigured", user_id=3)
    tree.settle()
    tree.advance(0.1)
    hold = tree.hold("app_store", "verify_receipt", after=False)
    services.submit(services.app_store.sell("t-4"), user_id=4)
    tree.settle()
    tree.crash("validator")
    hold.release()
    spans = collector.wait_for_spans(5 + 5 + 3 + 2 + 2)
    roots = [span for span in spans if span.name == "receipt"]
    seen = [(root.attributes.get("receipt_actors.user_id"), root.attributes["receipt_actors.fate"]) for root in roots]
    assert sorted(seen, key=str) == [
        (1, "answered"),
        (2, "answered"),
        (3, "handed_back"),
        (4, "handed_back"),
        (None, "moved"),
    ]
    handed_on = {result["user_id"]: message.attributes.get("traceparent") for result, message in answers(tree)}
    (second,) = [root for root in roots if root.attributes.get("receipt_actors.user_id") == 2]
    assert handed_on == {1: None, 2: f"00-{second.trace_id}-{second.span_id}-01"}
    assert second.parent_id == f"{PARENT.span_id:016x}"
    (dead_letter,) = services.queues.messages(services.dead_letter_queue)
    assert dead_letter.attributes["traceparent"] == PARENT.traceparent


def test_without_opentelemetry_a_context_is_handed_on_as_it_is(tree: Tree) -> None:
    receipt = tree.services.app_store.sell("t-1")
    body = f'{{"receipt": "{receipt}", "user_id": 2, "post_queue": "ResultsSQS"}}'
    for traceparent in (PARENT.traceparent, "nonsense"):
        tree.services.queues.put(tree.services.settings.source_queue, body, {"traceparent": traceparent})
        tree.settle()
        tree.advance(0.1)
    first, second = answers(tree)
    assert first[1].attributes["traceparent"] == PARENT.traceparent
    assert "traceparent" not in second[1].attributes


def answers(tree: Tree) -> list[tuple[dict[str, Any], Any]]:
    return list(zip(tree.results(), tree.services.queues.messages("ResultsSQS"), strict=True))
