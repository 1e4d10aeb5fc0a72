"""The whole supervision tree, readable top to bottom; ``receipt_system`` runs it.

::

    root                     one_for_one
    ├─ telemetry             one_for_one; ends quietly rather than take anyone along
    │  └─ statistics
    ├─ listeners             one_for_one; likewise; only where an embedding program wants to hear of results
    │  └─ result_listener    one for each post queue
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

from collections.abc import Callable

from receipt_actors.actors import protocol
from receipt_actors.actors.app_store_gateway import AppStoreGateway
from receipt_actors.actors.batchers import DeleteBatcher, ResultBatcher, VisibilityBatcher
from receipt_actors.actors.consumer import Consumer
from receipt_actors.actors.intake import Intake
from receipt_actors.actors.ledger_gateway import LedgerGateway
from receipt_actors.actors.mover import Mover
from receipt_actors.actors.result_listener import ResultListener
from receipt_actors.actors.validator import Validator
from receipt_actors.actors.visibility_keeper import VisibilityKeeper
from receipt_actors.backends import Backend
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.rate import RateLimit
from receipt_actors.domain.results import PostedResult
from receipt_actors.domain.retrying import exponential
from receipt_actors.otp import (
    ONE_FOR_ONE,
    REST_FOR_ONE,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    TRANSIENT,
    ChildSpec,
    Start,
    Starting,
    StartResult,
    supervisor_spec,
)
from receipt_actors.settings import AppStoreSettings, Settings
from receipt_actors.telemetry.events import STATISTICS
from receipt_actors.telemetry.statistics import Statistics

HAND_BACK_SECONDS = 5.0  #: of a drain, kept for handing back what could not be finished
CONSUMER_SHUTDOWN_SECONDS = 1.0  #: a drain waits for receives before; whoever does not drain has no time for them
CUSTODIAN_SHUTDOWN_SECONDS = 5.0


def supervision_tree(
    settings: Settings,
    backend: Backend,
    dead_letter_queue: str | None,
    on_result: Callable[[PostedResult], object] | None = None,
) -> ChildSpec:
    """Describe the whole tree; see the module."""
    queues, source_queue, requests = backend.queues, settings.source_queue, settings.batch_requests
    policy = policy_of(settings)
    # One pause doubles into the next; what takes longer than a few of them is the breaker's affair.
    app_store_retry = exponential(settings.app_store_attempts, first_seconds=0.5, max_seconds=8.0)
    ledger_retry = exponential(settings.ledger_attempts, first_seconds=0.1, max_seconds=3.0)
    queue_retry = exponential(6, first_seconds=0.2, max_seconds=5.0)
    receive_retry = exponential(1_000_000_000, first_seconds=0.5, max_seconds=5.0)  # a consumer never gives up
    rate = settings.app_store_rate_per_second

    def start_result_batcher(queue: str) -> StartResult | Starting:
        name = protocol.result_batcher_name(queue)
        idle_seconds = settings.result_batcher_idle_seconds
        # However many post queues are down, what is in flight has room for another one's messages.
        shares = 2 if queue == dead_letter_queue else len(settings.post_queues)
        max_parked = settings.max_in_flight // shares
        return Start(ResultBatcher, queues, requests, queue_retry, idle_seconds, max_parked, queue, name=name)()

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
    listeners = supervisor_spec(
        "listeners",
        ONE_FOR_ONE,
        [
            ChildSpec(
                f"result_listener of {queue}",
                Start(ResultListener, queues, queue, settings.receive_wait_seconds, on_result),
            )
            for queue in settings.post_queues
        ],
        intensity=10,
        period_seconds=10,
        restart=TRANSIENT,
    )
    children = [telemetry, pipeline] if on_result is None else [telemetry, listeners, pipeline]
    return supervisor_spec("root", ONE_FOR_ONE, children, intensity=3, period_seconds=60)


def policy_of(settings: AppStoreSettings) -> Policy:
    """Return what the settings accept."""

    def allowed(names: tuple[str, ...]) -> frozenset[str] | None:
        return None if "*" in names else frozenset(names)

    return Policy(allowed(settings.bundle_ids), allowed(settings.product_ids), frozenset(settings.environments))
