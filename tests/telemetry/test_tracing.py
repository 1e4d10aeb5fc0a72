"""Tracing on the fly: what is told of messages and actors, what ends a trace, and that nothing is left of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from receipt_actors.otp import ActorSystem
from receipt_actors.telemetry.control import TraceRequest
from receipt_actors.telemetry.tracing import (
    WALK_EVENTS,
    RunningTrace,
    tracer_of,
)
from tests.actors.trees import Tree, tree_of
from tests.otp.support import Seen

RECEIPT = "receipt_data"


class Listener:
    """What a trace told, in order."""

    def __init__(self) -> None:
        self.events = Seen()
        self.ends = Seen()

    def trace(self, system: ActorSystem, predicate: str, limit: int = 10, seconds: float = 15.0) -> RunningTrace:
        return tracer_of(system).start(TraceRequest(predicate, limit, seconds), self.events.put, self.ends.put)

    def end(self) -> str:
        reason: str = self.ends.next()
        return reason

    def told(self, trace: RunningTrace) -> list[Mapping[str, Any]]:
        """Return all that was told, by ending it in a way that leaves nothing untold."""
        tracer_of(trace._tracer._system).close()
        self.end()
        return self.events.rest()


@pytest.fixture
def tree() -> Iterator[Tree]:
    yield from tree_of()


@pytest.fixture
def listener() -> Listener:
    return Listener()


def submit(tree: Tree, number: int, user_id: int) -> None:
    tree.services.submit(tree.services.app_store.sell(f"t-{number}"), user_id=user_id)
    tree.settle()


def without_times(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if "seconds" not in name}


# --- the walk ---


def test_a_message_is_followed_from_receive_to_delete(tree: Tree, listener: Listener) -> None:
    """Each step of a genuine receipt is told in order, with what is known of the message by then."""
    trace = listener.trace(tree.actors, "|".join(WALK_EVENTS) + " where user_id == 7", limit=50)
    submit(tree, 1, user_id=7)
    submit(tree, 2, user_id=8)
    events = listener.told(trace)
    names = [event["event"] for event in events]
    assert names == ["received", "verify", "verified", "claim", "claimed", "reply", "replied", "delete", "answered"]
    (message_id,) = {event["message_id"] for event in events}
    assert without_times(events[0]) == {
        "event": "received",
        "process": "main",
        "message_id": message_id,
        "receive_count": 1,
        "user_id": 7,
        "submission_id": events[0]["submission_id"],
        "post_queue": "ResultsSQS",
    }
    assert without_times(events[6]) == {
        **without_times(events[0]),
        "event": "replied",
        "transaction_id": "t-1",
        "verdict": "OK",
        "reason": "claimed",
    }
    assert events[2]["outcome"] == "genuine"
    assert events[4]["outcome"] == "new"
    for event in events:
        assert event["at_seconds"] == tree.services.clock.time()
        assert event["seconds_since_received"] == 0.0  # the clock stands still
