"""The App Store gateway and signed transactions: verified without Apple, whatever befalls Apple."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Misconfigured, TryAgain, Unidentified
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.otp import Ref
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    SIGNATURE_GATEWAY,
    DescribeService,
    GaveUp,
    ServiceAvailable,
    ServiceUnavailable,
    VerifyReceipt,
)
from receipt_actors.stores.apple.app_store_gateway import SIGNED_TRAFFIC_SECONDS, AppStoreGateway
from receipt_actors.stores.apple.asking import by_verify_receipt
from receipt_actors.stores.apple.ports import SignatureRefused
from receipt_actors.stores.apple.signature_gateway import SignatureGateway
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from receipt_actors.testing import FakeAppStore, FakeSignedData, genuine
from tests.pipeline.stand_ins import SOURCE, THREE_ATTEMPTS, Stage, submission

MAX_IN_FLIGHT = 20


class Refusing(FakeSignedData):
    """Refuses what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self._refused: dict[str, SignatureRefused] = {}

    def refuse(self, signed: str, reason: Reason) -> None:
        self._refused[signed] = SignatureRefused(reason, "says the test")

    def verify_transaction(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        found = super().verify_transaction(signed)
        return self._refused.get(signed, found)


class House:
    """A gateway with somebody who verifies signatures."""

    def __init__(self, stage: Stage, *, verifies: bool = True) -> None:
        self.stage = stage
        self.store: FakeAppStore = stage.with_fake(FakeAppStore(lambda _data, _environment: genuine("t-1")))
        self.apple: Refusing = stage.with_fake(Refusing())
        self.in_flight = stage.stand_in(IN_FLIGHT)
        self.incidents = stage.stand_in(INCIDENTS)
        self.limits = LiveLimits(Limits(MAX_IN_FLIGHT, 20, 20))
        self.gateway: Ref = stage.actors.start(
            AppStoreGateway,
            {SOURCE: by_verify_receipt(self.store, Policy(None))},
            self.limits,
            THREE_ATTEMPTS,
            self.apple if verifies else None,
        )
        self.signatures: Ref = stage.actors.start(
            SignatureGateway, self.apple, self.limits, THREE_ATTEMPTS, name=SIGNATURE_GATEWAY
        )

    def verify(self, signed: str, message: int = 1) -> Ref:
        return self.stage.ask(self.gateway, VerifyReceipt(submission(message, receipt=signed), SOURCE))

    def verified(self, signed: str, message: int = 1) -> Any:
        return self.stage.reply_to(self.verify(signed, message))

    def ask_apple(self, message: int) -> Ref:
        return self.stage.ask(self.gateway, VerifyReceipt(submission(message), SOURCE))

    def lose_apple(self, messages: int = 5) -> list[Ref]:
        """Let the breaker open, and more."""
        self.store.fail("verify_receipt", AppStoreUnavailable("503"), times=None)
        asking = [self.ask_apple(1000 + number) for number in range(messages)]
        self.stage.advance(10)
        return asking

    def outages(self) -> list[bool]:
        """Return what ``in_flight`` was told of outages, change by change: whether each closes the gate."""
        told = [outage.stops_receiving for outage in self.stage.told(self.in_flight, ServiceUnavailable)]
        return [each for index, each in enumerate(told) if index == 0 or told[index - 1] is not each]

    def noticed(self, kind: IncidentKind) -> list[str]:
        return [each.summary for each in self.stage.told(self.incidents, Noticed) if each.kind is kind]


def test_a_signed_transaction_is_verified_without_apple(stage: Stage) -> None:
    """Its payload says what verifyReceipt would, and more."""
    house = House(stage)
    meaning = house.verified(house.apple.sell("2000"))
    assert isinstance(meaning, Genuine)
    assert [each.transaction_id for each in meaning.transactions] == ["2000"]
    assert house.store.count("verify_receipt") == 0


def test_a_clock_that_is_behind_refuses_nothing(stage: Stage) -> None:
    """A date that Apple has signed and that is yet to come here: each message is handed back, one incident tells."""
    house = House(stage)
    signed = house.apple.sell("2000", signedDate=2_460_000_000_000)  # 2047
    for _ in range(2):
        assert isinstance(house.verified(signed), Misconfigured)
    (told,) = house.noticed(IncidentKind.CONFIGURATION)
    assert "clock of this machine" in told
    assert house.apple.count("verify_transaction") == 2


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.startswith("jws_")])
def test_a_signature_that_is_refused_is_final_and_remembered(stage: Stage, reason: Reason) -> None:
    """A crackers' flood costs one verification a message, and Apple nothing."""
    house = House(stage)
    signed = house.apple.sell("2000")
    house.apple.refuse(signed, reason)
    refusals = [house.verified(signed) for _ in range(2)]
    assert all(isinstance(each, Unidentified) and each.reason is reason for each in refusals)
    assert house.apple.count("verify_transaction") == 1
    assert house.store.count("verify_receipt") == 0
    house.verified(signed, message=2)
    assert house.apple.count("verify_transaction") == 2


def test_a_payload_of_an_unknown_shape_is_unanswerable_at_once(stage: Stage) -> None:
    """To verify the same bytes again would change nothing; an operator hears of it."""
    house = House(stage)
    meaning = house.verified(house.apple.sell("2000", type="Lottery"))
    assert isinstance(meaning, TryAgain)
    assert (meaning.reason, meaning.then_unanswerable) == (Reason.UNKNOWN_STATUS, True)
    assert len(house.noticed(IncidentKind.UNKNOWN_ANSWER)) == 1


def test_no_limit_on_requests_holds_a_signed_transaction_up(stage: Stage) -> None:
    """Neither the rate nor the requests under way: it is none of them."""
    house = House(stage)
    house.limits.change(Limits(MAX_IN_FLIGHT, 20, 1, 0.001))
    with house.store.hold("verify_receipt"):
        first, second = house.ask_apple(1), house.ask_apple(2)
        assert isinstance(house.verified(house.apple.sell("2000"), message=3), Genuine)
        assert not stage.replies(first)
        assert not stage.replies(second)


def test_an_outage_of_apple_does_not_hold_a_signed_transaction_up(stage: Stage) -> None:
    """And it says nothing of whether the outage is over: what is kept stays kept, until Apple answers."""
    house = House(stage)
    kept = house.lose_apple()
    assert isinstance(house.verified(house.apple.sell("2000"), message=3), Genuine)
    assert stage.told(house.in_flight, ServiceAvailable).count(ServiceAvailable("app_store")) == 1  # of the start
    assert not any(stage.replies(each) for each in kept)
    house.store.recover()
    stage.advance(60)
    assert all(isinstance(stage.reply_to(each), Genuine) for each in kept)


def test_an_outage_closes_the_gate_where_no_signed_transactions_come(stage: Stage) -> None:
    """Everything that could come would wait for Apple."""
    house = House(stage)
    house.lose_apple()
    assert house.outages() == [True]


def test_an_outage_leaves_the_gate_open_while_signed_transactions_come(stage: Stage) -> None:
    """They must get in. A while after the last one nobody expects another."""
    house = House(stage)
    house.verified(house.apple.sell("2000"))
    house.lose_apple()
    stage.advance(SIGNED_TRAFFIC_SECONDS / 2)
    assert house.outages() == [False]
    stage.advance(SIGNED_TRAFFIC_SECONDS)
    assert house.outages() == [False, True]


def test_the_first_signed_transaction_in_an_outage_opens_the_gate(stage: Stage) -> None:
    """The one that was let in to try whether Apple is back, say."""
    house = House(stage)
    house.lose_apple()
    house.verified(house.apple.sell("2000"))
    assert house.outages() == [True, False]


def test_what_apple_did_not_sign_opens_no_gate(stage: Stage) -> None:
    house = House(stage)
    house.verified("eyJh.eyJi.c2ln")
    house.lose_apple()
    house.verified("eyJh.eyJi.c2ln", message=2)
    assert house.outages() == [True]


def test_what_an_outage_keeps_leaves_room_for_signed_transactions(stage: Stage) -> None:
    """Half of what may be in flight; then the gate closes, for more would only wait, and use up deliveries."""
    house = House(stage)
    house.verified(house.apple.sell("2000"))
    house.lose_apple(messages=MAX_IN_FLIGHT // 2 - 1)
    assert house.outages() == [False]
    house.ask_apple(1)
    assert house.outages() == [False, True]


def test_a_new_in_flight_hears_whether_the_gate_is_open(stage: Stage) -> None:
    house = House(stage)
    house.verified(house.apple.sell("2000"))
    house.lose_apple()
    asking = stage.ask(house.gateway, DescribeService())
    assert stage.reply_to(asking) == ServiceUnavailable("app_store", stops_receiving=False)


def test_what_cannot_be_verified_here_is_left_and_told_once(stage: Stage) -> None:
    """The extra is not installed: no verdict, and no alarm for each message."""
    house = House(stage)
    missing = ConfigurationError(["signed transactions: found no library, expected the extra storekit2"])
    house.apple.fail("verify_transaction", missing, times=None)
    for message in range(3):
        meaning = house.verified(house.apple.sell("2000"), message)
        assert isinstance(meaning, Misconfigured)
        assert "storekit2" in meaning.detail
    (told,) = house.noticed(IncidentKind.CONFIGURATION)
    assert "storekit2" in told
    house.apple.recover()
    assert isinstance(house.verified(house.apple.sell("2000")), Genuine)


def test_a_backend_that_verifies_nothing_leaves_signed_transactions(stage: Stage) -> None:
    """An application that embeds the house may bring its own."""
    house = House(stage, verifies=False)
    assert isinstance(house.verified("eyJh.eyJi.c2ln"), Misconfigured)


def test_who_verifies_may_be_unavailable(stage: Stage) -> None:
    """Its processes have died, say: it is asked again."""
    house = House(stage)
    house.apple.fail("verify_transaction", AppStoreUnavailable("no process"))
    assert isinstance(house.verified(house.apple.sell("2000")), Genuine)


def test_an_outage_of_who_verifies_costs_no_delivery(stage: Stage) -> None:
    """No process can be started: messages are kept, it is told once, and all go on when it is over."""
    house = House(stage)
    house.apple.fail("verify_transaction", AppStoreUnavailable("no process"), times=None)
    asking = [house.verify(house.apple.sell(str(2000 + number)), number) for number in range(8)]
    for _ in range(30):
        stage.advance(5)
    assert [stage.replies(each) for each in asking] == [[]] * len(asking)
    (outage,) = house.noticed(IncidentKind.OUTAGE)
    assert "signatures is unavailable" in outage
    assert {each.service for each in stage.told(house.in_flight, ServiceUnavailable)} == {"signatures"}
    house.apple.recover()
    for _ in range(3):
        stage.advance(5)
    assert all(isinstance(stage.reply_to(each), Genuine) for each in asking)
    assert house.noticed(IncidentKind.RECOVERED) == ["signatures is available again"]


def test_app_receipts_go_on_while_nothing_can_be_verified(stage: Stage) -> None:
    """The gate stays open for them, until what is kept has half of the room."""
    house = House(stage)
    house.apple.fail("verify_transaction", AppStoreUnavailable("no process"), times=None)
    for number in range(6):
        house.verify(house.apple.sell(str(2000 + number)), number)
    for _ in range(4):
        stage.advance(5)
    assert set(house.outages()) == {False}
    assert isinstance(stage.reply_to(house.ask_apple(99)), Genuine)
    for number in range(MAX_IN_FLIGHT // 2):
        house.verify(house.apple.sell(str(3000 + number)), 100 + number)
    for _ in range(4):
        stage.advance(5)
    assert house.outages()[-1]


def test_a_crash_of_who_keeps_signatures_hands_their_messages_back(stage: Stage) -> None:
    """Whoever waited is told, and the message comes back."""
    house = House(stage)
    house.apple.fail("verify_transaction", AppStoreUnavailable("no process"), times=None)
    asking = house.verify(house.apple.sell("2000"))
    stage.crash(house.signatures)
    assert isinstance(stage.reply_to(asking), GaveUp)


def test_signatures_are_counted_beside_the_requests_to_apple(stage: Stage) -> None:
    house = House(stage)
    house.verified(house.apple.sell("2000"))
    calls = stage.counted().calls
    assert calls["signatures"].requests == 1
    assert "app_store" not in calls
