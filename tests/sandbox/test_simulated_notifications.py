"""Notifications of the simulated App Store: Apple's library takes them, and they come as Apple's do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from appstoreserverlibrary.models.Data import Data
from appstoreserverlibrary.models.Environment import Environment as ApplesEnvironment
from appstoreserverlibrary.models.JWSTransactionDecodedPayload import JWSTransactionDecodedPayload
from appstoreserverlibrary.models.ResponseBodyV2DecodedPayload import ResponseBodyV2DecodedPayload
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, response
from receipt_actors.sandbox.notifications import APP_APPLE_ID, RETRY_HOURS, NotificationType
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt
from tests.patience import PATIENCE_SECONDS

BUNDLE_ID = "com.example.game"
RECEIPT = SampleReceipt(BUNDLE_ID, (Purchase("2000000001"),))
SHORT_HOUR_SECONDS = 0.0005


class Backend:
    """Takes notifications; answers with the statuses it is given, and then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[dict[str, str]] = []
        self.came = threading.Event()

    def handle(self, request: Request) -> Reply:
        assert (request.method, request.path) == ("POST", "/notifications")
        self.bodies.append(json.loads(request.body))
        status = self.statuses.pop(0) if self.statuses else 200
        self.came.set()
        return Reply(response(status, b"", "text/plain") if status else b"")


@pytest.fixture
def world() -> Iterator[Callable[..., tuple[SimulatedAppStore, Backend]]]:
    with ExitStack() as stack:

        def start(*statuses: int) -> tuple[SimulatedAppStore, Backend]:
            backend = Backend(*statuses)
            server = HttpServer(backend.handle).start()
            stack.callback(server.stop)
            store = SimulatedAppStore(
                notification_url=f"{server.url}/notifications", notification_hour_seconds=SHORT_HOUR_SECONDS
            )
            return stack.enter_context(store), backend

        yield start


World = Callable[..., tuple[SimulatedAppStore, Backend]]


def apple(store: SimulatedAppStore, environment: Environment = Environment.PRODUCTION) -> SignedDataVerifier:
    return SignedDataVerifier([store.authority.root], False, ApplesEnvironment(environment), BUNDLE_ID, APP_APPLE_ID)


def delivered(
    store: SimulatedAppStore, backend: Backend, environment: Environment = Environment.PRODUCTION
) -> tuple[ResponseBodyV2DecodedPayload, Data]:
    assert store.wait_until_delivered(PATIENCE_SECONDS)
    payload = apple(store, environment).verify_and_decode_notification(backend.bodies[-1]["signedPayload"])
    assert payload.data is not None
    return payload, payload.data


def transaction_in(store: SimulatedAppStore, data: Data) -> JWSTransactionDecodedPayload:
    assert data.signedTransactionInfo is not None
    return apple(store).verify_and_decode_signed_transaction(data.signedTransactionInfo)


@pytest.mark.parametrize("notification_type", sorted(set(NotificationType) - {NotificationType.TEST}))
def test_apple_takes_every_notification(world: World, notification_type: NotificationType) -> None:
    store, backend = world()
    store.record(RECEIPT)
    sent = store.notify(notification_type, "2000000001")
    payload, data = delivered(store, backend)
    assert len(backend.bodies) == 1
    assert (payload.rawNotificationType, payload.notificationUUID) == (notification_type, sent.notification_uuid)
    assert (payload.version, payload.subtype) == ("2.0", None)
    transaction = transaction_in(store, data)
    assert transaction.transactionId == "2000000001"
    is_taken_back = notification_type in (NotificationType.REFUND, NotificationType.REVOKE)
    assert (transaction.revocationDate is not None) == is_taken_back
    expected = {"REFUND": ("REFUND_FULL", 100_000), "REVOKE": ("FAMILY_REVOKE", None)}.get(notification_type)
    assert (transaction.rawRevocationType, transaction.revocationPercentage) == (expected or (None, None))


def test_a_refund_may_be_of_a_part(world: World) -> None:
    store, backend = world()
    store.record(RECEIPT)

    def share(*notified: object, **more: Any) -> tuple[str | None, int | None]:
        store.notify(*notified, **more)  # type: ignore[arg-type]
        transaction = transaction_in(store, delivered(store, backend)[1])
        sale = store.find("2000000001")
        assert sale is not None
        assert sale.purchase.revocation_percentage == transaction.revocationPercentage
        return transaction.rawRevocationType, transaction.revocationPercentage

    assert share("REFUND", "2000000001", revocation_percentage=33333) == ("REFUND_PRORATED", 33333)
    assert share("REFUND", "2000000001", revocation_percentage=66666) == ("REFUND_PRORATED", 66666)
    assert share("REFUND_REVERSED", "2000000001") == (None, None)


def test_a_renewal_has_its_renewal_info(world: World) -> None:
    store, backend = world()
    subscription = Purchase("2000000002", "gold", expires_at_ms=1_900_000_000_000)
    store.record(SampleReceipt(BUNDLE_ID, (subscription,), environment=Environment.SANDBOX))
    store.notify("DID_RENEW", "2000000002", subtype="BILLING_RECOVERY")
    payload, data = delivered(store, backend, Environment.SANDBOX)
    assert payload.rawSubtype == "BILLING_RECOVERY"
    assert data.signedRenewalInfo is not None
    renewal = apple(store, Environment.SANDBOX).verify_and_decode_renewal_info(data.signedRenewalInfo)
    assert (renewal.originalTransactionId, renewal.renewalDate) == ("2000000002", 1_900_000_000_000)


def test_a_test_notification_is_about_an_app(world: World) -> None:
    store, backend = world()
    store.notify(NotificationType.TEST, bundle_id=BUNDLE_ID)
    payload, data = delivered(store, backend)
    assert (payload.rawNotificationType, data.signedTransactionInfo) == ("TEST", None)
    with pytest.raises(ValueError, match="expected a sale, or a bundle id"):
        store.notify(NotificationType.TEST)


@pytest.mark.parametrize("failures", [[404, 500, 302], [0, 207]])
def test_it_comes_again_until_it_is_taken(world: World, failures: list[int]) -> None:
    store, backend = world(*failures)
    store.record(RECEIPT)
    sent = store.notify("REFUND", "2000000001")
    assert store.wait_until_delivered(PATIENCE_SECONDS)
    assert backend.bodies == [{"signedPayload": sent.signed_payload}] * (len(failures) + 1)
    waits = [delivery.next_in_seconds for delivery in store.deliveries]
    assert waits == [hours * SHORT_HOUR_SECONDS for hours in RETRY_HOURS[: len(failures)]] + [None]
    assert [delivery.accepted for delivery in store.deliveries] == [False] * len(failures) + [True]


def test_after_six_times_it_is_given_up(world: World) -> None:
    store, backend = world(*[500] * 10)
    store.record(RECEIPT)
    store.notify("REFUND", "2000000001")
    assert store.wait_until_delivered(PATIENCE_SECONDS)
    assert len(backend.bodies) == 6
    assert [delivery.attempt for delivery in store.deliveries] == [1, 2, 3, 4, 5, 6]
    assert store.deliveries[-1].next_in_seconds is None


def test_it_is_sent_to_nobody_without_a_url() -> None:
    with SimulatedAppStore() as store:
        store.record(RECEIPT)
        signed = store.notify("REFUND", "2000000001").signed_payload
        assert apple(store).verify_and_decode_notification(signed).rawNotificationType == "REFUND"
        assert store.deliveries == ()
        backend = Backend()
        server = HttpServer(backend.handle).start()
        store.notify("REVOKE", "2000000001", url=f"{server.url}/notifications")
        assert store.wait_until_delivered(PATIENCE_SECONDS)
        server.stop()
        assert len(backend.bodies) == 1


def test_nobody_there_is_no_answer() -> None:
    with SimulatedAppStore(notification_hour_seconds=3600) as store:
        store.record(RECEIPT)
        store.notify("REFUND", "2000000001", url="http://127.0.0.1:9/")
        assert not store.wait_until_delivered(0.2)
        (delivery,) = store.deliveries
        assert (delivery.outcome, delivery.accepted, delivery.next_in_seconds) == ("ConnectionError", False, 3600)


def test_a_refund_is_ordered_over_http(world: World) -> None:
    store, backend = world(503)

    def post(path: str, **order: Any) -> Any:
        return requests.post(f"{store.url}/simulated/{path}", json=order, timeout=PATIENCE_SECONDS).json()

    sold = post("purchases")
    told = post("notifications", notification_type="REFUND", transaction_id=sold["transaction_id"])
    assert store.wait_until_delivered(PATIENCE_SECONDS)
    assert backend.bodies == [{"signedPayload": told["signed_payload"]}] * 2
    deliveries = requests.get(f"{store.url}/simulated/deliveries", timeout=PATIENCE_SECONDS).json()
    assert [(each["notification_uuid"], each["outcome"]) for each in deliveries] == [
        (told["notification_uuid"], "HTTP 503"),
        (told["notification_uuid"], "HTTP 200"),
    ]
