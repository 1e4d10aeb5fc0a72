"""Apple's server notifications (version 2): refunds that reach the ledger, and the queue that got the OK.

``NotificationHandler`` is all of it, and knows no web framework; ``asgi_app`` and ``wsgi_app`` put it into one.
``open_handler`` makes a handler of settings::

    from fastapi import FastAPI
    from receipt_actors import Settings
    from receipt_actors.notifications import asgi_app, open_handler

    handler = open_handler(Settings(database="receipts.db", bundle_ids=("com.example.game",)))
    app = FastAPI()
    app.mount("/apple-notifications", asgi_app(handler))  # Apple's URL: .../apple-notifications/, else it is redirected

``receipt-actors notifications`` is the same with a server around it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from receipt_actors.backends import open_ledger, open_notifications, open_queues
from receipt_actors.domain.policy import Policy
from receipt_actors.settings import NotificationSettings
from receipt_actors.sources import start_retrying
from receipt_actors.sqlite import EmbeddedQueues
from receipt_actors.stores.apple.notifications.contents import Done
from receipt_actors.stores.apple.notifications.handler import HandlerAnswer, NotificationHandler
from receipt_actors.stores.apple.notifications.shells import asgi_app, wsgi_app
from receipt_actors.stores.apple.opening import open_signatures

__all__ = ["Done", "HandlerAnswer", "NotificationHandler", "asgi_app", "open_handler", "wsgi_app"]

MAX_CONNECTIONS = 16  #: to each service: threads that call at once


def open_handler(
    settings: NotificationSettings,
    *,
    max_connections: int = MAX_CONNECTIONS,
    pause: Callable[[float], None] = time.sleep,
) -> NotificationHandler:
    """Open what the settings name, see whether it can be used, and return the handler, which closes it all.

    Trouble of the ledger that may pass is waited out, for half a minute in all; ``pause`` waits between two questions,
    and what it raises ends this.

    Raises:
        ConfigurationError: there is no such folder of root certificates, the database cannot be used, or boto3
            finds no region.
        LedgerRefused: a table is missing, of another make, or may not be used.
        UnavailableError: the ledger does not answer.
    """
    signed_data = open_signatures(settings)
    all_ids = [bundle_id for source in settings.every_source for bundle_id in source.bundle_ids]
    bundle_ids = None if "*" in all_ids else frozenset(all_ids)
    environments = frozenset(environment for source in settings.every_source for environment in source.environments)
    with ExitStack() as opened:  # what is open already is closed again where the next can't be opened
        ledger = open_ledger(settings, max_connections=max_connections)
        opened.callback(ledger.close)
        queues = open_queues(settings, max_connections=max_connections, create=False)
        opened.callback(queues.close)
        if isinstance(queues, EmbeddedQueues):  # those alone: the others' redrive policy is for `start` to know
            queues.create_queues(dict.fromkeys(settings.all_post_queues))
        notifications = open_notifications(settings, max_connections=max_connections)
        opened.callback(notifications.close)
        retrying = start_retrying(pause)
        retrying(ledger.check)
        retrying(notifications.check)
        return NotificationHandler(
            signed_data=signed_data,
            notifications=notifications,
            ledger=ledger,
            queues=queues,
            policy=Policy(bundle_ids, environments=environments),  # of all sources together
            post_queues=settings.all_post_queues,
            close=opened.pop_all().close,  # which does so once
        )
