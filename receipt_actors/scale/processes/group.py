"""``ProcessGroup``: one command in several processes, with most of the API of ``ReceiptSystem``.

The parent's whole supervision tree::

    root             one_for_one; ends when ``workers`` gives up
    ├─ telemetry     one_for_one; if it gives up, the rest goes on
    │  ├─ incidents
    │  ├─ alerts     of the parent's own incidents: workers that die; only if there is an alerts queue
    │  └─ queue_depths  only if other nodes share the work: workers that wait for them can't look
    ├─ nodes         one_for_one; only if other nodes share the work
    │  └─ membership
    └─ workers       one_for_one; each is an actor that owns a process
       ├─ worker-1
       └─ ...

A worker process that dies is restarted at once and alone. More than ``RESTARTS_PER_WORKER`` for each worker within a
minute are a storm: ``workers`` stops those that are left, and everything ends.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from math import inf
from typing import Any

import pykka

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.ports import Queues
from receipt_actors.domain.roles import Work
from receipt_actors.errors import ConfigurationError, ReceiptActorsError
from receipt_actors.otp import (
    ANY_SIGNIFICANT,
    ONE_FOR_ONE,
    TRANSIENT,
    ActorSystem,
    ChildSpec,
    Down,
    ExitReason,
    Heartbeat,
    Name,
    Start,
    supervisor_spec,
)
from receipt_actors.pipeline.protocol import InFlightStatus, ObeyLimits
from receipt_actors.scale.processes.group_inspection import PARENT, GroupInspection, collected_by, fresh_reports
from receipt_actors.scale.processes.protocol import Drain, GrantAnew, JoinTrace, Release, StopTrace
from receipt_actors.scale.processes.shared import Group, GroupTrace, Shares
from receipt_actors.scale.processes.worker import GRACE_SECONDS, Worker
from receipt_actors.settings import Settings
from receipt_actors.telemetry.alerts import ALERTS, alerts_queue, incident_specs
from receipt_actors.telemetry.control import OnEnd, OnEvent, Trace, TraceRequest
from receipt_actors.telemetry.incidents import listen_to_reports
from receipt_actors.telemetry.overview import Overview
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from receipt_actors.telemetry.tracing import tracer_of

logger = logging.getLogger(__name__)

STOP_SECONDS = 8.0  #: for a worker to hand back what is in flight and to end; then it is killed
RESTARTS_PER_WORKER = 5  #: in a minute, of all workers together


class WorkersRefused(ReceiptActorsError):
    pass


class ProcessGroup:
    """Workers that run. It installs no signal handler. Made by ``start``."""

    def __init__(self, group: Group, settings: Settings, pause: Callable[[float], None]) -> None:
        self._group = group
        self._settings = settings
        self._pause = pause
        self._open = ExitStack()  # the queues and the table of roles, where they are needed
        self._queues: Queues | None = None
        self._trace_numbers = itertools.count(1)
        self._actors = ActorSystem("receipt-actors-parent")
        self._inspection = GroupInspection(group, self._actors, settings.source_queues)
        self._heartbeat: Heartbeat | None = None
        self.end_reason: ExitReason | None = None  #: why the tree ended by itself (a storm); None while it runs

    @classmethod
    def start(
        cls,
        settings: Settings,
        processes: int,
        program: Sequence[str],
        *,
        on_refusal: Callable[[], None] = lambda: None,
        on_complete: Callable[[], None] = lambda: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> ProcessGroup:
        """Start workers that share these settings and their limits, without waiting until they consume.

        Args:
            settings: of all of them together.
            processes: how many.
            program: what a worker runs; see ``WorkerProcess``.
            on_refusal: called, on a thread of the group, when a worker could not start: ``check`` raises why.
            on_complete: called likewise when all workers consume for the first time.
            pause: see ``ReceiptSystem.start``.

        Raises, if there are other nodes, the errors of opening the table of roles and the queues.
        """
        names = [f"worker-{number}" for number in range(1, processes + 1)]
        whole = settings.limits_of(processes)
        of_workers = settings.model_copy(update={"admin": None, "admin_token": None, "role": "alone"})
        group = Group(names, tuple(program), of_workers, whole, Shares(whole), on_refusal, on_complete)
        running = cls(group, settings, pause)
        with ExitStack() as begun:  # whatever keeps the rest from starting: nothing is left of it
            begun.callback(running.stop)
            running._begin(processes)
            begun.pop_all()
        return running

    def _begin(self, processes: int) -> None:
        self._heartbeat = Heartbeat(self._actors)
        listen_to_reports(self._actors)
        tracer_of(self._actors).process = PARENT
        shared = () if self._settings.is_alone else self._join_others(processes)
        start = _tree(self._settings, self._group, self._open_queues, shared).start
        assert isinstance(start, Start)
        root = self._actors.start(start.actor_class, *start.args, name=start.name, **start.kwargs)
        root.process.add_monitor(self._root_ended)

    def _join_others(self, processes: int) -> tuple[ChildSpec, ChildSpec]:
        # Imported only if there are other nodes.
        from receipt_actors.application import membership_spec, queue_depths_spec
        from receipt_actors.backends import open_roles
        from receipt_actors.sources import look_at_sources, start_retrying

        table = self._open.enter_context(closing(open_roles(self._settings)))
        retrying = start_retrying(self._pause)
        retrying(table.check)
        queues = self._open_queues()
        sources = look_at_sources(self._settings, queues, retrying, may_be_missing=False)
        nodes = membership_spec(self._settings, table, processes, GroupLessee(self._group, self._actors))
        return nodes, queue_depths_spec(self._settings, queues, sources)

    def _open_queues(self) -> Queues:
        # Once: before the tree starts, or on the one thread that sends alerts.
        from receipt_actors.backends import open_queues
        from receipt_actors.sources import MAX_LOOKS

        if self._queues is None:
            self._queues = self._open.enter_context(closing(open_queues(self._settings, max_connections=MAX_LOOKS)))
        return self._queues

    def check(self) -> None:
        """Stop and raise if a worker could not start before all had been started once.

        Raises ``ConfigurationError`` about its settings, ``WorkersRefused`` about anything else.
        """
        refusal = self._group.refusal
        if refusal is not None:
            self.stop()
            raise ConfigurationError(refusal.faults) if refusal.is_configuration else WorkersRefused(*refusal.faults)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the tree ends, on a thread of the group."""
        root = self._actors.whereis("root")
        if root is None:
            callback()
        else:
            root.process.add_monitor(lambda _down: callback())

    def in_flight(self) -> InFlightStatus:
        """Add up the reports of all workers. Raises ``pykka.ActorDeadError`` if one of them does not consume now."""
        reports = fresh_reports(self._group, self._actors)
        if reports is None:
            raise pykka.ActorDeadError("not every worker consumes")
        return InFlightStatus(
            sum(process.in_flight for process in reports),
            sum(process.reserved for process in reports),
            frozenset(service for process in reports for service in process.unavailable),
            min(process.idle_seconds for process in reports),
            self._group.is_paused,
            oldest_in_flight_seconds=max(process.oldest_in_flight_seconds for process in reports),
        )

    def statistics(self) -> StatisticsSnapshot:
        """Return what all workers have counted, those that died until their last report."""
        return collected_by(self._actors).statistics

    # --- ``telemetry.control.SystemControl`` ---

    def overview(self, *, looks_at_queues: bool = True) -> Overview:
        return self._inspection.overview(looks_at_queues=looks_at_queues)

    def pause(self) -> None:
        self._group.is_paused = True  # workers that are started later see it, too
        logger.warning("paused: nothing is taken in until it is resumed")
        self._group.cast(self._actors, GrantAnew())

    def resume(self) -> None:
        self._group.is_paused = False
        logger.warning("resumed")
        self._group.cast(self._actors, GrantAnew())

    def actor_state(self, name: str) -> dict[str, Any]:
        return self._inspection.actor_state(name)

    def trace(self, request: TraceRequest, on_event: OnEvent, on_end: OnEnd) -> Trace:
        number = next(self._trace_numbers)

        def stop_workers() -> None:
            self._group.cast(self._actors, StopTrace(number))

        def end(why: str) -> None:
            self._group.traces.pop(number, None)
            on_end(why)

        trace = GroupTrace(number, request, on_event, end, stop_workers, tracer_of(self._actors))
        self._group.traces[number] = trace
        if trace.is_over:  # before it was kept
            self._group.traces.pop(number, None)
        self._group.cast(self._actors, JoinTrace(number))
        return trace

    def drain(self, seconds: float) -> int:
        """Drain all workers at the same time, kill those that take longer, and stop. See ``ReceiptSystem``."""
        deadline = time.monotonic() + seconds + GRACE_SECONDS
        self._group.is_closing = True
        self._group.cast(self._actors, Drain(seconds))
        for process in list(self._group.processes.values()):
            process.wait(max(0.0, deadline + 1.0 - time.monotonic()))
        self.stop()
        return collected_by(self._actors).handed_back

    def stop(self) -> None:
        """Hand back what is in flight, and end all workers and the parent's actors."""
        self._group.is_closing = True
        with ExitStack() as ending:  # no process outlives this, whatever goes wrong
            ending.callback(self._kill_those_left)
            ending.push(self._open)
            if self._heartbeat is not None:
                ending.callback(self._heartbeat.stop)
            self._actors.stop(STOP_SECONDS + 1.0)

    def _kill_those_left(self) -> None:
        for process in list(self._group.processes.values()):
            process.kill()
            process.wait(1.0)  # the kernel holds one that takes longer: no more can be done

    def kill(self) -> None:
        """End all workers on the spot. Safe in a signal handler."""
        self._group.kill()

    def _root_ended(self, down: Down) -> None:
        self.end_reason = down.reason
        tracer_of(self._actors).close()


class GroupLessee:
    # A lease ends at a time of the machine's clock (``Clock.boottime``), which all its processes read: no worker of a
    # parent that is stopped, or gone, goes on with what is lent to others meanwhile.

    def __init__(self, group: Group, actors: ActorSystem) -> None:
        self._group = group
        self._actors = actors
        group.shares.divide(group.whole.nothing)
        group.shares.lend_until(-inf)

    def grant(self, limits: Limits) -> Sequence[tuple[Name, object]]:
        self._group.shares.divide(limits)
        return [(name, ObeyLimits()) for name in self._group.names]

    def lend_until(self, seconds: float) -> None:
        self._group.shares.lend_until(seconds)

    def release(self) -> None:
        self._group.cast(self._actors, Release())

    def work(self) -> Work:
        # As long as one worker receives something, or may for all that is known, the node can.
        answered = collected_by(self._actors).answered
        reports = None if self._group.is_closing else fresh_reports(self._group, self._actors)
        if reports is None:
            return Work(answered)
        unavailable = sorted({service for process in reports for service in process.unavailable})
        return Work(answered, min(process.unable_seconds for process in reports), tuple(unavailable))


def _tree(
    settings: Settings, group: Group, open_queues: Callable[[], Queues], shared: Sequence[ChildSpec]
) -> ChildSpec:
    queue = settings.alerts_queue
    sinks = {} if queue is None else {ALERTS: alerts_queue(open_queues, queue)}
    telemetry_children = [*incident_specs(sinks, settings.source_queues, PARENT), *shared[1:]]
    telemetry = supervisor_spec(
        "telemetry", ONE_FOR_ONE, telemetry_children, intensity=10, period_seconds=10, restart=TRANSIENT
    )
    workers = supervisor_spec(
        "workers",
        ONE_FOR_ONE,
        [ChildSpec(name, Start(Worker, name, group, name=name), shutdown=STOP_SECONDS) for name in group.names],
        intensity=RESTARTS_PER_WORKER * len(group.names),
        period_seconds=60,
        restart=TRANSIENT,  # giving up is an orderly end ...
        significant=True,  # ... and the end of everything
    )
    children = [telemetry, *shared[:1], workers]
    return supervisor_spec("root", ONE_FOR_ONE, children, intensity=3, period_seconds=60, auto_shutdown=ANY_SIGNIFICANT)
