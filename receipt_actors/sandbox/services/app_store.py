"""Apple's verifyReceipt and Server API for a load: answers are made beforehand, and found by the receipt or its id.

The answers are those of ``sandbox.store``, encoded once for each receipt. There are no faults on demand here, no shared
secret, and any bearer token will do: to check one is no work of a benchmark's.
"""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox import answers
from receipt_actors.sandbox.http_server import Connection, Request, dumps, response
from receipt_actors.sandbox.receipts import Fault
from receipt_actors.sandbox.services.load import Load, Way, transaction_id
from receipt_actors.sandbox.store import Store

PRODUCTION_PATH = "/production/verifyReceipt"
SANDBOX_PATH = "/sandbox/verifyReceipt"
PRODUCTION_API_PATH = "/production"
SANDBOX_API_PATH = "/sandbox"
_API_PATH = b"/inApps/v1/transactions/"
_PATHS = {
    PRODUCTION_PATH.encode(): Environment.PRODUCTION,
    SANDBOX_PATH.encode(): Environment.SANDBOX,
}


@dataclass(frozen=True, slots=True)
class Latency:
    """How long an answer takes: evenly spread over ``seconds`` plus and minus ``jitter_seconds``."""

    seconds: float = 0.0
    jitter_seconds: float = 0.0

    def draw(self, rng: random.Random) -> float:
        return max(0.0, self.seconds + self.jitter_seconds * (2 * rng.random() - 1))


class FastAppStore:
    """The service. ``requests`` counts questions, ``delays_seconds`` has what each answer took, in their order."""

    def __init__(self, latency: Latency) -> None:
        self.latency = latency
        self.requests = 0
        self.concurrent_requests_high_water = 0
        self.delays_seconds: list[float] = []
        self._waiting = 0
        self._random = random.Random(0)
        self._answers: dict[tuple[Environment, int], bytes] = {}
        self._found: dict[bytes, bytes] = {}  # answers of the Server API, by their paths
        self._store = Store(_sign)
        self._not_found = _reply(answers.api_error(answers.API_TRANSACTION_ID_NOT_FOUND))
        self._unauthorized = response(http.client.UNAUTHORIZED, b"Unauthenticated", "text/plain")

    def prepare(self, load: Load) -> None:
        self._answers.clear()
        self._found.clear()
        for number in range(load.messages):
            if load.way == Way.SERVER_API:
                self._store.record(load.sample(number))
                info = self._store.transaction_info(transaction_id(number), Environment.PRODUCTION, None)
                assert not isinstance(info, Fault)
                path = f"{PRODUCTION_API_PATH}{_API_PATH.decode()}{transaction_id(number)}".encode()
                self._found[path] = _reply(info)
            elif load.way == Way.VERIFY_RECEIPT:
                self._answer(load.receipt(number), Environment.PRODUCTION)

    def begin(self) -> None:
        self.requests = self.concurrent_requests_high_water = 0
        self.delays_seconds = []

    def handle(self, connection: Connection, request: Request) -> bool:
        """Answer a request, unless its path is none of Apple's."""
        environment = _PATHS.get(request.path)
        if environment is None and _API_PATH not in request.path:
            return False
        began_at = time.monotonic()
        self.requests += 1
        self._waiting += 1
        if self._waiting > self.concurrent_requests_high_water:
            self.concurrent_requests_high_water = self._waiting
        answer = self._look_up(request) if environment is None else self._decide(environment, request)

        def finish() -> None:
            connection.on_lost = None
            connection.respond(answer)
            self._waiting -= 1
            self.delays_seconds.append(time.monotonic() - began_at)

        connection.on_lost = self._give_up
        connection.after(self.latency.draw(self._random), finish)
        return True

    def _give_up(self) -> None:
        self._waiting -= 1

    def _look_up(self, request: Request) -> bytes:
        if b"\r\nauthorization: bearer " not in request.head:
            return self._unauthorized
        return self._found.get(request.path, self._not_found)

    def _decide(self, environment: Environment, request: Request) -> bytes:
        if request.method != b"POST":
            return _reply({"status": answers.NOT_A_POST})
        receipt_data, _ = answers.read_question(request.body)
        if receipt_data is None:
            return _reply({"status": answers.MALFORMED})
        return self._answer(receipt_data, environment)

    def _answer(self, receipt_data: str, environment: Environment) -> bytes:
        key = environment, hash(receipt_data)  # 64 bits: enough to tell some million receipts apart
        answer = self._answers.get(key)
        if answer is None:
            while isinstance(said := self._store.verify_receipt(receipt_data, environment), Fault):
                pass
            answer = self._answers[key] = _reply(said)
        return answer


def _reply(answer: answers.Answer) -> bytes:
    return response(answers.http_status(answer), dumps(answer))


def _sign(payload: Mapping[str, object]) -> str:
    from receipt_actors.sandbox.apple_ca import default_authority

    return default_authority().sign(payload)
