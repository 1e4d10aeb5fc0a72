"""Tracing on the fly, as with Erlang's redbug: what happens to some messages or actors, while it happens.

The actors that handle a message report their steps to the ``Tracer`` of their system; ``sys.install_everywhere`` shows
it what other actors receive and send. While no trace runs, a step costs one look at an attribute. No receipt and no
secret is shown.

A trace can't hold up the actors: events are matched where they happen, for at most ``BUDGET_SECONDS`` of each second,
and told on a thread of the trace's own. Events for which there is no time, or no room, are counted as lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from receipt_actors.domain.messages import Result
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import TraceRefused
from receipt_actors.otp import ActorSystem, Clock, Crash, Killed, NoProcess, Normal, Ref, Reply, Timer
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp.sys import Event, EventKind
from receipt_actors.telemetry.control import OnEnd, OnEvent, TraceRequest
from receipt_actors.telemetry.trace_filters import EVENTS, MESSAGE_EVENTS, TraceFilter

if TYPE_CHECKING:
    from receipt_actors.telemetry.opentelemetry import OpenTelemetryExporter

MAX_TRACES: Final = 5  #: of one system at once
MAX_WAITING: Final = 1_000  #: events of a trace that have not been told yet
BUDGET_SECONDS: Final = 0.03  #: of CPU time in a second that matching may take, of all traces together
_KINDS: Final[Mapping[str, EventKind]] = {
    "call": EventKind.CALL,
    "cast": EventKind.CAST,
    "info": EventKind.INFO,
    "returned": EventKind.REPLY,
    "sent": EventKind.SENT,
    "crashed": EventKind.CRASHED,
    "exited": EventKind.EXITED,
}
_EVENT_OF: Final[Mapping[EventKind, str]] = {kind: event for event, kind in _KINDS.items()}


class TraceEnd(StrEnum):
    """Why a trace is over."""

    LIMIT = "limit"  #: it has told as many events as it was asked for
    SECONDS = "seconds"  #: its time is over
    STOPPED = "stopped"  #: ``stop`` was called
    SYSTEM = "system"  #: the system that was traced has ended
    LISTENER = "listener"  #: ``on_event`` raised an exception


@dataclass(frozen=True, slots=True)
class FinishedDelivery:
    # Of a delivery that is over, for OpenTelemetry. Times are UNIX times.
    source_queue: str
    message_id: str
    receive_count: int
    ended_at_seconds: float
    steps: tuple[tuple[str, float], ...]  #: ``verifying`` and so on, and when each began; it ends where the next begins
    fate: str  #: ``answered``, ``moved`` or ``handed_back``
    reason: Reason | None  #: why, unless it was answered
    user_id: int | None = None
    submission_id: str | None = None
    post_queue: str | None = None
    results: tuple[Result, ...] = ()  #: what was answered, or was to be


class RunningTrace:
    """See ``telemetry.control.Trace``."""

    def __init__(self, tracer: Tracer, request: TraceRequest, on_event: OnEvent, on_end: OnEnd) -> None:
        self._wanted = TraceFilter(request.filters)
        self.events = self._wanted.events
        self.kinds = frozenset(kind for event, kind in _KINDS.items() if event in self.events)  #: of actors' events
        self._tracer = tracer
        self._limit = request.limit
        self._on_event = on_event
        self._on_end = on_end
        self._lock = threading.RLock()  # held for a moment; a finalizer may come back to it on the same thread
        self._waiting: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()  # None: the end
        self._accepted = 0
        self.lost = 0
        self._end: TraceEnd | None = None
        self.timer: Timer | None = None  # that ends it

    @property
    def is_over(self) -> bool:
        return self._end is not None

    def stop(self) -> None:
        self.end(TraceEnd.STOPPED)

    def end(self, why: TraceEnd) -> None:
        """End it, unless it is over. Its events are delivered before ``on_end``, unless it was stopped."""
        with self._lock:
            if self._end is not None:
                return
            self._end = why
            self._waiting.put(None)
        self._tracer.forget(self)

    def lose(self, events: int = 1) -> None:
        with self._lock:
            self.lost += events

    def watches(self, ref: Ref) -> bool:
        return self._wanted.accepts("actor", actor_name(ref))

    def offer(self, event: str, fields: Mapping[str, Any]) -> None:
        if self._wanted.matches(fields):
            self.accept(self._tracer.told(event, fields))

    def accept(self, told: Mapping[str, Any]) -> None:
        """Tell an event that has matched, here or in another process of the trace."""
        with self._lock:
            if self._end is not None:
                return
            if self._waiting.qsize() >= MAX_WAITING:
                self.lost += 1
                return
            self._waiting.put(told)
            self._accepted += 1
        if self._accepted >= self._limit:
            self.end(TraceEnd.LIMIT)

    def run(self) -> None:
        try:
            while (event := self._waiting.get()) is not None and self._end is not TraceEnd.STOPPED:
                self._on_event(event)
        finally:
            self.end(TraceEnd.LISTENER)
            self._tracer.unwatch(self)
            assert self._end is not None
            self._on_end(self._end.value)


class Tracer:
    """See the module. For an event of a message check ``is_on``, then ``wants``, and call ``emit``; on any thread."""

    def __init__(self, system: ActorSystem) -> None:
        self.is_on = False  #: whether a trace runs that events of messages may match
        self.exporter: OpenTelemetryExporter | None = None  #: of deliveries; None: they are not exported
        self.process = "main"  #: the name of this process, where there are several
        self._system = system
        self._lock = threading.RLock()  # held for a moment; a finalizer may come back to it on the same thread
        self._traces: tuple[RunningTrace, ...] = ()  # replaced, never changed
        self._wanted: frozenset[str] = frozenset()
        self._is_closed = False
        self._window_ends_at = 0.0  # several threads may count at once and lose a little of it: no harm
        self._spent_seconds = 0.0

    @property
    def clock(self) -> Clock:
        return self._system.clock

    def start(self, request: TraceRequest, on_event: OnEvent, on_end: OnEnd) -> RunningTrace:
        """See ``SystemControl.trace``; ``on_end`` gets a ``TraceEnd``."""
        trace = RunningTrace(self, request, on_event, on_end)
        with self._lock:
            if self._is_closed:
                raise TraceRefused("the system has ended: there is nothing to trace")
            if len(self._traces) >= MAX_TRACES:
                raise TraceRefused(f"{MAX_TRACES} traces run already: stop one of them first")
            self._change((*self._traces, trace))
        if trace.kinds:
            otp_sys.install_everywhere(self._system, trace, partial(self._watcher, trace), trace.kinds)
        trace.timer = self.clock.call_later(request.seconds, partial(trace.end, TraceEnd.SECONDS))
        threading.Thread(target=trace.run, name="receipt-actors-trace", daemon=True).start()
        return trace

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            traces = self._traces
        for trace in traces:
            trace.end(TraceEnd.SYSTEM)

    def forget(self, trace: RunningTrace) -> None:
        with self._lock:
            self._change(tuple(other for other in self._traces if other is not trace))

    def unwatch(self, trace: RunningTrace) -> None:
        if trace.timer is not None:
            trace.timer.cancel()
        if trace.kinds:
            otp_sys.remove_everywhere(self._system, trace)

    def _change(self, traces: tuple[RunningTrace, ...]) -> None:
        self._traces = traces
        self._wanted = frozenset[str]().union(*(trace.events for trace in traces))
        self.is_on = not self._wanted.isdisjoint(MESSAGE_EVENTS)

    # --- events of messages ---

    def wants(self, event: str) -> bool:
        """Return whether a trace may match an event, so that its fields have to be gathered for ``emit``."""
        return event in self._wanted and self._has_time(trace for trace in self._traces if event in trace.events)

    def emit(self, event: str, fields: Mapping[str, Any], received_at_seconds: float | None = None) -> None:
        """Report one of ``MESSAGE_EVENTS``, with its known fields; ``received_at_seconds`` is monotonic."""
        began_at = time.thread_time()
        known: dict[str, Any] = {"process": self.process, **fields}
        if received_at_seconds is not None:
            known["seconds_since_received"] = self.clock.monotonic() - received_at_seconds
        for trace in self._traces:
            if event in trace.events:
                trace.offer(event, known)
        self._spent_seconds += time.thread_time() - began_at

    def _has_time(self, traces: Iterable[RunningTrace]) -> bool:
        # If there is no time left in this second, these traces have lost the event.
        if self._spent_seconds < BUDGET_SECONDS:
            return True
        now = time.monotonic()
        if now < self._window_ends_at:
            for trace in traces:
                trace.lose()
            return False
        self._window_ends_at, self._spent_seconds = now + 1.0, 0.0
        return True

    def told(self, event: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an event in JSON's types, without unknown fields."""
        known = {name: _plain(fields[name]) for name in EVENTS[event].fields if fields.get(name) is not None}
        return {"at_seconds": self.clock.time(), "event": event, **known}

    # --- events of actors ---

    def _watcher(self, trace: RunningTrace, ref: Ref) -> Callable[[Event], object] | None:
        return partial(self._of_actor, trace, actor_name(ref)) if trace.watches(ref) else None

    def _of_actor(self, trace: RunningTrace, name: str, event: Event) -> object:
        if trace.is_over:
            return True  # do not ask again
        if self._has_time((trace,)):
            began_at = time.thread_time()
            trace.offer(_EVENT_OF[event.kind], self._fields_of(name, event))
            self._spent_seconds += time.thread_time() - began_at
        return trace.is_over

    def _fields_of(self, name: str, event: Event) -> dict[str, Any]:
        fields: dict[str, Any] = {"process": self.process, "actor": name}
        content = event.content
        if event.kind is EventKind.EXITED:
            fields["reason"] = _reason_name(content)
        elif isinstance(content, Reply) and event.kind is EventKind.REPLY:
            fields["message"] = type(content.value if content.failure is None else content.failure).__name__
        else:
            fields["message"] = type(content).__name__
        if event.kind is EventKind.SENT:
            fields["peer"] = None if event.peer is None else actor_name(event.peer)
        return fields


def tracer_of(system: ActorSystem) -> Tracer:
    """Return the tracer of an actor system; each has its own."""
    tracer: Tracer | None = system.terms.get(Tracer)
    return system.terms.setdefault(Tracer, Tracer(system)) if tracer is None else tracer


def actor_name(ref: Ref) -> str:
    """Return an actor's registered name, else its class, such as ``validator``."""
    name = ref.name
    if name is None:
        return _in_words(ref.actor_class.__name__)
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)


@lru_cache
def _in_words(name: str) -> str:
    letters = (f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return "".join(letters).lstrip("_")


def _reason_name(reason: object) -> str:
    names = {Normal: "normal", Killed: "killed", Crash: "crash", NoProcess: "no_process"}
    return names.get(type(reason), "shutdown")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)  # microseconds
    return value.value if isinstance(value, Enum) else value
