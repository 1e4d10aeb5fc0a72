"""The ledger gateway: claims, look-ups, and the map by which replays of others are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.ports import EntryFailure, LedgerItem
from receipt_actors.domain.verdicts import OursElsewhere, Ownership
from receipt_actors.errors import BatchesRefused, LedgerUnavailable
from receipt_actors.otp import Ref
from receipt_actors.pipeline import ledger_gateway
from receipt_actors.pipeline.ledger_gateway import BATCHES_AGAIN_SECONDS, PACE_SECONDS, LedgerGateway
from receipt_actors.pipeline.protocol import ClaimTransaction, GaveUp, LookUpTransaction, Refused
from receipt_actors.testing import FakeLedger
from tests.pipeline.stand_ins import POST, SOURCE, THREE_ATTEMPTS, Stage, item

CONCURRENCY = 20
TIME_OUT = LedgerUnavailable("time-out")


class House:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ledger: FakeLedger = stage.with_fake(FakeLedger())
        self.gateway = self.start()

    def start(self) -> Ref:
        limits = LiveLimits(Limits(20, CONCURRENCY, 20))
        return self.stage.actors.start(LedgerGateway, self.ledger, limits, THREE_ATTEMPTS)

    def claim(self, wanted: LedgerItem) -> Any:
        asking = self.stage.ask(self.gateway, ClaimTransaction(wanted))
        self.stage.advance(30)
        return self.stage.reply_to(asking)

    def claim_together(self, *wanted: LedgerItem) -> list[Any]:
        with self.ledger.hold("claim", times=1):
            asking = [self.stage.ask(self.gateway, ClaimTransaction(each)) for each in (item("t-first"), *wanted)]
        self.stage.advance(30)
        return [self.stage.reply_to(each) for each in asking[1:]]

    def look_up(self, user: int, transaction_id: str = "t-1") -> Any:
        asking = self.stage.ask(self.gateway, LookUpTransaction(item(transaction_id, user)))
        self.stage.advance(30)
        return self.stage.reply_to(asking)


@pytest.fixture
def house(stage: Stage) -> House:
    return House(stage)


def test_the_first_claim_is_new(house: House) -> None:
    assert house.claim(item()) is Ownership.NEW
    assert house.ledger.items == {"t-1": item()}


def test_the_owner_is_recognised_by_the_ledger_each_time(house: House) -> None:
    house.claim(item())
    assert house.claim(item()) is Ownership.OURS
    assert house.look_up(1) is Ownership.OURS
    assert (house.ledger.count("claim"), house.ledger.count("get")) == (2, 1)


@pytest.mark.parametrize("times", [1, 2])
def test_a_claim_whose_answer_was_lost_is_our_own(house: House, times: int) -> None:
    house.ledger.lose_answer("claim", TIME_OUT, times=times)
    assert house.claim(item()) is Ownership.OURS
    assert house.ledger.count("claim") == times + 1


def test_a_claim_whose_answers_were_all_lost_is_our_own_at_the_next_delivery(house: House) -> None:
    house.ledger.lose_answer("claim", TIME_OUT, times=3)
    assert isinstance(house.claim(item()), GaveUp)
    assert house.claim(item()) is Ownership.OURS


def test_replays_of_others_are_refused_without_a_call(house: House) -> None:
    """Once the ledger has confirmed an owner: another user's, and another submission of the same user."""
    house.claim(item())
    assert house.claim(item(user=2)) is Ownership.OTHER_USER
    assert house.claim(item(submission_id="again")) is Ownership.SAME_USER
    assert house.look_up(2) is Ownership.OTHER_USER
    assert (house.ledger.count("claim"), house.ledger.count("get")) == (1, 0)


def test_the_map_learns_from_refusals_and_look_ups(house: House) -> None:
    house.ledger.claim(item(user=1))
    assert house.claim(item(user=2)) is Ownership.OTHER_USER
    assert house.claim(item(user=3)) is Ownership.OTHER_USER
    assert house.claim(item(user=1)) is Ownership.OURS
    house.ledger.claim(item("t-2", user=1))
    assert house.look_up(2, "t-2") is Ownership.OTHER_USER
    assert house.claim(item("t-2", user=3)) is Ownership.OTHER_USER
    assert (house.ledger.count("claim"), house.ledger.count("get")) == (2 + 1 + 1, 1)


def test_a_free_transaction_is_not_remembered(house: House) -> None:
    assert house.look_up(1) is Ownership.FREE
    house.ledger.claim(item(user=2))
    assert house.look_up(1) is Ownership.OTHER_USER


def test_a_claim_that_failed_is_not_remembered(house: House) -> None:
    house.ledger.fail("claim", TIME_OUT, times=3)
    house.claim(item(user=1))
    assert house.claim(item(user=2)) is Ownership.NEW
    assert house.claim(item(user=1)) is Ownership.OTHER_USER


@pytest.mark.parametrize("learns", ["before the refund", "from the refunded claim", "never"])
def test_a_refund_changes_nothing_of_whose_it_is(house: House, learns: str) -> None:
    house.ledger.claim(item())
    if learns == "before the refund":
        house.look_up(1)
    house.ledger.mark_refunded("t-1", 1.0)
    if learns == "from the refunded claim":
        house.look_up(1)
    assert house.claim(item(user=2)) is Ownership.OTHER_USER
    assert house.claim(item(submission_id="again")) is Ownership.SAME_USER
    assert house.look_up(2) is Ownership.OTHER_USER
    assert house.claim(replace(item(), claimed_at_seconds=9.0)) is Ownership.OURS


WAYS = {
    "the same": (SOURCE, POST, Ownership.OURS),
    "another source": ("receipts-2", POST, Ownership.OURS),
    "another post queue": (SOURCE, "results-2", OursElsewhere(POST)),
    "another of both": ("receipts-2", "results-2", Ownership.SAME_USER),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("in_batch", [False, True], ids=["alone", "in a batch"])
def test_the_way_of_a_submission_says_where_its_ok_belongs(house: House, way: str, in_batch: bool) -> None:
    """A claim alone, one in a batch and a look-up agree, and each asks the ledger: the map never answers its owner."""
    source_queue, post_queue, owned = WAYS[way]
    house.claim(item())
    again = replace(item(), source_queue=source_queue, post_queue=post_queue)
    claimed = house.claim_together(again, item("t-2"))[0] if in_batch else house.claim(again)
    asking = house.stage.ask(house.gateway, LookUpTransaction(again))
    house.stage.advance(30)
    assert (claimed, house.stage.reply_to(asking)) == (owned, owned)
    assert house.ledger.items["t-1"] == item()


def test_a_refund_before_its_claim_is_told_until_it_is_taken_back(house: House) -> None:
    """A tombstone is not remembered: once Apple has reversed the refund, whoever asks first gets the transaction."""
    tombstone = house.ledger.mark_refunded("t-1", 1.0, "REFUND_PRORATED", 33333)
    assert house.claim(item(user=1)) == tombstone
    assert house.look_up(1) == tombstone
    house.ledger.unmark_refunded("t-1", 1.0)
    assert house.claim(item(user=1)) is Ownership.NEW
    assert house.claim(item(user=2)) is Ownership.OTHER_USER


def test_the_map_forgets_the_oldest(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_gateway, "KNOWN_CLAIMS", 2)
    house.gateway = house.start()
    for transaction_id in ("t-1", "t-2", "t-3"):
        house.claim(item(transaction_id))
    calls = house.ledger.count("claim")
    for transaction_id in ("t-3", "t-2", "t-1"):
        assert house.claim(item(transaction_id, user=2)) is Ownership.OTHER_USER
    assert house.ledger.count("claim") == calls + 1


def test_of_many_that_claim_at_once_one_wins(house: House) -> None:
    with house.ledger.hold("claim"):
        rivals = [house.stage.ask(house.gateway, ClaimTransaction(item(user=user))) for user in range(200)]
    house.stage.advance(PACE_SECONDS)
    answers = [house.stage.reply_to(rival) for rival in rivals]
    assert (answers.count(Ownership.NEW), answers.count(Ownership.OTHER_USER)) == (1, 199)
    assert house.ledger.count("claim") <= CONCURRENCY


def test_a_claim_leaves_at_once_when_it_is_quiet(house: House) -> None:
    asking = house.stage.ask(house.gateway, ClaimTransaction(item()))
    assert house.stage.reply_to(asking) is Ownership.NEW


def test_claims_gather_where_many_come(house: House) -> None:
    wanted = [item(f"t-{number}", user=number) for number in range(60)]
    assert house.claim_together(*wanted) == [Ownership.NEW] * 60
    assert (house.ledger.count("claim"), house.ledger.count("claim_all")) == (1, 3)


def test_a_batch_never_decides_whose_a_taken_transaction_is(house: House) -> None:
    house.ledger.claim(item("t-1", user=1))
    house.ledger.claim(item("t-2", user=9))
    calls = house.ledger.count("claim")
    answers = house.claim_together(item("t-1", user=1), item("t-2", user=2), item("t-3", user=3))
    assert answers == [Ownership.OURS, Ownership.OTHER_USER, Ownership.NEW]
    assert (house.ledger.count("claim") - calls, house.ledger.count("claim_all")) == (1 + 2, 1)


def test_the_same_transaction_is_once_in_a_batch(house: House) -> None:
    answers = house.claim_together(item("t-1", user=1), item("t-2", user=2), item("t-1", user=3), item("t-1", user=1))
    assert answers == [Ownership.NEW, Ownership.NEW, Ownership.OTHER_USER, Ownership.OURS]


def test_look_ups_wait_for_nobody(house: House) -> None:
    with house.ledger.hold("claim", times=1):
        house.stage.ask(house.gateway, ClaimTransaction(item("t-first")))
        house.stage.ask(house.gateway, ClaimTransaction(item("t-1")))
        asking = house.stage.ask(house.gateway, LookUpTransaction(item("t-2")))
        house.stage.advance(PACE_SECONDS)
        assert house.stage.reply_to(asking) is Ownership.FREE


def test_what_failed_in_a_batch_is_tried_again_alone(house: House) -> None:
    house.ledger.lose_answer("claim_all", TIME_OUT)
    assert house.claim_together(item("t-1"), item("t-2")) == [Ownership.OURS] * 2
    assert (house.ledger.count("claim"), house.ledger.count("claim_all")) == (1 + 2, 1)


@pytest.mark.parametrize(("sender_fault", "answer"), [(False, Ownership.NEW), (True, Refused("Odd: words"))])
def test_an_entry_that_fails_fails_alone(house: House, sender_fault: bool, answer: object) -> None:
    failure = EntryFailure("Odd", "words", sender_fault)
    house.ledger.fail_entries("claim_all", befalls=lambda each: each.transaction_id == "t-1", failure=failure)
    assert house.claim_together(item("t-1"), item("t-2")) == [answer, Ownership.NEW]


def test_a_ledger_without_batches_is_asked_claim_by_claim(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """PartiQL may not be allowed: said once, and tried again after ten minutes. Nobody's claim suffers."""
    house.ledger.fail("claim_all", BatchesRefused("T", "AccessDeniedException"), times=None)
    wanted = [item(f"t-{number}", user=number) for number in range(40)]
    assert house.claim_together(*wanted) == [Ownership.NEW] * 40
    assert house.ledger.count("claim_all") == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "dynamodb:PartiQLInsert" in caplog.text
    house.ledger.recover()
    house.stage.advance(BATCHES_AGAIN_SECONDS)
    more = [item(f"u-{number}", user=number) for number in range(40)]
    assert house.claim_together(*more) == [Ownership.NEW] * 40
    assert house.ledger.count("claim_all") > 1
