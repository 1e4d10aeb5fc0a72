"""A simulated App Store: Apple's verifyReceipt, over HTTP/1.1 with keep-alive, on this machine.

::

    with SimulatedAppStore(latency_seconds=0.25) as store:
        client = VerifyReceiptClient(store.production_url, store.sandbox_url, ...)
        store.outage(Fault.http(503))
        ...
        store.recover()

It judges sample receipts (``sandbox.receipts``) by themselves; what it remembers is only how often each of the last
``MAX_REMEMBERED_RECEIPTS`` was asked for, which is what moves a receipt's ``faults`` on. It speaks plain HTTP, and is
no public server.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox import answers
from receipt_actors.sandbox.http_server import HttpServer, Reply, response
from receipt_actors.sandbox.receipts import DEFAULT_KEY, Fault, FaultKind

PATHS = {
    "/production/verifyReceipt": Environment.PRODUCTION,
    "/sandbox/verifyReceipt": Environment.SANDBOX,
}
MAX_REMEMBERED_RECEIPTS = 100_000

_WEB_PAGE = b"<!DOCTYPE html><html><head><title>App Store</title></head><body>We'll be back soon.</body></html>"


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """What the simulated App Store has seen since it started."""

    requests: Mapping[Environment, int]  #: by endpoint
    answers: Mapping[str, int]  #: by Apple status ("0", "21007"), "HTTP 503", or the kind of a fault ("html", "drop")
    concurrent_requests_high_water: int  #: the most that waited for their answers at one time (1 without a latency)


class SimulatedAppStore:
    """The store. ``start`` and ``stop`` it, or use it as a context manager; once stopped it stays stopped.

    Every answer takes ``latency_seconds`` and, at random, up to ``jitter_seconds`` more. With a ``shared_secret`` every
    request needs it as its password (else 21004). ``key`` is what genuine receipts are minted under. Port 0 takes any
    free port. All methods may be called from any thread.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        latency_seconds: float = 0.0,
        jitter_seconds: float = 0.0,
        shared_secret: str | None = None,
        key: bytes = DEFAULT_KEY,
    ) -> None:
        self._server = HttpServer(host, port, self._handle, name="simulated-app-store")
        self._latency_seconds = latency_seconds
        self._jitter_seconds = jitter_seconds
        self._shared_secret = shared_secret
        self._key = key
        self._random = random.Random(0)
        self._outage: Fault | None = None
        self._lock = threading.Lock()  # over what follows
        self._requests: Counter[Environment] = Counter()
        self._answers: Counter[str] = Counter()
        self._asked: OrderedDict[bytes, int] = OrderedDict()

    def start(self) -> Self:
        """Listen and serve. Raises ``OSError`` where the address can't be had."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Close every connection, answered or not, and end the server's thread. May be called twice."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def production_url(self) -> str:
        """URL for ``app_store_production_url``; complete once started."""
        return f"{self._server.url}/production/verifyReceipt"

    @property
    def sandbox_url(self) -> str:
        """URL for ``app_store_sandbox_url``; complete once started."""
        return f"{self._server.url}/sandbox/verifyReceipt"

    def outage(self, fault: Fault) -> None:
        """From now on every request, at either endpoint, meets this fault."""
        self._outage = fault

    def recover(self) -> None:
        """End the outage; connections that hang are closed at once."""
        self._outage = None
        self._server.drop_hanging()

    def statistics(self) -> StoreStatistics:
        """Take a snapshot of the counters."""
        with self._lock:
            return StoreStatistics(
                dict(self._requests), dict(self._answers), self._server.concurrent_requests_high_water
            )

    def requests_for(self, receipt_data: str) -> int:
        """Count the requests that came with this receipt, at either endpoint; those of an outage don't count."""
        with self._lock:
            return self._asked.get(_fingerprint(receipt_data), 0)

    def _handle(self, method: str, path: str, body: bytes) -> Reply:
        environment = PATHS.get(path)
        if environment is None:
            return Reply(response(http.client.NOT_FOUND, b"", "text/plain"))
        label, reply = self._decide(environment, method, body)
        with self._lock:
            self._requests[environment] += 1
            self._answers[label] += 1
        return reply

    def _decide(self, environment: Environment, method: str, body: bytes) -> tuple[str, Reply]:
        outage = self._outage
        if outage is not None:
            return self._fault(outage)
        if method != "POST":
            return self._apple({"status": answers.NOT_A_POST})
        try:
            question = json.loads(body)
        except (ValueError, RecursionError):
            question = None
        receipt_data = question.get("receipt-data") if isinstance(question, dict) else None
        if not isinstance(receipt_data, str):
            return self._apple({"status": answers.MALFORMED})
        if not self._knows_secret(question.get("password")):
            return self._apple({"status": answers.WRONG_SHARED_SECRET})
        asked_before = self._count(receipt_data)
        answer, receipt = answers.judge(receipt_data, environment, key=self._key, now_ms=int(time.time() * 1000))
        if receipt is not None and asked_before < len(receipt.faults):
            return self._fault(receipt.faults[asked_before])
        return self._apple(answer)

    def _knows_secret(self, password: object) -> bool:
        if self._shared_secret is None:
            return True
        given = password if isinstance(password, str) else ""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._shared_secret.encode())

    def _count(self, receipt_data: str) -> int:
        """Count a request for this receipt, and return how many there were before."""
        fingerprint = _fingerprint(receipt_data)
        with self._lock:
            asked_before = self._asked.get(fingerprint, 0)
            self._asked[fingerprint] = asked_before + 1
            self._asked.move_to_end(fingerprint)
            if len(self._asked) > MAX_REMEMBERED_RECEIPTS:
                self._asked.popitem(last=False)
            return asked_before

    def _apple(self, answer: answers.Answer) -> tuple[str, Reply]:
        return str(answer["status"]), self._reply(http.client.OK, json.dumps(answer).encode(), "application/json")

    def _fault(self, fault: Fault) -> tuple[str, Reply]:
        match fault.kind:
            case FaultKind.APPLE:
                retryable = {} if fault.is_retryable is None else {"is-retryable": fault.is_retryable}
                return self._apple({"status": fault.status, **retryable})
            case FaultKind.HTTP:
                return f"HTTP {fault.status}", self._reply(fault.status, _WEB_PAGE, "text/html", fault.retry_after)
            case FaultKind.HTML:
                return "html", self._reply(http.client.OK, _WEB_PAGE, "text/html")
            case FaultKind.GARBAGE:
                return "garbage", self._reply(http.client.OK, b'{"status": 0, "receipt": {', "application/json")
            case FaultKind.DROP:
                return "drop", Reply(b"", self._delay_seconds())
            case FaultKind.HANG:
                return "hang", Reply(b"", fault.seconds, hangs=True)
            case FaultKind.TRICKLE:
                data = response(http.client.OK, b'{"status": 21005}', "application/json")
                return "trickle", Reply(data, hangs=True, byte_seconds=fault.seconds)

    def _reply(self, status: int, body: bytes, content_type: str, retry_after: str | None = None) -> Reply:
        return Reply(response(status, body, content_type, retry_after), self._delay_seconds())

    def _delay_seconds(self) -> float:
        return self._latency_seconds + self._jitter_seconds * self._random.random()


def _fingerprint(receipt_data: str) -> bytes:
    return hashlib.sha256(receipt_data.encode("utf-8", "surrogatepass")).digest()
