"""One POST of Apple's, from its bytes to the status: what it changes, and that a failure anywhere loses nothing."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from receipt_actors.domain.ports import EntryFailure, Environment, Tombstone
from receipt_actors.errors import LedgerUnavailable, QueueRefused, QueueUnavailable, UnavailableError
from receipt_actors.notifications import Done
from receipt_actors.sandbox.apple_ca import Authority, Flaw
from receipt_actors.stores.apple.notifications.contents import MAX_BODY_BYTES
from tests.patience import PATIENCE_SECONDS
from tests.stores.apple.notifications.conftest import House
from tests.stores.apple.notifications.posts import (
    AUTHORITY,
    BUNDLE_ID,
    CLAIM,
    INVALID,
    NOW,
    NOW_MS,
    OK,
    REFUNDED_AT,
    RESULTS,
    Posted,
)
from tests.stores.apple.notifications.posts import transaction_payload as transaction

MARKED = replace(CLAIM, refunded_at_seconds=REFUNDED_AT)
LEDGER_DOWN = LedgerUnavailable("time-out")


# --- refunds ---


def test_a_fifo_post_queue_gets_the_refund_in_the_users_group(house: House) -> None:
    queue = "Results.fifo"
    house.queues.create_queue(queue)
    house.handler = house.another_handler(post_queues=[queue])
    house.ledger.claim(replace(CLAIM, post_queue=queue))
    house.ledger.claim(replace(CLAIM, post_queue=queue, transaction_id="2"))
    posted = Posted()
    house.notifications.fail("record", UnavailableError("time-out"))
    assert house.handle(posted).status == 503
    assert house.handle(posted).status == 200
    assert house.handle(Posted(transaction=transaction("2"))).status == 200
    messages = house.queues.messages(queue)
    assert [json.loads(message.body)["transaction_id"] for message in messages] == [CLAIM.transaction_id, "2"]
    assert {message.group_id for message in messages} == {str(CLAIM.user_id)}


@pytest.mark.parametrize("type_", ["REFUND", "REVOKE"])
def test_a_refund_is_marked_posted_recorded_and_acknowledged(house: House, type_: str) -> None:
    house.ledger.claim(CLAIM)
    posted = Posted(type_)
    for _ in range(2):  # Apple may have missed our answer: it is acknowledged again
        assert house.handle(posted).status == 200
    assert house.ledger.items[CLAIM.transaction_id] == MARKED
    assert house.answers == [INVALID]
    assert house.notifications.recorded == {posted.uuid}
    assert house.handler.counts == {(type_, Done.POSTED): 1, (type_, Done.KNOWN): 1}


def test_the_answer_carries_the_attributes_of_the_ok(house: House) -> None:
    house.ledger.claim(CLAIM)
    house.ledger.claim(replace(CLAIM, transaction_id="2", product_id=None, environment=Environment.SANDBOX))
    posted = Posted()
    house.handle(posted)
    (message,) = house.queues.messages(RESULTS)
    assert message.attributes == {
        "reason": "refunded",
        "submission_id": "submission-1",
        "source_message_id": "message-1",
        "product_id": "com.example.coins.100",
        "environment": "Production",
        "quantity": "3",
        "notification_uuid": posted.uuid,
        "decided_at": str(round(REFUNDED_AT * 1000)),
    }
    house.handle(Posted(transaction=transaction("2")))
    assert set(house.queues.messages(RESULTS)[1].attributes) == set(message.attributes) - {"product_id"}


def in_part(percentage: int | None, at_ms: int = NOW_MS, type_: str | None = "REFUND_PRORATED") -> Posted:
    return Posted(transaction=transaction(revocationDate=at_ms, revocationType=type_, revocationPercentage=percentage))


def told_shares(house: House) -> list[tuple[str | None, str | None]]:
    told = [message.attributes for message in house.queues.messages(RESULTS)]
    return [(each.get("revocation_type"), each.get("revocation_percentage")) for each in told]


def test_a_partial_refund_says_how_much_and_a_reversal_takes_it_back(house: House) -> None:
    house.ledger.claim(CLAIM)
    house.handle(in_part(33333))
    assert house.ledger.items[CLAIM.transaction_id] == replace(
        CLAIM, refunded_at_seconds=NOW, revocation_type="REFUND_PRORATED", revocation_percentage=33333
    )
    house.ledger.claim(replace(CLAIM, transaction_id="2"))
    house.handle(Posted(transaction=transaction("2")))
    assert told_shares(house) == [("REFUND_PRORATED", "33333"), (None, None)]
    house.handle(Posted("REFUND_REVERSED", signed_ms=NOW_MS + 1))
    assert house.ledger.items[CLAIM.transaction_id] == CLAIM
    house.handle(in_part(66666, NOW_MS + 2))
    assert told_shares(house)[-1] == ("REFUND_PRORATED", "66666")
    assert house.ledger.items[CLAIM.transaction_id].revocation_percentage == 66666


def test_a_second_partial_refund_is_told_once_and_stands(house: House) -> None:
    house.ledger.claim(CLAIM)
    first, second = in_part(33333), in_part(66666, NOW_MS + 1000)
    for posted in (first, second, first, second):
        assert house.handle(posted).status == 200
    assert told_shares(house) == [("REFUND_PRORATED", "33333"), ("REFUND_PRORATED", "66666")]
    assert house.ledger.items[CLAIM.transaction_id].revocation_percentage == 66666


@pytest.mark.parametrize("later_ms", [0, 1000])
def test_the_first_of_two_partial_refunds_that_comes_late_tells_the_second(house: House, later_ms: int) -> None:
    house.ledger.claim(CLAIM)
    for posted in (in_part(66666, NOW_MS + later_ms), in_part(33333)):
        assert house.handle(posted).status == 200
    assert told_shares(house) == [("REFUND_PRORATED", "66666")] * 2
    told = [message.attributes["decided_at"] for message in house.queues.messages(RESULTS)]
    assert told == [str(NOW_MS + later_ms)] * 2
    assert house.ledger.items[CLAIM.transaction_id].revocation_percentage == 66666


def test_a_refund_before_its_claim_leaves_a_tombstone(house: House) -> None:
    posted = Posted()
    assert house.handle(posted).status == 200
    assert house.ledger.tombstones == {CLAIM.transaction_id: Tombstone(CLAIM.transaction_id, REFUNDED_AT)}
    assert house.answers == []
    assert house.notifications.recorded == {posted.uuid}
    assert house.handler.counts == {("REFUND", Done.TOMBSTONE): 1}


def test_a_claim_of_another_program_is_marked_and_nobody_is_told(house: House) -> None:
    house.ledger.claim(replace(CLAIM, submission_id="", message_id="", post_queue="", user_id=-(2**64)))
    assert house.handle(Posted()).status == 200
    assert house.ledger.items[CLAIM.transaction_id].refunded_at_seconds == REFUNDED_AT
    assert house.handle(Posted("REFUND_REVERSED")).status == 200
    assert house.answers == []
    assert house.handler.counts == {("REFUND", Done.NOT_OURS): 1, ("REFUND_REVERSED", Done.REVERSED): 1}


# --- reversals ---


def test_a_reversal_takes_the_mark_back_and_posts_ok(house: House) -> None:
    house.ledger.claim(CLAIM)
    house.handle(Posted())
    reversal = Posted("REFUND_REVERSED", transaction(revocationDate=None))
    assert house.handle(reversal).status == 200
    assert house.ledger.items[CLAIM.transaction_id] == CLAIM
    assert house.answers == [INVALID, OK]
    refunded, given_again = house.queues.messages(RESULTS)
    assert given_again.attributes == {
        **refunded.attributes,
        "reason": "refund_reversed",
        "notification_uuid": reversal.uuid,
        "decided_at": str(NOW_MS),
    }
    assert int(refunded.attributes["decided_at"]) < NOW_MS
    assert reversal.uuid in house.notifications.recorded
    assert house.handle(reversal).status == 200
    assert house.answers == [INVALID, OK]


@pytest.mark.parametrize("is_claimed", [True, False])
def test_a_refund_that_comes_after_its_reversal_changes_nothing(house: House, is_claimed: bool) -> None:
    """We were down when Apple sent it first; it comes again an hour later, when the reversal has been through."""
    if is_claimed:
        house.ledger.claim(CLAIM)
    house.handle(Posted("REFUND_REVERSED"))
    late = Posted(transaction=transaction(revocationDate=NOW_MS - 1000))
    assert house.handle(late).status == 200
    assert house.ledger.get(CLAIM.transaction_id) == (CLAIM if is_claimed else None)
    assert house.answers == ([OK] if is_claimed else [])
    assert late.uuid in house.notifications.recorded


@pytest.mark.parametrize("order", list(itertools.permutations(["refund", "reversal", "refund anew"])), ids=" ".join)
@pytest.mark.parametrize("is_claimed", [True, False])
def test_a_second_refund_stands_in_whatever_order_they_come(
    house: House, order: tuple[str, ...], is_claimed: bool
) -> None:
    if is_claimed:
        house.ledger.claim(CLAIM)
    posts = {
        "refund": Posted(),
        "reversal": Posted("REFUND_REVERSED"),
        "refund anew": Posted(transaction=transaction(revocationDate=NOW_MS + 1000)),
    }
    for name in order:
        assert house.handle(posts[name]).status == 200
    standing = house.ledger.get(CLAIM.transaction_id)
    assert standing is not None
    assert standing.refunded_at_seconds == NOW + 1
    is_overtaken = order.index("refund anew") < order.index("reversal")
    assert house.handler.counts.get(("REFUND_REVERSED", Done.OVERTAKEN), 0) == is_overtaken


@pytest.mark.parametrize("is_refunded_anew", [False, True])
def test_a_reversal_at_the_same_moment_wins_but_over_a_later_refund(house: House, is_refunded_anew: bool) -> None:
    """Two nodes: the refund has looked and is about to mark while its reversal runs through."""
    house.ledger.claim(CLAIM)
    if is_refunded_anew:
        house.handle(Posted(transaction=transaction(revocationDate=NOW_MS + 1000)))
    with house.ledger.hold("mark_refunded") as hold, ThreadPoolExecutor(1) as pool:
        refund = pool.submit(house.handle, Posted())
        hold.wait_for_call()
        assert house.another_handler().handle(Posted("REFUND_REVERSED").body).status == 200
        hold.release()
        assert refund.result(timeout=PATIENCE_SECONDS).status == 200
    assert house.ledger.items[CLAIM.transaction_id].refunded_at_seconds == (NOW + 1 if is_refunded_anew else None)
    assert is_refunded_anew or house.answers == [OK]


@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_mark_made_beside_a_reversal_is_taken_back_by_the_next_attempt(house: House, is_claimed: bool) -> None:
    if is_claimed:
        house.ledger.claim(CLAIM)
    refund = Posted()
    with house.ledger.hold("mark_refunded") as hold, ThreadPoolExecutor(1) as pool:
        first = pool.submit(house.handle, refund)
        hold.wait_for_call()
        assert house.another_handler().handle(Posted("REFUND_REVERSED").body).status == 200
        house.notifications.fail("reversed_at_seconds", LEDGER_DOWN)  # what the first attempt asks next
        hold.release()
        assert first.result(timeout=PATIENCE_SECONDS).status == 503
    assert house.handle(refund).status == 200
    assert house.ledger.get(CLAIM.transaction_id) == (CLAIM if is_claimed else None)


# --- what changes nothing ---


@pytest.mark.parametrize("type_", ["TEST", "DID_RENEW", "CONSUMPTION_REQUEST", "NEW_IN_2030"])
def test_what_changes_nothing_is_acknowledged_at_once(house: House, type_: str) -> None:
    assert house.handle(Posted(type_, None, data={"signedTransactionInfo": "a.b.c"})).status == 200
    assert house.is_untouched
    assert sum(house.handler.counts.values()) == 1


# --- who may not ---


@pytest.mark.parametrize("inner_only", [True, False])
def test_the_notification_of_another_app_changes_nothing(house: House, inner_only: bool) -> None:
    """Anybody can have an app of his own, refund a purchase in it, and post here what Apple signed for that.

    It is refused, so that Apple comes again where it was an app of ours that the settings have forgotten.
    """
    house.ledger.claim(CLAIM)
    before = house.ledger.count("claim")
    theirs = transaction(bundleId="com.example.theirs")
    posted = Posted(transaction=theirs, data={} if inner_only else {"bundleId": "com.example.theirs"})
    assert house.handle(posted).status == 403
    assert house.ledger.items == {CLAIM.transaction_id: CLAIM}
    assert (house.ledger.count("claim"), house.ledger.count("mark_refunded")) == (before, 0)
    assert house.notifications.recorded == frozenset()
    assert house.handler.counts == {("REFUND", Done.FOREIGN_APP): 1}
    corrected = house.another_handler(bundle_ids=frozenset({BUNDLE_ID, "com.example.theirs"}))
    assert corrected.handle(posted.body).status == 200


def test_a_clock_that_is_behind_has_apple_come_again(house: House) -> None:
    house.ledger.claim(CLAIM)
    assert house.handle(Posted(signed_ms=NOW_MS + 3_600_000)).status == 503
    assert house.handler.counts == {("none", Done.FAILED): 1}
    assert house.ledger.items == {CLAIM.transaction_id: CLAIM}


@pytest.mark.parametrize("flaw", list(Flaw))
def test_what_apple_did_not_sign_is_refused(house: House, flaw: Flaw) -> None:
    class Forger(Authority):
        def sign(self, payload, flaw_=None):  # type: ignore[no-untyped-def]
            return super().sign(payload, flaw)

    forged = Posted(authority=Forger())
    assert house.handle(forged).status == 403
    inner = AUTHORITY.sign(transaction(), flaw)
    assert house.handle(Posted(transaction=None, data={"signedTransactionInfo": inner})).status == 403
    assert house.is_untouched
    assert house.handler.counts == {("none", Done.REFUSED): 1, ("REFUND", Done.REFUSED): 1}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"GET / HTTP/1.1", 400),
        (b'{"signedPayload": "a.b.c"}', 403),
        (b'{"signedPayload": "\\ud800.b.c"}', 403),
        (b'{"signedPayload": "' + b"x" * 200_000 + b'"}', 403),
        (b"[" * 200_000, 400),
        (b"x" * (MAX_BODY_BYTES + 1), 413),
        (Posted(transaction=transaction("1\n2")).body, 400),  # Apple signed it: it comes again
    ],
)
def test_what_cannot_be_read_is_refused(house: House, body: bytes, status: int) -> None:
    assert house.handler.handle(body).status == status
    assert house.is_untouched


# --- what is logged, and what is told ---


def test_each_is_one_line_without_what_was_posted(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    house.ledger.claim(CLAIM)
    posted = Posted()
    house.handle(posted)
    house.handler.handle(b"garbage")
    refund, garbage = (record.getMessage() for record in caplog.records)
    assert refund == (
        f"notification {posted.uuid} (REFUND), answered 200: transaction {CLAIM.transaction_id}: "
        f"marked as refunded, INVALID is on {RESULTS}"
    )
    assert garbage == "a POST, answered 400: body: expected JSON"


def test_no_secret_of_a_post_is_logged_or_told(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    house.ledger.fail("mark_refunded", LEDGER_DOWN)
    bodies = [Posted().body, Posted(authority=Authority(b"another")).body, b'{"signedPayload": "s3cr3t.s3cr3t.s3cr3t"}']
    told = [house.handler.handle(body).text for body in bodies]
    for text in (caplog.text, *told):
        assert "eyJ" not in text
        assert "s3cr3t" not in text


# --- the crash table: what fails, or dies, at each step ---


@dataclass(frozen=True)
class Step:
    of: str
    operation: str
    error: Exception = LEDGER_DOWN

    def make_fail(self, house: House, *, carried_out: bool) -> None:
        fake = getattr(house, self.of)
        (fake.lose_answer if carried_out else fake.fail)(self.operation, self.error)


LOOK = Step("notifications", "is_known")
LOOK_FOR_REVERSAL = Step("notifications", "reversed_at_seconds")
MARK = Step("ledger", "mark_refunded")
POST = Step("queues", "send", QueueUnavailable("time-out"))
RECORD = Step("notifications", "record")


@pytest.mark.parametrize("carried_out", [False, True], ids=["not done", "done, answer lost"])
@pytest.mark.parametrize("step", [LOOK, LOOK_FOR_REVERSAL, MARK, POST, RECORD], ids=lambda step: step.operation)
@pytest.mark.parametrize("is_claimed", [True, False], ids=["claimed", "unclaimed"])
def test_a_step_that_fails_loses_nothing(house: House, step: Step, carried_out: bool, is_claimed: bool) -> None:
    if is_claimed:
        house.ledger.claim(CLAIM)
    step.make_fail(house, carried_out=carried_out)
    posted = Posted()
    first = house.handle(posted).status
    assert first == (200 if step is POST and not is_claimed else 503)  # there is nothing to post for a tombstone
    assert house.handle(posted).status == 200
    assert posted.uuid in house.notifications.recorded
    if is_claimed:
        assert house.ledger.items == {CLAIM.transaction_id: MARKED}
        was_posted_before = (step is RECORD and not carried_out) or (step is POST and carried_out)
        assert house.answers == [INVALID] * (2 if was_posted_before else 1)
    else:
        assert house.ledger.tombstones == {CLAIM.transaction_id: Tombstone(CLAIM.transaction_id, REFUNDED_AT)}
        assert house.answers == []
    assert house.handle(posted).status == 200
    assert house.ledger.count("mark_refunded") <= 2


@pytest.mark.parametrize("carried_out", [False, True], ids=["not done", "done, answer lost"])
@pytest.mark.parametrize(
    "step",
    [LOOK, Step("notifications", "record_reversal"), Step("ledger", "unmark_refunded"), POST, RECORD],
    ids=lambda step: step.operation,
)
def test_a_reversal_that_fails_comes_again(house: House, step: Step, carried_out: bool) -> None:
    house.ledger.claim(CLAIM)
    house.handle(Posted())
    step.make_fail(house, carried_out=carried_out)
    reversal = Posted("REFUND_REVERSED")
    assert house.handle(reversal).status == 503
    assert house.handle(reversal).status == 200
    assert house.ledger.items == {CLAIM.transaction_id: CLAIM}
    assert house.answers in ([INVALID, OK], [INVALID, OK, OK])


class Died(BaseException):
    """kill -9, as far as a test can."""


@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [LOOK, MARK, POST, RECORD], ids=lambda step: step.operation)
def test_a_process_that_dies_at_any_step_loses_nothing(house: House, step: Step, carried_out: bool) -> None:
    house.ledger.claim(CLAIM)
    replace(step, error=Died()).make_fail(house, carried_out=carried_out)  # type: ignore[arg-type]
    posted = Posted()
    with pytest.raises(Died):
        house.handle(posted)
    assert house.another_handler().handle(posted.body).status == 200
    assert house.ledger.items == {CLAIM.transaction_id: MARKED}
    assert house.answers in ([INVALID], [INVALID, INVALID])
    assert posted.uuid in house.notifications.recorded


@pytest.mark.parametrize(
    "spoil",
    [
        lambda queues: queues.fail_entries("send", failure=EntryFailure("InternalError", "", sender_fault=False)),
        lambda queues: queues.fail_entries("send", failure=EntryFailure("InvalidMessage", "", sender_fault=True)),
        lambda queues: queues.fail("send", QueueRefused(RESULTS, "it does not exist")),
    ],
    ids=["entry failed", "entry refused", "queue refused"],
)
def test_a_queue_that_does_not_take_it_gets_it_later(house: House, spoil: Callable[[object], None]) -> None:
    house.ledger.claim(CLAIM)
    spoil(house.queues)
    posted = Posted()
    assert house.handle(posted).status == 503
    assert house.notifications.recorded == frozenset()
    assert house.handle(posted).status == 200
    assert house.answers == [INVALID]


def test_a_post_queue_that_is_not_allowed_any_more_is_not_written_to(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ledger.claim(replace(CLAIM, post_queue="Elsewhere"))
    house.queues.create_queue("Elsewhere")
    posted = Posted()
    assert house.handle(posted).status == 503
    assert house.queues.messages("Elsewhere") == []
    assert house.ledger.items[CLAIM.transaction_id].refunded_at_seconds == REFUNDED_AT
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "post queue Elsewhere is not in post_queues" in record.getMessage()
    corrected = house.another_handler([RESULTS, "Elsewhere"])
    assert corrected.handle(posted.body).status == 200
    assert [json.loads(message.body) for message in house.queues.messages("Elsewhere")] == [INVALID]


def test_two_nodes_at_the_same_notification_do_no_harm(house: House) -> None:
    house.ledger.claim(CLAIM)
    posted = Posted()
    with house.ledger.hold("mark_refunded") as hold, ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(handler.handle, posted.body) for handler in (house.handler, house.another_handler())]
        hold.wait_for_call(2)
        hold.release()
        assert [answer.result(timeout=PATIENCE_SECONDS).status for answer in answers] == [200, 200]
    assert house.ledger.items == {CLAIM.transaction_id: MARKED}
    assert house.answers == [INVALID, INVALID]


def test_the_refund_that_a_crash_left_behind_is_older_than_its_reversal(house: House) -> None:
    house.ledger.claim(CLAIM)
    house.notifications.fail("record", LEDGER_DOWN)
    refund = Posted()
    assert house.handle(refund).status == 503
    assert house.handle(Posted("REFUND_REVERSED")).status == 200
    assert house.handle(refund).status == 200
    assert house.ledger.items == {CLAIM.transaction_id: CLAIM}
    assert refund.transaction is not None
    assert refund.transaction["revocationDate"] < NOW * 1000  # type: ignore[operator]
