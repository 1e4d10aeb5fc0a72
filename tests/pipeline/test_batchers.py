"""The batchers: full batches when it is busy, none when it is quiet, and entries that answer for themselves alone."""

from __future__ import annotations

from typing import Any

import pytest

from receipt_actors.domain.ports import EntryFailure, OutgoingMessage
from receipt_actors.errors import QueueUnavailable
from receipt_actors.otp import NO_PROCESS, NORMAL, SHUTDOWN, Ref, Stop
from receipt_actors.pipeline.batchers import PACE_SECONDS, DeleteBatcher, ResultBatcher, VisibilityBatcher
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    ChangeVisibility,
    DeleteMessage,
    Done,
    GaveUp,
    Refused,
    SendMessage,
    ServiceAvailable,
    ServiceUnavailable,
)
from receipt_actors.testing import FakeQueues
from tests.pipeline.stand_ins import LONGEST_PAUSE_SECONDS, POST, SOURCE, THREE_ATTEMPTS, CallsOnThreads, Stage

IDLE_SECONDS = 60
SERVER_FAULT = EntryFailure("InternalError", "odd", sender_fault=False)
SENDER_FAULT = EntryFailure("InvalidMessageContents", "odd", sender_fault=True)


class House:
    def __init__(self, stage: Stage, background: CallsOnThreads | None) -> None:
        self.background = background
        self.stage = stage
        self.queues: FakeQueues = stage.with_fake(FakeQueues(stage.clock))
        self.queues.create_queue(SOURCE)
        self.queues.create_queue(POST)
        self.in_flight = stage.stand_in(IN_FLIGHT)
        self.sizes: list[int] = []

    def sender(self, concurrency: int = 2) -> Ref:
        return self.stage.actors.start(
            ResultBatcher, self.queues, concurrency, THREE_ATTEMPTS, IDLE_SECONDS, lambda: 50, POST, self.background
        )

    def deleter(self, concurrency: int = 2) -> Ref:
        return self.stage.actors.start(DeleteBatcher, self.queues, SOURCE, concurrency, THREE_ATTEMPTS, self.background)

    def extender(self, concurrency: int = 2) -> Ref:
        return self.stage.actors.start(
            VisibilityBatcher, self.queues, SOURCE, concurrency, THREE_ATTEMPTS, self.background
        )

    def ask(self, batcher: Ref, request: object, pause_seconds: float = PACE_SECONDS) -> Ref:
        asking = self.stage.ask(batcher, request)
        self.stage.advance(pause_seconds)
        return asking

    def send(self, batcher: Ref, *bodies: str, pause_seconds: float = PACE_SECONDS) -> list[Ref]:
        return [self.ask(batcher, SendMessage(OutgoingMessage(body)), pause_seconds) for body in bodies]

    def answers(self, asking: list[Ref]) -> list[Any]:
        return [self.stage.reply_to(each) if self.stage.replies(each) else None for each in asking]

    def sent(self) -> list[str]:
        self.stage.settle()
        return [message.body for message in self.queues.messages(POST)]

    def receive(self, *bodies: str) -> list[str]:
        for body in bodies:
            self.queues.put(SOURCE, body)
        received = self.queues.receive(SOURCE, max_messages=10, wait_seconds=0, visibility_timeout_seconds=30)
        return [message.receipt_handle for message in received]


@pytest.fixture(params=["on I/O threads", "in the background"])
def house(stage: Stage, request: pytest.FixtureRequest) -> House:
    is_background = request.param == "in the background"
    return House(stage, stage.with_fake(CallsOnThreads()) if is_background else None)


def test_an_entry_leaves_at_once_while_a_slot_is_free(house: House) -> None:
    batcher = house.sender()
    with house.queues.hold("send"):
        house.send(batcher, "1", "2")
        assert house.queues.count("send") == 2


def test_entries_gather_where_many_come(house: House) -> None:
    batcher = house.sender(concurrency=10)
    asking = house.send(batcher, *"abcdefghijklmno", pause_seconds=0.0)
    assert house.queues.count("send") == 2
    assert house.answers(asking) == [Done()] * 11 + [None] * 4
    house.stage.advance(PACE_SECONDS)
    assert house.queues.count("send") == 3
    assert house.answers(asking) == [Done()] * 15


def test_entries_gather_while_all_slots_are_busy(house: House) -> None:
    batcher = house.sender()
    hold = house.queues.hold("send", times=2)
    house.send(batcher, "a", "b")
    asking = house.send(batcher, *[f"{number:02}" for number in range(25)])
    assert house.queues.count("send") == 2
    hold.release()
    house.stage.settle()
    house.stage.advance(PACE_SECONDS)
    assert house.answers(asking) == [Done()] * 25
    assert house.queues.count("send") == 2 + 3
    assert sorted(house.sent()) == sorted(["a", "b", *[f"{number:02}" for number in range(25)]])


def test_a_batch_stays_within_a_mebibyte(house: House) -> None:
    batcher = house.sender(concurrency=1)
    hold = house.queues.hold("send", times=1)
    house.send(batcher, "first")
    asking = house.send(batcher, *["x" * 400 * 1024] * 3)
    hold.release()
    house.stage.settle()
    house.stage.advance(PACE_SECONDS)
    assert house.answers(asking) == [Done()] * 3
    assert house.queues.count("send") == 3


def test_only_failed_entries_are_sent_again(house: House) -> None:
    batcher = house.sender(concurrency=1)
    hold = house.queues.hold("send", times=1)
    house.send(batcher, "first")
    house.queues.fail_entries("send", befalls=lambda message: message.body in "bd", failure=SERVER_FAULT)
    asking = house.send(batcher, *"abcde")
    hold.release()
    assert house.answers(asking) == [Done(), None, Done(), None, Done()]
    house.stage.advance(LONGEST_PAUSE_SECONDS)
    assert house.answers(asking) == [Done()] * 5
    assert sorted(house.sent()) == ["a", "b", "c", "d", "e", "first"]


def test_an_entry_that_never_passes_is_given_up_alone(house: House) -> None:
    batcher = house.sender()
    house.queues.fail_entries("send", befalls=lambda message: message.body == "unlucky", times=None)
    unlucky, wrong, fine = house.send(batcher, "unlucky", "wrong \x00", "fine")
    house.stage.advance(30)
    unlucky_answer, wrong_answer, fine_answer = house.answers([unlucky, wrong, fine])
    assert (type(unlucky_answer), type(wrong_answer), fine_answer) == (GaveUp, Refused, Done())


def test_entries_that_fail_are_no_outage(house: House) -> None:
    batcher = house.deleter()
    handles = house.receive(*"abcdefgh")
    house.queues.fail_entries("delete", failure=SERVER_FAULT, times=12)
    for handle in handles:
        house.ask(batcher, DeleteMessage(handle))
    assert house.stage.told(house.in_flight, ServiceUnavailable) == []


def test_one_failed_batch_is_no_outage(house: House) -> None:
    batcher = house.deleter(concurrency=1)
    handles = house.receive(*"abcdefghij")
    hold = house.queues.hold("delete", times=1)
    house.ask(batcher, DeleteMessage(handles[0]))
    asking = [house.ask(batcher, DeleteMessage(handle)) for handle in handles[1:]]
    house.queues.fail("delete", QueueUnavailable("503"))
    hold.release()
    assert house.answers(asking) == [None] * 9
    assert house.stage.told(house.in_flight, ServiceUnavailable) == []
    house.stage.advance(LONGEST_PAUSE_SECONDS)
    assert house.answers(asking) == [Done()] * 9


@pytest.mark.parametrize("kind", ["sender", "deleter"])
def test_whose_outage_closes_the_gate(house: House, kind: str) -> None:
    batcher = house.deleter() if kind == "deleter" else house.sender()
    operation = "delete" if kind == "deleter" else "send"
    house.queues.fail(operation, QueueUnavailable("503"), times=None)
    handles = house.receive(*"abcdefgh")
    if kind == "deleter":
        asking = [house.ask(batcher, DeleteMessage(handle)) for handle in handles]
    else:
        asking = house.send(batcher, *"abcdefgh")
    house.stage.advance(30)
    assert house.answers(asking) == [None] * 8
    (closes,) = {outage.stops_receiving for outage in house.stage.told(house.in_flight, ServiceUnavailable)}
    assert closes is (kind == "deleter")
    house.queues.recover()
    house.stage.advance(30)
    assert house.answers(asking) == [Done()] * 8


def test_an_idle_result_batcher_ends(house: House) -> None:
    batcher = house.sender()
    house.stage.advance(IDLE_SECONDS / 2)
    house.send(batcher, "a")
    house.stage.advance(IDLE_SECONDS / 2)
    assert not batcher.process.is_set()
    house.stage.advance(IDLE_SECONDS)
    assert not batcher.is_alive()
    assert batcher.process.exit_reason == NORMAL


def test_a_result_batcher_with_something_to_do_is_not_idle(house: House) -> None:
    batcher = house.sender()
    house.queues.fail("send", QueueUnavailable("503"), times=None)
    asking = house.send(batcher, *"abcde")
    house.stage.advance(3 * IDLE_SECONDS)
    assert not batcher.process.is_set()
    house.queues.recover()
    house.stage.advance(30)
    assert house.answers(asking) == [Done()] * 5
    house.stage.advance(2 * IDLE_SECONDS)
    assert not batcher.is_alive()


def test_a_request_to_a_batcher_that_has_ended_fails(house: House) -> None:
    batcher = house.sender()
    house.stage.advance(IDLE_SECONDS)
    (asking,) = house.send(batcher, "late")
    assert house.stage.reply_to(asking) == NO_PROCESS


def test_hand_backs_are_finished_before_the_end(house: House) -> None:
    batcher = house.extender(concurrency=1)
    handles = [handle for _ in range(3) for handle in house.receive(*"abcdefghij")]
    hold = house.queues.hold("change_visibility", times=1)
    keepers = [house.stage.ask(batcher, ChangeVisibility(handle, 0)) for handle in handles]
    for keeper in keepers:
        keeper.cast(Stop(NORMAL))
    house.stage.settle()
    batcher.exit(SHUTDOWN)
    house.stage.settle()
    assert not batcher.process.is_set()
    hold.release()
    house.stage.settle()
    assert not batcher.is_alive()
    assert house.queues.approximate_number_of_messages(SOURCE) == 30


def test_an_outage_does_not_hold_up_the_end(house: House) -> None:
    batcher = house.extender()
    house.queues.fail("change_visibility", QueueUnavailable("503"), times=None)
    for handle in house.receive(*"abcdefghij"):
        house.stage.ask(batcher, ChangeVisibility(handle, 0))
    batcher.exit(SHUTDOWN)
    house.stage.settle()
    assert not batcher.is_alive()


def test_other_batchers_end_at_once(house: House) -> None:
    batcher = house.sender(concurrency=1)
    with house.queues.hold("send", times=1):
        house.send(batcher, "under way", "waiting")
        batcher.exit(SHUTDOWN)
        house.stage.settle()
        assert not batcher.is_alive()
    assert "waiting" not in house.sent()


def test_a_new_batcher_greets_in_flight(house: House) -> None:
    house.deleter()
    assert house.stage.told(house.in_flight, ServiceAvailable) == [ServiceAvailable(f"delete from {SOURCE}")]
