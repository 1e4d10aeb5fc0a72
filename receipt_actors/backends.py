"""Which clients stand behind the ports, for given settings."""

from __future__ import annotations

import random
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from receipt_actors.domain.ports import BackgroundCalls, Environment, Ledger, Queues, ReceivedMessage, RoleTable
from receipt_actors.errors import ConfigurationError
from receipt_actors.otp import Scheduler
from receipt_actors.settings import (
    AppStoreSettings,
    BackendSettings,
    LedgerSettings,
    NotificationSettings,
    QueueSettings,
    RoleSettings,
    Settings,
    SignatureSettings,
)
from receipt_actors.sqlite import EmbeddedLedger, EmbeddedNotifications, EmbeddedQueues, EmbeddedRoles, look
from receipt_actors.stores.apple.ports import AppStore, ServerApi, SignatureRefused, SignedDataCalls
from receipt_actors.stores.apple.signatures.processes import SignedDataProcesses
from receipt_actors.stores.apple.signatures.roots import foreign_name
from receipt_actors.stores.apple.signatures.signed_data import open_signed_data, read_trust
from receipt_actors.stores.apple.signatures.threads import SignedDataThreads
from receipt_actors.telemetry.walks import Walks
from receipt_actors.transport.loop import NetworkLoop

if TYPE_CHECKING:
    from receipt_actors.aws import AwsCalls, AwsLedger, AwsNotifications, AwsQueues, AwsRoles
    from receipt_actors.stores.apple.client.endpoints import Endpoint
    from receipt_actors.stores.apple.client.server_api_client import ServerApiClient
    from receipt_actors.stores.apple.client.verify_receipt_client import VerifyReceiptClient
    from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
    from receipt_actors.stores.apple.signatures.signed_data import Trust
    from receipt_actors.transport.curl import CurlTransport
    from receipt_actors.transport.messages import Transport

MAX_RECEIVE_WAIT_SECONDS = 20  #: the longest long poll (SQS)


@dataclass(frozen=True, slots=True)
class Backend:
    """The outside world, as the actors see it."""

    queues: Queues
    ledger: Ledger
    app_store: AppStore  #: asked without a thread that waits where it is an ``AppStoreTransfers``, too
    interrupt_receives: Callable[[], None]  #: long polls under way return, where that is possible
    close: Callable[[], None]
    rng: random.Random
    background_calls: BackgroundCalls | None = None  #: queues and ledger without threads that wait, where there are
    run_on: Callable[[Scheduler], None] | None = None  #: have the latter two run on an actor system's own thread
    signed_data: SignedDataCalls | None = None  #: verifies what Apple signs; without it signed transactions are left
    server_api: ServerApi | None = None  #: who is asked about app receipts, where the settings say so
    walks: Walks | None = None  #: who takes the walks of deliveries that are over, where somebody wants them
    roles: RoleTable | None = None  #: by which this node agrees with others, where it is not alone


def open_backend(settings: Settings) -> Backend:
    """Build the clients that the settings ask for; the embedded backend's queues are created if need be.

    Raises:
        ConfigurationError: the database cannot be used, or boto3 finds no region.
        UnavailableError: the database does not answer.
    """
    with ExitStack() as opened:  # what is open already is closed again where the next can't be opened
        # Sends to each post queue and to dead-letter queues, deletes, visibility changes; or a receive for each.
        queue_connections = max(settings.all_consumers, settings.batchers * settings.batch_requests)
        queues = open_queues(
            settings,
            max_connections=queue_connections,
            longest_wait_seconds=settings.receive_wait_seconds,
            changes_policies=True,
        )
        opened.callback(queues.close)
        if settings.alerts_queue is not None and isinstance(queues, EmbeddedQueues):
            queues.create_queue(settings.alerts_queue)
        ledger = open_ledger(settings, max_connections=settings.ledger_concurrency)
        opened.callback(ledger.close)
        app_store_connections = settings.effective_app_store_concurrency
        transport = _open_curl(settings, app_store_connections + 2 * queue_connections + settings.ledger_concurrency)
        if transport is not None:
            opened.callback(transport.close)
        background_calls = _open_background_calls(transport, queues, ledger)
        if background_calls is not None:
            opened.callback(background_calls.close)
        signed_data = _open_signed_data_calls(settings)
        opened.callback(signed_data.close)
        server_api: ServerApiClient | None = None
        if settings.uses_server_api:
            server_api = open_server_api(settings, max_connections=app_store_connections, curl=transport)
            opened.callback(server_api.close)
        app_store = open_app_store(settings, max_connections=app_store_connections, curl=transport)
        opened.callback(app_store.close)
        walks = _open_walks(settings)
        if walks is not None:
            opened.callback(walks.close)
        roles = None if settings.is_alone else open_roles(settings)
        if roles is not None:
            opened.callback(roles.close)
        interrupt_receives = queues.interrupt if isinstance(queues, EmbeddedQueues) else lambda: None
        rng = random.Random()  # nosec B311 # jitter of waits
        loops = [loop for loop in (transport, signed_data) if isinstance(loop, NetworkLoop)]

        def run_on(scheduler: Scheduler) -> None:
            for loop in loops:
                loop.run_on(scheduler)

        close = opened.pop_all().close
        return Backend(
            queues,
            ledger,
            app_store,
            interrupt_receives,
            close,
            rng,
            background_calls,
            run_on,
            signed_data,
            server_api,
            walks,
            roles,
        )


def _open_walks(settings: Settings) -> Walks | None:
    if settings.traces == "none":
        return None
    from receipt_actors.telemetry.opentelemetry import open_walks  # an extra, and a large library

    return open_walks(metadata.version("receipt-actors"), settings.traces_sample_ratio)


def _open_curl(settings: Settings, max_idle_connections: int) -> CurlTransport | None:
    if not settings.uses_curl:
        return None
    from receipt_actors.transport.curl import CurlTransport  # pycurl may be missing

    return CurlTransport(max_idle_connections)


def _open_background_calls(
    transport: CurlTransport | None, queues: EmbeddedQueues | AwsQueues, ledger: EmbeddedLedger | AwsLedger
) -> AwsCalls | None:
    if transport is None or isinstance(queues, EmbeddedQueues) or isinstance(ledger, EmbeddedLedger):
        return None
    if not (queues.may_transfer and ledger.may_transfer):
        return None
    from receipt_actors.aws import AwsCalls

    return AwsCalls(transport)


def open_queues(
    settings: QueueSettings,
    *,
    max_connections: int = 1,
    longest_wait_seconds: float = MAX_RECEIVE_WAIT_SECONDS,
    create: bool = True,
    changes_policies: bool = False,
) -> EmbeddedQueues | AwsQueues:
    """Open the queues alone; embedded ones are made if need be, unless ``create`` is False.

    Consumers set ``changes_policies``: embedded queues that exist take over the redrive policy of these settings.
    Producers must not alter a running service.
    ``max_connections`` is the number of threads that call at once. Raises what ``open_backend`` raises, and
    ``ConfigurationError`` where there is no database and none is to be made.
    """
    if settings.backend == "aws":
        from receipt_actors.aws import AwsQueues  # boto3 takes its time to import

        return AwsQueues(max_connections=max_connections, longest_wait_seconds=longest_wait_seconds)
    queues = EmbeddedQueues(_database(settings, create))
    with ExitStack() as opened:  # closed again where a queue can't be made
        opened.callback(queues.close)
        if create:
            dead_letter_queues = {each.source_queue: each.known_dead_letter_queue for each in settings.every_source}
            names = {**dict.fromkeys(settings.all_post_queues), **dead_letter_queues}
            queues.create_queues(names, settings.max_receive_count, changes_policies=changes_policies)
        opened.pop_all()
    return queues


def look_at_queue(settings: QueueSettings, queue: str) -> Iterator[ReceivedMessage]:
    """Yield what is visible on an embedded queue, and change nothing. Raises what ``open_queues`` raises.

    SQS has no such look: there a message must be received to be seen.
    """
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
    """Open what remembers Apple's notifications alone; see ``open_queues``."""
    if settings.backend == "aws":
        from receipt_actors.aws import AwsNotifications

        return AwsNotifications(settings.notifications_table, max_connections=max_connections)
    return EmbeddedNotifications(_database(settings, create))


def open_roles(settings: RoleSettings) -> EmbeddedRoles | AwsRoles:
    """Open the table by which nodes agree on roles alone; see ``open_queues``."""
    if settings.backend == "aws":
        from receipt_actors.aws import AwsRoles

        return AwsRoles(settings.role_table, settings.lease_seconds)
    return EmbeddedRoles(_database(settings, create=True))


def open_app_store(
    settings: AppStoreSettings, *, max_connections: int = 1, curl: CurlTransport | None = None
) -> VerifyReceiptClient:
    """Make a client for Apple's verifyReceipt, or for what stands in for it; no request is made.

    It is an ``AppStoreTransfers`` where it runs on ``curl``: always, unless that is None or there is a proxy.
    """
    from receipt_actors.stores.apple.client.verify_receipt_client import VerifyReceiptClient, VerifyReceiptTransfers

    urls = settings.app_store_production_url, settings.app_store_sandbox_url
    endpoints, may_transfer = _endpoints(settings, urls)
    secret = settings.shared_secret
    shared_secret = None if secret is None else secret.get_secret_value()
    if curl is not None and may_transfer:
        return VerifyReceiptTransfers(curl, endpoints, shared_secret)
    return VerifyReceiptClient(_open_blocking(max_connections), endpoints, shared_secret)


def open_server_api(
    settings: AppStoreSettings, *, max_connections: int = 1, curl: CurlTransport | None = None
) -> ServerApiClient:
    """Make a client for the App Store Server API, or for what stands in for it; see ``open_app_store``.

    Raises ``ConfigurationError`` where the key is none.
    """
    from receipt_actors.stores.apple.client.server_api_client import (  # an extra
        ServerApiClient,
        ServerApiTransfers,
        Token,
    )

    key_id, issuer_id = settings.server_api_key_id, settings.server_api_issuer_id
    assert key_id is not None and issuer_id is not None, "the settings see to it"
    urls = settings.server_api_production_url, settings.server_api_sandbox_url
    endpoints, may_transfer = _endpoints(settings, urls)
    token = Token(_server_api_key(settings), key_id, issuer_id, bundle_id=settings.bundle_ids[0])
    if curl is not None and may_transfer:
        return ServerApiTransfers(curl, endpoints, token)
    return ServerApiClient(_open_blocking(max_connections), endpoints, token)


def _endpoints(settings: AppStoreSettings, urls: tuple[str, str]) -> tuple[Mapping[Environment, Endpoint], bool]:
    """Return where Apple is asked, and whether libcurl may do it: it is not used with proxies."""
    from receipt_actors.stores.apple.client.endpoints import endpoints_at

    endpoints = endpoints_at(*urls, settings.app_store_connect_timeout_seconds, settings.app_store_read_timeout_seconds)
    return endpoints, all(endpoint.proxy is None for endpoint in endpoints.values())


def _open_blocking(pool_size: int) -> Transport:
    from receipt_actors.transport.blocking import BlockingTransport  # takes its time to import, where curl is there

    return BlockingTransport(pool_size)


def _server_api_key(settings: AppStoreSettings) -> str:
    if settings.server_api_key is not None:
        return settings.server_api_key.get_secret_value().replace("\\n", "\n")  # as files of variables often have it
    assert settings.server_api_key_file is not None, "the settings see to it"
    try:
        return settings.server_api_key_file.read_text(encoding="ascii")
    except (OSError, ValueError):
        raise ConfigurationError(
            [f"server_api_key_file: found {str(settings.server_api_key_file)!r}, expected a .p8 file that can be read"]
        ) from None


def open_signatures(settings: SignatureSettings) -> AppleSignedData:
    """Open what verifies Apple's signatures on the thread that calls.

    Raises ``ConfigurationError`` where Apple's library is not installed, or the root certificates are none.
    """
    return open_signed_data(_trust(settings))


def foreign_roots(settings: SignatureSettings) -> Sequence[str]:
    """Name the trusted root certificates that are not Apple's: with their keys one can make purchases that count.

    Raises what ``open_signatures`` raises.
    """
    if settings.apple_roots is None:
        return ()
    return tuple(name for root in _trust(settings).roots if (name := foreign_name(root)) is not None)


def signer_of(settings: SignatureSettings, signed: str) -> str:
    """Say whose signature a transaction has that was verified with ``open_signatures``."""
    trust = _trust(settings)
    for root in trust.roots:
        name = foreign_name(root)
        one = open_signed_data(replace(trust, roots=(root,)))
        if name is not None and not isinstance(one.verify_transaction(signed), SignatureRefused):
            return f"{name!r}, a root certificate of apple_roots that is not Apple's"
    return "Apple"


def _open_signed_data_calls(settings: Settings) -> SignedDataProcesses | SignedDataThreads:
    """Open what loads nothing of Apple's library, nor starts a process, before there is a signature to verify."""
    if settings.apple_roots is not None or settings.uses_server_api:
        _trust(settings)  # who asks for signatures hears of what is wrong with them at the start
    if settings.signature_processes and hasattr(select, "epoll"):
        return SignedDataProcesses(lambda: _trust(settings), settings.signature_processes)
    return SignedDataThreads(lambda: open_signatures(settings))


def _trust(settings: SignatureSettings) -> Trust:
    return read_trust(settings.apple_roots, () if settings.app_apple_id is None else (settings.app_apple_id,))


def _database(settings: BackendSettings, create: bool) -> Path:
    assert settings.database is not None
    if not create and settings.database.parent.is_dir() and not settings.database.exists():
        raise ConfigurationError([f"database {settings.database}: found no file, expected the one that `start` uses"])
    return settings.database
