"""What the simulated App Store has sold: the memory behind its Server API, its refunds and its notifications.

A receipt says itself what was bought; a transaction id does not. So the store remembers purchases: those that it minted
itself, those that it is told of (a receipt of its own, or a signed transaction), and those that it has judged.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

from receipt_actors.sandbox.receipts import Purchase, SampleReceipt

MAX_SALES = 200_000  #: remembered; the one that was heard of the longest ago is forgotten first


@dataclass(frozen=True, slots=True)
class Sale:
    """A purchase, and the receipt that it came with."""

    receipt: SampleReceipt
    purchase: Purchase

    @property
    def alone(self) -> SampleReceipt:
        """A receipt of this purchase and no other."""
        return replace(self.receipt, purchases=(self.purchase,))


@dataclass(frozen=True, slots=True)
class _Refund:
    """What happened to a purchase since it was minted."""

    at_ms: int | None
    type: str | None
    percentage: int | None

    def of(self, purchase: Purchase) -> Purchase:
        return replace(
            purchase,
            cancelled_at_ms=self.at_ms,
            revocation_type=self.type,
            revocation_percentage=self.percentage,
        )


class Sales:
    """Sales by transaction id. All methods may be called from any thread."""

    def __init__(self, max_sales: int = MAX_SALES) -> None:
        self._max_sales = max_sales
        self._lock = threading.Lock()
        self._sales: OrderedDict[str, Sale] = OrderedDict()
        self._refunds: dict[str, _Refund] = {}

    def record(self, receipt: SampleReceipt) -> None:
        """Remember each purchase of a receipt; what happened to one since it was minted stays so."""
        with self._lock:
            for purchase in self._with_refunds(receipt).purchases:
                self._sales[purchase.transaction_id] = Sale(receipt, purchase)
                self._sales.move_to_end(purchase.transaction_id)
            while len(self._sales) > self._max_sales:
                forgotten, _ = self._sales.popitem(last=False)
                self._refunds.pop(forgotten, None)

    def find(self, transaction_id: str) -> Sale | None:
        """Find a sale, as it stands now."""
        with self._lock:
            return self._sales.get(transaction_id)

    def as_of_now(self, receipt: SampleReceipt) -> SampleReceipt:
        """Put into a receipt what happened to its purchases since it was minted."""
        with self._lock:
            return self._with_refunds(receipt)

    def cancel(
        self, transaction_id: str, at_ms: int | None, type_: str | None = None, percentage: int | None = None
    ) -> Sale | None:
        """Refund or revoke a purchase (None: take that back); returns the sale, or None where it is not known."""
        with self._lock:
            sale = self._sales.get(transaction_id)
            if sale is None:
                return None
            refund = self._refunds[transaction_id] = _Refund(at_ms, type_, percentage)
            sale = replace(sale, purchase=refund.of(sale.purchase))
            self._sales[transaction_id] = sale
            return sale

    def _with_refunds(self, receipt: SampleReceipt) -> SampleReceipt:
        if not self._refunds or not any(each.transaction_id in self._refunds for each in receipt.purchases):
            return receipt
        return replace(
            receipt,
            purchases=tuple(
                refund.of(each) if (refund := self._refunds.get(each.transaction_id)) else each
                for each in receipt.purchases
            ),
        )
