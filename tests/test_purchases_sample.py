"""``doc/examples/purchases.py``, which readers copy to keep verdicts: refunds, reversals, repetitions, crashes."""

from __future__ import annotations

import itertools
import queue
import random
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.domain.messages import PostedResult, Verdict
from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.notifications import open_handler
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt
from receipt_actors.sqlite import EmbeddedQueues
from tests.examples import example
from tests.patience import PATIENCE_SECONDS

OK = PostedResult(42, "t-1", Verdict.OK, "s-1", "m-1", "claimed", "coins_100", "Production", quantity=3)
AGAIN = replace(OK, reason="already_ours")
REFUND = replace(OK, status=Verdict.INVALID, reason="refunded", decided_at_ms=1_000, revocation_type="REFUND_FULL")
PART = replace(REFUND, revocation_type="REFUND_PRORATED", revocation_percentage=33_333)
REVERSAL = replace(OK, reason="refund_reversed", decided_at_ms=2_000)
SECOND_PART = replace(PART, decided_at_ms=3_000)
REFUND_OF_THE_REST = replace(REFUND, decided_at_ms=3_000)


@pytest.fixture
def game(tmp_path: Path) -> ModuleType:
    game = example("purchases")
    game.DATABASE = tmp_path / "game.db"  # type: ignore[attr-defined]
    return game


@pytest.mark.parametrize(
    ("story", "coins"),
    [
        ([OK, AGAIN], 300),
        ([OK, REFUND, AGAIN], 0),
        ([OK, REFUND, REVERSAL, AGAIN], 300),
        ([OK, PART, AGAIN], 200),
        ([OK, PART, replace(REFUND, decided_at_ms=1_500)], 0),
        ([OK, REFUND, REVERSAL, SECOND_PART], 200),
        ([OK, REFUND, REVERSAL, SECOND_PART, REFUND_OF_THE_REST], 0),
        ([OK, REFUND, replace(REVERSAL, decided_at_ms=1_000)], 300),
    ],
    ids=lambda value: " ".join(str(each.reason) for each in value) if isinstance(value, list) else "",
)
def test_each_credit_and_debit_counts_once_in_whatever_order_they_come(
    game: ModuleType, story: Sequence[PostedResult], coins: int
) -> None:
    orders = list(itertools.permutations(story))
    randomly = random.Random(1)
    for user_id, order in enumerate(randomly.sample(orders, min(len(orders), 24)), start=1):
        repeated = [*order, *randomly.choices(order, k=5)]
        assert set(repeated) == set(story)
        for answer in repeated:
            game.keep(replace(answer, user_id=user_id, submission_id=f"s-{user_id}"))
            assert 0 <= game.coins_of_player(user_id) <= 300
        assert game.coins_of_player(user_id) == coins
        (verdict,) = game.verdicts_of(f"s-{user_id}")
        assert verdict["status"] == max(story, key=game.order_of).status


def test_what_is_no_purchase_of_the_player_is_worth_nothing(game: ModuleType) -> None:
    stolen = replace(OK, status=Verdict.INVALID, reason="claimed_by_another_user", submission_id="s-2", user_id=43)
    refunded_before = replace(PART, decided_at_ms=None, submission_id="s-3", user_id=44)
    unidentified = replace(stolen, reason="not_authentic", transaction_id="", product_id=None, quantity=None)
    for answer in (OK, stolen, refunded_before, unidentified):
        game.keep(answer)
    assert [game.coins_of_player(user_id) for user_id in (42, 43, 44)] == [300, 0, 0]
    assert game.verdicts_of("s-3") == [{"transaction_id": "t-1", "status": "INVALID"}]
    game.keep(replace(OK, transaction_id="t-2", product_id="coins_500", quantity=None))
    assert game.coins_of_player(42) == 800  # all transactions of a receipt count
    assert len(game.verdicts_of("s-1")) == 2


def test_a_product_that_the_game_does_not_know_is_not_noted(game: ModuleType) -> None:
    new = replace(OK, product_id="coins_9000")
    with pytest.raises(KeyError, match="coins_9000"):
        game.keep(new)
    assert (game.verdicts_of("s-1"), game.coins_of_player(42)) == ([], 0)
    game.COINS["coins_9000"] = 9_000
    game.keep(new)
    assert game.coins_of_player(42) == 27_000


def test_a_crash_between_the_note_and_the_coins_leaves_neither(game: ModuleType) -> None:
    with closing(game.connect()) as database, database:
        database.execute("CREATE TRIGGER crash BEFORE INSERT ON wallets BEGIN SELECT RAISE(ABORT, 'crash'); END")
    with pytest.raises(sqlite3.IntegrityError, match="crash"):
        game.keep(OK)
    assert game.verdicts_of("s-1") == []
    with closing(game.connect()) as database, database:
        database.execute("DROP TRIGGER crash")
    game.keep(OK)
    assert game.coins_of_player(42) == 300


def test_many_threads_may_keep_the_same_answers(game: ModuleType) -> None:
    game.connect().close()
    start = threading.Barrier(8)

    def keep_all(seed: int) -> None:
        answers = [OK, REFUND, REVERSAL, SECOND_PART] * 3
        random.Random(seed).shuffle(answers)
        start.wait(timeout=PATIENCE_SECONDS)
        for answer in answers:
            game.keep(answer)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep_all, range(8)))
    assert game.coins_of_player(42) == 200


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SimulatedAppStore]:
    pytest.importorskip("appstoreserverlibrary")
    with SimulatedAppStore() as store:
        yield store


def test_a_purchase_is_refunded_reversed_and_repeated(
    game: ModuleType, store: SimulatedAppStore, tmp_path: Path
) -> None:
    settings = Settings(
        database=tmp_path / "r.db",
        bundle_ids=("com.example.game",),
        apple_roots=store.write_files(tmp_path / "apple").roots,
    )
    signed = store.sell_signed(SampleReceipt("com.example.game", (Purchase("t-1", quantity=3),)))
    submission_id = game.submission_id_of(signed, 42)
    kept: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    answers: list[PostedResult] = []

    def keep_twice(result: PostedResult) -> None:
        answers.append(result)
        for answer in (result, *reversed(answers)):
            game.keep(answer)
        kept.put(result.reason)

    with ReceiptSystem.start(settings, on_result=keep_twice) as system, open_handler(settings) as apple_tells:

        def buy(user_id: int, submission_id: str) -> None:
            system.submit(signed, user_id, submission_id=submission_id).result(PATIENCE_SECONDS)

        def tell(notification_type: str, **more: int) -> None:
            assert apple_tells.handle(store.notify(notification_type, "t-1", **more).body).status == 200

        def heard() -> str | None:
            return kept.get(timeout=PATIENCE_SECONDS)

        buy(42, submission_id)
        assert (heard(), game.coins_of_player(42)) == ("claimed", 300)
        tell("REFUND")
        assert (heard(), game.coins_of_player(42)) == ("refunded", 0)
        buy(42, submission_id)  # the client sends it again, and gets the same OK as before
        assert (heard(), game.coins_of_player(42)) == ("already_ours", 0)
        buy(43, game.submission_id_of(signed, 43))
        heard()
        assert game.coins_of_player(43) == 0
        tell("REFUND_REVERSED")
        assert (heard(), game.coins_of_player(42)) == ("refund_reversed", 300)
        with closing(EmbeddedQueues(tmp_path / "r.db")) as queues:  # a message of the past, delivered once more
            queues.send("ResultsSQS", [old_ok(answers[0])])
        assert (heard(), game.coins_of_player(42)) == ("claimed", 300)
        tell("REFUND", revocation_percentage=33_333)
        assert (heard(), game.coins_of_player(42)) == ("refunded", 200)
    assert game.verdicts_of(submission_id) == [{"transaction_id": "t-1", "status": "INVALID"}]
    assert game.coins_of_player(43) == 0


def old_ok(answer: PostedResult) -> OutgoingMessage:
    body = f'{{"user_id": {answer.user_id}, "transaction_id": "{answer.transaction_id}", "status": "OK"}}'
    names = ("submission_id", "source_message_id", "reason", "product_id", "environment")
    return OutgoingMessage(body, {name: getattr(answer, name) for name in names} | {"quantity": "3"})
