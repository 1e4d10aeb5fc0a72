"""The actor that owns a worker process, on a manual clock; the processes are real, and say what a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from receipt_actors.domain.limits import Limits, Share
from receipt_actors.otp import Crash, Ref
from receipt_actors.processes.protocol import (
    COLLECTOR,
    DIVIDER,
    ChangeShare,
    ConfirmShare,
    DescribeWorker,
    Group,
    JoinDivision,
)
from receipt_actors.processes.worker import GRACE_SECONDS, HANG_SECONDS, Worker, WorkerDied
from tests.actors.stand_ins import Stage

PATIENCE_SECONDS = 30.0
NAME = "worker-1"
LIMITS = Limits(4, 4, 4)

#: Says that it is loaded and, when it has its limits, that it consumes; then it does what the test has added.
PROGRAM = """
import socket, sys, time
from receipt_actors.processes.channel import Channel
from receipt_actors.processes.messages import *
channel = Channel(socket.socket(fileno=int(sys.argv[2])))
def wait_for(kind):
    while not any(isinstance(message, kind) for message in channel.receive()):
        assert not channel.is_over
wait_for(Configure)
channel.send(Loaded())
wait_for(UseLimits)
channel.send(Started())
"""


class House:
    """A worker, and stand-ins for the actors that it talks to."""

    def __init__(self, stage: Stage, behaviour: str) -> None:
        self.stage = stage
        self.divider = stage.stand_in(DIVIDER)
        self.collector = stage.stand_in(COLLECTOR)
        self.consumes = threading.Event()
        program = ("-c", PROGRAM + behaviour)
        self.group = Group((NAME,), program, {}, on_refusal=lambda: None, on_complete=self.consumes.set)
        self.worker: Ref = stage.actors.start(Worker, NAME, self.group, name=NAME)
        self.worker.cast(ChangeShare(Share(1, LIMITS, LIMITS)))
        assert self.consumes.wait(PATIENCE_SECONDS)

    def died_of(self) -> str:
        reason = self.worker.wait(PATIENCE_SECONDS)
        assert isinstance(reason, Crash)
        assert isinstance(reason.exception, WorkerDied)
        return str(reason)


@pytest.fixture
def open_house() -> Iterator[Callable[[str], House]]:
    stage = Stage()
    houses: list[House] = []

    def open_house(behaviour: str) -> House:
        houses.append(House(stage, behaviour))
        return houses[-1]

    yield open_house
    for house in houses:
        house.group.kill()
    stage.close()


def test_a_process_that_dies_is_a_crash_of_its_actor(open_house: Callable[[str], House]) -> None:
    """Its exit status is in the reason."""
    assert "ended with exit status 3" in open_house("sys.exit(3)").died_of()


def test_a_crash_of_the_actor_kills_the_process(open_house: Callable[[str], House]) -> None:
    """Else it would go on with limits that are others' by then."""
    house = open_house("time.sleep(600)")
    process = house.group.processes[NAME]
    house.worker.kill()
    process.wait(PATIENCE_SECONDS)


def test_a_share_is_confirmed_for_a_process_that_knows_of_none(open_house: Callable[[str], House]) -> None:
    """It joined at its start, as all do at first, and was told its share before its process was loaded."""
    house = open_house("time.sleep(600)")
    assert house.stage.told(house.divider, JoinDivision) == [JoinDivision(NAME, house.worker)]
    assert house.stage.told(house.divider, ConfirmShare) == [ConfirmShare(NAME, 1)]


def test_a_process_that_does_not_answer_is_killed(open_house: Callable[[str], House]) -> None:
    """It hangs; one that is slow has a minute."""
    house = open_house("time.sleep(600)")
    asking = house.stage.ask(NAME, DescribeWorker())
    house.stage.advance(HANG_SECONDS - 1)
    assert house.stage.replies(asking) == []
    assert house.worker.is_alive()
    house.stage.advance(1)
    assert "was killed by signal 9" in house.died_of()


def test_a_process_that_drains_is_not_asked_and_has_its_time(open_house: Callable[[str], House]) -> None:
    """An operator told it to; when its time is over it is killed."""
    house = open_house("wait_for(Report); channel.send(Draining(100.0)); time.sleep(600)")
    asking = house.stage.ask(NAME, DescribeWorker())
    answered = threading.Event()
    while not answered.wait(0.01):
        if house.stage.replies(asking):
            answered.set()
    assert house.stage.reply_to(asking) is None
    house.stage.advance(100 + GRACE_SECONDS - 1)
    assert house.worker.is_alive()
    house.stage.advance(1)
    assert "was killed by signal 9" in house.died_of()
