"""The actor that owns a worker process, on a manual clock; the processes are real, and say what a test wants."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from receipt_actors.domain.limits import Limits
from receipt_actors.otp import Crash, Ref
from receipt_actors.otp.tree import look_at
from receipt_actors.pipeline.protocol import Done, ObeyLimits
from receipt_actors.scale.processes.group_inspection import collected_by
from receipt_actors.scale.processes.protocol import (
    Grant,
    GrantAnew,
    Message,
    Phase,
    Release,
    Report,
    StartRefused,
    WorkerView,
)
from receipt_actors.scale.processes.shared import Group, Shares
from receipt_actors.scale.processes.worker import GRACE_SECONDS, HANG_SECONDS, REPORT_SECONDS, Worker, WorkerDied
from receipt_actors.scale.processes.worker_process import MessageFrom, ProcessEnded, WorkerProcess
from receipt_actors.settings import Settings
from receipt_actors.telemetry.queue_depths import LookAtQueues
from tests.patience import PATIENCE_SECONDS
from tests.pipeline.stand_ins import Stage

NAME = "worker-1"
LIMITS = Limits(4, 4, 4)
LESS = Limits(1, 1, 1)
SETTINGS = Settings(bundle_ids=("*",), backend="aws")

#: Gets its settings, says that it is loaded and, when it has its limits, that it consumes; a test adds what comes then.
PROGRAM = """
import pickle, socket, sys, time
from receipt_actors.scale.processes.worker_process import Channel
from receipt_actors.scale.processes.protocol import *
channel = Channel(socket.socket(fileno=int(sys.argv[2])))
def wait_for(kind):
    while not any(isinstance(message, kind) for message in channel.receive()):
        assert not channel.is_over
wait_for(Configure)
"""
LOADS = PROGRAM + "channel.send(Loaded()); wait_for(Grant)\n"
STARTS = LOADS + "channel.send(Started())\n"

#: Says that seven messages are in flight.
REPORTS = """
from receipt_actors.telemetry.overview import ProcessOverview, State
channel.send(Reported(ProcessOverview(sys.argv[1], 1, 1.0, State.CONSUMING, 7)))
"""


def hears_exactly(*messages: Message) -> str:
    """End with 1 where exactly these messages come next, in this order."""
    return f"""
heard = []
while len(heard) < {len(messages)}:
    heard += channel.receive()
sys.exit(1 if heard == pickle.loads({pickle.dumps(list(messages))!r}) else 9)
"""


class House:
    def __init__(self, stage: Stage, program: str, *, was_complete: bool = False, has_share: bool = True) -> None:
        self.stage = stage
        self.consumes, self.is_refused = threading.Event(), threading.Event()
        self.shares = Shares(LIMITS if has_share else LIMITS.nothing)
        self.group = Group(
            (NAME,), ("-c", program), SETTINGS, LIMITS, self.shares, self.is_refused.set, self.consumes.set
        )
        if was_complete:
            self.group.started.add(NAME)
        self.worker: Ref = stage.actors.start(Worker, NAME, self.group, name=NAME)

    def give_share(self) -> None:
        self.shares.divide(LIMITS)

    def died_of(self) -> str:
        reason = self.worker.wait(PATIENCE_SECONDS)
        assert isinstance(reason, Crash)
        assert isinstance(reason.exception, WorkerDied)
        return str(reason)


@pytest.fixture
def build_house() -> Iterator[Callable[..., House]]:
    stage = Stage()
    houses: list[House] = []

    def build_house(program: str, *, was_complete: bool = False, has_share: bool = True) -> House:
        houses.append(House(stage, program, was_complete=was_complete, has_share=has_share))
        return houses[-1]

    yield build_house
    for house in houses:
        house.group.kill()
    stage.close()


@pytest.fixture
def open_house(build_house: Callable[..., House]) -> Callable[[str], House]:
    def open_house(behaviour: str) -> House:
        house = build_house(STARTS + behaviour)
        assert house.consumes.wait(PATIENCE_SECONDS)
        return house

    return open_house


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it has not come to this"
        threading.Event().wait(0.01)


def test_a_process_that_dies_is_a_crash_of_its_actor(open_house: Callable[[str], House]) -> None:
    assert "ended with exit status 3" in open_house("sys.exit(3)").died_of()


def test_a_crash_of_the_actor_kills_the_process(open_house: Callable[[str], House]) -> None:
    house = open_house("time.sleep(600)")
    process = house.group.processes[NAME]
    house.worker.kill()
    process.wait(PATIENCE_SECONDS)


def test_a_smaller_share_is_kept_to_when_the_process_says_so(
    open_house: Callable[[str], House], tmp_path: Path
) -> None:
    may_confirm = tmp_path / "may-confirm"
    os.mkfifo(may_confirm)
    house = open_house(
        f"wait_for(Grant); open({str(may_confirm)!r}).close(); channel.send(LimitsObeyed(2)); time.sleep(600)"
    )
    house.shares.divide(LESS)
    asking = house.stage.ask(NAME, ObeyLimits())
    assert house.stage.replies(asking) == []
    may_confirm.write_bytes(b"")
    wait_until(lambda: house.stage.replies(asking))
    assert house.stage.reply_to(asking) == Done()


def test_a_process_hears_until_when_its_limits_hold_before_it_begins(build_house: Callable[..., House]) -> None:
    hears = hears_exactly(Grant(1, LIMITS, 7.0, is_paused=True))
    house = build_house(PROGRAM + "channel.send(Loaded())" + hears, has_share=False)
    house.shares.lend_until(7.0)
    house.group.is_paused = True
    house.give_share()
    assert "ended with exit status 1" in house.died_of()


def test_what_a_lease_does_is_passed_on_to_a_process_that_consumes(open_house: Callable[[str], House]) -> None:
    house = open_house(
        hears_exactly(
            Report(),
            Grant(1, LIMITS, 7.0, is_paused=False),
            Grant(1, LIMITS, 7.0, is_paused=True),
            Grant(2, LESS, 7.0, is_paused=True),
            Release(),
        )
    )
    house.shares.lend_until(7.0)
    house.stage.settle()
    house.group.is_paused = True
    house.worker.cast(GrantAnew())
    house.stage.settle()
    house.shares.divide(LESS)
    house.worker.cast(Release())
    assert "ended with exit status 1" in house.died_of()


def test_a_process_that_does_not_answer_is_killed(open_house: Callable[[str], House]) -> None:
    house = open_house("time.sleep(600)")
    house.stage.advance(HANG_SECONDS - 1)
    assert house.worker.is_alive()
    house.stage.advance(1)
    assert "was killed by signal 9" in house.died_of()


def test_a_process_that_drains_is_not_asked_and_has_its_time(open_house: Callable[[str], House]) -> None:
    house = open_house("wait_for(Report); channel.send(Draining(100.0)); time.sleep(600)")
    wait_until(lambda: look_at(house.worker).view == WorkerView(house.group.processes[NAME].pid, Phase.DRAINING))
    house.stage.advance(100 + GRACE_SECONDS - 1)
    assert house.worker.is_alive()
    house.stage.advance(1)
    assert "was killed by signal 9" in house.died_of()


def test_a_process_is_asked_every_second_once_it_has_answered(open_house: Callable[[str], House]) -> None:
    house = open_house("wait_for(Report)" + REPORTS + hears_exactly(Report(looks_at_queues=True), Release()))
    wait_until(lambda: collected_by(house.stage.actors).heard)
    house.worker.cast(LookAtQueues())
    house.stage.settle()
    house.stage.advance(10 * REPORT_SECONDS)
    house.worker.cast(Release())
    assert "ended with exit status 1" in house.died_of()


def test_a_process_that_does_not_load_ends_the_command(build_house: Callable[..., House]) -> None:
    house = build_house("import time; time.sleep(600)")
    house.stage.advance(HANG_SECONDS - 1)
    assert not house.is_refused.is_set()
    process = house.group.processes[NAME]
    wait_until(lambda: process.pid)
    house.stage.advance(1)
    assert house.is_refused.wait(PATIENCE_SECONDS)
    assert process.wait(PATIENCE_SECONDS)
    assert house.group.refusal == StartRefused(
        [f"{NAME} (process {process.pid}) has not loaded within 60 s and was killed"], False
    )


def test_a_process_that_does_not_start_ends_the_command(build_house: Callable[..., House], tmp_path: Path) -> None:
    has_share = tmp_path / "has-share"
    os.mkfifo(has_share)
    house = build_house(f"import time\n{LOADS}open({str(has_share)!r}, 'w').close(); time.sleep(600)")
    house.stage.advance(HANG_SECONDS - 1)
    has_share.read_bytes()
    house.stage.advance(HANG_SECONDS - 1)
    assert not house.is_refused.is_set()
    house.stage.advance(1)
    assert house.is_refused.wait(PATIENCE_SECONDS)
    assert house.group.refusal is not None
    assert "has not started within 60 s and was killed" in house.group.refusal.faults[0]


def test_a_process_that_waits_for_its_share_hangs_not(build_house: Callable[..., House]) -> None:
    house = build_house(STARTS, has_share=False)
    wait_until(lambda: look_at(house.worker).view == WorkerView(house.group.processes[NAME].pid, Phase.LOADED))
    process = house.group.processes[NAME]
    house.stage.advance(100 * HANG_SECONDS)
    assert not house.is_refused.is_set()
    house.give_share()
    assert house.consumes.wait(PATIENCE_SECONDS)
    assert house.group.processes[NAME] is process
    assert look_at(house.worker).view == WorkerView(process.pid, Phase.RUNNING)


def test_a_successor_that_does_not_load_is_started_again(build_house: Callable[..., House]) -> None:
    house = build_house("import time; time.sleep(600)", was_complete=True)
    first = house.group.processes[NAME]
    house.stage.advance(HANG_SECONDS)
    assert first.wait(PATIENCE_SECONDS)
    wait_until(lambda: not house.group.processes)
    house.stage.advance(2.0)  # the first pause is one of 1 to 2 s
    assert house.group.processes[NAME] is not first
    assert not house.is_refused.is_set()


def test_a_process_can_be_killed_while_it_is_being_started() -> None:
    delivered: SimpleQueue[MessageFrom | ProcessEnded] = SimpleQueue()
    process = WorkerProcess(NAME, ("-c", "import time; time.sleep(600)"), SETTINGS, delivered.put)
    process.kill()
    assert delivered.get(timeout=PATIENCE_SECONDS) == ProcessEnded(process, -9)
    assert process.wait(PATIENCE_SECONDS)


def test_no_process_is_a_start_that_was_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    delivered: SimpleQueue[MessageFrom | ProcessEnded] = SimpleQueue()
    process = WorkerProcess(NAME, (), SETTINGS, delivered.put)
    said = delivered.get(timeout=PATIENCE_SECONDS)
    assert isinstance(said, MessageFrom)
    assert isinstance(said.message, StartRefused)
    assert "no process can be started" in said.message.faults[0]
    assert delivered.get(timeout=PATIENCE_SECONDS) == ProcessEnded(process, 1)
