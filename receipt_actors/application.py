"""The whole supervision tree, readable top to bottom; ``receipt_system`` runs it.

::

    root                     one_for_one
    ├─ telemetry             one_for_one; ends quietly rather than take anyone along
    │  ├─ incidents
    │  ├─ queue_depths
    │  ├─ alerts             only where there is an alerts queue
    │  └─ alert_listener     only where an embedding program wants to hear of alerts
    ├─ nodes                 one_for_one; only where other nodes share the work
    │  └─ membership
    ├─ listeners             one_for_one; likewise; only where an embedding program wants to hear of results
    │  └─ result_listener    one for each post queue
    └─ pipeline              rest_for_one: what comes later leans on what comes earlier
       ├─ custody            one_for_one
       │  ├─ visibility_batcher  one for each source queue
       │  └─ in_flight       what is in flight, how much more may be, and what becomes of it
       ├─ gateways           one_for_one
       │  ├─ app_store_gateway
       │  └─ ledger_gateway
       ├─ batchers           one_for_one
       │  ├─ delete_batcher  one for each source queue
       │  └─ result_batchers simple_one_for_one, temporary: one for each post queue, on demand
       ├─ movers             simple_one_for_one, temporary: one for each message that can't be answered
       ├─ validators         simple_one_for_one, temporary: one for each message
       └─ consumers          one_for_one; so many for each source queue

Sources share all of it but for what is one for each: consumers, and the batchers of their queue, which for the first
source go by plain names. Whoever works on a message is told which source it is from (``domain.sources``).

Everything stops in reverse: consumers take in nothing more, validators and movers end, and ``in_flight``, which sees
them end, hands their messages back while the visibility batcher still lives; then the node leaves its group.
An actor that crashes alone is restarted alone; whoever waits for its answer asks its successor.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from receipt_actors.backends import Backend
from receipt_actors.domain.limits import BATCH_REQUESTS, LiveLimits
from receipt_actors.domain.messages import PostedResult
from receipt_actors.domain.ports import Queues, RoleTable
from receipt_actors.domain.roles import Node, Role, StepDown
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.domain.sources import Source
from receipt_actors.otp import (
    ONE_FOR_ONE,
    REST_FOR_ONE,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    TRANSIENT,
    ChildSpec,
    Name,
    Start,
    Starting,
    StartResult,
    supervisor_spec,
)
from receipt_actors.pipeline import protocol
from receipt_actors.pipeline.batchers import DeleteBatcher, ResultBatcher, VisibilityBatcher
from receipt_actors.pipeline.consumer import Consumer
from receipt_actors.pipeline.in_flight import InFlight, Table, left_behind
from receipt_actors.pipeline.ledger_gateway import LedgerGateway
from receipt_actors.pipeline.mover import Mover
from receipt_actors.pipeline.result_listener import ResultListener
from receipt_actors.pipeline.validator import Validator
from receipt_actors.scale.nodes.membership import MEMBERSHIP, Lessee, Membership
from receipt_actors.settings import Settings, node_name
from receipt_actors.stores.apple.app_store_gateway import AppStoreGateway
from receipt_actors.stores.apple.asking import Way, by_server_api, by_verify_receipt
from receipt_actors.stores.apple.opening import policy_of
from receipt_actors.stores.apple.signature_gateway import SignatureGateway
from receipt_actors.telemetry.alert_book import Alert
from receipt_actors.telemetry.alerts import (
    ALERT_LISTENER,
    ALERTS,
    AlertSink,
    alert_function,
    alerts_queue,
    incident_specs,
)
from receipt_actors.telemetry.queue_depths import QUEUE_DEPTHS, QueueDepths

LEAVE_SECONDS = 3.0  #: for a node to leave its group
HAND_BACK_SECONDS = 5.0  #: of a drain, kept for handing back what could not be finished
CONSUMER_SHUTDOWN_SECONDS = 1.0  #: a drain waits for receives before; whoever does not drain has no time for them
PROCESSOR_SHUTDOWN_SECONDS = 5.0


class Restarts(TypedDict):
    """How many restarts a group may have, in how long."""

    intensity: int
    period_seconds: float


BUSY_GROUP: Restarts = {"intensity": 10, "period_seconds": 10}  #: of actors that stand in the middle of the traffic

# One pause doubles into the next; what takes longer than a few of them is the breaker's affair.
APP_STORE_RETRY = RetryPolicy(4, first_seconds=0.5, max_seconds=8.0)
LEDGER_RETRY = RetryPolicy(5, first_seconds=0.1, max_seconds=3.0)
QUEUE_RETRY = RetryPolicy(6, first_seconds=0.2, max_seconds=5.0)
SIGNATURE_RETRY = RetryPolicy(6, first_seconds=0.5, max_seconds=5.0)
RECEIVE_RETRY = RetryPolicy(1_000_000_000, first_seconds=0.5, max_seconds=5.0)  #: a consumer never gives up
RESULT_BATCHER_IDLE_SECONDS = 60.0  #: without results, after which a result batcher ends


def supervision_tree(
    settings: Settings,
    backend: Backend,
    sources: Sequence[Source],
    on_result: Callable[[PostedResult], object] | None = None,
    limits: LiveLimits | None = None,
    on_alert: Callable[[Alert], object] | None = None,
    process: str = "main",
    membership: ChildSpec | None = None,
) -> ChildSpec:
    """Describe the whole tree; see the module. ``sources`` are those of the settings (``source_of``), in their order.

    Without ``limits`` those of the settings hold all the time; with ``membership`` those that a group lends.
    """
    limits = LiveLimits(settings.limits_of(1)) if limits is None else limits
    pipeline = supervisor_spec(
        "pipeline",
        REST_FOR_ONE,
        [
            _custody(settings, backend, sources, limits),
            _gateways(settings, backend, limits),
            _batchers(settings, backend, sources, limits),
            _movers(),
            _validators(),
            _consumers(settings, backend, sources),
        ],
        intensity=3,
        period_seconds=30,
    )
    listeners = [] if on_result is None else [_listeners(settings, backend, on_result)]
    telemetry = _telemetry(settings, backend, sources, _alert_sinks(settings, backend, on_alert), process)
    members = [] if membership is None else [membership]
    children = [telemetry, *members, *listeners, pipeline]
    return supervisor_spec("root", ONE_FOR_ONE, children, intensity=3, period_seconds=60)


def membership_spec(settings: Settings, table: RoleTable, processes: int, lessee: Lessee) -> ChildSpec:
    """Describe what keeps this node's place in its group; its name is one that no node had before."""
    node = Node(
        f"{node_name()}-{secrets.token_hex(3)}",
        Role(settings.role),
        settings.limits_of(processes),
        processes,
        shares_app_store_concurrency=settings.app_store_concurrency is not None,
    )
    lease_seconds = settings.lease_seconds
    step_down = StepDown.of(lease_seconds, settings.receive_wait_seconds)
    actor = Start(Membership, table, settings.source_queue, node, lease_seconds, lessee, step_down, name=MEMBERSHIP)
    return supervisor_spec("nodes", ONE_FOR_ONE, [ChildSpec("membership", actor, shutdown=LEAVE_SECONDS)], **BUSY_GROUP)


def queue_depths_spec(settings: Settings, queues: Queues, sources: Sequence[Source]) -> ChildSpec:
    """Describe who looks how many messages wait on all queues that these settings have to do with."""
    dead_letter_queues = [source.dead_letter_queue for source in sources if source.dead_letter_queue is not None]
    names = [*(source.queue for source in sources), *settings.all_post_queues, *dead_letter_queues]
    return ChildSpec("queue_depths", Start(QueueDepths, queues, names, name=QUEUE_DEPTHS))


def _telemetry(
    settings: Settings, backend: Backend, sources: Sequence[Source], sinks: Mapping[str, AlertSink], process: str
) -> ChildSpec:
    return supervisor_spec(
        "telemetry",
        ONE_FOR_ONE,
        [
            *incident_specs(sinks, settings.source_queues, process),
            queue_depths_spec(settings, backend.queues, sources),
        ],
        **BUSY_GROUP,
        restart=TRANSIENT,  # giving up is an orderly end: the pipeline goes on without it
    )


def _alert_sinks(
    settings: Settings, backend: Backend, on_alert: Callable[[Alert], object] | None
) -> Mapping[str, AlertSink]:
    sinks: dict[str, AlertSink] = {}
    if settings.alerts_queue is not None:
        sinks[ALERTS] = alerts_queue(lambda: backend.queues, settings.alerts_queue)
    if on_alert is not None:
        sinks[ALERT_LISTENER] = alert_function(on_alert)
    return sinks


def _listeners(settings: Settings, backend: Backend, on_result: Callable[[PostedResult], object]) -> ChildSpec:
    return supervisor_spec(
        "listeners",
        ONE_FOR_ONE,
        [
            ChildSpec(
                f"result_listener of {queue}",
                Start(ResultListener, backend.queues, queue, settings.receive_wait_seconds, on_result),
            )
            for queue in settings.all_post_queues
        ],
        **BUSY_GROUP,
        restart=TRANSIENT,
    )


def _custody(settings: Settings, backend: Backend, sources: Sequence[Source], limits: LiveLimits) -> ChildSpec:
    table: Table = {}  # of what is in flight: it survives who keeps it
    batchers = _batchers_of(
        VisibilityBatcher,
        protocol.visibility_batcher_of,
        settings,
        backend,
        sources,
        lambda queue: left_behind(table, queue, backend.rng),
        shutdown_seconds=HAND_BACK_SECONDS,
    )
    timeout_seconds = settings.visibility_timeout_seconds
    in_flight = Start(InFlight, limits, sources, timeout_seconds, backend.rng, table, name=protocol.IN_FLIGHT)
    return supervisor_spec("custody", ONE_FOR_ONE, [*batchers, ChildSpec("in_flight", in_flight)], **BUSY_GROUP)


def _batchers_of(
    batcher: type[DeleteBatcher | VisibilityBatcher],
    name_of: Callable[[Source], Name],
    settings: Settings,
    backend: Backend,
    sources: Sequence[Source],
    *more: object,
    shutdown_seconds: float = 5.0,
) -> Sequence[ChildSpec]:
    """Describe one batcher for each source queue."""
    arguments = (BATCH_REQUESTS, QUEUE_RETRY, backend.background_calls, *more)
    return [
        ChildSpec(name, Start(batcher, backend.queues, source.queue, *arguments, name=name), shutdown=shutdown_seconds)
        for source in sources
        for name in [name_of(source)]
    ]


def _gateways(settings: Settings, backend: Backend, limits: LiveLimits) -> ChildSpec:
    app_store = Start(
        AppStoreGateway,
        {each.source_queue: _way_of_asking(settings, each, backend) for each in settings.every_source},
        limits,
        APP_STORE_RETRY,
        backend.signed_data,
        name=protocol.APP_STORE_GATEWAY,
    )
    ledger = Start(
        LedgerGateway,
        backend.ledger,
        limits,
        LEDGER_RETRY,
        backend.background_calls,
        name=protocol.LEDGER_GATEWAY,
    )
    children = [ChildSpec("app_store_gateway", app_store), ChildSpec("ledger_gateway", ledger)]
    if backend.signed_data is not None:
        signatures = Start(
            SignatureGateway, backend.signed_data, limits, SIGNATURE_RETRY, name=protocol.SIGNATURE_GATEWAY
        )
        children.append(ChildSpec("signature_gateway", signatures))
    return supervisor_spec("gateways", ONE_FOR_ONE, children, **BUSY_GROUP)


def _way_of_asking(settings: Settings, of_source: Settings, backend: Backend) -> Way:
    """Choose the way; what is the first source's, too, the clients know already."""
    policy = policy_of(of_source)
    place = "" if of_source is settings else f"sources.{of_source.source_queue}."
    if not settings.uses_server_api:
        secret = of_source.shared_secret
        own = None if secret is None or secret == settings.shared_secret else secret.get_secret_value()
        return by_verify_receipt(backend.app_store, policy, shared_secret=own, of_source=place)
    assert backend.server_api is not None, "who opens a backend for these settings gives it one"
    (bundle_id,) = of_source.bundle_ids
    own = None if of_source.bundle_ids == settings.bundle_ids else bundle_id
    return by_server_api(backend.server_api, policy, bundle_id=own, of_source=place)


def _batchers(settings: Settings, backend: Backend, sources: Sequence[Source], limits: LiveLimits) -> ChildSpec:
    queues, requests, background = backend.queues, BATCH_REQUESTS, backend.background_calls

    def start_result_batcher(queue: str) -> StartResult | Starting:
        name = protocol.result_batcher_name(queue)
        # However many post queues are down, what is in flight has room for another one's messages.
        is_dead_letter_queue = any(queue == source.dead_letter_queue for source in sources)
        shares = 2 * len(sources) if is_dead_letter_queue else len(settings.all_post_queues)

        def max_parked() -> int:
            return limits.current.max_in_flight // shares

        return Start(
            ResultBatcher,
            queues,
            requests,
            QUEUE_RETRY,
            RESULT_BATCHER_IDLE_SECONDS,
            max_parked,
            queue,
            background,
            name=name,
        )()

    results = supervisor_spec(
        protocol.RESULT_BATCHERS,
        SIMPLE_ONE_FOR_ONE,
        [ChildSpec("result_batcher", start_result_batcher, restart=TEMPORARY)],
    )
    deletes = _batchers_of(DeleteBatcher, protocol.delete_batcher_of, settings, backend, sources)
    return supervisor_spec("batchers", ONE_FOR_ONE, [*deletes, results], **BUSY_GROUP)


def _movers() -> ChildSpec:
    mover = ChildSpec("mover", Start(Mover), restart=TEMPORARY, shutdown=PROCESSOR_SHUTDOWN_SECONDS)
    return supervisor_spec(protocol.MOVERS, SIMPLE_ONE_FOR_ONE, [mover])


def _validators() -> ChildSpec:
    validator = ChildSpec("validator", Start(Validator), restart=TEMPORARY, shutdown=PROCESSOR_SHUTDOWN_SECONDS)
    return supervisor_spec(protocol.VALIDATORS, SIMPLE_ONE_FOR_ONE, [validator])


def _consumers(settings: Settings, backend: Backend, sources: Sequence[Source]) -> ChildSpec:
    background = backend.background_calls

    def consumer(source: Source, number: int) -> ChildSpec:
        plain = f"consumer-{number}"
        name: Name = plain if source.is_first else (plain, source.queue)
        start = Start(
            Consumer,
            backend.queues,
            source,
            settings.effective_receive_wait_seconds,
            settings.visibility_timeout_seconds,
            RECEIVE_RETRY,
            background,
            name=name,
        )
        return ChildSpec(name, start, shutdown=CONSUMER_SHUTDOWN_SECONDS)

    consumers = [consumer(source, number) for source in sources for number in range(1, settings.consumers + 1)]
    return supervisor_spec(protocol.CONSUMERS, ONE_FOR_ONE, consumers, **BUSY_GROUP)
