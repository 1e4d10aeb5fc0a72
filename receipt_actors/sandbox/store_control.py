"""What a running simulated App Store can be told over HTTP, under ``/simulated/``: to sell, to refund, to fail.

The commands are ``purchases``, ``receipts``, ``notifications``, ``deliveries``, ``outage`` and ``recovery``; the
manual's page on the App Store shows them. Answers are JSON; ``error`` says what is wrong with a request (400 or 404).
"""

from __future__ import annotations

import http.client
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter, ValidationError, validate_call

from receipt_actors.domain.ports import WHOLE_PERCENTAGE, Environment
from receipt_actors.domain.receipts import ProductType
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

_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Id = Annotated[str, Field(pattern=r"^[0-9]{1,30}$")]
_Moment = Annotated[int, Field(ge=0, le=10**15)]
_Fields: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


class StoreControl:
    """Carries out requests. Call it from the server's thread."""

    def __init__(self, store: SimulatedAppStore) -> None:
        self._store = store
        self._ids = itertools.count(int(time.time() * 1_000_000))  # no two lives of a store have one in common
        self._commands: Mapping[tuple[str, str], Callable[..., object]] = {
            ("POST", "purchases"): self._sell,
            ("POST", "receipts"): self._record,
            ("POST", "notifications"): self._notify,
            ("GET", "deliveries"): self._deliveries,
            ("POST", "outage"): self._fail,
            ("POST", "recovery"): self._recover,
        }

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """Carry out a request; ``path`` is what follows ``/simulated/``. Return an HTTP status, and what to answer."""
        command = self._commands.get((method, path))
        if command is None:
            known = ", ".join(f"{each} /simulated/{name}" for each, name in self._commands)
            return http.client.NOT_FOUND, {"error": f"expected one of {known}"}
        try:
            return http.client.OK, command(**_Fields.validate_json(body or b"{}"))
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
            return http.client.BAD_REQUEST, {"error": "; ".join(faults)}
        except KeyError as error:
            hint = "tell the store of it first (POST /simulated/receipts)"
            return http.client.NOT_FOUND, {"error": f"transaction {error.args[0]} was never sold here; {hint}"}
        except (MalformedReceipt, ForgedReceipt) as error:
            return http.client.BAD_REQUEST, {"error": f"receipt: {error}"}
        except ValueError as error:
            return http.client.BAD_REQUEST, {"error": str(error)}

    @validate_call
    def _sell(
        self,
        *,
        bundle_id: _Name = BUNDLE_ID,
        environment: Environment = Environment.PRODUCTION,
        transaction_id: _Id | None = None,
        product_id: _Name = "coins_100",
        product_type: ProductType | None = None,
        original_transaction_id: _Id | None = None,
        quantity: Annotated[int, Field(ge=1, le=1000)] = 1,
        purchased_at_ms: _Moment | None = None,
        expires_at_ms: _Moment | None = None,
        is_family_shared: bool = False,
        is_upgraded: bool = False,
        app_account_token: _Name | None = None,
    ) -> object:
        purchase = Purchase(
            transaction_id=transaction_id or str(next(self._ids)),
            product_id=product_id,
            purchased_at_ms=int(time.time() * 1000) if purchased_at_ms is None else purchased_at_ms,
            original_transaction_id=original_transaction_id,
            quantity=quantity,
            expires_at_ms=expires_at_ms,
            product_type=product_type,
            is_family_shared=is_family_shared,
            app_account_token=app_account_token,
            is_upgraded=is_upgraded,
        )
        unified = SampleReceipt(bundle_id, (purchase,), environment=environment)
        single = SampleReceipt(bundle_id, (purchase,), shape=Shape.TRANSACTION, environment=environment)
        return {
            "transaction_id": purchase.transaction_id,
            "app_receipt": self._store.sell(unified),
            "transaction_receipt": self._store.sell(single),
            "signed_transaction": self._store.sell_signed(unified),
        }

    @validate_call
    def _record(self, *, receipt: str) -> object:
        read = self._store.read(receipt)
        self._store.record(read)
        return {"transaction_ids": [each.transaction_id for each in read.purchases]}

    @validate_call
    def _notify(
        self,
        *,
        notification_type: _Name,
        transaction_id: _Id | None = None,
        subtype: _Name | None = None,
        bundle_id: _Name | None = None,
        url: _Name | None = None,
        revocation_percentage: Annotated[int, Field(ge=0, le=WHOLE_PERCENTAGE)] = WHOLE_PERCENTAGE,
    ) -> object:
        notification = self._store.notify(
            notification_type,
            transaction_id,
            subtype=subtype,
            bundle_id=bundle_id,
            url=url,
            revocation_percentage=revocation_percentage,
        )
        return {
            "notification_uuid": notification.notification_uuid,
            "signed_payload": notification.signed_payload,
            "is_sent": (url or self._store.notification_url) is not None,
        }

    @validate_call
    def _deliveries(self) -> object:
        return [asdict(each) for each in self._store.deliveries]

    @validate_call
    def _fail(
        self,
        *,
        kind: FaultKind,
        status: int = 0,
        is_retryable: bool | None = None,
        retry_after: _Name | None = None,
        seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0,
    ) -> object:
        self._store.outage(Fault(kind, status, is_retryable, retry_after, seconds))
        return {}

    @validate_call
    def _recover(self) -> object:
        self._store.recover()
        return {}
