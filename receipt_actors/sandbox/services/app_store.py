"""Apple's verifyReceipt for sample receipts, for load: answers are made beforehand, and found by the receipt's hash.

The answers are those of ``SimulatedAppStore``; a receipt that is new is judged like there, and remembered. There are no
faults on demand here, and no shared secret.
"""

from __future__ import annotations

import http.client
import json
import random
import time
from dataclasses import dataclass

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox import answers
from receipt_actors.sandbox.receipts import DEFAULT_KEY
from receipt_actors.sandbox.services.load import Load
from receipt_actors.sandbox.services.protocol import Connection, Request, dumps, response

PRODUCTION_PATH = "/production/verifyReceipt"
SANDBOX_PATH = "/sandbox/verifyReceipt"
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
        """Draw one."""
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

    def prepare(self, load: Load) -> None:
        """Make the answers for a load."""
        for number in range(load.messages):
            self._answer(load.receipt(number), Environment.PRODUCTION)

    def begin(self) -> None:
        """Forget what was counted."""
        self.requests = self.concurrent_requests_high_water = 0
        self.delays_seconds = []

    def handle(self, connection: Connection, request: Request) -> bool:
        """Answer a request, unless its path is none of Apple's."""
        environment = _PATHS.get(request.path)
        if environment is None:
            return False
        began_at = time.monotonic()
        self.requests += 1
        self._waiting += 1
        if self._waiting > self.concurrent_requests_high_water:
            self.concurrent_requests_high_water = self._waiting
        answer = self._decide(environment, request)

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

    def _decide(self, environment: Environment, request: Request) -> bytes:
        if request.method != b"POST":
            return _reply({"status": answers.NOT_A_POST})
        try:
            question = json.loads(request.body)
        except ValueError:
            question = None
        receipt_data = question.get("receipt-data") if isinstance(question, dict) else None
        if not isinstance(receipt_data, str):
            return _reply({"status": answers.MALFORMED})
        return self._answer(receipt_data, environment)

    def _answer(self, receipt_data: str, environment: Environment) -> bytes:
        key = environment, hash(receipt_data)  # 64 bits: enough to tell some million receipts apart
        answer = self._answers.get(key)
        if answer is None:
            verdict, _ = answers.judge(receipt_data, environment, key=DEFAULT_KEY, now_ms=int(time.time() * 1000))
            answer = self._answers[key] = _reply(verdict)
        return answer


def _reply(answer: answers.Answer) -> bytes:
    return response(http.client.OK, dumps(answer), "application/json")
