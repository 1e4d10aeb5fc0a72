"""The gate of an SQLite file: who is woken by what, and that somebody always looks for what nobody here did."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from receipt_actors.sqlite.gate import Gate
from tests.patience import PATIENCE_SECONDS

TELL_SECONDS = 0.02  #: much less than until somebody looks
LONG_SECONDS = 600.0  #: nobody waits so long: a test that does has failed


class Waiters:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.gate = Gate()
        self.pool = pool
        self.waiting: list[Future[None]] = []

    def wait(
        self, queue: str, seconds: float = LONG_SECONDS, known: object = None, look: Callable[[], object] = lambda: None
    ) -> Future[None]:
        """Have a thread wait; returns when it does."""
        is_in = threading.Event()

        def wait() -> None:
            with self.gate:
                is_in.set()
                self.gate.wait(queue, seconds, known, look)

        future = self.pool.submit(wait)
        self.waiting.append(future)
        assert is_in.wait(PATIENCE_SECONDS)
        with self.gate:  # it waits by now, or the gate would not be free
            return future

    def tell(self, *queues: str) -> None:
        with self.gate:
            for queue in queues:
                self.gate.tell(queue)


@pytest.fixture
def waiters() -> Iterator[Waiters]:
    with ThreadPoolExecutor(8) as pool:
        waiters = Waiters(pool)
        yield waiters
        with waiters.gate:
            waiters.gate.tell_all()


def test_a_change_wakes_those_who_wait_for_that_queue(waiters: Waiters) -> None:
    assert [waiters.wait(queue, 0.01).result(PATIENCE_SECONDS) for queue in "ab"] == [None, None]
    first, second, other = waiters.wait("a"), waiters.wait("a"), waiters.wait("b")
    waiters.tell("a", "nobody waits for this one")
    for told in (first, second):
        assert told.result(PATIENCE_SECONDS) is None
    assert not other.done()
    waiters.tell("b")
    assert other.result(PATIENCE_SECONDS) is None


@pytest.mark.parametrize("leaving", [("a",), ("a", "b"), ("b", "a")])
def test_there_is_always_a_lookout(waiters: Waiters, leaving: tuple[str, ...]) -> None:
    looks = threading.Event()
    for queue in ("a", "b"):
        waiters.wait(queue)
    waiters.wait("c", look=looks.set)
    waiters.tell(*leaving)
    if len(leaving) == 1:
        waiters.tell("b")
    assert looks.wait(PATIENCE_SECONDS)


def test_somebody_looks_however_often_the_lookouts_are_told(waiters: Waiters) -> None:
    looks, is_over = threading.Event(), threading.Event()

    def receive() -> None:
        while not is_over.is_set():
            with waiters.gate:
                waiters.gate.wait("busy", LONG_SECONDS, None, looks.set)

    receivers = [waiters.pool.submit(receive) for _ in range(4)]
    waiters.wait("quiet", look=looks.set)
    for _ in range(int(PATIENCE_SECONDS / TELL_SECONDS)):
        if looks.wait(TELL_SECONDS):
            break
        waiters.tell("busy")
    is_over.set()
    while not all(receiver.done() for receiver in receivers):
        waiters.tell("busy")
    assert looks.is_set()


def test_what_the_lookout_meets_everybody_meets(waiters: Waiters) -> None:
    class Gone(Exception):
        pass

    is_there = threading.Event()

    def look() -> None:
        if is_there.is_set():
            raise Gone

    lookout, other = waiters.wait("a", look=look), waiters.wait("b")
    is_there.set()
    assert other.result(PATIENCE_SECONDS) is None
    assert isinstance(lookout.exception(PATIENCE_SECONDS), Gone)
