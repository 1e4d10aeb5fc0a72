"""The App Store gateway and the App Store Server API: a transaction that an app receipt names is looked up."""

from __future__ import annotations

from typing import Any

import pytest

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Misconfigured, TryAgain, Unidentified
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.otp import Ref
from receipt_actors.pipeline.protocol import IN_FLIGHT, ServiceAvailable, ServiceUnavailable, VerifyReceipt
from receipt_actors.stores.apple.app_store_gateway import AppStoreGateway
from receipt_actors.stores.apple.ports import UNAUTHORIZED
from receipt_actors.stores.apple.server_api import receipt_api
from receipt_actors.telemetry.incidents import INCIDENTS, Noticed
from receipt_actors.testing import FakeServerApi, FakeSignedData
from tests.pipeline.stand_ins import SOURCE, THREE_ATTEMPTS, Stage, submission

PRODUCTION, SANDBOX = Environment.PRODUCTION, Environment.SANDBOX


class House:
    """A gateway that asks a fake Server API."""

    def __init__(self, stage: Stage, *environments: Environment) -> None:
        self.stage = stage
        self.apple: FakeSignedData = stage.with_fake(FakeSignedData())
        self.api: FakeServerApi = stage.with_fake(FakeServerApi(self.apple))
        self.in_flight = stage.stand_in(IN_FLIGHT)
        self.incidents = stage.stand_in(INCIDENTS)
        policy = Policy(None, environments=frozenset(environments or {PRODUCTION}))
        self.limits = LiveLimits(Limits(20, 20, 20))
        self.gateway: Ref = stage.actors.start(
            AppStoreGateway, {SOURCE: receipt_api(self.api, policy)}, self.limits, THREE_ATTEMPTS, self.apple
        )

    def verify(self, receipt_data: str, message: int = 1) -> Ref:
        return self.stage.ask(self.gateway, VerifyReceipt(submission(message, receipt=receipt_data), SOURCE))

    def verified(self, receipt_data: str, message: int = 1) -> Any:
        asking = self.verify(receipt_data, message)
        self.stage.advance(60)
        return self.stage.reply_to(asking)

    def requests(self, transaction_id: str) -> tuple[int, int]:
        return self.api.requests(transaction_id, PRODUCTION), self.api.requests(transaction_id, SANDBOX)


def reason_of(meaning: Any) -> Reason:
    assert isinstance(meaning, Unidentified), meaning
    return meaning.reason


def test_the_sandbox_is_asked_for_what_production_does_not_know(stage: Stage) -> None:
    """Where policy allows; an id does not say where it comes from."""
    house = House(stage, PRODUCTION, SANDBOX)
    meaning = house.verified(house.api.sell("2000", environment=SANDBOX))
    assert isinstance(meaning, Genuine)
    assert meaning.environment is SANDBOX
    assert house.requests("2000") == (1, 1)


@pytest.mark.parametrize(
    ("environments", "requests"), [((PRODUCTION,), (1, 0)), ((PRODUCTION, SANDBOX), (1, 1)), ((SANDBOX,), (0, 1))]
)
def test_what_nobody_knows_is_refused_for_good(
    stage: Stage, environments: tuple[Environment, ...], requests: tuple[int, int]
) -> None:
    """Each environment that counts is asked once; and nobody at the next delivery."""
    house = House(stage, *environments)
    for _delivery in range(2):
        assert reason_of(house.verified(house.api.receipt_of("2000"))) is Reason.TRANSACTION_NOT_FOUND
        assert house.requests("2000") == requests


def test_a_receipt_without_an_id_is_refused_without_asking(stage: Stage) -> None:
    house = House(stage)
    for _delivery in range(2):
        assert reason_of(house.verified("Z2FyYmFnZQ==")) is Reason.NO_TRANSACTION_ID
    assert house.api.count("transaction_id_of") == 1
    assert house.api.count("get_transaction_info") == 0


def test_a_receipt_without_an_id_says_nothing_of_apple(stage: Stage) -> None:
    house = House(stage)
    house.api.fail("get_transaction_info", AppStoreUnavailable("503"), times=None)
    for message in range(5):
        house.verify(house.api.receipt_of(f"{message}"), message)
    stage.advance(5)
    house.verify("Z2FyYmFnZQ==", message=9)
    stage.advance(5)
    assert stage.told(house.in_flight, ServiceUnavailable)
    assert stage.told(house.in_flight, ServiceAvailable) == [ServiceAvailable("app_store")]  # of the start


@pytest.mark.parametrize("code", [UNAUTHORIZED, 4000002])
def test_a_wrong_key_is_no_verdict(stage: Stage, code: int) -> None:
    house = House(stage)
    house.api.script("2000", {"errorCode": code})
    assert isinstance(house.verified(house.api.receipt_of("2000")), Misconfigured)
    (noticed,) = stage.told(house.incidents, Noticed)
    assert "check server_api_key" in noticed.summary


def signed_info(house: House, transaction_id: str) -> dict[str, object]:
    return {"signedTransactionInfo": house.apple.sell(transaction_id)}


TOO_MANY = AppStoreUnavailable("HTTP 429", retry_after_seconds=40.0, is_about_the_rate=True)


def test_one_answer_of_too_many_makes_the_whole_gateway_wait(stage: Stage) -> None:
    """A 429 says when to come back; until then nobody is asked, whatever the message."""
    house = House(stage)
    house.limits.change(Limits(20, 20, 20, 50.0))
    house.api.fail("get_transaction_info", TOO_MANY)
    first = house.verify(house.api.sell("1"), 1)
    others = [house.verify(house.api.sell(f"{number}"), number) for number in range(2, 6)]
    stage.advance(39)
    assert house.api.count("get_transaction_info") == 1
    stage.advance(10)
    assert all(isinstance(stage.reply_to(each), Genuine) for each in (first, *others))


def test_many_answers_of_too_many_are_waited_out(stage: Stage) -> None:
    """They were under way when the first one came; nothing is lost, and nobody is asked before the time."""
    house = House(stage)
    house.limits.change(Limits(20, 20, 20, 50.0))
    with house.api.hold("get_transaction_info", times=5, then=TOO_MANY):
        asking = [house.verify(house.api.sell(f"{number}"), number) for number in range(8)]
    stage.settle()
    asked = house.api.count("get_transaction_info")
    stage.advance(39)
    assert house.api.count("get_transaction_info") == asked
    stage.advance(60)
    assert all(isinstance(stage.reply_to(each), Genuine) for each in asking)


def test_a_failure_that_has_a_wish_is_about_its_own_message(stage: Stage) -> None:
    """A 503 with a Retry-After: others need not wait, for it may be this message that Apple can't bear."""
    house = House(stage)
    house.limits.change(Limits(20, 20, 20, 50.0))
    house.api.fail("get_transaction_info", AppStoreUnavailable("HTTP 503", retry_after_seconds=40.0))
    first, second = (house.verify(house.api.sell(f"{number}"), number) for number in (1, 2))
    stage.advance(39)
    assert not stage.replies(first)
    assert isinstance(stage.reply_to(second), Genuine)
    stage.advance(2)
    assert isinstance(stage.reply_to(first), Genuine)


def test_another_transaction_than_was_asked_for_is_no_verdict(stage: Stage) -> None:
    """Whoever answers: the ledger must not be asked for what nobody sent."""
    house = House(stage)
    house.api.script("2000", signed_info(house, "3000"))
    assert isinstance(house.verified(house.api.receipt_of("2000")), TryAgain)


def test_an_answer_that_apple_did_not_sign_is_no_refusal(stage: Stage) -> None:
    """The fault is with whoever answered, not with the receipt; it may be put right at the next try."""
    house = House(stage)
    house.api.script("2000", {"signedTransactionInfo": "a.b.c"}, signed_info(house, "2000"))
    assert isinstance(house.verified(house.api.receipt_of("2000")), Genuine)
    assert house.requests("2000") == (2, 0)


@pytest.mark.parametrize("environments", [(PRODUCTION,), (PRODUCTION, SANDBOX)])
@pytest.mark.parametrize("code", [4040010, 4000006, 4040001, 4999999])
def test_where_it_knows_nobody_any_more_that_is_an_outage(
    stage: Stage, environments: tuple[Environment, ...], code: int
) -> None:
    """It does not find what it had found before either: nobody is refused, and all are found when it is over."""
    house = House(stage, *environments)
    ids = [str(number) for number in range(2000, 2010)]
    receipts = [house.api.sell(each) for each in ids]
    assert isinstance(house.verified(receipts[0], 0), Genuine)
    for each in ids:
        house.api.script(each, {"errorCode": code})
    asking = [house.verify(receipts[number], number) for number in range(1, 10)]
    stage.advance(60)
    assert [stage.replies(each) for each in asking] == [[]] * 9
    assert stage.told(house.in_flight, ServiceUnavailable)
    for each in ids:
        house.api.script(each, signed_info(house, each))
    stage.advance(60)
    assert [type(stage.reply_to(each)) for each in asking] == [Genuine] * 9
