"""Apple's server notifications (version 2): refunds that reach the ledger, and whoever got the OK.

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

from receipt_actors.notifications.asgi import asgi_app
from receipt_actors.notifications.handler import Done, HandlerAnswer, NotificationHandler
from receipt_actors.notifications.opening import open_handler
from receipt_actors.notifications.wsgi import wsgi_app

__all__ = ["Done", "HandlerAnswer", "NotificationHandler", "asgi_app", "open_handler", "wsgi_app"]
