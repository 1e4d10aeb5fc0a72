"""Chaos around the ports: the faults that were ordered happen, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from receipt_actors import Settings
from receipt_actors.domain.ports import TAKEN, EntryFailure, Environment, LedgerItem, OutgoingMessage
from receipt_actors.errors import AppStoreUnavailable, LedgerUnavailable, QueueUnavailable
from receipt_actors.testing import CrashPoint, FakeServices, FaultRates, FaultyCalls, PortCall, intercept

SETTINGS = Settings(backend="aws", bundle_ids=("com.example.game",))
SOURCE = SETTINGS.source_queue
ITEM = LedgerItem("t-1", "s-1", "m-1", 7, "ab" * 32, None, None, Environment.PRODUCTION, SOURCE, "R", 1.7e9)


@pytest.fixture
def services() -> FakeServices:
    return FakeServices(SETTINGS)


def send(services: FakeServices, faults: FaultyCalls, count: int = 10) -> list[bool]:
    outcomes = intercept(services.backend, faults).queues.send(SOURCE, [OutgoingMessage("x") for _ in range(count)])
    return [outcome is None for outcome in outcomes]


def test_a_call_without_a_fault_reaches_the_client_as_it_is(services: FakeServices) -> None:
    backend = intercept(services.backend, FaultyCalls(FaultRates()))
    receipt = services.app_store.sell("t-1")
    assert backend.app_store.verify_receipt(receipt, Environment.PRODUCTION)["status"] == 0
    assert backend.ledger.get("t-1") is None
    assert backend.ledger.claim(ITEM) is None
    assert backend.ledger.claim_all([ITEM, replace(ITEM, transaction_id="t-2")]) == [TAKEN, None]
    backend.ledger.check()
    assert backend.queues.dead_letter_queue(SOURCE) == services.dead_letter_queue
    assert backend.queues.send(SOURCE, [OutgoingMessage("x")]) == [None]
    assert backend.queues.approximate_number_of_messages(SOURCE) == 1
    (message,) = backend.queues.receive(SOURCE, max_messages=1, wait_seconds=0, visibility_timeout_seconds=30)
    assert backend.queues.change_visibility(SOURCE, [(message.receipt_handle, 60)]) == [None]
    assert services.queues.messages(SOURCE)[0].hidden_for_seconds == 60
    assert backend.queues.delete(SOURCE, [message.receipt_handle]) == [None]
    assert services.queues.messages(SOURCE) == []


@pytest.mark.parametrize(("rates", "arrives"), [(FaultRates(refused=1), 0), (FaultRates(lost=1), 1)])
def test_a_refused_call_does_nothing_and_a_lost_one_did_it(
    services: FakeServices, rates: FaultRates, arrives: int
) -> None:
    backend = intercept(services.backend, FaultyCalls(rates))
    with pytest.raises(QueueUnavailable):
        backend.queues.send(SOURCE, [OutgoingMessage("x")])
    with pytest.raises(LedgerUnavailable):
        backend.ledger.get("t-1")
    with pytest.raises(AppStoreUnavailable):
        backend.app_store.verify_receipt("x", Environment.PRODUCTION)
    assert len(services.queues.messages(SOURCE)) == arrives


@pytest.mark.parametrize("carried_out", [False, True])
def test_entries_of_a_batch_fail_alone(services: FakeServices, carried_out: bool) -> None:
    faults = FaultyCalls(FaultRates(unconfirmed_entries=1) if carried_out else FaultRates(failed_entries=1))
    confirmed = send(services, faults)
    assert set(confirmed) == {True, False}
    assert len(services.queues.messages(SOURCE)) == (10 if carried_out else sum(confirmed))
    items = [replace(ITEM, transaction_id=str(number)) for number in range(10)]
    outcomes = intercept(services.backend, faults).ledger.claim_all(items)
    failures = [outcome for outcome in outcomes if isinstance(outcome, EntryFailure)]
    assert 0 < len(failures) < 10
    assert len(services.ledger.items) == (10 if carried_out else 10 - len(failures))


def test_what_is_delivered_twice_can_be_received_again_at_once(services: FakeServices) -> None:
    services.queues.put(SOURCE, "x")
    queues = intercept(services.backend, FaultyCalls(FaultRates(delivered_twice=1))).queues
    ids = [
        message.message_id
        for _ in range(2)
        for message in queues.receive(SOURCE, max_messages=1, wait_seconds=0, visibility_timeout_seconds=30)
    ]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_the_same_seed_draws_the_same_faults(services: FakeServices) -> None:
    rates = FaultRates(failed_entries=0.3, unconfirmed_entries=0.3)
    first, second, other = (FaultyCalls(rates, seed=seed) for seed in (1, 1, 2))
    runs = [[send(services, faults) for _ in range(20)] for faults in (first, second, other)]
    assert runs[0] == runs[1] != runs[2]
    assert first.happened == second.happened
    assert set(first.happened) == {("send", "failed_entries"), ("send", "unconfirmed_entries")}
    first.calm()
    assert all(send(services, first))


def test_rates_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="together at most 1"):
        FaultRates(refused=0.6, lost=0.6)
    with pytest.raises(ValueError, match="from 0 to 1"):
        FaultRates(lost=-0.1)


@pytest.mark.parametrize(("after", "arrived"), [(False, 1), (True, 2)])
def test_a_crash_point_dies_at_its_step(services: FakeServices, after: bool, arrived: int) -> None:
    class Died(Exception):
        pass

    def die() -> None:
        raise Died

    point = CrashPoint("send", 2, after=after, crash=die)
    queues = intercept(services.backend, point).queues
    queues.send(SOURCE, [OutgoingMessage("x")])
    with pytest.raises(Died):
        queues.send(SOURCE, [OutgoingMessage("x")])
    assert len(services.queues.messages(SOURCE)) == arrived
    assert point.steps == [("send", 1), ("send", 2)]


def test_any_function_can_stand_around_the_calls(services: FakeServices) -> None:
    seen: list[tuple[str, str | None, int]] = []

    def watch(call: PortCall) -> object:
        seen.append((call.operation, call.queue, len(call.entries or ())))
        return call.carry_out()

    intercept(services.backend, watch).queues.send(SOURCE, [OutgoingMessage("x")] * 3)
    assert seen == [("send", SOURCE, 3)]
