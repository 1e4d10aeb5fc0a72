"""The audit finds each broken promise, and finds none where all were kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from receipt_actors.domain.messages import PostedResult, Verdict
from receipt_actors.domain.ports import Environment, LedgerItem
from receipt_actors.testing import SentSubmission, audit

ANNA = SentSubmission("anna", 1, frozenset({"t-1"}))
BERT = SentSubmission("bert", 2, frozenset({"t-1"}))  # the same receipt, sent by another user
FORGER = SentSubmission("forger", 3)


def answer(submission: SentSubmission, transaction_id: str, status: str) -> PostedResult:
    user_id = submission.user_id
    return PostedResult(user_id, transaction_id, Verdict(status), submission.submission_id, None, None, None, None)


def claim(transaction_id: str, submission: SentSubmission) -> LedgerItem:
    return LedgerItem(
        transaction_id=transaction_id,
        submission_id=submission.submission_id,
        message_id="m",
        user_id=submission.user_id,
        receipt_sha256="",
        product_id=None,
        original_transaction_id=None,
        environment=Environment.PRODUCTION,
        source_queue="q",
        post_queue="p",
        claimed_at_seconds=0.0,
    )


INVALID_ANNA = answer(ANNA, "t-1", "INVALID")
OK_ANNA = answer(ANNA, "t-1", "OK")
INVALID_BERT = answer(BERT, "t-1", "INVALID")
CLAIM_ANNA = claim("t-1", ANNA)


def test_a_run_that_kept_every_promise_has_no_faults() -> None:
    report = audit([ANNA, BERT, FORGER], [OK_ANNA, OK_ANNA, INVALID_BERT], ["forger"], [CLAIM_ANNA])
    assert report.faults == ()
    assert (report.submissions, report.answered, report.dead_lettered, report.transactions_ok) == (3, 2, 1, 1)
    assert (report.answers, report.repeated_answers) == (3, 1)
    assert str(report).endswith("every promise kept")


REFUNDED = replace(INVALID_ANNA, reason="refunded")
MARKED = replace(CLAIM_ANNA, refunded_at_seconds=1.0)


@pytest.mark.parametrize("answers", [[OK_ANNA, REFUNDED], [REFUNDED, OK_ANNA], [OK_ANNA, REFUNDED, REFUNDED, OK_ANNA]])
def test_a_refund_takes_an_ok_back(answers: list[PostedResult]) -> None:
    assert audit([ANNA], answers, [], [MARKED]).faults == ()


REVERSED = replace(OK_ANNA, reason="refund_reversed")


@pytest.mark.parametrize("answers", [[OK_ANNA, REFUNDED, REVERSED], [REVERSED, REFUNDED, OK_ANNA, REVERSED]])
def test_a_reversal_gives_it_again(answers: list[PostedResult]) -> None:
    assert audit([ANNA], answers, [], [CLAIM_ANNA]).faults == ()
    without_ok = [answer for answer in answers if answer != OK_ANNA]
    assert audit([ANNA], without_ok, [], [CLAIM_ANNA]).faults != ()


@pytest.mark.parametrize(
    ("invalid", "ledger"),
    [
        (REFUNDED, CLAIM_ANNA),
        (replace(REFUNDED, reason=None), MARKED),
        (replace(REFUNDED, reason="expired"), MARKED),
        (replace(REFUNDED, user_id=2), MARKED),
    ],
    ids=["not marked", "no reason", "another reason", "another user"],
)
def test_nothing_else_takes_an_ok_back(invalid: PostedResult, ledger: LedgerItem) -> None:
    assert audit([ANNA], [OK_ANNA, invalid], [], [ledger]).faults != ()


def test_an_ok_that_was_lost_is_not_made_up_for_by_its_refund() -> None:
    assert audit([ANNA], [REFUNDED], [], [MARKED]).faults != ()


def test_what_is_still_to_come_is_not_lost() -> None:
    assert audit([ANNA], [], [], [CLAIM_ANNA], still_to_come={"anna"}).faults == ()


@pytest.mark.parametrize(
    ("answers", "dead_letters", "ledger", "fault"),
    [
        ([INVALID_BERT], ["anna"], [], None),  # moved after too many deliveries: it can be redriven
        ([INVALID_BERT], [], [], "submission anna: neither answered nor dead-lettered"),
        ([INVALID_ANNA, INVALID_BERT], [], [], "transaction t-1: genuine, and nobody of anna, bert"),
        ([OK_ANNA, INVALID_ANNA, INVALID_BERT], [], [CLAIM_ANNA], "was answered INVALID for user 1 and"),
        ([OK_ANNA, answer(BERT, "t-1", "OK")], [], [CLAIM_ANNA], "transaction t-1: OK for 2 submissions"),
        ([OK_ANNA, INVALID_BERT], [], [], "the ledger's owner is None"),
        ([OK_ANNA, INVALID_BERT], [], [claim("t-1", BERT)], "the ledger's owner is bert"),
        ([OK_ANNA, INVALID_BERT], [], [CLAIM_ANNA, claim("t-2", BERT)], "t-2: claimed by bert, which never"),
        ([OK_ANNA, answer(BERT, "t-9", "OK")], [], [CLAIM_ANNA, claim("t-9", BERT)], "OK for transaction t-9, which"),
        ([OK_ANNA, replace(INVALID_BERT, user_id=7)], [], [CLAIM_ANNA], "bert of user 2: answered for user 7"),
        ([OK_ANNA, replace(INVALID_BERT, submission_id=None)], ["bert"], [CLAIM_ANNA], "carry no submission id"),
        ([OK_ANNA, INVALID_BERT, replace(OK_ANNA, submission_id="x")], [], [CLAIM_ANNA], "submission x, which nobody"),
        ([OK_ANNA, INVALID_BERT], ["stranger"], [CLAIM_ANNA], "dead letter of submission stranger, which nobody sent"),
    ],
)
def test_each_broken_promise_is_found(
    answers: list[PostedResult], dead_letters: list[str], ledger: list[LedgerItem], fault: str | None
) -> None:
    faults = audit([ANNA, BERT], answers, dead_letters, ledger).faults
    assert any(fault in each for each in faults) if fault else faults == ()
