"""A ``SystemControl`` for tests of what looks at a system: it notes what it is told. And overviews that it may show."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.telemetry.control import TraceRequest, UnknownActor
from receipt_actors.telemetry.overview import (
    ActorOverview,
    Incident,
    Overview,
    ProcessOverview,
    ServiceOverview,
    State,
    Usage,
)
from receipt_actors.telemetry.statistics import Latencies, ServiceCalls, StatisticsSnapshot
from tests.patience import PATIENCE_SECONDS

VERSION = importlib.metadata.version("receipt-actors")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\u202eevil"  #: sets a terminal's title, clears it, and reads backwards


def worker(name: str, messages: int = 0, mailbox: int = 0, restarts: int = 0, status: str = "running") -> ActorOverview:
    return ActorOverview(name, "worker", status, mailbox, messages, restarts)


def supervisor(name: str, strategy: str, *children: ActorOverview, unlisted: int = 0) -> ActorOverview:
    return ActorOverview(name, "supervisor", "running", 0, 0, 0, strategy, children, unlisted)


def latencies(*seconds: float) -> Latencies:
    counted = Latencies()
    for each in seconds:
        counted.record(each)
    return counted


def statistics_of(number: int) -> StatisticsSnapshot:
    """Count what was done in so many seconds, with 100 answers a second."""
    counted = latencies(*[0.25] * (100 * number))
    return StatisticsSnapshot(
        received=110 * number,
        results={(Verdict.OK, Reason.CLAIMED): 100 * number},
        fates={("answered", None): 100 * number, ("handed_back", Reason.DRAINED): 3, ("moved", Reason.NOT_JSON): 2},
        latencies=counted,
        steps={"verifying": counted},
        calls={"ledger": ServiceCalls(30 * number, 65 * number)},
        incidents={"crash": 4},
    )


def process_of(number: int, name: str = "main", state: State = State.CONSUMING, **changes: Any) -> ProcessOverview:
    """Describe a process at the second ``number`` of its life."""
    batcher = worker("result_batcher ResultsSQS", 50 * number, 2, 1)
    validators = supervisor("validators", "simple_one_for_one", unlisted=7)
    pipeline = supervisor("pipeline", "rest_for_one", worker("intake", 900 * number), batcher, validators)
    process = ProcessOverview(
        name=name,
        pid=4000,
        started_at_seconds=1_000_000.0,
        state=state,
        in_flight=21,
        reserved=10,
        unavailable=(),
        usage=Usage(0.5 * number, 123_000_000, 12, 34),
        services=(ServiceOverview("app_store", True, 4, 9, 5),),
        tree=supervisor("root", "one_for_one", pipeline),
        statistics=statistics_of(number),
    )
    return replace(process, **changes)


def overview_of(number: int, *, state: State = State.CONSUMING, processes: int = 1, **changes: Any) -> Overview:
    names = ["main"] if processes == 1 else [f"worker-{index + 1}" for index in range(processes)]
    overview = Overview(
        at_seconds=1_000_000.0 + number,
        version=VERSION,
        state=state,
        source_queues=("ReceiptsSQS",),
        queues={"ReceiptsSQS": 1234, "ReceiptsSQSDLQ": None},
        processes=tuple(process_of(number, name, state, pid=4000 + index) for index, name in enumerate(names)),
        statistics=statistics_of(number),
        incidents=(Incident(999_999.0, "crash", "intake crashed while handling Tick: KeyError", count=3),),
        parent=ActorOverview("root", "supervisor", "running") if processes > 1 else None,
    )
    return replace(overview, **changes)


class StandInTrace:
    def __init__(
        self, request: TraceRequest, on_event: Callable[[Mapping[str, Any]], None], on_end: Callable[[str], None]
    ) -> None:
        self.request = request
        self.on_event = on_event
        self.on_end = on_end
        self.lost = 0
        self.stopped = threading.Event()

    def stop(self) -> None:
        if not self.stopped.is_set():
            self.stopped.set()
            self.on_end("stopped")


class StandInSystem:
    """A test says how it looks: ``overview_at`` gets the number of the look."""

    def __init__(self, overview_at: Callable[[int], Overview] = overview_of) -> None:
        self.overview_at = overview_at
        self.looks = 0
        self.looked = threading.Semaphore(0)
        self.answers = threading.Event()  #: while it is cleared, looks do not come back
        self.answers.set()
        self.told: list[str] = []
        self.states: dict[str, Mapping[str, Any]] = {}  #: of actors, by name
        self.traces: list[StandInTrace] = []
        self.traced = threading.Semaphore(0)
        self.events: list[Mapping[str, Any]] = []  #: that each trace has at once
        self.end_reason: str | None = None  #: of each trace, which ends at once

    def overview(self, *, looks_at_queues: bool = True) -> Overview:
        self.looks += 1
        self.looked.release()
        assert self.answers.wait(PATIENCE_SECONDS)
        return self.overview_at(self.looks)

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def actor_state(self, name: str) -> Mapping[str, Any]:
        if name not in self.states:
            raise UnknownActor(name)
        return self.states[name]

    def trace(
        self, request: TraceRequest, on_event: Callable[[Mapping[str, Any]], None], on_end: Callable[[str], None]
    ) -> StandInTrace:
        trace = StandInTrace(request, on_event, on_end)
        self.traces.append(trace)
        for event in self.events:
            on_event(event)
        if self.end_reason is not None:
            trace.stopped.set()
            on_end(self.end_reason)
        self.traced.release()
        return trace
