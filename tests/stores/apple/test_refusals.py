"""Refusals of Apple that may be wrong: held, checked by controls, and in an outage asked again when it is over."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Unidentified
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.otp import sys as otp_sys
from receipt_actors.pipeline.protocol import DescribeService, GaveUp, ServiceAvailable, ServiceUnavailable
from receipt_actors.telemetry.incidents import IncidentKind
from receipt_actors.testing import FakeAppStore, genuine, receipt_data_of
from tests.pipeline.stand_ins import Stage, submission
from tests.stores.apple.houses import House as GatewayHouse

FORGED = 1000  #: whose number is higher sends forgeries
LONG = 60.0


class House(GatewayHouse):
    """An App Store that knows the receipts of the users below ``FORGED`` and can be out of order."""

    def __init__(self, stage: Stage, *, max_in_flight: int = 100) -> None:
        store = FakeAppStore(self._answer)
        super().__init__(stage, *Environment, store=store, verifies=False, max_in_flight=max_in_flight)
        self.fault: Mapping[str, object] | Exception | None = None
        self.bad: set[int] = set()  # users whose receipts are refused by now
        self.known = {receipt_data_of(f"receipt {number}"): number for number in range(FORGED)}

    def _answer(self, receipt_data: str, _environment: Environment) -> Mapping[str, object] | BaseException:
        number = self.known.get(receipt_data)
        if self.fault is not None:
            return self.fault
        return {"status": 21003} if number is None or number in self.bad else genuine(f"t-{number}")

    def asked(self, number: int) -> int:
        return self.store.requests(submission(number).receipt_data)

    def told(self) -> list[object]:
        return [*self.stage.told(self.in_flight, object)][1:]


def test_a_refusal_stands_once_apple_vouches_for_somebody_else(stage: Stage) -> None:
    house = House(stage)
    house.verified(message=1)
    asking = house.verify(message=FORGED)
    assert stage.replies(asking) == []
    house.verify(message=2)
    assert isinstance(stage.reply_to(asking), Unidentified)
    assert house.store.count("verify_receipt") == 3


def test_a_refusal_in_the_quiet_stands_once_a_control_is_vouched_for(stage: Stage) -> None:
    house = House(stage)
    house.verified(message=1)
    assert house.verified(message=FORGED) == Unidentified(Reason.NOT_AUTHENTIC)
    assert (house.asked(1), house.asked(FORGED)) == (2, 1)
    stage.advance(LONG)
    assert house.store.count("verify_receipt") == 3
    assert house.told() == []


@pytest.mark.parametrize("status", [21002, 21003, 21010, 21100, 4711])
def test_where_apple_refuses_everybody_all_are_kept(stage: Stage, status: int) -> None:
    house = House(stage)
    house.verified(message=1)
    house.fault = {"status": status}
    asking = [house.verify(message=number) for number in range(10, 50)]
    stage.advance(2)
    assert ServiceUnavailable("app_store") in house.told()
    before = house.store.count("verify_receipt")
    stage.advance(600)
    assert house.store.count("verify_receipt") - before < 600, "a control and a message at each try, as rare as ever"
    assert [stage.replies(each) for each in asking] == [[]] * 40
    house.fault = None
    stage.advance(LONG)
    assert [isinstance(stage.reply_to(each), Genuine) for each in asking] == [True] * 40
    assert house.told()[-1] == ServiceAvailable("app_store")
    assert len(house.noticed(IncidentKind.OUTAGE)) == len(house.noticed(IncidentKind.RECOVERED)) == 1


def test_in_such_an_outage_nothing_is_held_against_a_message(stage: Stage) -> None:
    house = House(stage)
    house.verified(message=1)
    house.fault = {"status": 21003}
    hold = house.store.hold("verify_receipt", times=1)
    late = house.verify(message=2)
    hold.wait_for_call()
    for number in range(10, 20):
        house.verify(message=number)
    stage.advance(2)
    assert ServiceUnavailable("app_store") in house.told()
    hold.release()
    stage.advance(2)
    assert otp_sys.describe_state(house.gateway)["suspects"] == 0
    house.fault = None
    stage.advance(LONG)
    assert isinstance(stage.reply_to(late), Genuine)


def test_a_storm_of_forgeries_neither_closes_the_gate_nor_gets_retries(stage: Stage) -> None:
    house = House(stage)
    house.verified(message=1)
    asking = []
    for number in range(2, 12):
        asking += [house.verify(message=FORGED + 19 * number + more) for more in range(19)]
        honest = house.verify(message=number)
        assert isinstance(stage.reply_to(honest), Genuine), "at once"
        stage.advance(0.1)
    stage.advance(1)
    assert {stage.reply_to(each) for each in asking} == {Unidentified(Reason.NOT_AUTHENTIC)}
    assert {house.asked(FORGED + 19 * number + more) for number in range(2, 12) for more in range(19)} == {1}
    assert house.store.count("verify_receipt") - 201 < 10, "controls"
    assert house.told() == []


def test_a_storm_after_which_nobody_comes_is_settled_by_a_control(stage: Stage) -> None:
    house = House(stage)
    house.verified(message=1)
    asking = [house.verify(message=FORGED + number) for number in range(100)]
    stage.advance(0.5)
    assert {stage.reply_to(each) for each in asking} == {Unidentified(Reason.NOT_AUTHENTIC)}


def test_a_fresh_start_into_an_outage_holds_what_is_refused(stage: Stage) -> None:
    """There is no control. ``in_flight`` stays open, for an honest message would be one, and is told what waits."""
    house = House(stage)
    house.fault = {"status": 21002}
    asking = [house.verify(message=number) for number in range(10)]
    stage.advance(50)
    assert [stage.replies(each) for each in asking] == [[]] * 10
    assert house.told() == [ServiceUnavailable("app_store", stops_receiving=False)]
    assert stage.reply_to(stage.ask(house.gateway, DescribeService())) == house.told()[0]
    assert house.store.count("verify_receipt") < 10 * 3 + 50 / 5 + 2, "one of them, every five seconds"
    house.fault = None
    stage.advance(10)
    assert [isinstance(stage.reply_to(each), Genuine) for each in asking] == [True] * 10
    assert house.told()[-1] == ServiceAvailable("app_store")


def test_what_is_held_without_a_control_is_handed_back_after_a_minute(stage: Stage) -> None:
    house = House(stage)
    asking = [house.verify(message=FORGED + number) for number in range(10)]
    stage.advance(80)
    assert [type(stage.reply_to(each)) for each in asking] == [GaveUp] * 10
    again = house.verify(message=FORGED)
    assert isinstance(house.verified(message=1), Genuine)
    assert isinstance(stage.reply_to(again), Unidentified)


def test_a_short_outage_at_a_fresh_start_costs_nobody_a_refusal(stage: Stage) -> None:
    house = House(stage)
    house.fault = {"status": 21003}
    asking = [house.verify(message=number) for number in range(10)]
    stage.advance(2)
    house.fault = None
    house.verify(message=20)
    assert [type(stage.reply_to(each)) for each in asking] == [Genuine] * 10
    assert house.told() == []


def test_a_fresh_start_into_a_storm_does_not_stop_the_honest(stage: Stage) -> None:
    """Only forgeries have come: they are held in half the room. The first honest user gets them refused."""
    house = House(stage, max_in_flight=40)
    asking = [house.verify(message=FORGED + number) for number in range(30)]
    stage.advance(3)
    given_up = [each for each in asking if stage.replies(each)]
    assert [type(stage.reply_to(each)) for each in given_up] == [GaveUp] * 10, "beyond the room"
    assert isinstance(house.verified(message=1), Genuine)
    answers = [stage.reply_to(each) for each in asking if each not in given_up]
    assert set(answers) == {Unidentified(Reason.NOT_AUTHENTIC)}
    assert house.told()[-1] == ServiceAvailable("app_store")
    assert max(house.asked(FORGED + number) for number in range(30)) <= 3


def test_one_that_cannot_wait_for_a_control_is_handed_back(stage: Stage) -> None:
    """A process for one message at a time has no room to hold a forgery: an honest one could never come in."""
    house = House(stage, max_in_flight=1)
    answers = [house.verified(message=FORGED + number) for number in range(4)]
    assert [type(answer) for answer in answers] == [Unidentified, Unidentified, GaveUp, GaveUp]
    assert isinstance(house.verified(message=1), Genuine)
    assert isinstance(house.verified(message=FORGED), Unidentified)


def test_a_control_that_has_become_bad_is_no_outage(stage: Stage) -> None:
    house = House(stage)
    house.verified(message=1)
    house.verified(message=2)
    house.bad = {1}
    assert house.verified(message=FORGED) == Unidentified(Reason.NOT_AUTHENTIC)
    assert house.told() == []
    assert house.verified(message=FORGED + 1) == Unidentified(Reason.NOT_AUTHENTIC)
    assert house.asked(1) == 2, "it is asked about no more"


def test_bad_controls_do_not_keep_the_honest_waiting(stage: Stage) -> None:
    house = House(stage)
    house.verified(message=1)
    house.bad = {1}
    forged = house.verify(message=FORGED)
    stage.advance(10)
    assert house.told()[0] == ServiceUnavailable("app_store")
    honest = house.verify(message=2)
    stage.advance(15)
    assert isinstance(stage.reply_to(honest), Genuine)
    assert house.told()[-1] == ServiceAvailable("app_store")
    assert isinstance(stage.reply_to(forged), Unidentified)


def test_a_control_that_apple_cannot_answer_is_followed_by_another(stage: Stage) -> None:
    house = House(stage)
    house.verified(message=1)
    house.verified(message=2)
    house.store.script(submission(1).receipt_data, AppStoreUnavailable("HTTP 500"))
    assert house.verified(message=FORGED) == Unidentified(Reason.NOT_AUTHENTIC)
    assert (house.asked(1), house.asked(2)) == (2, 2)


def test_no_refusal_of_an_outage_is_remembered(stage: Stage) -> None:
    house = House(stage)
    house.fault = {"status": 21003}
    assert isinstance(house.verified(message=1), Unidentified), "the first since the start: nothing speaks against it"
    house.fault = AppStoreUnavailable("HTTP 503")
    asking = [house.verify(message=number) for number in range(2, 8)]
    stage.advance(LONG)
    house.fault = None
    stage.advance(LONG)
    assert all(isinstance(stage.reply_to(each), Genuine) for each in asking)
    assert isinstance(house.verified(message=1), Genuine)


def test_what_was_refused_just_before_an_outage_is_asked_again(stage: Stage) -> None:
    """First it refuses everybody, then it does not answer: a control at its end says nothing of its beginning."""
    house = House(stage)
    house.verified(message=1)
    house.fault = {"status": 21003}
    early = house.verify(message=2)
    house.fault = AppStoreUnavailable("HTTP 503")
    others = [house.verify(message=number) for number in range(10, 20)]
    stage.advance(LONG)
    house.fault = None
    stage.advance(LONG)
    assert [isinstance(stage.reply_to(each), Genuine) for each in [early, *others]] == [True] * 11


def test_an_outage_of_the_sandbox_stops_nobody(stage: Stage) -> None:
    house = House(stage)
    house.verified(message=1)
    for number in range(10, 20):
        house.store.script(submission(number).receipt_data, {"status": 21007}, {"status": 21003})
    answers = [house.verified(message=number) for number in range(10, 20)]
    assert set(answers) == {Unidentified(Reason.NOT_AUTHENTIC)}
    assert house.told() == []
