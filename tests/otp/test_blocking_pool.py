"""The pool for calls that block: bounded, no more threads than needed, none idle while work waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from receipt_actors.otp import (
    ActorSystem,
    BlockingPool,
)
from tests.otp.support import (
    WAIT_SECONDS,
    Gate,
    Seen,
)


@pytest.fixture
def pool(no_threads_left: None) -> Iterator[BlockingPool]:
    pool = BlockingPool("io", 3)
    yield pool
    pool.close()
    assert pool.join(WAIT_SECONDS)


def test_it_runs_no_more_than_its_size_at_once(pool: BlockingPool) -> None:
    """Work beyond the size waits, first come first served."""
    started = Seen()
    with ExitStack() as stack:
        gates = [stack.enter_context(Gate()) for _ in range(3)]
        for gate in gates:
            pool.submit(gate)
        for gate in gates:
            gate.wait_entered()
        pool.submit(lambda: started.put(1))
        pool.submit(lambda: started.put(2))
        assert started.rest() == []
        gates[1].open()
        assert started.take(2) == [1, 2]


def test_it_reuses_an_idle_thread(pool: BlockingPool) -> None:
    """Work that comes when a thread has become free needs no further thread."""
    names = Seen()
    for _ in range(3):
        pool.submit(lambda: names.put(threading.current_thread().name))
        assert names.next() == "io-0"
        wait_until_idle(pool)


def wait_until_idle(pool: BlockingPool) -> None:
    """Wait until the only thread of the pool waits for work (there is no event for it that a user could see)."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not pool._idle:
        assert time.monotonic() < deadline


def test_work_never_waits_while_a_thread_could_run_it(pool: BlockingPool) -> None:
    """Whatever has gone on before, as many calls block at once as the size allows."""
    for _ in range(200):
        with ExitStack() as stack:
            gates = [stack.enter_context(Gate()) for _ in range(3)]
            for gate in gates:
                pool.submit(gate)
            for gate in gates:
                gate.wait_entered()


def test_close_finishes_what_waits(no_threads_left: None) -> None:
    """What was submitted before close is done; what comes later is dropped."""
    pool = BlockingPool("io", 1)
    done = Seen()
    with Gate() as gate:
        pool.submit(gate)
        gate.wait_entered()
        pool.submit(lambda: done.put("before"))
        pool.close()
        pool.close()
        pool.submit(lambda: done.put("after"))
        assert not pool.is_over
        assert not pool.join(0)
    assert pool.join(WAIT_SECONDS)
    assert pool.is_over
    assert done.rest() == ["before"]


def test_an_unused_pool_has_no_thread(no_threads_left: None) -> None:
    """Threads are made on demand."""
    pool = BlockingPool("io", 1000)
    pool.close()
    assert pool.is_over


@pytest.mark.parametrize("size", [0, -1])
def test_a_pool_without_threads_is_refused(size: int) -> None:
    """A pool that could never run anything is an error at once."""
    with pytest.raises(ValueError, match=f"pool 'io': size must be at least 1, not {size}"):
        BlockingPool("io", size)


def test_a_system_ends_the_pools_that_its_actors_left_open(no_threads_left: None) -> None:
    """Stopping the system ends idle pool threads too."""
    with ActorSystem() as system:
        pool = system.new_blocking_pool("io", 2)
        done = Seen()
        pool.submit(lambda: done.put(threading.current_thread().name))
        assert done.next() == "otp-io-0"
