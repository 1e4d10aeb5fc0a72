"""One command in several processes: who dies is replaced, limits follow the living, and it stops like a single one."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage, make_scenario
from receipt_actors.sandbox.receipts import Fault
from tests.patience import PATIENCE_SECONDS

from .processes import POLL_SECONDS, Program
from .worlds import BUNDLE_ID, RESULTS, SOURCE, EmbeddedWorld, World, genuine_messages

STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]
RESTARTS = 10  #: of two workers in a minute; one more is a storm
TOTALS = re.compile(r"stopped: (\d+) deliveries received, (\d+) messages answered")
GENUINE = genuine_messages(60, 51)


@pytest.fixture
def two(embedded: EmbeddedWorld) -> Iterator[TwoProcesses]:
    two = TwoProcesses(embedded)
    yield two
    two.close()


class TwoProcesses:
    def __init__(self, world: EmbeddedWorld) -> None:
        self.world = world
        self._workers: set[int] = set()

    def start(self, store: SimulatedAppStore, **settings: object) -> Program:
        program = self.world.start(store, processes=2, **settings)
        program.wait_for_log("2 processes of 4 consumers take receipts")
        self._workers.update(program.children())
        return program

    def close(self) -> None:
        """Workers of a parent that was killed end by themselves; where they do not, a test has failed."""
        for worker in self._workers:
            if is_alive(worker):
                os.kill(worker, signal.SIGKILL)


def workers_of(program: Program) -> dict[str, int]:
    return {name: int(pid) for name, pid in re.findall(r"(worker-\d+) \(process (\d+)\) consumes", program.stderr)}


def is_alive(process_id: int) -> bool:
    """Tell whether it runs; a zombie, which some other process has not reaped, does not."""
    with suppress(OSError):
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for_the_end_of(workers: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "a worker has been left behind"
        time.sleep(POLL_SECONDS)


def share_logged(program: Program, name: str) -> list[str]:
    return re.findall(rf"{name} may have (\d+) messages in flight", program.stderr)


def has_answers(world: World, count: int) -> bool:
    return world.total(RESULTS) >= count


def has_taken_in_all(world: World) -> bool:
    return world.visible(SOURCE) == 0


def users(messages: list[SampleMessage]) -> set[int]:
    return {message.user_id for message in messages}


@pytest.mark.short
def test_a_worker_killed_under_load_loses_nothing_and_is_replaced(two: TwoProcesses) -> None:
    world = two.world
    scenario = make_scenario(150, 52, BUNDLE_ID, RESULTS)
    world.send(scenario.messages)
    with SimulatedAppStore(latency_seconds=0.05, jitter_seconds=0.1) as store:
        limits = {"app_store_concurrency": 10, "max_in_flight": 30, "app_store_rate_per_second": 1000}
        program = two.start(store, **limits)
        program.wait_until(partial(has_answers, world, 20), "some are answered")
        victim = workers_of(program)["worker-1"]
        os.kill(victim, signal.SIGKILL)
        program.wait_until(lambda: workers_of(program)["worker-1"] != victim, "it has a successor")
        assert world.total(SOURCE) > 0, "everything was done before the kill: this tells nothing"
        program.wait_until(lambda: "worker-1 may have 15 messages" in program.stderr, "the successor has its share")
        assert share_logged(program, "worker-2")[:2] == ["30", "15"]
        assert f"worker-1 (process {victim}) was killed by signal 9" in program.stderr
        world.bring_back(SOURCE)
        program.wait_until(lambda: world.total(SOURCE) == 0, "all is done")
        program.stop()
    outcome = world.outcome()
    assert outcome.faults(scenario) == ()
    assert Counter(world.claimed_transaction_ids()) == Counter(outcome.transaction_ids("OK"))


def test_a_worker_told_to_end_drains_and_is_replaced(two: TwoProcesses) -> None:
    world = two.world
    with SimulatedAppStore(latency_seconds=0.3) as store:
        program = two.start(store)
        world.send(GENUINE)
        program.wait_until(partial(has_taken_in_all, world), "all are in flight")
        first = workers_of(program)["worker-2"]
        os.kill(first, signal.SIGTERM)
        program.wait_until(lambda: workers_of(program)["worker-2"] != first, "it has a successor")
        program.wait_until(lambda: world.total(SOURCE) == 0, "all is done")
        program.stop()
    assert {letter.fields["user_id"] for letter in world.take(RESULTS)} == users(GENUINE)
    assert world.most_receives(SOURCE) == 0
    assert TOTALS.findall(program.stderr) == [(str(len(GENUINE)), str(len(GENUINE)))]


def test_workers_of_a_killed_parent_drain_and_end(two: TwoProcesses) -> None:
    world = two.world
    with SimulatedAppStore(latency_seconds=0.3) as store:
        program = two.start(store)
        workers = program.children()
        world.send(GENUINE)
        program.wait_until(partial(has_taken_in_all, world), "all are in flight")
        program.kill()
        wait_for_the_end_of(workers)
    assert world.total(SOURCE) == 0
    assert {letter.fields["user_id"] for letter in world.take(RESULTS)} == users(GENUINE)


@pytest.mark.parametrize("stop_signal", STOP_SIGNALS)
def test_a_signal_drains_all_workers_at_once(two: TwoProcesses, stop_signal: signal.Signals) -> None:
    world = two.world
    world.send(GENUINE)
    with SimulatedAppStore(latency_seconds=2.0) as store:
        program = two.start(store, app_store_concurrency=4, drain_seconds=15)
        program.wait_until(partial(has_answers, world, 3), "some are answered")
        workers = program.children()
        program.send_signal(stop_signal)
        assert program.wait_for_end(2 * 15) == 0  # and not one after the other
    assert not any(map(is_alive, workers))
    assert world.visible(SOURCE) == world.total(SOURCE) > 0
    answered = {letter.fields["user_id"] for letter in world.take(RESULTS)}
    handed_back = {letter.fields["user_id"] for letter in world.take(SOURCE)}
    assert answered | handed_back == users(GENUINE)
    assert len(answered) >= 3
    ((received, counted),) = TOTALS.findall(program.stderr)
    assert int(received) == len(GENUINE)
    assert 0 < int(counted) <= len(answered)  # of those that were answered last some were not deleted any more


@pytest.mark.short
def test_ctrl_c_in_a_terminal_is_one_clean_drain(two: TwoProcesses) -> None:
    world = two.world
    with SimulatedAppStore(latency_seconds=0.5) as store:
        program = two.start(store)
        world.send(GENUINE)
        program.wait_until(partial(has_taken_in_all, world), "all are in flight")
        program.interrupt_group()
        assert program.wait_for_end() == 0
    assert world.total(SOURCE) == 0
    assert f"{len(GENUINE)} messages answered, 0 moved to the dead-letter queue, 0 handed back" in program.stderr
    assert "Traceback" not in program.stderr


def test_ctrl_c_while_workers_are_starting_is_a_clean_end(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
    program = embedded.start(store, processes=2)
    program.wait_until(lambda: len(program.children()) == 2, "both are being started")
    program.interrupt_group()
    assert program.wait_for_end() == 0
    assert "Traceback" not in program.stderr


def test_a_second_signal_ends_all_at_once(two: TwoProcesses, store: SimulatedAppStore) -> None:
    world = two.world
    world.send(GENUINE)
    store.outage(Fault.hang(600))
    program = two.start(store, visibility_timeout_seconds=10)
    program.wait_until(partial(has_taken_in_all, world), "all are in flight")
    workers = program.children()
    program.interrupt_group()
    program.wait_for_log("draining")
    assert program.end_by(program.interrupt_group) == 128 + signal.SIGINT
    wait_for_the_end_of(workers)
    assert world.total(RESULTS) == 0
    assert world.visible_after(10, SOURCE) == len(GENUINE)


def test_a_worker_that_hangs_is_killed_when_its_time_is_over(two: TwoProcesses, store: SimulatedAppStore) -> None:
    world = two.world
    program = two.start(store, drain_seconds=2)
    hanging = workers_of(program)["worker-1"]
    os.kill(hanging, signal.SIGSTOP)
    program.stop()
    assert not is_alive(hanging)
    assert f"worker-1 (process {hanging}) has not ended in its time: it is killed" in program.stderr
    assert world.total(SOURCE) == 0
