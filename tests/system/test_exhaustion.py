"""A process that can't do its work any more ends with an exit code, and a worker process is replaced."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage

from . import exhausted_machine
from .processes import ROOT, Program
from .test_processes import TwoProcesses, has_answers, wait_for_the_end_of, workers_of
from .worlds import RESULTS, SOURCE, EmbeddedWorld, genuine_messages

WORLD_FAILED = 1
MEGABYTE = 1 << 20
GENUINE = genuine_messages(40, 1612)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll, and limits of memory")


class Machine:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(exhausted_machine.SITECUSTOMIZE, encoding="utf-8")
        self.environment = {exhausted_machine.FOLDER: str(folder), "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}

    def runs_out_of(self, what: str) -> None:
        (self._folder / what).touch()

    def has_it_again(self, what: str) -> None:
        (self._folder / what).unlink()


@pytest.fixture
def machine(tmp_path: Path, embedded: EmbeddedWorld) -> Machine:
    machine = Machine(tmp_path / "machine")
    embedded.environment.update(machine.environment)
    return machine


@pytest.fixture
def two(embedded: EmbeddedWorld) -> Iterator[TwoProcesses]:
    two = TwoProcesses(embedded)
    yield two
    two.close()


@pytest.mark.parametrize("what", ["memory", "stuck"])
def test_a_scheduler_that_can_not_go_on_ends_the_process(
    embedded: EmbeddedWorld, machine: Machine, what: str, store: SimulatedAppStore
) -> None:
    first, second = GENUINE[:20], GENUINE[20:]
    program = embedded.start(store)
    embedded.send(first)
    program.wait_until(lambda: has_answers(embedded, len(first)), "the first are answered")
    machine.runs_out_of(what)
    embedded.send(second)
    assert program.wait_for_end() == WORLD_FAILED
    assert "the actor system has failed" in program.stderr
    assert {"memory": "MemoryError", "stuck": "NoProgress"}[what] in program.stderr
    machine.has_it_again(what)
    embedded.bring_back(SOURCE)
    program = embedded.start(store)
    program.wait_until(lambda: embedded.total(SOURCE) == 0, "the next process answers the rest")
    program.stop()


def test_a_worker_whose_scheduler_dies_is_replaced(
    two: TwoProcesses, machine: Machine, store: SimulatedAppStore
) -> None:
    program = two.start(store)
    two.world.send(GENUINE[:20])
    program.wait_until(lambda: has_answers(two.world, 20), "the first are answered")
    before = workers_of(program)
    machine.runs_out_of("memory")
    two.world.send(GENUINE[20:])
    program.wait_until(lambda: "ended with exit status 1" in program.stderr, "one has ended")
    machine.has_it_again("memory")
    program.wait_until(lambda: workers_of(program) != before, "it is replaced")
    two.world.bring_back(SOURCE)
    program.wait_until(lambda: two.world.total(SOURCE) == 0, "all is answered")
    program.stop()


def test_a_parent_that_can_not_hear_its_workers_ends(
    two: TwoProcesses, machine: Machine, store: SimulatedAppStore
) -> None:
    program = two.start(store)
    program.wait_until(lambda: len(workers_of(program)) == 2, "both consume")
    workers = program.children()
    machine.runs_out_of("channel")
    os.kill(workers[0], signal.SIGTERM)  # it says so to its parent
    assert program.wait_for_end() == WORLD_FAILED
    assert "has died, and the process ends with it" in program.stderr
    machine.has_it_again("channel")
    wait_for_the_end_of(workers)


def address_space_bytes(program: Program) -> int:
    return int(Path(f"/proc/{program.pid}/statm").read_text().split()[0]) * resource.getpagesize()


@pytest.mark.parametrize("room", [0, 4 * MEGABYTE, 12 * MEGABYTE, 40 * MEGABYTE])
def test_a_process_without_memory_is_no_corpse(embedded: EmbeddedWorld, room: int, store: SimulatedAppStore) -> None:
    first, second = genuine_messages(300, 1613), GENUINE
    program = embedded.start_consuming(store)
    limit = address_space_bytes(program) + room
    resource.prlimit(program.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    embedded.send(first)

    def has_met_the_limit() -> bool:
        has_met = "MemoryError" in program.stderr or "start new thread" in program.stderr
        return has_met or program.ends_within(0) or embedded.visible(SOURCE) == 0

    with suppress(AssertionError):  # it has ended
        program.wait_until(has_met_the_limit, "it meets the limit")
    if not program.ends_within(0):
        with suppress(ProcessLookupError):
            resource.prlimit(program.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        embedded.send(second)
        with suppress(AssertionError):
            program.wait_until(lambda: has_answered(embedded, second), "it works again")
        if not program.ends_within(0):
            assert has_answered(embedded, second)
            program.send_signal(signal.SIGTERM)
    assert program.wait_for_end() in (0, WORLD_FAILED, -signal.SIGSEGV, -signal.SIGABRT)


def has_answered(world: EmbeddedWorld, messages: list[SampleMessage]) -> bool:
    bodies = world.sql(
        "SELECT body FROM contents JOIN messages USING (row_id) JOIN queues USING (queue_id) WHERE name = ?", RESULTS
    )
    return {message.user_id for message in messages} <= {json.loads(body)["user_id"] for (body,) in bodies}
