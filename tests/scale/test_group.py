"""Several processes that are operated as one: real workers, on one SQLite file."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.errors import TraceRefused
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Kind, make_scenario
from receipt_actors.scale.processes.group import ProcessGroup
from receipt_actors.settings import Settings
from receipt_actors.sqlite import EmbeddedQueues
from receipt_actors.telemetry.control import SystemControl, TraceRequest, UnknownActor
from receipt_actors.telemetry.overview import ActorOverview, Overview, ProcessOverview, State
from tests.patience import PATIENCE_SECONDS

WORKER_PROGRAM = ("-m", "receipt_actors.cli.worker")
NAMES = ["worker-1", "worker-2"]
BUNDLE_ID = "com.example.game"


class House:
    def __init__(self, folder: Path) -> None:
        self._store = SimulatedAppStore().start()
        self.settings = Settings(
            database=folder / "receipts.db",
            bundle_ids=(BUNDLE_ID,),
            app_store_url=self._store.url,
            receive_wait_seconds=1,
            log_level="error",
            processes=2,
        )
        self.queues = EmbeddedQueues(folder / "receipts.db")
        complete = threading.Event()
        self.queues.create_queue(self.settings.source_queue)
        self.group = ProcessGroup.start(self.settings, 2, WORKER_PROGRAM, on_complete=complete.set)
        assert complete.wait(PATIENCE_SECONDS)
        self.control: SystemControl = self.group
        self._seed = 0

    def send(self, count: int) -> None:
        self._seed += 1
        scenario = make_scenario(2 * count + 20, self._seed, BUNDLE_ID, self.settings.post_queues[0])
        for message in [message for message in scenario.messages if message.kind is Kind.GENUINE][:count]:
            self.queues.send(self.settings.source_queue, [OutgoingMessage(message.body, message.attributes)])

    def look(self) -> Overview:
        return Overview.from_json(json.loads(json.dumps(self.control.overview().as_json())))

    def wait_for(self, condition: Callable[[Overview], object]) -> Overview:
        seen = self.look()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition(seen):
            assert time.monotonic() < deadline, f"it has not come to this: {seen}"
            threading.Event().wait(0.02)
            seen = self.look()
        return seen

    def wait_for_states(self, *states: State) -> Overview:
        return self.wait_for(lambda seen: tuple(process.state for process in seen.processes) == states)

    def wait_for_description(self, actor: str, process: str) -> Mapping[str, Mapping[str, Any]]:
        """Ask an actor of all processes for its state until this one says it; a busy machine may make it late."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with suppress(UnknownActor):  # as far as anybody knows who has answered
                described = self.control.actor_state(actor)
                if "class" in described[process]:
                    return described
        raise AssertionError(f"{process} does not answer")

    def close(self) -> None:
        self.group.drain(PATIENCE_SECONDS)
        self.queues.close()
        self._store.stop()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("group"))
    yield house
    house.close()


def names(node: ActorOverview | None) -> set[str]:
    return set() if node is None else {node.name}.union(*map(names, node.children))


def answered(process: ProcessOverview | Overview) -> int:
    return process.statistics.count("answered")


def test_they_are_seen_as_one_system(house: House) -> None:
    house.wait_for_states(State.CONSUMING, State.CONSUMING)
    before = answered(house.look())
    house.send(20)
    seen = house.wait_for(lambda seen: answered(seen) == before + 20)
    assert sum(map(answered, seen.processes)) <= before + 20
    assert [process.name for process in seen.processes] == NAMES
    assert len({os.getpid(), *(process.pid for process in seen.processes)}) == 3
    for process in seen.processes:
        assert {"root", "in_flight", "validators", "consumer-4"} <= names(process.tree)
        assert {service.name for service in process.services} >= {"app_store", "ledger"}
        assert min(process.usage.cpu_seconds, process.usage.memory_bytes, process.usage.threads) > 0
    assert {"root", "incidents", "worker-1", "worker-2"} <= names(seen.parent)
    assert seen.parent_usage is not None
    assert seen.parent_usage.memory_bytes > 0
    seen = house.wait_for(lambda seen: seen.queues.get(house.settings.source_queue) is not None)
    assert seen.queues.keys() >= {house.settings.source_queue, *house.settings.post_queues}


def test_a_pause_is_for_all_of_them_and_for_their_successors(house: House) -> None:
    seen = house.wait_for_states(State.CONSUMING, State.CONSUMING)
    before = answered(seen)
    house.control.pause()
    house.wait_for_states(State.PAUSED, State.PAUSED)
    house.send(4)
    victim = seen.processes[0].pid
    os.kill(victim, signal.SIGKILL)
    seen = house.wait_for(
        lambda seen: seen.processes[0].pid not in (0, victim) and seen.processes[0].state is State.PAUSED
    )
    assert answered(seen) == before
    crash = next(incident for incident in seen.incidents if incident.kind == "crash")
    assert (crash.process, crash.subject) == ("parent", "worker-1")
    assert f"worker-1 (process {victim}) was killed by signal 9" in crash.summary
    house.control.resume()
    house.wait_for(lambda seen: answered(seen) == before + 4)


def test_the_state_of_an_actor_is_told_by_process(house: House) -> None:
    house.wait_for_states(State.CONSUMING, State.CONSUMING)
    described = house.control.actor_state("in_flight")
    assert sorted(described) == NAMES
    assert {each["class"] for each in described.values()} == {"InFlight"}
    assert set(house.control.actor_state("worker-1")) == {"parent"}
    with pytest.raises(UnknownActor):
        house.control.actor_state("nobody")


def test_a_trace_is_of_all_of_them_together(house: House) -> None:
    house.wait_for_states(State.CONSUMING, State.CONSUMING)
    events: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    ends: SimpleQueue[str] = SimpleQueue()
    received = {"event": ["received"]}
    with pytest.raises(TraceRefused):
        house.control.trace(TraceRequest({"event": ["nonsense"]}), events.put, ends.put)
    trace = house.control.trace(TraceRequest(received, limit=15, seconds=PATIENCE_SECONDS), events.put, ends.put)
    before = answered(house.look())
    house.send(40)
    assert ends.get(timeout=PATIENCE_SECONDS) == "limit"
    told = [events.get_nowait() for _ in range(events.qsize())]
    assert len(told) == 15
    assert {event["process"] for event in told} <= set(NAMES)
    assert {event["event"] for event in told} == {"received"}
    assert trace.lost == 0
    house.wait_for(lambda seen: answered(seen) >= before + 40)


def test_one_that_hangs_is_seen_as_silent(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receipt_actors.scale.processes.group_inspection.FRESH_SECONDS", 2.0)
    monkeypatch.setattr("receipt_actors.scale.processes.group_inspection.PROCESS_SECONDS", 0.3)
    seen = house.wait_for_states(State.CONSUMING, State.CONSUMING)
    hanging = seen.processes[1].pid
    os.kill(hanging, signal.SIGSTOP)
    try:
        seen = house.wait_for(lambda seen: seen.processes[1].state is State.SILENT)
        assert seen.state is State.SILENT
        assert "in_flight" in names(seen.processes[1].tree)
        described = house.wait_for_description("in_flight", "worker-1")
        assert described["worker-1"]["class"] == "InFlight"
        assert "has not answered" in described["worker-2"]["why"]
    finally:
        os.kill(hanging, signal.SIGCONT)
    house.wait_for_states(State.CONSUMING, State.CONSUMING)


def test_after_the_end_it_can_still_be_looked_at(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.send(3)
    house.wait_for(lambda seen: answered(seen) == 3)
    house.close()
    seen = house.look()
    assert (seen.state, seen.parent, answered(seen)) == (State.ENDED, None, 3)
    assert {process.state for process in seen.processes} == {State.ENDED}
