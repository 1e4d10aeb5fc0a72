"""The App Store gateway: app receipts by either of Apple's APIs, and signed transactions without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import OTHER_ENVIRONMENT_REFUSED, Genuine, Misconfigured, TryAgain, Unidentified
from receipt_actors.domain.sending import Window
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.otp import Ref
from receipt_actors.pipeline.protocol import (
    DescribeService,
    Done,
    GaveUp,
    ObeyLimits,
    ServiceAvailable,
    ServiceUnavailable,
    VerifyReceipt,
)
from receipt_actors.stores.apple import app_store_gateway
from receipt_actors.stores.apple.app_store_gateway import SIGNED_TRAFFIC_SECONDS, AppStoreGateway
from receipt_actors.stores.apple.ports import UNAUTHORIZED, SignatureRefused
from receipt_actors.stores.apple.referee_gateway import REFUSAL_MEMORY_SECONDS
from receipt_actors.stores.apple.verify_receipt import receipt_api
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from receipt_actors.testing import FakeAppStore, genuine
from tests.pipeline.stand_ins import SOURCE, THREE_ATTEMPTS, Stage, submission
from tests.stores.apple.houses import MAX_IN_FLIGHT, PRODUCTION, SANDBOX, House

# --- app receipts, by verifyReceipt ---


IN_SANDBOX = genuine("t-1", environment=SANDBOX)


@pytest.mark.parametrize(
    ("environments", "answers", "environment", "requests"),
    [
        ([SANDBOX], [genuine("t-1")], PRODUCTION, (1, 0)),
        ([PRODUCTION, SANDBOX], [{"status": 21007}, IN_SANDBOX], SANDBOX, (1, 1)),
        ([PRODUCTION], [{"status": 21007}], None, (1, 0)),
        ([PRODUCTION, SANDBOX], [{"status": 21007}, {"status": 21008}], None, (1, 1)),
    ],
    ids=["production first", "then the sandbox", "where policy allows it", "and back no more"],
)
def test_a_receipt_is_asked_about_where_it_belongs(
    stage: Stage, environments: list[Environment], answers: list[Any], environment: Any, requests: tuple[int, int]
) -> None:
    house = House(stage, *environments)
    house.script(*answers)
    meaning = house.verified()
    if environment is None:
        assert meaning == OTHER_ENVIRONMENT_REFUSED
    else:
        assert meaning.environment is environment
    assert house.requests() == requests


def test_a_redirected_receipt_stays_redirected(stage: Stage) -> None:
    house = House(stage, PRODUCTION, SANDBOX)
    house.script({"status": 21007}, AppStoreUnavailable("503"), {"status": 21002}, IN_SANDBOX)
    assert isinstance(house.verified(), Genuine)
    assert house.requests() == (1, 3)


@pytest.mark.parametrize(("status", "reason"), [(21002, Reason.RECEIPT_MALFORMED), (4711, Reason.UNKNOWN_STATUS)])
def test_malformed_and_unknown_end_as_unanswerable(stage: Stage, status: int, reason: Reason) -> None:
    house = House(stage)
    house.script({"status": status})
    for delivery in (1, 2):
        meaning = house.verified()
        assert isinstance(meaning, TryAgain)
        assert (meaning.reason, meaning.then_unanswerable) == (reason, True)
        assert house.requests() == (3 * delivery, 0)


@pytest.mark.parametrize("status", [21001, 21005, 21009])
def test_apples_own_trouble_is_tried_again(stage: Stage, status: int) -> None:
    house = House(stage)
    house.script({"status": status}, {"status": status}, genuine("t-1"))
    assert isinstance(house.verified(), Genuine)
    house.script({"status": status})
    meaning = house.verified()
    assert isinstance(meaning, GaveUp)
    assert str(status) in meaning.detail


@pytest.mark.parametrize("answer", [{"status": 21005}, {"status": 21199, "is-retryable": "1"}])
def test_an_outage_told_by_status_is_an_outage(stage: Stage, answer: dict[str, object]) -> None:
    house = House(stage)
    for message in range(5):
        house.script(*[answer] * 8, genuine(f"t-{message}"), message=message)
    asking = [house.verify(message=message) for message in range(5)]
    stage.advance(5)
    assert stage.told(house.in_flight, ServiceUnavailable)[0] == ServiceUnavailable("app_store")
    assert not any(stage.replies(each) for each in asking)
    stage.advance(60 * 60)
    assert all(isinstance(stage.reply_to(each), Genuine) for each in asking)


@pytest.mark.parametrize("answer", [{"status": 21005}, AppStoreUnavailable("500")], ids=["by status", "no answer"])
def test_receipts_that_apple_cannot_stomach_are_no_outage(stage: Stage, answer: object) -> None:
    house = House(stage)
    for message in range(1000, 1040):
        house.script(*[answer] * 50, message=message)
    poisoned = [house.verify(message=message) for message in range(1000, 1040)]
    for message in range(60):
        house.script(genuine(f"t-{message}"), message=message)
        assert isinstance(stage.reply_to(house.verify(message=message)), Genuine)
        stage.advance(1)
    assert all(isinstance(stage.reply_to(each), GaveUp) for each in poisoned)
    assert stage.told(house.in_flight, ServiceUnavailable) == []


@pytest.mark.parametrize("status", [21003, 21010, 21100])
def test_a_final_refusal_is_remembered_for_its_message(stage: Stage, status: int) -> None:
    house = House(stage)
    house.script({"status": status}, genuine("t-1"))
    refusal = house.verified()
    assert isinstance(refusal, Unidentified)
    assert house.verified() == refusal
    assert house.requests() == (1, 0)
    house.store.script(submission(2).receipt_data, genuine("t-2"))
    assert isinstance(house.verified(message=2), Genuine)
    stage.advance(REFUSAL_MEMORY_SECONDS)
    assert isinstance(house.verified(), Genuine)


def test_the_rate_may_change_at_any_time(stage: Stage) -> None:
    house = House(stage)
    house.limits.change(Limits(20, 20, 20, 0.1))
    for message in (1, 2, 3):
        house.script(genuine(f"t-{message}"), message=message)
    asking = [house.verify(message=message) for message in (1, 2, 3)]
    answered = [bool(stage.replies(each)) for each in asking]
    assert answered == [True, False, False]
    house.limits.change(Limits(20, 20, 20, 1.0))
    assert stage.reply_to(stage.ask(house.gateway, ObeyLimits())) == Done()
    assert not stage.replies(asking[1])
    stage.advance(1)
    assert [bool(stage.replies(each)) for each in asking] == [True, True, False]
    house.limits.change(Limits(20, 20, 20, 100.0))
    assert stage.reply_to(stage.ask(house.gateway, ObeyLimits())) == Done()
    assert stage.replies(asking[2])


def test_a_burst_opens_few_connections_at_first(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_store_gateway, "Window", lambda: Window(20))
    store: FakeAppStore = stage.with_fake(FakeAppStore())
    limits = LiveLimits(Limits(2000, 20, 2000))
    gateway = stage.actors.start(AppStoreGateway, {SOURCE: receipt_api(store, Policy(None))}, limits, THREE_ATTEMPTS)
    first, second = (store.hold("verify_receipt", times=20 * waves) for waves in (1, 2))
    for number in range(4 * 20):
        stage.ask(gateway, VerifyReceipt(submission(number), SOURCE))
    assert store.count("verify_receipt") == 20
    first.release()
    stage.settle()
    assert store.count("verify_receipt") == 20 + 2 * 20
    second.release()


# --- several sources ---


class Recording(FakeAppStore):
    def __init__(self) -> None:
        super().__init__(lambda _data, _environment: genuine("t-1"))
        self.secrets: list[str | None] = []

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        self.secrets.append(shared_secret)
        return super().verify_receipt(receipt_data, environment)


def test_each_source_has_its_own_secret_and_they_take_turns(stage: Stage) -> None:
    store = stage.with_fake(Recording())
    limits = LiveLimits(Limits(100, 1, 1))
    ways = {SOURCE: receipt_api(store, Policy(None)), "two": receipt_api(store, Policy(None), shared_secret="2")}
    gateway = stage.actors.start(AppStoreGateway, ways, limits, THREE_ATTEMPTS)
    hold = store.hold("verify_receipt")
    asking = [stage.ask(gateway, VerifyReceipt(submission(number), SOURCE)) for number in range(1, 21)]
    late = stage.ask(gateway, VerifyReceipt(submission(30), "two"))
    hold.release()
    store.recover()
    stage.settle()
    assert all(isinstance(stage.reply_to(each), Genuine) for each in [*asking, late])
    assert store.secrets.index("2") <= 2
    assert store.secrets.count(None) == 20


def test_an_operator_is_told_which_sources_secret_to_check(stage: Stage) -> None:
    store = stage.with_fake(FakeAppStore(lambda _data, _environment: {"status": 21004}))
    incidents = stage.stand_in(INCIDENTS)
    api = receipt_api(store, Policy(None), shared_secret="2", of_source="sources.two.")
    limits = LiveLimits(Limits(100, 1, 1))
    gateway = stage.actors.start(AppStoreGateway, {"two": api}, limits, THREE_ATTEMPTS)
    asking = stage.ask(gateway, VerifyReceipt(submission(1), "two"))
    assert isinstance(stage.reply_to(asking), Misconfigured)
    (told,) = stage.told(incidents, Noticed)
    assert told.summary.startswith("Apple refuses our requests, check sources.two.shared_secret and the URLs: ")


# --- app receipts, by the Server API ---


class ServerApiHouse(House):
    def __init__(self, stage: Stage, *environments: Environment) -> None:
        super().__init__(stage, *environments, asks_server_api=True)


def reason_of(meaning: Any) -> Reason:
    assert isinstance(meaning, Unidentified), meaning
    return meaning.reason


def test_the_sandbox_is_asked_for_what_production_does_not_know(stage: Stage) -> None:
    house = ServerApiHouse(stage, PRODUCTION, SANDBOX)
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
    house = ServerApiHouse(stage, *environments)
    for _delivery in range(2):
        assert reason_of(house.verified(house.api.receipt_of("2000"))) is Reason.TRANSACTION_NOT_FOUND
        assert house.requests("2000") == requests


def test_a_receipt_without_an_id_is_refused_without_asking(stage: Stage) -> None:
    house = ServerApiHouse(stage)
    for _delivery in range(2):
        assert reason_of(house.verified("Z2FyYmFnZQ==")) is Reason.NO_TRANSACTION_ID
    assert house.api.count("transaction_id_of") == 1
    assert house.api.count("get_transaction_info") == 0


def test_a_receipt_without_an_id_says_nothing_of_apple(stage: Stage) -> None:
    house = ServerApiHouse(stage)
    house.api.fail("get_transaction_info", AppStoreUnavailable("503"), times=None)
    for message in range(5):
        house.verify(house.api.receipt_of(f"{message}"), message)
    stage.advance(5)
    house.verify("Z2FyYmFnZQ==", message=9)
    stage.advance(5)
    assert stage.told(house.in_flight, ServiceUnavailable)
    assert stage.told(house.in_flight, ServiceAvailable).count(ServiceAvailable("app_store")) == 1  # of the start


@pytest.mark.parametrize("code", [UNAUTHORIZED, 4000002])
def test_a_wrong_key_is_no_verdict(stage: Stage, code: int) -> None:
    house = ServerApiHouse(stage)
    house.api.script("2000", {"errorCode": code})
    assert isinstance(house.verified(house.api.receipt_of("2000")), Misconfigured)
    (noticed,) = stage.told(house.incidents, Noticed)
    assert "check server_api_key" in noticed.summary


def signed_info(house: House, transaction_id: str) -> dict[str, object]:
    return {"signedTransactionInfo": house.apple.sell(transaction_id)}


TOO_MANY = AppStoreUnavailable("HTTP 429", retry_after_seconds=40.0, is_about_the_rate=True)


def test_one_answer_of_too_many_makes_the_whole_gateway_wait(stage: Stage) -> None:
    house = ServerApiHouse(stage)
    house.limits.change(Limits(20, 20, 20, 50.0))
    house.api.fail("get_transaction_info", TOO_MANY)
    first = house.verify(house.api.sell("1"), 1)
    others = [house.verify(house.api.sell(f"{number}"), number) for number in range(2, 6)]
    stage.advance(39)
    assert house.api.count("get_transaction_info") == 1
    stage.advance(10)
    assert all(isinstance(stage.reply_to(each), Genuine) for each in (first, *others))


def test_a_failure_that_has_a_wish_is_about_its_own_message(stage: Stage) -> None:
    """A 503 with a Retry-After: others need not wait, for it may be this message that Apple can't bear."""
    house = ServerApiHouse(stage)
    house.limits.change(Limits(20, 20, 20, 50.0))
    house.api.fail("get_transaction_info", AppStoreUnavailable("HTTP 503", retry_after_seconds=40.0))
    first, second = (house.verify(house.api.sell(f"{number}"), number) for number in (1, 2))
    stage.advance(39)
    assert not stage.replies(first)
    assert isinstance(stage.reply_to(second), Genuine)
    stage.advance(2)
    assert isinstance(stage.reply_to(first), Genuine)


def test_an_answer_that_apple_did_not_sign_is_no_refusal(stage: Stage) -> None:
    house = ServerApiHouse(stage)
    house.api.script("2000", {"signedTransactionInfo": "a.b.c"}, signed_info(house, "2000"))
    assert isinstance(house.verified(house.api.receipt_of("2000")), Genuine)
    assert house.requests("2000") == (2, 0)


@pytest.mark.parametrize("environments", [(PRODUCTION,), (PRODUCTION, SANDBOX)])
@pytest.mark.parametrize("code", [4040010, 4000006, 4040001, 4999999])
def test_where_it_knows_nobody_any_more_that_is_an_outage(
    stage: Stage, environments: tuple[Environment, ...], code: int
) -> None:
    house = ServerApiHouse(stage, *environments)
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


# --- signed transactions ---


class SignatureHouse(House):
    """Answers come at once. verifyReceipt vouches for whatever it is asked about, on threads, and can be lost."""

    pause_seconds = 0.0

    def __init__(self, stage: Stage, *, verifies: bool = True) -> None:
        super().__init__(stage, store=FakeAppStore(lambda *_: genuine("t-1")), verifies=verifies)

    def lose_apple(self, messages: int = 5) -> list[Ref]:
        self.store.fail("verify_receipt", AppStoreUnavailable("503"), times=None)
        asking = [self.verify(message=1000 + number) for number in range(messages)]
        self.stage.advance(10)
        return asking


def test_a_signed_transaction_is_verified_without_apple(stage: Stage) -> None:
    house = SignatureHouse(stage)
    meaning = house.verified(house.apple.sell("2000"))
    assert isinstance(meaning, Genuine)
    assert [each.transaction_id for each in meaning.transactions] == ["2000"]
    assert house.store.count("verify_receipt") == 0


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.startswith("jws_")])
def test_a_signature_that_is_refused_is_final_and_remembered(
    stage: Stage, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = SignatureHouse(stage)
    signed = house.apple.sell("2000")
    monkeypatch.setattr(house.apple, "_verify", lambda *_: SignatureRefused(reason, "says the test"))
    refusals = [house.verified(signed) for _ in range(2)]
    assert all(isinstance(each, Unidentified) and each.reason is reason for each in refusals)
    assert house.apple.count("verify") == 1
    assert house.store.count("verify_receipt") == 0
    house.verified(signed, message=2)
    assert house.apple.count("verify") == 2


def test_a_payload_of_an_unknown_shape_is_unanswerable_at_once(stage: Stage) -> None:
    house = SignatureHouse(stage)
    meaning = house.verified(house.apple.sell("2000", type="Lottery"))
    assert isinstance(meaning, TryAgain)
    assert (meaning.reason, meaning.then_unanswerable) == (Reason.UNKNOWN_STATUS, True)
    assert len(house.noticed(IncidentKind.UNKNOWN_ANSWER)) == 1


def test_no_limit_on_requests_holds_a_signed_transaction_up(stage: Stage) -> None:
    house = SignatureHouse(stage)
    house.limits.change(Limits(MAX_IN_FLIGHT, 20, 1, 0.001))
    with house.store.hold("verify_receipt"):
        first, second = house.verify(message=1), house.verify(message=2)
        assert isinstance(house.verified(house.apple.sell("2000"), message=3), Genuine)
        assert not stage.replies(first)
        assert not stage.replies(second)


def test_an_outage_of_apple_does_not_hold_a_signed_transaction_up(stage: Stage) -> None:
    house = SignatureHouse(stage)
    kept = house.lose_apple()
    assert isinstance(house.verified(house.apple.sell("2000"), message=3), Genuine)
    assert stage.told(house.in_flight, ServiceAvailable).count(ServiceAvailable("app_store")) == 1  # of the start
    assert not any(stage.replies(each) for each in kept)
    house.store.recover()
    stage.advance(60)
    assert all(isinstance(stage.reply_to(each), Genuine) for each in kept)


def test_an_outage_leaves_the_gate_open_while_signed_transactions_come(stage: Stage) -> None:
    house = SignatureHouse(stage)
    house.verified(house.apple.sell("2000"))
    house.lose_apple()
    stage.advance(SIGNED_TRAFFIC_SECONDS / 2)
    assert house.outages() == [False]
    described = stage.reply_to(stage.ask(house.gateway, DescribeService()))  # as a new in_flight asks
    assert described == ServiceUnavailable("app_store", stops_receiving=False)
    stage.advance(SIGNED_TRAFFIC_SECONDS)
    assert house.outages() == [False, True]


def test_the_first_signed_transaction_in_an_outage_opens_the_gate(stage: Stage) -> None:
    house = SignatureHouse(stage)
    house.lose_apple()
    house.verified(house.apple.sell("2000"))
    assert house.outages() == [True, False]


def test_what_apple_did_not_sign_opens_no_gate(stage: Stage) -> None:
    house = SignatureHouse(stage)
    house.verified("eyJh.eyJi.c2ln")
    house.lose_apple()
    house.verified("eyJh.eyJi.c2ln", message=2)
    assert house.outages() == [True]


def test_what_an_outage_keeps_leaves_room_for_signed_transactions(stage: Stage) -> None:
    """Half of what may be in flight; then the gate closes, for more would only wait, and use up deliveries."""
    house = SignatureHouse(stage)
    house.verified(house.apple.sell("2000"))
    house.lose_apple(messages=MAX_IN_FLIGHT // 2 - 1)
    assert house.outages() == [False]
    house.verify(message=1)
    assert house.outages() == [False, True]


def test_what_cannot_be_verified_here_is_left_and_told_once(stage: Stage) -> None:
    house = SignatureHouse(stage)
    missing = ConfigurationError(["signed transactions: found no library, expected the extra storekit2"])
    house.apple.fail("verify", missing, times=None)
    for message in range(3):
        meaning = house.verified(house.apple.sell("2000"), message)
        assert isinstance(meaning, Misconfigured)
        assert "storekit2" in meaning.detail
    (told,) = house.noticed(IncidentKind.CONFIGURATION)
    assert "storekit2" in told
    house.apple.recover()
    assert isinstance(house.verified(house.apple.sell("2000")), Genuine)


def test_a_backend_that_verifies_nothing_leaves_signed_transactions(stage: Stage) -> None:
    house = SignatureHouse(stage, verifies=False)
    assert isinstance(house.verified("eyJh.eyJi.c2ln"), Misconfigured)


def test_an_outage_of_who_verifies_costs_no_delivery(stage: Stage) -> None:
    house = SignatureHouse(stage)
    house.apple.fail("verify", AppStoreUnavailable("no process"), times=None)
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
    house = SignatureHouse(stage)
    house.apple.fail("verify", AppStoreUnavailable("no process"), times=None)
    for number in range(6):
        house.verify(house.apple.sell(str(2000 + number)), number)
    for _ in range(4):
        stage.advance(5)
    assert set(house.outages()) == {False}
    assert isinstance(stage.reply_to(house.verify(message=99)), Genuine)
    for number in range(MAX_IN_FLIGHT // 2):
        house.verify(house.apple.sell(str(3000 + number)), 100 + number)
    for _ in range(4):
        stage.advance(5)
    assert house.outages()[-1]


def test_a_crash_of_who_keeps_signatures_hands_their_messages_back(stage: Stage) -> None:
    house = SignatureHouse(stage)
    house.apple.fail("verify", AppStoreUnavailable("no process"), times=None)
    asking = house.verify(house.apple.sell("2000"))
    stage.crash(house.signatures)
    assert isinstance(stage.reply_to(asking), GaveUp)


def test_signatures_are_counted_beside_the_requests_to_apple(stage: Stage) -> None:
    house = SignatureHouse(stage)
    house.verified(house.apple.sell("2000"))
    calls = stage.counted().calls
    assert calls["signatures"].requests == 1
    assert "app_store" not in calls
