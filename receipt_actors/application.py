"""The whole supervision tree, readable top to bottom; and ``ReceiptSystem``, which runs it.

::

    root                     one_for_one
    ├─ telemetry             one_for_one; ends quietly rather than take anyone along
    │  └─ statistics
    └─ pipeline              rest_for_one: what comes later leans on what comes earlier
       ├─ custody            one_for_one: what is in flight, and for how long
       │  ├─ intake
       │  ├─ visibility_batcher
       │  └─ visibility_keeper
       ├─ gateways           one_for_one
       │  ├─ app_store_gateway
       │  └─ ledger_gateway
       ├─ batchers           one_for_one
       │  ├─ delete_batcher
       │  └─ result_batchers simple_one_for_one, temporary: one for each post queue, on demand
       ├─ movers             simple_one_for_one, temporary: one for each message that can't be answered
       ├─ validators         simple_one_for_one, temporary: one for each message
       └─ consumers          one_for_one

Everything stops in reverse: consumers take in nothing more, custodians end, and the visibility keeper, which sees them
end, hands their messages back while the visibility batcher still lives. An actor that crashes alone is restarted alone;
whoever waits for its answer asks its successor.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import pykka

from receipt_actors.actors import protocol
from receipt_actors.actors.app_store_gateway import AppStoreGateway
from receipt_actors.actors.batchers import DeleteBatcher, ResultBatcher, VisibilityBatcher
from receipt_actors.actors.consumer import Consumer
from receipt_actors.actors.intake import Intake
from receipt_actors.actors.ledger_gateway import LedgerGateway
from receipt_actors.actors.mover import Mover
from receipt_actors.actors.protocol import CloseIntake, DescribeIntake, IntakeStatus
from receipt_actors.actors.validator import Validator
from receipt_actors.actors.visibility_keeper import VisibilityKeeper
from receipt_actors.backends import Backend, open_backend
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.rate import RateLimit
from receipt_actors.domain.retrying import exponential
from receipt_actors.otp import (
    ONE_FOR_ONE,
    REST_FOR_ONE,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    TRANSIENT,
    ActorSystem,
    ChildSpec,
    Clock,
    Down,
    ExitReason,
    Ref,
    Start,
    StartError,
    Starting,
    StartResult,
    supervisor_spec,
)
from receipt_actors.settings import Settings
from receipt_actors.telemetry.events import STATISTICS
from receipt_actors.telemetry.statistics import DescribeStatistics, Statistics, StatisticsSnapshot

logger = logging.getLogger(__name__)

HAND_BACK_SECONDS = 5.0  #: of a drain, kept for handing back what could not be finished
CONSUMER_SHUTDOWN_SECONDS = 1.0  #: a drain waits for receives before; whoever does not drain has no time for them
CUSTODIAN_SHUTDOWN_SECONDS = 5.0
ANSWER_SECONDS = 5.0  #: for questions about the system
INTERRUPT_SECONDS = 0.2  #: between two attempts to end long polls


def supervision_tree(settings: Settings, backend: Backend, dead_letter_queue: str | None) -> ChildSpec:
    """Describe the whole tree; see the module."""
    queues, source_queue, requests = backend.queues, settings.source_queue, settings.batch_requests
    policy = policy_of(settings)
    # One pause doubles into the next; what takes longer than a few of them is the breaker's affair.
    app_store_retry = exponential(settings.app_store_attempts, first_seconds=0.5, max_seconds=8.0)
    ledger_retry = exponential(settings.ledger_attempts, first_seconds=0.1, max_seconds=3.0)
    queue_retry = exponential(6, first_seconds=0.2, max_seconds=5.0)
    receive_retry = exponential(1_000_000_000, first_seconds=0.5, max_seconds=15.0)  # a consumer never gives up
    rate = settings.app_store_rate_per_second

    def start_result_batcher(queue: str) -> StartResult | Starting:
        name = protocol.result_batcher_name(queue)
        idle_seconds = settings.result_batcher_idle_seconds
        return Start(ResultBatcher, queues, requests, queue_retry, idle_seconds, queue, name=name)()

    telemetry = supervisor_spec(
        "telemetry",
        ONE_FOR_ONE,
        [ChildSpec("statistics", Start(Statistics, name=STATISTICS))],
        intensity=10,
        period_seconds=10,
        restart=TRANSIENT,  # giving up is an orderly end: the pipeline goes on without statistics
    )
    custody = supervisor_spec(
        "custody",
        ONE_FOR_ONE,
        [
            ChildSpec("intake", Start(Intake, settings.max_in_flight, name=protocol.INTAKE)),
            ChildSpec(
                "visibility_batcher",
                Start(VisibilityBatcher, queues, source_queue, requests, queue_retry, name=protocol.VISIBILITY_BATCHER),
                shutdown=HAND_BACK_SECONDS,
            ),
            ChildSpec(
                "visibility_keeper",
                Start(
                    VisibilityKeeper,
                    settings.visibility_timeout_seconds,
                    backend.rng,
                    name=protocol.VISIBILITY_KEEPER,
                ),
            ),
        ],
        intensity=10,
        period_seconds=10,
    )
    gateways = supervisor_spec(
        "gateways",
        ONE_FOR_ONE,
        [
            ChildSpec(
                "app_store_gateway",
                Start(
                    AppStoreGateway,
                    backend.app_store,
                    policy,
                    settings.app_store_concurrency,
                    app_store_retry,
                    None if rate is None else RateLimit(rate),
                    name=protocol.APP_STORE_GATEWAY,
                ),
            ),
            ChildSpec(
                "ledger_gateway",
                Start(
                    LedgerGateway,
                    backend.ledger,
                    settings.ledger_concurrency,
                    ledger_retry,
                    name=protocol.LEDGER_GATEWAY,
                ),
            ),
        ],
        intensity=10,
        period_seconds=10,
    )
    batchers = supervisor_spec(
        "batchers",
        ONE_FOR_ONE,
        [
            ChildSpec(
                "delete_batcher",
                Start(DeleteBatcher, queues, source_queue, requests, queue_retry, name=protocol.DELETE_BATCHER),
            ),
            supervisor_spec(
                protocol.RESULT_BATCHERS,
                SIMPLE_ONE_FOR_ONE,
                [ChildSpec("result_batcher", start_result_batcher, restart=TEMPORARY)],
            ),
        ],
        intensity=10,
        period_seconds=10,
    )
    movers = supervisor_spec(
        protocol.MOVERS,
        SIMPLE_ONE_FOR_ONE,
        [
            ChildSpec(
                "mover",
                Start(Mover, source_queue, dead_letter_queue),
                restart=TEMPORARY,
                shutdown=CUSTODIAN_SHUTDOWN_SECONDS,
            )
        ],
    )
    validators = supervisor_spec(
        protocol.VALIDATORS,
        SIMPLE_ONE_FOR_ONE,
        [
            ChildSpec(
                "validator",
                Start(Validator, source_queue, dead_letter_queue, policy, settings.unidentified == "reply"),
                restart=TEMPORARY,
                shutdown=CUSTODIAN_SHUTDOWN_SECONDS,
            )
        ],
    )
    consumers = supervisor_spec(
        protocol.CONSUMERS,
        ONE_FOR_ONE,
        [
            ChildSpec(
                f"consumer-{number}",
                Start(
                    Consumer,
                    queues,
                    source_queue,
                    settings.post_queues,
                    settings.receive_wait_seconds,
                    settings.visibility_timeout_seconds,
                    receive_retry,
                    name=f"consumer-{number}",
                ),
                shutdown=CONSUMER_SHUTDOWN_SECONDS,
            )
            for number in range(1, settings.consumers + 1)
        ],
        intensity=10,
        period_seconds=10,
    )
    pipeline = supervisor_spec(
        "pipeline",
        REST_FOR_ONE,
        [custody, gateways, batchers, movers, validators, consumers],
        intensity=3,
        period_seconds=30,
    )
    return supervisor_spec("root", ONE_FOR_ONE, [telemetry, pipeline], intensity=3, period_seconds=60)


def policy_of(settings: Settings) -> Policy:
    """Return what the settings accept."""

    def allowed(names: tuple[str, ...]) -> frozenset[str] | None:
        return None if "*" in names else frozenset(names)

    return Policy(allowed(settings.bundle_ids), allowed(settings.product_ids), frozenset(settings.environments))


class ReceiptSystem:
    """The actor system that validates receipts, from ``start`` to ``drain`` or ``stop``. A context manager."""

    def __init__(self, settings: Settings, backend: Backend, actors: ActorSystem, root: Ref) -> None:
        self.settings = settings
        self._backend = backend
        self._actors = actors
        self._root = root
        self._ended = threading.Event()
        self._end_reason: ExitReason | None = None
        root.process.add_monitor(self._root_ended)

    @classmethod
    def start(cls, settings: Settings, *, backend: Backend | None = None, clock: Clock | None = None) -> ReceiptSystem:
        """Start the whole tree; returns when it consumes.

        Args:
            settings: what to run.
            backend: the outside world, where it is not to be made from the settings. It is closed with the system.
            clock: the time, where it is not the real one.

        Raises:
            ConfigurationError: the database or an AWS setting cannot be used.
            QueueRefused: the source queue does not exist or may not be used.
            LedgerRefused: the same of the ledger's table.
            UnavailableError: queues or ledger do not answer.
            StartError: an actor did not start.
        """
        opened = backend or open_backend(settings)
        try:
            # Asked for in any case: it shows that the source queue is there and may be used.
            redrive_target = opened.queues.dead_letter_queue(settings.source_queue)
            dead_letter_queue = settings.dead_letter_queue or redrive_target
            opened.ledger.check()
        except BaseException:
            opened.close()
            raise
        if dead_letter_queue is None:
            logger.warning(
                "queue %s has no redrive policy and dead_letter_queue is not set: messages that cannot be answered "
                "stay on it and come back again and again",
                settings.source_queue,
            )
        actors = ActorSystem("receipt-actors", clock)
        root_spec = supervision_tree(settings, opened, dead_letter_queue)
        assert isinstance(root_spec.start, Start)
        try:
            start = root_spec.start
            root = actors.start(start.actor_class, *start.args, name=start.name, **start.kwargs)
        except StartError:
            actors.stop()
            opened.close()
            raise
        return cls(settings, opened, actors, root)

    @property
    def actors(self) -> ActorSystem:
        """The actor system underneath, for a look at the tree."""
        return self._actors

    def in_flight(self) -> IntakeStatus:
        """Say what is in flight and how long nothing has been; a restart of intake is waited for."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            intake = self._actors.whereis(protocol.INTAKE)
            try:
                if intake is not None:
                    status: IntakeStatus = intake.call(DescribeIntake(), ANSWER_SECONDS)
                    return status
            except pykka.ActorDeadError:
                pass  # it has a successor in a moment
            if time.monotonic() > deadline or self._ended.wait(0.02):
                raise pykka.ActorDeadError("intake does not run")

    def statistics(self) -> StatisticsSnapshot:
        """Return what has been counted since the start."""
        statistics = self._actors.whereis(STATISTICS)
        if statistics is None:
            raise pykka.ActorDeadError("statistics do not run")
        snapshot: StatisticsSnapshot = statistics.call(DescribeStatistics(), ANSWER_SECONDS)
        return snapshot

    @property
    def end_reason(self) -> ExitReason | None:
        """Why the tree ended by itself (a crash storm); None while it runs."""
        return self._end_reason

    def on_end(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when the tree ends, for whatever reason, on a thread of the system."""
        self._root.process.add_monitor(lambda _down: callback())

    def drain(self, seconds: float | None = None) -> int:
        """Stop taking in, finish what is in flight, hand back at once what could not be finished, and stop.

        Args:
            seconds: how long all of this may take; left out, ``drain_seconds`` of the settings. Receives under way are
                waited for, so less than ``receive_wait_seconds`` may leave messages to their visibility timeout.

        Returns:
            How many messages were handed back unfinished.
        """
        deadline = time.monotonic() + (self.settings.drain_seconds if seconds is None else seconds)
        unfinished = self._close_intake(deadline - HAND_BACK_SECONDS)
        self._stop(max(HAND_BACK_SECONDS / 2, deadline - time.monotonic()))
        return unfinished

    def stop(self) -> None:
        """Stop at once and hand back what is in flight.

        What a receive under way brings comes back by its visibility timeout.
        """
        self._backend.interrupt_receives()
        self._stop(HAND_BACK_SECONDS)

    def _close_intake(self, deadline: float) -> int:
        """Wait until nothing is in flight or being received; at the deadline return how many messages still are."""
        intake = self._actors.whereis(protocol.INTAKE)
        if intake is None:
            return 0
        closed = intake.ask(CloseIntake(), block=False)
        while True:
            # Again and again: a consumer may have been about to begin a receive.
            self._backend.interrupt_receives()
            try:
                closed.get(timeout=max(0.0, min(INTERRUPT_SECONDS, deadline - time.monotonic())))
            except pykka.ActorDeadError:
                return 0
            except pykka.Timeout:
                if time.monotonic() >= deadline:
                    return self.in_flight().in_flight
            else:
                return 0

    def _stop(self, seconds: float) -> None:
        for thread in self._actors.stop(seconds):
            logger.warning("thread %s is still busy and is left behind", thread)
        self._backend.close()

    def _root_ended(self, down: Down) -> None:
        self._end_reason = down.reason
        self._ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.drain()
