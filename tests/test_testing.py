"""The public fakes beyond the ports' contracts: their clock, their faults, and how a test waits for actors."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from receipt_actors import Settings
from receipt_actors.application import HAND_BACK_SECONDS
from receipt_actors.domain.ports import EntryFailure, Environment, OutgoingMessage
from receipt_actors.errors import LedgerUnavailable, QueueUnavailable
from receipt_actors.otp import ActorSystem, GenServer
from receipt_actors.receipt_system import ReceiptSystem
from receipt_actors.testing import (
    FakeAppStore,
    FakeQueues,
    FakeServices,
    FaultRates,
    FaultyCalls,
    ManualClock,
    SentSubmission,
    advance,
    genuine,
    receipt_data_of,
    settle,
    wait_until,
)
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def queues(clock: ManualClock) -> FakeQueues:
    queues = FakeQueues(clock)
    queues.create_queue("q", "dead", max_receive_count=2)
    return queues


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def actors(clock: ManualClock) -> Iterator[ActorSystem]:
    with ActorSystem("test", clock) as system:
        yield system


def receive(queues: FakeQueues, *, wait: float = 0, visibility: int = 30) -> list[str]:
    messages = queues.receive("q", max_messages=10, wait_seconds=wait, visibility_timeout_seconds=visibility)
    return [message.body for message in messages]


def send(*bodies: str) -> list[OutgoingMessage]:
    return [OutgoingMessage(body) for body in bodies]


def until(predicate: Callable[[], object], queues: FakeQueues) -> None:
    """Wait for a thread of this test; no actor is there to be settled."""
    with ActorSystem() as system:
        wait_until(lambda: bool(predicate()), system)


def test_a_long_poll_ends_on_the_clock(queues: FakeQueues, clock: ManualClock, threads: ThreadPoolExecutor) -> None:
    poll = threads.submit(receive, queues, wait=20)
    until(queues.standing_threads, queues)
    clock.advance(19.5)
    assert not poll.done()
    clock.advance(0.5)
    assert poll.result(timeout=PATIENCE_SECONDS) == []


def test_a_long_poll_gets_what_comes_meanwhile(
    queues: FakeQueues, clock: ManualClock, threads: ThreadPoolExecutor
) -> None:
    poll = threads.submit(receive, queues, wait=20, visibility=5)
    until(queues.standing_threads, queues)
    queues.send("q", send("new"))
    assert poll.result(timeout=PATIENCE_SECONDS) == ["new"]

    poll = threads.submit(receive, queues, wait=20)
    until(queues.standing_threads, queues)
    clock.advance(5)
    assert poll.result(timeout=PATIENCE_SECONDS) == ["new"]

    poll = threads.submit(receive, queues, wait=20)
    until(queues.standing_threads, queues)
    queues.interrupt()
    assert poll.result(timeout=PATIENCE_SECONDS) == []


def test_calls_fail_as_often_as_ordered(queues: FakeQueues) -> None:
    queues.fail("send", QueueUnavailable("500"), times=2)
    queues.fail("send", QueueUnavailable("503"))
    for status in ("500", "500", "503"):
        with pytest.raises(QueueUnavailable, match=status):
            queues.send("q", send("body"))
    assert queues.messages("q") == []
    assert queues.send("q", send("body")) == [None]
    assert queues.count("send") == 4
    queues.lose_answer("send", QueueUnavailable("time-out"))  # that one is carried out
    with pytest.raises(QueueUnavailable, match="time-out"):
        queues.send("q", send("lost"))
    assert [message.body for message in queues.messages("q")] == ["body", "lost"]


@pytest.mark.parametrize("carried_out", [False, True])
def test_entries_fail_alone(queues: FakeQueues, carried_out: bool) -> None:
    failure = EntryFailure("InternalError", "", sender_fault=False)
    queues.fail_entries("send", befalls=lambda message: message.body == "b", failure=failure, carried_out=carried_out)
    assert queues.send("q", send("a", "b", "c")) == [None, failure, None]
    assert [message.body for message in queues.messages("q")] == (["a", "b", "c"] if carried_out else ["a", "c"])


@pytest.mark.parametrize("after", [False, True])
def test_held_calls_stand_still(queues: FakeQueues, threads: ThreadPoolExecutor, after: bool) -> None:
    with (queues.hold_answer if after else queues.hold)("send") as hold:
        call = threads.submit(queues.send, "q", send("body"))
        hold.wait_for_call()
        assert not call.done()
        assert len(queues.messages("q")) == int(after)
        assert len(queues.standing_threads()) == 1
    assert call.result(timeout=PATIENCE_SECONDS) == [None]
    assert queues.send("q", send("next")) == [None]
    assert queues.standing_threads() == set()


def test_a_corrupt_delivery_has_another_md5(queues: FakeQueues) -> None:
    queues.put("q", "body")
    queues.corrupt_next()
    assert receive(queues, visibility=0) == ["bod"]
    assert receive(queues) == ["body"]


def test_events_tell_what_was_carried_out(queues: FakeQueues) -> None:
    message_id = queues.put("q", "body")
    (message,) = queues.receive("q", max_messages=1, wait_seconds=0, visibility_timeout_seconds=30)
    queues.change_visibility("q", [(message.receipt_handle, 60)])
    queues.fail("delete", QueueUnavailable("500"))
    with pytest.raises(QueueUnavailable):
        queues.delete("q", [message.receipt_handle])
    queues.delete("q", [message.receipt_handle])
    assert [(event.operation, event.seconds) for event in queues.events] == [
        ("send", None),
        ("receive", 30),
        ("change_visibility", 60),
        ("delete", None),
    ]
    assert {event.message_id for event in queues.events} == {message_id}


def test_a_script_is_followed(clock: ManualClock) -> None:
    store = FakeAppStore()
    receipt = receipt_data_of("r")
    store.script(receipt, {"status": 21005}, LedgerUnavailable("odd"), genuine("1"))
    assert store.verify_receipt(receipt, Environment.PRODUCTION) == {"status": 21005}
    with pytest.raises(LedgerUnavailable):
        store.verify_receipt(receipt, Environment.SANDBOX)
    for _ in range(2):
        assert store.verify_receipt(receipt, Environment.PRODUCTION) == genuine("1")
    assert (store.requests(receipt), store.requests(receipt, Environment.SANDBOX)) == (4, 1)


class Relay(GenServer):
    def init(self) -> None:
        self.reached: list[tuple[int, float]] = []

    def handle_cast(self, request: Any) -> None:
        self.reached.append((request, self.clock.monotonic()))
        if request > 0:
            self.ref.cast(request - 1)

    def handle_info(self, message: Any) -> None:
        self.reached.append((message, self.clock.monotonic()))
        if message > 0:
            self.send_after(1.0, message - 1)

    def handle_call(self, request: Any, _from: Any) -> Any:
        return list(self.reached)


def test_settle_waits_for_every_hop(actors: ActorSystem) -> None:
    relay = actors.start(Relay)
    relay.cast(500)
    settle(actors)
    assert relay.call("reached")[-1] == (0, 0.0)


def test_advance_lets_actors_react_at_each_timer(clock: ManualClock) -> None:
    services = FakeServices(Settings(backend="aws", bundle_ids=("*",)), clock)
    with ActorSystem("test", clock) as actors:
        relay = actors.start(Relay)
        relay.send(3)
        services.advance(10.0, actors)
        assert relay.call("reached") == [(3, 0.0), (2, 1.0), (1, 2.0), (0, 3.0)]
        assert clock.monotonic() == 10.0


def test_advance_notices_that_time_does_not_pass(
    clock: ManualClock, actors: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(GenServer):
        def handle_info(self, message: Any) -> None:
            self.send_after(0, message)

    monkeypatch.setattr("receipt_actors.testing._settling.MAX_TIMERS_AT_ONCE", 20)
    actors.start(Busy).send("go")
    with pytest.raises(TimeoutError, match="does not pass"):
        advance(clock, 1.0, actors)


def test_services_sell_signed_transactions() -> None:
    services = FakeServices(Settings(backend="aws", bundle_ids=("com.example.game",)))
    signed = services.signed_data.sell("2000001", type="Non-Consumable")
    with services.start() as system:
        services.submit(signed, user_id=7)
        services.settle(system.actors)
        services.submit(signed, user_id=8)
        services.submit("eyJh.eyJi.c2ln", user_id=9)
        services.settle(system.actors)
        services.advance(1, system.actors)
    assert services.results() == [
        {"user_id": 7, "transaction_id": "2000001", "status": "OK"},
        {"user_id": 8, "transaction_id": "2000001", "status": "INVALID"},
    ]
    assert len(services.queues.messages(services.dead_letter_queue)) == 1


def test_services_know_transactions_by_their_ids() -> None:
    settings = Settings(
        backend="aws",
        bundle_ids=("com.example.game",),
        app_receipts="server-api",
        server_api_key="-----BEGIN PRIVATE KEY----- that is not looked at",
        server_api_key_id="K1",
        server_api_issuer_id="I1",
    )
    services = FakeServices(settings)
    faulty = FaultyCalls(FaultRates(), {"get_transaction_info": FaultRates(refused=0.5)}, seed=1)
    with services.start(faulty) as system:
        for number in range(8):
            services.submit(services.server_api.sell(str(number)), user_id=number)
        services.submit(services.server_api.receipt_of("nobody-s"), user_id=99)
        for _ in range(300):  # who meets too many faults is handed back, and comes again after some minutes
            services.advance(60, system.actors)
            if len(services.results()) == 8 and services.queues.messages(services.dead_letter_queue):
                break
    assert [(result["transaction_id"], result["status"]) for result in services.results()].count(("0", "OK")) == 1
    assert {result["status"] for result in services.results()} == {"OK"}
    assert len(services.results()) == 8
    assert len(services.queues.messages(services.dead_letter_queue)) == 1
    assert faulty.happened["get_transaction_info", "refused"] > 0


def test_the_example_of_chaos_in_the_manual_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(Path(__file__).parents[1] / "doc" / "examples" / "chaos.py"), run_name="__main__")
    assert "300 submissions" in capsys.readouterr().out


def test_services_audit_themselves() -> None:
    services = FakeServices(Settings(backend="aws", bundle_ids=("com.example.game",)))
    services.submit(services.app_store.sell("t-1"), 1, submission_id="honest")
    services.submit("bm8gcmVjZWlwdA==", 2, submission_id="forger")
    with services.start() as system:
        services.advance(60, system.actors)  # what Apple calls malformed is tried again for a while
    services.submit(services.app_store.sell("t-2"), 3, submission_id="late")
    honest, forger = SentSubmission("honest", 1, frozenset({"t-1"})), SentSubmission("forger", 2)
    report = services.audit([honest, forger, SentSubmission("late", 3, frozenset({"t-2"}))])
    assert (report.faults, report.answered, report.dead_lettered) == ((), 1, 1)
    assert services.audit([forger]).faults != ()


class TestTheEndOfASystemOnFakes:
    @pytest.fixture
    def services(self) -> FakeServices:
        return FakeServices(Settings(backend="aws", bundle_ids=("com.example.game",)))

    def test_what_waits_for_a_clock_that_stands_still_is_not_waited_for(
        self, services: FakeServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drains: list[float | None] = []
        drain = ReceiptSystem.drain
        monkeypatch.setattr(
            ReceiptSystem, "drain", lambda self, seconds=None: (drains.append(seconds), drain(self, seconds))[1]
        )
        receipt = services.app_store.sell("1")
        services.ledger.fail("claim", LedgerUnavailable("time-out"))
        with services.start() as system:
            services.submit(receipt)
            services.settle(system.actors)
            assert services.results() == []  # the retry pauses
        assert drains == [HAND_BACK_SECONDS]
        assert len(services.queues.messages(services.settings.source_queue)) == 1
