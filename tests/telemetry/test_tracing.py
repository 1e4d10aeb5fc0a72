"""Tracing on the fly: what is told of messages and actors, what ends a trace, and that nothing is left of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from receipt_actors import Settings
from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.errors import TraceRefused
from receipt_actors.otp import ActorSystem
from receipt_actors.pipeline.protocol import IN_FLIGHT
from receipt_actors.telemetry.control import TraceRequest
from receipt_actors.telemetry.trace_filters import EVENTS, FIELDS, MESSAGE_EVENTS
from receipt_actors.telemetry.tracing import MAX_TRACES, MAX_WAITING, RunningTrace, TraceEnd, actor_name, tracer_of
from receipt_actors.testing import wait_until
from tests.otp.support import WAIT_SECONDS, Gate, Seen
from tests.pipeline.trees import Tree, tree_of

RECEIPT = "receipt_data"


class Listener:
    def __init__(self) -> None:
        self.events = Seen()
        self.ends = Seen()

    def trace(
        self, system: ActorSystem, events: str = "", limit: int = 10, seconds: float = 15.0, **filters: str
    ) -> RunningTrace:
        """Begin a trace; ``events`` are names with spaces between them."""
        request = TraceRequest(
            {"event": events.split(), **{name: [value] for name, value in filters.items()}}, limit, seconds
        )
        return tracer_of(system).start(request, self.events.put, self.ends.put)

    def end(self) -> str:
        reason: str = self.ends.next()
        return reason

    def told(self, trace: RunningTrace) -> list[Mapping[str, Any]]:
        trace.end(TraceEnd.SYSTEM)  # leaves nothing untold
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
    go_on(tree)


def go_on(tree: Tree) -> None:
    tree.settle()
    tree.advance(0.1)  # where several come one after the other, they gather for a moment


def without_times(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if "seconds" not in name}


def test_a_message_is_followed_from_receive_to_delete(tree: Tree, listener: Listener) -> None:
    tree.advance(3.0)  # within a long poll, which is no time of the message's
    now = tree.services.clock.time()
    trace = listener.trace(tree.actors, " ".join(MESSAGE_EVENTS), limit=50, user_id="7")
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
        "source_queue": "ReceiptsSQS",
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
        assert event["at_seconds"] == now
    assert [event["seconds_since_received"] for event in events[1:]] == [0.0] * 8  # the clock stands still


def test_what_comes_back_is_told_with_its_reason(tree: Tree, listener: Listener) -> None:
    trace = listener.trace(tree.actors, "handed_back")
    tree.services.app_store.script(RECEIPT, {"status": 21004})
    tree.services.submit(RECEIPT, user_id=7)
    tree.settle()
    hold = tree.hold("app_store", "verify_receipt", after=False)
    submit(tree, 1, user_id=8)
    tree.crash("validator")
    hold.release()
    tree.settle()
    events = listener.told(trace)
    assert [(event["reason"], event.get("user_id")) for event in events] == [("misconfigured", 7), ("crashed", None)]


def test_one_of_several_source_queues_is_traced(listener: Listener) -> None:
    second = "Game2SQS"
    tree = Tree(Settings(backend="aws", bundle_ids=("*",), sources={second: {"post_queues": ("Results2SQS",)}}))
    trace = listener.trace(tree.actors, limit=100, source_queue=second)
    receipt = tree.services.app_store.sell("t-1")

    def send_to_both() -> None:
        for source_queue in (None, second):
            tree.services.submit(receipt, 7, source_queue=source_queue)
            go_on(tree)

    send_to_both()
    tree.services.queues.send(second, [OutgoingMessage("no json")])
    go_on(tree)
    hold = tree.hold("app_store", "verify_receipt", after=False)
    tree.services.submit(receipt, 8, source_queue=second)
    go_on(tree)
    tree.crash("validator")
    hold.release()
    tree.settle()
    tree.services.queues.corrupt_next()
    tree.services.submit(receipt, 9, source_queue=second)
    go_on(tree)
    events = listener.told(trace)
    assert {event["source_queue"] for event in events} == {second}
    assert {event["event"] for event in events} == set(MESSAGE_EVENTS) - {"look_up"}
    tree.close()


def test_messages_of_an_actor_are_told(tree: Tree, listener: Listener) -> None:
    trace = listener.trace(tree.actors, "call cast sent", limit=100, actor="ledger_gateway")
    submit(tree, 1, user_id=7)
    events = listener.told(trace)
    assert {event["actor"] for event in events} == {"ledger_gateway"}
    assert {"at_seconds", "process", "event", "actor", "message"} >= set(events[0])
    assert ("call", "ClaimTransaction") in [(event["event"], event["message"]) for event in events]
    assert ("sent", "Ownership") in [(event["event"], event["message"]) for event in events]
    assert "t-1" not in str(events)


def test_actors_that_start_later_are_watched_from_their_first_message(tree: Tree, listener: Listener) -> None:
    trace = listener.trace(tree.actors, "returned sent exited", limit=100, actor="validator")
    submit(tree, 1, user_id=7)
    events = listener.told(trace)
    assert [event["message"] for event in events if event["event"] == "returned"] == [
        "Genuine",
        "Ownership",
        "Done",
        "Done",
    ]
    assert ("VerifyReceipt", "app_store_gateway") in [(event.get("message"), event.get("peer")) for event in events]
    assert without_times(events[-1]) == {"event": "exited", "process": "main", "actor": "validator", "reason": "normal"}


def test_a_crash_is_told_with_its_exception(tree: Tree, listener: Listener) -> None:
    trace = listener.trace(tree.actors, "crashed exited", actor="in_flight")
    tree.crash(IN_FLIGHT)
    events = listener.told(trace)
    assert [(event["event"], event["actor"]) for event in events] == [("crashed", "in_flight"), ("exited", "in_flight")]
    assert events[1]["reason"] == "crash"


def watched(system: ActorSystem) -> set[str]:
    return {actor_name(ref) for ref in system.processes() if ref.process.debug is not None}


def test_a_trace_ends_after_so_many_events(tree: Tree, listener: Listener) -> None:
    listener.trace(tree.actors, limit=3)
    for number in range(5):
        submit(tree, number, user_id=number)
    assert listener.end() == "limit"
    assert len(listener.events.rest()) == 3
    is_untouched(tree)


def test_a_trace_ends_after_so_many_seconds(tree: Tree, listener: Listener) -> None:
    listener.trace(tree.actors, "crashed claim", seconds=15)
    tree.services.clock.advance(14.9)
    assert not listener.ends.rest()
    tree.services.clock.advance(0.2)
    assert listener.end() == "seconds"
    is_untouched(tree)


def test_a_trace_that_is_stopped_says_so_once(tree: Tree, listener: Listener) -> None:
    trace = listener.trace(tree.actors)
    trace.stop()
    trace.stop()
    assert listener.end() == "stopped"
    assert not listener.ends.rest()
    is_untouched(tree)


def test_a_trace_ends_with_the_system(tree: Tree, listener: Listener) -> None:
    listener.trace(tree.actors, "claim")
    tracer_of(tree.actors).close()
    assert listener.end() == "system"
    with pytest.raises(TraceRefused, match="has ended"):
        listener.trace(tree.actors, "claim")


def is_untouched(tree: Tree) -> None:
    assert tree.actors.watched is None

    def is_left_alone() -> bool:
        tree.services.queues.interrupt()  # an actor with a thread of its own hears of it when its poll is over
        return not watched(tree.actors)

    wait_until(is_left_alone, tree.actors)
    assert not tracer_of(tree.actors).is_on
    submit(tree, 99, user_id=99)
    assert any(result["user_id"] == 99 for result in tree.results())


def test_several_traces_do_not_see_each_other(tree: Tree, listener: Listener) -> None:
    others = [Listener() for _ in range(MAX_TRACES - 1)]
    trace = listener.trace(tree.actors, "claim", user_id="7")
    for other in others:
        other.trace(tree.actors, "claim", limit=1, user_id="8")
    with pytest.raises(TraceRefused, match="5 traces run already"):
        Listener().trace(tree.actors, "claim")
    submit(tree, 7, user_id=7)
    submit(tree, 8, user_id=8)
    assert [other.end() for other in others] == ["limit"] * len(others)
    assert [event["user_id"] for event in listener.told(trace)] == [7]


@pytest.mark.parametrize(
    ("limit", "seconds", "message"),
    [
        (0, 15, "limit: expected 1 to 10,000 events, not 0"),
        (10_001, 15, "limit"),
        (10, 0, "seconds: expected more than 0, and 3,600 at most, not 0"),
        (10, float("nan"), "seconds"),
    ],
)
def test_a_trace_has_bounds(tree: Tree, listener: Listener, limit: int, seconds: float, message: str) -> None:
    with pytest.raises(TraceRefused, match=message):
        listener.trace(tree.actors, "claim", limit, seconds)


def test_what_nobody_takes_is_lost_and_counted(tree: Tree) -> None:
    gate, ends = Gate(), Seen()
    with gate:
        tracer = tracer_of(tree.actors)
        trace = tracer.start(TraceRequest({"event": ["claim"]}, 10_000, 15.0), gate, ends.put)
        for number in range(MAX_WAITING + 6):
            if tracer.wants("claim"):
                tracer.emit("claim", {"user_id": number})
            if not number:
                assert gate.entered.wait(WAIT_SECONDS)  # the first one is with the listener, and no longer waits
        assert trace.lost >= 5
        submit(tree, 1, user_id=1)
        assert len(tree.results()) == 1
        trace.stop()
    assert ends.next() == "stopped"


def test_matching_has_a_budget(tree: Tree, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receipt_actors.telemetry.tracing.BUDGET_SECONDS", 0.0)
    trace = listener.trace(tree.actors, "verify claim", user_id="1")
    for number in range(3):
        submit(tree, number, user_id=2)
    assert trace.lost > 0
    assert not listener.told(trace)


def test_nothing_but_named_fields_leaves(tree: Tree, listener: Listener) -> None:
    trace = listener.trace(tree.actors, limit=10_000)
    receipt = tree.services.app_store.sell("t-1")
    tree.services.submit(receipt, user_id=7)
    tree.settle()
    events = listener.told(trace)
    assert len(events) > 40
    assert {name for event in events for name in event} <= {"at_seconds", "event", *FIELDS}
    written = json.dumps(events)
    assert receipt not in written
    assert "handle" not in written.lower()
    for event in events:
        assert set(event) - {"at_seconds", "event"} <= set(EVENTS[event["event"]].fields)
