"""The consumer: receives as in_flight allows, and has a processor started for everything that is worth one."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.domain.messages import Submission, Unanswerable
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.retrying import RetryPolicy
from receipt_actors.errors import QueueRefused, QueueUnavailable
from receipt_actors.otp import SHUTDOWN, NotStarted, Ref, StartChild, Started
from receipt_actors.pipeline.consumer import Consumer
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    MOVERS,
    VALIDATORS,
    CreditsGranted,
    ReserveCredits,
    SettleReservation,
)
from receipt_actors.testing import FakeQueues
from tests.pipeline.stand_ins import FIRST, SOURCE, Stage, delivery

POLL_SECONDS = 10
RETRY = RetryPolicy(10**9, first_seconds=0.5, max_seconds=15.0)


class House:
    """A consumer with stand-ins for whom it talks to."""

    source = FIRST

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.queues: FakeQueues = stage.with_fake(FakeQueues(stage.clock))
        self.queues.create_queue(SOURCE)
        self.processor = stage.stand_in()
        self.validators = stage.stand_in(VALIDATORS, lambda _: Started(self.processor))
        self.movers = stage.stand_in(MOVERS, lambda _: Started(self.processor))
        self.in_flight = stage.stand_in(IN_FLIGHT)
        self.consumer: Ref | None = None

    def start(self) -> Ref:
        self.consumer = self.stage.actors.start(
            Consumer, self.queues, self.source, POLL_SECONDS, 120, RETRY, random.Random(0)
        )
        self.stage.settle()
        return self.consumer

    def grant(self, count: int) -> None:
        assert self.consumer is not None
        self.consumer.send(CreditsGranted(count))
        self.stage.settle()

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.queues.put(SOURCE, delivery(number).body)

    def started(self, supervisor: Ref) -> list[Any]:
        return [call.spec_or_args for call in self.stage.calls(supervisor, StartChild)]

    def reservations(self) -> int:
        settled = self.stage.told(self.in_flight, SettleReservation)
        return len(self.stage.told(self.in_flight, ReserveCredits)) + sum(each.next_count == 10 for each in settled)

    def settled(self) -> list[int]:
        return [settled.received for settled in self.stage.told(self.in_flight, SettleReservation)]


@pytest.fixture
def house(stage: Stage) -> House:
    return House(stage)


def test_nothing_is_received_without_credits(house: House) -> None:
    """The first thing a consumer does is ask for ten; until they come it leaves the queue alone."""
    consumer = house.start()
    house.put(1)
    assert house.stage.told(house.in_flight, ReserveCredits) == [ReserveCredits(consumer, SOURCE, 10)]
    assert house.queues.count("receive") == 0


def test_no_more_is_received_than_granted(house: House) -> None:
    """Each message gets a validator, which knows when the receive began."""
    house.put(1, 2, 3)
    house.start()
    house.stage.advance(3)
    house.grant(2)

    started = house.started(house.validators)
    assert [work.user_id for _, _, work, _ in started if isinstance(work, Submission)] == [1, 2]
    assert [at for _, _, _, at in started] == [3.0, 3.0]
    assert house.stage.counted().received == 2


def test_a_reservation_is_settled_after_every_receive(house: House) -> None:
    """With what came; then the next credits are asked for."""
    house.put(1, 2)
    house.start()
    house.grant(10)
    assert (house.settled(), house.reservations()) == ([2], 2)
    house.grant(10)  # and nothing comes, for the whole poll
    assert house.settled() == [2]
    house.stage.advance(POLL_SECONDS)
    assert (house.settled(), house.reservations()) == ([2, 0], 3)


def test_the_reservation_is_held_until_the_processors_have_begun(house: House) -> None:
    """Else their messages would count nowhere for a moment, and too many might come in."""
    house.put(1)
    house.start()
    hold = house.queues.hold_answer("receive")
    house.grant(10)
    assert (house.started(house.validators), house.settled()) == ([], [])
    hold.release()
    assert (len(house.started(house.validators)), house.settled()) == (1, [1])


def test_what_nobody_would_watch_is_handed_back(house: House) -> None:
    """Custody has ended while the receive was under way: its messages are there for another process at once."""
    house.put(1)
    house.start()
    house.stage.crash(house.in_flight)
    house.grant(10)
    assert house.started(house.validators) == []
    assert house.queues.approximate_number_of_messages(SOURCE) == 1


def test_a_corrupt_copy_is_left_alone_and_counted(house: House) -> None:
    """MD5 wrong: no processor, no visibility change, nothing deleted; the message comes back as it was."""
    house.put(1, 2)
    house.queues.corrupt_next()
    house.start()
    house.grant(10)

    assert [work.user_id for _, _, work, _ in house.started(house.validators)] == [2]
    assert house.started(house.movers) == []
    assert house.stage.counted().fates == {("left", Reason.BODY_MD5_MISMATCH): 1}
    assert [house.queues.count(each) for each in ("delete", "change_visibility", "send")] == [0, 0, 0]
    assert house.settled() == [2]

    house.stage.advance(120)
    house.grant(10)
    assert [work.user_id for _, _, work, _ in house.started(house.validators)] == [2, 1, 2]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("no json", Reason.NOT_JSON),
        ("[]", Reason.NOT_AN_OBJECT),
        ('{"receipt": "AAAA", "user_id": true, "post_queue": "results"}', Reason.BAD_USER_ID),
        ('{"receipt": "AAAA", "user_id": 1, "post_queue": "elsewhere"}', Reason.POST_QUEUE_NOT_ALLOWED),
        ('{"receipt": "AAAA", "user_id": 1, "post_queue": "receipts"}', Reason.POST_QUEUE_NOT_ALLOWED),
    ],
)
def test_what_cannot_be_answered_gets_a_mover(house: House, body: str, reason: Reason) -> None:
    """And never a validator."""
    house.queues.put(SOURCE, body)
    house.start()
    house.grant(1)
    ((source, message, work, _),) = house.started(house.movers)
    assert isinstance(work, Unanswerable)
    assert (source, message.body, work.reason) == (FIRST, body, reason)
    assert house.started(house.validators) == []


def test_a_processor_that_does_not_start_harms_nobody(house: House) -> None:
    """Its message comes back by its visibility timeout; the consumer goes on."""
    house.validators.kill()
    house.validators = house.stage.stand_in(VALIDATORS, lambda _: NotStarted(SHUTDOWN))
    house.put(1, 2)
    consumer = house.start()
    house.grant(10)
    assert len(house.started(house.validators)) == 2
    assert (house.settled(), consumer.is_alive()) == ([2], True)


def test_without_a_supervisor_of_validators_messages_are_left(house: House) -> None:
    """It is being restarted; what was received comes back."""
    house.validators.kill()
    house.put(1)
    consumer = house.start()
    house.grant(10)
    assert consumer.is_alive()


# --- FIFO queues ---

FIFO = "receipts.fifo"


class FifoHouse(House):
    """Likewise, on a FIFO queue; ``answers`` say whether each processor starts, ``True`` when there are none left."""

    source = replace(FIRST, queue=FIFO)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.queues.create_queue(FIFO)
        self.answers: list[bool] = []
        self.validators.kill()
        self.validators = stage.stand_in(VALIDATORS, self.answer)

    def answer(self, _request: object) -> object:
        starts = self.answers.pop(0) if self.answers else True
        return Started(self.processor) if starts else NotStarted(SHUTDOWN)

    def put_in_group(self, group: str, *numbers: int) -> None:
        for number in numbers:
            self.queues.put(FIFO, delivery(number).body, group_id=group)

    def users(self) -> list[int]:
        return [work.user_id for _, _, work, _ in self.started(self.validators)]

    def hidden(self) -> list[bool]:
        return [message.hidden_for_seconds > 0 for message in self.queues.messages(FIFO)]


@pytest.fixture
def fifo_house(stage: Stage) -> FifoHouse:
    return FifoHouse(stage)


def test_processors_of_a_group_are_started_in_order(fifo_house: FifoHouse) -> None:
    """One after the other, so that they announce themselves in order; those of different groups together."""
    fifo_house.put_in_group("a", 1, 2, 3)
    fifo_house.put_in_group("b", 11, 12)
    fifo_house.start()
    fifo_house.grant(10)
    assert fifo_house.users() == [1, 11, 2, 12, 3]
    assert (fifo_house.settled(), fifo_house.reservations()) == ([5], 2)
    assert {message.group_id for _, message, _, _ in fifo_house.started(fifo_house.validators)} == {"a", "b"}


def test_what_is_behind_a_processor_that_did_not_start_is_handed_back(fifo_house: FifoHouse) -> None:
    """Its own message comes back by its visibility timeout, and keeps theirs back until then."""
    fifo_house.answers = [False]
    fifo_house.put_in_group("a", 1, 2, 3)
    fifo_house.put_in_group("b", 11, 12)
    fifo_house.start()
    fifo_house.grant(10)
    assert fifo_house.users() == [1, 11, 12]
    assert fifo_house.hidden() == [True, False, False, True, True]
    assert fifo_house.settled() == [5]
    assert fifo_house.stage.counted().fates == {("handed_back", Reason.GROUP_HANDED_BACK): 2}


def test_what_is_behind_a_corrupt_copy_is_handed_back(fifo_house: FifoHouse) -> None:
    """The corrupt one is left as it is; until it comes back its group gives nothing."""
    fifo_house.put_in_group("a", 1, 2)
    fifo_house.put_in_group("b", 11)
    fifo_house.queues.corrupt_next()
    fifo_house.start()
    fifo_house.grant(10)
    assert fifo_house.users() == [11]
    assert fifo_house.hidden() == [True, False, True]
    fates = {("left", Reason.BODY_MD5_MISMATCH): 1, ("handed_back", Reason.GROUP_HANDED_BACK): 1}
    assert fifo_house.stage.counted().fates == fates


@pytest.mark.parametrize("error", [QueueUnavailable("503"), QueueRefused(SOURCE, "deleted")], ids=type)
def test_a_failing_receive_is_tried_again_later_and_later(house: House, error: Exception) -> None:
    """Its credits go back at once; the pauses grow to 15 s; and it never gives up."""
    house.queues.fail("receive", error, times=30)
    house.start()
    pauses = []
    for attempt in range(30):
        house.grant(10)
        assert house.settled() == [0] * (attempt + 1)
        before = house.stage.clock.monotonic()
        while house.reservations() < attempt + 2:
            house.stage.advance(0.25)
        pauses.append(house.stage.clock.monotonic() - before)

    assert 0.5 <= pauses[0] <= 1.25
    assert pauses[2] > pauses[0]
    assert all(15 <= pause <= 15.75 for pause in pauses[10:])
    house.put(1)
    house.grant(10)
    assert len(house.started(house.validators)) == 1


def test_the_pauses_begin_anew_after_a_success(house: House) -> None:
    """An outage of yesterday slows down nobody today."""
    house.queues.fail("receive", QueueUnavailable("503"), times=8)
    house.start()
    for _ in range(8):
        house.grant(10)
        house.stage.advance(16)
    house.put(1)
    house.grant(10)
    house.queues.fail("receive", QueueUnavailable("503"))
    house.grant(10)
    reservations = house.reservations()
    house.stage.advance(1.25)
    assert house.reservations() == reservations + 1


def test_receives_that_are_empty_at_once_do_not_spin(house: House) -> None:
    """A queue that does not do long polls is asked a few times a second, no more."""
    house.start()
    house.grant(10)
    house.queues.interrupt()
    assert (house.settled(), house.reservations()) == ([0], 1)
    house.stage.advance(0.1)
    assert house.reservations() == 2


def test_an_in_flight_that_ends_is_replaced(house: House) -> None:
    """A consumer that waits for credits asks the next in_flight."""
    consumer = house.start()
    house.stage.crash(house.in_flight)
    house.stage.advance(5)  # a restart takes its time
    house.in_flight = house.stage.stand_in(IN_FLIGHT)
    house.stage.advance(0.1)
    assert house.stage.told(house.in_flight, ReserveCredits) == [ReserveCredits(consumer, SOURCE, 10)]


def test_an_in_flight_that_ends_during_a_receive_is_replaced_once(house: House) -> None:
    """The receive is settled with its successor, and one reservation follows, not two."""
    house.start()
    house.grant(10)
    house.stage.crash(house.in_flight)
    house.in_flight = house.stage.stand_in(IN_FLIGHT)
    house.put(1)
    assert house.settled() == [1]
    house.stage.advance(1)
    assert house.reservations() == 1


def test_credits_of_an_in_flight_that_has_ended_are_used_once(house: House) -> None:
    """A grant that was on its way when in_flight died is a receive, and the next grant is asked for once."""
    consumer = house.start()
    house.put(1)
    with house.queues.hold_answer("receive", times=1) as hold:
        consumer.send(CreditsGranted(10))
        hold.wait_for_call()
        house.stage.crash(house.in_flight)
        house.in_flight = house.stage.stand_in(IN_FLIGHT)
    house.stage.advance(1)
    assert (house.settled(), house.reservations()) == ([1], 1)


def test_an_unexpected_error_is_a_crash(house: House) -> None:
    """What a client never should raise is for the supervisor; in_flight sees the consumer end."""
    house.queues.fail("receive", ZeroDivisionError())
    consumer = house.start()
    house.grant(10)
    assert not consumer.is_alive()


def test_an_in_flight_that_ends_is_replaced_after_the_receive(house: House) -> None:
    """A consumer that learns of it while it receives begins no second receive."""
    house.start()
    house.put(1)
    with house.queues.hold_answer("receive", times=1) as hold:
        house.grant(10)
        hold.wait_for_call()
        house.stage.crash(house.in_flight)
        house.stage.advance(5)
        house.in_flight = house.stage.stand_in(IN_FLIGHT)
        house.stage.advance(5)
        assert (house.reservations(), house.queues.count("receive")) == (0, 1)
    assert (house.settled(), house.reservations()) == ([1], 1)


def test_what_cannot_be_handed_back_comes_back_by_itself(house: House) -> None:
    """The consumer goes on; its visibility timeout returns the message."""
    house.put(1)
    house.queues.fail("change_visibility", QueueUnavailable("503"))
    consumer = house.start()
    house.stage.crash(house.in_flight)
    house.grant(10)
    assert consumer.is_alive()
    house.stage.advance(120)
    assert house.queues.approximate_number_of_messages(SOURCE) == 1


def test_a_receive_under_way_is_finished_before_the_end(house: House) -> None:
    """What it brings is handed back at once: no process has to wait for the visibility timeout."""
    house.put(1, 2)
    consumer = house.start()
    with house.queues.hold_answer("receive", times=1) as hold:
        consumer.send(CreditsGranted(10))
        hold.wait_for_call()
        consumer.exit(SHUTDOWN)
        house.stage.settle()
        assert house.queues.approximate_number_of_messages(SOURCE) == 0
    house.stage.settle()
    assert house.started(house.validators) == []
    assert house.queues.approximate_number_of_messages(SOURCE) == 2


def test_nobody_waits_for_a_consumer_that_waits_for_credits(house: House) -> None:
    """There is nothing to finish."""
    consumer = house.start()
    consumer.exit(SHUTDOWN)
    house.stage.settle()
    assert not consumer.is_alive()


def test_processors_that_are_being_started_are_told_of_before_the_end(stage: Stage) -> None:
    """They end next, and only what is known to be in flight is handed back; what none was started for is, too."""
    house = FifoHouse(stage)
    house.validators.kill()
    house.validators = stage.stand_in(VALIDATORS)
    house.put_in_group("a", 1, 2)
    consumer = house.start()
    house.grant(10)
    consumer.exit(SHUTDOWN)
    stage.settle()
    assert (consumer.process.exit_reason, house.settled()) == (None, [])
    stage.answer(house.validators, Started(house.processor))
    assert consumer.process.exit_reason == SHUTDOWN
    (settled,) = stage.told(house.in_flight, SettleReservation)
    assert [(each.processor, each.message_id) for each in settled.taken] == [
        (house.processor, house.queues.messages(FIFO)[0].message_id)
    ]
    assert house.hidden() == [True, False]
