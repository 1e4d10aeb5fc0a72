"""verifyReceipt by way of ``requests``: the blocking adapter; a thread waits for each answer."""

from __future__ import annotations

import time
from collections.abc import Mapping

import requests

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.stores.apple.client.answers import read_answer, retry_after_seconds
from receipt_actors.stores.apple.client.bounded_transport import BoundedTransport
from receipt_actors.stores.apple.client.endpoints import HEADERS, Questions


class VerifyReceiptClient:
    """The port ``AppStore`` on ``requests``; ``BoundedTransport`` says what its parameters mean, and what it raises."""

    def __init__(
        self,
        production_url: str,
        sandbox_url: str,
        shared_secret: str | None,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        pool_size: int,
    ) -> None:
        self._questions = Questions(shared_secret)
        self._transport = BoundedTransport(
            production_url, sandbox_url, connect_timeout_seconds, read_timeout_seconds, pool_size
        )
        self._requests = {
            environment: requests.Request("POST", endpoint.url, headers=HEADERS).prepare()
            for environment, endpoint in self._transport.endpoints.items()
        }

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        """POST one receipt to the endpoint of ``environment`` and return the JSON object of the answer.

        Raises ``AppStoreUnavailable``, with the ``Retry-After`` of the answer if it had one.
        """
        outcome = self._ask(receipt_data, environment, shared_secret)
        if not isinstance(outcome, AppStoreUnavailable):
            return outcome
        try:
            raise outcome
        finally:
            del outcome  # else only a garbage collection frees it

    def _ask(
        self, receipt_data: str, environment: Environment, shared_secret: str | None
    ) -> Mapping[str, object] | AppStoreUnavailable:
        secrets = self._questions.secrets(receipt_data, shared_secret)
        body = self._questions.body(receipt_data, shared_secret)
        request = self._requests[environment].copy()
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        with self._transport.exchange(environment, request, secrets) as answer:
            retry_after = retry_after_seconds(answer.headers.get("Retry-After"), time.time())
            return read_answer(environment, answer.status, answer.body, retry_after, secrets)

    def close(self) -> None:
        """Close the idle connections; one that is in use closes when its call ends. May be called twice."""
        self._transport.close()
