"""An overview survives its way through JSON, and one state stands for all processes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from receipt_actors.telemetry.overview import (
    PROC,
    ActorOverview,
    Incident,
    NodeOverview,
    NodeState,
    Overview,
    ProcessOverview,
    RoleOverview,
    ServiceOverview,
    State,
    Usage,
    state_of,
    usage_now,
)
from receipt_actors.telemetry.statistics import StatisticsSnapshot


def process(state: State = State.CONSUMING) -> ProcessOverview:
    tree = ActorOverview("root", "supervisor", "running", children=(ActorOverview("intake", "worker", "running", 3),))
    return ProcessOverview(
        name="worker-1",
        pid=7,
        started_at_seconds=1.0,
        state=state,
        in_flight=1,
        reserved=2,
        unavailable=("ledger",),
        usage=Usage(1.5, 2, 3, 4),
        services=(ServiceOverview("ledger", False, 5, 6, 7, 8.0),),
        tree=tree,
        statistics=StatisticsSnapshot(received=9),
    )


def role() -> RoleOverview:
    shares = {"b": 30, "c": 20}
    active = [
        NodeOverview(name, NodeState.ACTIVE, token, {"ledger_concurrency": shares[name]}, 1, 0.5)
        for name, token in (("b", 7), ("c", 9))
    ]
    nodes = (*active, NodeOverview("d", NodeState.STANDBY, None, None, 2, 0.1))
    return RoleOverview("load-balanced", "Q", "c", NodeState.ACTIVE, 10.0, 8.0, {"ledger_concurrency": 50}, nodes)


def test_an_overview_survives_its_way_through_json():
    overview = Overview(
        at_seconds=2.0,
        version="1.2.3",
        state=State.WAITING,
        source_queues=("ReceiptsSQS",),
        queues={"ReceiptsSQS": 10, "ReceiptsDLQ": None},
        processes=(process(), process(State.WAITING)),
        statistics=StatisticsSnapshot(received=18),
        incidents=(Incident(1.0, "crash", "it crashed", ("first", "then"), "m-1", 2, "worker-1"),),
        parent=ActorOverview("root", "supervisor", "running"),
        parent_usage=Usage(0.1, 2, 3, 4),
        role=role(),
    )
    assert Overview.from_json(json.loads(json.dumps(overview.as_json()))) == overview


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], State.STARTING),
        ([State.CONSUMING, State.WAITING], State.WAITING),
        ([State.DRAINING, State.PAUSED], State.DRAINING),
        ([State.ENDED, State.DRAINING], State.ENDED),
        ([State.STANDBY, State.STARTING], State.STARTING),
        ([State.STANDBY, State.CONSUMING], State.CONSUMING),
    ],
)
def test_a_system_is_in_the_state_that_most_needs_to_be_known(states: list[State], expected: State):
    assert state_of([process(state) for state in states]) is expected


@pytest.mark.parametrize("proc", [PROC, Path("/nowhere")], ids=["with /proc", "without"])
def test_a_process_knows_what_it_takes(proc: Path) -> None:
    if not proc.exists() and proc is PROC:
        pytest.skip("this system has no /proc")
    usage = usage_now(proc)
    assert usage.cpu_seconds > 0
    assert 1 << 20 < usage.memory_bytes < 1 << 40
    assert usage.threads >= threading.active_count()
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
    try:
        # Of threads that other tests have left behind one may open or close a file just now.
        assert usage_now(proc).open_files == pytest.approx(usage.open_files + 100, abs=10)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
