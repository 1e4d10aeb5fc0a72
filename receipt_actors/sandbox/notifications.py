"""App Store Server Notifications V2, signed and sent as Apple sends them: by POST, and again until somebody takes them.

Apple repeats a notification that is not answered with 200 to 206 after 1, 12, 24, 48 and 72 hours, each time with the
same ``notificationUUID``. A ``NotificationSender`` keeps to that schedule; the length of its hours is an argument.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

import requests

from receipt_actors.domain.receipts import ProductType
from receipt_actors.sandbox.answers import transaction_payload
from receipt_actors.sandbox.apple_ca import Authority
from receipt_actors.sandbox.store import Sale

APP_APPLE_ID = 1000001  #: of every app of the simulated store
RETRY_HOURS = (1, 12, 24, 48, 72)
POST_TIMEOUT_SECONDS = 30.0
ACCEPTED = range(200, 207)


class NotificationType(StrEnum):
    """Those of Apple's ``notificationType`` that a purchase can bring about, and ``TEST``."""

    CONSUMPTION_REQUEST = "CONSUMPTION_REQUEST"
    DID_RENEW = "DID_RENEW"
    EXPIRED = "EXPIRED"
    ONE_TIME_CHARGE = "ONE_TIME_CHARGE"
    REFUND = "REFUND"
    REFUND_DECLINED = "REFUND_DECLINED"
    REFUND_REVERSED = "REFUND_REVERSED"
    REVOKE = "REVOKE"
    SUBSCRIBED = "SUBSCRIBED"
    TEST = "TEST"


@dataclass(frozen=True, slots=True)
class SignedNotification:
    """A notification, ready to be posted, however often."""

    notification_uuid: str
    type: NotificationType
    signed_payload: str = field(repr=False)

    @property
    def body(self) -> bytes:
        return json.dumps({"signedPayload": self.signed_payload}).encode()


def sign_notification(
    type_: NotificationType, sale: Sale | None, authority: Authority, *, subtype: str | None, bundle_id: str | None
) -> SignedNotification:
    """Sign a notification about a sale; of ``TEST``, which is about none, ``bundle_id`` says for which app.

    Raises ``ValueError`` where both are missing.
    """
    now_ms = int(time.time() * 1000)
    notification: dict[str, object] = {
        "notificationType": str(type_),
        **({} if subtype is None else {"subtype": subtype}),
        "notificationUUID": str(uuid.uuid4()),
        "data": {"appAppleId": APP_APPLE_ID, "bundleVersion": "1", **_data(type_, sale, authority, bundle_id, now_ms)},
        "version": "2.0",
        "signedDate": now_ms,
    }
    return SignedNotification(str(notification["notificationUUID"]), type_, authority.sign(notification))


def _data(
    type_: NotificationType, sale: Sale | None, authority: Authority, bundle_id: str | None, now_ms: int
) -> Mapping[str, object]:
    if sale is None:
        if bundle_id is None:
            raise ValueError(f"{type_}: expected a sale, or a bundle id")
        return {"bundleId": bundle_id, "environment": "Production"}
    receipt, purchase = sale.receipt, sale.purchase
    transaction = transaction_payload(purchase, receipt.bundle_id, receipt.environment, now_ms)
    data: dict[str, object] = {
        "bundleId": receipt.bundle_id,
        "environment": str(receipt.environment),
        "signedTransactionInfo": authority.sign(transaction),
    }
    if purchase.type is ProductType.AUTO_RENEWABLE_SUBSCRIPTION:
        renewal = {
            "originalTransactionId": purchase.original_id,
            "autoRenewProductId": purchase.product_id,
            "productId": purchase.product_id,
            "autoRenewStatus": 0 if purchase.cancelled_at_ms is not None else 1,
            "signedDate": now_ms,
            "environment": str(receipt.environment),
            "recentSubscriptionStartDate": purchase.purchased_at_ms,
            "renewalDate": purchase.expires_at_ms,
        }
        data["signedRenewalInfo"] = authority.sign(renewal)
        data["status"] = 2 if type_ is NotificationType.EXPIRED else 1
    return data


@dataclass(frozen=True, slots=True)
class Delivery:
    """One POST of a notification, and what came of it."""

    notification_uuid: str
    type: NotificationType
    attempt: int  #: 1 for the first
    outcome: str  #: "HTTP 200", or why there was no answer
    accepted: bool
    next_in_seconds: float | None  #: when it comes again; None where it does not


class NotificationSender:
    """Posts notifications, one at a time. What is not delivered at ``stop`` is dropped.

    ``hour_seconds`` is how long one of Apple's hours lasts here: with 1, what is not accepted comes again after
    1, 12, 24, 48 and 72 seconds. ``on_delivery`` hears of every POST, in the sender's thread.
    """

    def __init__(self, *, hour_seconds: float, on_delivery: Callable[[Delivery], object]) -> None:
        self._hour_seconds = hour_seconds
        self._on_delivery = on_delivery
        self._pool = ThreadPoolExecutor(1, "simulated-notifications")
        self._session = requests.Session()
        self._changed = threading.Condition()  # over what follows
        self._deliveries: list[Delivery] = []
        self._undelivered = 0
        self._timers: list[threading.Timer] = []
        self._is_stopped = False

    def stop(self) -> None:
        """End the thread, after a POST that is under way. May be called twice."""
        with self._changed:
            self._is_stopped = True
            for timer in self._timers:
                timer.cancel()
        self._pool.shutdown(cancel_futures=True)
        self._session.close()

    def send(self, url: str, notification: SignedNotification, attempt: int = 1) -> None:
        with self._changed:
            if not self._is_stopped:
                self._undelivered += attempt == 1
                self._pool.submit(self._deliver, url, notification, attempt)

    @property
    def deliveries(self) -> Sequence[Delivery]:
        with self._changed:
            return tuple(self._deliveries)

    def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Wait until nothing is left to be sent, or to be sent again; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._undelivered, timeout_seconds)

    def _deliver(self, url: str, notification: SignedNotification, attempt: int) -> None:
        outcome, accepted = self._post(url, notification)
        is_last = accepted or attempt > len(RETRY_HOURS)
        next_in_seconds = None if is_last else RETRY_HOURS[attempt - 1] * self._hour_seconds
        uuid_, type_ = notification.notification_uuid, notification.type
        delivery = Delivery(uuid_, type_, attempt, outcome, accepted, next_in_seconds)
        self._on_delivery(delivery)
        with self._changed:
            self._deliveries.append(delivery)
            self._undelivered -= is_last
            if next_in_seconds is not None and not self._is_stopped:
                timer = threading.Timer(next_in_seconds, self.send, (url, notification, attempt + 1))
                timer.daemon = True
                timer.start()
                self._timers = [*(each for each in self._timers if each.is_alive()), timer]
            self._changed.notify_all()

    def _post(self, url: str, notification: SignedNotification) -> tuple[str, bool]:
        try:
            answer = self._session.post(
                url,
                data=notification.body,
                headers={"Content-Type": "application/json"},
                timeout=POST_TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            return type(error).__name__, False
        return f"HTTP {answer.status_code}", answer.status_code in ACCEPTED
