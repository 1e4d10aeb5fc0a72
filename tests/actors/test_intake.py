"""Intake: the credits and the gate."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from receipt_actors.actors.intake import STUCK_SECONDS, Intake
from receipt_actors.actors.protocol import (
    APP_STORE_GATEWAY,
    INTAKE,
    LEDGER_GATEWAY,
    MOVERS,
    VALIDATORS,
    CloseIntake,
    CreditsGranted,
    DescribeIntake,
    Done,
    IntakeStatus,
    MessageTaken,
    ObeyLimits,
    ReserveCredits,
    ServiceAvailable,
    ServiceUnavailable,
    SettleReservation,
    StuckInOutage,
)
from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.otp import (
    NORMAL,
    PERMANENT,
    TEMPORARY,
    ChildSpec,
    Ref,
    Start,
    Stop,
    Supervisor,
    start_child,
    supervisor_spec,
)
from receipt_actors.otp import SIMPLE_ONE_FOR_ONE as ON_DEMAND

from .stand_ins import Stage, StandIn, started


def start(stage: Stage, max_in_flight: int = 25) -> Ref:
    return stage.actors.start(Intake, LiveLimits(Limits(max_in_flight, 1, 1)), name=INTAKE)


def granted(stage: Stage, consumer: Ref) -> list[int]:
    return [credits.count for credits in stage.told(consumer, CreditsGranted)]


def status(stage: Stage, intake: Ref) -> IntakeStatus:
    stage.settle()
    answer: IntakeStatus = intake.call(DescribeIntake())
    return answer


def reserve(stage: Stage, intake: Ref, consumer: Ref | None = None, count: int = 10) -> Ref:
    consumer = consumer or stage.stand_in()
    intake.cast(ReserveCredits(consumer, count))
    return consumer


def take(stage: Stage, intake: Ref, messages: int) -> list[Ref]:
    custodians = [stage.stand_in() for _ in range(messages)]
    for custodian in custodians:
        intake.cast(MessageTaken(custodian))
    return custodians


def end(stage: Stage, *refs: Ref) -> None:
    for ref in refs:
        ref.cast(Stop(NORMAL))
    stage.settle()


def test_reservations_never_exceed_the_room(stage: Stage) -> None:
    """Of five consumers that want ten each, those who come first get theirs, the next what is left, the rest wait."""
    intake = start(stage, max_in_flight=15)
    consumers = [reserve(stage, intake) for _ in range(5)]
    assert [granted(stage, consumer) for consumer in consumers] == [[10], [5], [], [], []]
    assert status(stage, intake).reserved == 15


def test_as_many_receive_at_once_as_find_full_receives(stage: Stage) -> None:
    """Two at first; one more after each receive that was full, one fewer after one that was half empty."""
    intake = start(stage, max_in_flight=1000)
    consumers = [reserve(stage, intake) for _ in range(5)]

    def receiving() -> int:
        return status(stage, intake).reserved // 10

    def receive(consumer: Ref, messages: int) -> None:
        intake.cast(SettleReservation(consumer, messages))
        reserve(stage, intake, consumer)

    assert receiving() == 2
    receive(consumers[0], 10)
    assert receiving() == 3
    receive(consumers[1], 10)
    receive(consumers[2], 10)
    receive(consumers[3], 10)
    assert receiving() == 5
    receive(consumers[4], 7)
    assert receiving() == 5
    for consumer in consumers:
        receive(consumer, 5)
    assert receiving() == 2


def test_the_age_of_the_oldest_message_in_flight_is_known(stage: Stage) -> None:
    """Of whoever is left, whatever order they end in; nothing in flight has no age."""
    intake = start(stage)
    (first,) = take(stage, intake, 1)
    stage.settle()
    stage.advance(3.0)
    second, third = take(stage, intake, 2)
    stage.settle()
    stage.advance(2.0)
    assert status(stage, intake).oldest_in_flight_seconds == 5.0
    end(stage, second)
    assert status(stage, intake).oldest_in_flight_seconds == 5.0
    end(stage, first)
    assert status(stage, intake).oldest_in_flight_seconds == 2.0
    end(stage, third)
    assert status(stage, intake).oldest_in_flight_seconds == 0.0


def test_who_waits_is_served_in_turn(stage: Stage) -> None:
    """Credits that come free go to the consumer that has waited longest."""
    intake = start(stage, max_in_flight=10)
    first, second, third = [reserve(stage, intake) for _ in range(3)]
    intake.cast(SettleReservation(first, 0))
    assert (granted(stage, second), granted(stage, third)) == ([10], [])
    intake.cast(SettleReservation(second, 0))
    assert granted(stage, third) == [10]


def test_a_message_in_flight_holds_its_credit(stage: Stage) -> None:
    """From its custodian's announcement to its custodian's end, whatever that is."""
    intake = start(stage, max_in_flight=3)
    consumer = reserve(stage, intake)
    custodians = take(stage, intake, 3)
    intake.cast(SettleReservation(consumer, 3))
    reserve(stage, intake, consumer)
    assert granted(stage, consumer) == [3]
    assert status(stage, intake).in_flight == 3

    end(stage, custodians[0])
    stage.crash(custodians[1])
    assert granted(stage, consumer) == [3, 1]
    custodians[2].kill()
    assert status(stage, intake).in_flight == 0


def test_a_message_announced_twice_counts_once(stage: Stage) -> None:
    """A restart of intake may learn of a custodian in two ways."""
    intake = start(stage)
    (custodian,) = take(stage, intake, 1)
    intake.cast(MessageTaken(custodian))
    assert status(stage, intake).in_flight == 1
    end(stage, custodian)
    assert status(stage, intake).in_flight == 0


def test_a_smaller_limit_holds_for_what_is_taken_in_next(stage: Stage) -> None:
    """What is in flight goes on; the change is confirmed when no more is in flight or being received than allowed."""
    limits = LiveLimits(Limits(20, 1, 1))
    intake = stage.actors.start(Intake, limits, name=INTAKE)
    consumer = reserve(stage, intake)
    custodians = take(stage, intake, 10)
    limits.change(Limits(4, 1, 1))
    obeying = stage.ask(INTAKE, ObeyLimits())
    end(stage, *custodians[:6])
    intake.cast(SettleReservation(consumer, 0))
    assert stage.reply_to(obeying) == Done()
    reserve(stage, intake, consumer)
    assert granted(stage, consumer) == [10]
    end(stage, custodians[6])
    assert granted(stage, consumer) == [10, 1]


def test_a_smaller_limit_is_not_confirmed_before_it_is_kept(stage: Stage) -> None:
    """Credits of receives under way count: they may bring as many messages."""
    limits = LiveLimits(Limits(20, 1, 1))
    intake = stage.actors.start(Intake, limits, name=INTAKE)
    consumer = reserve(stage, intake)
    (custodian,) = take(stage, intake, 1)
    limits.change(Limits(10, 1, 1))
    obeying = stage.ask(INTAKE, ObeyLimits())
    assert stage.replies(obeying) == []
    end(stage, custodian)
    assert stage.reply_to(obeying) == Done()
    limits.change(Limits(9, 1, 1))
    obeying = stage.ask(INTAKE, ObeyLimits())
    assert stage.replies(obeying) == []
    intake.cast(SettleReservation(consumer, 0))
    assert stage.reply_to(obeying) == Done()


def test_a_wider_limit_serves_those_who_wait_at_once(stage: Stage) -> None:
    """They need not wait for something to end."""
    limits = LiveLimits(Limits(20, 1, 1), Limits(10, 1, 1))
    intake = stage.actors.start(Intake, limits, name=INTAKE)
    _, waiting = reserve(stage, intake), reserve(stage, intake)
    assert granted(stage, waiting) == []
    limits.change(Limits(15, 1, 1))
    assert stage.reply_to(stage.ask(INTAKE, ObeyLimits())) == Done()
    assert granted(stage, waiting) == [5]


def test_the_reservation_of_a_consumer_that_dies_is_free_again(stage: Stage) -> None:
    """And nothing is granted to the dead, who would not give it back."""
    intake = start(stage, max_in_flight=10)
    dying, waiting_and_dying, living = [reserve(stage, intake) for _ in range(3)]
    stage.crash(waiting_and_dying)
    stage.crash(dying)
    assert granted(stage, living) == [10]
    assert status(stage, intake).reserved == 10


def test_a_custodian_that_ended_before_it_was_announced_leaks_nothing(stage: Stage) -> None:
    """One that has nothing to do ends within its own start."""
    intake = start(stage)
    custodian = stage.stand_in()
    end(stage, custodian)
    intake.cast(MessageTaken(custodian))
    assert status(stage, intake).in_flight == 0


def test_the_gate_is_closed_while_any_service_is_unavailable(stage: Stage) -> None:
    """Two outages, and both have to end."""
    intake = start(stage, max_in_flight=30)
    custodians = take(stage, intake, 2)
    intake.cast(ServiceUnavailable("ledger"))
    intake.cast(ServiceUnavailable("app_store"))
    intake.cast(ServiceUnavailable("ledger"))  # said at every probe
    consumer = reserve(stage, intake)
    assert granted(stage, consumer) == []
    assert status(stage, intake).unavailable == {"ledger", "app_store"}

    intake.cast(ServiceAvailable("ledger"))
    assert granted(stage, consumer) == []
    intake.cast(ServiceAvailable("app_store"))
    assert granted(stage, consumer) == [10]
    assert len(custodians) == 2


def test_an_outage_may_close_the_gate_and_open_it_again(stage: Stage) -> None:
    """While it lasts: whether there is anything to receive that does not need the service may change."""
    intake = start(stage, max_in_flight=30)
    take(stage, intake, 2)
    intake.cast(ServiceUnavailable("app_store"))
    consumer = reserve(stage, intake)
    assert granted(stage, consumer) == []
    intake.cast(ServiceUnavailable("app_store", closes_intake=False))
    assert granted(stage, consumer) == [10]
    intake.cast(SettleReservation(consumer, 0))
    intake.cast(ServiceUnavailable("app_store"))
    another = reserve(stage, intake)
    assert granted(stage, another) == []
    intake.cast(ServiceAvailable("app_store"))
    assert granted(stage, another) == [10]


def test_an_empty_closed_gate_lets_one_message_in(stage: Stage) -> None:
    """Somebody has to find out whether the service is back; one at a time."""
    intake = start(stage)
    intake.cast(ServiceUnavailable("ledger"))
    first, second = reserve(stage, intake), reserve(stage, intake)
    assert (granted(stage, first), granted(stage, second)) == ([1], [])

    (probe,) = take(stage, intake, 1)
    intake.cast(SettleReservation(first, 1))
    assert granted(stage, second) == []
    end(stage, probe)
    assert granted(stage, second) == [1]


def test_an_outage_during_receives_lets_nobody_else_in(stage: Stage) -> None:
    """What has been reserved may come; then the closed gate counts it as in flight."""
    intake = start(stage)
    early = reserve(stage, intake)
    stage.settle()
    intake.cast(ServiceUnavailable("ledger"))
    late = reserve(stage, intake)
    assert (granted(stage, early), granted(stage, late)) == ([10], [])


def test_closing_waits_for_what_is_in_flight_and_received(stage: Stage) -> None:
    """``CloseIntake`` is answered when the last receive is over and the last message done; nobody is let in."""
    intake = start(stage)
    receiving = reserve(stage, intake)
    (early,) = take(stage, intake, 1)
    closing = stage.ask(INTAKE, CloseIntake())
    waiting = reserve(stage, intake)

    end(stage, early)
    assert stage.replies(closing) == []
    (late,) = take(stage, intake, 1)
    intake.cast(SettleReservation(receiving, 1))
    reserve(stage, intake, receiving)
    assert stage.replies(closing) == []
    end(stage, late)
    assert stage.reply_to(closing) == Done()
    assert (granted(stage, receiving), granted(stage, waiting)) == ([10], [])


def test_closing_does_not_wait_for_the_end_of_an_outage(stage: Stage) -> None:
    """As long as messages are finished it waits; once none is for a while, it is told how many are stuck."""
    intake = start(stage)
    custodians = take(stage, intake, 3)
    intake.cast(ServiceUnavailable("ledger"))
    closing = stage.ask(INTAKE, CloseIntake())
    for custodian in custodians[:2]:
        end(stage, custodian)
        stage.advance(STUCK_SECONDS)
        assert stage.replies(closing) == []
    stage.advance(STUCK_SECONDS)
    assert stage.reply_to(closing) == StuckInOutage(1, frozenset({"ledger"}))


def test_closing_does_not_wait_for_a_queue_that_keeps_its_own_messages(stage: Stage) -> None:
    """Its trouble closes no gate; but who stops has nothing to wait for either."""
    intake = start(stage)
    take(stage, intake, 2)
    intake.cast(ServiceUnavailable("send to Out", closes_intake=False))
    consumer = reserve(stage, intake)
    assert granted(stage, consumer) == [10]
    assert status(stage, intake).unavailable == frozenset()
    intake.cast(SettleReservation(consumer, 0))
    closing = stage.ask(INTAKE, CloseIntake())
    stage.advance(STUCK_SECONDS)
    assert stage.reply_to(closing) == StuckInOutage(2, frozenset({"send to Out"}))


def test_closing_waits_for_receives_in_an_outage_too(stage: Stage) -> None:
    """What they bring is to be handed back, not left to its visibility timeout."""
    intake = start(stage)
    consumer = reserve(stage, intake)
    closing = stage.ask(INTAKE, CloseIntake())
    intake.cast(ServiceUnavailable("ledger"))  # it may begin only then
    stage.advance(10 * STUCK_SECONDS)
    assert stage.replies(closing) == []
    take(stage, intake, 1)
    intake.cast(SettleReservation(consumer, 1))
    stage.advance(2 * STUCK_SECONDS)
    assert stage.reply_to(closing) == StuckInOutage(1, frozenset({"ledger"}))


def test_closing_waits_as_ever_once_an_outage_is_over(stage: Stage) -> None:
    """Somebody slow is waited for, where all services are there."""
    intake = start(stage)
    (custodian,) = take(stage, intake, 1)
    intake.cast(ServiceUnavailable("ledger"))
    closing = stage.ask(INTAKE, CloseIntake())
    intake.cast(ServiceAvailable("ledger"))
    stage.advance(10 * STUCK_SECONDS)
    assert stage.replies(closing) == []
    end(stage, custodian)
    assert stage.reply_to(closing) == Done()


def test_an_empty_house_closes_at_once(stage: Stage) -> None:
    """And as often as it is asked to; an outage makes no difference."""
    intake = start(stage)
    intake.cast(ServiceUnavailable("ledger"))
    assert intake.call(CloseIntake()) == Done()
    assert intake.call(CloseIntake()) == Done()


def test_a_consumer_that_dies_does_not_hold_up_closing(stage: Stage) -> None:
    """Its receive will be settled by nobody."""
    intake = start(stage)
    consumer = reserve(stage, intake)
    closing = stage.ask(INTAKE, CloseIntake())
    assert stage.replies(closing) == []
    stage.crash(consumer)
    assert stage.reply_to(closing) == Done()


def test_idle_time_counts_from_the_last_message(stage: Stage) -> None:
    """Nothing in flight for so long; empty receives do not count, messages do, if only corrupt ones."""
    intake = start(stage)
    consumer = reserve(stage, intake)
    (custodian,) = take(stage, intake, 1)
    intake.cast(SettleReservation(consumer, 1))
    stage.advance(5)
    assert status(stage, intake).idle_seconds == 0
    end(stage, custodian)
    stage.advance(7)
    assert status(stage, intake).idle_seconds == 7
    intake.cast(SettleReservation(consumer, 0))
    assert status(stage, intake).idle_seconds == 7
    intake.cast(SettleReservation(consumer, 1))
    stage.advance(2)
    assert status(stage, intake).idle_seconds == 2


def test_failing_receives_are_told_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Four consumers meet the same outage again and again: one line when it begins, one when all is well again."""
    intake = start(stage)
    consumers = [stage.stand_in() for _ in range(4)]
    for _ in range(5):
        for consumer in consumers:
            intake.cast(SettleReservation(consumer, 0, "503"))
    stage.settle()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    for consumer in consumers:
        intake.cast(SettleReservation(consumer, 0))
    stage.settle()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_while_receives_fail_nobody_is_idle(stage: Stage) -> None:
    """A batch run must not end because it can't see its work."""
    intake = start(stage)
    stage.advance(60)
    intake.cast(SettleReservation(stage.stand_in(), 0, "503"))
    assert status(stage, intake).idle_seconds == 0


def test_a_restarted_intake_counts_what_is_in_flight(stage: Stage) -> None:
    """It asks the supervisors of the custodians, and announces nothing that it does not know."""
    specs = [
        ChildSpec("intake", Start(Intake, LiveLimits(Limits(20, 1, 1)), name=INTAKE), PERMANENT),
        supervisor_spec(VALIDATORS, ON_DEMAND, [ChildSpec("v", Start(StandIn), TEMPORARY)]),
        supervisor_spec(MOVERS, ON_DEMAND, [ChildSpec("m", Start(StandIn), TEMPORARY)]),
    ]
    stage.actors.start(Supervisor, specs)
    intake, validators, movers = (stage.actors.whereis(name) for name in (INTAKE, VALIDATORS, MOVERS))
    assert intake is not None and validators is not None and movers is not None
    custodians = [started(start_child(each, ())) for each in (validators, validators, movers)]
    for custodian in custodians:
        intake.cast(MessageTaken(custodian))

    stage.crash(intake)
    successor = stage.actors.whereis(INTAKE)
    assert successor is not None
    assert status(stage, successor).in_flight == 3
    consumer = reserve(stage, successor, count=50)
    assert granted(stage, consumer) == [17]
    end(stage, *custodians)
    assert status(stage, successor).in_flight == 0


def test_a_restarted_intake_knows_of_the_outage(stage: Stage) -> None:
    """It asks the gateways, and grants nothing before they have answered: no flood meets a service that is down."""
    stage.stand_in(LEDGER_GATEWAY, answer=lambda _: ServiceUnavailable("ledger"))
    app_store = stage.stand_in(APP_STORE_GATEWAY)
    intake = start(stage)
    consumer = reserve(stage, intake)
    assert granted(stage, consumer) == []
    assert status(stage, intake).unavailable == {"ledger"}
    stage.answer(app_store, ServiceAvailable("app_store"))
    assert granted(stage, consumer) == [1]  # nothing is in flight: one may try
    intake.cast(ServiceAvailable("ledger"))
    assert granted(stage, reserve(stage, intake)) == [10]


def test_a_closed_gate_lets_one_more_in_to_try_with(stage: Stage) -> None:
    """When a gateway wants one; and not two at once, nor beyond the room there is."""
    intake = start(stage, max_in_flight=3)
    take(stage, intake, 1)
    intake.cast(ServiceUnavailable("ledger"))
    first, second = reserve(stage, intake), reserve(stage, intake)
    assert granted(stage, first) == []
    for _ in range(3):
        intake.cast(ServiceUnavailable("ledger", wants_a_prober=True))
    assert (granted(stage, first), granted(stage, second)) == ([1], [])
    take(stage, intake, 2)
    intake.cast(SettleReservation(first, 1))
    intake.cast(ServiceUnavailable("ledger", wants_a_prober=True))
    assert granted(stage, second) == []


def test_requests_that_it_does_not_know_are_bugs(stage: Stage) -> None:
    """They crash it, where a supervisor sees it; they are not met with silence."""
    with pytest.raises(NotImplementedError):
        start(stage).call("what is in flight?")
    assert stage.actors.whereis(INTAKE) is None


class Credits(RuleBasedStateMachine):
    """Any order of reserving, receiving, ending and dying."""

    limit = 17

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.intake = start(self.stage, self.limit)
        self.consumers: dict[Ref, int] = {}  # and how many grants were used up
        self.custodians: list[Ref] = []

    def teardown(self) -> None:
        self.stage.close()

    def _granted_now(self, consumer: Ref) -> int:
        grants = granted(self.stage, consumer)
        return grants[-1] if len(grants) > self.consumers[consumer] else 0

    @rule(count=st.integers(1, 10))
    def reserve(self, count: int) -> None:
        self.consumers[reserve(self.stage, self.intake, count=count)] = 0

    @rule(received=st.integers(0, 10), again=st.booleans())
    def receive(self, received: int, again: bool) -> None:
        for consumer in list(self.consumers):
            count = self._granted_now(consumer)
            if count:
                self.custodians += take(self.stage, self.intake, min(received, count))
                self.intake.cast(SettleReservation(consumer, min(received, count)))
                self.consumers[consumer] += 1
                if again:
                    reserve(self.stage, self.intake, consumer)
                return

    @rule(pick=st.integers(0, 100))
    def finish(self, pick: int) -> None:
        if self.custodians:
            end(self.stage, self.custodians.pop(pick % len(self.custodians)))

    @rule(pick=st.integers(0, 100))
    def die(self, pick: int) -> None:
        if self.consumers:
            consumer = list(self.consumers)[pick % len(self.consumers)]
            del self.consumers[consumer]
            self.stage.crash(consumer)

    @invariant()
    def no_more_than_the_limit(self) -> None:
        now = status(self.stage, self.intake)
        assert now.in_flight == len(self.custodians)
        assert now.reserved == sum(map(self._granted_now, self.consumers))
        assert now.in_flight + now.reserved <= self.limit


TestCredits = Credits.TestCase
TestCredits.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
