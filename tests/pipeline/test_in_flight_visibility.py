"""``InFlight``: messages stay with their processor, and come back when that ends without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.policy import Source
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import NORMAL, SHUTDOWN, ExitReason, Ref, Shutdown, Stop
from receipt_actors.otp import sys as otp_sys
from receipt_actors.pipeline.protocol import (
    VALIDATORS,
    VISIBILITY_BATCHER,
    ChangeVisibility,
    Delivery,
    Done,
    GaveUp,
    HandBack,
    Received,
    Refused,
)
from tests.pipeline.stand_ins import CRASHES, FIRST, Ask, Stage, delivery, submission

TIMEOUT = 120
FIFO = replace(FIRST, queue="receipts.fifo")


class House:
    def __init__(self, stage: Stage, answer: Callable[[Any], object] = lambda _: Done()) -> None:
        self.stage = stage
        self.batcher = stage.stand_in(VISIBILITY_BATCHER, answer)
        self.in_flight = self.start()

    def start(self) -> Ref:
        return self.stage.start_in_flight(LiveLimits(Limits(1000, 1, 1)), FIRST, FIFO)

    def receive(self, *messages: Delivery, source: Source = FIRST, is_last: bool = False) -> list[Ref]:
        consumer, before = self.stage.stand_in(), set(self.stage.processors())
        now = self.stage.clock.monotonic()
        consumer.cast(Ask(self.in_flight, Received(consumer, source, messages, now, is_last=is_last), None))
        return [each for each in self.stage.processors() if each not in before]

    def take(self, message_id: str = "m-1", receives: int = 1) -> Ref:
        (processor,) = self.receive(message(message_id, receives))
        return processor

    def changes(self) -> list[tuple[str, int]]:
        return [(each.receipt_handle, each.seconds) for each in self.stage.calls(self.batcher, ChangeVisibility)]

    def counted(self) -> list[tuple[str, Reason | None]]:
        return list(Counter(self.stage.counted().fates).elements())

    def begun(self) -> list[str]:
        actors = [processor.process.actor for processor in self.stage.processors()]
        return [actor.started_with[1].message_id for actor in actors]

    def end(self, processor: Ref, reason: ExitReason = NORMAL) -> None:
        processor.cast(Stop(reason))
        self.stage.settle()


def message(message_id: str, receives: int = 1, group: str | None = None) -> Delivery:
    came = replace(
        delivery(receives=receives), message_id=message_id, receipt_handle=f"{message_id}/handle", group_id=group
    )
    return came, submission()


def of_group(group: str, *message_ids: str, receives: int = 1) -> list[Delivery]:
    return [message(message_id, receives, group) for message_id in message_ids]


@pytest.fixture
def house(stage: Stage) -> House:
    return House(stage)


def test_a_message_is_extended_from_half_its_time_on(house: House) -> None:
    processor = house.take()
    house.stage.advance(TIMEOUT / 2 - 1)
    assert house.changes() == []
    house.stage.advance(1)
    assert house.changes() == [("m-1/handle", TIMEOUT)]
    house.stage.advance(10 * TIMEOUT)
    assert 19 <= len(house.changes()) <= 21
    house.end(processor)
    extensions = len(house.changes())
    house.stage.advance(10 * TIMEOUT)
    assert len(house.changes()) == extensions


def test_no_message_is_ever_close_to_its_end(house: House) -> None:
    hidden_until: dict[str, float] = {}
    for number in range(20):
        house.take(f"m-{number}")
        hidden_until[f"m-{number}/handle"] = house.stage.clock.monotonic() + TIMEOUT
        house.stage.advance(3.7)
    seen = 0
    for _ in range(300):
        house.stage.advance(1)
        now = house.stage.clock.monotonic()
        changes = house.changes()
        for handle, seconds in changes[seen:]:
            hidden_until[handle] = now + seconds
        seen = len(changes)
        assert min(hidden_until.values()) - now >= TIMEOUT / 3


def test_extensions_end_after_twelve_hours(house: House) -> None:
    house.take()
    house.stage.advance(MAX_VISIBILITY_SECONDS - TIMEOUT)
    extensions = len(house.changes())
    assert extensions > 600
    house.stage.advance(2 * MAX_VISIBILITY_SECONDS)
    assert len(house.changes()) == extensions


def test_a_message_that_is_done_is_left(house: House) -> None:
    house.end(house.take())
    assert (house.changes(), house.counted()) == ([], [])


@pytest.mark.parametrize(("receives", "at_once"), [(1, True), (8, True), (9, False), (19, False)])
def test_restarts_of_the_pipeline_do_not_use_up_the_receives(house: House, receives: int, at_once: bool) -> None:
    house.end(house.take(receives=receives), SHUTDOWN)
    ((_, seconds),) = house.changes()
    assert (seconds == 0) == at_once
    assert house.counted() == [("handed_back", Reason.DRAINED)]


def test_one_that_is_ended_before_the_processors_hands_back(house: House) -> None:
    """Its supervisor gives up, and nobody would see the processors end: no message has to wait for its timeout."""
    house.take("m-1")
    house.take("m-2", receives=2)
    house.in_flight.exit(SHUTDOWN)
    house.stage.settle()
    first, second = house.changes()
    assert (first[0], second[0]) == ("m-1/handle", "m-2/handle")
    assert 24 <= first[1] <= 30
    assert 48 <= second[1] <= 60
    assert house.counted() == [("handed_back", Reason.CRASHED)] * 2


def test_one_that_crashes_alone_hands_nothing_back(house: House) -> None:
    house.take()
    house.in_flight.cast(object())
    house.stage.settle()
    assert not house.in_flight.is_alive()
    assert house.changes() == []


@pytest.mark.parametrize(("receives", "seconds"), [(1, 30), (2, 60), (4, 240), (6, 900), (19, 900)])
def test_what_gives_up_is_handed_back_the_later_the_oftener(house: House, receives: int, seconds: int) -> None:
    processor = house.take(receives=receives)
    assert house.changes() == []
    house.end(processor, Shutdown(HandBack(Reason.GAVE_UP_FOR_NOW)))
    ((handle, hidden_seconds),) = house.changes()
    assert handle == "m-1/handle"
    assert 0.8 * seconds <= hidden_seconds <= seconds
    assert house.counted() == [("handed_back", Reason.GAVE_UP_FOR_NOW)]


def test_what_was_shut_down_is_handed_back_at_once(house: House) -> None:
    house.end(house.take(receives=7), SHUTDOWN)
    assert house.changes() == [("m-1/handle", 0)]
    assert house.counted() == [("handed_back", Reason.DRAINED)]


def test_what_crashed_is_handed_back_later_and_reported(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.stage.crash(house.take("m-666", receives=3))
    ((handle, seconds),) = house.changes()
    assert (handle, 96 <= seconds <= 120) == ("m-666/handle", True)
    assert house.counted() == [("handed_back", Reason.CRASHED)]
    assert "m-666" in caplog.text


def test_what_was_killed_counts_as_crashed(house: House) -> None:
    house.take().kill()
    assert [24 <= seconds <= 30 for _, seconds in house.changes()] == [True]
    assert house.counted() == [("handed_back", Reason.CRASHED)]


def test_the_last_hand_backs_come_before_its_own_end(house: House) -> None:
    processors = [house.take(f"m-{number}") for number in range(200)]
    scheduler = house.stage.actors.scheduler

    class EndTheKeeper:
        def run(self) -> None:
            house.in_flight.exit(SHUTDOWN)

    class EndProcessors:
        def run(self) -> None:
            for processor in processors:
                processor.exit(SHUTDOWN)
            scheduler.schedule(EndTheKeeper())

    scheduler.schedule(EndProcessors())
    house.stage.settle()
    assert not house.in_flight.is_alive()
    assert sorted(house.changes()) == sorted((f"m-{number}/handle", 0) for number in range(200))


@pytest.mark.parametrize("failure", [Refused("MessageNotInflight"), GaveUp("503")])
def test_a_message_whose_extension_fails_is_lost(
    stage: Stage, failure: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Another worker may have it: it is neither extended nor handed back any more, and its processor goes on."""
    house = House(stage, answer=lambda _: failure)
    lost = house.take()
    house.stage.advance(TIMEOUT / 2)
    assert "m-1 could not be extended" in caplog.text
    house.stage.advance(10 * TIMEOUT)
    assert lost.is_alive()
    house.end(lost, SHUTDOWN)
    assert house.changes() == [("m-1/handle", TIMEOUT)]
    assert house.counted() == [("handed_back", Reason.DRAINED)]


def test_a_batcher_that_is_away_is_survived(house: House) -> None:
    house.batcher.kill()
    house.end(house.take(), SHUTDOWN)
    assert house.in_flight.is_alive()


def test_a_new_in_flight_goes_on_with_the_table(house: House) -> None:
    validating, ending = house.take("m-1"), house.take("m-2")
    (first,) = house.receive(*of_group("a", "a1", "a2"), source=FIFO)
    house.stage.crash(house.in_flight)
    house.end(ending, SHUTDOWN)
    house.in_flight = house.start()
    house.stage.advance(TIMEOUT / 2)
    assert sorted(house.changes()) == [
        ("a1/handle", TIMEOUT),
        ("a2/handle", TIMEOUT),
        ("m-1/handle", TIMEOUT),
        ("m-2/handle", 0),
    ]
    house.stage.crash(validating)
    assert house.counted() == [("handed_back", Reason.DRAINED), ("handed_back", Reason.CRASHED)]
    house.end(first)
    assert house.begun() == ["a2"]


def test_what_gets_no_processor_is_handed_back_and_those_behind_it(house: House) -> None:
    validators = house.stage.actors.whereis(VALIDATORS)
    assert validators is not None
    otp_sys.suspend(validators)
    consumer = house.stage.stand_in()
    consumer.cast(Ask(house.in_flight, Received(consumer, FIFO, of_group("a", "a1", "a2")), None))
    house.stage.settle()
    otp_sys.resume(validators)
    assert house.changes() == [("a1/handle", 0), ("a2/handle", 0)]
    assert house.receive(message("m-1"), message(CRASHES), message("m-2"))
    (handle, seconds), *_ = house.changes()[2:]
    assert (handle, 24 <= seconds <= 30) == (f"{CRASHES}/handle", True)
    assert house.begun() == ["m-1", "m-2"]


def test_what_a_consumer_brings_at_its_end_is_handed_back_at_once(house: House) -> None:
    assert house.receive(message("m-1"), message("m-2", 9), source=FIRST, is_last=True) == []
    (first, second) = house.changes()
    assert (first, second[0], second[1] > 0) == (("m-1/handle", 0), "m-2/handle", True)
    assert house.counted() == [("handed_back", Reason.DRAINED)] * 2


def test_one_of_a_group_has_a_processor_at_a_time(house: House) -> None:
    a, b = of_group("a", "a1", "a2"), of_group("b", "b1")
    first, other = house.receive(*a, *b, source=FIFO)
    house.take("alone")
    assert house.begun() == ["a1", "b1", "alone"]
    house.stage.advance(TIMEOUT / 2)
    assert {handle for handle, _ in house.changes()} == {"a1/handle", "a2/handle", "b1/handle", "alone/handle"}
    house.end(first)
    assert house.begun() == ["b1", "alone", "a2"]
    house.end(other)
    assert len(house.changes()) == 4


@pytest.mark.parametrize("how", ["handed back", "crash", "shutdown"])
def test_one_that_is_not_finished_has_those_behind_it_handed_back(house: House, how: str) -> None:
    (first,) = house.receive(*of_group("a", "a1", "a2", "a3", receives=2), source=FIFO)
    match how:
        case "handed back":
            house.end(first, Shutdown(HandBack(Reason.GAVE_UP_FOR_NOW)))
        case "crash":
            house.stage.crash(first)
        case "shutdown":
            house.end(first, SHUTDOWN)
    (handle, seconds), *others = house.changes()
    assert handle == "a1/handle"
    assert seconds == 0 if how == "shutdown" else 8 <= seconds <= 10
    assert others == [("a2/handle", 0), ("a3/handle", 0)]
    assert house.counted()[1:] == [("handed_back", Reason.GROUP_HANDED_BACK)] * 2
    house.receive(*of_group("a", "a1"), source=FIFO)
    assert house.begun() == ["a1"]


def test_what_is_behind_a_corrupt_copy_is_handed_back(house: House) -> None:
    (copy, _), behind = of_group("a", "a1", "a2")
    house.receive((copy, None), behind, *of_group("b", "b1"), source=FIFO)
    assert house.begun() == ["b1"]
    assert house.changes() == [("a2/handle", 0)]
    assert house.counted() == [("handed_back", Reason.GROUP_HANDED_BACK)]
