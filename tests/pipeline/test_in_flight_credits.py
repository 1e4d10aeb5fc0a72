"""``InFlight``: the credits and the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.policy import Source
from receipt_actors.otp import NORMAL, Name, Ref, Stop, restart_child, terminate_child
from receipt_actors.pipeline.in_flight import STUCK_SECONDS
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    IN_FLIGHT,
    LEDGER_GATEWAY,
    MOVERS,
    VALIDATORS,
    CreditsGranted,
    Delivery,
    DescribeInFlight,
    Done,
    InFlightStatus,
    ObeyLimits,
    Received,
    ReserveCredits,
    ResumeReceiving,
    ServiceAvailable,
    ServiceUnavailable,
    StopReceiving,
    StuckInOutage,
    delete_batcher_of,
    visibility_batcher_of,
)
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from tests.pipeline.stand_ins import FIRST, SECOND, SOURCE, Ask, Stage, delivery, submission


def start(stage: Stage, max_in_flight: int = 25, *sources: Source) -> Ref:
    return stage.start_in_flight(LiveLimits(Limits(max_in_flight, 1, 1)), *sources)


def granted(stage: Stage, consumer: Ref) -> list[int]:
    return [value.count for _, value in stage.replies(consumer) if isinstance(value, CreditsGranted)]


def status(stage: Stage, in_flight: Ref) -> InFlightStatus:
    stage.settle()
    answer: InFlightStatus = in_flight.call(DescribeInFlight())
    return answer


def reserve(stage: Stage, in_flight: Ref, consumer: Ref | None = None, count: int = 10, *, queue: str = SOURCE) -> Ref:
    consumer = consumer or stage.stand_in()
    consumer.cast(Ask(in_flight, ReserveCredits(consumer, queue, count), None))
    stage.settle()
    return consumer


def receive(
    stage: Stage,
    in_flight: Ref,
    messages: int = 0,
    consumer: Ref | None = None,
    *,
    queue: str = SOURCE,
    corrupt: int = 0,
    failure: str | None = None,
) -> list[Ref]:
    consumer = consumer or stage.stand_in()
    came: list[Delivery] = [(delivery(number), submission(number)) for number in range(messages)]
    came += [(delivery(number), None) for number in range(corrupt)]
    before = set(stage.processors())
    source = replace(FIRST, queue=queue)
    received = Received(consumer, source, came, stage.clock.monotonic(), failure)
    consumer.cast(Ask(in_flight, received, None))
    stage.settle()
    return [each for each in stage.processors() if each not in before]


def end(stage: Stage, *refs: Ref) -> None:
    for ref in refs:
        ref.cast(Stop(NORMAL))
    stage.settle()


def test_reservations_never_exceed_the_room(stage: Stage) -> None:
    in_flight = start(stage, max_in_flight=15)
    consumers = [reserve(stage, in_flight) for _ in range(5)]
    assert [granted(stage, consumer) for consumer in consumers] == [[10], [5], [], [], []]
    assert status(stage, in_flight).reserved == 15


def test_the_age_of_the_oldest_message_in_flight_is_known(stage: Stage) -> None:
    in_flight = start(stage)
    (first,) = receive(stage, in_flight, 1)
    stage.settle()
    stage.advance(3.0)
    second, third = receive(stage, in_flight, 2)
    stage.settle()
    stage.advance(2.0)
    assert status(stage, in_flight).oldest_in_flight_seconds == 5.0
    end(stage, second)
    assert status(stage, in_flight).oldest_in_flight_seconds == 5.0
    end(stage, first)
    assert status(stage, in_flight).oldest_in_flight_seconds == 2.0
    end(stage, third)
    assert status(stage, in_flight).oldest_in_flight_seconds == 0.0


def test_a_message_in_flight_holds_its_credit(stage: Stage) -> None:
    in_flight = start(stage, max_in_flight=3)
    consumer = reserve(stage, in_flight)
    processors = receive(stage, in_flight, 3, consumer)
    reserve(stage, in_flight, consumer)
    assert granted(stage, consumer) == [3]
    assert status(stage, in_flight).in_flight == 3

    end(stage, processors[0])
    stage.crash(processors[1])
    assert granted(stage, consumer) == [3, 1]
    processors[2].kill()
    assert status(stage, in_flight).in_flight == 0


def test_a_smaller_limit_holds_for_what_is_taken_in_next(stage: Stage) -> None:
    limits = LiveLimits(Limits(20, 1, 1))
    in_flight = stage.start_in_flight(limits)
    consumer = reserve(stage, in_flight)
    processors = receive(stage, in_flight, 10)
    limits.change(Limits(4, 1, 1))
    obeying = stage.ask(IN_FLIGHT, ObeyLimits())
    end(stage, *processors[:6])
    receive(stage, in_flight, 0, consumer)
    assert stage.reply_to(obeying) == Done()
    reserve(stage, in_flight, consumer)
    assert granted(stage, consumer) == [10]
    end(stage, processors[6])
    assert granted(stage, consumer) == [10, 1]


def test_a_smaller_limit_is_not_confirmed_before_it_is_kept(stage: Stage) -> None:
    limits = LiveLimits(Limits(20, 1, 1))
    in_flight = stage.start_in_flight(limits)
    consumer = reserve(stage, in_flight)
    (processor,) = receive(stage, in_flight, 1)
    limits.change(Limits(10, 1, 1))
    obeying = stage.ask(IN_FLIGHT, ObeyLimits())
    assert stage.replies(obeying) == []
    end(stage, processor)
    assert stage.reply_to(obeying) == Done()
    limits.change(Limits(9, 1, 1))
    obeying = stage.ask(IN_FLIGHT, ObeyLimits())
    assert stage.replies(obeying) == []
    receive(stage, in_flight, 0, consumer)
    assert stage.reply_to(obeying) == Done()


def test_a_wider_limit_serves_those_who_wait_at_once(stage: Stage) -> None:
    limits = LiveLimits(Limits(20, 1, 1), Limits(10, 1, 1))
    in_flight = stage.start_in_flight(limits)
    _, waiting = reserve(stage, in_flight), reserve(stage, in_flight)
    assert granted(stage, waiting) == []
    limits.change(Limits(15, 1, 1))
    assert stage.reply_to(stage.ask(IN_FLIGHT, ObeyLimits())) == Done()
    assert granted(stage, waiting) == [5]


def test_the_reservation_of_a_consumer_that_dies_is_free_again(stage: Stage) -> None:
    in_flight = start(stage, max_in_flight=10)
    dying, waiting_and_dying, living = [reserve(stage, in_flight) for _ in range(3)]
    stage.crash(waiting_and_dying)
    stage.crash(dying)
    assert granted(stage, living) == [10]
    assert status(stage, in_flight).reserved == 10


def test_the_gate_is_closed_while_any_service_is_unavailable(stage: Stage) -> None:
    in_flight = start(stage, max_in_flight=30)
    processors = receive(stage, in_flight, 2)
    in_flight.cast(ServiceUnavailable("ledger"))
    in_flight.cast(ServiceUnavailable("app_store"))
    in_flight.cast(ServiceUnavailable("ledger"))  # said at every probe
    consumer = reserve(stage, in_flight)
    assert granted(stage, consumer) == []
    assert status(stage, in_flight).unavailable == {"ledger", "app_store"}

    in_flight.cast(ServiceAvailable("ledger"))
    assert granted(stage, consumer) == []
    in_flight.cast(ServiceAvailable("app_store"))
    assert granted(stage, consumer) == [10]
    assert len(processors) == 2


def test_an_outage_may_close_the_gate_and_open_it_again(stage: Stage) -> None:
    in_flight = start(stage, max_in_flight=30)
    receive(stage, in_flight, 2)
    in_flight.cast(ServiceUnavailable("app_store"))
    consumer = reserve(stage, in_flight)
    assert granted(stage, consumer) == []
    in_flight.cast(ServiceUnavailable("app_store", stops_receiving=False))
    assert granted(stage, consumer) == [10]
    receive(stage, in_flight, 0, consumer)
    in_flight.cast(ServiceUnavailable("app_store"))
    another = reserve(stage, in_flight)
    assert granted(stage, another) == []
    in_flight.cast(ServiceAvailable("app_store"))
    assert granted(stage, another) == [10]


def test_an_empty_closed_gate_lets_one_message_in(stage: Stage) -> None:
    in_flight = start(stage)
    in_flight.cast(ServiceUnavailable("ledger"))
    first, second = reserve(stage, in_flight), reserve(stage, in_flight)
    assert (granted(stage, first), granted(stage, second)) == ([1], [])

    (probe,) = receive(stage, in_flight, 1, first)
    assert granted(stage, second) == []
    end(stage, probe)
    assert granted(stage, second) == [1]


def test_closing_waits_for_what_is_in_flight_and_received(stage: Stage) -> None:
    in_flight = start(stage)
    receiving = reserve(stage, in_flight)
    (early,) = receive(stage, in_flight, 1)
    closing = stage.ask(IN_FLIGHT, StopReceiving())
    waiting = reserve(stage, in_flight)

    end(stage, early)
    assert stage.replies(closing) == []
    (late,) = receive(stage, in_flight, 1, receiving)
    reserve(stage, in_flight, receiving)
    assert stage.replies(closing) == []
    end(stage, late)
    assert stage.reply_to(closing) == Done()
    assert (granted(stage, receiving), granted(stage, waiting)) == ([10], [])


def test_closing_does_not_wait_for_the_end_of_an_outage(stage: Stage) -> None:
    in_flight = start(stage)
    processors = receive(stage, in_flight, 3)
    in_flight.cast(ServiceUnavailable("ledger"))
    closing = stage.ask(IN_FLIGHT, StopReceiving())
    for processor in processors[:2]:
        end(stage, processor)
        stage.advance(STUCK_SECONDS)
        assert stage.replies(closing) == []
    stage.advance(STUCK_SECONDS)
    assert stage.reply_to(closing) == StuckInOutage(1, frozenset({"ledger"}))


def test_closing_does_not_wait_for_a_queue_that_keeps_its_own_messages(stage: Stage) -> None:
    in_flight = start(stage)
    receive(stage, in_flight, 2)
    in_flight.cast(ServiceUnavailable("send to Out", stops_receiving=False))
    consumer = reserve(stage, in_flight)
    assert granted(stage, consumer) == [10]
    assert status(stage, in_flight).unavailable == frozenset()
    receive(stage, in_flight, 0, consumer)
    closing = stage.ask(IN_FLIGHT, StopReceiving())
    stage.advance(STUCK_SECONDS)
    assert stage.reply_to(closing) == StuckInOutage(2, frozenset({"send to Out"}))


def test_closing_waits_for_receives_in_an_outage_too(stage: Stage) -> None:
    in_flight = start(stage)
    consumer = reserve(stage, in_flight)
    closing = stage.ask(IN_FLIGHT, StopReceiving())
    in_flight.cast(ServiceUnavailable("ledger"))  # it may begin only then
    stage.advance(10 * STUCK_SECONDS)
    assert stage.replies(closing) == []
    receive(stage, in_flight, 1, consumer)
    stage.advance(2 * STUCK_SECONDS)
    assert stage.reply_to(closing) == StuckInOutage(1, frozenset({"ledger"}))


def test_closing_waits_as_ever_once_an_outage_is_over(stage: Stage) -> None:
    in_flight = start(stage)
    (processor,) = receive(stage, in_flight, 1)
    in_flight.cast(ServiceUnavailable("ledger"))
    closing = stage.ask(IN_FLIGHT, StopReceiving())
    in_flight.cast(ServiceAvailable("ledger"))
    stage.advance(10 * STUCK_SECONDS)
    assert stage.replies(closing) == []
    end(stage, processor)
    assert stage.reply_to(closing) == Done()


def test_an_empty_house_closes_at_once(stage: Stage) -> None:
    in_flight = start(stage)
    in_flight.cast(ServiceUnavailable("ledger"))
    assert in_flight.call(StopReceiving()) == Done()
    assert in_flight.call(StopReceiving()) == Done()


def test_a_consumer_that_dies_does_not_hold_up_closing(stage: Stage) -> None:
    in_flight = start(stage)
    consumer = reserve(stage, in_flight)
    closing = stage.ask(IN_FLIGHT, StopReceiving())
    assert stage.replies(closing) == []
    stage.crash(consumer)
    assert stage.reply_to(closing) == Done()


def test_idle_time_counts_from_the_last_message(stage: Stage) -> None:
    in_flight = start(stage)
    consumer = reserve(stage, in_flight)
    (processor,) = receive(stage, in_flight, 1, consumer)
    stage.advance(5)
    assert status(stage, in_flight).idle_seconds == 0
    end(stage, processor)
    stage.advance(7)
    receive(stage, in_flight, 0, consumer)
    assert status(stage, in_flight).idle_seconds == 7
    stage.advance(1)
    receive(stage, in_flight, 0, consumer)
    assert status(stage, in_flight).idle_seconds == 8
    receive(stage, in_flight, 0, consumer, corrupt=1)
    stage.advance(2)
    assert status(stage, in_flight).idle_seconds == 0
    receive(stage, in_flight, 0, consumer)
    assert status(stage, in_flight).idle_seconds == 2


def test_failing_receives_are_told_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Four consumers meet the same outage again and again: one line when it begins, one when all is well again."""
    in_flight = start(stage)
    consumers = [stage.stand_in() for _ in range(4)]
    for _ in range(5):
        for consumer in consumers:
            receive(stage, in_flight, 0, consumer, failure="503")
    stage.settle()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    for consumer in consumers:
        receive(stage, in_flight, 0, consumer)
    stage.settle()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_while_receives_fail_nobody_is_idle(stage: Stage) -> None:
    """A batch run must not end because it can't see its work, however long; when it can again it looks first."""
    in_flight = start(stage)
    consumer = stage.stand_in()
    receive(stage, in_flight, 0, consumer)
    stage.advance(60)
    assert status(stage, in_flight).idle_seconds == 60
    receive(stage, in_flight, 0, consumer, failure="503")
    stage.advance(60)
    seen = status(stage, in_flight)
    assert (seen.idle_seconds, seen.troubles) == (0, {f"receive from {SOURCE}"})
    receive(stage, in_flight, 0, consumer)
    seen = status(stage, in_flight)
    assert (seen.idle_seconds, seen.troubles) == (60, frozenset())


@pytest.mark.parametrize("supervisor", [VALIDATORS, MOVERS])
def test_no_credit_is_granted_while_no_processor_can_start(stage: Stage, supervisor: str) -> None:
    in_flight = start(stage, 20)
    terminate_child(stage.groups, supervisor)
    assert granted(stage, reserve(stage, in_flight)) == []
    restart_child(stage.groups, supervisor)
    assert granted(stage, reserve(stage, in_flight)) == [10]


def test_a_restarted_in_flight_counts_what_is_in_flight(stage: Stage) -> None:
    in_flight = start(stage, 20)
    processors = receive(stage, in_flight, 3)
    stage.crash(in_flight)
    successor = start(stage, 20)
    assert status(stage, successor).in_flight == 3
    assert granted(stage, reserve(stage, successor, count=50)) == [17]
    end(stage, *processors)
    assert status(stage, successor).in_flight == 0


def test_a_restarted_in_flight_knows_of_the_outage(stage: Stage) -> None:
    """It asks the gateways, and grants nothing before they have answered: no flood meets a service that is down."""
    stage.stand_in(LEDGER_GATEWAY, answer=lambda _: ServiceUnavailable("ledger"))
    app_store = stage.stand_in(APP_STORE_GATEWAY)
    in_flight = start(stage)
    consumer = reserve(stage, in_flight)
    assert granted(stage, consumer) == []
    assert status(stage, in_flight).unavailable == {"ledger"}
    stage.answer(app_store, ServiceAvailable("app_store"))
    assert granted(stage, consumer) == [1]  # nothing is in flight: one may try
    in_flight.cast(ServiceAvailable("ledger"))
    assert granted(stage, reserve(stage, in_flight)) == [10]


def test_a_closed_gate_lets_one_more_in_to_try_with(stage: Stage) -> None:
    in_flight = start(stage, max_in_flight=3)
    receive(stage, in_flight, 1)
    in_flight.cast(ServiceUnavailable("ledger"))
    first, second = reserve(stage, in_flight), reserve(stage, in_flight)
    assert granted(stage, first) == []
    for _ in range(3):
        in_flight.cast(ServiceUnavailable("ledger", wanted_messages=1))
    assert (granted(stage, first), granted(stage, second)) == ([1], [])
    receive(stage, in_flight, 2, first)
    in_flight.cast(ServiceUnavailable("ledger", wanted_messages=1))
    assert granted(stage, second) == []


def test_requests_that_it_does_not_know_are_bugs(stage: Stage) -> None:
    with pytest.raises(NotImplementedError):
        start(stage).call("what is in flight?")
    assert stage.actors.whereis(IN_FLIGHT) is None


def test_a_deep_queue_leaves_room_for_the_other_source(stage: Stage) -> None:
    in_flight = start(stage, 100, FIRST, SECOND)
    consumer = reserve(stage, in_flight)
    while len(counts := granted(stage, consumer)) == 1:
        receive(stage, in_flight, counts[0], consumer)
        consumer = reserve(stage, in_flight)
    assert status(stage, in_flight).in_flight == 75
    assert granted(stage, reserve(stage, in_flight, queue=SECOND.queue)) == [10]


@pytest.mark.parametrize("name_of", [delete_batcher_of, visibility_batcher_of])
def test_trouble_with_one_source_queue_closes_the_gate_for_that_one_alone(
    stage: Stage, name_of: Callable[[Source], Name]
) -> None:
    """Where nothing of it is in flight one message may try; the others go on, so the system does not wait."""
    in_flight = start(stage, 100, FIRST, SECOND)
    service = str(name_of(SECOND))
    in_flight.cast(ServiceUnavailable(service, source_queue=SECOND.queue))
    consumers = [reserve(stage, in_flight, queue=SECOND.queue) for _ in range(2)]
    assert [granted(stage, consumer) for consumer in consumers] == [[1], []]
    assert granted(stage, reserve(stage, in_flight)) == [10]
    now = status(stage, in_flight)
    assert (now.unavailable, now.is_closed) == ({service}, False)
    in_flight.cast(ServiceUnavailable(service, wanted_messages=1, source_queue=SECOND.queue))
    assert granted(stage, consumers[1]) == []  # one may be coming
    receive(stage, in_flight, 1, consumers[0], queue=SECOND.queue)
    in_flight.cast(ServiceUnavailable(service, wanted_messages=1, source_queue=SECOND.queue))
    assert granted(stage, consumers[1]) == [1]
    in_flight.cast(ServiceUnavailable("delete from receipts", source_queue=FIRST.queue))
    assert status(stage, in_flight).is_closed
    in_flight.cast(ServiceAvailable(service))
    assert granted(stage, reserve(stage, in_flight, queue=SECOND.queue)) == [10]


def test_a_queue_that_cannot_be_received_from_is_told_of_by_its_name(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    incidents = stage.stand_in(INCIDENTS)
    in_flight = start(stage, 100, FIRST, SECOND)
    lost = reserve(stage, in_flight, queue=SECOND.queue)
    receive(stage, in_flight, 0, lost, queue=SECOND.queue, failure="receipts-2: no such queue")
    now = status(stage, in_flight)
    assert (now.receives_fail, now.unavailable, now.is_closed) == ({SECOND.queue}, frozenset(), False)
    assert granted(stage, reserve(stage, in_flight)) == [10]
    receive(stage, in_flight, 0, lost, queue=SECOND.queue)
    told = stage.told(incidents, Noticed)
    assert [(each.kind, each.subject) for each in told] == [
        (IncidentKind.OUTAGE, "receive from receipts-2"),
        (IncidentKind.RECOVERED, "receive from receipts-2"),
    ]


def test_a_restarted_in_flight_hears_of_every_sources_trouble(stage: Stage) -> None:
    outage = ServiceUnavailable("delete from receipts-2", source_queue=SECOND.queue)
    stage.stand_in(delete_batcher_of(SECOND), answer=lambda _: outage)
    silent = stage.stand_in(visibility_batcher_of(SECOND))
    in_flight = start(stage, 100, FIRST, SECOND)
    first, second = reserve(stage, in_flight), reserve(stage, in_flight, queue=SECOND.queue)
    assert (granted(stage, first), granted(stage, second)) == ([], [])
    stage.answer(silent, ServiceAvailable("visibility of receipts-2"))
    assert (granted(stage, first), granted(stage, second)) == ([10], [1])


class Unable:
    def __init__(self, stage: Stage, *sources: Source) -> None:
        self.stage = stage
        self.limits = LiveLimits(Limits(25, 1, 1))
        self.in_flight = stage.start_in_flight(self.limits, *sources)

    def receive(self, *, fails: bool, queue: str = SOURCE, messages: int = 0) -> None:
        consumer = reserve(self.stage, self.in_flight, queue=queue)
        failure = "injected by a test" if fails else None
        receive(self.stage, self.in_flight, messages, consumer, queue=queue, failure=failure)

    def tell(self, fact: object) -> None:
        self.in_flight.cast(fact)
        self.stage.settle()

    def after(self, seconds: float) -> float:
        self.stage.advance(seconds)
        return status(self.stage, self.in_flight).unable_seconds


def test_who_lacks_another_service_can_receive(stage: Stage) -> None:
    """Also where nothing is taken in because of it: what is in flight is kept, and waits here as well as elsewhere."""
    unable = Unable(stage)
    unable.tell(ServiceUnavailable("app_store", stops_receiving=False))
    unable.tell(ServiceUnavailable("ledger"))
    assert unable.after(3.0) == 0.0
    unable.receive(fails=True)
    assert unable.after(3.0) == 3.0


def test_who_is_paused_or_ends_or_has_nothing_is_not_unable(stage: Stage) -> None:
    unable = Unable(stage)
    unable.receive(fails=True)
    unable.limits.is_paused = True
    assert unable.after(5.0) == 0.0
    unable.limits.is_paused = False
    unable.tell(ResumeReceiving())
    assert unable.after(2.0) == 2.0
    unable.limits.held_until_seconds = stage.clock.boottime()
    assert unable.after(1.0) == 0.0
    unable.limits.held_until_seconds = stage.clock.boottime() + 1000.0
    unable.limits.change(unable.limits.whole.nothing)
    stage.ask(IN_FLIGHT, ObeyLimits())
    assert unable.after(1.0) == 0.0
    unable.limits.change(unable.limits.whole)
    stage.ask(IN_FLIGHT, ObeyLimits())
    assert unable.after(1.0) == 0.0  # whether the queue is back has to be found out
    unable.receive(fails=True)
    assert unable.after(1.0) == 1.0
    unable.in_flight.ask(StopReceiving(), block=False)
    assert unable.after(1.0) == 0.0
