"""The gate of an SQLite file: who is woken by what, and that each thread looks for what no thread here did."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from receipt_actors.sqlite import gate
from tests.patience import PATIENCE_SECONDS

LONG_SECONDS = 600.0  #: nobody waits so long: a test that does has failed


class Waiters:
    """Threads that wait at a gate."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.gate = gate.Gate()
        self._pool = pool

    def wait(self, queue: str) -> Future[None]:
        """Have a thread wait; returns when it does."""
        is_in = threading.Event()

        def wait() -> None:
            with self.gate:
                is_in.set()
                self.gate.wait(queue, LONG_SECONDS)

        future = self._pool.submit(wait)
        assert is_in.wait(PATIENCE_SECONDS)
        with self.gate:  # it waits by now, or the gate would not be free
            return future


@pytest.fixture
def waiters() -> Iterator[Waiters]:
    with ThreadPoolExecutor(8) as pool:
        waiters = Waiters(pool)
        yield waiters
        with waiters.gate:
            waiters.gate.tell_all()


def test_a_change_wakes_those_who_wait_for_that_queue(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LOOK_SECONDS", LONG_SECONDS)
    first, second, other = waiters.wait("a"), waiters.wait("a"), waiters.wait("b")
    with waiters.gate:
        waiters.gate.tell("a")
        waiters.gate.tell("nobody waits for this one")
    for told in (first, second):
        assert told.result(PATIENCE_SECONDS) is None
    assert not other.done()


def test_each_looks_in_time_however_many_wait(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more there are, the longer each waits: together they look no more often."""
    monkeypatch.setattr(gate, "LOOK_SECONDS", 0.001)
    assert waiters.wait("a").result(PATIENCE_SECONDS) is None
    monkeypatch.setattr(gate, "LOOKS_PER_SECOND", 1 / LONG_SECONDS)
    slow = [waiters.wait("a"), waiters.wait("b")]
    assert not any(waiting.done() for waiting in slow)
