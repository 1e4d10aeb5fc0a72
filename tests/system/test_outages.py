"""What the program lacks for a while is an outage, in which messages are kept; a process that cannot go on ends."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt

from . import exhausted_machine
from .processes import ROOT, Program
from .test_processes import has_answers, start_two, wait_for_the_end_of, workers_of
from .worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld, World, genuine_messages

WORLD_FAILED = 1
MEGABYTE = 1 << 20
GENUINE = genuine_messages(60, 1612)
TOTALS = re.compile(r"stopped: (\d+) deliveries received, (\d+) messages answered")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll, and limits of another process")


@pytest.mark.short
def test_a_database_that_is_moved_away_is_missed_and_taken_up_again(
    embedded: EmbeddedWorld, store: SimulatedAppStore
) -> None:
    messages = genuine_messages(10, 51)
    elsewhere = embedded.database.with_suffix(".elsewhere")
    program = embedded.start_consuming(store, drain_seconds=600)
    embedded.database.rename(elsewhere)
    program.wait_for_log("deleted, moved or replaced")
    assert not embedded.database.exists()  # a new, empty one would be taken for the ledger
    elsewhere.rename(embedded.database)
    embedded.send(messages)
    program.wait_until(lambda: embedded.visible(RESULTS) == len(messages), "all are answered")
    program.wait_until(lambda: embedded.total(SOURCE) == 0, "all are deleted")
    embedded.database.rename(elsewhere)
    program.stop()
    elsewhere.rename(embedded.database)


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
    embedded: EmbeddedWorld, machine: Machine, store: SimulatedAppStore
) -> None:
    program = start_two(embedded, store)
    embedded.send(GENUINE[:20])
    program.wait_until(lambda: has_answers(embedded, 20), "the first are answered")
    before = workers_of(program)
    machine.runs_out_of("memory")
    embedded.send(GENUINE[20:])
    program.wait_until(lambda: "ended with exit status 1" in program.stderr, "one has ended")
    machine.has_it_again("memory")
    program.wait_until(lambda: workers_of(program) != before, "it is replaced")
    embedded.bring_back(SOURCE)
    program.wait_until(lambda: embedded.total(SOURCE) == 0, "all is answered")
    program.stop()


def test_a_parent_that_can_not_hear_its_workers_ends(
    embedded: EmbeddedWorld, machine: Machine, store: SimulatedAppStore
) -> None:
    program = start_two(embedded, store)
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


def lowest_free_descriptor(program: Program) -> int:
    used = {int(entry.name) for entry in Path(f"/proc/{program.pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


@pytest.mark.parametrize("comes_first", [True, False], ids=["before the first message", "after it"])
def test_no_descriptors_left_is_an_outage(world: World, comes_first: bool) -> None:
    first, others = ([], GENUINE) if comes_first else (GENUINE[:20], GENUINE[20:])
    with SimulatedAppStore(latency_seconds=0.05) as store:
        program = world.start_consuming(store)
        world.send(first)
        program.wait_until(lambda: world.total(SOURCE) == 0, "the first are answered")
        limits = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (lowest_free_descriptor(program), limits[1]))
        world.send(others)
        program.wait_until(
            lambda: "is unavailable" in program.stderr or has_answered_all(world), "it is met, or not needed"
        )
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, limits)
        program.wait_until(lambda: has_answered_all(world), "all are answered")
        program.wait_until(lambda: world.total(SOURCE) == 0, "all are deleted")
        program.stop()
    assert "crashed" not in program.stderr
    assert TOTALS.findall(program.stderr) == [(str(len(GENUINE)), str(len(GENUINE)))]
    assert world.total(DEAD_LETTERS) == 0


def has_answered_all(world: World) -> bool:
    return world.total(RESULTS) == len(GENUINE)


def test_a_verifier_that_can_not_start_is_an_outage(
    embedded: EmbeddedWorld, tmp_path: Path, store: SimulatedAppStore
) -> None:
    machine = Machine(tmp_path / "machine")
    embedded.environment.update(machine.environment)
    machine.runs_out_of("verifier")
    files = store.write_files(tmp_path)
    signed = []
    for number, sample in enumerate(genuine_messages(40, 1616)):
        receipt = store.sell_signed(SampleReceipt(BUNDLE_ID, (Purchase(str(5000 + number), "coins"),)))
        body = {"receipt": receipt, "user_id": number, "post_queue": RESULTS}
        signed.append(replace(sample, body=json.dumps(body)))
    program = embedded.start_consuming(store, apple_roots=files.roots, max_in_flight=200)
    embedded.send(signed)
    program.wait_for_log("signatures is unavailable")
    embedded.send(GENUINE)
    program.wait_until(lambda: embedded.total(RESULTS) == len(GENUINE), "app receipts are answered")
    machine.has_it_again("verifier")
    program.wait_until(lambda: embedded.total(SOURCE) == 0, "all are answered")
    program.stop()
    count = len(GENUINE) + len(signed)
    assert TOTALS.findall(program.stderr) == [(str(count), str(count))]
