"""What the App Store Server API's answers mean: every documented code, and everything that nobody has documented."""

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
    TryAgain,
    Unidentified,
    WrongEnvironment,
)
from receipt_actors.stores.apple.ports import UNAUTHORIZED, SignatureRefused
from receipt_actors.stores.apple.server_api import Signed, interpret, interpret_found
from tests.stores.apple.test_signed_transactions import JSON, PAYLOAD, assert_unknown

PRODUCTION, SANDBOX = Environment
BOTH = pytest.mark.parametrize("asked", [PRODUCTION, SANDBOX])


def answer(code: object) -> dict[str, object]:
    return {"errorCode": code, "errorMessage": "in words"}


@BOTH
def test_what_was_found_comes_signed(asked: Environment) -> None:
    meaning = interpret({"signedTransactionInfo": "a.b.c"}, asked)
    assert meaning == Signed("a.b.c")
    assert "a.b.c" not in repr(meaning)


def test_what_production_does_not_know_is_looked_for_in_the_sandbox() -> None:
    """Ids do not say where they come from; where policy allows no sandbox, it was not found, and that is final."""
    meaning = interpret(answer(4040010), PRODUCTION)
    assert isinstance(meaning, WrongEnvironment)
    assert (meaning.right, meaning.otherwise.reason) == (SANDBOX, Reason.TRANSACTION_NOT_FOUND)
    assert interpret(answer(4040010), SANDBOX) == meaning.otherwise  # production was asked before, or does not count


def test_what_every_code_calls_for() -> None:
    for asked in (PRODUCTION, SANDBOX):
        for code, reason in ((4000006, Reason.NO_TRANSACTION_ID), (4040001, Reason.ACCOUNT_NOT_FOUND)):
            meaning = interpret(answer(code), asked)
            assert isinstance(meaning, Unidentified)
            assert meaning.reason is reason
        for code in (4040002, 4040004, 4290000, 5000000, 5000001):
            meaning = interpret(answer(code), asked)
            assert isinstance(meaning, TryAgain)
            assert (meaning.reason, meaning.then_unanswerable) == (Reason.GAVE_UP_FOR_NOW, False)
        for code in (UNAUTHORIZED, 4000002, 4040003):
            meaning = interpret(answer(code), asked)
            assert isinstance(meaning, Misconfigured)
            assert "check" in meaning.detail


@BOTH
@pytest.mark.parametrize(
    "code", [4000000, 4000005, 4040019, 1, 0, -1, pytest.param(10**5000, id="huge"), None, True, "4040010", 1.5]
)
def test_codes_that_nobody_documented_are_unknown(asked: Environment, code: object) -> None:
    assert_unknown(interpret(answer(code), asked))


@BOTH
@pytest.mark.parametrize("signed", [None, "", 5, ["a.b.c"], {}])
def test_an_answer_without_a_transaction_is_unknown(asked: Environment, signed: object) -> None:
    assert_unknown(interpret({"signedTransactionInfo": signed}, asked))
    assert_unknown(interpret({}, asked))


@given(st.dictionaries(st.sampled_from(["errorCode", "signedTransactionInfo"]), JSON), st.sampled_from(Environment))
def test_any_json_has_a_meaning(fields: dict[str, Any], asked: Environment) -> None:
    assert isinstance(interpret(fields, asked), Interpretation | Signed)


@pytest.mark.parametrize(
    "verified",
    [
        {**PAYLOAD, "transactionId": "2001"},
        {**PAYLOAD, "type": "Lottery"},
        SignatureRefused(Reason.JWS_FOREIGN_ROOT, "the root is not Apple's"),
    ],
)
def test_what_is_not_apples_word_about_it_is_no_refusal(verified: Any) -> None:
    assert isinstance(interpret_found("2000", PAYLOAD), Genuine)
    assert_unknown(interpret_found("2000", verified))
