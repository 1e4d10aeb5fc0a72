"""The simulated App Store answers as Apple would, and fails on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import requests

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, Shape, forge, mint
from tests.patience import PATIENCE_SECONDS

BUNDLE_ID = "com.example.game"
PURCHASE = Purchase("1000000001", "coins_100", purchased_at_ms=1_700_000_000_000)
GENUINE = mint(SampleReceipt(BUNDLE_ID, (PURCHASE,)))
PAST_MS, FUTURE_MS = 1_600_000_000_000, 4_100_000_000_000


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


def ask(url: str, receipt_data: object, **fields: object) -> dict[str, object]:
    answer = requests.post(url, json={"receipt-data": receipt_data, **fields}, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200
    content: dict[str, object] = answer.json()
    return content


@pytest.mark.parametrize(
    ("receipt_data", "production_status", "sandbox_status"),
    [
        (GENUINE, 0, 21008),
        (mint(SampleReceipt(BUNDLE_ID, (PURCHASE,), environment=Environment.SANDBOX)), 21007, 0),
        (mint(SampleReceipt(BUNDLE_ID, (), shape=Shape.UNIFIED)), 0, 21008),
        (mint(SampleReceipt(BUNDLE_ID, (PURCHASE,), status=21010)), 21010, 21008),
        (forge(SampleReceipt(BUNDLE_ID, (PURCHASE,))), 21003, 21003),
        ("bm8gcmVjZWlwdA==", 21002, 21002),
        ("\ud800", 21002, 21002),
        (None, 21002, 21002),
        (17, 21002, 21002),
    ],
)
def test_each_endpoint_judges_receipts_like_apple(
    store: SimulatedAppStore, receipt_data: object, production_status: int, sandbox_status: int
) -> None:
    assert ask(store.production_url, receipt_data)["status"] == production_status
    assert ask(store.sandbox_url, receipt_data)["status"] == sandbox_status


def test_unified_answer(store: SimulatedAppStore) -> None:
    refunded = Purchase("1000000002", "coins_500", quantity=2, cancelled_at_ms=1_700_000_360_000)
    answer = ask(store.production_url, mint(SampleReceipt(BUNDLE_ID, (PURCHASE, refunded))))
    assert answer["environment"] == "Production"
    assert "latest_receipt_info" not in answer
    receipt = answer["receipt"]
    assert isinstance(receipt, dict)
    assert (receipt["bundle_id"], receipt["receipt_type"]) == (BUNDLE_ID, "Production")
    first, second = receipt["in_app"]
    assert first == {
        "quantity": "1",
        "product_id": "coins_100",
        "transaction_id": "1000000001",
        "original_transaction_id": "1000000001",
        "purchase_date": "2023-11-14 22:13:20 Etc/GMT",
        "purchase_date_ms": "1700000000000",
        "original_purchase_date": "2023-11-14 22:13:20 Etc/GMT",
        "original_purchase_date_ms": "1700000000000",
        "is_trial_period": "false",
    }
    assert second["quantity"] == "2"
    assert second["cancellation_date_ms"] == "1700000360000"


def test_unified_answer_with_a_subscription(store: SimulatedAppStore) -> None:
    ended = Purchase("1000000003", "gold_monthly", original_transaction_id="1000000001", expires_at_ms=PAST_MS)
    receipt_data = mint(SampleReceipt(BUNDLE_ID, (PURCHASE, ended)))
    answer = ask(store.production_url, receipt_data)
    assert answer["status"] == 0
    assert answer["latest_receipt"] == receipt_data
    renewals = answer["latest_receipt_info"]
    assert isinstance(renewals, list)
    (latest,) = renewals
    assert (latest["transaction_id"], latest["original_transaction_id"]) == ("1000000003", "1000000001")
    assert latest["expires_date_ms"] == str(PAST_MS)
    assert answer["pending_renewal_info"][0]["product_id"] == "gold_monthly"  # type: ignore[index]


def test_ios_6_style_answer(store: SimulatedAppStore) -> None:
    answer = ask(store.production_url, mint(SampleReceipt(BUNDLE_ID, (PURCHASE,), shape=Shape.TRANSACTION)))
    assert set(answer) == {"status", "receipt"}
    receipt = answer["receipt"]
    assert isinstance(receipt, dict)
    assert (receipt["bid"], receipt["transaction_id"], receipt["product_id"]) == (BUNDLE_ID, "1000000001", "coins_100")
    assert receipt["purchase_date_ms"] == "1700000000000"


@pytest.mark.parametrize(
    ("expires_at_ms", "status", "renewal"),
    [(PAST_MS, 21006, "latest_expired_receipt_info"), (FUTURE_MS, 0, "latest_receipt_info")],
)
def test_ios_6_style_subscription(store: SimulatedAppStore, expires_at_ms: int, status: int, renewal: str) -> None:
    purchase = Purchase("1000000004", "gold_monthly", expires_at_ms=expires_at_ms)
    answer = ask(store.production_url, mint(SampleReceipt(BUNDLE_ID, (purchase,), shape=Shape.TRANSACTION)))
    assert answer["status"] == status
    assert answer["receipt"] == answer[renewal]
    assert answer["receipt"]["expires_date"] == str(expires_at_ms)  # type: ignore[index]


def test_the_shared_secret_is_checked() -> None:
    with SimulatedAppStore(shared_secret="s3cret") as store:
        assert ask(store.production_url, GENUINE)["status"] == 21004
        assert ask(store.production_url, GENUINE, password="wrong")["status"] == 21004
        assert ask(store.production_url, GENUINE, password=7)["status"] == 21004
        assert ask(store.production_url, GENUINE, password="s3cret")["status"] == 0
    with SimulatedAppStore() as store:
        assert ask(store.production_url, GENUINE, password="whatever")["status"] == 0


def test_requests_that_are_none(store: SimulatedAppStore) -> None:
    assert requests.get(store.production_url, timeout=PATIENCE_SECONDS).json() == {"status": 21000}
    for body in ("no json", "[" * 100_000, "[]"):
        assert requests.post(store.production_url, data=body, timeout=PATIENCE_SECONDS).json() == {"status": 21002}
    assert requests.post(store.production_url + "s", timeout=PATIENCE_SECONDS).status_code == 404


def test_faults_of_a_receipt_come_first_and_once(store: SimulatedAppStore) -> None:
    answered = (Fault.apple(21100, is_retryable=True), Fault.http(503, retry_after="2"), Fault.html(), Fault.garbage())
    faults = (*answered, Fault.drop(), Fault.hang(0.01))
    receipt_data = mint(SampleReceipt(BUNDLE_ID, (PURCHASE,), faults=faults))
    question = {"receipt-data": receipt_data}

    assert ask(store.production_url, receipt_data) == {"status": 21100, "is-retryable": True}
    busy = requests.post(store.production_url, json=question, timeout=PATIENCE_SECONDS)
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "2")
    page = requests.post(store.production_url, json=question, timeout=PATIENCE_SECONDS)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html")
    assert ask(store.production_url, GENUINE)["status"] == 0
    garbage = requests.post(store.production_url, json=question, timeout=PATIENCE_SECONDS)
    assert garbage.status_code == 200
    with pytest.raises(ValueError, match="Expecting"):
        garbage.json()
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            requests.post(store.production_url, json=question, timeout=PATIENCE_SECONDS)
    for _ in range(2):
        assert ask(store.production_url, receipt_data)["status"] == 0
    assert store.requests_for(receipt_data) == 8
    assert store.requests_for(GENUINE) == 1
    assert store.requests_for("never sent") == 0


def test_the_receipt_that_was_not_asked_for_the_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receipt_actors.sandbox.store.MAX_REMEMBERED_RECEIPTS", 2)
    store = SimulatedAppStore()
    first, second, third = (mint(SampleReceipt(BUNDLE_ID, (Purchase(str(number)),))) for number in range(3))
    for receipt_data in (first, second, first, third):
        store.verify_receipt(receipt_data, Environment.PRODUCTION)
    assert [store.requests_for(receipt_data) for receipt_data in (first, second, third)] == [2, 0, 1]


def test_recovery_ends_what_hangs(store: SimulatedAppStore) -> None:
    store.outage(Fault.hang(3600.0))
    dropped = threading.Event()

    def wait_in_vain() -> None:
        with requests.Session() as session:
            try:
                session.post(store.production_url, json={"receipt-data": GENUINE}, timeout=PATIENCE_SECONDS)
            except requests.ConnectionError:
                dropped.set()

    thread = threading.Thread(target=wait_in_vain, daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not dropped.wait(0.01):
        assert time.monotonic() < deadline
        if store.statistics().answers.get("hang"):
            store.recover()
    thread.join(PATIENCE_SECONDS)
    assert ask(store.production_url, GENUINE)["status"] == 0


def test_statistics(store: SimulatedAppStore) -> None:
    ask(store.production_url, GENUINE)
    ask(store.production_url, "nonsense")
    ask(store.sandbox_url, GENUINE)
    store.outage(Fault.http(503))
    requests.post(store.sandbox_url, timeout=PATIENCE_SECONDS)
    requests.post(store.sandbox_url + "s", timeout=PATIENCE_SECONDS)
    seen = store.statistics()
    assert seen.requests == {Environment.PRODUCTION: 2, Environment.SANDBOX: 2}
    assert seen.answers == {"0": 1, "21002": 1, "21008": 1, "HTTP 503": 1}
    assert seen.concurrent_requests_high_water == 1
