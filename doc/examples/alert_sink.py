"""An alert sink of one's own: it posts to a chat. Here an actor is killed, so that there is something to say."""

from __future__ import annotations

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import requests

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.otp import SystemClock
from receipt_actors.telemetry.alerts import Alert
from receipt_actors.testing import FakeServices


class ChatSink:
    """Posts an alert as one line. The system calls it with one at a time, at most one of a kind a minute.

    What it raises is logged, and the alert is not told again: a sink that must not lose any takes ``alerts_queue``.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, alert: Alert) -> None:
        """Post it."""
        text = f"{alert.kind} x {alert.count}: {alert.summary}"
        requests.post(self.url, json={"text": text}, timeout=5).raise_for_status()


class Chat(BaseHTTPRequestHandler):
    """Stands in for the chat."""

    posts: queue.Queue[str] = queue.Queue()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.posts.put(json.loads(body)["text"])

    def log_message(self, *_: object) -> None:
        """Print nothing."""


server = HTTPServer(("127.0.0.1", 0), Chat)
threading.Thread(target=server.serve_forever, daemon=True).start()
settings = Settings(backend="aws", bundle_ids=("com.example.game",))
services = FakeServices(settings, SystemClock())
sink = ChatSink(f"http://127.0.0.1:{server.server_port}/")
with ReceiptSystem.start(settings, backend=services.backend, on_alert=sink) as system:
    gateway = system.actors.whereis("ledger_gateway")
    assert gateway is not None
    gateway.kill()
    print(Chat.posts.get(timeout=10))
server.shutdown()
