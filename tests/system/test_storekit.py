"""Signed transactions and the App Store Server API, from the message to the answer, on this machine alone.

The simulated App Store signs with an authority of its own, which the system is told to trust; everything else is as in
production: Apple's library, the processes that verify, the queues and the ledger in a database.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.domain.messages import PostedResult
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.notifications import open_handler
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.apple_ca import Flaw
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, Shape, mint
from receipt_actors.sqlite import EmbeddedQueues
from tests.patience import PATIENCE_SECONDS

BUNDLE_ID = "com.example.game"
_transaction_ids = itertools.count(2_000_000_001)


def settings_of(store: SimulatedAppStore, folder: Path, **more: object) -> Settings:
    files = store.write_files(folder)
    return Settings(
        database=folder / "r.db", bundle_ids=(BUNDLE_ID,), app_store_url=store.url, apple_roots=files.roots, **more
    )


def asking_the_server_api(store: SimulatedAppStore, folder: Path, **more: object) -> Settings:
    files = store.write_files(folder)
    return settings_of(
        store,
        folder,
        app_receipts="server-api",
        server_api_key=str(files.key),
        server_api_key_id=files.key_id,
        server_api_issuer_id=files.issuer_id,
        **more,
    )


def purchase(**fields: object) -> SampleReceipt:
    environment = fields.pop("environment", Environment.PRODUCTION)
    bought = Purchase(str(next(_transaction_ids)), "coins", **fields)  # type: ignore[arg-type]
    return SampleReceipt(BUNDLE_ID, (bought,), environment=environment)  # type: ignore[arg-type]


class House:
    def __init__(self, system: ReceiptSystem, settings: Settings) -> None:
        self.system = system
        self.database = settings.database
        self._results = system.results(timeout_seconds=PATIENCE_SECONDS)

    def answer(self, receipt_data: str, user_id: int = 42, *, submission_id: str | None = None) -> tuple[str, ...]:
        self.system.submit(receipt_data, user_id, submission_id=submission_id)
        result: PostedResult = next(self._results)
        assert result.user_id == user_id
        return result.transaction_id, str(result.status), str(result.reason)

    def dead_letter(self) -> tuple[str, str]:
        assert self.database is not None
        with closing(EmbeddedQueues(self.database)) as queues:
            (letter,) = queues.receive(
                "ReceiptsSQSDLQ", max_messages=1, wait_seconds=PATIENCE_SECONDS, visibility_timeout_seconds=600
            )
        return letter.attributes["reason"], json.loads(letter.body)["receipt"]

    def close(self) -> None:
        self._results.close()


Run = Callable[[Settings], House]


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@pytest.fixture
def run() -> Iterator[Run]:
    houses: list[House] = []

    def start(settings: Settings) -> House:
        house = House(ReceiptSystem.start(settings), settings)
        houses.append(house)
        return house

    yield start
    for house in houses:
        house.close()
        house.system.stop()


@pytest.mark.short
def test_a_signed_transaction_counts_once(store: SimulatedAppStore, tmp_path: Path, run: Run) -> None:
    house = run(settings_of(store, tmp_path))
    sample = purchase()
    (bought,) = sample.purchases
    signed = store.sell_signed(sample)
    assert house.answer(signed, submission_id="s-1") == (bought.transaction_id, "OK", "claimed")
    assert house.answer(signed, submission_id="s-1") == (bought.transaction_id, "OK", "already_ours")
    assert house.answer(signed, submission_id="s-2") == (bought.transaction_id, "INVALID", "already_answered")
    assert house.answer(signed, 43) == (bought.transaction_id, "INVALID", "claimed_by_another_user")
    subscription = {"product_type": ProductType.AUTO_RENEWABLE_SUBSCRIPTION, "expires_at_ms": 4_000_000_000_000}
    first = purchase(**subscription)
    renewal = purchase(**subscription, original_transaction_id=first.purchases[0].transaction_id)
    for each in (first, renewal, purchase()):
        signed = store.sell_signed(each)
        assert house.answer(signed)[1:] == ("OK", "claimed")
        assert house.answer(signed)[1:] == ("INVALID", "already_answered")
    assert not store.statistics().requests  # Apple has not been asked


def test_an_outage_of_apple_does_not_hold_signed_transactions_up(
    store: SimulatedAppStore, tmp_path: Path, run: Run
) -> None:
    house = run(settings_of(store, tmp_path))
    assert house.answer(store.sell_signed(purchase()))[1] == "OK"  # signed ones come here
    store.outage(Fault.http(503))
    kept = {house.system.submit(store.sell(purchase()), user_id).submission_id for user_id in range(1, 9)}
    for _ in range(5):
        assert house.answer(store.sell_signed(purchase()))[1:] == ("OK", "claimed")
    store.recover()
    answers = [next(house._results) for _ in kept]
    assert {answer.submission_id for answer in answers} == kept
    assert {str(answer.status) for answer in answers} == {"OK"}


def test_an_app_receipt_is_looked_up_by_the_server_api(store: SimulatedAppStore, tmp_path: Path, run: Run) -> None:
    house = run(asking_the_server_api(store, tmp_path, environments="Production,Sandbox"))
    sample = purchase()
    (bought,) = sample.purchases
    receipt_data = store.sell(sample)
    assert house.answer(receipt_data) == (bought.transaction_id, "OK", "claimed")
    assert house.answer(store.sell_signed(sample), 43)[1:] == ("INVALID", "claimed_by_another_user")
    assert house.answer(store.sell(purchase(environment=Environment.SANDBOX)))[1:] == ("OK", "claimed")
    refunded = purchase()
    receipt_data = store.sell(refunded)
    store.refund(refunded.purchases[0].transaction_id)
    assert house.answer(receipt_data)[1:] == ("INVALID", "refunded")
    assert not store.statistics().requests  # of verifyReceipt
    for receipt_data, reason in (("AAAA", "no_transaction_id"), (mint(purchase()), "transaction_not_found")):
        house.system.submit(receipt_data, 42)
        assert house.dead_letter() == (reason, receipt_data)


def test_neither_signed_transactions_nor_keys_nor_tokens_are_ever_logged(
    store: SimulatedAppStore, tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    settings = asking_the_server_api(store, tmp_path)
    house = run(settings)
    sold, made_up = store.sell(purchase()), mint(purchase())
    signed, forged = store.sell_signed(purchase()), store.sell_signed(purchase(), flaw=Flaw.FOREIGN_ROOT)
    assert house.answer(signed)[1] == house.answer(sold)[1] == "OK"
    for refused in (forged, made_up):
        house.system.submit(refused, 42)
        house.dead_letter()
    store.outage(Fault.http(500))
    house.system.submit(store.sell(purchase()), 42)
    wait_for(lambda: house.system.statistics().count("handed_back") == 1)
    assert settings.server_api_key is not None
    key = Path(settings.server_api_key.get_secret_value()).read_text().splitlines()[1]
    for secret in (sold, made_up, key, *signed.split("."), *forged.split(".")):
        assert secret[:60] not in caplog.text
    assert "Bearer" not in caplog.text
    assert caplog.text


def answers_of(house: House, receipt_data: str, *submission_ids: str) -> list[PostedResult]:
    for submission_id in submission_ids:
        house.system.submit(receipt_data, 42, submission_id=submission_id)
    return [next(house._results) for _ in submission_ids]


@pytest.mark.parametrize("way", ["app receipt", "transaction receipt", "signed transaction", "server api"])
def test_an_answer_says_how_many_were_bought_and_how_much_was_refunded(
    store: SimulatedAppStore, tmp_path: Path, run: Run, way: str
) -> None:
    settings = (asking_the_server_api if way == "server api" else settings_of)(store, tmp_path)
    house = run(settings)
    sample, late = purchase(quantity=3), purchase(quantity=2)
    if way == "transaction receipt":
        sample, late = (replace(each, shape=Shape.TRANSACTION) for each in (sample, late))
    sell = store.sell_signed if way == "signed transaction" else store.sell
    receipt_data, late_data = sell(sample), sell(late)
    transaction_id, late_id = (each.purchases[0].transaction_id for each in (sample, late))

    for answer in answers_of(house, receipt_data, "s-1", "s-1"):
        assert (answer.status, answer.quantity) == ("OK", 3)
    with open_handler(settings) as handler:

        def notify(transaction_id: str, percentage: int) -> None:
            notification = store.notify("REFUND", transaction_id, revocation_percentage=percentage)
            assert handler.handle(notification.body).status == 200

        for percentage in (33333, 66666):
            notify(transaction_id, percentage)
            refund = next(house._results)
            assert (refund.status, refund.reason, refund.quantity) == ("INVALID", "refunded", 3)
            assert (refund.revocation_type, refund.revocation_percentage) == ("REFUND_PRORATED", percentage)
        notify(late_id, 50_000)
    (repeated,) = answers_of(house, receipt_data, "s-1")
    assert (repeated.status, repeated.quantity, repeated.revocation_percentage) == ("OK", 3, None)
    (refused,) = answers_of(house, late_data, "s-2")
    assert (refused.status, refused.reason, refused.quantity) == ("INVALID", "refunded", 2)
    assert (refused.revocation_type, refused.revocation_percentage) == ("REFUND_PRORATED", 50_000)
