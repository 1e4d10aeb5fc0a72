"""Which clients stand behind the ports, for given settings."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from receipt_actors.clients.app_store import VerifyReceiptClient
from receipt_actors.domain.ports import AppStore, Ledger, Queues
from receipt_actors.settings import Settings


@dataclass(frozen=True, slots=True)
class Backend:
    """The outside world, as the actors see it."""

    queues: Queues
    ledger: Ledger
    app_store: AppStore
    interrupt_receives: Callable[[], None]  #: long polls under way return, where that is possible
    close: Callable[[], None]
    rng: random.Random


def open_backend(settings: Settings) -> Backend:
    """Build the clients that the settings ask for; the embedded backend's queues are created if need be.

    Raises:
        ConfigurationError: the database cannot be used, or boto3 finds no region.
        UnavailableError: the database does not answer.
    """
    secret = settings.shared_secret
    app_store = VerifyReceiptClient(
        settings.app_store_production_url,
        settings.app_store_sandbox_url,
        None if secret is None else secret.get_secret_value(),
        settings.app_store_connect_timeout_seconds,
        settings.app_store_read_timeout_seconds,
        pool_size=settings.app_store_concurrency,
    )
    return _embedded(settings, app_store) if settings.backend == "embedded" else _aws(settings, app_store)


def _embedded(settings: Settings, app_store: VerifyReceiptClient) -> Backend:
    from receipt_actors.clients.embedded import EmbeddedLedger, EmbeddedQueues

    assert settings.database is not None
    queues = EmbeddedQueues(settings.database)
    ledger = EmbeddedLedger(settings.database)
    dead_letter_queue = settings.dead_letter_queue or f"{settings.source_queue}DLQ"
    queues.create_queue(settings.source_queue, dead_letter_queue, settings.max_receive_count)
    for queue in settings.post_queues:
        queues.create_queue(queue)

    def close() -> None:
        queues.close()
        ledger.close()
        app_store.close()

    return Backend(queues, ledger, app_store, queues.interrupt, close, random.Random())


def _aws(settings: Settings, app_store: VerifyReceiptClient) -> Backend:
    from receipt_actors.clients.aws import AwsLedger, AwsQueues  # boto3 takes its time to import

    # Sends to each post queue and the dead-letter queue, deletes, visibility changes; each receive has its consumer.
    batchers = len(settings.post_queues) + 3
    queues = AwsQueues(
        max_connections=max(settings.consumers, batchers * settings.batch_requests),
        longest_wait_seconds=settings.receive_wait_seconds,
    )
    ledger = AwsLedger(settings.ledger_table, max_connections=settings.ledger_concurrency)

    def close() -> None:
        queues.close()
        ledger.close()
        app_store.close()

    return Backend(queues, ledger, app_store, lambda: None, close, random.Random())
