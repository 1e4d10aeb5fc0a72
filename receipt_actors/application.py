"""The whole supervision tree, readable top to bottom; ``receipt_system`` runs it. doc/architecture.rst draws it.

What comes later leans on what comes earlier, and everything stops in reverse. Sources share the tree; each adds its
own consumers and two batchers, which have plain names for the first source.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

from receipt_actors.backends import Backend
from receipt_actors.domain.limits import BATCH_REQUESTS, LiveLimits
from receipt_actors.domain.messages import PostedResult
from receipt_actors.domain.policy import Source
from receipt_actors.domain.ports import Queues, RoleTable
from receipt_actors.domain.roles import Node, Role, StepDown
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.otp import (
    ONE_FOR_ONE,
    PERMANENT,
    REST_FOR_ONE,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    TRANSIENT,
    ChildSpec,
    Name,
    Restart,
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
from receipt_actors.pipeline.processor import Mover
from receipt_actors.pipeline.result_listener import ResultListener
from receipt_actors.pipeline.validator import Validator
from receipt_actors.scale.membership import MEMBERSHIP, Lessee, Membership
from receipt_actors.settings import Settings, node_name
from receipt_actors.stores.apple import server_api, verify_receipt
from receipt_actors.stores.apple.app_store_gateway import AppStoreGateway, SignatureGateway
from receipt_actors.stores.apple.opening import policy_of
from receipt_actors.stores.apple.ports import ReceiptApi
from receipt_actors.telemetry.alerts import (
    ALERT_LISTENER,
    ALERTS,
    Alert,
    AlertSink,
    alert_function,
    alerts_queue,
    incident_specs,
)
from receipt_actors.telemetry.queue_depths import QUEUE_DEPTHS, QueueDepths

LEAVE_SECONDS = 3.0  #: for a node to leave its group
HAND_BACK_SECONDS = 5.0  #: of a drain, kept for handing back what could not be finished
CONSUMER_SHUTDOWN_SECONDS = 1.0  #: a drain waits for receives before; a stop has no time for them
PROCESSOR_SHUTDOWN_SECONDS = 5.0


# A pause doubles into the next. The breaker handles what takes longer than a few of them.
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
    """Describe the whole tree. ``sources`` are those of the settings (``source_of``), in their order.

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
            _processors(protocol.MOVERS, Mover),
            _processors(protocol.VALIDATORS, Validator),
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
    """Describe the actor that keeps this node's place in its group, under a new name."""
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
    return _busy_group("nodes", [ChildSpec("membership", actor, shutdown=LEAVE_SECONDS)])


def queue_depths_spec(settings: Settings, queues: Queues, sources: Sequence[Source]) -> ChildSpec:
    """Describe the actor that looks how many messages wait on all queues of the settings."""
    dead_letter_queues = [source.dead_letter_queue for source in sources if source.dead_letter_queue is not None]
    names = [*(source.queue for source in sources), *settings.all_post_queues, *dead_letter_queues]
    return ChildSpec("queue_depths", Start(QueueDepths, queues, names, name=QUEUE_DEPTHS))


def _telemetry(
    settings: Settings, backend: Backend, sources: Sequence[Source], sinks: Mapping[str, AlertSink], process: str
) -> ChildSpec:
    queue_depths = queue_depths_spec(settings, backend.queues, sources)
    children = [*incident_specs(sinks, settings.source_queues, process), queue_depths]
    # Giving up is an orderly end of telemetry and listeners: the pipeline goes on without them.
    return _busy_group("telemetry", children, restart=TRANSIENT)


def _busy_group(name: Name, children: Sequence[ChildSpec], restart: Restart = PERMANENT) -> ChildSpec:
    """Describe a group of actors that stand in the middle of the traffic."""
    return supervisor_spec(name, ONE_FOR_ONE, children, intensity=10, period_seconds=10, restart=restart)


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
    def listener(queue: str) -> ChildSpec:
        start = Start(ResultListener, backend.queues, queue, settings.receive_wait_seconds, on_result)
        return ChildSpec(f"result_listener of {queue}", start)

    return _busy_group("listeners", list(map(listener, settings.all_post_queues)), restart=TRANSIENT)


def _custody(settings: Settings, backend: Backend, sources: Sequence[Source], limits: LiveLimits) -> ChildSpec:
    table: Table = {}  # of what is in flight: it survives a crash of in_flight
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
    return _busy_group("custody", [*batchers, ChildSpec("in_flight", in_flight)])


def _batchers_of(
    batcher: type[DeleteBatcher | VisibilityBatcher],
    name_of: Callable[[Source], Name],
    settings: Settings,
    backend: Backend,
    sources: Sequence[Source],
    *more: object,
    shutdown_seconds: float = 5.0,
) -> Sequence[ChildSpec]:
    arguments = (BATCH_REQUESTS, QUEUE_RETRY, backend.background_calls, *more)
    return [
        ChildSpec(name, Start(batcher, backend.queues, source.queue, *arguments, name=name), shutdown=shutdown_seconds)
        for source in sources
        for name in [name_of(source)]
    ]


def _gateways(settings: Settings, backend: Backend, limits: LiveLimits) -> ChildSpec:
    app_store = Start(
        AppStoreGateway,
        {each.source_queue: _receipt_api(settings, each, backend) for each in settings.every_source},
        limits,
        APP_STORE_RETRY,
        backend.signed_data,
        name=protocol.APP_STORE_GATEWAY,
    )
    ledger = Start(
        LedgerGateway, backend.ledger, limits, LEDGER_RETRY, backend.background_calls, name=protocol.LEDGER_GATEWAY
    )
    children = [ChildSpec("app_store_gateway", app_store), ChildSpec("ledger_gateway", ledger)]
    if backend.signed_data is not None:
        signatures = Start(
            SignatureGateway, backend.signed_data, limits, SIGNATURE_RETRY, name=protocol.SIGNATURE_GATEWAY
        )
        children.append(ChildSpec("signature_gateway", signatures))
    return _busy_group("gateways", children)


def _receipt_api(settings: Settings, of_source: Settings, backend: Backend) -> ReceiptApi:
    """Choose the API of a source; what is the first source's, too, the clients know already."""
    policy = policy_of(of_source)
    place = "" if of_source is settings else f"sources.{of_source.source_queue}."
    if not settings.uses_server_api:
        secret = of_source.shared_secret
        own = None if secret is None or secret == settings.shared_secret else secret.get_secret_value()
        return verify_receipt.receipt_api(backend.app_store, policy, shared_secret=own, of_source=place)
    assert backend.server_api is not None, "who opens a backend for these settings gives it one"
    (bundle_id,) = of_source.bundle_ids
    own = None if of_source.bundle_ids == settings.bundle_ids else bundle_id
    return server_api.receipt_api(backend.server_api, policy, bundle_id=own, of_source=place)


def _batchers(settings: Settings, backend: Backend, sources: Sequence[Source], limits: LiveLimits) -> ChildSpec:
    def start_result_batcher(queue: str) -> StartResult | Starting:
        name = protocol.result_batcher_name(queue)
        # If all other post queues are down, there is still room in flight for the messages of this one.
        is_dead_letter_queue = any(queue == source.dead_letter_queue for source in sources)
        shares = 2 * len(sources) if is_dead_letter_queue else len(settings.all_post_queues)

        def max_parked() -> int:
            return limits.current.max_in_flight // shares

        retry, idle_seconds, background = QUEUE_RETRY, RESULT_BATCHER_IDLE_SECONDS, backend.background_calls
        arguments = (backend.queues, BATCH_REQUESTS, retry, idle_seconds, max_parked, queue, background)
        return Start(ResultBatcher, *arguments, name=name)()

    batcher = ChildSpec("result_batcher", start_result_batcher, restart=TEMPORARY)
    results = supervisor_spec(protocol.RESULT_BATCHERS, SIMPLE_ONE_FOR_ONE, [batcher])
    deletes = _batchers_of(DeleteBatcher, protocol.delete_batcher_of, settings, backend, sources)
    return _busy_group("batchers", [*deletes, results])


def _processors(name: Name, processor: type[Mover | Validator]) -> ChildSpec:
    child = ChildSpec(
        processor.__name__.lower(), Start(processor), restart=TEMPORARY, shutdown=PROCESSOR_SHUTDOWN_SECONDS
    )
    return supervisor_spec(name, SIMPLE_ONE_FOR_ONE, [child])


def _consumers(settings: Settings, backend: Backend, sources: Sequence[Source]) -> ChildSpec:
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
            backend.background_calls,
            name=name,
        )
        return ChildSpec(name, start, shutdown=CONSUMER_SHUTDOWN_SECONDS)

    consumers = [consumer(source, number) for source in sources for number in range(1, settings.consumers + 1)]
    return _busy_group(protocol.CONSUMERS, consumers)
