"""verifyReceipt: the adapters of the ports ``AppStore`` and ``AppStoreTransfers``."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.stores.apple.client.answers import no_answer, read_answer, retry_after_seconds
from receipt_actors.stores.apple.client.endpoints import Endpoint
from receipt_actors.transport.messages import HttpRequest, HttpResponse, RequestFailed, Transfers, Transport

logger = logging.getLogger(__name__)

Outcome: TypeAlias = Mapping[str, object] | Exception

_HEADERS = ("Content-Type: application/json", "User-Agent: receipt-actors", "Accept: */*")

# Base64 and signed transactions consist of these, and so stand for themselves in JSON.
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_."


class VerifyReceiptClient:
    """The port ``AppStore`` on any transport."""

    def __init__(
        self, transport: Transport, endpoints: Mapping[Environment, Endpoint], shared_secret: str | None
    ) -> None:
        self._transport = transport
        self._endpoints = endpoints
        self._shared_secret = shared_secret

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        """POST one receipt to the endpoint of ``environment`` and return the JSON object of the answer.

        Raises ``AppStoreUnavailable``, with the ``Retry-After`` of the answer if it had one.
        """
        question = _Question(receipt_data, environment, shared_secret or self._shared_secret)
        outcome = self._transport.exchange(self._request(question), question.read)
        if not isinstance(outcome, AppStoreUnavailable):
            return outcome
        try:
            raise outcome
        finally:
            del outcome  # else only a garbage collection frees it

    def close(self) -> None:
        """Close the transport. May be called twice."""
        self._transport.close()

    def _request(self, question: _Question) -> HttpRequest:
        endpoint = self._endpoints[question.environment]
        return HttpRequest(endpoint.server, endpoint.url, _HEADERS, question.body)


class VerifyReceiptTransfers(VerifyReceiptClient):
    """The port ``AppStoreTransfers`` as well, on a transport that can do so."""

    _transport: Transfers

    def begin(
        self,
        receipt_data: str,
        environment: Environment,
        done: Callable[[Outcome], object],
        *,
        shared_secret: str | None = None,
    ) -> None:
        """See ``AppStoreTransfers``: ``done`` is called in the transport's place, or here where it is closed."""
        question = _Question(receipt_data, environment, shared_secret or self._shared_secret)
        self._transport.begin(self._request(question), lambda outcome: done(read_or_error(outcome, question.read)))


def read_or_error(
    outcome: HttpResponse | RequestFailed | Exception,
    read: Callable[[HttpResponse | RequestFailed], Mapping[str, object] | AppStoreUnavailable],
) -> Outcome:
    """Return what ``read`` makes of the outcome of a request, or the bug that comes up on the way."""
    if isinstance(outcome, Exception):
        return outcome
    try:
        return read(outcome)
    except Exception as error:
        logger.error("an answer of the App Store could not be read", exc_info=error)
        return error


class _Question:
    """What is asked about a receipt, and what the answer comes to."""

    __slots__ = ("_secrets", "body", "environment")

    def __init__(self, receipt_data: str, environment: Environment, shared_secret: str | None) -> None:
        self.environment = environment
        self.body = question_body(receipt_data, shared_secret)
        self._secrets = [secret for secret in (receipt_data, shared_secret) if secret]

    def read(self, outcome: HttpResponse | RequestFailed) -> Mapping[str, object] | AppStoreUnavailable:
        if isinstance(outcome, RequestFailed):
            return no_answer(self.environment, outcome.cause, self._secrets, was_sent=outcome.was_sent)
        retry_after = retry_after_seconds(outcome.header("retry-after"), time.time()) if outcome.status != 200 else None
        return read_answer(self.environment, outcome.status, outcome.body, retry_after, self._secrets)


def question_body(receipt_data: str, shared_secret: str | None) -> bytes:
    """Return the JSON object that asks about a receipt.

    Nearly every receipt needs no escapes: to see that and to copy it takes 5 us for 7 KB, ``json.dumps`` 18 us.
    """
    quoted = receipt_data.encode("utf-8", "replace")
    quoted = json.dumps(receipt_data).encode() if quoted.translate(None, _PLAIN) else b'"' + quoted + b'"'
    password = b"" if shared_secret is None else b', "password": ' + json.dumps(shared_secret).encode()
    return b'{"receipt-data": ' + quoted + password + b"}"
