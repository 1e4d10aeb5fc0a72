"""The simulated App Store's Server API, asked by Apple's own client over HTTP, and what it can be told to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from appstoreserverlibrary.api_client import APIException, AppStoreServerAPIClient
from appstoreserverlibrary.models.Environment import Environment as ApplesEnvironment
from appstoreserverlibrary.models.JWSTransactionDecodedPayload import JWSTransactionDecodedPayload
from appstoreserverlibrary.receipt_utility import ReceiptUtility
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier
from cryptography.hazmat.primitives.asymmetric import ec

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.apple_ca import Authority, Flaw
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, Shape, forge, mint
from receipt_actors.sandbox.signed_transactions import mint_signed
from receipt_actors.sandbox.store import MAX_SALES, Store
from tests.patience import PATIENCE_SECONDS

BUNDLE_ID = "com.example.game"
PURCHASE = Purchase("2000000001", "coins_100")
RECEIPT = SampleReceipt(BUNDLE_ID, (PURCHASE,))


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


def client(
    store: SimulatedAppStore, environment: Environment = Environment.PRODUCTION, **changes: Any
) -> AppStoreServerAPIClient:
    pair = store.authority.server_api_key
    key = {"signing_key": pair.private_key_pem, "key_id": pair.key_id, "issuer_id": pair.issuer_id}
    arguments = {**key, "bundle_id": BUNDLE_ID, **changes}
    made = AppStoreServerAPIClient(environment=ApplesEnvironment(environment), **arguments)
    urls = {Environment.PRODUCTION: f"{store.url}/production", Environment.SANDBOX: f"{store.url}/sandbox"}
    made._base_url = urls[environment]
    return made


def look_up(store: SimulatedAppStore, transaction_id: str, **changes: Any) -> JWSTransactionDecodedPayload:
    environment = changes.get("environment", Environment.PRODUCTION)
    info = client(store, **changes).get_transaction_info(transaction_id)
    verifier = SignedDataVerifier([store.authority.root], False, ApplesEnvironment(environment), BUNDLE_ID, 1)
    assert info.signedTransactionInfo is not None
    return verifier.verify_and_decode_signed_transaction(info.signedTransactionInfo)


def refusal(store: SimulatedAppStore, transaction_id: str, **changes: Any) -> tuple[int, int | None]:
    with pytest.raises(APIException) as refused:
        client(store, **changes).get_transaction_info(transaction_id)
    return refused.value.http_status_code, refused.value.raw_api_error


def tell(store: SimulatedAppStore, path: str, expected: int = 200, **order: Any) -> Any:
    answer = requests.post(f"{store.url}/simulated/{path}", json=order, timeout=PATIENCE_SECONDS)
    assert (answer.status_code, answer.headers["Content-Type"]) == (expected, "application/json"), answer.text
    return answer.json()


@pytest.mark.parametrize("shape", Shape)
def test_an_old_receipt_is_looked_up_by_the_id_in_it(store: SimulatedAppStore, shape: Shape) -> None:
    receipt_data = store.sell(SampleReceipt(BUNDLE_ID, (PURCHASE,), shape=shape))
    utility = ReceiptUtility()
    if shape is Shape.UNIFIED:
        transaction_id = utility.extract_transaction_id_from_app_receipt(receipt_data)
    else:
        transaction_id = utility.extract_transaction_id_from_transaction_receipt(receipt_data)
    assert transaction_id is not None
    found = look_up(store, transaction_id)
    assert (found.transactionId, found.productId, found.bundleId) == ("2000000001", "coins_100", BUNDLE_ID)
    assert found.signedDate is not None
    assert abs(found.signedDate / 1000 - time.time()) < 60  # signed when it was asked
    seen = store.statistics()
    assert (seen.api_requests, seen.api_answers) == ({Environment.PRODUCTION: 1}, {"200": 1})


def test_each_environment_knows_its_own_transactions(store: SimulatedAppStore) -> None:
    store.sell(RECEIPT)
    store.sell(SampleReceipt(BUNDLE_ID, (Purchase("2000000002"),), environment=Environment.SANDBOX))
    assert look_up(store, "2000000002", environment=Environment.SANDBOX).environment is ApplesEnvironment.SANDBOX
    assert refusal(store, "2000000002") == (404, 4040010)
    assert refusal(store, "2000000001", environment=Environment.SANDBOX) == (404, 4040010)


def test_what_was_sold_elsewhere_is_known_once_it_is_told_or_judged(store: SimulatedAppStore) -> None:
    assert refusal(store, "21") == (404, 4040010)
    told = tell(store, "receipts", receipt=mint(SampleReceipt(BUNDLE_ID, (Purchase("21"), Purchase("22")))))
    assert told == {"transaction_ids": ["21", "22"]}
    subscription = SampleReceipt(BUNDLE_ID, (Purchase("23", "gold", expires_at_ms=1_900_000_000_000),))
    assert tell(store, "receipts", receipt=mint_signed(subscription)) == {"transaction_ids": ["23"]}
    judged = mint(SampleReceipt(BUNDLE_ID, (Purchase("24"),)))
    store.verify_receipt(judged, Environment.PRODUCTION)
    assert [look_up(store, str(number)).transactionId for number in (21, 22, 23, 24)] == ["21", "22", "23", "24"]
    assert look_up(store, "23").expiresDate == 1_900_000_000_000


@pytest.mark.parametrize(
    "receipt",
    [
        forge(RECEIPT),
        mint_signed(RECEIPT, authority=Authority(b"another")),
        mint_signed(RECEIPT, flaw=Flaw.SWAPPED_PAYLOAD),
        mint_signed(RECEIPT, changes={"environment": "Xcode"}),
        Authority().sign({"no": "transaction"}),
        "a.b.c",
        "nonsense",
    ],
)
def test_what_the_store_did_not_sell_it_does_not_take(store: SimulatedAppStore, receipt: str) -> None:
    assert tell(store, "receipts", 400, receipt=receipt)["error"].startswith("receipt: ")
    assert refusal(store, "2000000001") == (404, 4040010)


@pytest.mark.parametrize("transaction_id", ["12a", "1" * 31])
def test_an_id_that_is_none(store: SimulatedAppStore, transaction_id: str) -> None:
    assert refusal(store, transaction_id) == (400, 4000006)


@pytest.mark.parametrize(
    ("status", "expected"), [(21010, (404, 4040001)), (21003, (404, 4040010)), (21199, (500, 5000000))]
)
def test_a_receipt_with_a_status_of_its_own(store: SimulatedAppStore, status: int, expected: tuple[int, int]) -> None:
    store.sell(SampleReceipt(BUNDLE_ID, (PURCHASE,), status=status))
    assert refusal(store, "2000000001") == expected


def test_another_apps_transactions_are_not_found(store: SimulatedAppStore) -> None:
    store.sell(RECEIPT)
    assert refusal(store, "2000000001", bundle_id="com.example.other") == (404, 4040010)


def bad_tokens() -> dict[str, Callable[[Authority], str]]:
    now = int(time.time())

    def token(
        authority: Authority, *, key: object = None, algorithm: str = "ES256", header: Any = None, **changes: Any
    ) -> str:
        pair = authority.server_api_key
        content = {"iss": pair.issuer_id, "aud": "appstoreconnect-v1", "bid": BUNDLE_ID, "exp": now + 300, **changes}
        content = {name: value for name, value in content.items() if value is not None}
        secret = pair.private_key_pem if key is None else key
        return "Bearer " + jwt.encode(content, secret, algorithm=algorithm, headers=header or {"kid": pair.key_id})

    return {
        "none": lambda _: "",
        "not a JWT": lambda _: "Bearer a.b",
        "a changed signature": lambda authority: token(authority)[:-6] + "AAAAAA",
        "expired": lambda authority: token(authority, exp=now - 3600),
        "good for too long": lambda authority: token(authority, exp=now + 7200),
        "no end": lambda authority: token(authority, exp=None),
        "no app": lambda authority: token(authority, bid=None),
        "another audience": lambda authority: token(authority, aud="somewhere"),
        "another key": lambda authority: token(authority, key=ec.generate_private_key(ec.SECP256R1())),
        "another key id": lambda authority: token(authority, header={"kid": "OTHERKEY00"}),
        "another issuer": lambda authority: token(authority, iss="nobody"),
        "alg none": lambda authority: token(authority, key="", algorithm="none"),
    }


@pytest.mark.parametrize("name", bad_tokens())
def test_a_token_that_is_no_good_is_401(store: SimulatedAppStore, name: str) -> None:
    store.sell(RECEIPT)
    header = bad_tokens()[name](store.authority)
    url = f"{store.url}/production/inApps/v1/transactions/2000000001"
    answer = requests.get(url, headers={"Authorization": header}, timeout=PATIENCE_SECONDS)
    assert (answer.status_code, answer.text) == (401, "Unauthenticated")


def test_a_good_token_is_good_again(store: SimulatedAppStore) -> None:
    store.sell(RECEIPT)
    token = client(store)._generate_token()
    url = f"{store.url}/production/inApps/v1/transactions/2000000001"
    for _ in range(2):
        answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200
    assert store.requests_for("2000000001") == 2
    assert requests.post(url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_SECONDS).status_code == 405
    assert requests.get(url.replace("v1", "v3"), timeout=PATIENCE_SECONDS).status_code == 404


def test_faults_of_a_transaction_come_first_and_once(store: SimulatedAppStore) -> None:
    faults = (
        Fault.apple(5000000),
        Fault.apple(21005),
        Fault.http(503),
        Fault.html(),
        Fault.drop(),
        Fault.rate_limit(2.0),
    )
    store.sell(SampleReceipt(BUNDLE_ID, (PURCHASE,), faults=faults))
    assert refusal(store, "2000000001") == (500, 5000000)
    assert refusal(store, "2000000001") == (500, 5000001)
    assert refusal(store, "2000000001") == (503, None)
    with pytest.raises(requests.JSONDecodeError):
        client(store).get_transaction_info("2000000001")
    with pytest.raises(requests.ConnectionError):
        client(store).get_transaction_info("2000000001")
    assert refusal(store, "2000000001") == (429, 4290000)
    assert look_up(store, "2000000001").transactionId == "2000000001"


def test_retry_after_is_a_time_in_milliseconds() -> None:
    with SimulatedAppStore(api_requests_per_second=2) as store:
        receipt_data = store.sell(RECEIPT)
        url = f"{store.url}/production/inApps/v1/transactions/2000000001"
        headers = {"Authorization": f"Bearer {client(store)._generate_token()}"}
        answers = [requests.get(url, headers=headers, timeout=PATIENCE_SECONDS) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].json() == {"errorCode": 4290000, "errorMessage": "Rate limit exceeded."}
        wait_ms = int(answers[-1].headers["Retry-After"]) - time.time() * 1000
        assert 0 < wait_ms <= 1001
        for _ in range(4):
            answer = requests.post(store.production_url, json={"receipt-data": receipt_data}, timeout=PATIENCE_SECONDS)
            assert answer.json()["status"] == 0


def test_an_outage_is_an_outage_of_all(store: SimulatedAppStore) -> None:
    store.sell(RECEIPT)
    tell(store, "outage", kind="http", status=503)
    assert refusal(store, "2000000001") == (503, None)
    assert store.requests_for("2000000001") == 0
    assert requests.post(store.production_url, timeout=PATIENCE_SECONDS).status_code == 503
    tell(store, "outage", kind="rate limit", seconds=7)
    answer = requests.post(store.production_url, timeout=PATIENCE_SECONDS)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert refusal(store, "2000000001") == (429, 4290000)
    tell(store, "recovery")
    assert look_up(store, "2000000001").transactionId == "2000000001"


def test_a_refund_shows_at_every_endpoint(store: SimulatedAppStore) -> None:
    receipt_data = store.sell(RECEIPT)

    def in_app() -> dict[str, Any]:
        answer = requests.post(
            store.production_url, json={"receipt-data": receipt_data}, timeout=PATIENCE_SECONDS
        ).json()
        (entry,) = answer["receipt"]["in_app"]
        return dict(entry)

    assert look_up(store, "2000000001").revocationDate is None
    store.refund("2000000001")
    assert look_up(store, "2000000001").revocationDate is not None
    assert "cancellation_date_ms" in in_app()
    tell(store, "notifications", notification_type="REFUND_REVERSED", transaction_id="2000000001")
    assert look_up(store, "2000000001").revocationDate is None
    assert "cancellation_date_ms" not in in_app()
    with pytest.raises(KeyError):
        store.refund("9")


def test_purchases_are_made_over_http(store: SimulatedAppStore) -> None:
    token = "7e3fb204-2d2c-4c6a-9b1e-0a4a5a1f5c11"
    sold = tell(store, "purchases", product_id="gold", product_type="Non-Consumable", app_account_token=token)
    assert set(sold) == {"transaction_id", "app_receipt", "transaction_receipt", "signed_transaction"}
    transaction_id = sold["transaction_id"]
    found = look_up(store, transaction_id)
    assert (found.productId, found.rawType, found.appAccountToken) == ("gold", "Non-Consumable", token)
    for name in ("app_receipt", "transaction_receipt"):
        answer = requests.post(store.production_url, json={"receipt-data": sold[name]}, timeout=PATIENCE_SECONDS).json()
        assert answer["status"] == 0
    verifier = SignedDataVerifier([store.authority.root], False, ApplesEnvironment.PRODUCTION, BUNDLE_ID, 1)
    assert verifier.verify_and_decode_signed_transaction(sold["signed_transaction"]).transactionId == transaction_id
    assert tell(store, "purchases")["transaction_id"] != transaction_id
    assert tell(store, "purchases", transaction_id="42")["transaction_id"] == "42"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("purchases", b'{"product_type": "Gift"}', 400, "product_type"),
        ("purchases", b'{"produkt": 1}', 400, "produkt"),
        ("purchases", b"{", 400, "JSON"),
        ("purchases", b"[]", 400, "body"),
        ("notifications", b'{"notification_type": "REFUND", "transaction_id": "9"}', 404, "never sold"),
        ("notifications", b'{"notification_type": "REFUND"}', 400, "expected a sale"),
        ("notifications", b'{"notification_type": "LOTTERY", "transaction_id": "9"}', 400, "LOTTERY"),
        ("outage", b'{"kind": "earthquake"}', 400, "kind"),
        ("elsewhere", b"", 404, "POST /simulated/purchases"),
    ],
)
def test_orders_that_make_no_sense_are_explained(
    store: SimulatedAppStore, path: str, body: bytes, status: int, said: str
) -> None:
    answer = requests.post(f"{store.url}/simulated/{path}", data=body, timeout=PATIENCE_SECONDS)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_files_for_settings(store: SimulatedAppStore, tmp_path: Path) -> None:
    files = store.write_files(tmp_path / "files")
    assert [path.suffix for path in files.roots.iterdir()] == [".cer"]
    assert files.key.stat().st_mode & 0o077 == 0
    store.sell(RECEIPT)
    key = {"signing_key": files.key.read_bytes(), "key_id": files.key_id, "issuer_id": files.issuer_id}
    found = look_up(store, "2000000001", **key)
    assert found.transactionId == "2000000001"
    assert store.write_files(tmp_path / "files") == files


def test_only_so_many_sales_are_remembered() -> None:
    memory = Store(Authority().sign, max_sales=2)
    for number in ("1", "2"):
        memory.record(SampleReceipt(BUNDLE_ID, (Purchase(number),)))
    memory.cancel("1", 5)
    memory.record(SampleReceipt(BUNDLE_ID, (Purchase("1"),)))  # heard of again: it stays refunded
    sale = memory.find("1")
    assert sale is not None
    assert sale.purchase.cancelled_at_ms == 5
    memory.record(SampleReceipt(BUNDLE_ID, (Purchase("3"),)))
    assert [memory.find(number) is not None for number in ("1", "2", "3")] == [True, False, True]
    with pytest.raises(KeyError):
        memory.cancel("2", 5)
    assert MAX_SALES >= 100_000  # as many as `receipt-actors app-store` mints
