"""Embedding: several systems in one program, which touch nothing but themselves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pykka
import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.application import HAND_BACK_SECONDS
from receipt_actors.backends import open_backend
from receipt_actors.domain.messages import PostedResult, Verdict
from receipt_actors.errors import NotAnswered
from receipt_actors.pipeline.pending import pending_submissions_of
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import DEFAULT_KEY, Fault, Purchase, SampleReceipt, mint
from receipt_actors.telemetry.alert_book import Alert, AlertKind
from receipt_actors.testing import FakeServices
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.short

ROOT = Path(__file__).parents[2]
BUNDLE_ID = "com.example.game"
_transaction_ids = itertools.count(1000)


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


def settings_of(store: SimulatedAppStore, database: Path) -> Settings:
    return Settings(
        database=database,
        bundle_ids=(BUNDLE_ID,),
        app_store_url=store.url,
    )


def genuine_receipt() -> str:
    purchase = Purchase(str(next(_transaction_ids)), "coins", 1_700_000_000_000)
    return mint(SampleReceipt(BUNDLE_ID, (purchase,)), key=DEFAULT_KEY)


def test_what_is_submitted_comes_back_from_the_iterator(store: SimulatedAppStore, tmp_path: Path) -> None:
    """An answer carries the id that submit returned; the same receipt of another user is INVALID."""
    receipt = genuine_receipt()
    with ReceiptSystem.start(settings_of(store, tmp_path / "r.db")) as system:
        results = system.results(timeout_seconds=PATIENCE_SECONDS)
        first = system.submit(receipt, 42).submission_id
        answer = next(results)
        assert (answer.submission_id, answer.user_id, answer.status) == (first, 42, Verdict.OK)
        second = system.submit(receipt, 43).submission_id
        answer = next(results)
        assert (answer.submission_id, answer.status) == (second, Verdict.INVALID)
        assert answer.reason == "claimed_by_another_user"
        results.close()


def test_a_repetition_that_names_another_queue_gets_its_ok_where_the_first_went(
    store: SimulatedAppStore, tmp_path: Path
) -> None:
    """Whoever waits for the repetition is told the OK, too; the other queue gets none."""
    settings = settings_of(store, tmp_path / "r.db").model_copy(update={"post_queues": ("First", "Other")})
    receipt = genuine_receipt()
    with ReceiptSystem.start(settings) as system:
        for post_queue in ("First", "Other"):
            pending = system.submit(receipt, 42, post_queue=post_queue, submission_id="the same")
            (answer,) = pending.result(PATIENCE_SECONDS)
            assert (answer.submission_id, answer.status) == ("the same", Verdict.OK)
        answers = [answer.status for answer in system.results("First", timeout_seconds=1)]
        assert answers == [Verdict.OK, Verdict.OK]
        assert list(system.results("Other", timeout_seconds=0)) == []


def test_a_callback_gets_each_result(
    store: SimulatedAppStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs on a thread of the system, and an answer is gone from the queue once the callback has returned.

    Where it raises, that is an error in the log and no more: the answer stays on the queue.
    """
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
    """Before the drain returns."""
    heard: queue.SimpleQueue[Alert] = queue.SimpleQueue()
    store.outage(Fault.hang(600))
    system = ReceiptSystem.start(settings_of(store, tmp_path / "r.db"), on_alert=heard.put)
    for user_id in range(3):
        system.submit(genuine_receipt(), user_id)
    while system.in_flight().in_flight < 3:
        pass
    assert system.drain(HAND_BACK_SECONDS + 0.5) == 3
    assert heard.get_nowait().kind is AlertKind.ABANDONED


def test_the_example_of_the_manual_runs() -> None:
    """It prints one OK and one INVALID, as a reader of the manual would see."""
    example = ROOT / "doc" / "examples" / "embedding.py"
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, example], env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "user 42: OK (claimed)\nuser 43: INVALID (claimed_by_another_user)\n"


# --- waiting for one submission ---


def test_a_program_waits_for_the_answers_to_its_own_submission(store: SimulatedAppStore, tmp_path: Path) -> None:
    """Whatever else is on the post queue, which has them all the same until a loop acknowledges them."""
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
    """The validator knows how many answers there are; they are told when the queue has confirmed the last."""
    purchases = tuple(Purchase(f"{number}00", "coins", 1_700_000_000_000 + number) for number in range(1, 31))
    receipt = mint(SampleReceipt(BUNDLE_ID, purchases), key=DEFAULT_KEY)
    with ReceiptSystem.start(settings_of(store, tmp_path / "r.db")) as system:
        answers = system.submit(receipt, 42).result(PATIENCE_SECONDS)
        assert {answer.transaction_id for answer in answers} == {each.transaction_id for each in purchases}
        assert len(answers) == 30
        assert set(system.results(timeout_seconds=0)) == set(answers)


def test_a_submission_that_is_sent_again_gets_the_same_answer(store: SimulatedAppStore, tmp_path: Path) -> None:
    """Which is what a program does that ended while it waited: it names its submissions."""
    receipt = genuine_receipt()
    settings = settings_of(store, tmp_path / "r.db")
    for _ in range(2):
        with ReceiptSystem.start(settings) as system:
            twice = [system.submit(receipt, 42, submission_id="purchase-7") for _ in range(2)]
            for pending in twice:
                (answer,) = pending.result(PATIENCE_SECONDS)
                assert (answer.status, answer.submission_id) == (Verdict.OK, "purchase-7")


def test_each_question_about_a_receipt_waits_for_its_own_answer(store: SimulatedAppStore, tmp_path: Path) -> None:
    """Under one submission id as well, which a program may compute from user and receipt, at one time or not."""
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
    """There is no verdict: waiting ends with an error that has the reason of the dead letter."""
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
    """No verdict was given: the submission is safe, and the error says how to go on. So is one that is sent later."""
    store.outage(Fault.hang(600))
    system = ReceiptSystem.start(settings_of(store, tmp_path / "r.db"))
    pending = system.submit(genuine_receipt(), 42)
    system.stop()
    with pytest.raises(NotAnswered, match=r"^drained: .* submit it again with this submission id"):
        pending.result(PATIENCE_SECONDS)


def test_coroutines_await_their_answers(store: SimulatedAppStore, tmp_path: Path) -> None:
    """Many of them on one event loop; one that loses patience can wait again."""

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
    """A program that drops what ``submit`` returns keeps nothing of it."""
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
    """Whatever client the settings would have had, there is one place to put it; it may block."""
    services = FakeServices(Settings(backend="aws", bundle_ids=(BUNDLE_ID,)))
    settings = Settings(database=tmp_path / "r.db", bundle_ids=(BUNDLE_ID,), app_store_url="https://apple.invalid")
    backend = replace(open_backend(settings), app_store=services.app_store)
    with ReceiptSystem.start(settings, backend=backend) as system:
        (answer,) = system.submit(services.app_store.sell("mine-1"), 42).result(PATIENCE_SECONDS)
    assert (answer.transaction_id, answer.status) == ("mine-1", Verdict.OK)


def test_two_systems_in_one_program_do_not_see_each_other(store: SimulatedAppStore, tmp_path: Path) -> None:
    """Each has queues, ledger and actors of its own: the same transaction is OK in both, and one outlives the other."""
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
    """No thread, no signal handler; a pykka actor of the embedding program lives, and its stop_all is none of ours."""

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
