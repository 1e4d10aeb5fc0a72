"""What an operator sees of a running system, and what it does when it is told to pause."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from typing import Any

import pytest

from receipt_actors.errors import AppStoreUnavailable, LedgerUnavailable, TraceRefused
from receipt_actors.otp import sys as otp_sys
from receipt_actors.pipeline.consumer import Consumer
from receipt_actors.pipeline.protocol import IN_FLIGHT
from receipt_actors.telemetry.control import SystemControl, TraceRequest, UnknownActor
from receipt_actors.telemetry.overview import ActorOverview, Overview, ServiceOverview, State
from receipt_actors.telemetry.queue_depths import LOOK_SECONDS, QUEUE_DEPTHS
from receipt_actors.testing import FakeServices
from tests.patience import PATIENCE_SECONDS
from tests.pipeline.trees import POST, SETTINGS, Tree, tree_of

SOURCE = SETTINGS.source_queue
POLL_SECONDS = SETTINGS.receive_wait_seconds + 1


@pytest.fixture
def tree() -> Iterator[Tree]:
    yield from tree_of()


def look(tree: Tree) -> Overview:
    tree.system.overview()
    tree.settle()
    return Overview.from_json(json.loads(json.dumps(tree.system.overview().as_json())))


def actors(overview: Overview) -> dict[str, ActorOverview]:
    def flat(node: ActorOverview) -> Iterator[tuple[str, ActorOverview]]:
        yield node.name, node
        for child in node.children:
            yield from flat(child)

    (process,) = overview.processes
    assert process.tree is not None
    return dict(flat(process.tree))


def service(overview: Overview, name: str) -> ServiceOverview:
    (found,) = [service for service in overview.processes[0].services if service.name == name]
    return found


def submit(tree: Tree, number: int = 1) -> None:
    tree.services.submit(tree.services.app_store.sell(f"t-{number}"), user_id=number)


def begin_outage(tree: Tree) -> None:
    for operation in ("claim", "claim_all"):
        tree.services.ledger.fail(operation, LedgerUnavailable("down"), times=None)
    for number in range(10):
        submit(tree, number)
    tree.advance(30)


def test_everything_can_be_seen(tree: Tree) -> None:
    submit(tree)
    tree.advance(1)
    seen = look(tree)
    (process,) = seen.processes
    assert (seen.state, process.state, process.in_flight) == (State.CONSUMING, State.CONSUMING, 0)
    assert process.reserved == 20
    found = actors(seen)
    assert {"root", "telemetry", "pipeline", "in_flight", "validators", "consumer-1", f"result_batcher {POST}"} <= set(
        found
    )
    assert found["validators"].strategy == "simple_one_for_one"
    assert found["in_flight"].messages > 0
    assert {each.name for each in process.services} == {
        "app_store",
        "ledger",
        "signatures",
        f"send to {POST}",
        f"delete from {SOURCE}",
        f"visibility of {SOURCE}",
    }
    assert all(each.is_available for each in process.services)
    assert seen.statistics.count("answered") == 1
    calls = seen.statistics.calls
    assert {name for name, each in calls.items() if each.latencies.count == each.requests} == {
        "app_store",
        "ledger",
        f"send to {POST}",
        f"delete from {SOURCE}",
    }
    assert seen.queues == {SOURCE: 0, POST: 1, f"{SOURCE}DLQ": 0}
    assert min(process.usage.cpu_seconds, process.usage.memory_bytes, process.usage.threads) > 0


def test_what_is_in_flight_is_seen_with_its_actors(tree: Tree) -> None:
    tree.services.app_store.hold("verify_receipt")
    for number in range(25):
        submit(tree, number)
    tree.advance(2)
    seen = look(tree)
    assert seen.processes[0].in_flight == 25
    validators = actors(seen)["validators"]
    assert (len(validators.children), validators.children_unlisted) == (20, 5)
    assert service(seen, "app_store").under_way > 0
    described = tree.system.actor_state(validators.children[0].name)
    assert described["class"] == "Validator"
    assert described["state"]["step"] == "verifying"
    assert described["state"]["message_id"]


def test_an_outage_is_seen(tree: Tree) -> None:
    begin_outage(tree)
    seen = look(tree)
    ledger = service(seen, "ledger")
    assert (seen.state, seen.processes[0].unavailable) == (State.WAITING, ("ledger",))
    assert not ledger.is_available
    assert ledger.waiting > 0
    calls = seen.statistics.calls["ledger"]
    assert (calls.requests, calls.retries) == (0, ledger.retries)
    assert min(calls.retries, calls.failures) > 0
    assert ledger.unavailable_since_seconds is not None
    assert seen.at_seconds - 30 <= ledger.unavailable_since_seconds <= seen.at_seconds
    tree.services.recover()
    tree.advance(30)
    seen = look(tree)
    assert (seen.state, service(seen, "ledger").unavailable_since_seconds) == (State.CONSUMING, None)


def test_restarts_are_seen(tree: Tree) -> None:
    tree.crash(IN_FLIGHT)
    tree.crash(IN_FLIGHT)
    found = actors(look(tree))
    assert (found["in_flight"].restarts, found["visibility_batcher"].restarts) == (2, 0)


def test_queues_are_looked_at_seldom(tree: Tree) -> None:
    asked = tree.services.queues.count
    assert asked("approximate_number_of_messages") == 0
    for _ in range(5):
        look(tree)
    assert asked("approximate_number_of_messages") == 3
    tree.advance(LOOK_SECONDS)
    look(tree)
    assert asked("approximate_number_of_messages") == 6


def test_a_queue_that_does_not_answer_holds_up_nobody(tree: Tree) -> None:
    hold = tree.services.queues.hold("approximate_number_of_messages")
    assert set(look(tree).queues.values()) == {None}
    hold.release()


def test_nothing_is_taken_in_while_it_is_paused(tree: Tree) -> None:
    hold = tree.services.app_store.hold("verify_receipt")
    submit(tree, 1)
    tree.advance(1)
    tree.system.pause()
    assert tree.system.in_flight().reserved == 0
    submit(tree, 2)
    tree.advance(60)
    tree.crash(IN_FLIGHT)
    tree.advance(60)
    assert (look(tree).state, tree.system.in_flight().in_flight) == (State.PAUSED, 1)
    hold.release()
    tree.advance(60)
    assert [result["user_id"] for result in tree.results()] == [1]
    assert tree.system.in_flight().idle_seconds == 0  # who waits for an operator is not idle
    tree.system.resume()
    tree.advance(1)
    assert [result["user_id"] for result in tree.results()] == [1, 2]
    assert look(tree).state is State.CONSUMING


def test_a_first_receive_that_takes_long_is_no_idle_time() -> None:
    services = FakeServices(SETTINGS)
    services.submit(services.app_store.sell("t-1"), user_id=1)
    hold = services.queues.hold("receive")
    tree = Tree(services=services)
    tree.advance(10 * 60)
    assert tree.system.in_flight().idle_seconds == 0
    hold.release()
    tree.advance(POLL_SECONDS)
    assert [result["user_id"] for result in tree.results()] == [1]
    tree.advance(POLL_SECONDS)
    assert tree.system.in_flight().idle_seconds >= POLL_SECONDS
    tree.close()


def test_a_pause_is_begun_without_a_wait(tree: Tree) -> None:
    """Receives that can't be interrupted go on; they are waited for until it is resumed, or in_flight has ended."""
    waiting: list[threading.Thread] = []

    def begin() -> None:
        waiting.append(threading.Thread(target=tree.system.begin_pause()))
        waiting[-1].start()

    with tree.services.queues.hold("receive") as hold:
        tree.advance(POLL_SECONDS)
        hold.wait_for_call()
        begin()
        assert look(tree).state is State.PAUSED
        assert tree.system.in_flight().reserved > 0
        tree.system.resume()
        waiting[-1].join(PATIENCE_SECONDS)
        assert tree.system.in_flight().reserved > 0
        begin()
        tree.kill(IN_FLIGHT)
    waiting[-1].join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in waiting)


def test_a_paused_system_drains(tree: Tree) -> None:
    tree.system.pause()
    assert tree.system.drain(5.0) == 0
    assert tree.system.overview().state is State.ENDED


def test_an_outage_lets_nothing_in_while_it_is_paused(tree: Tree) -> None:
    begin_outage(tree)
    tree.system.pause()
    submit(tree, 100)
    tree.services.recover()
    tree.advance(60)
    assert sorted(result["user_id"] for result in tree.results()) == list(range(10))


def test_a_system_that_has_ended_can_be_looked_at(tree: Tree) -> None:
    submit(tree)
    tree.advance(1)
    tree.system.drain(5.0)
    seen = tree.system.overview()
    assert (seen.state, seen.processes[0].tree) == (State.ENDED, None)
    assert seen.statistics.count("answered") == 1
    with pytest.raises(UnknownActor):
        tree.system.actor_state("in_flight")


def test_the_state_of_an_actor_is_told_without_secrets(tree: Tree) -> None:
    for name in actors(look(tree)):
        described = json.loads(json.dumps(tree.system.actor_state(name)))
        assert (described["name"], described["state"] is None) == (name, False)
    with pytest.raises(UnknownActor, match="nobody"):
        tree.system.actor_state("nobody")


def test_an_actor_that_does_not_answer_is_described_all_the_same(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receipt_actors.inspection.STATE_SECONDS", 0.01)
    over = threading.Event()
    monkeypatch.setattr(Consumer, "describe_state", lambda _consumer: {"was": over.wait(PATIENCE_SECONDS)})
    try:
        described = tree.system.actor_state("consumer-1")
    finally:
        over.set()
    assert described["state"] is None
    assert described["seen"]["is_receiving"] is True
    assert "has not answered" in described["why"]
    assert any("wait" in line for line in described["is_at"])


def test_a_suspended_actor_is_seen_as_one(tree: Tree) -> None:
    ref = tree.find(QUEUE_DEPTHS)
    otp_sys.suspend(ref)
    assert actors(look(tree))[QUEUE_DEPTHS].status == "suspended"
    otp_sys.resume(ref)


def test_the_crash_of_a_validator_is_told_with_its_message(tree: Tree) -> None:
    """A bug of a client, say: which message met it, where it was raised, and when the message comes again."""
    tree.services.app_store.fail("verify_receipt", ValueError("a bug"))
    submit(tree)
    tree.advance(1)
    (crash,) = look(tree).incidents
    assert (crash.kind, crash.summary) == ("crash", "Validator crashed while handling Reply: ValueError: a bug")
    assert crash.message_id is not None
    # Supervisor and in_flight learn of it at the same time: either may tell first.
    outcome, supervised = sorted(crash.story[-2:])
    assert outcome.startswith(f"message {crash.message_id}, received 1 times, is handed back and comes again")
    assert supervised == "validators: it is temporary and not restarted"


def test_an_outage_and_its_end_are_incidents(tree: Tree) -> None:
    begin_outage(tree)
    tree.services.recover()
    tree.advance(30)
    recovered, outage = look(tree).incidents
    assert [(each.kind, each.subject) for each in (outage, recovered)] == [
        ("outage", "ledger"),
        ("recovered", "ledger"),
    ]
    assert "down" in outage.summary


def test_an_answer_that_is_none_is_an_incident(tree: Tree) -> None:
    strange = AppStoreUnavailable("answered HTTP 200, but no JSON: '<html>'", is_unknown_answer=True)
    tree.services.app_store.fail("verify_receipt", strange)
    message_id = tree.services.submit(tree.services.app_store.sell("t-1"), user_id=1)
    tree.advance(10)
    (incident,) = look(tree).incidents
    assert (incident.kind, incident.subject, incident.message_id) == ("unknown_answer", "app_store", message_id)
    assert "<html>" in incident.summary
    assert len(tree.results()) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        ({"status": 31337}, "unknown_answer", "status 31337 is not documented"),
        ({"status": 21004}, "configuration", "check shared_secret"),
    ],
    ids=["unknown", "misconfigured"],
)
def test_what_apple_should_not_answer_is_an_incident(tree: Tree, answer: dict[str, int], kind: str, text: str) -> None:
    receipt = tree.services.app_store.sell("t-1")
    tree.services.app_store.script(receipt, answer)
    message_id = tree.services.submit(receipt, user_id=1)
    tree.advance(1)
    (incident,) = [each for each in look(tree).incidents if each.kind == kind]
    assert text in incident.summary
    assert (incident.subject, incident.message_id) == ("app_store", message_id)


def test_a_message_that_is_moved_is_an_incident(tree: Tree) -> None:
    message_id = tree.services.queues.put(SOURCE, "no JSON")
    tree.advance(1)
    (moved,) = look(tree).incidents
    assert (moved.kind, moved.subject, moved.message_id) == ("moved", "not_json", message_id)


def test_a_drain_that_gives_up_is_an_incident(tree: Tree) -> None:
    begin_outage(tree)
    assert tree.system.drain(5.0) == 10
    assert "abandoned" in [incident.kind for incident in tree.system.overview().incidents]


def test_a_message_can_be_followed(tree: Tree) -> None:
    events: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    ends: SimpleQueue[str] = SimpleQueue()
    control: SystemControl = tree.system
    control.trace(
        TraceRequest({"event": ["received", "verified", "answered"], "user_id": ["2"]}, 3), events.put, ends.put
    )
    submit(tree, 1)
    submit(tree, 2)
    tree.advance(1)
    assert ends.get(timeout=PATIENCE_SECONDS) == "limit"
    assert [events.get()["event"] for _ in range(3)] == ["received", "verified", "answered"]
    assert events.empty()


def test_the_end_of_the_system_is_the_end_of_a_trace(tree: Tree) -> None:
    ends: SimpleQueue[str] = SimpleQueue()
    tree.system.trace(TraceRequest({"event": ["received"]}), print, ends.put)
    with pytest.raises(TraceRefused):
        tree.system.trace(TraceRequest({"event": ["nonsense"]}), print, ends.put)
    tree.system.drain(5.0)
    assert ends.get(timeout=PATIENCE_SECONDS) == "system"
    with pytest.raises(TraceRefused):
        tree.system.trace(TraceRequest({"event": ["received"]}), print, ends.put)
