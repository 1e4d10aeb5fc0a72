"""A proxy in front of an emulator of AWS, which makes trouble: what the program under test is given as its endpoint.

What can befall a request (at random, by seed):

``refused``    nothing is done; 500 or 503
``throttled``  nothing is done; ``ThrottlingException``, in SQS's words ``RequestThrottled``
``lost``       it is carried out, and answered 500
``cut``        it is carried out, and the connection is closed without an answer
``slow``       it is carried out, and answered when the client has given up waiting
``late``       it is carried out only when the client has given up waiting, and tried again perhaps
``doubled``    what was received can be received again at once, by anyone

The proxy also knows what no client of SQS can ask for: what is in the hands of the process that runs now, and the
receipt handles of those that have died.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.patience import PATIENCE_SECONDS

#: Above the program's time-outs of 5 s, and of a long poll of 1 s and these.
LATE_SECONDS = 6.5

#: Probabilities by operation; an operation that is not listed is passed on as it is.
Rates = Mapping[str, Mapping[str, float]]

#: What keeps a request waiting.
KEPT = ("slow", "late")
_NOT_CARRIED_OUT = ("refused", "throttled")


class AwsProxy:
    """See the module. ``close`` it; ``happened`` counts by operation and fault."""

    def __init__(self, upstream_url: str, rates: Rates, *, seed: int) -> None:
        self.rates = rates
        self.happened: Counter[tuple[str, str]] = Counter()
        self.requests: Counter[str] = Counter()
        self.messages_received = 0
        self.upstream = urlsplit(upstream_url).netloc
        self.late_seconds = LATE_SECONDS
        self.released = threading.Event()
        self._under_way = 0
        self._kept_waiting = 0
        self._changed = threading.Condition()  # over the two lines above
        self.authorization = ""  #: of the last request: an emulator reads account and region there
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._newest_handle: dict[tuple[str, str], str] = {}  # by URL of the queue and message id; not deleted yet
        # Receipt handles that this life has received, and not deleted or handed back; how often that had been received.
        self._held: dict[str, int] = {}
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="aws-proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def calm(self) -> None:
        """From now on everything is passed on as it is."""
        self.rates = {}

    def release(self) -> None:
        """What is late now, and later on, waits no longer."""
        self.released.set()

    def wait_until_idle(self) -> None:
        """Wait until every request is done with, also those that no client waits for."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._under_way == 0, timeout=PATIENCE_SECONDS)

    def wait_until_kept(self) -> None:
        """Wait until some request is where its fault has it wait, whether or not its client waits still.

        (A ``late`` one has not been carried out then, a ``slow`` one has.)
        """
        with self._changed:
            assert self._changed.wait_for(lambda: self._kept_waiting > 0, timeout=PATIENCE_SECONDS)

    def begin_life(self) -> None:
        """Another process has begun."""
        with self._lock:
            self._held.clear()

    def in_flight(self, receives: int = 1) -> int:
        """Count the messages that the process has in its hands, and that were received so often or more often."""
        with self._lock:
            return sum(count >= receives for count in self._held.values())

    def bring_back(self) -> None:
        """Make all that is in dead hands visible now, instead of waiting for the visibility timeout."""
        with self._lock:
            handles: dict[str, list[str]] = {}
            for (queue_url, _), handle in self._newest_handle.items():
                handles.setdefault(queue_url, []).append(handle)
        connection = self.connect()
        for queue_url, of_queue in handles.items():
            for start in range(0, len(of_queue), 10):
                _make_visible(
                    connection, {"Authorization": self.authorization}, queue_url, of_queue[start : start + 10]
                )
        connection.close()

    # --- for the threads of connections ---

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.upstream, timeout=PATIENCE_SECONDS)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    @contextmanager
    def request_under_way(self) -> Iterator[None]:
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def keep_waiting(self) -> None:
        """Return when the client of this request has given up, as one may hope, or when all are released."""
        with self._changed:
            self._kept_waiting += 1
            self._changed.notify_all()
        self.released.wait(self.late_seconds)

    def draw(self, operation: str, body: bytes) -> str | None:
        """Say what befalls this request."""
        with self._lock:
            self.requests[operation] += 1
            number = self._random.random()
            for fault, rate in self.rates.get(operation, {}).items():
                number -= rate
                if number < 0:
                    self.happened[operation, fault] += 1
                    return fault
        return None

    def heads_or_tails(self) -> bool:
        with self._lock:
            return self._random.random() < 0.5

    def note(self, operation: str, body: bytes, answer: bytes) -> Sequence[str]:
        """Remember who has which message; returns the receipt handles of what was received."""
        if operation not in ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
            return ()
        question = json.loads(body)
        received = json.loads(answer).get("Messages") or () if operation == "ReceiveMessage" else ()
        with self._lock:
            self.messages_received += len(received)
            for message in received:
                self._newest_handle[question["QueueUrl"], message["MessageId"]] = message["ReceiptHandle"]
                self._held[message["ReceiptHandle"]] = int(message["Attributes"]["ApproximateReceiveCount"])
            given_up = {
                entry["ReceiptHandle"] for entry in question.get("Entries", ()) if not entry.get("VisibilityTimeout")
            }
            for handle in given_up:
                self._held.pop(handle, None)
            if operation == "DeleteMessageBatch":
                deleted = [key for key, handle in self._newest_handle.items() if handle in given_up]
                for key in deleted:
                    del self._newest_handle[key]
        return [message["ReceiptHandle"] for message in received]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: AwsProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


class _Connection(BaseHTTPRequestHandler):
    """One connection of a client, on a thread and with a connection to the emulator of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._upstream = self.server.proxy.connect()

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def do_POST(self) -> None:
        with self.server.proxy.request_under_way():
            self._pass_on(self.server.proxy)

    def _pass_on(self, proxy: AwsProxy) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        fault = proxy.draw(operation, body)
        if fault == "late":
            proxy.keep_waiting()
        if fault in _NOT_CARRIED_OUT:
            self._refuse(fault)
            return
        headers = dict(self.headers.items())
        proxy.authorization = headers.get("Authorization", "")
        self._upstream.request("POST", self.path, body, headers)
        answer = self._upstream.getresponse()
        content = answer.read()
        handles = proxy.note(operation, body, content) if answer.status == http.client.OK else ()
        if fault == "doubled" and handles:
            _make_visible(self._upstream, headers, json.loads(body)["QueueUrl"], handles)
        if fault == "slow":
            proxy.keep_waiting()
        if fault == "cut":
            self.close_connection = True
        elif fault == "lost":
            self._answer(http.client.INTERNAL_SERVER_ERROR, _error("InternalServerError"))
        else:
            self._answer(answer.status, content, answer.getheaders())

    def log_message(self, format: str, *args: object) -> None:
        """Not a line for each request."""

    def _refuse(self, fault: str) -> None:
        is_dynamodb = self.headers.get("X-Amz-Target", "").startswith("DynamoDB")
        if fault == "throttled":
            code = "ThrottlingException" if is_dynamodb else "RequestThrottled"
            self._answer(http.client.BAD_REQUEST, _error(code))
        elif self.server.proxy.heads_or_tails():
            self._answer(http.client.INTERNAL_SERVER_ERROR, _error("InternalServerError"))
        else:
            self._answer(http.client.SERVICE_UNAVAILABLE, _error("ServiceUnavailable"))

    def _answer(self, status: int, content: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        lines = [f"HTTP/1.1 {int(status)} {http.client.responses.get(status, '')}"]
        passed_on = [
            (name, value)
            for name, value in headers
            if name.lower() not in ("content-length", "connection", "transfer-encoding")
        ]
        lines += [f"{name}: {value}" for name, value in [*passed_on, ("Content-Length", str(len(content)))]]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)


def _error(code: str) -> bytes:
    return json.dumps({"__type": code, "message": "injected"}).encode()


def _make_visible(
    connection: http.client.HTTPConnection, headers: Mapping[str, str], queue_url: str, handles: Sequence[str]
) -> None:
    body = json.dumps(
        {
            "QueueUrl": queue_url,
            "Entries": [
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for number, handle in enumerate(handles)
            ],
        }
    )
    dropped = ("content-length", "x-amz-target", "content-type")
    connection.request(
        "POST",
        urlsplit(queue_url).path,
        body,
        {name: value for name, value in headers.items() if name.lower() not in dropped}
        | {"X-Amz-Target": "AmazonSQS.ChangeMessageVisibilityBatch", "Content-Type": "application/x-amz-json-1.0"},
    )
    connection.getresponse().read()
