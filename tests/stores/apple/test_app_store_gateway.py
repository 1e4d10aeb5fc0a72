"""The App Store gateway: redirects, retries, and the memory of final refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import OTHER_ENVIRONMENT_REFUSED, Genuine, Misconfigured, TryAgain, Unidentified
from receipt_actors.domain.sending import Window
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.otp import Ref
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    Broken,
    Done,
    GaveUp,
    ObeyLimits,
    ServiceUnavailable,
    VerifyReceipt,
)
from receipt_actors.stores.apple import app_store_gateway
from receipt_actors.stores.apple.app_store_gateway import REFUSAL_MEMORY_SECONDS, AppStoreGateway
from receipt_actors.stores.apple.asking import by_verify_receipt
from receipt_actors.telemetry.incidents import INCIDENTS, Noticed
from receipt_actors.testing import FakeAppStore, genuine
from tests.pipeline.stand_ins import SOURCE, THREE_ATTEMPTS, Stage, submission

PRODUCTION, SANDBOX = Environment.PRODUCTION, Environment.SANDBOX


class AtOnce(FakeAppStore):
    """A fake App Store with ``AppStoreTransfers``: the outcome is there before ``begin`` returns."""

    def begin(self, receipt_data: str, environment: Environment, done: Callable[[Any], object]) -> None:
        try:
            outcome: Any = self.verify_receipt(receipt_data, environment)
        except Exception as error:  # noqa: BLE001 # whatever the test has ordered
            outcome = error
        done(outcome)


class House:
    """A gateway to a fake App Store, in which a given policy rules."""

    has_transfers = False

    def __init__(self, stage: Stage, *environments: Environment) -> None:
        self.stage = stage
        self.store: FakeAppStore = stage.with_fake(AtOnce() if self.has_transfers else FakeAppStore())
        self.in_flight = stage.stand_in(IN_FLIGHT)
        policy = Policy(None, environments=frozenset(environments or {PRODUCTION}))
        self.limits = LiveLimits(Limits(20, 20, 20))
        self.gateway: Ref = stage.actors.start(
            AppStoreGateway, {SOURCE: by_verify_receipt(self.store, policy)}, self.limits, THREE_ATTEMPTS
        )

    def script(self, *answers: Any, message: int = 1) -> None:
        self.store.script(submission(message).receipt_data, *answers)

    def requests(self, message: int = 1) -> tuple[int, int]:
        receipt_data = submission(message).receipt_data
        return self.store.requests(receipt_data, PRODUCTION), self.store.requests(receipt_data, SANDBOX)

    def verify(self, message: int = 1) -> Ref:
        return self.stage.ask(self.gateway, VerifyReceipt(submission(message), SOURCE))

    def verified(self, message: int = 1) -> Any:
        asking = self.verify(message)
        self.stage.advance(60)
        return self.stage.reply_to(asking)


@pytest.fixture(autouse=True, params=["threads", "transfers"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way the App Store is asked, the gateway does the same."""
    monkeypatch.setattr(House, "has_transfers", request.param == "transfers")


def test_production_is_asked_first(stage: Stage) -> None:
    house = House(stage, SANDBOX)
    house.script(genuine("t-1"))
    meaning = house.verified()
    assert isinstance(meaning, Genuine)
    assert [each.transaction_id for each in meaning.transactions] == ["t-1"]
    assert house.requests() == (1, 0)


def test_a_sandbox_receipt_is_sent_to_the_sandbox_where_policy_allows(stage: Stage) -> None:
    """21007 is what production says of a receipt of App Review or TestFlight."""
    house = House(stage, PRODUCTION, SANDBOX)
    house.script({"status": 21007}, genuine("t-1", environment=SANDBOX))
    assert house.verified().environment is SANDBOX
    assert house.requests() == (1, 1)


def test_a_sandbox_receipt_is_refused_where_policy_does_not_allow_it(stage: Stage) -> None:
    house = House(stage, PRODUCTION)
    house.script({"status": 21007})
    assert house.verified() == OTHER_ENVIRONMENT_REFUSED
    assert house.requests() == (1, 0)


def test_a_receipt_is_redirected_once(stage: Stage) -> None:
    """Two endpoints that send it to each other do so for ever."""
    house = House(stage, PRODUCTION, SANDBOX)
    house.script({"status": 21007}, {"status": 21008})
    assert house.verified() == OTHER_ENVIRONMENT_REFUSED
    assert house.requests() == (1, 1)


def test_a_redirected_receipt_stays_redirected(stage: Stage) -> None:
    """A retry goes to the sandbox, not to production again."""
    house = House(stage, PRODUCTION, SANDBOX)
    house.script({"status": 21007}, AppStoreUnavailable("503"), {"status": 21002}, genuine("t-1", environment=SANDBOX))
    assert isinstance(house.verified(), Genuine)
    assert house.requests() == (1, 3)


def test_malformed_is_asked_again_before_it_counts(stage: Stage) -> None:
    """21002 is a temporary problem as often as a malformed receipt."""
    house = House(stage)
    house.script({"status": 21002}, {"status": 21002}, genuine("t-1"))
    assert isinstance(house.verified(), Genuine)


@pytest.mark.parametrize(("status", "reason"), [(21002, Reason.RECEIPT_MALFORMED), (4711, Reason.UNKNOWN_STATUS)])
def test_malformed_and_unknown_end_as_unanswerable(stage: Stage, status: int, reason: Reason) -> None:
    """After three attempts; and they are asked anew at the next delivery, for they may have been wrong."""
    house = House(stage)
    house.script({"status": status})
    for delivery in (1, 2):
        meaning = house.verified()
        assert isinstance(meaning, TryAgain)
        assert (meaning.reason, meaning.then_unanswerable) == (reason, True)
        assert house.requests() == (3 * delivery, 0)


def test_a_wrong_secret_is_no_verdict(stage: Stage) -> None:
    house = House(stage)
    house.script({"status": 21004})
    assert isinstance(house.verified(), Misconfigured)


@pytest.mark.parametrize("status", [21001, 21005, 21009])
def test_apples_own_trouble_is_tried_again(stage: Stage, status: int) -> None:
    """And is given up for this delivery, with no verdict, if it lasts."""
    house = House(stage)
    house.script({"status": status}, {"status": status}, genuine("t-1"))
    assert isinstance(house.verified(), Genuine)
    house.script({"status": status})
    meaning = house.verified()
    assert isinstance(meaning, GaveUp)
    assert str(status) in meaning.detail


@pytest.mark.parametrize("answer", [{"status": 21005}, {"status": 21199, "is-retryable": "1"}])
def test_an_outage_told_by_status_is_an_outage(stage: Stage, answer: dict[str, object]) -> None:
    """Apple saying to everybody that it is unavailable closes the gate as a connection error does; nothing is lost."""
    house = House(stage)
    for message in range(5):
        house.script(*[answer] * 8, genuine(f"t-{message}"), message=message)
    asking = [house.verify(message) for message in range(5)]
    stage.advance(5)
    assert stage.told(house.in_flight, ServiceUnavailable)[0] == ServiceUnavailable("app_store")
    assert not any(stage.replies(each) for each in asking)
    stage.advance(60 * 60)
    assert all(isinstance(stage.reply_to(each), Genuine) for each in asking)


@pytest.mark.parametrize("answer", [{"status": 21005}, AppStoreUnavailable("500")], ids=["by status", "no answer"])
def test_receipts_that_apple_cannot_stomach_are_no_outage(stage: Stage, answer: object) -> None:
    """Forty of them: honest ones are answered at once, and those end with their delivery."""
    house = House(stage)
    for message in range(1000, 1040):
        house.script(*[answer] * 50, message=message)
    poisoned = [house.verify(message) for message in range(1000, 1040)]
    for message in range(60):
        house.script(genuine(f"t-{message}"), message=message)
        assert isinstance(stage.reply_to(house.verify(message)), Genuine)
        stage.advance(1)
    assert all(isinstance(stage.reply_to(each), GaveUp) for each in poisoned)
    assert stage.told(house.in_flight, ServiceUnavailable) == []


def test_many_malformed_receipts_are_no_outage(stage: Stage) -> None:
    """Anybody can send those; they must not stop the others (``test_refusals`` has what becomes of them)."""
    house = House(stage)
    for message in range(20):
        house.script({"status": 21002}, message=message)
        house.verify(message)
    stage.advance(60)
    assert not any(told.stops_receiving for told in stage.told(house.in_flight, ServiceUnavailable))


@pytest.mark.parametrize("status", [21003, 21010, 21100])
def test_a_final_refusal_is_remembered_for_its_message(stage: Stage, status: int) -> None:
    """Apple is asked once, not once a delivery: storms of invalid receipts get a caller refused."""
    house = House(stage)
    house.script({"status": status}, genuine("t-1"))
    refusal = house.verified()
    assert isinstance(refusal, Unidentified)
    assert house.verified() == refusal
    assert house.requests() == (1, 0)


def test_a_refusal_is_forgotten_after_a_while(stage: Stage) -> None:
    house = House(stage)
    house.script({"status": 21003}, genuine("t-1"))
    house.verified()
    stage.advance(REFUSAL_MEMORY_SECONDS)
    assert isinstance(house.verified(), Genuine)


def test_a_refusal_counts_for_its_own_message_only(stage: Stage) -> None:
    """The same receipt in another message is asked about again."""
    house = House(stage)
    house.script({"status": 21003}, genuine("t-1"))
    house.verified()
    house.store.script(submission(2).receipt_data, genuine("t-2"))
    assert isinstance(house.verified(2), Genuine)


@pytest.mark.parametrize("answer", [{}, {"status": 0}, {"status": "0"}, {"status": 0, "receipt": {"in_app": 7}}])
def test_an_answer_that_makes_no_sense_is_no_verdict(stage: Stage, answer: dict[str, object]) -> None:
    """Whatever comes back, the gateway lives and the message ends as unanswerable."""
    house = House(stage)
    house.script(answer)
    meaning = house.verified()
    assert isinstance(meaning, TryAgain)
    assert meaning.then_unanswerable
    assert house.gateway.is_alive()


def test_a_bug_in_the_client_is_passed_on(stage: Stage) -> None:
    """It crashes the validator that asked, not the gateway."""
    house = House(stage)
    house.script(KeyError("bug"))
    assert isinstance(house.verified(), Broken)
    assert house.gateway.is_alive()


def test_the_rate_may_change_at_any_time(stage: Stage) -> None:
    """What waits for a slow rate does not wait on when it becomes a faster one: it waits for the new one."""
    house = House(stage)
    house.limits.change(Limits(20, 20, 20, 0.1))
    for message in (1, 2, 3):
        house.script(genuine(f"t-{message}"), message=message)
    asking = [house.verify(message) for message in (1, 2, 3)]
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
    """As many as the window's first size; each answer that comes while all are in use makes room for one more."""
    monkeypatch.setattr(app_store_gateway, "Window", lambda: Window(20))
    store: FakeAppStore = stage.with_fake(FakeAppStore())
    limits = LiveLimits(Limits(2000, 20, 2000))
    gateway = stage.actors.start(
        AppStoreGateway, {SOURCE: by_verify_receipt(store, Policy(None))}, limits, THREE_ATTEMPTS
    )
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
    """Keeps the secrets that come with receipts."""

    def __init__(self) -> None:
        super().__init__(lambda _data, _environment: genuine("t-1"))
        self.secrets: list[str | None] = []

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        self.secrets.append(shared_secret)
        return super().verify_receipt(receipt_data, environment)


def test_each_source_has_its_own_secret_and_they_take_turns(stage: Stage) -> None:
    """One request at a time: twenty receipts of the first source wait, and the second's is the next but one."""
    store = stage.with_fake(Recording())
    limits = LiveLimits(Limits(100, 1, 1))
    ways = {
        SOURCE: by_verify_receipt(store, Policy(None)),
        "two": by_verify_receipt(store, Policy(None), shared_secret="2"),
    }
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
    """Apple refuses our requests for one of several apps."""
    store = stage.with_fake(FakeAppStore(lambda _data, _environment: {"status": 21004}))
    incidents = stage.stand_in(INCIDENTS)
    way = by_verify_receipt(store, Policy(None), shared_secret="2", of_source="sources.two.")
    limits = LiveLimits(Limits(100, 1, 1))
    gateway = stage.actors.start(AppStoreGateway, {"two": way}, limits, THREE_ATTEMPTS)
    stage.ask(gateway, VerifyReceipt(submission(1), "two"))
    (told,) = stage.told(incidents, Noticed)
    assert told.summary.startswith("Apple refuses our requests, check sources.two.shared_secret and the URLs: ")
