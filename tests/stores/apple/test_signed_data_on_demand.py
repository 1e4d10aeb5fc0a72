"""Verification that is opened when the first signed thing comes, and verification on threads."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.on_demand import SignedDataOnDemand
from receipt_actors.stores.apple.signatures.threads import SignedDataThreads
from receipt_actors.testing import FakeSignedData
from tests.patience import PATIENCE_SECONDS

TRANSACTION = SignedKind.TRANSACTION


class Calls(FakeSignedData):
    """What is opened; it says whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Opening:
    """Opens when a test lets it, and as often as it is asked; raises what it is given instead."""

    def __init__(self) -> None:
        self.calls = Calls()
        self.count = 0
        self.error: Exception | None = None
        self.may_go_on = threading.Event()

    def __call__(self) -> Calls:
        self.count += 1
        assert self.may_go_on.wait(PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        return self.calls


@pytest.fixture
def outcomes() -> queue.SimpleQueue[Any]:
    return queue.SimpleQueue()


def test_nothing_is_opened_before_something_signed_comes(outcomes: queue.SimpleQueue[Any]) -> None:
    """And then once, while who asked goes on."""
    opening = Opening()
    on_demand = SignedDataOnDemand(opening)
    assert opening.count == 0
    signed = [opening.calls.sell(str(number)) for number in range(3)]
    for each in signed:
        on_demand.begin(TRANSACTION, each, outcomes.put)  # returns, though nothing is open yet
    opening.may_go_on.set()
    found = [outcomes.get(timeout=PATIENCE_SECONDS) for _ in signed]
    assert [each["transactionId"] for each in found] == ["0", "1", "2"]
    on_demand.begin(TRANSACTION, signed[0], outcomes.put)
    assert outcomes.get(timeout=PATIENCE_SECONDS)["transactionId"] == "0"
    assert opening.count == 1
    on_demand.close()
    assert opening.calls.closed.is_set()


def test_who_waits_is_told_what_is_missing(outcomes: queue.SimpleQueue[Any]) -> None:
    """All of them; and it is tried again with the next one, for somebody may have put it right."""
    opening = Opening()
    opening.error = ConfigurationError(["found no library"])
    on_demand = SignedDataOnDemand(opening)
    for _ in range(3):
        on_demand.begin(TRANSACTION, "a.b.c", outcomes.put)
    opening.may_go_on.set()
    assert [outcomes.get(timeout=PATIENCE_SECONDS) for _ in range(3)] == [opening.error] * 3
    opening.error = None
    on_demand.begin(TRANSACTION, opening.calls.sell("7"), outcomes.put)
    assert outcomes.get(timeout=PATIENCE_SECONDS)["transactionId"] == "7"


def test_what_is_opened_too_late_is_closed(outcomes: queue.SimpleQueue[Any]) -> None:
    """The system has ended meanwhile; who waited is answered all the same."""
    opening = Opening()
    on_demand = SignedDataOnDemand(opening)
    on_demand.begin(TRANSACTION, opening.calls.sell("7"), outcomes.put)
    on_demand.close()
    on_demand.close()
    opening.may_go_on.set()
    assert outcomes.get(timeout=PATIENCE_SECONDS)["transactionId"] == "7"
    assert opening.calls.closed.wait(PATIENCE_SECONDS)


def test_threads_verify_either_kind(outcomes: queue.SimpleQueue[Any]) -> None:
    """While who asked goes on: each answer comes on another thread than the question."""
    apple = FakeSignedData()
    threads = SignedDataThreads(apple)
    asked = threading.current_thread()

    def done(outcome: object) -> None:
        outcomes.put((outcome, threading.current_thread() is asked))

    with apple.hold("verify_transaction"):
        threads.begin(TRANSACTION, apple.sell("7"), done)
        threads.begin(SignedKind.NOTIFICATION, "a.b.c", done)
        refused, on_thread_that_asked = outcomes.get(timeout=PATIENCE_SECONDS)
        assert isinstance(refused, SignatureRefused)
        assert not on_thread_that_asked
    verified, on_thread_that_asked = outcomes.get(timeout=PATIENCE_SECONDS)
    assert verified["transactionId"] == "7"
    assert not on_thread_that_asked
    threads.close()


def test_a_bug_is_told_to_who_asked(outcomes: queue.SimpleQueue[Any]) -> None:
    """The thread goes on."""
    apple = FakeSignedData()
    threads = SignedDataThreads(apple)
    apple.fail("verify_transaction", KeyError("bug"))
    threads.begin(TRANSACTION, apple.sell("7"), outcomes.put)
    assert isinstance(outcomes.get(timeout=PATIENCE_SECONDS), KeyError)
    threads.begin(TRANSACTION, apple.sell("8"), outcomes.put)
    assert outcomes.get(timeout=PATIENCE_SECONDS)["transactionId"] == "8"
    threads.close()


def test_closed_threads_say_so(outcomes: queue.SimpleQueue[Any]) -> None:
    """At once, and closing twice does nothing."""
    threads = SignedDataThreads(FakeSignedData())
    threads.close()
    threads.close()
    threads.begin(TRANSACTION, "a.b.c", outcomes.put)
    assert isinstance(outcomes.get_nowait(), AppStoreUnavailable)
