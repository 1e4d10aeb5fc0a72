"""One command in several processes: who dies is replaced, limits follow the living, and it stops like a single one."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
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


def start_two(world: World, store: SimulatedAppStore, **settings: object) -> Program:
    program = world.start(store, processes=2, **settings)
    program.wait_for_log("2 processes of 4 consumers take receipts")
    return program


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
def test_a_worker_killed_under_load_loses_nothing_and_is_replaced(embedded: EmbeddedWorld) -> None:
    scenario = make_scenario(150, 52, BUNDLE_ID, RESULTS)
    embedded.send(scenario.messages)
    with SimulatedAppStore(latency_seconds=0.05, jitter_seconds=0.1) as store:
        limits = {"app_store_concurrency": 10, "max_in_flight": 30, "app_store_rate_per_second": 1000}
        program = start_two(embedded, store, **limits)
        program.wait_until(partial(has_answers, embedded, 20), "some are answered")
        victim = workers_of(program)["worker-1"]
        os.kill(victim, signal.SIGKILL)
        program.wait_until(lambda: workers_of(program)["worker-1"] != victim, "it has a successor")
        assert embedded.total(SOURCE) > 0, "everything was done before the kill: this tells nothing"
        program.wait_until(lambda: "worker-1 may have 15 messages" in program.stderr, "the successor has its share")
        assert share_logged(program, "worker-2")[:2] == ["30", "15"]
        assert f"worker-1 (process {victim}) was killed by signal 9" in program.stderr
        embedded.bring_back(SOURCE)
        program.wait_until(lambda: embedded.total(SOURCE) == 0, "all is done")
        program.stop()
    outcome = embedded.outcome()
    assert outcome.faults(scenario) == ()
    assert Counter(embedded.claimed_transaction_ids()) == Counter(outcome.transaction_ids("OK"))


def test_a_worker_told_to_end_drains_and_is_replaced(embedded: EmbeddedWorld) -> None:
    with SimulatedAppStore(latency_seconds=0.3) as store:
        program = start_two(embedded, store)
        embedded.send(GENUINE)
        program.wait_until(partial(has_taken_in_all, embedded), "all are in flight")
        first = workers_of(program)["worker-2"]
        os.kill(first, signal.SIGTERM)
        program.wait_until(lambda: workers_of(program)["worker-2"] != first, "it has a successor")
        program.wait_until(lambda: embedded.total(SOURCE) == 0, "all is done")
        program.stop()
    assert {letter.fields["user_id"] for letter in embedded.take(RESULTS)} == users(GENUINE)
    assert embedded.most_receives(SOURCE) == 0
    assert TOTALS.findall(program.stderr) == [(str(len(GENUINE)), str(len(GENUINE)))]


def test_workers_of_a_killed_parent_drain_and_end(embedded: EmbeddedWorld) -> None:
    with SimulatedAppStore(latency_seconds=0.3) as store:
        program = start_two(embedded, store)
        workers = program.children()
        embedded.send(GENUINE)
        program.wait_until(partial(has_taken_in_all, embedded), "all are in flight")
        program.kill()
        wait_for_the_end_of(workers)
    assert embedded.total(SOURCE) == 0
    assert {letter.fields["user_id"] for letter in embedded.take(RESULTS)} == users(GENUINE)


@pytest.mark.parametrize("stop_signal", STOP_SIGNALS)
def test_a_signal_drains_all_workers_at_once(embedded: EmbeddedWorld, stop_signal: signal.Signals) -> None:
    embedded.send(GENUINE)
    with SimulatedAppStore(latency_seconds=2.0) as store:
        program = start_two(embedded, store, app_store_concurrency=4, drain_seconds=15)
        program.wait_until(partial(has_answers, embedded, 3), "some are answered")
        workers = program.children()
        program.send_signal(stop_signal)
        assert program.wait_for_end(2 * 15) == 0  # and not one after the other
    assert not any(map(is_alive, workers))
    assert embedded.visible(SOURCE) == embedded.total(SOURCE) > 0
    answered = {letter.fields["user_id"] for letter in embedded.take(RESULTS)}
    handed_back = {letter.fields["user_id"] for letter in embedded.take(SOURCE)}
    assert answered | handed_back == users(GENUINE)
    assert len(answered) >= 3
    ((received, counted),) = TOTALS.findall(program.stderr)
    assert int(received) == len(GENUINE)
    assert 0 < int(counted) <= len(answered)  # of those that were answered last some were not deleted any more


@pytest.mark.short
def test_ctrl_c_in_a_terminal_is_one_clean_drain(embedded: EmbeddedWorld) -> None:
    with SimulatedAppStore(latency_seconds=0.5) as store:
        program = start_two(embedded, store)
        embedded.send(GENUINE)
        program.wait_until(partial(has_taken_in_all, embedded), "all are in flight")
        program.interrupt_group()
        assert program.wait_for_end() == 0
    assert embedded.total(SOURCE) == 0
    assert f"{len(GENUINE)} messages answered, 0 moved to the dead-letter queue, 0 handed back" in program.stderr
    assert "Traceback" not in program.stderr


def test_ctrl_c_while_workers_are_starting_is_a_clean_end(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
    program = embedded.start(store, processes=2)
    program.wait_until(lambda: len(program.children()) == 2, "both are being started")
    program.interrupt_group()
    assert program.wait_for_end() == 0
    assert "Traceback" not in program.stderr


def test_a_second_signal_ends_all_at_once(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
    embedded.send(GENUINE)
    store.outage(Fault.hang(600))
    program = start_two(embedded, store, visibility_timeout_seconds=10)
    program.wait_until(partial(has_taken_in_all, embedded), "all are in flight")
    workers = program.children()
    program.interrupt_group()
    program.wait_for_log("draining")
    assert program.end_by(program.interrupt_group) == 128 + signal.SIGINT
    wait_for_the_end_of(workers)
    assert embedded.total(RESULTS) == 0
    assert embedded.visible_after(10, SOURCE) == len(GENUINE)


def test_a_worker_that_hangs_is_killed_when_its_time_is_over(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
    program = start_two(embedded, store, drain_seconds=2)
    hanging = workers_of(program)["worker-1"]
    os.kill(hanging, signal.SIGSTOP)
    program.stop()
    assert not is_alive(hanging)
    assert f"worker-1 (process {hanging}) has not ended in its time: it is killed" in program.stderr
    assert embedded.total(SOURCE) == 0
