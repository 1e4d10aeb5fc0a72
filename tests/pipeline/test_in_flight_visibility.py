"""``InFlight``: messages stay with their processor, and come back when that ends without them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    WORKER,
    ChildInfo,
    ChildSpec,
    ExitReason,
    Ref,
    Shutdown,
    Start,
    Stop,
    Supervisor,
    WhichChildren,
    start_child,
    supervisor_spec,
)
from receipt_actors.pipeline.in_flight import InFlight
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    MOVERS,
    VALIDATORS,
    VISIBILITY_BATCHER,
    AnnounceYourself,
    ChangeVisibility,
    Done,
    GaveUp,
    HandBack,
    Refused,
    StandBack,
    WatchMessage,
    YourTurn,
)
from tests.pipeline.stand_ins import FIRST, Stage, StandIn, started

TIMEOUT = 120
FIFO = replace(FIRST, queue="receipts.fifo")


class House:
    """A in_flight, with stand-ins for processors and for the batcher that it has carry out its wishes."""

    def __init__(self, stage: Stage, answer: Callable[[Any], object] = lambda _: Done()) -> None:
        self.stage = stage
        self.batcher = stage.stand_in(VISIBILITY_BATCHER, answer)
        self.in_flight = self.start()

    def start(self) -> Ref:
        limits, sources = LiveLimits(Limits(1000, 1, 1)), [FIRST, FIFO]
        return self.stage.actors.start(InFlight, limits, sources, TIMEOUT, random.Random(1), name=IN_FLIGHT)

    def watch(
        self, message_id: str = "m-1", *, receives: int = 1, processor: Ref | None = None, group: str | None = None
    ) -> Ref:
        processor = processor or self.stage.stand_in()
        now = self.stage.clock.monotonic()
        source = FIRST if group is None else FIFO
        watch = WatchMessage(processor, message_id, f"{message_id}/handle", receives, now, source, group)
        self.in_flight.cast(watch)
        self.stage.settle()
        return processor

    def changes(self) -> list[tuple[str, int]]:
        return [(each.receipt_handle, each.seconds) for each in self.stage.calls(self.batcher, ChangeVisibility)]

    def counted(self) -> list[tuple[str, Reason | None]]:
        return list(Counter(self.stage.counted().fates).elements())

    def end(self, processor: Ref, reason: ExitReason = NORMAL) -> None:
        processor.cast(Stop(reason))
        self.stage.settle()


@pytest.fixture
def house(stage: Stage) -> House:
    return House(stage)


def test_a_message_is_extended_from_half_its_time_on(house: House) -> None:
    """Not before; then each time that half of the new timeout is over, for as long as its processor lives."""
    processor = house.watch()
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
    """Whenever a message comes in, it is extended with a third of its timeout to spare."""
    hidden_until: dict[str, float] = {}
    for number in range(20):
        house.watch(f"m-{number}")
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
    """SQS counts them from the receive; an extension beyond would be refused."""
    house.watch()
    house.stage.advance(MAX_VISIBILITY_SECONDS - TIMEOUT)
    extensions = len(house.changes())
    assert extensions > 600
    house.stage.advance(2 * MAX_VISIBILITY_SECONDS)
    assert len(house.changes()) == extensions


def test_a_message_that_is_done_is_left(house: House) -> None:
    """It is deleted or moved: there is nothing to hand back."""
    house.end(house.watch())
    assert (house.changes(), house.counted()) == ([], [])


@pytest.mark.parametrize(("receives", "at_once"), [(1, True), (8, True), (9, False), (19, False)])
def test_restarts_of_the_pipeline_do_not_use_up_the_receives(house: House, receives: int, at_once: bool) -> None:
    """Where a process stops the next one takes over at once; but not again and again, up to the dead-letter queue."""
    house.end(house.watch(receives=receives), SHUTDOWN)
    ((_, seconds),) = house.changes()
    assert (seconds == 0) == at_once
    assert house.counted() == [("handed_back", Reason.DRAINED)]


def test_one_that_is_ended_before_the_processors_hands_back(house: House) -> None:
    """Its supervisor gives up, and nobody would see the processors end: no message has to wait for its timeout."""
    house.watch("m-1")
    house.watch("m-2", receives=2)
    house.in_flight.exit(SHUTDOWN)
    house.stage.settle()
    first, second = house.changes()
    assert (first[0], second[0]) == ("m-1/handle", "m-2/handle")
    assert 24 <= first[1] <= 30
    assert 48 <= second[1] <= 60
    assert house.counted() == [("handed_back", Reason.CRASHED)] * 2


def test_one_that_crashes_alone_hands_nothing_back(house: House) -> None:
    """The processors live, and its successor watches them."""
    house.watch()
    house.in_flight.cast(object())
    house.stage.settle()
    assert not house.in_flight.is_alive()
    assert house.changes() == []


@pytest.mark.parametrize(("receives", "seconds"), [(1, 30), (2, 60), (4, 240), (6, 900), (19, 900)])
def test_what_gives_up_is_handed_back_the_later_the_oftener(house: House, receives: int, seconds: int) -> None:
    """30 s x 2^n, at most 15 minutes, up to a fifth less, and counted under its reason."""
    processor = house.watch(receives=receives)
    assert house.changes() == []
    house.end(processor, Shutdown(HandBack(Reason.GAVE_UP_FOR_NOW)))
    ((handle, hidden_seconds),) = house.changes()
    assert handle == "m-1/handle"
    assert 0.8 * seconds <= hidden_seconds <= seconds
    assert house.counted() == [("handed_back", Reason.GAVE_UP_FOR_NOW)]


def test_what_was_shut_down_is_handed_back_at_once(house: House) -> None:
    """For another process to take."""
    house.end(house.watch(receives=7), SHUTDOWN)
    assert house.changes() == [("m-1/handle", 0)]
    assert house.counted() == [("handed_back", Reason.DRAINED)]


def test_what_crashed_is_handed_back_later_and_reported(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A poisonous message comes round ever more seldom; the log has its id."""
    house.stage.crash(house.watch("m-666", receives=3))
    ((handle, seconds),) = house.changes()
    assert (handle, 96 <= seconds <= 120) == ("m-666/handle", True)
    assert house.counted() == [("handed_back", Reason.CRASHED)]
    assert "m-666" in caplog.text


def test_what_was_killed_counts_as_crashed(house: House) -> None:
    """It had no chance to say anything."""
    house.watch().kill()
    assert [24 <= seconds <= 30 for _, seconds in house.changes()] == [True]
    assert house.counted() == [("handed_back", Reason.CRASHED)]


def test_a_processor_that_ended_before_it_was_watched_is_believed(house: House) -> None:
    """One that gives up within its own start has ended when the in_flight reads that it began."""
    processor = house.stage.stand_in()
    house.end(processor, Shutdown(HandBack(Reason.NO_DEAD_LETTER_QUEUE)))
    house.watch(processor=processor)
    assert house.counted() == [("handed_back", Reason.NO_DEAD_LETTER_QUEUE)]


@pytest.mark.parametrize(
    ("reason", "fates"),
    [(NORMAL, []), (SHUTDOWN, [("handed_back", Reason.DRAINED)]), (KILLED, [("handed_back", Reason.CRASHED)])],
)
def test_how_a_processor_ended_counts_whenever_that_was(
    house: House, reason: ExitReason, fates: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """Before it was watched as well: it announces itself to a new in_flight, and ends before that has read it.

    One that had finished is no crash, is not counted twice, and lets the next one of its group begin.
    """
    processor, next_one = house.stage.stand_in(), house.stage.stand_in()
    if reason is KILLED:
        processor.kill()
    else:
        processor.cast(Stop(reason))
    house.stage.settle()
    house.watch("m-1", processor=processor, group="a")
    house.watch("m-2", processor=next_one, group="a")
    assert house.counted() == fates
    assert [handle for handle, _ in house.changes()] == ["m-1/handle"] * len(fates)
    assert ("crashed" in caplog.text) is (reason is KILLED)
    assert turns(house, next_one) == [[YourTurn] if reason is NORMAL else [StandBack]]


def test_the_last_hand_backs_come_before_its_own_end(house: House) -> None:
    """Processors that were shut down just before are handed back, not forgotten, however long the mailbox is."""
    processors = [house.watch(f"m-{number}") for number in range(200)]
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
    lost = house.watch()
    house.stage.advance(TIMEOUT / 2)
    assert "m-1 could not be extended" in caplog.text
    house.stage.advance(10 * TIMEOUT)
    assert lost.is_alive()
    house.end(lost, SHUTDOWN)
    assert house.changes() == [("m-1/handle", TIMEOUT)]
    assert house.counted() == [("handed_back", Reason.DRAINED)]


def test_a_batcher_that_is_away_is_survived(house: House) -> None:
    """The message comes back by its visibility timeout."""
    house.batcher.kill()
    house.end(house.watch(), SHUTDOWN)
    assert house.in_flight.is_alive()


class Processor(StandIn):
    """A stand-in that introduces itself when a new in_flight asks."""

    def __init__(self, message_id: str) -> None:
        super().__init__()
        self.message_id = message_id

    def handle_info(self, message: Any) -> None:
        if isinstance(message, AnnounceYourself):
            watch = WatchMessage(self.ref, self.message_id, f"{self.message_id}/handle", 1, 0.0, FIRST)
            self.cast(IN_FLIGHT, watch)


def test_a_new_in_flight_finds_the_processors_that_live(stage: Stage) -> None:
    """Its table is rebuilt from the supervisors, extensions go on, and ends are seen."""
    house = House(stage)
    specs = [
        supervisor_spec(name, SIMPLE_ONE_FOR_ONE, [ChildSpec(name, Start(Processor), TEMPORARY)])
        for name in (VALIDATORS, MOVERS)
    ]
    stage.actors.start(Supervisor, specs)
    validators, movers = stage.actors.whereis(VALIDATORS), stage.actors.whereis(MOVERS)
    assert validators is not None and movers is not None
    validating = started(start_child(validators, ("m-1",)))
    started(start_child(movers, ("m-2",)))

    stage.crash(house.in_flight)
    house.in_flight = house.start()
    stage.advance(TIMEOUT / 2)
    assert sorted(house.changes()) == [("m-1/handle", TIMEOUT), ("m-2/handle", TIMEOUT)]
    stage.crash(validating)
    assert house.counted() == [("handed_back", Reason.CRASHED)]


def test_a_processor_announced_twice_is_watched_once(stage: Stage) -> None:
    """By itself, and because it was asked to."""
    house = House(stage)
    processor = house.watch()
    house.watch(processor=processor)
    house.end(processor, SHUTDOWN)
    assert house.changes() == [("m-1/handle", 0)]


def test_a_supervisor_that_restarts_a_child_is_understood(stage: Stage) -> None:
    """A child without a reference yet has nobody to be asked."""
    stage.stand_in(
        VALIDATORS,
        lambda request: [ChildInfo(None, "restarting", WORKER)] if isinstance(request, WhichChildren) else None,
    )
    house = House(stage)
    stage.settle()
    assert house.in_flight.is_alive()


# --- groups of FIFO queues ---


def turns(house: House, *processors: Ref) -> list[list[type]]:
    """What each processor was told about its turn."""
    return [[type(told) for told in house.stage.told(each, YourTurn | StandBack)] for each in processors]


def test_one_of_a_group_has_its_turn_at_a_time(house: House) -> None:
    """The next one when it is finished; all of them are extended meanwhile. Others need nobody's word."""
    first, second, other = (house.watch(f"m-{name}", group=name[0]) for name in ("a1", "a2", "b1"))
    alone = house.watch("m-alone")
    assert turns(house, first, second, other, alone) == [[YourTurn], [], [YourTurn], []]
    house.stage.advance(TIMEOUT / 2)
    assert {handle for handle, _ in house.changes()} == {"m-a1/handle", "m-a2/handle", "m-b1/handle", "m-alone/handle"}
    house.end(first)
    assert turns(house, second) == [[YourTurn]]
    assert len(house.changes()) == 4


@pytest.mark.parametrize("how", ["handed back", "crash", "shutdown"])
def test_one_that_is_not_finished_has_those_behind_it_stand_back(house: House, how: str) -> None:
    """However that came. They are visible at once; it is hidden for a short time, for its group has to wait."""
    first, second, third = (house.watch(name, receives=2, group="a") for name in ("a1", "a2", "a3"))
    match how:
        case "handed back":
            house.end(first, Shutdown(HandBack(Reason.GAVE_UP_FOR_NOW)))
        case "crash":
            house.stage.crash(first)
        case "shutdown":
            house.end(first, SHUTDOWN)
    assert turns(house, second, third) == [[StandBack], [StandBack]]
    for processor in (third, second):
        house.end(processor, Shutdown(HandBack(Reason.GROUP_HANDED_BACK)))
    (handle, seconds), *others = house.changes()
    assert handle == "a1/handle"
    assert seconds == 0 if how == "shutdown" else 8 <= seconds <= 10
    assert others == [("a3/handle", 0), ("a2/handle", 0)]
    late = house.watch("a4", group="a")
    assert turns(house, late) == [[StandBack]]
    house.stage.advance(1)
    again = house.watch("a1", group="a")
    assert turns(house, again) == [[YourTurn]]
