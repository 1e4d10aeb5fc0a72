"""The consumer: credits first, then a receive, all of which it hands over to ``in_flight``."""

from __future__ import annotations

import pytest

from receipt_actors.domain.messages import Submission, Unanswerable
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.errors import QueueRefused, QueueUnavailable
from receipt_actors.otp import SHUTDOWN, Ref
from receipt_actors.pipeline.consumer import PAUSE_SECONDS, Consumer
from receipt_actors.pipeline.protocol import IN_FLIGHT, CreditsGranted, Done, Received, ReserveCredits
from receipt_actors.testing import FakeQueues
from tests.pipeline.stand_ins import FIRST, SILENT, SOURCE, Stage, delivery

POLL_SECONDS = 20
RETRY = RetryPolicy(1_000_000, first_seconds=0.5, max_seconds=15.0)


class House:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.queues: FakeQueues = stage.with_fake(FakeQueues(stage.clock))
        self.queues.create_queue(SOURCE)
        self.in_flight = self.start_in_flight()
        self.consumer = stage.actors.start(Consumer, self.queues, FIRST, POLL_SECONDS, 120, RETRY)
        stage.settle()

    def start_in_flight(self) -> Ref:
        self.in_flight = self.stage.stand_in(IN_FLIGHT, self.answer)
        return self.in_flight

    @staticmethod
    def answer(request: object) -> object:
        return Done() if isinstance(request, Received) and not request.next_count else SILENT

    def grant(self, count: int = 10) -> None:
        self.stage.answer(self.in_flight, CreditsGranted(count))

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.queues.put(SOURCE, delivery(number).body)

    def received(self) -> list[Received]:
        return self.stage.calls(self.in_flight, Received)

    def users(self) -> list[int]:
        works = [work for received in self.received() for _, work in received.messages]
        return [work.user_id for work in works if isinstance(work, Submission)]

    def requests(self) -> int:
        return len(self.stage.calls(self.in_flight, ReserveCredits)) + sum(
            each.next_count == 10 for each in self.received()
        )


@pytest.fixture
def house(stage: Stage) -> House:
    return House(stage)


def test_nothing_is_received_without_credits(house: House) -> None:
    house.put(1)
    assert house.stage.calls(house.in_flight, ReserveCredits) == [ReserveCredits(house.consumer, SOURCE, 10)]
    assert house.queues.count("receive") == 0


def test_what_came_is_handed_over_and_the_next_credits_are_asked_for(house: House) -> None:
    house.put(1, 2, 3)
    house.stage.advance(3)
    house.grant(2)
    (received,) = house.received()
    assert house.users() == [1, 2]
    assert (received.source, received.began_at_seconds, received.next_count) == (FIRST, 3.0, 10)
    assert house.stage.counted().received == 2
    house.grant()
    house.grant()  # and nothing comes, for the whole poll
    assert (house.users(), len(house.received())) == ([1, 2, 3], 2)
    house.stage.advance(POLL_SECONDS)
    assert (house.received()[2].messages, house.requests()) == ([], 4)


def test_a_corrupt_copy_is_left_alone_and_counted(house: House) -> None:
    house.put(1, 2)
    house.queues.corrupt_next()
    house.grant()
    (received,) = house.received()
    assert ([work is None for _, work in received.messages], house.users()) == ([True, False], [2])
    assert house.stage.counted().fates == {("left", Reason.BODY_MD5_MISMATCH): 1}
    house.stage.advance(120)
    house.grant()
    assert house.users() == [2, 1, 2]
    assert [house.queues.count(each) for each in ("delete", "change_visibility", "send")] == [0, 0, 0]


def test_what_cannot_be_answered_is_handed_over_with_its_reason(house: House) -> None:
    house.queues.put(SOURCE, '{"receipt": "AAAA", "user_id": 1, "post_queue": "elsewhere"}')
    house.grant()
    ((_, work),) = house.received()[0].messages
    assert isinstance(work, Unanswerable)
    assert work.reason == Reason.POST_QUEUE_NOT_ALLOWED


@pytest.mark.parametrize("error", [QueueUnavailable("503"), QueueRefused(SOURCE, "deleted")], ids=type)
def test_a_failing_receive_is_tried_again_later_and_later(house: House, error: Exception) -> None:
    house.queues.fail("receive", error, times=30)
    pauses = []
    for attempt in range(30):
        house.grant()
        assert [received.failure for received in house.received()] == [str(error)] * (attempt + 1)
        before = house.stage.clock.monotonic()
        while house.requests() < attempt + 2:
            house.stage.advance(0.25)
        pauses.append(house.stage.clock.monotonic() - before)
    assert 0.5 <= pauses[0] <= 1.25
    assert pauses[2] > pauses[0]
    assert all(15 <= pause <= 15.75 for pause in pauses[10:])
    house.put(1)
    house.grant()
    assert house.users() == [1]
    house.queues.fail("receive", error)
    requests = house.requests()
    house.grant()
    house.stage.advance(1.25)
    assert house.requests() == requests + 1


def test_receives_that_are_empty_at_once_do_not_spin(house: House) -> None:
    house.grant()
    house.queues.interrupt()
    assert (len(house.received()), house.requests()) == (1, 1)
    house.stage.advance(0.1)
    assert house.requests() == 2


def test_the_successor_of_in_flight_is_asked(house: House) -> None:
    house.stage.crash(house.in_flight)
    house.stage.advance(5)
    house.start_in_flight()
    house.stage.advance(PAUSE_SECONDS)
    assert house.stage.calls(house.in_flight, ReserveCredits) == [ReserveCredits(house.consumer, SOURCE, 10)]


def test_what_was_received_while_in_flight_was_away_gets_to_its_successor(house: House) -> None:
    house.put(1)
    with house.queues.hold_answer("receive", times=1) as hold:
        house.grant()
        hold.wait_for_call()
        house.stage.crash(house.in_flight)
    house.stage.advance(5)
    house.start_in_flight()
    assert (house.requests(), house.queues.count("receive")) == (0, 1)
    house.stage.advance(PAUSE_SECONDS)
    assert (house.users(), house.requests()) == ([1], 1)


def test_what_in_flight_had_got_is_not_handed_over_twice(house: House) -> None:
    house.put(1)
    house.grant()
    house.stage.crash(house.in_flight)
    house.start_in_flight()
    house.stage.advance(PAUSE_SECONDS)
    assert (house.received(), house.requests()) == ([], 1)


def test_an_unexpected_error_is_a_crash(house: House) -> None:
    house.queues.fail("receive", ZeroDivisionError())
    house.grant()
    assert not house.consumer.is_alive()


def test_a_receive_under_way_is_finished_before_the_end(house: House) -> None:
    """What it brings is handed over as the last: no process has to wait for the visibility timeout."""
    house.put(1, 2)
    with house.queues.hold_answer("receive", times=1) as hold:
        house.grant()
        hold.wait_for_call()
        house.consumer.exit(SHUTDOWN)
        house.stage.settle()
        assert (house.consumer.process.exit_reason, house.received()) == (None, [])
    house.stage.settle()
    (received,) = house.received()
    assert (received.is_last, house.users(), house.consumer.process.exit_reason) == (True, [1, 2], SHUTDOWN)
    assert house.stage.counted().received == 2


def test_nobody_waits_for_a_consumer_that_waits_for_credits(house: House) -> None:
    house.consumer.exit(SHUTDOWN)
    house.stage.settle()
    assert not house.consumer.is_alive()
