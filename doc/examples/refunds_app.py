"""Apple's server notifications in an application on Starlette; ``app.mount`` of FastAPI is the very same.

The URL for App Store Connect ends with a slash, ``https://HOST/apple-notifications/``: without it a mount redirects.
"""

from starlette.applications import Starlette

from receipt_actors.notifications import asgi_app, open_handler
from receipt_actors.settings import load_settings

app = Starlette()  # or FastAPI(): the application that you have
handler = open_handler(load_settings({}))  # settings from the environment
app.mount("/apple-notifications", asgi_app(handler))
