"""``ReceiptSystem``: the supervision tree, from ``start`` to ``drain`` or ``stop``. The API of embedding programs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from typing import Any, Self

import pykka

from receipt_actors import game_side
from receipt_actors.application import HAND_BACK_SECONDS, membership_spec, supervision_tree
from receipt_actors.backends import Backend, open_backend
from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.messages import PostedResult
from receipt_actors.errors import ConfigurationError
from receipt_actors.game_side import Results
from receipt_actors.inspection import Inspection, actor_state
from receipt_actors.otp import ActorSystem, Clock, Down, ExitReason, Heartbeat, Name, Ref, Start
from receipt_actors.pipeline import protocol
from receipt_actors.pipeline.protocol import (
    DescribeInFlight,
    InFlightStatus,
    ObeyLimits,
    PauseReceiving,
    ResumeReceiving,
    StopReceiving,
    StuckInOutage,
)
from receipt_actors.pipeline.validator import Pending, pending_submissions_of
from receipt_actors.scale.membership import LIMITED, ProcessLessee, release
from receipt_actors.settings import Settings
from receipt_actors.sources import look_at_sources, start_retrying
from receipt_actors.telemetry.alerts import Alert
from receipt_actors.telemetry.control import OnEnd, OnEvent, Trace, TraceRequest
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed, listen_to_reports
from receipt_actors.telemetry.overview import Overview
from receipt_actors.telemetry.statistics import StatisticsSnapshot, statistics_of
from receipt_actors.telemetry.tracing import tracer_of

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0  #: for questions about the system
PAUSE_SECONDS = 2.0  #: for receives under way to be over
INTERRUPT_SECONDS = 0.1  #: between two attempts to end long polls


class ReceiptSystem:
    """A running system. As a context manager it drains at the end.

    It has an actor system, threads and clients of its own. Several in one Python process do not see each other, and
    nothing of one is left when it has stopped. It installs no signal handler and touches no other pykka actor.
    """

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        actors: ActorSystem,
        heartbeat: Heartbeat,
        root: Ref,
        limits: LiveLimits,
        process: str,
    ) -> None:
        self.settings = settings
        self._limits = limits
        self._backend = backend
        self._actors = actors
        self._heartbeat = heartbeat
        self._root = root
        self._ended = threading.Event()
        self._end_reason: ExitReason | None = None
        self._final_statistics: StatisticsSnapshot | None = None
        self._is_draining = False
        self._inspection = Inspection(process, actors, root, settings.source_queues)
        root.process.add_monitor(self._root_ended)

    @classmethod
    def start(
        cls,
        settings: Settings,
        *,
        on_result: Callable[[PostedResult], object] | None = None,
        backend: Backend | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
        is_paused: bool = False,
        held_until_seconds: float = inf,
        process: str = "main",
        on_alert: Callable[[Alert], object] | None = None,
        sources_may_be_missing: bool = False,
        pause: Callable[[float], None] = time.sleep,
    ) -> ReceiptSystem:
        """Start the whole tree; returns when it consumes. Passing trouble of queues and ledger delays it up to 30 s.

        Args:
            settings: what to run.
            on_result: called with each answer on the post queues, one at a time for each queue, on a thread of the
                system. The answer is deleted when it returns, and comes back (after a minute) when it raises. An answer
                may come more than once.
            backend: the outside world, instead of one made from the settings. It is closed with the system.
            clock: the time, instead of the real one.
            limits: the share of the settings' limits that holds at first; see ``change_limits``.
            is_paused: whether it is paused from the beginning.
            held_until_seconds: until when the limits hold; see ``hold_until``.
            process: the name of this process in overviews, traces and alerts, if there are several.
            on_alert: called with each alert, one at a time, on a thread of the system. Its errors are logged.
            sources_may_be_missing: whether to start if some of several source queues are refused, but not all; receives
                from them are tried again and again.
            pause: waits so many seconds between two tries; an error that it raises ends the start.

        Raises:
            ConfigurationError: the database or an AWS setting cannot be used; a dead-letter queue does not fit its
                source queue, or has several; ``backend`` lacks the table that a role takes.
            QueueRefused: a source queue does not exist or may not be used.
            LedgerRefused: the same of the table of claims, or of roles.
            UnavailableError: queues or ledger do not answer.
            StartError: an actor did not start.
        """
        with ExitStack() as begun:  # if the start fails, nothing is left of it
            opened = backend or open_backend(settings)
            begun.callback(opened.close)
            if opened.roles is None and not settings.is_alone:
                found = f"{settings.origins.get('role', 'role')}: found {settings.role!r}"
                raise ConfigurationError([f"{found}, expected a backend with a table of roles, or the role alone"])
            retrying = start_retrying(pause)
            sources = look_at_sources(settings, opened.queues, retrying, may_be_missing=sources_may_be_missing)
            retrying(opened.ledger.check)
            if opened.roles is not None:
                retrying(opened.roles.check)
            actors = ActorSystem("receipt-actors", clock)
            begun.pop_all()
            begun.callback(_end, actors, opened, HAND_BACK_SECONDS)
            heartbeat = Heartbeat(actors)
            begun.callback(heartbeat.stop)
            listen_to_reports(actors)
            tracer_of(actors).process = process
            tracer_of(actors).exporter = opened.trace_exporter
            if opened.run_on is not None:
                opened.run_on(actors.scheduler)
            live_limits = LiveLimits(settings.limits_of(1), limits)
            live_limits.is_paused = is_paused
            live_limits.held_until_seconds = held_until_seconds
            membership = None
            if opened.roles is not None:
                membership = membership_spec(settings, opened.roles, 1, ProcessLessee(live_limits, actors))
            tree = supervision_tree(settings, opened, sources, on_result, live_limits, on_alert, process, membership)
            start = tree.start
            assert isinstance(start, Start)
            root = actors.start(start.actor_class, *start.args, name=start.name, **start.kwargs)
            running = cls(settings, opened, actors, heartbeat, root, live_limits, process)
            begun.pop_all()
        return running

    @property
    def actors(self) -> ActorSystem:
        """The actor system underneath, for a look at the tree."""
        return self._actors

    def submit(
        self,
        receipt: str,
        user_id: int,
        *,
        post_queue: str | None = None,
        submission_id: str | None = None,
        transaction_id: str | None = None,
        product_id: str | None = None,
        source_queue: str | None = None,
    ) -> Pending:
        """Put a receipt on a source queue, as any producer would.

        Args:
            receipt: base64, as the app sent it.
            user_id: whose purchase it is to be.
            post_queue: where the answer goes; left out, the first of the source's ``post_queues``.
            submission_id: the same id makes a repetition of this call the same submission; left out, a new one.
            transaction_id: ask about this transaction of the receipt only.
            product_id: ask about the newest transaction of this product only.
            source_queue: one of several source queues; left out, the first.

        Returns:
            ``Pending``: its ``result(timeout)`` waits for the answers, which carry its ``submission_id``. The
            submission is as safe if you drop it.

        Raises:
            SubmissionRefused: the message could never be answered.
            QueueUnavailable: the queue may have it or not; calling again with the same submission id is safe.
        """
        pending = pending_submissions_of(self._actors)
        where = {"post_queue": post_queue, "source_queue": source_queue, "submission_id": submission_id}
        about = {"transaction_id": transaction_id, "product_id": product_id}
        return game_side.submit(self._backend.queues, self.settings, pending, receipt, user_id, **where, **about)

    def results(self, queue: str | None = None, *, timeout_seconds: float | None = None) -> Results:
        """Read the answers on a post queue, one by one: to all submissions, and refunds.

        An answer is acknowledged when the loop asks for the next one; else it comes again, a minute later. So each
        comes at least once, and may come more than once.

        Args:
            queue: which post queue; left out, the first of ``post_queues``.
            timeout_seconds: end when none has come for so long; left out, go on until the tree has ended.

        Raises:
            QueueUnavailable: the queue does not answer.
            QueueRefused: it does not exist, or may not be read.
        """
        queue = self.settings.post_queues[0] if queue is None else queue
        wait_seconds, is_over = self.settings.receive_wait_seconds, self._ended.is_set
        return Results(self._backend.queues, queue, wait_seconds, timeout_seconds, is_over)

    def in_flight(self) -> InFlightStatus:
        """Return what is in flight, and for how long nothing has been. Waits for a restart of the actor."""
        status: InFlightStatus = self._ask(protocol.IN_FLIGHT, DescribeInFlight(), ANSWER_SECONDS)
        return status

    def change_limits(self, limits: Limits) -> Callable[[], None]:
        """Let other limits hold for new work from now on; at most those of the settings.

        Returns:
            A function that waits until no more is in flight or under way than the newest limits allow. It raises
            ``pykka.ActorDeadError`` when the system has ended.
        """
        self._limits.change(limits)
        asked = [(name, self._actors.whereis(name)) for name in LIMITED]
        answers = [(name, None if ref is None else ref.ask(ObeyLimits(), block=False)) for name, ref in asked]

        def wait() -> None:
            for name, answer in answers:
                try:
                    if answer is not None:
                        answer.get()
                        continue
                except pykka.ActorDeadError:
                    pass
                self._ask(name, ObeyLimits(), None)  # its successor knows what is under way

        return wait

    def hold_until(self, seconds: float) -> None:
        """Begin no receive, no request to Apple or the ledger from this time of ``Clock.boottime`` on.

        What is in flight is kept. A later time lets it go on.
        """
        was_held = self._limits.are_held(self._actors.clock.boottime())
        self._limits.held_until_seconds = seconds
        if not was_held:
            for actor in filter(None, map(self._actors.whereis, LIMITED)):
                actor.ask(ObeyLimits(), block=False)

    def release(self) -> None:
        """Hand back what is in flight, for another node to take."""
        release(self._actors)

    def _ask(self, name: Name, request: object, timeout_seconds: float | None) -> Any:
        deadline = time.monotonic() + ANSWER_SECONDS  # for the restart
        while True:
            actor = self._actors.whereis(name)
            try:
                if actor is not None:
                    return actor.call(request, timeout_seconds)
            except pykka.ActorDeadError:
                deadline = time.monotonic() + ANSWER_SECONDS
            if time.monotonic() > deadline or self._ended.wait(0.02):
                raise pykka.ActorDeadError(f"{name} does not run")

    def statistics(self) -> StatisticsSnapshot:
        """Return the counts since the start; after a drain, those at its end. It takes less than a millisecond.

        What was received, answered, moved and handed back; verdicts by reason; times of messages, their steps and each
        service's answers; retries and failures. ``merged`` adds up those of several processes.
        """
        return statistics_of(self._actors).snapshot() if self._final_statistics is None else self._final_statistics

    # --- operating it: see ``telemetry.control.SystemControl`` ---

    def overview(self, *, looks_at_queues: bool = True) -> Overview:
        """Return a picture of everything: the tree, services, queues, statistics, and the usage of the machine.

        It waits for no actor, works also when the tree has ended, and costs some milliseconds. Queues are looked at in
        the background: their numbers are up to 10 s old, and None at first. Without ``looks_at_queues`` this call
        causes no look.
        """
        return self._inspection.overview(is_draining=self._is_draining, looks_at_queues=looks_at_queues)

    def pause(self) -> None:
        """Take in nothing more until ``resume``, also after a crash; what is in flight is finished.

        Receives under way are interrupted if the backend can do that, and waited for, but not for long. A paused system
        does not count as idle: ``exit_when_idle_seconds`` does not end it.
        """
        self.begin_pause()()

    def begin_pause(self) -> Callable[[], None]:
        """Pause without waiting. Returns a function that interrupts the receives under way and waits for them."""
        self._limits.is_paused = True
        logger.warning("paused: nothing is taken in until it is resumed")
        in_flight = self._actors.whereis(protocol.IN_FLIGHT)
        answer = None if in_flight is None else in_flight.ask(PauseReceiving(), block=False)

        def wait() -> None:
            if answer is not None:
                with _no_long_polls(self._backend), suppress(pykka.ActorDeadError, pykka.Timeout):
                    answer.get(timeout=PAUSE_SECONDS)

        return wait

    def resume(self) -> None:
        """Undo ``pause``."""
        self._limits.is_paused = False
        logger.warning("resumed")
        in_flight = self._actors.whereis(protocol.IN_FLIGHT)
        if in_flight is not None:
            in_flight.cast(ResumeReceiving())

    def actor_state(self, name: str) -> dict[str, Any]:
        """Describe an actor of this name of ``overview`` and its state, without receipts and secrets.

        Raises ``UnknownActor``.
        """
        return actor_state(self._actors, name)

    def trace(self, request: TraceRequest, on_event: OnEvent, on_end: OnEnd) -> Trace:
        """Trace events of messages and actors while they happen; see ``telemetry.tracing``.

        Args:
            request: which events, how many of them at most, and for how long.
            on_event: called with each, on a thread of the trace's own.
            on_end: called once, likewise, with why it is over.

        Raises:
            TraceRefused: too many traces run, or the system has ended.
        """
        return tracer_of(self._actors).start(request, on_event, on_end)

    @property
    def end_reason(self) -> ExitReason | None:
        """Why the tree ended by itself; None while it runs.

        A crash storm ends it with ``SHUTDOWN``, after it has handed back what was in flight. A ``Crash`` means that the
        runtime has failed (``ActorSystem.fail``): what was in flight comes back by its visibility timeout.
        """
        return self._end_reason

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the tree ends, for whatever reason, on a thread of the system."""
        self._root.process.add_monitor(lambda _down: callback())

    def drain(self, seconds: float | None = None) -> int:
        """Stop taking in, finish what is in flight, hand back what could not be finished, and stop.

        If a service is unavailable and nothing has been finished for 3 s, everything is handed back.

        Args:
            seconds: how long all of this may take; left out, ``drain_seconds`` of the settings. It waits for receives
                under way: less than ``receive_wait_seconds`` may leave messages to their visibility timeout.

        Returns:
            How many messages were handed back unfinished.
        """
        self._is_draining = True
        deadline = time.monotonic() + (self.settings.drain_seconds if seconds is None else seconds)
        with _no_long_polls(self._backend):
            unfinished = self._stop_receiving(deadline - HAND_BACK_SECONDS)
            self._final_statistics = self.statistics()
        self._stop(min(HAND_BACK_SECONDS, max(HAND_BACK_SECONDS / 2, deadline - time.monotonic())))
        return unfinished

    def _notice_abandoned(self, messages: int, why: str) -> None:
        logger.warning("%s: %d messages are not finished, and handed back", why, messages)
        incidents = self._actors.whereis(INCIDENTS)
        if incidents is not None:
            summary = f"{why}: {messages} messages are not finished, and handed back"
            incidents.cast(Noticed(IncidentKind.ABANDONED, "drain", summary))

    def stop(self) -> None:
        """Stop at once and hand back what is in flight. Messages of a receive under way come back by their timeout."""
        self._stop(HAND_BACK_SECONDS)

    def _stop_receiving(self, deadline: float) -> int:
        """Wait until nothing is in flight or being received. Returns how many messages still are, at the deadline.

        In an outage, which may last, it returns earlier.
        """
        in_flight = self._actors.whereis(protocol.IN_FLIGHT)
        if in_flight is None:
            return 0
        try:
            answer = in_flight.call(StopReceiving(), max(0.0, deadline - time.monotonic()))
        except pykka.ActorDeadError:
            return 0
        except pykka.Timeout:
            messages, why = self.in_flight().in_flight, "the drain is over"
        else:
            if not isinstance(answer, StuckInOutage):
                return 0
            messages, why = answer.messages, f"unavailable: {', '.join(sorted(answer.services))}"
        if messages:
            self._notice_abandoned(messages, why)
        return messages

    def _stop(self, seconds: float) -> None:
        _end(self._actors, self._backend, seconds)
        self._heartbeat.stop()

    def _root_ended(self, down: Down) -> None:
        self._end_reason = down.reason
        tracer_of(self._actors).close()
        pending_submissions_of(self._actors).end()
        self._ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.drain()


def _end(actors: ActorSystem, backend: Backend, seconds: float) -> None:
    """End all actors, then close the backend, even if the former fails."""
    try:
        with _no_long_polls(backend):
            for thread in actors.stop(seconds):
                logger.warning("thread %s is still busy and is left behind", thread)
    finally:
        backend.close()


@contextmanager
def _no_long_polls(backend: Backend) -> Iterator[None]:
    """End the long polls under way, and those that begin meanwhile, if the backend can."""
    over = threading.Event()

    def interrupt() -> None:
        while True:
            backend.interrupt_receives()
            if over.wait(INTERRUPT_SECONDS):
                return

    thread = threading.Thread(target=interrupt, name="receipt-actors-interrupter", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # out of threads: those under way end, at least
        backend.interrupt_receives()
        yield
        return
    try:
        yield
    finally:
        over.set()
        thread.join()
