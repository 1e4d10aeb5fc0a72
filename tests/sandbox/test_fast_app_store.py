"""The App Store of the benchmark answers what the simulated App Store answers, only faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from appstoreserverlibrary.models.Environment import Environment as ApplesEnvironment
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.apple_ca import default_authority
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, forge, mint
from receipt_actors.sandbox.services.app_store import PRODUCTION_PATH, SANDBOX_PATH
from receipt_actors.sandbox.services.certificates import make_certificates
from receipt_actors.sandbox.services.load import Load, transaction_id
from receipt_actors.sandbox.services.process import ServiceProcess
from tests.patience import PATIENCE_SECONDS

BUNDLE_ID = "com.example.game"
PURCHASE = Purchase("1000000001", "coins_100")
RECEIPTS: dict[str, object] = {
    "genuine": mint(SampleReceipt(BUNDLE_ID, (PURCHASE, Purchase("1000000002")))),
    "sandbox": mint(SampleReceipt(BUNDLE_ID, (PURCHASE,), environment=Environment.SANDBOX)),
    "forged": forge(SampleReceipt(BUNDLE_ID, (PURCHASE,))),
    "surrogate": "\ud800",
    "none": None,
}


@pytest.fixture(scope="module")
def fast_url() -> Iterator[str]:
    with closing(ServiceProcess(["app-store"])) as process:
        yield process.url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with SimulatedAppStore() as store:
        yield store.production_url.removesuffix(PRODUCTION_PATH)


def answer(url: str, **asked: Any) -> dict[str, Any]:
    content: dict[str, Any] = requests.post(url, **asked, timeout=PATIENCE_SECONDS).json()
    receipt = content.get("receipt", {})
    return content | {"receipt": {key: value for key, value in receipt.items() if not key.startswith("request_date")}}


@pytest.mark.parametrize("path", [PRODUCTION_PATH, SANDBOX_PATH])
@pytest.mark.parametrize("kind", RECEIPTS)
def test_each_receipt_has_the_same_answer(fast_url: str, url: str, path: str, kind: str) -> None:
    """Word for word, but for the time of the request; the second time as well, when it is remembered."""
    asked = {"receipt-data": RECEIPTS[kind]}
    expected = answer(url + path, json=asked)
    assert answer(fast_url + path, json=asked) == expected
    assert answer(fast_url + path, json=asked) == expected


def test_what_is_no_question_has_the_same_answer(fast_url: str, url: str) -> None:
    """No JSON, no object."""
    for content in (b"{", b"[]", b""):
        assert answer(fast_url + PRODUCTION_PATH, data=content) == answer(url + PRODUCTION_PATH, data=content)
    assert requests.get(fast_url + PRODUCTION_PATH, timeout=PATIENCE_SECONDS).json() == {"status": 21000}
    assert requests.post(fast_url + "/elsewhere", timeout=PATIENCE_SECONDS).status_code == 404


def test_a_load_is_answered_over_tls(tmp_path: Path) -> None:
    """Answers made beforehand are those of the load; the certificate is verified, and nobody else's will do."""
    files = make_certificates(tmp_path)
    arguments = ["app-store", "--certificate", str(files.certificate), "--key", str(files.key)]
    with closing(ServiceProcess(arguments)) as process:
        assert process.url.startswith("https://127.0.0.1:")
        load = Load(3, receipt_bytes=100)

        def ask(path: str, **fields: object) -> dict[str, Any]:
            content: dict[str, Any] = requests.post(
                process.url + path, json=fields, verify=str(files.authority), timeout=PATIENCE_SECONDS
            ).json()
            return content

        ask("/_bench/load", messages=3, receipt_bytes=100)
        for number in range(3):
            content = ask(PRODUCTION_PATH, **{"receipt-data": load.receipt(number)})
            assert content["receipt"]["in_app"][0]["transaction_id"] == transaction_id(number)
        report = ask("/_bench/report")
        assert (report["requests"], len(report["delays_seconds"])) == (3, 3)
        with pytest.raises(requests.exceptions.SSLError):
            requests.post(process.url + PRODUCTION_PATH, timeout=PATIENCE_SECONDS)


def test_the_transactions_of_a_load_are_found(fast_url: str) -> None:
    """By the Server API, in production, for any bearer token; what is found is signed."""
    requests.post(f"{fast_url}/_bench/load", json={"messages": 2, "way": "server-api"}, timeout=PATIENCE_SECONDS)
    verifier = SignedDataVerifier([default_authority().root], False, ApplesEnvironment.PRODUCTION, BUNDLE_ID, 1)

    def look_up(base: str, transaction_id: str, **headers: str) -> requests.Response:
        return requests.get(
            f"{fast_url}{base}/inApps/v1/transactions/{transaction_id}", headers=headers, timeout=PATIENCE_SECONDS
        )

    token = {"Authorization": "Bearer AbC"}
    for number in range(2):
        found = look_up("/production", transaction_id(number), **token)
        read = verifier.verify_and_decode_signed_transaction(found.json()["signedTransactionInfo"])
        assert read.transactionId == transaction_id(number)
        assert look_up("/sandbox", transaction_id(number), **token).json()["errorCode"] == 4040010
    assert look_up("/production", transaction_id(2), **token).status_code == 404
    assert look_up("/production", transaction_id(0)).status_code == 401


def test_the_receipts_of_a_load_can_be_signed_transactions() -> None:
    """The same transactions as of its app receipts, which another load may have."""
    verifier = SignedDataVerifier([default_authority().root], False, ApplesEnvironment.PRODUCTION, BUNDLE_ID, 1)
    load = Load(2, way="storekit2")
    assert verifier.verify_and_decode_signed_transaction(load.receipt(1)).transactionId == transaction_id(1)


def test_a_latency_is_kept() -> None:
    """Between latency - jitter and latency + jitter, as the service itself measured it."""
    with closing(ServiceProcess(["app-store", "--latency", "0.05", "--jitter", "0.02"])) as process:
        for _ in range(5):
            answer(process.url + PRODUCTION_PATH, json={"receipt-data": ""})
        delays = requests.post(f"{process.url}/_bench/report", timeout=PATIENCE_SECONDS).json()["delays_seconds"]
    assert len(delays) == 5
    assert all(0.028 <= delay for delay in delays)  # a timer may be a little early; late it is where a machine is busy
    assert len(set(delays)) > 1


def test_a_service_that_cannot_start_is_told(tmp_path: Path) -> None:
    """Not waited for."""
    with pytest.raises(OSError, match="app-store did not start"):
        ServiceProcess(["app-store", "--certificate", str(tmp_path / "missing.pem"), "--key", "x"])
