"""Embedding: several systems in one program, which touch nothing but themselves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pykka
import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.application import HAND_BACK_SECONDS
from receipt_actors.backends import open_backend
from receipt_actors.domain.messages import PostedResult, Verdict
from receipt_actors.errors import NotAnswered
from receipt_actors.pipeline.validator import pending_submissions_of
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import DEFAULT_KEY, Fault, Purchase, SampleReceipt, mint
from receipt_actors.telemetry.alerts import Alert, AlertKind
from receipt_actors.testing import FakeServices
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.short

BUNDLE_ID = "com.example.game"
_transaction_ids = itertools.count(1000)


def settings_of(store: SimulatedAppStore, database: Path) -> Settings:
    return Settings(database=database, bundle_ids=(BUNDLE_ID,), app_store_url=store.url)


def genuine_receipt() -> str:
    purchase = Purchase(str(next(_transaction_ids)), "coins", 1_700_000_000_000)
    return mint(SampleReceipt(BUNDLE_ID, (purchase,)), key=DEFAULT_KEY)


def test_a_callback_gets_each_result(
    store: SimulatedAppStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: queue.SimpleQueue[PostedResult] = queue.SimpleQueue()

    def take(result: PostedResult) -> None:
        heard.put(result)
        if result.user_id == 1:
            raise RuntimeError("the embedding program's own bug")

    settings = settings_of(store, tmp_path / "r.db")
    with ReceiptSystem.start(settings, on_result=take) as system:
        submitted = {system.submit(genuine_receipt(), user_id).submission_id for user_id in range(20)}
        answered = {heard.get(timeout=PATIENCE_SECONDS).submission_id for _ in submitted}
        assert answered == submitted
    assert "on_result raised" in caplog.text
    with ReceiptSystem.start(settings) as system:
        results = system.results(timeout_seconds=PATIENCE_SECONDS)
        assert next(results).user_id == 1
        results.close()


def test_a_callback_hears_of_what_a_drain_abandons(store: SimulatedAppStore, tmp_path: Path) -> None:
    heard: queue.SimpleQueue[Alert] = queue.SimpleQueue()
    store.outage(Fault.hang(600))
    system = ReceiptSystem.start(settings_of(store, tmp_path / "r.db"), on_alert=heard.put)
    for user_id in range(3):
        system.submit(genuine_receipt(), user_id)
    while system.in_flight().in_flight < 3:
        pass
    assert system.drain(HAND_BACK_SECONDS + 0.5) == 3
    assert heard.get_nowait().kind is AlertKind.ABANDONED


# --- waiting for one submission ---


def test_a_program_waits_for_the_answers_to_its_own_submission(store: SimulatedAppStore, tmp_path: Path) -> None:
    receipt = genuine_receipt()
    with ReceiptSystem.start(settings_of(store, tmp_path / "r.db")) as system:
        first, second = system.submit(receipt, 42), system.submit(genuine_receipt(), 43)
        answers = {answer.user_id: answer for each in (second, first) for answer in each.result(PATIENCE_SECONDS)}
        assert {user_id: answer.status for user_id, answer in answers.items()} == {42: "OK", 43: "OK"}
        assert answers[42].submission_id == first.submission_id
        (stolen,) = system.submit(receipt, 666).result(PATIENCE_SECONDS)
        assert (stolen.status, stolen.reason) == (Verdict.INVALID, "claimed_by_another_user")
        kept = set(system.results(timeout_seconds=0))
        assert kept == {*answers.values(), stolen}
        assert list(system.results(timeout_seconds=0)) == []
        assert first.done()


def test_all_transactions_of_a_receipt_are_waited_for(store: SimulatedAppStore, tmp_path: Path) -> None:
    purchases = tuple(Purchase(f"{number}00", "coins", 1_700_000_000_000 + number) for number in range(1, 31))
    receipt = mint(SampleReceipt(BUNDLE_ID, purchases), key=DEFAULT_KEY)
    with ReceiptSystem.start(settings_of(store, tmp_path / "r.db")) as system:
        answers = system.submit(receipt, 42).result(PATIENCE_SECONDS)
        assert {answer.transaction_id for answer in answers} == {each.transaction_id for each in purchases}
        assert len(answers) == 30
        assert set(system.results(timeout_seconds=0)) == set(answers)


def test_a_submission_that_is_sent_again_gets_the_same_answer(store: SimulatedAppStore, tmp_path: Path) -> None:
    receipt = genuine_receipt()
    settings = settings_of(store, tmp_path / "r.db")
    for _ in range(2):
        with ReceiptSystem.start(settings) as system:
            twice = [system.submit(receipt, 42, submission_id="purchase-7") for _ in range(2)]
            for pending in twice:
                (answer,) = pending.result(PATIENCE_SECONDS)
                assert (answer.status, answer.submission_id) == (Verdict.OK, "purchase-7")


def test_each_question_about_a_receipt_waits_for_its_own_answer(store: SimulatedAppStore, tmp_path: Path) -> None:
    purchases = (Purchase("1", "coins", 1_700_000_000_000), Purchase("2", "gems", 1_700_000_001_000))
    receipt = mint(SampleReceipt(BUNDLE_ID, purchases), key=DEFAULT_KEY)
    questions = ({"transaction_id": "1"}, {"transaction_id": "2"}, {"product_id": "coins"}, {})
    with ReceiptSystem.start(settings_of(store, tmp_path / "r.db"), is_paused=True) as system:
        asked = [system.submit(receipt, 42, submission_id="s", **question) for question in questions]
        system.resume()
        answers = [sorted(each.transaction_id for each in pending.result(PATIENCE_SECONDS)) for pending in asked]
    assert answers == [["1"], ["2"], ["1"], ["1", "2"]]


@pytest.mark.parametrize("has_dead_letter_queue", [True, False])
def test_what_can_not_be_answered_says_why(tmp_path: Path, has_dead_letter_queue: bool) -> None:
    settings = Settings(backend="aws", bundle_ids=(BUNDLE_ID,))
    services = FakeServices(settings)
    if not has_dead_letter_queue:
        services.queues.create_queue(settings.source_queue, None)
    with services.start() as system:
        pending = system.submit("Zm9yZ2VkCg==", 42)
        with pytest.raises(TimeoutError, match=pending.submission_id):
            pending.result(0)
        assert not pending.done()
        services.advance(seconds=10, actors=system.actors)
        for _ in range(2):
            with pytest.raises(NotAnswered, match=r"^not_authentic: ") as caught:
                pending.result(0)
            assert caught.value.reason == "not_authentic"
        assert pending.done()


def test_who_waits_hears_that_the_system_has_ended(store: SimulatedAppStore, tmp_path: Path) -> None:
    store.outage(Fault.hang(600))
    system = ReceiptSystem.start(settings_of(store, tmp_path / "r.db"))
    pending = system.submit(genuine_receipt(), 42)
    system.stop()
    with pytest.raises(NotAnswered, match=r"^drained: .* submit it again with this submission id"):
        pending.result(PATIENCE_SECONDS)


def test_coroutines_await_their_answers(store: SimulatedAppStore, tmp_path: Path) -> None:
    async def buy(system: ReceiptSystem, user_id: int) -> tuple[PostedResult, ...]:
        pending = await asyncio.to_thread(system.submit, genuine_receipt(), user_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                return await pending
        return await pending

    async def buy_all(system: ReceiptSystem) -> list[tuple[PostedResult, ...]]:
        return await asyncio.gather(*(buy(system, user_id) for user_id in range(20)))

    with ReceiptSystem.start(settings_of(store, tmp_path / "r.db")) as system:
        answers = asyncio.run(buy_all(system))
    assert [(answer.user_id, answer.status) for (answer,) in answers] == [(user, "OK") for user in range(20)]


def test_what_nobody_waits_for_is_forgotten(store: SimulatedAppStore, tmp_path: Path) -> None:
    with ReceiptSystem.start(settings_of(store, tmp_path / "r.db")) as system:
        store.outage(Fault.hang(600))
        waits = system.submit(genuine_receipt(), 1)
        for user_id in range(2, 20):
            system.submit(genuine_receipt(), user_id)
        assert list(pending_submissions_of(system.actors)._pending.values()) == [waits]
        store.recover()
        assert waits.result(PATIENCE_SECONDS)
        assert not pending_submissions_of(system.actors)._pending


def test_an_app_store_of_ones_own_is_asked(tmp_path: Path) -> None:
    services = FakeServices(Settings(backend="aws", bundle_ids=(BUNDLE_ID,)))
    settings = Settings(database=tmp_path / "r.db", bundle_ids=(BUNDLE_ID,), app_store_url="https://apple.invalid")
    backend = replace(open_backend(settings), app_store=services.app_store)
    with ReceiptSystem.start(settings, backend=backend) as system:
        (answer,) = system.submit(services.app_store.sell("mine-1"), 42).result(PATIENCE_SECONDS)
    assert (answer.transaction_id, answer.status) == ("mine-1", Verdict.OK)


def test_two_systems_in_one_program_do_not_see_each_other(store: SimulatedAppStore, tmp_path: Path) -> None:
    receipt = genuine_receipt()
    with ReceiptSystem.start(settings_of(store, tmp_path / "a.db")) as first:
        with ReceiptSystem.start(settings_of(store, tmp_path / "b.db")) as second:
            for user_id, system in enumerate((first, second)):
                system.submit(receipt, user_id)
                results = system.results(timeout_seconds=PATIENCE_SECONDS)
                answer = next(results)
                assert (answer.user_id, answer.status) == (user_id, Verdict.OK)
                results.close()
        first.submit(genuine_receipt(), 7)
        results = first.results(timeout_seconds=PATIENCE_SECONDS)
        assert any(answer.user_id == 7 for answer in itertools.islice(results, 2))
        results.close()


def test_starting_and_stopping_leaves_nothing_behind(store: SimulatedAppStore, tmp_path: Path) -> None:
    class Foreign(pykka.ThreadingActor):
        def on_receive(self, message: object) -> object:
            return message

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threads = set(threading.enumerate())
    foreign = Foreign.start()
    try:
        with ReceiptSystem.start(settings_of(store, tmp_path / "r.db"), on_result=lambda _result: None) as system:
            assert pykka.ActorRegistry.get_all() == [foreign]
            system.submit(genuine_receipt(), 42)
            assert {number: signal.getsignal(number) for number in handlers} == handlers
        assert foreign.ask("still there", timeout=PATIENCE_SECONDS) == "still there"
    finally:
        foreign.stop()
    with ReceiptSystem.start(settings_of(store, tmp_path / "r.db")) as system:
        pykka.ActorRegistry.stop_all()
        system.submit(genuine_receipt(), 43)
        results = system.results(timeout_seconds=PATIENCE_SECONDS)
        next(results)
        results.close()
    left = [thread for thread in set(threading.enumerate()) - threads if thread.name != "http"]
    assert left == []
