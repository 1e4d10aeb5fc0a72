"""Validator and mover: every step a message can take, with stand-ins for all that a processor asks."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.domain.messages import Unanswerable, Verdict
from receipt_actors.domain.policy import Policy, Source
from receipt_actors.domain.ports import Environment, OutgoingMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Misconfigured, Transaction, TryAgain, Unidentified
from receipt_actors.domain.verdicts import Ownership
from receipt_actors.otp import (
    NORMAL,
    TEMPORARY,
    ChildSpec,
    Crash,
    Name,
    Ref,
    SimpleOneForOneSupervisor,
    Start,
    Starting,
    StartResult,
)
from receipt_actors.pipeline.processor import MAX_TRIES, Mover
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    DELETE_BATCHER,
    LEDGER_GATEWAY,
    RESULT_BATCHERS,
    Broken,
    ClaimTransaction,
    DeleteMessage,
    Done,
    GaveUp,
    HandBack,
    LookUpTransaction,
    Refused,
    SendMessage,
    VerifyReceipt,
    result_batcher_name,
)
from receipt_actors.pipeline.validator import Validator
from receipt_actors.telemetry.statistics import Latencies
from tests.pipeline.stand_ins import DEAD, POST, SOURCE, Stage, StandIn, delivery, submission

POLICY = Policy(frozenset({"com.example.game"}), frozenset({"coins"}))


def transaction(transaction_id: str = "t-1", *, purchased_at: float = 1.0, cancelled: bool = False) -> Transaction:
    return Transaction(transaction_id, None, "coins", 1, purchased_at, None, cancelled, expired=False)


def genuine(*transactions: Transaction, bundle_id: str = "com.example.game") -> Genuine:
    return Genuine(Environment.PRODUCTION, bundle_id, transactions or (transaction(),))


class House:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.apple = stage.stand_in(APP_STORE_GATEWAY)
        self.ledger = stage.stand_in(LEDGER_GATEWAY)
        self.deleter = stage.stand_in(DELETE_BATCHER)
        self.results = stage.stand_in(result_batcher_name(POST))
        self.dead_letters = stage.stand_in(result_batcher_name(DEAD))
        self.source = Source(SOURCE, frozenset({POST}), DEAD, POLICY)
        self.processor: Ref | None = None

    def validate(self, *, dead: str | None = DEAD, replies_unidentified: bool = False, **fields: Any) -> Ref:
        self.source = Source(SOURCE, frozenset({POST}), dead, POLICY, replies_unidentified)
        arguments = (self.source, delivery(1, **fields), submission(1, **fields), 0.0)
        self.processor = self.stage.actors.start(Validator, *arguments)
        self.stage.settle()
        return self.processor

    def move(self, dead: str | None = DEAD) -> Ref:
        unanswerable = Unanswerable(Reason.NOT_JSON, "body: no")
        self.source = Source(SOURCE, frozenset({POST}), dead, POLICY)
        self.processor = self.stage.actors.start(Mover, self.source, delivery(1, body="no json"), unanswerable, 0.0)
        self.stage.settle()
        return self.processor

    def find(self, name: Name) -> Ref:
        self.stage.settle()
        ref = self.stage.actors.whereis(name)
        assert ref is not None
        return ref

    def answer(self, who: Ref, value: object, call: int = -1) -> None:
        self.stage.answer(who, value, call)

    def claims(self) -> list[str]:
        return [each.item.transaction_id for each in self.stage.calls(self.ledger, ClaimTransaction)]

    def look_ups(self) -> list[str]:
        return [each.item.transaction_id for each in self.stage.calls(self.ledger, LookUpTransaction)]

    def posted(self, who: Ref | None = None) -> list[OutgoingMessage]:
        return [each.message for each in self.stage.calls(who or self.results, SendMessage)]

    def verdicts(self) -> list[tuple[str, str]]:
        bodies = [json.loads(message.body) for message in self.posted()]
        return [(body["transaction_id"], body["status"]) for body in bodies]

    def deleted(self) -> list[DeleteMessage]:
        return self.stage.calls(self.deleter, DeleteMessage)

    def handed_back(self) -> list[Reason]:
        term = getattr(self._exit_reason, "term", None)
        return [term.reason] if isinstance(term, HandBack) else []

    def fates(self) -> list[tuple[str, Reason | None]]:
        return list(Counter(self.stage.counted().fates).elements())

    @property
    def ended(self) -> Any:
        return NORMAL if self.handed_back() else self._exit_reason

    @property
    def _exit_reason(self) -> Any:
        self.stage.settle()
        assert self.processor is not None
        return self.processor.process.exit_reason

    def go_to(self, step: str) -> None:
        self.validate()
        if step != "verifying":
            self.answer(self.apple, genuine())
        if step in ("replying", "deleting"):
            self.answer(self.ledger, Ownership.NEW)
        if step == "deleting":
            self.answer(self.results, Done())

    def restart(self, who: str) -> Ref:
        name = {"apple": APP_STORE_GATEWAY, "ledger": LEDGER_GATEWAY, "deleter": DELETE_BATCHER}[who]
        self.stage.crash(getattr(self, who))
        successor = self.stage.stand_in(name)
        setattr(self, who, successor)
        return successor


@pytest.fixture
def house(stage: Stage) -> House:
    return House(stage)


def test_one_step_after_the_other(house: House) -> None:
    house.validate()
    assert house.stage.calls(house.apple, VerifyReceipt) == [VerifyReceipt(submission(1), SOURCE)]
    assert (house.claims(), house.posted(), house.deleted()) == ([], [], [])
    house.answer(house.apple, genuine())
    assert (house.claims(), house.posted(), house.deleted()) == (["t-1"], [], [])
    house.answer(house.ledger, Ownership.NEW)
    assert (house.verdicts(), house.deleted()) == ([("t-1", "OK")], [])
    house.answer(house.results, Done())
    assert house.deleted() == [DeleteMessage("m-1/1")]
    assert house.ended is None
    house.answer(house.deleter, Done())
    assert house.ended == NORMAL
    assert (house.fates(), house.handed_back()) == ([("answered", None)], [])
    assert house.stage.counted().results == {(Verdict.OK, Reason.CLAIMED): 1}


def test_the_claim_says_everything_about_its_owner(house: House) -> None:
    house.validate()
    house.answer(house.apple, genuine())
    (claim,) = house.stage.calls(house.ledger, ClaimTransaction)
    wanted = submission(1)
    assert (claim.item.submission_id, claim.item.user_id) == (wanted.submission_id, 1)
    assert (claim.item.receipt_sha256, claim.item.source_queue) == (wanted.receipt_sha256, SOURCE)
    assert claim.item.claimed_at_seconds == house.stage.clock.time()


def test_a_message_takes_as_long_as_it_was_here(house: House) -> None:
    house.stage.advance(1)
    house.validate()
    house.stage.advance(1)
    house.answer(house.apple, genuine())
    house.answer(house.ledger, Ownership.NEW)
    house.answer(house.results, Done())
    house.answer(house.deleter, Done())
    two_seconds = Latencies()
    two_seconds.record(2)
    assert house.stage.counted().latencies == two_seconds


@pytest.mark.parametrize(
    ("ownership", "status", "reason"),
    [
        (Ownership.NEW, "OK", Reason.CLAIMED),
        (Ownership.OURS, "OK", Reason.ALREADY_OURS),
        (Ownership.SAME_USER, "INVALID", Reason.ALREADY_ANSWERED),
        (Ownership.OTHER_USER, "INVALID", Reason.CLAIMED_BY_ANOTHER_USER),
        (Ownership.REFUNDED, "INVALID", Reason.REFUNDED),
    ],
)
def test_the_ledger_decides(house: House, ownership: Ownership, status: str, reason: Reason) -> None:
    house.validate()
    house.answer(house.apple, genuine())
    house.answer(house.ledger, ownership)
    assert house.verdicts() == [("t-1", status)]
    assert house.posted()[0].attributes["reason"] == reason


def test_what_policy_refuses_is_looked_up_first(house: House) -> None:
    house.validate()
    house.answer(house.apple, genuine(bundle_id="com.example.other"))
    assert (house.claims(), house.look_ups()) == ([], ["t-1"])
    house.answer(house.ledger, Ownership.OURS)
    assert house.verdicts() == [("t-1", "OK")]


def test_many_transactions_are_answered_one_by_one(house: House) -> None:
    house.validate()
    house.answer(house.apple, genuine(*[transaction(f"t-{number}", purchased_at=number) for number in range(3)]))
    assert house.claims() == ["t-2", "t-1", "t-0"]
    house.answer(house.ledger, Ownership.OTHER_USER, call=0)
    house.answer(house.ledger, Ownership.SAME_USER, call=1)
    assert house.posted() == []
    house.answer(house.ledger, Ownership.NEW, call=2)
    assert house.verdicts() == [("t-2", "INVALID"), ("t-0", "OK")]
    house.answer(house.results, Done(), call=1)
    assert house.deleted() == []
    house.answer(house.results, Done(), call=0)
    assert len(house.deleted()) == 1


def test_one_of_a_product_is_looked_up_then_claimed(house: House) -> None:
    house.validate(product_id="coins")
    house.answer(house.apple, genuine(transaction("old", purchased_at=1), transaction("new", purchased_at=2)))
    assert (house.look_ups(), house.claims()) == (["new", "old"], [])
    house.answer(house.ledger, Ownership.FREE, call=0)
    house.answer(house.ledger, Ownership.FREE, call=1)
    assert house.claims() == ["new"]
    house.answer(house.ledger, Ownership.OTHER_USER)  # somebody was faster
    assert house.claims() == ["new", "old"]
    house.answer(house.ledger, Ownership.NEW)
    assert house.verdicts() == [("old", "OK")]


def test_a_dead_letter_keeps_the_spelling_of_its_receipt(house: House) -> None:
    body = delivery(1).body
    receipt_data = json.loads(body)["receipt"]
    escaped = body.replace(receipt_data, "".join(f"\\u{ord(character):04x}" for character in receipt_data))
    house.validate(body=escaped)
    house.answer(house.apple, Unidentified(Reason.NOT_AUTHENTIC))
    (message,) = house.posted(house.dead_letters)
    assert message.body == escaped


@pytest.mark.parametrize(
    ("meaning", "reason"),
    [
        (Unidentified(Reason.NOT_AUTHENTIC), Reason.NOT_AUTHENTIC),
        (TryAgain(Reason.RECEIPT_MALFORMED, "21002", then_unanswerable=True), Reason.RECEIPT_MALFORMED),
        (replace(genuine(), transactions=()), Reason.NO_TRANSACTION),
    ],
    ids=["unidentified", "malformed", "nothing bought"],
)
def test_what_cannot_be_answered_is_moved(house: House, meaning: object, reason: Reason) -> None:
    house.validate()
    house.answer(house.apple, meaning)
    (message,) = house.posted(house.dead_letters)
    assert (message.body, message.attributes["reason"]) == (delivery(1).body, reason)
    assert message.attributes["submission_id"] == "m-1"
    assert house.deleted() == []
    house.answer(house.dead_letters, Done())
    assert (len(house.deleted()), house.ended) == (1, None)
    house.answer(house.deleter, Done())
    assert (house.fates(), house.posted(), house.ended) == ([("moved", reason)], [], NORMAL)


def test_what_is_not_identified_may_be_answered(house: House) -> None:
    house.validate(replies_unidentified=True)
    house.answer(house.apple, Unidentified(Reason.NOT_AUTHENTIC))
    assert house.verdicts() == [("", "INVALID")]
    house.answer(house.results, Done())
    house.answer(house.deleter, Done())
    assert house.fates() == [("answered", None)]


def test_a_post_queue_that_takes_nothing_makes_a_message_unanswerable(house: House) -> None:
    house.go_to("replying")
    house.answer(house.results, Refused("no such queue"))
    (message,) = house.posted(house.dead_letters)
    assert message.attributes["reason"] == Reason.POST_QUEUE_REFUSED
    house.answer(house.dead_letters, Done())
    house.answer(house.deleter, Done())
    assert house.fates() == [("moved", Reason.POST_QUEUE_REFUSED)]


@pytest.mark.parametrize("other", [Done(), Refused("gone")], ids=type)
def test_of_several_refused_answers_the_first_moves_the_message(house: House, other: object) -> None:
    house.validate()
    house.answer(house.apple, genuine(transaction("t-1"), transaction("t-2")))
    house.answer(house.ledger, Ownership.NEW, call=0)
    house.answer(house.ledger, Ownership.NEW, call=1)
    house.answer(house.results, Refused("gone"), call=0)
    house.answer(house.results, other, call=1)
    assert (len(house.posted(house.dead_letters)), house.deleted()) == (1, [])
    house.answer(house.dead_letters, Done())
    assert len(house.deleted()) == 1


def test_a_mover_moves(house: House) -> None:
    house.move()
    (message,) = house.posted(house.dead_letters)
    assert (message.body, message.attributes["reason"]) == ("no json", Reason.NOT_JSON)
    assert house.deleted() == []
    house.answer(house.dead_letters, Done())
    house.answer(house.deleter, Done())
    assert (house.fates(), house.ended) == ([("moved", Reason.NOT_JSON)], NORMAL)


def test_without_a_dead_letter_queue_a_message_is_left(house: House) -> None:
    house.move(dead=None)  # it has nothing to do, and ends at once
    assert (house.handed_back(), house.deleted()) == ([Reason.NO_DEAD_LETTER_QUEUE], [])
    house.validate(dead=None)
    house.answer(house.apple, Unidentified(Reason.NOT_AUTHENTIC))
    assert house.handed_back() == [Reason.NO_DEAD_LETTER_QUEUE]
    assert (house.ended, house.deleted(), house.fates()) == (NORMAL, [], [])


@pytest.mark.parametrize("failure", [Refused("no such queue"), GaveUp("503")], ids=type)
def test_what_cannot_be_moved_is_handed_back(house: House, failure: object) -> None:
    house.move()
    house.answer(house.dead_letters, failure)
    assert (house.handed_back(), house.deleted(), house.ended) == ([Reason.GAVE_UP_FOR_NOW], [], NORMAL)


@pytest.mark.parametrize(
    ("meaning", "reason"),
    [
        (TryAgain(Reason.GAVE_UP_FOR_NOW, "21005", then_unanswerable=False), Reason.GAVE_UP_FOR_NOW),
        (Misconfigured("21004"), Reason.MISCONFIGURED),
        (GaveUp("503"), Reason.GAVE_UP_FOR_NOW),
    ],
    ids=["temporary", "misconfigured", "gave up"],
)
def test_trouble_at_apples_is_no_verdict(house: House, meaning: object, reason: Reason) -> None:
    house.validate()
    house.answer(house.apple, meaning)
    assert (house.handed_back(), house.ended) == ([reason], NORMAL)
    assert (house.posted(), house.posted(house.dead_letters), house.deleted(), house.fates()) == ([], [], [], [])


@pytest.mark.parametrize("step", ["claiming", "replying"])
def test_trouble_later_on_is_no_verdict_either(house: House, step: str) -> None:
    house.go_to(step)
    house.answer(house.ledger if step == "claiming" else house.results, GaveUp("503"))
    assert (house.handed_back(), house.ended) == ([Reason.GAVE_UP_FOR_NOW], NORMAL)
    assert house.deleted() == []


@pytest.mark.parametrize("failure", [GaveUp("503"), Refused("handle"), Broken(ZeroDivisionError())], ids=type)
def test_an_answered_message_that_cannot_be_deleted_is_answered(house: House, failure: object) -> None:
    house.go_to("deleting")
    house.answer(house.deleter, failure)
    assert (house.ended, house.fates(), house.handed_back()) == (NORMAL, [("answered", None)], [])


@pytest.mark.parametrize("step", ["verifying", "claiming", "replying"])
def test_a_bug_in_a_client_crashes_who_asked(house: House, step: str) -> None:
    house.go_to(step)
    who = {"verifying": house.apple, "claiming": house.ledger, "replying": house.results}[step]
    house.answer(who, Broken(ZeroDivisionError("bug")))
    assert isinstance(house.ended, Crash)
    assert house.deleted() == []


def test_one_unanswered_claim_of_many_answers_nothing(house: House) -> None:
    house.validate()
    house.answer(house.apple, genuine(transaction("t-1"), transaction("t-2")))
    house.answer(house.ledger, Ownership.NEW, call=0)
    house.answer(house.ledger, GaveUp("503"), call=1)
    assert (house.posted(), house.handed_back()) == ([], [Reason.GAVE_UP_FOR_NOW])


@pytest.mark.parametrize(("step", "who"), [("verifying", "apple"), ("claiming", "ledger"), ("deleting", "deleter")])
def test_the_successor_of_who_ended_is_asked(house: House, step: str, who: str) -> None:
    house.go_to(step)
    asked = getattr(house, who).process.actor.calls[:]
    successor = house.restart(who)
    house.stage.advance(0.05)
    assert house.stage.calls(successor, object) == asked


def test_nobody_to_ask_is_waited_for(house: House) -> None:
    house.validate()
    house.stage.crash(house.apple)
    longest = 0.05 * 2**MAX_TRIES
    house.stage.advance(longest / 2)
    assert house.handed_back() == []
    house.stage.advance(longest / 2)
    assert (house.ended, house.handed_back()) == (NORMAL, [Reason.GAVE_UP_FOR_NOW])


def test_a_neighbour_that_is_back_in_time_is_enough(house: House) -> None:
    house.stage.crash(house.apple)
    house.validate()
    house.stage.advance(20)
    house.apple = house.stage.stand_in(APP_STORE_GATEWAY)
    house.stage.advance(30)
    house.answer(house.apple, genuine())
    assert house.claims() == ["t-1"]


def start_result_batchers(stage: Stage) -> None:
    def start(queue: str) -> StartResult | Starting:
        return Start(StandIn, name=result_batcher_name(queue))()

    spec = ChildSpec("result_batcher", start, TEMPORARY)
    stage.actors.start(SimpleOneForOneSupervisor, spec, name=RESULT_BATCHERS)


def test_a_result_batcher_is_started_on_demand(house: House) -> None:
    house.stage.crash(house.results)
    start_result_batchers(house.stage)
    house.validate()
    house.answer(house.apple, genuine(transaction("t-1"), transaction("t-2")))
    house.answer(house.ledger, Ownership.NEW, call=0)
    house.answer(house.ledger, Ownership.NEW, call=1)
    first = house.find(result_batcher_name(POST))
    (_, unconfirmed) = house.posted(first)
    house.answer(first, Done(), call=0)
    house.stage.crash(first)
    house.stage.advance(0.05)
    successor = house.find(result_batcher_name(POST))
    assert house.posted(successor) == [unconfirmed]
    house.answer(successor, Done())
    assert len(house.deleted()) == 1


def test_a_result_batcher_that_does_not_start_is_asked_for_again(house: House) -> None:
    house.stage.crash(house.results)
    house.go_to("claiming")
    house.answer(house.ledger, Ownership.NEW)
    house.stage.advance(1)
    start_result_batchers(house.stage)
    house.stage.advance(2)
    assert len(house.posted(house.find(result_batcher_name(POST)))) == 1
