"""What all workers of a command share: their limits, the traces that run, and whether the command ends.

These objects belong to the group and outlive every actor, so that no crash forgets them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from receipt_actors.domain.limits import Division, Limits, Share
from receipt_actors.otp import ActorSystem, Ref
from receipt_actors.scale.processes.protocol import GrantAnew, StartRefused, StartTrace
from receipt_actors.scale.processes.worker_process import WorkerProcess
from receipt_actors.settings import Settings
from receipt_actors.telemetry.control import TraceRequest
from receipt_actors.telemetry.tracing import RunningTrace, Tracer

LAST_WORDS_SECONDS = 1.0  #: for the workers to say how many events of a trace they have lost


class Shares:
    """The lessor of a command's processes: says what each worker may use, and until when.

    What the workers hold never sums up to more than the whole (``Division``), which may change where other nodes share
    it. A dead worker's share goes to the living at once; they give it back, and confirm that they have, before its
    successor has it. The workers' actors and ``membership`` call it, all on the one thread of their actor system.
    """

    def __init__(self, whole: Limits) -> None:
        self.until_seconds = inf  #: of ``clock.boottime``; until then all shares are lent
        self._division = Division(whole)
        self._workers: dict[str, Ref] = {}  # those that have joined

    def of(self, name: str) -> Share | None:
        """Return the share of a worker; None: it has none yet, or none any more."""
        return self._division.shares.get(name)

    def has(self, name: str) -> bool:
        """Tell whether a worker has joined."""
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
        """Take back the share of a worker that has no process any more."""
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
    """Put limits into words, for the log."""
    rate = limits.app_store_rate_per_second
    return (
        f"{limits.max_in_flight} messages in flight, {limits.app_store_concurrency} requests to Apple at once"
        + ("" if rate is None else f" and {rate:.4g} a second")
        + f", {limits.ledger_concurrency} to the ledger"
    )


class GroupTrace:
    """One trace of all processes (``telemetry.control.Trace``); the workers know it by its ``number``.

    What the workers' processes tell goes into the parent's own trace. So limit, time and what is lost are of all of
    them together, and one thread tells the events.
    """

    def __init__(
        self,
        number: int,
        request: TraceRequest,
        on_event: Callable[[Mapping[str, Any]], None],
        on_end: Callable[[str], None],
        stop_workers: Callable[[], None],
        tracer: Tracer,
    ) -> None:
        """Begin with the parent's own actors. Raises ``TraceRefused``."""
        self._number = number
        self._request = request
        self._on_end = on_end
        self._stop_workers = stop_workers
        self._end_at_seconds = time.monotonic() + request.seconds
        self._changed = threading.Condition()  # guards what follows
        self._waited_for: set[str] = set()  # workers that trace
        self._ours: RunningTrace = tracer.start(request, on_event, self._ended)

    def order_for(self, worker: str) -> StartTrace | None:
        """Return what a worker that begins now is to be told; None where the time is over."""
        seconds_left = self._end_at_seconds - time.monotonic()
        if seconds_left <= 0:
            return None
        with self._changed:
            self._waited_for.add(worker)
        return StartTrace(self._number, self._request.filters, self._request.limit, seconds_left)

    @property
    def lost(self) -> int:
        """See ``Trace``; what workers have lost is counted when the trace is over."""
        return self._ours.lost

    @property
    def is_over(self) -> bool:
        return self._ours.is_over

    def stop(self) -> None:
        self._ours.stop()

    def happened(self, event: Mapping[str, Any]) -> None:
        """Take in what a worker's process told; it has matched there."""
        self._ours.accept(event)

    def ended_in(self, worker: str, lost: int = 0) -> None:
        with self._changed:
            self._waited_for.discard(worker)
            self._changed.notify()
        self._ours.lose(lost)

    def _ended(self, why: str) -> None:
        """End it in the workers as well, and wait for what they have lost; on the trace's own thread."""
        self._stop_workers()
        with self._changed:
            self._changed.wait_for(lambda: not self._waited_for, LAST_WORDS_SECONDS)
        self._on_end(why)


@dataclass(slots=True)
class Group:
    """What is true of all workers.

    ``ProcessGroup`` writes ``is_closing``, ``is_paused`` and ``traces``, the workers' actors write the rest.
    """

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
        """Whether every worker has been started once: then nothing that keeps one from starting ends the rest."""
        return len(self.started) == len(self.names)

    def cast(self, actors: ActorSystem, request: object) -> None:
        """Cast to the actors of all workers but those that are being restarted."""
        for name in self.names:
            worker = actors.whereis(name)
            if worker is not None:
                worker.cast(request)

    def kill(self) -> None:
        """Kill every worker process. Safe in a signal handler."""
        self.is_closing = True
        for process in list(self.processes.values()):
            process.kill()
