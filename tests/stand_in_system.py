"""A ``SystemControl`` for tests of what looks at a system: it notes what it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from receipt_actors.telemetry.control import TraceRequest, UnknownActor
from receipt_actors.telemetry.overview import Overview


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
    """See the module. A test says how it looks: ``overview_at`` gets the number of the look."""

    def __init__(self, overview_at: Callable[[int], Overview]) -> None:
        self.overview_at = overview_at
        self.looks = 0
        self.looked = threading.Semaphore(0)
        self.told: list[str] = []
        self.states: dict[str, Mapping[str, Any]] = {}  #: of actors, by name
        self.traces: list[StandInTrace] = []
        self.traced = threading.Semaphore(0)

    def overview(self, *, looks_at_queues: bool = True) -> Overview:
        self.looks += 1
        self.looked.release()
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
        self.traced.release()
        return trace
