"""FIFO queues: their names, and the two ids of a message, which must neither swallow an answer nor repeat one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.messages import (
    Result,
    Submission,
    Unanswerable,
    Verdict,
    dead_letter_message,
    redriven_message,
    refund_message,
    result_message,
    reversal_message,
    submission_message,
)
from receipt_actors.domain.ports import Environment, LedgerItem, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sqs_rules import (
    check_send_batch,
    dead_letter_queue_fault,
    dead_letter_queue_of,
    deduplication_id,
    in_group,
    is_fifo,
)

FIFO = "queue.fifo"
SUBMISSION = Submission("s-1", "m-1", -42, "MII", "ab" * 32, FIFO, None, None, 0.0)
OK = Result("t-1", Verdict.OK, Reason.CLAIMED)
LETTER = ReceivedMessage("m-1", "h", "body", "", {"submission_id": "s-1"}, group_id="players/42")
WHY = Unanswerable(Reason.NOT_JSON, "detail")
CLAIM = LedgerItem(
    "t-1", "s-1", "m-1", 42, "ab" * 32, None, None, Environment.PRODUCTION, "source.fifo", FIFO, 0.0, None
)
MARKED = replace(CLAIM, refunded_at_seconds=1.0)


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_ids_of_different_parts_differ(one: list[str], other: list[str]) -> None:
    """However the parts are cut: ``("a", "bc")`` is not ``("ab", "c")``. The same parts have the same id."""
    assert (deduplication_id(*one) == deduplication_id(*other)) == (one == other)
    assert re.fullmatch("[0-9a-f]{64}", deduplication_id(*one))


def test_a_lone_surrogate_has_an_id() -> None:
    assert deduplication_id("\ud800") != deduplication_id("?")


def test_an_answer_is_in_its_users_group() -> None:
    first = result_message(SUBMISSION, OK)
    again = result_message(SUBMISSION, replace(OK, reason=Reason.ALREADY_OURS), "00-trace-01")
    assert first.group_id == "-42"
    assert first.deduplication_id == again.deduplication_id
    assert check_send_batch(FIFO, [first, again]) == [None, None]


@pytest.mark.parametrize(
    ("named", "of_claim"), [(FIFO, "standard"), ("standard", FIFO), (FIFO, "another.fifo"), ("standard", "another")]
)
def test_an_answer_is_made_for_the_queue_that_it_goes_to(named: str, of_claim: str) -> None:
    """That of the claim, whichever the message names: a FIFO queue refuses what has no group, a standard queue one."""
    elsewhere = replace(OK, reason=Reason.ALREADY_OURS, post_queue=of_claim)
    message = result_message(replace(SUBMISSION, post_queue=named), elsewhere)
    assert check_send_batch(of_claim, [message]) == [None]


@pytest.mark.parametrize(
    ("submission", "result"),
    [
        (replace(SUBMISSION, submission_id="s-2"), OK),
        (replace(SUBMISSION, user_id=43), OK),
        (replace(SUBMISSION, receipt_sha256="0" * 64), OK),
        (SUBMISSION, replace(OK, transaction_id="t-2")),
        (SUBMISSION, replace(OK, verdict=Verdict.INVALID)),
    ],
)
def test_another_answer_is_not_swallowed(submission: Submission, result: Result) -> None:
    ids = {result_message(SUBMISSION, OK).deduplication_id, result_message(submission, result).deduplication_id}
    assert len(ids) == 2


def test_each_refund_is_told() -> None:
    copies = {refund_message(MARKED, "notification-1").deduplication_id for _ in range(2)}
    other = refund_message(MARKED, "notification-2")
    reversal = reversal_message(CLAIM, "notification-3", 2.0)
    assert len(copies | {other.deduplication_id, reversal.deduplication_id}) == 3
    assert {other.group_id, reversal.group_id} == {"42"}


def test_a_dead_letter_keeps_its_group() -> None:
    moved = dead_letter_message(LETTER, WHY, FIFO)
    assert moved.group_id == "players/42"
    assert dead_letter_message(LETTER, WHY, FIFO).deduplication_id == moved.deduplication_id
    others = [
        dead_letter_message(LETTER, replace(WHY, reason=Reason.TOO_DEEP), FIFO),
        # The same submission, redriven and moved once more within 5 minutes: a letter of its own.
        dead_letter_message(replace(LETTER, message_id="m-2"), WHY, FIFO),
    ]
    assert moved.deduplication_id not in {each.deduplication_id for each in others}


def test_a_letter_without_a_group_is_a_group_of_its_own() -> None:
    assert dead_letter_message(replace(LETTER, group_id=None), WHY, FIFO).group_id == "m-1"


def test_a_redriven_letter_is_never_swallowed() -> None:
    redriven = redriven_message(LETTER, FIFO)
    again = redriven_message(LETTER, FIFO)
    later = redriven_message(replace(LETTER, message_id="m-2"), FIFO)
    assert redriven is not None and again is not None and later is not None
    assert redriven.group_id == "players/42"
    assert redriven.deduplication_id == again.deduplication_id
    first = submission_message("body", "s-1", 42, FIFO)
    assert len({redriven.deduplication_id, later.deduplication_id, first.deduplication_id}) == 3


def test_a_submission_is_in_its_users_group() -> None:
    first = submission_message('{"receipt": "MII"}', "s-1", 42, FIFO)
    assert (first.group_id, first.attributes) == ("42", {"submission_id": "s-1"})
    assert submission_message('{"receipt": "MII"}', "s-1", 42, FIFO) == first
    assert submission_message('{"receipt": "MIJ"}', "s-1", 42, FIFO).deduplication_id != first.deduplication_id


@pytest.mark.parametrize(
    "make",
    [
        lambda queue: result_message(replace(SUBMISSION, post_queue=queue), OK),
        lambda queue: refund_message(replace(MARKED, post_queue=queue), "n"),
        lambda queue: dead_letter_message(LETTER, WHY, queue),
        lambda queue: redriven_message(LETTER, queue),
        lambda queue: submission_message("body", "s-1", 42, queue),
        lambda queue: in_group(OutgoingMessage("body"), queue, "g", "p"),
    ],
)
def test_a_standard_queues_messages_have_neither(make: Callable[[str], OutgoingMessage]) -> None:
    """SQS would refuse them; and what is sent is the same but for the ids."""
    plain, ordered = make("queue"), make(FIFO)
    assert (plain.group_id, plain.deduplication_id) == (None, None)
    assert replace(ordered, group_id=None, deduplication_id=None) == plain
    assert check_send_batch("queue", [plain]) == check_send_batch(FIFO, [ordered]) == [None]


@pytest.mark.parametrize(
    ("group_id", "deduplication_id"),
    [(None, "d"), ("g", None), ("", "d"), ("g" * 129, "d"), ("g g", "d"), ("g", "ü"), ("g", "d" * 129)],
)
def test_ids_that_sqs_refuses_fail_alone(group_id: str | None, deduplication_id: str | None) -> None:
    """Missing, too long, or with characters that SQS does not take: nobody else's entry fails with it."""
    bad, good = check_send_batch(
        FIFO, [OutgoingMessage("x", {}, group_id, deduplication_id), OutgoingMessage("x", {}, "g", "d")]
    )
    assert bad is not None and bad.sender_fault
    assert good is None


def test_a_name_tells() -> None:
    assert is_fifo("a.fifo")
    assert not is_fifo("a.FIFO") and not is_fifo("afifo")


def test_a_dead_letter_queue_is_of_its_source_queues_kind() -> None:
    for source_queue, expected in (("Mine", "MineDLQ"), ("Mine.fifo", "MineDLQ.fifo")):
        assert dead_letter_queue_of(source_queue) == expected
        assert dead_letter_queue_fault(source_queue, expected) is None
    assert "expected a FIFO queue" in (dead_letter_queue_fault("Mine.fifo", "MineDLQ") or "")
    assert "expected a standard queue" in (dead_letter_queue_fault("Mine", "MineDLQ.fifo") or "")
