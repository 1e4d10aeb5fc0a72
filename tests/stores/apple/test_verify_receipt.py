"""What Apple's answers mean: every status, both shapes of a receipt, and everything that nobody has documented."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import (
    Genuine,
    Interpretation,
    Misconfigured,
    Transaction,
    TryAgain,
    Unidentified,
    WrongEnvironment,
)
from receipt_actors.stores.apple.verify_receipt import interpret
from tests.stores.apple.test_signed_transactions import JSON, assert_unknown

PRODUCTION, SANDBOX = Environment

COINS = {
    "transaction_id": "1000",
    "original_transaction_id": "1000",
    "product_id": "coins",
    "quantity": "2",
    "purchase_date_ms": "1375340400000",
}
GOLD = {
    "transaction_id": 2000,
    "original_transaction_id": 1999,
    "product_id": "gold",
    "quantity": 1,
    "purchase_date_ms": 1375340500500,
    "expires_date": "2013-08-02 00:00:00 Etc/GMT",
    "expires_date_ms": "1375401600000",
}
COINS_READ = Transaction("1000", "1000", "coins", 2, 1375340400.0, None, cancelled=False, expired=False)
GOLD_READ = Transaction("2000", "1999", "gold", 1, 1375340500.5, 1375401600.0, cancelled=False, expired=False)


NEITHER: list[object] = ["maybe", 2, 0.5, [], {}, [True]]  # yes nor no
UNUSABLE: dict[str, list[object]] = {
    "transaction_id": [None, "", True, 1.0, -1, 10**5000, "a\nb", [], {}],
    "product_id": ["", False, 0.5, [], "x" * 257, "\ud800"],
    "quantity": ["", "two", "²", "-1", -1, 0, "0", 1.0, 1.5, float("nan"), True, 2**31, "9" * 5000, 10**5000],
    "purchase_date_ms": ["yesterday", "-1", "1.5", [], float("nan")],
    "expires_date_ms": ["never", -5, {}, True],
    "expires_date": ["2013-08-02 00:00:00 America/Los_Angeles", "tomorrow", -1],
    "cancellation_date": ["", False, [], {}, 0.5],
    "in_app_ownership_type": ["", "BORROWED", 1, True, []],
    "is_upgraded": ["", "yes", 2, 0.5, []],
    "app_account_token": ["", 0.5, True, [], {}],
}


def unified(*in_app: object, **answer: object) -> dict[str, Any]:
    receipt = {"bundle_id": "com.example.game", "receipt_type": "Production", "in_app": list(in_app)}
    return {"status": 0, "environment": "Production", "receipt": receipt, **answer}


def flat(status: int = 0, **receipt: object) -> dict[str, Any]:
    return {"status": status, "receipt": {"bid": "com.example.game", **COINS, **receipt}}


def genuine(answer: dict[str, Any], asked: Environment = PRODUCTION) -> Genuine:
    meaning = interpret(answer, asked)
    assert isinstance(meaning, Genuine), meaning
    return meaning


@pytest.mark.parametrize(
    ("status", "reason", "then_unanswerable"),
    [
        *((status, Reason.GAVE_UP_FOR_NOW, False) for status in (21001, 21005, 21009)),
        (21002, Reason.RECEIPT_MALFORMED, True),
    ],
)
def test_temporary_statuses_are_tried_again(status: int, reason: Reason, then_unanswerable: bool) -> None:
    meaning = interpret({"status": status}, PRODUCTION)
    assert isinstance(meaning, TryAgain)
    assert (meaning.reason, meaning.then_unanswerable) == (reason, then_unanswerable)


def test_final_refusals_name_no_transaction_and_our_own_mistakes_are_no_verdict() -> None:
    assert interpret({"status": 21003}, PRODUCTION) == Unidentified(Reason.NOT_AUTHENTIC)
    assert interpret({"status": 21010}, PRODUCTION) == Unidentified(Reason.ACCOUNT_NOT_FOUND)
    for status in (21000, 21004):
        meaning = interpret({"status": status}, PRODUCTION)
        assert isinstance(meaning, Misconfigured)
        assert str(status) in meaning.detail


@pytest.mark.parametrize(("status", "asked", "right"), [(21007, PRODUCTION, SANDBOX), (21008, SANDBOX, PRODUCTION)])
def test_a_receipt_of_the_other_environment_is_sent_there_but_not_round_in_circles(
    status: int, asked: Environment, right: Environment
) -> None:
    assert interpret({"status": status}, asked) == WrongEnvironment(right)
    assert_unknown(interpret({"status": status}, right))


@pytest.mark.parametrize("status", [21100, 21150, 21199])
@pytest.mark.parametrize("key", ["is-retryable", "is_retryable"])
def test_internal_data_errors_say_whether_to_retry(status: int, key: str) -> None:
    for yes in (True, 1, "1", "true"):
        meaning = interpret({"status": status, key: yes}, PRODUCTION)
        assert isinstance(meaning, TryAgain)
        assert (meaning.reason, meaning.then_unanswerable) == (Reason.GAVE_UP_FOR_NOW, False)
    for no in (False, 0, "0", "false", None):
        assert interpret({"status": status, key: no}, PRODUCTION) == Unidentified(Reason.INTERNAL_DATA_ERROR)
    for neither in NEITHER:
        assert_unknown(interpret({"status": status, key: neither}, PRODUCTION))
    assert interpret({"status": status}, PRODUCTION) == Unidentified(Reason.INTERNAL_DATA_ERROR)


def test_statuses_that_nobody_documented_and_those_that_are_no_integers_are_unknown() -> None:
    numbers: list[object] = [1, -1, 20999, 21011, 21099, 21200, 10**9, -(10**5000)]
    for status in [*numbers, None, True, False, "0", 0.0, [], {}, float("nan")]:
        assert_unknown(interpret({**unified(COINS), "status": status}, PRODUCTION))
    assert_unknown(interpret({}, PRODUCTION))


def test_21006_is_genuine_but_expired() -> None:
    (transaction,) = genuine(flat(21006, expires_date="1375401600000")).transactions
    assert transaction.transaction_id == "1000"
    assert transaction.expired
    assert transaction.expires_at_seconds == 1375401600.0


def test_21006_does_not_expire_the_coins_of_a_unified_receipt() -> None:
    """Apple documents it for single subscriptions only; elsewhere nobody knows what has expired."""
    assert_unknown(interpret(unified(COINS, GOLD, status=21006), PRODUCTION))
    assert genuine(unified(GOLD, status=21006)).transactions[0].expired  # nothing else in it could have
    assert_unknown(interpret({"status": 21006}, PRODUCTION))


def test_a_unified_receipt_has_all_its_purchases() -> None:
    assert genuine(unified(COINS, GOLD)) == Genuine(PRODUCTION, "com.example.game", (COINS_READ, GOLD_READ))

    assert genuine(unified()).transactions == ()


def test_an_ios_6_style_receipt_has_one_purchase() -> None:
    assert genuine(flat()) == Genuine(PRODUCTION, "com.example.game", (COINS_READ,))


def test_renewals_are_united_with_the_receipt() -> None:
    assert genuine(unified(COINS, latest_receipt_info=[GOLD])).transactions == (COINS_READ, GOLD_READ)
    assert genuine({**flat(), "latest_receipt_info": GOLD}).transactions == (COINS_READ, GOLD_READ)


def test_a_transaction_that_is_listed_twice_counts_once() -> None:
    listed = {key: value for key, value in GOLD.items() if not key.startswith("expires")}
    renewed = {"transaction_id": "2000", "expires_date_ms": GOLD["expires_date_ms"]}
    assert genuine(unified(GOLD, GOLD, COINS)).transactions == (GOLD_READ, COINS_READ)
    assert genuine(unified(listed, latest_receipt_info=[renewed])).transactions == (GOLD_READ,)
    assert genuine(unified(renewed, latest_receipt_info=[listed])).transactions == (GOLD_READ,)


@pytest.mark.parametrize("key", ["cancellation_date", "cancellation_date_ms"])
def test_a_cancellation_date_means_refunded(key: str) -> None:
    assert genuine(unified({**COINS, key: "2013-08-02 00:00:00 Etc/GMT"})).transactions[0].cancelled
    assert not genuine(unified({**COINS, key: None})).transactions[0].cancelled


def test_an_expiry_date_in_words_is_read_where_there_is_no_other() -> None:
    (transaction,) = genuine(unified({**COINS, "expires_date": "2013-08-02 00:00:00 Etc/GMT"})).transactions
    assert transaction.expires_at_seconds == 1375401600.0


def test_a_quantity_that_only_one_entry_says_is_the_quantity() -> None:
    """A purchase may be listed twice; an entry that does not say how many reads as one, and takes nothing away."""
    silent = {name: value for name, value in COINS.items() if name != "quantity"}
    for first, second in ((COINS, silent), (silent, COINS)):
        (transaction,) = genuine(unified(first, latest_receipt_info=[second])).transactions
        assert transaction.quantity == 2


def test_what_apple_leaves_out_is_unknown_not_made_up() -> None:
    (transaction,) = genuine(unified({"transaction_id": "7"})).transactions
    assert transaction == Transaction("7", None, None, 1, None, None, cancelled=False, expired=False)


@pytest.mark.parametrize(
    ("named", "receipt_type", "asked", "environment"),
    [
        ("Production", "ProductionSandbox", SANDBOX, PRODUCTION),
        ("Sandbox", "Production", PRODUCTION, SANDBOX),
        (None, "Production", SANDBOX, PRODUCTION),
        (None, "ProductionVPP", SANDBOX, PRODUCTION),
        (None, "ProductionSandbox", PRODUCTION, SANDBOX),
        (None, "ProductionVPPSandbox", PRODUCTION, SANDBOX),
        (None, None, PRODUCTION, PRODUCTION),
        (None, None, SANDBOX, SANDBOX),
    ],
)
def test_the_environment_is_the_answers_else_the_receipts_else_the_endpoints(
    named: str | None, receipt_type: str | None, asked: Environment, environment: Environment
) -> None:
    answer = unified(COINS, environment=named)
    answer["receipt"]["receipt_type"] = receipt_type
    assert genuine(answer, asked).environment is environment


@pytest.mark.parametrize("upgraded", ["true", True, "1"])
def test_whose_purchase_it_is_is_read_where_apple_says_so(upgraded: object) -> None:
    token = "7F5D9A1E-0000-4000-8000-00000000002A"
    told = {"in_app_ownership_type": "FAMILY_SHARED", "is_upgraded": upgraded, "app_account_token": token}
    shared, plain = genuine(unified({**GOLD, **told}, COINS)).transactions
    assert (shared.is_family_shared, shared.is_upgraded) == (True, True)
    assert shared.app_account_token == token.lower()
    assert plain == COINS_READ
    (own,) = genuine(unified({**COINS, "in_app_ownership_type": "PURCHASED", "is_upgraded": "false"})).transactions
    assert own == COINS_READ


@pytest.mark.parametrize("place", [0, 1])
def test_what_only_one_of_two_entries_says_is_kept(place: int) -> None:
    told = {"in_app_ownership_type": "FAMILY_SHARED", "is_upgraded": "true", "app_account_token": "a" * 36}
    told["cancellation_date_ms"] = "1375340600000"
    entries = [dict(GOLD), dict(GOLD)]
    entries[place] |= told
    (transaction,) = genuine(unified(entries[0], latest_receipt_info=[entries[1]])).transactions
    assert transaction.is_family_shared and transaction.is_upgraded and transaction.cancelled
    assert transaction.app_account_token == "a" * 36


def test_a_receipt_may_name_no_app() -> None:
    answer = unified(COINS)
    del answer["receipt"]["bundle_id"]
    assert genuine(answer).bundle_id is None


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 0},
        {"status": 0, "receipt": None},
        {"status": 0, "receipt": []},
        {"status": 0, "receipt": {}},
        {"status": 0, "receipt": {"bundle_id": "com.example.game"}},
        {"status": 0, "receipt": {"in_app": None}},
        {"status": 0, "receipt": {"in_app": COINS}},
        unified(COINS, None),
        unified(COINS, "2000"),
        unified(COINS, {}),
        unified(COINS, latest_receipt_info="none"),
        unified(COINS, latest_receipt_info=[{}]),
        unified(COINS, environment="Xcode"),
        unified(COINS, environment=1),
        unified(COINS, environment=["Production"]),
        flat(bundle_id="com.example.other"),
        flat(bid=["com.example.game"]),
        {"status": 0, "receipt": {"bundle_id": 5, "in_app": [COINS]}},
        *(unified({**COINS, key: value}) for key, values in UNUSABLE.items() for value in values),
    ],
)
def test_an_answer_that_cannot_be_read_is_unknown_as_a_whole(answer: dict[str, Any]) -> None:
    assert_unknown(interpret(answer, PRODUCTION))


PATHS = [
    ("status",),
    ("environment",),
    ("is-retryable",),
    ("latest_receipt_info",),
    ("latest_receipt_info", 0),
    ("receipt",),
    *(("receipt", key) for key in ("bundle_id", "bid", "receipt_type", "in_app")),
    ("receipt", "in_app", 0),
    *(("receipt", "in_app", 0, key) for key in (*GOLD, *UNUSABLE, "cancellation_date_ms")),
]


@given(st.integers() | st.integers(20990, 21210), st.sampled_from(Environment), st.booleans())
def test_every_integer_has_a_meaning(status: int, asked: Environment, with_receipt: bool) -> None:
    meaning = interpret(flat(status) if with_receipt else {"status": status}, asked)
    assert isinstance(meaning, Interpretation)
    assert not isinstance(meaning, Genuine) or (with_receipt and status in (0, 21006))


@given(st.sampled_from(PATHS), JSON, st.sampled_from([0, 21006, 21100]))
def test_any_json_in_any_place_has_a_meaning(path: tuple[str | int, ...], value: Any, status: int) -> None:
    answer: Any = unified(dict(GOLD), status=status, latest_receipt_info=[dict(COINS)])
    place = answer
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    meaning = interpret(answer, PRODUCTION)
    assert isinstance(meaning, Interpretation)
    if isinstance(meaning, Genuine):
        ids = [transaction.transaction_id for transaction in meaning.transactions]
        assert all(ids)
        assert len(ids) == len(set(ids))
