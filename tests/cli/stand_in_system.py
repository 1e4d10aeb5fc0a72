"""A system that is looked at: says what a test wants it to, and notes what it is told."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.telemetry.control import TraceRequest
from receipt_actors.telemetry.overview import (
    ActorOverview,
    Incident,
    Overview,
    ProcessOverview,
    ServiceOverview,
    State,
    Usage,
)
from receipt_actors.telemetry.statistics import Latencies, StatisticsSnapshot
from tests import stand_in_system

VERSION = importlib.metadata.version("receipt-actors")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\u202eevil"  #: sets a terminal's title, clears it, and reads backwards


def tree_of(number: int) -> ActorOverview:
    batcher = ActorOverview("result_batcher ResultsSQS", "worker", "running", 2, 50 * number, 1)
    intake = ActorOverview("intake", "worker", "running", 0, 900 * number, 0)
    validators = ActorOverview(
        "validators", "supervisor", "running", strategy="simple_one_for_one", children_unlisted=7
    )
    pipeline = ActorOverview(
        "pipeline", "supervisor", "running", strategy="rest_for_one", children=(intake, batcher, validators)
    )
    return ActorOverview("root", "supervisor", "running", strategy="one_for_one", children=(pipeline,))


def overview_of(number: int, *, state: State = State.CONSUMING, processes: int = 1, **changes: Any) -> Overview:
    """Describe the system at the second ``number`` of its life, in which it has answered 100 messages a second."""
    latencies = Latencies()
    for _ in range(100 * number):
        latencies.record(0.25)
    statistics = StatisticsSnapshot(
        received=110 * number,
        results={(Verdict.OK, Reason.CLAIMED): 100 * number},
        fates={("answered", None): 100 * number, ("handed_back", Reason.DRAINED): 3},
        latencies=latencies,
        steps={"verifying": latencies},
    )
    names = ["main"] if processes == 1 else [f"worker-{index + 1}" for index in range(processes)]
    service = ServiceOverview("app_store", True, 4, 9, 5)
    each = [
        ProcessOverview(
            name=name,
            pid=4000 + index,
            started_at_seconds=1_000_000.0,
            state=state,
            in_flight=21,
            reserved=10,
            unavailable=(),
            usage=Usage(0.5 * number, 123_000_000, 12, 34),
            services=(service,),
            tree=tree_of(number),
            statistics=statistics,
        )
        for index, name in enumerate(names)
    ]
    overview = Overview(
        at_seconds=1_000_000.0 + number,
        version=VERSION,
        state=state,
        source_queues=("ReceiptsSQS",),
        queues={"ReceiptsSQS": 1234, "ReceiptsSQSDLQ": None},
        processes=tuple(each),
        statistics=statistics,
        incidents=(Incident(999_999.0, "crash", "intake crashed while handling Tick: KeyError", count=3),),
        parent=ActorOverview("root", "supervisor", "running") if processes > 1 else None,
    )
    return replace(overview, **changes)


class StandInSystem(stand_in_system.StandInSystem):
    """See the module. A trace tells ``events`` at once, and ends if there is an ``end_reason``."""

    def __init__(self) -> None:
        super().__init__(overview_of)
        self.states = {"intake": {"in_flight": 21}}
        self.events: list[Mapping[str, Any]] = []
        self.end_reason: str | None = "limit"

    def trace(
        self, request: TraceRequest, on_event: Callable[[Mapping[str, Any]], None], on_end: Callable[[str], None]
    ) -> stand_in_system.StandInTrace:
        trace = super().trace(request, on_event, on_end)
        for event in self.events:
            on_event(event)
        if self.end_reason is not None:
            trace.stopped.set()
            on_end(self.end_reason)
        return trace
