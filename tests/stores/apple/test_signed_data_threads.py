"""Verification on threads, which is opened when the first signed thing comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused, SignedData, SignedKind
from receipt_actors.stores.apple.signatures.process import SignedDataThreads
from receipt_actors.testing import FakeSignedData
from tests.patience import PATIENCE_SECONDS

TRANSACTION = SignedKind.TRANSACTION


class Opening:
    """Opens as often as it is called, or raises what it is given; counts."""

    def __init__(self) -> None:
        self.apple = FakeSignedData()
        self.count = 0
        self.error: Exception | None = None

    def __call__(self) -> SignedData:
        self.count += 1
        if self.error is not None:
            raise self.error
        return self.apple


@pytest.fixture
def opening() -> Opening:
    return Opening()


@pytest.fixture
def threads(opening: Opening) -> Iterator[SignedDataThreads]:
    with closing(SignedDataThreads(opening)) as threads:
        yield threads


@pytest.fixture
def outcomes() -> queue.SimpleQueue[Any]:
    return queue.SimpleQueue()


def test_either_kind_is_verified_on_a_thread_that_is_not_the_callers(
    opening: Opening, threads: SignedDataThreads, outcomes: queue.SimpleQueue[Any]
) -> None:
    """Nothing is opened before the first work, and then once; one that takes long does not hold up another."""
    asked = threading.current_thread()

    def done(outcome: object) -> None:
        outcomes.put((outcome, threading.current_thread() is asked))

    assert opening.count == 0
    with opening.apple.hold("verify_transaction"):
        threads.begin(TRANSACTION, opening.apple.sell("7"), done)
        threads.begin(SignedKind.NOTIFICATION, "a.b.c", done)
        refused, on_thread_that_asked = outcomes.get(timeout=PATIENCE_SECONDS)
        assert isinstance(refused, SignatureRefused)
        assert not on_thread_that_asked
    verified, on_thread_that_asked = outcomes.get(timeout=PATIENCE_SECONDS)
    assert verified["transactionId"] == "7"
    assert not on_thread_that_asked
    assert opening.count == 1


@pytest.mark.parametrize("error", [ConfigurationError(["found no library"]), KeyError("bug")])
def test_what_cannot_be_opened_is_the_outcome_and_is_tried_again(
    opening: Opening, threads: SignedDataThreads, outcomes: queue.SimpleQueue[Any], error: Exception
) -> None:
    """Of all work that waits; an operator may have put it right by the next one."""
    opening.error = error
    for _ in range(3):
        threads.begin(TRANSACTION, "a.b.c", outcomes.put)
    assert [outcomes.get(timeout=PATIENCE_SECONDS) for _ in range(3)] == [error] * 3
    opening.error = None
    threads.begin(TRANSACTION, opening.apple.sell("7"), outcomes.put)
    assert outcomes.get(timeout=PATIENCE_SECONDS)["transactionId"] == "7"


def test_closed_threads_say_so(opening: Opening, threads: SignedDataThreads, outcomes: queue.SimpleQueue[Any]) -> None:
    """At once; what was begun before is finished, and closing twice does nothing."""
    with opening.apple.hold("verify_transaction") as hold:
        threads.begin(TRANSACTION, opening.apple.sell("7"), outcomes.put)
        hold.wait_for_call()
        threads.close()
        threads.close()
        threads.begin(TRANSACTION, "a.b.c", outcomes.put)
        assert isinstance(outcomes.get_nowait(), AppStoreUnavailable)
    assert outcomes.get(timeout=PATIENCE_SECONDS)["transactionId"] == "7"
