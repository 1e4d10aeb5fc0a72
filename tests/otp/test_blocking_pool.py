"""The pool for calls that block: bounded, no more threads than needed, none idle while work waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from receipt_actors.otp import ActorSystem, BlockingPool
from tests.otp.support import WAIT_SECONDS, Gate, Seen, raising


@pytest.fixture
def pool(no_threads_left: None) -> Iterator[BlockingPool]:
    pool = BlockingPool("io", 3)
    yield pool
    pool.close()
    assert pool.join(WAIT_SECONDS)


def test_it_runs_no_more_than_its_size_at_once(pool: BlockingPool) -> None:
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


def test_work_never_waits_while_a_thread_could_run_it(pool: BlockingPool) -> None:
    for _ in range(200):
        with ExitStack() as stack:
            gates = [stack.enter_context(Gate()) for _ in range(3)]
            for gate in gates:
                pool.submit(gate)
            for gate in gates:
                gate.wait_entered()


def test_close_finishes_what_waits(no_threads_left: None) -> None:
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


@pytest.mark.parametrize("size", [0, -1, 2.5, float("nan"), "3", True, None])
def test_a_pool_without_threads_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=f"pool 'io': size must be a whole number of threads, 1 or more, not {size!r}"):
        BlockingPool("io", size)


def test_work_that_raises_costs_no_thread(no_threads_left: None, caplog: pytest.LogCaptureFixture) -> None:
    pool, done = BlockingPool("io", 1), threading.Event()
    for _ in range(5):
        assert pool.submit(raising(SystemExit("work")))
    assert pool.submit(done.set)
    assert done.wait(WAIT_SECONDS)
    assert [record.getMessage() for record in caplog.records] == ["work in pool io failed"] * 5
    pool.close()
    assert pool.join(WAIT_SECONDS)


def test_work_that_no_thread_can_be_started_for_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    pool = BlockingPool("io", 2)
    start = threading.Thread.start
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(lambda: seen.put("never"))
        with Gate() as gate, monkeypatch.context() as patch:
            assert pool.submit(gate)
            gate.wait_entered()
            patch.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
            assert pool.submit(lambda: seen.put("later"))
            patch.setattr(threading.Thread, "start", start)
        assert seen.next() == "later"
        assert seen.rest() == []
    finally:
        pool.close()
        assert pool.join(WAIT_SECONDS)


def test_a_systems_own_pool_may_stop_it(no_threads_left: None) -> None:
    system = ActorSystem()
    pool = system.new_blocking_pool("io", 1)
    said = Seen()
    pool.submit(lambda: said.put((threading.current_thread(), system.stop())))
    thread, busy = said.next()
    assert busy == ["otp-io"]
    thread.join(WAIT_SECONDS)


def test_a_stopped_system_gives_no_pool() -> None:
    system = ActorSystem()
    system.stop()
    with pytest.raises(RuntimeError, match="actor system 'otp' has been stopped"):
        system.new_blocking_pool("io", 1)
