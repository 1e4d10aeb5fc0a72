"""The clients behind the ports, for given settings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from receipt_actors.domain.limits import BATCH_REQUESTS
from receipt_actors.domain.ports import BackgroundCalls, Ledger, Queues, ReceivedMessage, RoleTable
from receipt_actors.errors import ConfigurationError
from receipt_actors.otp import Scheduler
from receipt_actors.settings import (
    BackendSettings,
    LedgerSettings,
    NotificationSettings,
    QueueSettings,
    RoleSettings,
    Settings,
)
from receipt_actors.sqlite import EmbeddedLedger, EmbeddedNotifications, EmbeddedQueues, EmbeddedRoles, look
from receipt_actors.stores.apple.opening import open_app_store, open_server_api, open_signed_data_calls
from receipt_actors.stores.apple.ports import AppStore, ServerApi, SignedDataCalls
from receipt_actors.transport.loop import NetworkLoop

if TYPE_CHECKING:
    from receipt_actors.aws import AwsCalls, AwsLedger, AwsNotifications, AwsQueues, AwsRoles
    from receipt_actors.telemetry.opentelemetry import OpenTelemetryExporter
    from receipt_actors.transport.curl import CurlTransport


MAX_RECEIVE_WAIT_SECONDS = 20  #: the longest long poll (SQS)


@dataclass(frozen=True, slots=True)
class Backend:
    """The outside world, as the actors see it."""

    queues: Queues
    ledger: Ledger
    app_store: AppStore  #: called without a thread that waits if it has ``begin`` and does not block
    interrupt_receives: Callable[[], None]  #: long polls under way return, where that is possible
    close: Callable[[], None]
    rng: random.Random
    background_calls: BackgroundCalls | None = None  #: queues and ledger without threads that wait, where there are
    run_on: Callable[[Scheduler], None] | None = None  #: have the latter two run on an actor system's own thread
    signed_data: SignedDataCalls | None = None  #: verifies what Apple signs; without it signed transactions are left
    server_api: ServerApi | None = None  #: who is asked about app receipts, where the settings say so
    trace_exporter: OpenTelemetryExporter | None = None  #: takes deliveries that are over, for OpenTelemetry
    roles: RoleTable | None = None  #: by which this node agrees with others, where it is not alone


def open_backend(settings: Settings) -> Backend:
    """Build the clients that the settings ask for, and create missing embedded queues.

    Raises:
        ConfigurationError: the database cannot be used, or boto3 finds no region.
        UnavailableError: the database does not answer.
    """
    # Sends to each post queue and to dead-letter queues, deletes, visibility changes; or a receive for each.
    queue_connections = max(settings.all_consumers, settings.batchers * BATCH_REQUESTS)
    requests = settings.effective_app_store_concurrency
    transport: CurlTransport | None = None
    background_calls: AwsCalls | None = None
    server_api: ServerApi | None = None
    trace_exporter: OpenTelemetryExporter | None = None
    with ExitStack() as stack:  # what is open already is closed again if the next can't be opened
        keep = stack.enter_context
        queues = keep(
            closing(open_queues(settings, queue_connections, settings.receive_wait_seconds, changes_policies=True))
        )
        if settings.alerts_queue is not None and isinstance(queues, EmbeddedQueues):
            queues.create_queue(settings.alerts_queue)
        ledger = keep(closing(open_ledger(settings, max_connections=settings.ledger_concurrency)))
        if settings.uses_curl:
            from receipt_actors.transport.curl import CurlTransport  # pycurl may be missing

            idle_connections = requests + 2 * queue_connections + settings.ledger_concurrency
            transport = keep(closing(CurlTransport(idle_connections)))
            if not isinstance(queues, EmbeddedQueues) and not isinstance(ledger, EmbeddedLedger):
                from receipt_actors.aws import AwsCalls

                if queues.may_transfer and ledger.may_transfer:
                    background_calls = keep(closing(AwsCalls(transport)))
        signed_data = keep(closing(open_signed_data_calls(settings)))
        if settings.uses_server_api:
            server_api = keep(closing(open_server_api(settings, max_connections=requests, curl=transport)))
        app_store = keep(closing(open_app_store(settings, max_connections=requests, curl=transport)))
        if settings.traces != "none":
            from receipt_actors.telemetry.opentelemetry import open_exporter  # an extra, and a large library

            trace_exporter = open_exporter(metadata.version("receipt-actors"))
            if trace_exporter is not None:
                keep(closing(trace_exporter))
        roles = None if settings.is_alone else keep(closing(open_roles(settings)))
        loops = [loop for loop in (transport, signed_data) if isinstance(loop, NetworkLoop)]

        def run_on(scheduler: Scheduler) -> None:
            for loop in loops:
                loop.run_on(scheduler)

        return Backend(
            queues,
            ledger,
            app_store,
            interrupt_receives=queues.interrupt if isinstance(queues, EmbeddedQueues) else lambda: None,
            close=stack.pop_all().close,
            rng=random.Random(),  # nosec B311 # jitter of waits
            background_calls=background_calls,
            run_on=run_on,
            signed_data=signed_data,
            server_api=server_api,
            trace_exporter=trace_exporter,
            roles=roles,
        )


def open_queues(
    settings: QueueSettings,
    max_connections: int = 1,
    longest_wait_seconds: float = MAX_RECEIVE_WAIT_SECONDS,
    *,
    create: bool = True,
    changes_policies: bool = False,
) -> EmbeddedQueues | AwsQueues:
    """Open the queues alone; missing embedded ones are created, unless ``create`` is False.

    Consumers set ``changes_policies``: embedded queues that exist take over the redrive policy of these settings.
    Producers must not alter a running service. ``max_connections`` is the number of threads that call at once. Raises
    as ``open_backend``, and ``ConfigurationError`` without ``create`` if there is no database.
    """
    if settings.backend == "aws":
        from receipt_actors.aws import AwsQueues  # boto3 takes its time to import

        return AwsQueues(max_connections=max_connections, longest_wait_seconds=longest_wait_seconds)
    queues = EmbeddedQueues(_database(settings, create))
    with ExitStack() as opened:  # closed again if a queue can't be created
        opened.callback(queues.close)
        if create:
            dead_letter_queues = {each.source_queue: each.known_dead_letter_queue for each in settings.every_source}
            names = {**dict.fromkeys(settings.all_post_queues), **dead_letter_queues}
            queues.create_queues(names, settings.max_receive_count, changes_policies=changes_policies)
        opened.pop_all()
    return queues


def look_at_queue(settings: QueueSettings, queue: str) -> Iterator[ReceivedMessage]:
    """Yield the visible messages of an embedded queue, and change nothing. Raises as ``open_queues``."""
    return look(_database(settings, create=False), queue)


def open_ledger(
    settings: LedgerSettings, *, max_connections: int = 1, create: bool = True
) -> EmbeddedLedger | AwsLedger:
    """Open the ledger alone; see ``open_queues``."""
    if settings.backend == "aws":
        from receipt_actors.aws import AwsLedger

        return AwsLedger(settings.ledger_table, max_connections=max_connections)
    return EmbeddedLedger(_database(settings, create))


def open_notifications(
    settings: NotificationSettings, *, max_connections: int = 1, create: bool = True
) -> EmbeddedNotifications | AwsNotifications:
    """Open the table of Apple's notifications alone; see ``open_queues``."""
    if settings.backend == "aws":
        from receipt_actors.aws import AwsNotifications

        return AwsNotifications(settings.notifications_table, max_connections=max_connections)
    return EmbeddedNotifications(_database(settings, create))


def open_roles(settings: RoleSettings) -> EmbeddedRoles | AwsRoles:
    """Open the table of roles alone; see ``open_queues``."""
    if settings.backend == "aws":
        from receipt_actors.aws import AwsRoles

        return AwsRoles(settings.role_table, settings.lease_seconds)
    return EmbeddedRoles(_database(settings, create=True))


def _database(settings: BackendSettings, create: bool) -> Path:
    assert settings.database is not None
    if not create and settings.database.parent.is_dir() and not settings.database.exists():
        raise ConfigurationError([f"database {settings.database}: found no file, expected the one that `start` uses"])
    return settings.database
