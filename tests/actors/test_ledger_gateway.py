"""The ledger gateway: claims, look-ups, and the map by which replays of others are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.actors import ledger_gateway
from receipt_actors.actors.ledger_gateway import LedgerGateway
from receipt_actors.actors.protocol import ClaimTransaction, GaveUp, LookUpTransaction
from receipt_actors.domain.ledger import Ownership
from receipt_actors.domain.ports import LedgerItem
from receipt_actors.errors import LedgerUnavailable
from receipt_actors.otp import Ref
from receipt_actors.testing import FakeLedger

from .stand_ins import THREE_ATTEMPTS, Stage, item, submission

TIME_OUT = LedgerUnavailable("time-out")


class House:
    """A gateway to a fake ledger."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ledger: FakeLedger = stage.with_fake(FakeLedger())
        self.gateway = self.start()

    def start(self) -> Ref:
        return self.stage.actors.start(LedgerGateway, self.ledger, 20, THREE_ATTEMPTS)

    def claim(self, wanted: LedgerItem) -> Any:
        asking = self.stage.ask(self.gateway, ClaimTransaction(wanted))
        self.stage.advance(30)
        return self.stage.reply_to(asking)

    def look_up(self, user: int, transaction_id: str = "t-1") -> Any:
        asking = self.stage.ask(self.gateway, LookUpTransaction(transaction_id, submission(user)))
        self.stage.advance(30)
        return self.stage.reply_to(asking)


@pytest.fixture
def house(stage: Stage) -> House:
    return House(stage)


def test_the_first_claim_is_new(house: House) -> None:
    """It is put, and stands."""
    assert house.claim(item()) is Ownership.NEW
    assert house.ledger.items == {"t-1": item()}


def test_the_owner_is_recognised_by_the_ledger_each_time(house: House) -> None:
    """The map is never used for its owner: it might be wrong, and the ledger is not."""
    house.claim(item())
    assert house.claim(item()) is Ownership.OURS
    assert house.look_up(1) is Ownership.OURS
    assert (house.ledger.count("claim"), house.ledger.count("get")) == (2, 1)


@pytest.mark.parametrize("times", [1, 2])
def test_a_claim_whose_answer_was_lost_is_our_own(house: House, times: int) -> None:
    """A retry meets the first write and knows it."""
    house.ledger.lose_answer("claim", TIME_OUT, times=times)
    assert house.claim(item()) is Ownership.OURS
    assert house.ledger.count("claim") == times + 1


def test_a_claim_whose_answers_were_all_lost_is_our_own_at_the_next_delivery(house: House) -> None:
    """Nothing is said this time; nothing that was not confirmed is in the map, either."""
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
    """What stood in the way of one stands in the way of all others but its owner."""
    house.ledger.claim(item(user=1))
    assert house.claim(item(user=2)) is Ownership.OTHER_USER
    assert house.claim(item(user=3)) is Ownership.OTHER_USER
    assert house.claim(item(user=1)) is Ownership.OURS
    house.ledger.claim(item("t-2", user=1))
    assert house.look_up(2, "t-2") is Ownership.OTHER_USER
    assert house.claim(item("t-2", user=3)) is Ownership.OTHER_USER
    assert (house.ledger.count("claim"), house.ledger.count("get")) == (2 + 1 + 1, 1)


def test_a_free_transaction_is_not_remembered(house: House) -> None:
    """It may be claimed at any moment."""
    assert house.look_up(1) is Ownership.FREE
    house.ledger.claim(item(user=2))
    assert house.look_up(1) is Ownership.OTHER_USER


def test_a_claim_that_failed_is_not_remembered(house: House) -> None:
    """Nobody knows whether it was made; the next one to ask is told by the ledger."""
    house.ledger.fail("claim", TIME_OUT, times=3)
    house.claim(item(user=1))
    assert house.claim(item(user=2)) is Ownership.NEW
    assert house.claim(item(user=1)) is Ownership.OTHER_USER


def test_a_refund_is_told_to_others_only(house: House) -> None:
    """Whoever got OK keeps it; another submission is told why it gets none."""
    house.ledger.claim(item())
    house.ledger.mark_refunded("t-1", 1.0)
    assert house.claim(item(user=2)) is Ownership.REFUNDED
    assert house.claim(replace(item(), claimed_at_seconds=9.0)) is Ownership.OURS


def test_the_map_forgets_the_oldest(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bounded; what it has forgotten the ledger still knows."""
    monkeypatch.setattr(ledger_gateway, "KNOWN_CLAIMS", 2)
    house.gateway = house.start()
    for transaction_id in ("t-1", "t-2", "t-3"):
        house.claim(item(transaction_id))
    calls = house.ledger.count("claim")
    for transaction_id in ("t-3", "t-2", "t-1"):
        assert house.claim(item(transaction_id, user=2)) is Ownership.OTHER_USER
    assert house.ledger.count("claim") == calls + 1


def test_of_many_that_claim_at_once_one_wins(house: House) -> None:
    """All are under way together; the others are told whose it is."""
    with house.ledger.hold("claim"):
        rivals = [house.stage.ask(house.gateway, ClaimTransaction(item(user=user))) for user in range(20)]
    answers = [house.stage.reply_to(rival) for rival in rivals]
    assert (answers.count(Ownership.NEW), answers.count(Ownership.OTHER_USER)) == (1, 19)
