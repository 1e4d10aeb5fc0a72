"""What the App Store knows and answers, without a network: behind both simulated stores and the fakes of ``testing``.

A receipt says itself what was bought; a transaction id does not. So the store remembers purchases: those that it sold,
those that it was given (``record``), and those that it has judged. It remembers, too, how often each receipt and each
transaction was asked for, which is what moves a receipt's ``faults`` on.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cachetools import LRUCache

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox import answers
from receipt_actors.sandbox.answers import Answer
from receipt_actors.sandbox.receipts import (
    DEFAULT_KEY,
    Fault,
    ForgedReceipt,
    MalformedReceipt,
    Purchase,
    SampleReceipt,
    read,
)

MAX_SALES = 200_000  #: remembered; the one that was heard of the longest ago is forgotten first
MAX_REMEMBERED_RECEIPTS = 100_000  #: of which the requests are counted, likewise

_TRANSACTION_ID = re.compile(r"[0-9]{1,30}")


@dataclass(frozen=True, slots=True)
class Sale:
    """A purchase, and the receipt that it came with."""

    receipt: SampleReceipt
    purchase: Purchase


class Store:
    """The store. All methods may be called from any thread.

    ``sign`` makes a JWS of a payload; ``key`` is what genuine receipts are minted under.
    """

    def __init__(
        self, sign: Callable[[Mapping[str, object]], str], *, key: bytes = DEFAULT_KEY, max_sales: int = MAX_SALES
    ) -> None:
        self._sign = sign
        self._key = key
        self._lock = threading.Lock()  # over what follows
        self._sales: LRUCache[str, Sale] = LRUCache(max_sales)
        self._refunds: LRUCache[str, dict[str, Any]] = LRUCache(max_sales)  # changes since the purchases were minted
        self._asked: LRUCache[int, int] = LRUCache(MAX_REMEMBERED_RECEIPTS)  # by hash of transaction id or receipt

    # --- sales ---

    def record(self, receipt: SampleReceipt) -> None:
        """Remember each purchase of a receipt; what happened to one since it was minted stays so."""
        with self._lock:
            for purchase in self._as_of_now(receipt).purchases:
                self._sales[purchase.transaction_id] = Sale(receipt, purchase)

    def find(self, transaction_id: str) -> Sale | None:
        with self._lock:
            return self._sales.get(transaction_id)

    def cancel(
        self, transaction_id: str, at_ms: int | None, type_: str | None = None, percentage: int | None = None
    ) -> Sale:
        """Refund or revoke a purchase (None: take that back). ``KeyError``: it was never sold here."""
        with self._lock:
            sale = self._sales[transaction_id]
            change = dict[str, Any](cancelled_at_ms=at_ms, revocation_type=type_, revocation_percentage=percentage)
            self._refunds[transaction_id] = change
            sale = replace(sale, purchase=replace(sale.purchase, **change))
            self._sales[transaction_id] = sale
            return sale

    def _as_of_now(self, receipt: SampleReceipt) -> SampleReceipt:
        if self._refunds.keys().isdisjoint(each.transaction_id for each in receipt.purchases):
            return receipt
        changed = (replace(each, **self._refunds.get(each.transaction_id, {})) for each in receipt.purchases)
        return replace(receipt, purchases=tuple(changed))

    # --- what Apple is asked ---

    def verify_receipt(self, receipt_data: str, environment: Environment) -> Answer | Fault:
        """Answer as verifyReceipt does at the endpoint of ``environment``, or fail as the receipt says."""
        asked_before = self._count(receipt_data)
        try:
            receipt = read(receipt_data, key=self._key)
        except MalformedReceipt:
            return {"status": answers.MALFORMED}
        except ForgedReceipt:
            return {"status": answers.NOT_AUTHENTIC}
        self.record(receipt)
        if asked_before < len(receipt.faults):
            return receipt.faults[asked_before]
        with self._lock:
            receipt = self._as_of_now(receipt)
        return answers.receipt_answer(receipt, receipt_data, environment, int(time.time() * 1000))

    def transaction_info(self, transaction_id: str, environment: Environment, bundle_id: str | None) -> Answer | Fault:
        """Answer as the Server API's "Get Transaction Info" does to an app (None: to any), or fail likewise."""
        asked_before = self._count(transaction_id)
        if not _TRANSACTION_ID.fullmatch(transaction_id):
            return answers.api_error(answers.API_INVALID_TRANSACTION_ID)
        sale = self.find(transaction_id)
        if sale is not None and asked_before < len(sale.receipt.faults):
            return sale.receipt.faults[asked_before]
        if sale is None or sale.receipt.environment is not environment:
            return answers.api_error(answers.API_TRANSACTION_ID_NOT_FOUND)
        if bundle_id not in (None, sale.receipt.bundle_id):
            return answers.api_error(answers.API_TRANSACTION_ID_NOT_FOUND)
        match sale.receipt.status:
            case None | answers.VALID:
                now_ms = int(time.time() * 1000)
                receipt = sale.receipt
                payload = answers.transaction_payload(sale.purchase, receipt.bundle_id, receipt.environment, now_ms)
                return {"signedTransactionInfo": self._sign(payload)}
            case answers.ACCOUNT_NOT_FOUND:
                return answers.api_error(answers.API_ACCOUNT_NOT_FOUND)
            case answers.MALFORMED | answers.NOT_AUTHENTIC:
                return answers.api_error(answers.API_TRANSACTION_ID_NOT_FOUND)
        return answers.api_error(answers.API_INTERNAL)

    def requests_for(self, asked: str) -> int:
        """Count the requests about a receipt or a transaction id, at any endpoint; those of an outage don't count."""
        with self._lock:
            return self._asked.get(hash(asked), 0)

    def _count(self, asked: str) -> int:
        """Count a request, and return how many there were before."""
        with self._lock:
            asked_before = self._asked.get(hash(asked), 0)
            self._asked[hash(asked)] = asked_before + 1
            return asked_before
