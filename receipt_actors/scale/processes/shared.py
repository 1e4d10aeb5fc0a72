"""What all workers of a command share. These objects outlive every actor, so that no crash forgets them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from receipt_actors.domain.limits import Division, Limits, Share
from receipt_actors.otp import ActorSystem, Ref
from receipt_actors.scale.processes.protocol import GrantAnew, StartRefused, StartTrace
from receipt_actors.scale.processes.worker_process import WorkerProcess
from receipt_actors.settings import Settings
from receipt_actors.telemetry.control import OnEnd, OnEvent, TraceRequest
from receipt_actors.telemetry.tracing import RunningTrace, Tracer

LAST_WORDS_SECONDS = 1.0  #: for the workers to say how many events of a trace they have lost


class Shares:
    """What each worker may use, and until when; together never more than the whole (``Division``).

    A dead worker's share goes to the living at once; they give it back, and confirm that, before its successor has it.
    The workers' actors and ``membership`` use it, all on the one thread of their actor system.
    """

    def __init__(self, whole: Limits) -> None:
        self.until_seconds = inf  #: of ``clock.boottime``; until then all shares are lent
        self._division = Division(whole)
        self._workers: dict[str, Ref] = {}  # those that have joined

    def of(self, name: str) -> Share | None:
        return self._division.shares.get(name)

    def has(self, name: str) -> bool:
        return name in self._workers

    def divide(self, whole: Limits) -> None:
        self._carry_out(self._division.of(whole))

    def lend_until(self, seconds: float) -> None:
        if seconds != self.until_seconds:
            self.until_seconds = seconds
            self._tell(self._workers)

    def join(self, name: str, worker: Ref) -> None:
        """Give a worker its share: at once, or as soon as others have given it back."""
        self._workers[name] = worker
        self._carry_out(self._division.joined(name))

    def leave(self, name: str) -> None:
        self._workers.pop(name, None)
        self._carry_out(self._division.left(name))

    def confirm(self, name: str, number: int) -> None:
        self._carry_out(self._division.confirmed(name, number))

    def _carry_out(self, decided: tuple[Division, Mapping[str, Share]]) -> None:
        self._division, orders = decided
        self._tell(orders)

    def _tell(self, names: Mapping[str, object]) -> None:
        for name in names:
            self._workers[name].cast(GrantAnew())


def described(limits: Limits) -> str:
    """Describe limits for the log."""
    rate = limits.app_store_rate_per_second
    return (
        f"{limits.max_in_flight} messages in flight, {limits.app_store_concurrency} requests to Apple at once"
        + ("" if rate is None else f" and {rate:.4g} a second")
        + f", {limits.ledger_concurrency} to the ledger"
    )


class GroupTrace:
    """One trace of all processes (``telemetry.control.Trace``).

    The events of the workers go into the parent's own trace. So the limits hold for all processes together.
    """

    def __init__(
        self,
        number: int,
        request: TraceRequest,
        on_event: OnEvent,
        on_end: OnEnd,
        stop_workers: Callable[[], None],
        tracer: Tracer,
    ) -> None:
        self._number = number
        self._request = request
        self._on_end = on_end
        self._stop_workers = stop_workers
        self._end_at_seconds = time.monotonic() + request.seconds
        self._changed = threading.Condition()  # guards what follows
        self._waited_for: set[str] = set()  # workers that trace
        self._ours: RunningTrace = tracer.start(request, on_event, self._ended)

    def order_for(self, worker: str) -> StartTrace | None:
        seconds_left = self._end_at_seconds - time.monotonic()
        if seconds_left <= 0:
            return None
        with self._changed:
            self._waited_for.add(worker)
        return StartTrace(self._number, replace(self._request, seconds=seconds_left))

    @property
    def lost(self) -> int:
        return self._ours.lost

    @property
    def is_over(self) -> bool:
        return self._ours.is_over

    def stop(self) -> None:
        self._ours.stop()

    def happened(self, event: Mapping[str, Any]) -> None:
        self._ours.accept(event)

    def ended_in(self, worker: str, lost: int = 0) -> None:
        with self._changed:
            self._waited_for.discard(worker)
            self._changed.notify()
        self._ours.lose(lost)

    def _ended(self, why: str) -> None:
        self._stop_workers()  # and wait for what they have lost; this is the trace's own thread
        with self._changed:
            self._changed.wait_for(lambda: not self._waited_for, LAST_WORDS_SECONDS)
        self._on_end(why)


@dataclass(slots=True)
class Group:
    # ``ProcessGroup`` writes ``is_closing``, ``is_paused`` and ``traces``, the workers' actors write the rest.
    names: Sequence[str]
    program: Sequence[str]
    settings: Settings = field(repr=False)
    whole: Limits  #: the most that all workers ever share
    shares: Shares = field(repr=False)
    on_refusal: Callable[[], None]
    on_complete: Callable[[], None]
    is_closing: bool = False  #: no process is started any more
    is_paused: bool = False  #: by an operator
    traces: dict[int, GroupTrace] = field(default_factory=dict)  #: those that run
    refusal: StartRefused | None = None  #: why a worker could not start before all had been started once
    started: set[str] = field(default_factory=set)  #: workers that have consumed
    processes: dict[str, WorkerProcess] = field(default_factory=dict)  #: those alive

    @property
    def is_complete(self) -> bool:
        """Whether every worker has started once; then a refused start of one no longer ends the others."""
        return len(self.started) == len(self.names)

    def cast(self, actors: ActorSystem, request: object) -> None:
        """Cast to the workers' actors, except those that are being restarted."""
        for name in self.names:
            worker = actors.whereis(name)
            if worker is not None:
                worker.cast(request)

    def kill(self) -> None:
        """Kill every worker process. Safe in a signal handler."""
        self.is_closing = True
        for process in list(self.processes.values()):
            process.kill()
