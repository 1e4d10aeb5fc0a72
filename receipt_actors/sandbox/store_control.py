"""What a running simulated App Store can be told over HTTP, under ``/simulated/``: to sell, to refund, to fail.

::

    POST /simulated/purchases      {"product_id": "coins_100", "app_account_token": "…"}
                                   {"transaction_id": "…", "app_receipt": "…", "transaction_receipt": "…",
                                    "signed_transaction": "…"}
    POST /simulated/receipts       {"receipt": "…"}: a receipt or a signed transaction that was minted elsewhere
                                   {"transaction_ids": ["…"]}
    POST /simulated/notifications  {"notification_type": "REFUND", "transaction_id": "…"}
                                   {"notification_uuid": "…", "signed_payload": "…", "is_sent": true}
    GET  /simulated/deliveries     [{"notification_uuid": "…", "attempt": 1, "outcome": "HTTP 200", …}]
    POST /simulated/outage         {"kind": "http", "status": 503}: a ``Fault``, until
    POST /simulated/recovery       {}

Every field but those above has a default. Answers are JSON; ``error`` says what is wrong with a request (400 or 404).
"""

from __future__ import annotations

import http.client
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from receipt_actors.domain.ports import WHOLE_PERCENTAGE, Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.errors import ConfigurationError
from receipt_actors.sandbox.receipts import (
    Fault,
    FaultKind,
    ForgedReceipt,
    MalformedReceipt,
    Purchase,
    SampleReceipt,
    Shape,
)

if TYPE_CHECKING:
    from receipt_actors.sandbox.app_store import SimulatedAppStore

BUNDLE_ID = "com.example.game"

Answer = tuple[int, object]  #: an HTTP status, and what to write as JSON
Order = TypeVar("Order", bound=BaseModel)

_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Id = Annotated[str, Field(pattern=r"^[0-9]{1,30}$")]
_Moment = Annotated[int, Field(ge=0, le=10**15)]


class PurchaseOrder(BaseModel, frozen=True, extra="forbid"):
    """What to sell."""

    bundle_id: _Name = BUNDLE_ID
    environment: Environment = Environment.PRODUCTION
    transaction_id: _Id | None = None  #: None: a new one
    product_id: _Name = "coins_100"
    product_type: ProductType | None = None
    original_transaction_id: _Id | None = None
    quantity: Annotated[int, Field(ge=1, le=1000)] = 1
    purchased_at_ms: _Moment | None = None  #: None: now
    expires_at_ms: _Moment | None = None
    is_family_shared: bool = False
    is_upgraded: bool = False
    app_account_token: _Name | None = None


class ReceiptOrder(BaseModel, frozen=True, extra="forbid"):
    """What was sold elsewhere."""

    receipt: str


class NotificationOrder(BaseModel, frozen=True, extra="forbid"):
    """What is to happen to a purchase, and where to tell it."""

    notification_type: _Name
    transaction_id: _Id | None = None
    subtype: _Name | None = None
    bundle_id: _Name | None = None
    url: _Name | None = None
    revocation_percentage: Annotated[int, Field(ge=0, le=WHOLE_PERCENTAGE)] = WHOLE_PERCENTAGE


class OutageOrder(BaseModel, frozen=True, extra="forbid"):
    """How to fail: the fields of a ``Fault``."""

    kind: FaultKind
    status: int = 0
    is_retryable: bool | None = None
    retry_after: _Name | None = None
    seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0


class Nothing(BaseModel, frozen=True, extra="forbid"):
    """No field at all."""


class StoreControl:
    """Carries out requests. Call it from the server's thread."""

    def __init__(self, store: SimulatedAppStore) -> None:
        self._store = store
        self._ids = itertools.count(int(time.time() * 1_000_000))  # no two lives of a store have one in common
        self._commands: Mapping[tuple[str, str], Callable[[bytes], Answer]] = {
            ("POST", "purchases"): _command(PurchaseOrder, self._sell),
            ("POST", "receipts"): _command(ReceiptOrder, self._record),
            ("POST", "notifications"): _command(NotificationOrder, self._notify),
            ("GET", "deliveries"): lambda _body: (http.client.OK, [asdict(each) for each in store.deliveries]),
            ("POST", "outage"): _command(OutageOrder, self._fail),
            ("POST", "recovery"): _command(Nothing, self._recover),
        }

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """Carry out a request; ``path`` is what follows ``/simulated/``."""
        command = self._commands.get((method, path))
        if command is None:
            known = ", ".join(f"{each} /simulated/{name}" for each, name in self._commands)
            return http.client.NOT_FOUND, {"error": f"expected one of {known}"}
        try:
            return command(body)
        except ConfigurationError as error:
            return http.client.NOT_IMPLEMENTED, {"error": str(error)}

    def _sell(self, order: PurchaseOrder) -> Answer:
        fields = order.model_dump(exclude={"bundle_id", "environment"})
        fields["transaction_id"] = order.transaction_id or str(next(self._ids))
        if order.purchased_at_ms is None:
            fields["purchased_at_ms"] = int(time.time() * 1000)
        purchase = Purchase(**fields)
        unified, single = (
            SampleReceipt(order.bundle_id, (purchase,), shape=shape, environment=order.environment)
            for shape in (Shape.UNIFIED, Shape.TRANSACTION)
        )
        return http.client.OK, {
            "transaction_id": purchase.transaction_id,
            "app_receipt": self._store.sell(unified),
            "transaction_receipt": self._store.sell(single),
            "signed_transaction": self._store.sell_signed(unified),
        }

    def _record(self, order: ReceiptOrder) -> Answer:
        try:
            receipt = self._store.read(order.receipt)
        except (MalformedReceipt, ForgedReceipt) as error:
            return http.client.BAD_REQUEST, {"error": f"receipt: {error}"}
        self._store.record(receipt)
        return http.client.OK, {"transaction_ids": [each.transaction_id for each in receipt.purchases]}

    def _notify(self, order: NotificationOrder) -> Answer:
        try:
            notification = self._store.notify(
                order.notification_type,
                order.transaction_id,
                subtype=order.subtype,
                bundle_id=order.bundle_id,
                url=order.url,
                revocation_percentage=order.revocation_percentage,
            )
        except KeyError:
            hint = "tell the store of it first (POST /simulated/receipts)"
            return http.client.NOT_FOUND, {"error": f"transaction {order.transaction_id} was never sold here; {hint}"}
        except ValueError as error:
            return http.client.BAD_REQUEST, {"error": str(error)}
        return http.client.OK, {
            "notification_uuid": notification.notification_uuid,
            "signed_payload": notification.signed_payload,
            "is_sent": (order.url or self._store.notification_url) is not None,
        }

    def _fail(self, order: OutageOrder) -> Answer:
        self._store.outage(Fault(**order.model_dump()))
        return http.client.OK, {}

    def _recover(self, _order: Nothing) -> Answer:
        self._store.recover()
        return http.client.OK, {}


def _command(model: type[Order], carry_out: Callable[[Order], Answer]) -> Callable[[bytes], Answer]:
    def command(body: bytes) -> Answer:
        try:
            order = model.model_validate_json(body or b"{}")
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in error.errors()
            )
            return http.client.BAD_REQUEST, {"error": faults}
        return carry_out(order)

    return command
