"""An overview survives its way through JSON, and one state stands for all processes."""

from __future__ import annotations

import json

import pytest

from receipt_actors.telemetry.overview import (
    ActorOverview,
    Incident,
    Overview,
    ProcessOverview,
    ServiceOverview,
    State,
    Usage,
    state_of,
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


def test_an_overview_survives_its_way_through_json():
    """What the admin port sends is what a client reads."""
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
    )
    assert Overview.from_json(json.loads(json.dumps(overview.as_json()))) == overview


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], State.STARTING),
        ([State.CONSUMING, State.CONSUMING], State.CONSUMING),
        ([State.CONSUMING, State.WAITING], State.WAITING),
        ([State.WAITING, State.PAUSED], State.PAUSED),
        ([State.CONSUMING, State.STARTING], State.STARTING),
        ([State.DRAINING, State.PAUSED], State.DRAINING),
        ([State.ENDED, State.DRAINING], State.ENDED),
    ],
)
def test_a_system_is_in_the_state_that_most_needs_to_be_known(states: list[State], expected: State):
    """One process that is not well is not hidden by those that are."""
    assert state_of([process(state) for state in states]) is expected
