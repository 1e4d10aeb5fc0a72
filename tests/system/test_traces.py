"""OpenTelemetry traces of the real program, one process and two, taken by a collector on loopback."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage
from tests.patience import PATIENCE_SECONDS
from tests.telemetry.collectors import Collector

from .worlds import RESULTS, EmbeddedWorld, genuine_messages

GENUINE = genuine_messages(20, 61)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("processes", [1, 2])
def test_each_receipt_has_a_trace(embedded: EmbeddedWorld, processes: int) -> None:
    """From each process, with every step in it; and what is sent names it as the parent, where there was one."""
    first, *others = GENUINE
    message_ids = embedded.send([_with(first, TRACEPARENT), *others])
    with SimulatedAppStore() as store, Collector() as collector:
        embedded.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        program = embedded.start(store, processes=processes, traces="otlp", exit_when_idle_seconds=1)
        assert program.wait_for_end() == 0
        traces = collector.traces()
    assert len(traces) == len(GENUINE)
    for spans in traces.values():
        assert sorted(span.name for span in spans) == ["claim", "delete", "receipt", "reply", "verify"]
        (root,) = [span for span in spans if span.name == "receipt"]
        assert all(root.begin_seconds <= span.begin_seconds <= span.end_seconds <= root.end_seconds for span in spans)
        assert {span.parent_id for span in spans if span is not root} == {root.span_id}
    roots = [span for spans in traces.values() for span in spans if span.name == "receipt"]
    assert {root.attributes["messaging.message.id"] for root in roots} == set(message_ids)
    assert {root.attributes["receipt_actors.verdict"] for root in roots} == {"OK"}
    assert 1 <= len({root.resource["process.pid"] for root in roots}) <= processes
    (inside,) = [root for root in roots if root.parent_id]
    assert inside.trace_id in TRACEPARENT
    handed_on = [
        letter.attributes["traceparent"] for letter in embedded.read(RESULTS) if "traceparent" in letter.attributes
    ]
    assert handed_on == [f"00-{inside.trace_id}-{inside.span_id}-01"]


def _with(message: SampleMessage, traceparent: str) -> SampleMessage:
    return replace(message, attributes={**message.attributes, "traceparent": traceparent})


def test_without_the_setting_nobody_pays_for_the_library(tmp_path: Path) -> None:
    """Neither does a start, nor who has not got it."""
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "from pathlib import Path\nfrom receipt_actors import ReceiptSystem, Settings\n"
        "with ReceiptSystem.start(Settings(database=Path(sys.argv[1]), bundle_ids=('*',))):\n    pass\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "receipts.db")], check=True, timeout=PATIENCE_SECONDS)
