"""The App Store of the benchmark answers its load in advance, and all else as the simulated App Store does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from appstoreserverlibrary.models.Environment import Environment as ApplesEnvironment
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier

from receipt_actors.sandbox.app_store import PRODUCTION_PATH, SANDBOX_PATH
from receipt_actors.sandbox.apple_ca import default_authority
from receipt_actors.sandbox.bench.services import make_certificate
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, mint
from receipt_actors.sandbox.services import ServiceProcess
from receipt_actors.sandbox.services.load import BUNDLE_ID, Load, transaction_id
from tests.patience import PATIENCE_SECONDS


def test_a_load_is_answered_over_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with closing(ServiceProcess(["app-store", "--certificate", str(certificate)])) as process:
        assert process.url.startswith("https://127.0.0.1:")

        def ask(path: str, **fields: object) -> dict[str, Any]:
            answer: dict[str, Any] = requests.post(
                process.url + path, json=fields, verify=str(certificate), timeout=PATIENCE_SECONDS
            ).json()
            return answer

        load = Load(3, receipt_bytes=100)
        ask("/_bench/load", messages=3, receipt_bytes=100)
        for number in range(3):
            answer = ask(PRODUCTION_PATH, **{"receipt-data": load.receipt(number)})
            assert answer["receipt"]["in_app"][0]["transaction_id"] == transaction_id(number)
        assert ask(SANDBOX_PATH, **{"receipt-data": load.receipt(0)}) == {"status": 21008}
        other = mint(SampleReceipt(BUNDLE_ID, (Purchase("7"),)))
        assert ask(PRODUCTION_PATH, **{"receipt-data": other})["receipt"]["in_app"][0]["transaction_id"] == "7"
        assert ask(PRODUCTION_PATH) == {"status": 21002}
        report = ask("/_bench/report")
        assert (report["requests"], len(report["delays_seconds"])) == (3, 3)
        with pytest.raises(requests.exceptions.SSLError):
            requests.post(process.url + PRODUCTION_PATH, timeout=PATIENCE_SECONDS)


def test_the_transactions_of_a_load_are_found_for_any_token() -> None:
    verifier = SignedDataVerifier([default_authority().root], False, ApplesEnvironment.PRODUCTION, BUNDLE_ID, 1)
    with closing(ServiceProcess(["app-store", "--latency", "0.05", "--jitter", "0.02"])) as process:
        requests.post(f"{process.url}/_bench/load", json={"messages": 5, "way": "server-api"}, timeout=PATIENCE_SECONDS)

        def look_up(transaction_id: str, **headers: str) -> requests.Response:
            url = f"{process.url}/production/inApps/v1/transactions/{transaction_id}"
            return requests.get(url, headers=headers, timeout=PATIENCE_SECONDS)

        for number in range(5):
            found = look_up(transaction_id(number), Authorization="Bearer AbC").json()
            read = verifier.verify_and_decode_signed_transaction(found["signedTransactionInfo"])
            assert read.transactionId == transaction_id(number)
        assert look_up(transaction_id(0)).status_code == 401
        delays = requests.post(f"{process.url}/_bench/report", timeout=PATIENCE_SECONDS).json()["delays_seconds"]
    assert len(set(delays)) == 5
    assert all(0.028 <= delay for delay in delays)  # a timer may be a little early; late it is where a machine is busy


def test_a_service_that_cannot_start_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="app-store did not start"):
        ServiceProcess(["app-store", "--certificate", str(tmp_path / "missing.pem")])
