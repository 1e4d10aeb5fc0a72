"""What every gateway promises, shown on the ledger's: bounds, retries, the breaker, and one answer for each request."""

from __future__ import annotations

from typing import Any

import pytest

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.ports import Standing
from receipt_actors.domain.sending import RateLimit
from receipt_actors.domain.verdicts import Ownership
from receipt_actors.errors import LedgerUnavailable, QueueRefused
from receipt_actors.otp import NORMAL, SHUTDOWN, Crash, Ref, Stop
from receipt_actors.pipeline.ledger_gateway import LedgerGateway
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    Broken,
    DescribeService,
    Done,
    GaveUp,
    LookUpTransaction,
    ObeyLimits,
    Refused,
    ServiceAvailable,
    ServiceUnavailable,
)
from receipt_actors.testing import FakeLedger, Hold
from tests.patience import PATIENCE_SECONDS
from tests.pipeline.stand_ins import LONGEST_PAUSE_SECONDS, THREE_ATTEMPTS, CallsOnThreads, Stage, item

DOWN = LedgerUnavailable("503")


class ChokingLedger(FakeLedger):
    def __init__(self) -> None:
        super().__init__()
        self.poison: frozenset[str] = frozenset()
        self.trouble = DOWN
        self.silence: Hold | None = None
        self.asked_about: set[str] = set()

    def get(self, transaction_id: str) -> Standing | None:
        self.asked_about.add(transaction_id)
        if transaction_id not in self.poison:
            return super().get(transaction_id)
        with self._call("get"):
            if self.silence is not None:
                self.silence.stand()
            raise self.trouble

    def poison_with(self, *messages: int) -> None:
        self.poison = frozenset(f"t-{message}" for message in messages)


class House:
    def __init__(self, stage: Stage, background: CallsOnThreads | None = None) -> None:
        self.background = background
        self.stage = stage
        self.ledger: ChokingLedger = stage.with_fake(ChokingLedger())
        self.in_flight = stage.stand_in(IN_FLIGHT)
        self.gateway = self.start()

    def start(self, concurrency: int = 50) -> Ref:
        self.limits = LiveLimits(Limits(20, concurrency, 20))
        return self.stage.actors.start(LedgerGateway, self.ledger, self.limits, THREE_ATTEMPTS, self.background)

    def look_up(self, message: int) -> Ref:
        return self.stage.ask(self.gateway, LookUpTransaction(item(f"t-{message}", message)))

    def announced(self) -> list[type]:
        self.stage.settle()
        return [type(fact) for fact in self.stage.told(self.in_flight, object)][1:]

    def trip(self, messages: int = 5) -> list[Ref]:
        self.ledger.fail("get", DOWN, times=None)
        asking = [self.look_up(1000 + number) for number in range(messages)]
        while not self.is_open():
            self.stage.advance(0.1)
        self.ledger.recover()
        return asking

    def is_open(self) -> bool:
        answer = self.stage.reply_to(self.stage.ask(self.gateway, DescribeService()))
        return isinstance(answer, ServiceUnavailable)


@pytest.fixture(params=["on I/O threads", "in the background"])
def house(stage: Stage, request: pytest.FixtureRequest) -> House:
    is_background = request.param == "in the background"
    return House(stage, stage.with_fake(CallsOnThreads()) if is_background else None)


def is_answered(house: House, *asking: Ref) -> list[bool]:
    return [bool(house.stage.replies(ref)) for ref in asking]


def test_requests_under_way_are_bounded(house: House) -> None:
    house.gateway.kill()
    house.gateway = house.start(concurrency=3)
    first = house.ledger.hold("get", times=3)
    asking = [house.look_up(number) for number in range(10)]
    assert house.ledger.count("get") == 3
    second = house.ledger.hold("get")
    first.release()
    house.stage.settle()
    assert (sum(is_answered(house, *asking)), house.ledger.count("get")) == (3, 6)
    second.release()
    assert all(is_answered(house, *asking))


def test_a_smaller_limit_holds_for_the_next_requests(house: House) -> None:
    first = house.ledger.hold("get", times=5)
    asking = [house.look_up(number) for number in range(5)]
    second = house.ledger.hold("get", times=2)
    asking += [house.look_up(5 + number) for number in range(2)]
    house.limits.change(Limits(20, 2, 20))
    obeying = house.stage.ask(house.gateway, ObeyLimits())
    asking += [house.look_up(7 + number) for number in range(2)]
    assert (house.ledger.count("get"), house.stage.replies(obeying)) == (7, [])
    first.release()
    house.stage.settle()
    assert house.stage.reply_to(obeying) == Done()
    assert house.ledger.count("get") == 7
    second.release()
    assert all(is_answered(house, *asking))


def test_a_wider_limit_lets_what_waits_go_at_once(house: House) -> None:
    house.limits.change(Limits(20, 1, 20))
    with house.ledger.hold("get", times=3):
        asking = [house.look_up(number) for number in range(3)]
        assert house.ledger.count("get") == 1
        house.limits.change(Limits(20, 3, 20))
        assert house.stage.reply_to(house.stage.ask(house.gateway, ObeyLimits())) == Done()
        assert house.ledger.count("get") == 3
    assert all(is_answered(house, *asking))


class Limited(LedgerGateway):
    def __init__(self, ledger: FakeLedger, per_second: float) -> None:
        super().__init__(ledger, LiveLimits(Limits(50, 50, 50)), THREE_ATTEMPTS)
        self._rate = RateLimit(per_second)


def test_the_rate_is_kept(stage: Stage) -> None:
    ledger: FakeLedger = stage.with_fake(FakeLedger())
    gateway = stage.actors.start(Limited, ledger, 10)
    for number in range(20):
        stage.ask(gateway, LookUpTransaction(item(f"t-{number}", number)))
    assert 1 <= ledger.count("get") <= 2
    stage.advance(1)
    assert 11 <= ledger.count("get") <= 12
    stage.advance(1)
    assert ledger.count("get") == 20


def test_a_suspect_waits_for_the_rate(stage: Stage) -> None:
    house = House(stage)
    house.gateway.kill()
    house.gateway = stage.actors.start(Limited, house.ledger, 0.1)
    house.ledger.poison_with(1000)
    house.look_up(1000)
    house.look_up(1)
    stage.advance(10)  # the honest one is answered, and the other one fails again: it is a suspect
    stage.advance(10)
    assert house.ledger.count("get") == 3
    for number in range(2, 10):
        house.look_up(number)
    seconds = [_seconds_of_next(house) for _ in range(4)]
    assert all(9.0 <= each <= 11.0 for each in seconds), seconds
    house.stage.advance(200)
    assert house.ledger.count("get") >= 11


def _seconds_of_next(house: House) -> float:
    sent, began_at = house.ledger.count("get"), house.stage.clock.monotonic()
    while house.ledger.count("get") == sent:
        house.stage.advance(0.5)
    return house.stage.clock.monotonic() - began_at


def test_what_tries_in_an_outage_waits_for_the_rate(stage: Stage) -> None:
    house = House(stage)
    house.gateway.kill()
    house.gateway = stage.actors.start(Limited, house.ledger, 0.1)
    house.ledger.fail("get", DOWN, times=None)
    for number in range(20):
        house.look_up(number)
    while not house.is_open():
        stage.advance(10)
    for number in range(20, 40):
        house.look_up(number)
    before = len(house.ledger.asked_about)
    stage.advance(100)
    assert 9 <= len(house.ledger.asked_about) - before <= 11


def test_what_is_not_sent_takes_nothing_of_the_rate(stage: Stage) -> None:
    """Requests whose askers have ended wait before one whose asker has not: that one leaves with the first slot."""

    ledger: FakeLedger = stage.with_fake(FakeLedger())
    gateway = stage.actors.start(Limited, ledger, 0.1)
    first = stage.ask(gateway, LookUpTransaction(item("t-0", 0)))
    dead = [stage.ask(gateway, LookUpTransaction(item(f"t-{number}", number))) for number in range(1, 4)]
    assert ledger.count("get") == 1
    assert stage.reply_to(first) is Ownership.FREE
    for asking in dead:
        asking.kill()
    stage.settle()
    stage.advance(10)  # the slot comes while there is nobody to use it
    assert ledger.count("get") == 1
    alive = stage.ask(gateway, LookUpTransaction(item("t-4", 4)))
    stage.settle()
    assert stage.reply_to(alive) is Ownership.FREE


def test_requests_of_the_dead_are_not_made(house: House) -> None:
    house.gateway.kill()
    house.gateway = house.start(concurrency=1)
    with house.ledger.hold("get"):
        asking = [house.look_up(number) for number in range(4)]
        asking[1].cast(Stop(NORMAL))
        asking[2].kill()
        house.stage.settle()
    assert is_answered(house, asking[0], asking[3]) == [True, True]
    assert house.ledger.count("get") == 2


def test_a_failed_request_is_tried_again(house: House) -> None:
    house.ledger.fail("get", DOWN, times=2)
    asking = house.look_up(1)
    assert (house.ledger.count("get"), is_answered(house, asking)) == (1, [False])
    house.stage.advance(LONGEST_PAUSE_SECONDS)
    house.stage.advance(LONGEST_PAUSE_SECONDS)
    assert house.stage.reply_to(asking) is Ownership.FREE
    assert house.announced() == []


def test_attempts_are_counted(house: House) -> None:
    house.ledger.fail("get", DOWN, times=None)
    asking = house.look_up(1)
    house.stage.advance(60)
    assert house.stage.reply_to(asking) == GaveUp("ledger: 503")
    assert house.ledger.count("get") == 3


def test_the_service_may_ask_for_patience(house: House) -> None:
    house.ledger.fail("get", LedgerUnavailable("503", retry_after_seconds=45))
    asking = house.look_up(1)
    house.stage.advance(44.9)
    assert is_answered(house, asking) == [False]
    house.stage.advance(0.1)
    assert house.stage.reply_to(asking) is Ownership.FREE


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), SystemExit(1)], ids=["exception", "exit"])
def test_a_bug_of_the_client_is_the_askers_affair(house: House, error: BaseException) -> None:
    house.ledger.fail("get", error)
    unlucky, lucky = house.look_up(1), house.look_up(2)
    assert house.stage.reply_to(unlucky) == Broken(error)
    assert house.stage.reply_to(lucky) is Ownership.FREE
    assert house.ledger.count("get") == 2


def test_a_refusal_is_final(house: House) -> None:
    house.ledger.fail("get", QueueRefused("q", "deleted"))
    asking = house.look_up(1)
    assert house.stage.reply_to(asking) == Refused("queue 'q': deleted")
    house.stage.advance(60)
    assert house.ledger.count("get") == 1


def test_one_poisonous_message_does_not_stop_the_others(house: House) -> None:
    house.ledger.fail("get", DOWN, times=8)
    poison = [house.look_up(666) for _ in range(8)]
    assert house.stage.reply_to(house.look_up(1)) is Ownership.FREE
    house.stage.advance(60)
    assert all(is_answered(house, *poison))
    assert house.announced() == []


def test_failures_of_several_messages_close_the_gate(house: House) -> None:
    house.trip()
    assert house.announced() == [ServiceUnavailable]
    sent = house.ledger.count("get")
    late = house.look_up(1)
    assert is_answered(house, late) == [False]
    assert house.ledger.count("get") == sent


def test_an_outage_costs_no_attempts(house: House) -> None:
    tripped = house.trip(8)
    house.ledger.fail("get", DOWN, times=None)
    kept = [house.look_up(number) for number in range(20)]
    house.stage.advance(600)
    assert not any(is_answered(house, *tripped, *kept))
    assert house.announced()[-1] is ServiceUnavailable

    house.ledger.recover()
    house.ledger.fail("get", DOWN, times=1)
    house.stage.advance(60)
    house.stage.advance(60)
    assert {house.stage.reply_to(asking) for asking in (*tripped, *kept)} == {Ownership.FREE}
    assert house.announced()[-1] is ServiceAvailable


def test_an_outage_is_tried_ever_more_seldom(house: House) -> None:
    """Forty requests that fail together are one outage: several tries a second, and at last one in five seconds."""
    hold = house.ledger.hold("get", then=DOWN)
    asking = [house.look_up(number) for number in range(40)]
    house.ledger.fail("get", DOWN, times=None)
    hold.release()
    house.stage.advance(5)
    sent = house.ledger.count("get")
    house.stage.advance(600)
    assert sent + 120 < house.ledger.count("get") < sent + 500
    sent = house.ledger.count("get")
    for _ in range(5):
        house.stage.advance(5)
        sent += 1
        assert house.ledger.count("get") == sent
    assert not any(is_answered(house, *asking))


def test_a_straggler_that_fails_says_nothing_new(house: House) -> None:
    straggling = house.ledger.hold("get", times=1, then=DOWN)
    slow = house.look_up(1)
    tripped = house.trip()
    straggling.release()
    house.stage.settle()
    assert house.announced() == [ServiceUnavailable]
    house.stage.advance(2)
    assert all(is_answered(house, slow, *tripped))


def test_a_try_that_hangs_does_not_stop_the_next(house: House) -> None:
    house.gateway.kill()
    house.gateway = house.start(concurrency=7)
    house.trip()
    sent = house.ledger.count("get")
    hold = house.ledger.hold("get")
    for number in range(20):
        house.look_up(number)
    house.stage.advance(300)
    assert house.ledger.count("get") == sent + 7
    assert len(hold.waiting_threads()) == 7


def test_a_straggler_that_succeeds_ends_the_outage(house: House) -> None:
    with house.ledger.hold("get", times=1) as straggling:
        slow = house.look_up(1)
        house.ledger.fail("get", DOWN, times=None)
        tripped = [house.look_up(1000 + number) for number in range(5)]
        house.stage.advance(5)
        assert not any(is_answered(house, *tripped))
        house.ledger.recover()
        straggling.release()
    house.stage.settle()
    assert house.announced()[0] is ServiceUnavailable
    assert house.announced()[-1] is ServiceAvailable
    assert all(is_answered(house, slow, *tripped))
    requests = house.ledger.count("get")
    house.stage.advance(60)
    assert house.ledger.count("get") == requests


def test_a_new_message_is_tried_before_those_that_are_kept(house: House) -> None:
    """They may themselves be what fails: in_flight is asked for another one, which is tried as soon as it is there."""
    house.trip()
    house.ledger.fail("get", DOWN, times=None)
    house.stage.advance(60)
    assert house.stage.told(house.in_flight, ServiceUnavailable)[-1].wanted_messages
    house.ledger.recover()
    newcomer = house.look_up(1)
    assert is_answered(house, newcomer) == [True]
    assert house.announced()[-1] is ServiceAvailable


def test_few_new_messages_are_tried_at_a_time(house: House) -> None:
    house.trip()
    house.ledger.fail("get", DOWN, times=None)
    house.stage.advance(60)
    sent = house.ledger.count("get")
    for number in range(10):
        house.look_up(number)
    house.stage.settle()
    assert house.ledger.count("get") == sent + 1
    house.stage.advance(5)
    assert sent + 1 < house.ledger.count("get") <= sent + 1 + 4  # each with one of those that were kept


def test_few_who_try_get_company_at_once(house: House) -> None:
    """A single message that alone met the outage, ten times: it is kept, and another one is asked for."""
    house.ledger.fail("get", DOWN, times=None)
    lonely = [house.look_up(1) for _ in range(10)]
    house.stage.advance(60)
    assert house.stage.told(house.in_flight, ServiceUnavailable)[-1].wanted_messages
    house.ledger.recover()
    house.stage.advance(6)
    assert {house.stage.reply_to(asking) for asking in lonely} == {Ownership.FREE}


def test_the_end_of_an_outage_ends_every_pause(house: House) -> None:
    house.ledger.fail("get", LedgerUnavailable("503", retry_after_seconds=300), times=4)
    waiting = [house.look_up(number) for number in range(4)]
    house.stage.settle()
    tripping = house.ledger.hold("get", times=1, then=DOWN)
    last = house.look_up(4)
    house.stage.advance(3)
    tripping.release()
    house.stage.settle()
    assert house.announced() == [ServiceUnavailable]
    house.stage.advance(2)
    assert all(is_answered(house, *waiting, last))


def test_a_gateway_says_what_it_knows(house: House) -> None:
    assert house.stage.reply_to(house.stage.ask(house.gateway, DescribeService())) == ServiceAvailable("ledger")
    house.trip()
    assert house.stage.reply_to(house.stage.ask(house.gateway, DescribeService())) == ServiceUnavailable("ledger")


@pytest.mark.parametrize(
    ("error", "answer", "is_back"),
    [(QueueRefused("q", "deleted"), Refused, True), (ZeroDivisionError(), Broken, False)],
    ids=["refused", "bug"],
)
def test_a_probe_that_ends_in_another_way_is_not_the_last(
    house: House, error: Exception, answer: type, is_back: bool
) -> None:
    tripped = house.trip()
    house.ledger.fail("get", error)
    house.stage.advance(0.2)
    assert (house.announced()[-1] is ServiceAvailable) is is_back
    house.stage.advance(60)
    answers = [house.stage.reply_to(asking) for asking in tripped]
    assert sorted(type(each).__name__ for each in answers) == sorted([answer.__name__, *["Ownership"] * 4])
    assert house.announced()[-1] is ServiceAvailable


def test_with_nobody_to_try_the_gate_stays_closed(house: House) -> None:
    """Intake is told again and again (it may be a new one), and the next request finds the service back at once."""
    for asking in house.trip():
        asking.cast(Stop(NORMAL))
    sent = house.ledger.count("get")
    house.stage.advance(10)
    assert house.announced().count(ServiceUnavailable) > 5
    assert house.ledger.count("get") == sent
    late = house.look_up(1)
    assert house.stage.reply_to(late) is Ownership.FREE
    assert house.announced()[-1] is ServiceAvailable


def test_messages_that_fail_while_others_are_answered_close_no_gate(house: House) -> None:
    """Forty of them, for hours of their deliveries: the others are answered at once, and nobody is alarmed."""
    house.ledger.poison_with(*range(1000, 1040))
    poisoned = [house.look_up(number) for number in range(1000, 1040)]
    for second in range(60):
        assert is_answered(house, house.look_up(second)) == [True]
        house.stage.advance(1)
    assert {house.stage.reply_to(each) for each in poisoned} == {GaveUp("ledger: 503")}
    assert house.announced() == []


def test_suspects_have_a_small_share_of_the_requests(house: House) -> None:
    house.gateway.kill()
    house.gateway = house.start(concurrency=20)
    house.ledger.poison_with(*range(1000, 1015))
    for number in range(1000, 1015):
        house.look_up(number)
    house.look_up(1)
    house.stage.advance(LONGEST_PAUSE_SECONDS)  # all of them have failed twice, with an answer in between
    house.ledger.silence = silence = house.ledger.hold("claim")
    house.stage.advance(60)
    assert len(silence.waiting_threads()) == 5
    assert is_answered(house, *(house.look_up(number) for number in range(2, 40))) == [True] * 38


def test_a_message_is_no_suspect_because_there_was_no_connection_for_it(house: House) -> None:
    house.ledger.trouble = LedgerUnavailable("no descriptors", was_sent=False)
    house.ledger.poison_with(666)
    first = house.look_up(666)
    for second in range(100):
        house.look_up(second)
        house.stage.advance(1)
    assert is_answered(house, first) == [False]
    house.ledger.poison_with()
    house.stage.advance(10)
    assert house.stage.reply_to(first) is Ownership.FREE


def test_where_suspects_are_answered_one_that_comes_again_is_tried_as_often_as_ever(house: House) -> None:
    """A service that fails at random makes suspects of the innocent: they must not use up their deliveries."""
    house.ledger.poison_with(666, 667)
    first, innocent = house.look_up(666), house.look_up(667)
    for second in range(10):
        house.look_up(second)
        house.stage.advance(1)
    assert is_answered(house, first, innocent) == [True, True]
    house.ledger.poison_with(666)
    assert house.stage.reply_to(house.look_up(667)) is Ownership.FREE
    again = house.look_up(666)
    house.look_up(1)
    house.stage.settle()
    assert is_answered(house, again) == [False]
    house.ledger.poison_with()
    house.stage.advance(LONGEST_PAUSE_SECONDS)
    assert house.stage.reply_to(again) is Ownership.FREE


def test_a_suspect_that_comes_again_is_tried_once(house: House) -> None:
    house.ledger.poison_with(666)
    first = house.look_up(666)
    for second in range(10):
        house.look_up(second)
        house.stage.advance(1)
    assert is_answered(house, first) == [True]
    house.look_up(1)
    sent = house.ledger.count("get")
    again = house.look_up(666)
    house.stage.settle()
    house.look_up(2)
    house.stage.advance(60)
    house.look_up(3)
    house.stage.advance(60)
    assert is_answered(house, again) == [True]
    assert house.ledger.count("get") <= sent + 2 + 3


def test_an_outage_is_seen_though_there_are_suspects_and_costs_them_no_attempt(house: House) -> None:
    house.ledger.poison_with(666)
    suspect = house.look_up(666)
    house.look_up(1)
    house.stage.advance(LONGEST_PAUSE_SECONDS)
    house.ledger.poison_with()
    tripped = house.trip()
    house.ledger.fail("get", DOWN, times=None)
    house.stage.advance(3600)
    assert is_answered(house, suspect, *tripped) == [False] * 6
    house.ledger.recover()
    house.stage.advance(10)
    assert {house.stage.reply_to(each) for each in (suspect, *tripped)} == {Ownership.FREE}


def test_who_lends_all_limits_to_others_forgets_the_outage(house: House) -> None:
    """With nothing to try with, a node that stands by would say for ever that the service is unavailable."""
    house.trip()
    assert house.announced() == [ServiceUnavailable]
    house.limits.change(Limits(0, 0, 0))
    assert house.stage.reply_to(house.stage.ask(house.gateway, ObeyLimits())) == Done()
    assert house.announced() == [ServiceUnavailable, ServiceAvailable]
    sent = house.ledger.count("get")
    house.stage.advance(60)
    assert house.announced() == [ServiceUnavailable, ServiceAvailable]
    assert house.ledger.count("get") == sent

    house.limits.change(Limits(20, 50, 20))
    assert house.stage.reply_to(house.stage.ask(house.gateway, ObeyLimits())) == Done()
    asking = house.look_up(1)
    assert house.stage.reply_to(asking) is not None
    assert house.stage.reply_to(house.stage.ask(house.gateway, DescribeService())) == ServiceAvailable("ledger")


def test_who_waits_learns_of_a_crash(house: House) -> None:
    with house.ledger.hold("get"):
        asking = [house.look_up(number) for number in range(3)]
        house.stage.crash(house.gateway)
    assert all(isinstance(house.stage.reply_to(each), Crash) for each in asking)


def test_a_restarted_gateway_opens_the_gate(house: House) -> None:
    house.trip()
    assert house.announced() == [ServiceUnavailable]
    house.stage.crash(house.gateway)
    house.start()
    assert house.announced() == [ServiceUnavailable, ServiceAvailable]


def test_io_threads_end_with_their_gateway(house: House) -> None:
    for ending in range(2):
        gateway = house.gateway = house.start()
        assert house.stage.reply_to(house.look_up(ending)) is Ownership.FREE
        pool: Any = gateway.process.actor._threads._pool  # type: ignore[union-attr]
        if ending:
            house.stage.crash(gateway)
        else:
            gateway.exit(SHUTDOWN)
        house.stage.settle()
        assert pool.join(PATIENCE_SECONDS)
