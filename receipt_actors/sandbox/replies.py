"""How the simulated App Store words its answers and its failures, for verifyReceipt and for the Server API."""

from __future__ import annotations

import http.client
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from receipt_actors.sandbox.http_server import Reply, response
from receipt_actors.sandbox.receipts import Fault, FaultKind

RATE_LIMIT_EXCEEDED = 4290000
INTERNAL_RETRYABLE = 5000001

_WEB_PAGE = b"<!DOCTYPE html><html><head><title>App Store</title></head><body>We'll be back soon.</body></html>"
_MESSAGES: Mapping[int, str] = {
    4000006: "Invalid transaction id.",
    4040001: "Account not found.",
    4040010: "Transaction id not found.",
    RATE_LIMIT_EXCEEDED: "Rate limit exceeded.",
    5000000: "An unknown error occurred.",
    INTERNAL_RETRYABLE: "An unknown error occurred. Please try again.",
}


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """An answer of the Server API: an HTTP status and a JSON object."""

    status: int
    content: Mapping[str, object]

    @property
    def label(self) -> str:
        """What it counts as: its ``errorCode``, or its HTTP status where there is none."""
        return str(self.content.get("errorCode", self.status))

    @classmethod
    def error(cls, code: int) -> ApiAnswer:
        """Make the answer of one of Apple's error codes, whose first digits are its HTTP status."""
        return cls(code // 10_000, {"errorCode": code, "errorMessage": _MESSAGES.get(code, "An error occurred.")})


class Replies:
    """Makes replies, each with its label, that take ``latency_seconds`` and at random up to ``jitter_seconds`` more."""

    def __init__(self, latency_seconds: float, jitter_seconds: float) -> None:
        self._latency_seconds = latency_seconds
        self._jitter_seconds = jitter_seconds
        self._random = random.Random(0)

    def plain(self, status: int, text: str = "") -> tuple[str, Reply]:
        """Answer in words."""
        return f"HTTP {status}", self._reply(status, text.encode(), "text/plain")

    def verify_receipt(self, answer: Mapping[str, object]) -> tuple[str, Reply]:
        """Answer as verifyReceipt does."""
        return str(answer["status"]), self._reply(http.client.OK, json.dumps(answer).encode(), "application/json")

    def api(self, answer: ApiAnswer, retry_after: str | None = None) -> tuple[str, Reply]:
        """Answer as the Server API does."""
        body = json.dumps(answer.content).encode()
        return answer.label, self._reply(answer.status, body, "application/json", retry_after)

    def fault(self, fault: Fault) -> tuple[str, Reply]:
        """Fail as verifyReceipt does."""
        match fault.kind:
            case FaultKind.APPLE:
                retryable = {} if fault.is_retryable is None else {"is-retryable": fault.is_retryable}
                return self.verify_receipt({"status": fault.status, **retryable})
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
            case FaultKind.RATE_LIMIT:
                wait = str(math.ceil(fault.seconds))
                return "HTTP 429", self._reply(http.client.TOO_MANY_REQUESTS, _WEB_PAGE, "text/html", wait)

    def api_fault(self, fault: Fault) -> tuple[str, Reply]:
        """Fail as the Server API does."""
        match fault.kind:
            case FaultKind.APPLE:
                is_code = 4_000_000 <= fault.status < 6_000_000
                return self.api(ApiAnswer.error(fault.status if is_code else INTERNAL_RETRYABLE))
            case FaultKind.RATE_LIMIT:
                again_at_ms = math.ceil((time.time() + fault.seconds) * 1000)
                return self.api(ApiAnswer.error(RATE_LIMIT_EXCEEDED), str(again_at_ms))
        return self.fault(fault)

    def _reply(self, status: int, body: bytes, content_type: str, retry_after: str | None = None) -> Reply:
        headers = () if retry_after is None else (f"Retry-After: {retry_after}",)
        return Reply(response(status, body, content_type, *headers), self._delay_seconds())

    def _delay_seconds(self) -> float:
        return self._latency_seconds + self._jitter_seconds * self._random.random()
