"""The wire format: what is read from a message, why a message is refused, and what is sent."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import string
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receipt_actors.domain.messages import (
    Result,
    Submission,
    TraceContext,
    Unanswerable,
    Verdict,
    around_receipt,
    dead_letter_message,
    first_sent_at_seconds,
    is_intact,
    parse_aws_trace_header,
    parse_submission,
    parse_traceparent,
    redriven_message,
    refund_message,
    result_message,
    submission_id_of,
    trace_context_of,
)
from receipt_actors.domain.ports import MAX_BATCH_BYTES, Environment, LedgerItem, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason

# A busy machine may be slow to make examples; that says nothing about the code.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SOURCE_QUEUE = "receipts"
DEAD = "dead"
POST_QUEUES = {"answers", "answers.fifo", SOURCE_QUEUE}
GOOD: dict[str, Any] = {"receipt": "cmVjZWlwdA==", "user_id": 42, "post_queue": "answers"}
SENT_AT_MS = 1_700_000_000_123
SIGNED = "eyJhbGciOiJFUzI1NiJ9.eyJ0IjoxfQ.c2ln-_"
SQS_TEXT = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")


def received(body: str, **attributes: str) -> ReceivedMessage:
    md5 = hashlib.md5(body.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    return ReceivedMessage("m-1", "handle", body, md5, attributes, sent_at_seconds=7.5)


def sent(body: str, sent_at_ms: int, **attributes: str) -> ReceivedMessage:
    return replace(received(body, **attributes), sent_at_seconds=sent_at_ms / 1000)


def parse(body: str, **attributes: str) -> Submission | Unanswerable:
    return parse_submission(received(body, **attributes), POST_QUEUES, SOURCE_QUEUE)


def parse_with(**fields: object) -> Submission | Unanswerable:
    return parse(json.dumps(GOOD | fields))


def refusal(outcome: Submission | Unanswerable) -> Reason:
    assert isinstance(outcome, Unanswerable), outcome
    return outcome.reason


def accepted(outcome: Submission | Unanswerable) -> Submission:
    assert isinstance(outcome, Submission), outcome
    return outcome


def assert_sendable(message: OutgoingMessage) -> None:
    assert message.size_bytes <= MAX_BATCH_BYTES
    assert len(message.attributes) <= 10
    for text in (message.body, *message.attributes.values()):
        assert SQS_TEXT.fullmatch(text)
        assert text


class TestReading:
    def test_the_three_fields_of_the_contract_make_a_submission(self) -> None:
        assert parse_with(colour="red", nested={"a": [1, 2.5, None]}) == Submission(
            submission_id="m-1",
            message_id="m-1",
            user_id=42,
            receipt_data="cmVjZWlwdA==",
            receipt_sha256=hashlib.sha256(b"cmVjZWlwdA==").hexdigest(),
            post_queue="answers",
            transaction_id=None,
            product_id=None,
            sent_at_seconds=7.5,
        )

    def test_a_message_may_name_a_transaction_and_a_product(self) -> None:
        named = accepted(parse_with(transaction_id="1000", product_id="münzen.100"))
        assert (named.transaction_id, named.product_id) == ("1000", "münzen.100")
        unnamed = accepted(parse_with(transaction_id=None, product_id=None))
        assert (unnamed.transaction_id, unnamed.product_id) == (None, None)

    def test_the_submission_id_comes_from_the_attribute_where_present(self) -> None:
        submission = accepted(parse(json.dumps(GOOD), submission_id="s-9"))
        assert (submission.submission_id, submission.message_id) == ("s-9", "m-1")

    @pytest.mark.parametrize(
        ("written", "user_id"),
        [
            ("0", 0),
            ("-0", 0),
            ("9223372036854775807", 2**63 - 1),
            ("-9223372036854775808", -(2**63)),
            ("42.0", 42),
            ("1.2345678E7", 12345678),
            ("9007199254740991.0", 2**53 - 1),
        ],
    )
    def test_a_user_id_is_any_64_bit_integer(self, written: str, user_id: int) -> None:
        outcome = accepted(parse(json.dumps(GOOD).replace("42", written)))
        assert outcome.user_id == user_id
        assert type(outcome.user_id) is int

    @patient
    @given(st.binary(min_size=1))
    def test_any_base64_is_a_receipt(self, data: bytes) -> None:
        in_lines = base64.encodebytes(data).decode()
        for encoded in (base64.b64encode(data).decode(), in_lines, in_lines.replace("\n", "\r\n")):
            submission = accepted(parse_with(receipt=encoded))
            assert submission.receipt_data == encoded

    @pytest.mark.parametrize("depth", [1, 31])
    def test_nesting_up_to_32_is_fine(self, depth: int) -> None:
        body = json.dumps(GOOD)[:-1] + ', "brackets": "' + '[{\\"' * 50 + '", "x": ' + "[" * depth + "]" * depth + "}"
        accepted(parse(body))

    def test_many_shallow_arrays_are_not_deep(self) -> None:
        accepted(parse_with(x=[[] for _ in range(1000)]))


class TestRefusing:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("", Reason.NOT_JSON),
            ("hello", Reason.NOT_JSON),
            ("\ufeff{}", Reason.NOT_JSON),
            ("{'user_id': 1}", Reason.NOT_JSON),
            ('{"user_id": NaN}', Reason.NOT_JSON),
            ('{"x": [Infinity]}', Reason.NOT_JSON),
            ('{"x": -Infinity}', Reason.NOT_JSON),
            ('{"user_id": 01}', Reason.NOT_JSON),
            ('{"x": "\x00"}', Reason.NOT_JSON),
            ('{"x": "' + "\\", Reason.NOT_JSON),
            (json.dumps(GOOD) + "x", Reason.NOT_JSON),
            (json.dumps(GOOD)[:-1], Reason.NOT_JSON),
            ("null", Reason.NOT_AN_OBJECT),
            ("42", Reason.NOT_AN_OBJECT),
            ('"receipt"', Reason.NOT_AN_OBJECT),
            ("[" + json.dumps(GOOD) + "]", Reason.NOT_AN_OBJECT),
            (json.dumps(GOOD)[:-1] + ', "user_id": 43}', Reason.DUPLICATE_KEY),
            (json.dumps(GOOD)[:-1] + ', "user\\u005fid": 43}', Reason.DUPLICATE_KEY),
            (json.dumps(GOOD)[:-1] + ', "x": [{"y": 1, "y": 1}]}', Reason.DUPLICATE_KEY),
            ("[" * 100_000, Reason.TOO_DEEP),
            ('{"x":' * 100_000, Reason.TOO_DEEP),
            ("[" * 33 + "]" * 33, Reason.TOO_DEEP),
            (json.dumps(GOOD)[:-1] + ', "x": ' + "[" * 32 + "]" * 32 + "}", Reason.TOO_DEEP),
            (json.dumps(GOOD) + " " * MAX_BATCH_BYTES, Reason.TOO_LARGE),
            ('{"x": "' + "é" * (MAX_BATCH_BYTES // 2) + '"}', Reason.TOO_LARGE),
            ("[" * (2 * MAX_BATCH_BYTES), Reason.TOO_LARGE),
            ('{"user_id": ' + "9" * 500_000 + "}", Reason.BAD_RECEIPT),
            ("{}", Reason.BAD_RECEIPT),
        ],
        ids=lambda value: value if isinstance(value, Reason) else repr(value[:24]),
    )
    def test_hostile_bodies(self, body: str, reason: Reason) -> None:
        assert refusal(parse(body)) is reason

    @pytest.mark.parametrize(
        "receipt",
        [
            *(None, 42, True, [], {}, "", " ", "\n", "\r\n", "AB CD+==", "ABCD\t"),
            *("ABC\u00e9", "ABCD\x00", "\ud800AAA", "AAA\udfff", "ＡＢＣＤ"),
        ],
        ids=repr,
    )
    def test_a_receipt_has_only_characters_that_an_encoding_uses(self, receipt: object) -> None:
        """Nothing else is sent to Apple: no blanks, no control characters, nothing beyond ASCII."""
        assert refusal(parse_with(receipt=receipt)) is Reason.BAD_RECEIPT

    @pytest.mark.parametrize("receipt", ["A", "ABC=", "ab-_", "a.b", "receipt-17", SIGNED])
    def test_what_an_encoding_means_is_left_to_apple(self, receipt: str) -> None:
        assert accepted(parse_with(receipt=receipt)).receipt_data == receipt

    @pytest.mark.parametrize(
        "written",
        [
            *("null", "true", "false", '"42"', '""', "[42]", "{}", "42.5", "1e400", "-1e400", "1e19"),
            *("9223372036854775808", "-9223372036854775809", "9" * 30, "9" * 5000, "-" + "9" * 5000),
            *("9007199254740992.0", "9007199254740993.0", "1e18"),
        ],
        ids=lambda written: str(written)[:24],
    )
    def test_a_user_id_is_nothing_but_a_64_bit_integer(self, written: str) -> None:
        assert refusal(parse(json.dumps(GOOD).replace("42", written))) is Reason.BAD_USER_ID

    @pytest.mark.parametrize("key", GOOD)
    def test_a_missing_field_is_refused(self, key: str) -> None:
        fields = {name: value for name, value in GOOD.items() if name != key}
        assert refusal(parse(json.dumps(fields))) is Reason(f"bad_{key}")

    @pytest.mark.parametrize(
        "post_queue",
        [
            *(None, 1, [], "", "a b", "a/b", "answers\n", "../x", "ä", "a" * 81),
            *("a" * 76 + ".fifo", ".fifo", "a.fifo.fifo"),
            "https://sqs.eu-west-1.amazonaws.com/123456789012/answers",
            "arn:aws:sqs:eu-west-1:123456789012:answers",
        ],
        ids=repr,
    )
    def test_a_post_queue_is_a_name(self, post_queue: object) -> None:
        message = received(json.dumps(GOOD | {"post_queue": post_queue}))
        allowed = {*POST_QUEUES, str(post_queue)}
        assert refusal(parse_submission(message, allowed, SOURCE_QUEUE)) is Reason.BAD_POST_QUEUE

    @pytest.mark.parametrize("post_queue", ["answer", "ANSWERS", SOURCE_QUEUE, "a" * 80])
    def test_a_post_queue_is_on_the_allow_list_and_not_the_source(self, post_queue: str) -> None:
        """Who can write to the source queue can't make us write elsewhere, nor into the source queue itself."""
        assert refusal(parse_with(post_queue=post_queue)) is Reason.POST_QUEUE_NOT_ALLOWED

    def test_a_fifo_post_queue_is_a_queue_like_any_other(self) -> None:
        assert accepted(parse_with(post_queue="answers.fifo")).post_queue == "answers.fifo"

    @pytest.mark.parametrize(
        "name", [1, True, [], {}, "", "a" * 257, "a\x00", "a\nb", "\x7f", "\ud800", "\uffff", "\x85"]
    )
    def test_a_named_transaction_or_product_is_a_short_printable_string(self, name: object) -> None:
        assert refusal(parse_with(transaction_id=name)) is Reason.BAD_TRANSACTION_ID
        assert refusal(parse_with(product_id=name)) is Reason.BAD_PRODUCT_ID

    @pytest.mark.parametrize("submission_id", ["", "a" * 257, "a\tb"])
    def test_an_unusable_submission_id_is_refused(self, submission_id: str) -> None:
        """The producer meant to name the submission: to fall back to the MessageId silently could pay twice."""
        assert refusal(parse(json.dumps(GOOD), submission_id=submission_id)) is Reason.BAD_SUBMISSION_ID
        assert submission_id_of(received("", submission_id=submission_id)) == "m-1"

    def test_a_detail_never_repeats_the_message(self) -> None:
        canary = "c4nary!" * 30
        for key in (*GOOD, "transaction_id", "product_id"):
            for value in (canary + "\t", [canary], {canary: canary}):
                outcome = parse_with(**{key: value})
                assert isinstance(outcome, Unanswerable)
                assert "c4nary" not in outcome.detail
                assert 0 < len(outcome.detail) < 200
        outcome = parse(canary)
        assert isinstance(outcome, Unanswerable)
        assert "c4nary" not in outcome.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates and control characters as well


class TestTotality:
    @patient
    @given(ANY_TEXT | st.text('{}[]":,\\ 0129eE.-+tru\ud800', max_size=60))
    def test_any_text_is_a_submission_or_unanswerable(self, body: str) -> None:
        assert isinstance(parse(body), Submission | Unanswerable)

    @patient
    @given(st.sampled_from([*GOOD, "transaction_id", "product_id"]), JSON)
    def test_any_json_in_any_field_is_a_submission_or_unanswerable(self, key: str, value: object) -> None:
        outcome = parse_with(**{key: value})
        if isinstance(outcome, Submission):
            assert -(2**63) <= outcome.user_id < 2**63
            assert outcome.post_queue in POST_QUEUES - {SOURCE_QUEUE}
            assert_sendable(result_message(outcome, Result("1", Verdict.OK, Reason.CLAIMED)))
        else:
            assert_sendable(dead_letter_message(received("x"), outcome, DEAD))


class TestIntegrity:
    def test_a_body_that_is_not_what_was_hashed_is_not_intact(self) -> None:
        message = received('{"a": "ü"}')
        assert is_intact(message)
        assert is_intact(ReceivedMessage("m", "h", message.body, message.body_md5.upper()))
        assert not is_intact(ReceivedMessage("m", "h", message.body + " ", message.body_md5))
        assert not is_intact(ReceivedMessage("m", "h", message.body, ""))

    @patient
    @given(ANY_TEXT, ANY_TEXT)
    def test_any_text_can_be_checked(self, body: str, body_md5: str) -> None:
        assert is_intact(received(body))
        assert not is_intact(ReceivedMessage("m", "h", body, body_md5))


class TestResultMessage:
    def test_the_body_has_exactly_the_three_fields(self) -> None:
        submission = accepted(parse(json.dumps(GOOD), submission_id="s-9"))
        result = Result("1000", Verdict.OK, Reason.CLAIMED, "coins", Environment.SANDBOX, quantity=3)
        message = result_message(submission, result)
        assert json.loads(message.body) == {"user_id": 42, "transaction_id": "1000", "status": "OK"}
        assert message.attributes == {
            "reason": "claimed",
            "submission_id": "s-9",
            "source_message_id": "m-1",
            "product_id": "coins",
            "environment": "Sandbox",
            "quantity": "3",
        }

    def test_an_answer_has_no_more_attributes_than_sqs_takes(self) -> None:
        part = {"quantity": 3, "revocation_type": "REFUND_PRORATED"}
        known = ("coins", Environment.SANDBOX)
        result = Result("1", Verdict.INVALID, Reason.REFUNDED, *known, **part, revocation_percentage=0)
        answer = result_message(accepted(parse(json.dumps(GOOD))), result, "00-trace-01")
        claim = LedgerItem("1", "s", "m", 42, "ab" * 32, "coins", None, Environment.SANDBOX, "in", "out", 1.0, 2.0)
        refund = refund_message(replace(claim, **part, revocation_percentage=33333), "uuid")
        assert (len(answer.attributes), len(refund.attributes)) == (9, 10)
        assert answer.attributes["revocation_percentage"] == "0"
        assert {name: refund.attributes[name] for name in ("quantity", "revocation_type", "revocation_percentage")} == {
            "quantity": "3",
            "revocation_type": "REFUND_PRORATED",
            "revocation_percentage": "33333",
        }
        assert "quantity" not in refund_message(claim, "uuid").attributes  # as in the OK of that claim

    def test_unknown_things_are_left_out(self) -> None:
        result = Result("", Verdict.INVALID, Reason.NOT_AUTHENTIC)
        message = result_message(accepted(parse(json.dumps(GOOD))), result)
        assert json.loads(message.body) == {"user_id": 42, "transaction_id": "", "status": "INVALID"}
        assert set(message.attributes) == {"reason", "submission_id", "source_message_id"}

    @patient
    @given(ANY_TEXT, ANY_TEXT)
    def test_whatever_apple_says_can_be_sent(self, transaction_id: str, product_id: str) -> None:
        result = Result(transaction_id, Verdict.INVALID, Reason.EXPIRED, product_id, Environment.PRODUCTION)
        message = result_message(accepted(parse(json.dumps(GOOD))), result)
        assert_sendable(message)
        assert json.loads(message.body)["transaction_id"] == transaction_id


class TestDeadLetterMessage:
    def test_it_carries_the_body_the_attributes_and_why(self) -> None:
        message = received("not json", submission_id="s-9", trace="t", reason="forged", detail="forged")
        moved = dead_letter_message(
            message, Unanswerable(Reason.NOT_JSON, "body: Expecting value at character 0"), DEAD
        )
        assert moved.body == "not json"
        assert moved.attributes == {
            "submission_id": "s-9",
            "trace": "t",
            "reason": "not_json",
            "detail": "body: Expecting value at character 0",
            "source_message_id": "m-1",
        }

    @pytest.mark.parametrize("name", ["AWS.trace", "amazon.trace", ".trace", "trace.", "tr..ace", "tr ace", "t" * 257])
    def test_an_attribute_whose_name_sqs_refuses_is_left_behind(self, name: str) -> None:
        moved = dead_letter_message(
            received("x", **{name: "1", "AWStrace": "2"}), Unanswerable(Reason.NOT_JSON, "d"), DEAD
        )
        assert name not in moved.attributes
        assert moved.attributes["AWStrace"] == "2"

    def test_ten_foreign_attributes_make_room_for_ours(self) -> None:
        message = received("x", **dict.fromkeys(string.ascii_lowercase[:10], "value"))
        moved = dead_letter_message(message, Unanswerable(Reason.NOT_JSON, "detail"), DEAD)
        assert len(moved.attributes) == 10
        assert {"submission_id", "reason", "source_message_id", "detail"} < set(moved.attributes)

    @pytest.mark.parametrize(
        ("room_bytes", "kept"),
        [
            (2000, {"submission_id", "reason", "source_message_id", "detail", "foreign"}),
            (1000, {"submission_id", "reason", "source_message_id", "detail"}),
            (100, {"submission_id", "reason", "source_message_id"}),
            (50, {"submission_id", "reason"}),
            (25, {"submission_id"}),
            (0, set()),
        ],
    )
    def test_a_large_body_is_never_altered(self, room_bytes: int, kept: set[str]) -> None:
        body = "x" * (MAX_BATCH_BYTES - room_bytes)
        moved = dead_letter_message(received(body, foreign="f" * 900), Unanswerable(Reason.NOT_JSON, "d" * 500), DEAD)
        assert moved.body == body
        assert set(moved.attributes) == kept
        assert moved.size_bytes <= MAX_BATCH_BYTES

    @patient
    @given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=15), ANY_TEXT)
    def test_it_can_be_sent_whatever_its_attributes_are(self, attributes: dict[str, str], detail: str) -> None:
        message = ReceivedMessage("m-1", "h", "body", "", attributes)
        moved = dead_letter_message(message, Unanswerable(Reason.UNKNOWN_STATUS, detail), DEAD)
        assert_sendable(moved)
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,256}", name) for name in moved.attributes)
        assert moved.attributes["reason"] == "unknown_status"

    def test_it_tells_when_the_message_was_first_sent(self) -> None:
        moved = dead_letter_message(sent("x", SENT_AT_MS), Unanswerable(Reason.NOT_JSON, "d"), DEAD)
        assert moved.attributes["submitted_at"] == str(SENT_AT_MS)
        copy = sent("x", SENT_AT_MS + 5000, **moved.attributes)
        moved_again = dead_letter_message(copy, Unanswerable(Reason.NOT_JSON, "d"), DEAD)
        assert moved_again.attributes["submitted_at"] == str(SENT_AT_MS)

    def test_next_to_the_submission_id_that_time_goes_last(self) -> None:
        body = "x" * (MAX_BATCH_BYTES - 60)
        moved = dead_letter_message(sent(body, SENT_AT_MS, foreign="f"), Unanswerable(Reason.NOT_JSON, "d"), DEAD)
        assert set(moved.attributes) == {"submission_id", "submitted_at"}


class TestFirstSending:
    def test_a_copy_is_judged_by_the_time_of_the_original(self) -> None:
        """An outage of ours, and the redrive after it, must not turn a living subscription into an expired one."""
        message = sent(json.dumps(GOOD), SENT_AT_MS + 10_000, submitted_at=str(SENT_AT_MS))
        assert first_sent_at_seconds(message) == SENT_AT_MS / 1000
        submission = accepted(parse_submission(message, POST_QUEUES, SOURCE_QUEUE))
        assert submission.sent_at_seconds == SENT_AT_MS / 1000

    @pytest.mark.parametrize(
        "submitted_at",
        [
            str(SENT_AT_MS + 1),  # in the future of the message itself
            str(SENT_AT_MS // 1000),  # seconds
            str(SENT_AT_MS * 1000),  # microseconds
            "1245196799999",  # before there were in-app purchases
            "0",
            "",
            "-1600000000000",
            "1600000000000.5",
            "1_600_000_000_000",
            " 1600000000000",
            "1600000000000\n",
            "2020-09-13T12:26:40Z",
            "\u0661\u0666\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660",
            "NaN",
        ],
    )
    def test_a_time_that_cannot_be_is_ignored(self, submitted_at: str) -> None:
        message = sent(json.dumps(GOOD), SENT_AT_MS, submitted_at=submitted_at)
        assert accepted(parse_submission(message, POST_QUEUES, SOURCE_QUEUE)).sent_at_seconds == SENT_AT_MS / 1000

    @pytest.mark.parametrize("submitted_at_ms", [SENT_AT_MS, 1_245_196_800_000])
    def test_the_limits_themselves_count(self, submitted_at_ms: int) -> None:
        message = sent("x", SENT_AT_MS, submitted_at=str(submitted_at_ms))
        assert first_sent_at_seconds(message) == submitted_at_ms / 1000

    @patient
    @given(st.integers(1_300_000_000_000, 4_000_000_000_000), st.integers(0, 10**9), st.text(max_size=20))
    def test_it_is_never_later_than_the_message_and_copies_keep_it(
        self, sent_at_ms: int, later_ms: int, submitted_at: str
    ) -> None:
        message = sent("x", sent_at_ms, submitted_at=submitted_at)
        first = first_sent_at_seconds(message)
        assert first <= message.sent_at_seconds
        moved = dead_letter_message(message, Unanswerable(Reason.NOT_JSON, "d"), DEAD)
        redriven = redriven_message(sent("x", sent_at_ms + later_ms, **moved.attributes), SOURCE_QUEUE)
        assert redriven is not None
        assert first_sent_at_seconds(sent("x", sent_at_ms + 2 * later_ms, **redriven.attributes)) == first


class TestRedrivenMessage:
    def test_it_is_what_came_with_its_identity(self) -> None:
        original = sent("body", SENT_AT_MS, submission_id="s-1", trace="t")
        moved = dead_letter_message(original, Unanswerable(Reason.UNKNOWN_STATUS, "detail"), DEAD)
        redriven = redriven_message(sent("body", SENT_AT_MS + 60_000, **moved.attributes), SOURCE_QUEUE)
        assert redriven == OutgoingMessage(
            "body", {"submission_id": "s-1", "submitted_at": str(SENT_AT_MS), "trace": "t"}
        )

    def test_the_message_id_becomes_the_submission_id_where_there_is_none(self) -> None:
        redriven = redriven_message(sent("body", SENT_AT_MS), SOURCE_QUEUE)
        assert redriven is not None
        assert redriven.attributes == {"submission_id": "m-1", "submitted_at": str(SENT_AT_MS)}

    def test_ten_foreign_attributes_make_room_for_its_identity(self) -> None:
        redriven = redriven_message(
            sent("x", SENT_AT_MS, **dict.fromkeys(string.ascii_lowercase[:10], "value")), SOURCE_QUEUE
        )
        assert redriven is not None
        assert len(redriven.attributes) == 10
        assert {"submission_id", "submitted_at"} < set(redriven.attributes)

    def test_a_message_without_room_for_the_submission_id_is_not_redriven(self) -> None:
        assert redriven_message(sent("x" * (MAX_BATCH_BYTES - 10), SENT_AT_MS), SOURCE_QUEUE) is None
        assert redriven_message(sent("x" * (MAX_BATCH_BYTES - 22), SENT_AT_MS), SOURCE_QUEUE) is not None

    @patient
    @given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=15))
    def test_it_can_be_sent_whatever_its_attributes_are(self, attributes: dict[str, str]) -> None:
        message = ReceivedMessage("m-1", "h", "body", "", attributes, sent_at_seconds=SENT_AT_MS / 1000)
        redriven = redriven_message(message, SOURCE_QUEUE)
        assert redriven is not None
        assert_sendable(redriven)
        copy = ReceivedMessage("m-2", "h", "body", "", redriven.attributes, sent_at_seconds=SENT_AT_MS / 1000)
        assert submission_id_of(copy) == submission_id_of(message)


@given(st.text("ab\\u{}", max_size=30), st.text("ab", min_size=1, max_size=5))
def test_a_body_is_whole_again_with_its_receipt(body: str, receipt_data: str) -> None:
    around = around_receipt(body, receipt_data)
    assert around is not None or receipt_data not in body
    assert around is None or receipt_data.join(around) == body


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = TraceContext(int(TRACE, 16), int(SPAN, 16), is_sampled=True)
AWS_HEADER = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN};Sampled=1"


def message(traceparent: str | None = None, header: str | None = None) -> ReceivedMessage:
    attributes = {} if traceparent is None else {"traceparent": traceparent}
    return ReceivedMessage("m", "h", "{}", "", attributes, aws_trace_header=header)


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what.comes", True),
    ],
)
def test_traceparent_is_read(text: str, is_sampled: bool) -> None:
    assert parse_traceparent(text) == TraceContext(CONTEXT.trace_id, CONTEXT.span_id, is_sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 1000,
    ],
)
def test_what_is_no_traceparent_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AWS_HEADER, CONTEXT),
        (AWS_HEADER.replace("Sampled=1", "Sampled=0"), TraceContext(CONTEXT.trace_id, CONTEXT.span_id, False)),
        (f"Self=1-0-0; Parent={SPAN}; Root=1-{TRACE[:8]}-{TRACE[8:]}; Sampled=1; Lineage=x:0", CONTEXT),
        (f"Root=1-{TRACE[:8]}-{TRACE[8:]}", None),
        (f"Root={TRACE};Parent={SPAN}", None),
        ("", None),
    ],
)
def test_the_header_of_x_ray_is_read(text: str, expected: TraceContext | None) -> None:
    assert parse_aws_trace_header(text) == expected


def test_traceparent_goes_before_the_header_of_x_ray() -> None:
    assert trace_context_of(message()) is None
    assert trace_context_of(message(header=AWS_HEADER)) == CONTEXT
    assert trace_context_of(message("nonsense", AWS_HEADER)) == CONTEXT
    other = f"00-{TRACE}-{SPAN}-00"
    assert trace_context_of(message(other, AWS_HEADER)) == TraceContext(CONTEXT.trace_id, CONTEXT.span_id, False)


@given(st.text() | st.text("0123456789abcdef-=;Root1Parent "))
def test_any_text_is_read_or_is_none(text: str) -> None:
    for parse in (parse_traceparent, parse_aws_trace_header):
        context = parse(text)
        assert context is None or parse_traceparent(context.traceparent) == context
