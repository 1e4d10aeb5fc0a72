"""A thread of the runtime that can't go on: the system fails, and everybody who waits for it learns so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from receipt_actors.otp import ActorSystem, Crash, Down, Heartbeat, NoProgress, Ref, SystemClock, _scheduler
from receipt_actors.otp import _system as heartbeat_module
from tests.otp.support import WAIT_SECONDS, Pooled, Seen, Threaded, exit_reason_of, run_in
from tests.otp.test_interruptions import Name
from tests.otp.test_pollers import Pipe

TICK_SECONDS = 0.02


class Exhausted:
    def __init__(self) -> None:
        self.has_memory = True
        self.epolls: list[Exhausted] = []

    def __call__(self) -> _Epoll:
        return _Epoll(self)


class _Epoll:
    def __init__(self, machine: Exhausted) -> None:
        self._machine = machine
        self._epoll = _real_epoll()
        self.register, self.unregister, self.close = self._epoll.register, self._epoll.unregister, self._epoll.close

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        if not self._machine.has_memory:
            raise MemoryError
        return self._epoll.poll(seconds)


_real_epoll = _scheduler.select.epoll


@pytest.fixture(autouse=True)
def no_runtime_failures() -> None:
    """Here they are wanted."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Exhausted:
    machine = Exhausted()
    monkeypatch.setattr(_scheduler, "select", SimpleNamespace(epoll=machine, EPOLLIN=_scheduler.select.EPOLLIN))
    return machine


@pytest.fixture
def doomed(no_threads_left: None) -> Iterator[ActorSystem]:
    with ActorSystem("test") as system:
        yield system


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def watched(ref: Ref) -> Seen:
    seen = Seen()
    ref.process.add_monitor(seen.put)
    return seen


def test_a_scheduler_without_memory_ends_the_whole_system(
    doomed: ActorSystem, machine: Exhausted, pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    pooled, threaded = doomed.start(Pooled), doomed.start(Threaded)
    ends = [watched(pooled), watched(threaded)]
    run_in(pooled, lambda _actor: doomed.scheduler.attach(pipe))
    machine.has_memory = False
    caplog.set_level(logging.CRITICAL)
    pooled.cast(lambda _actor: None)  # the thread polls then
    for end in ends:
        down = end.next()
        assert isinstance(down, Down)
        assert isinstance(down.reason, Crash)
        assert isinstance(down.reason.exception, MemoryError)
    assert "has failed" in caplog.text
    assert pipe.seen.next()[0] == "stopped"
    with pytest.raises(RuntimeError, match="MemoryError"):
        doomed.start(Pooled)
    assert doomed.stop() == []


def test_a_thread_that_is_stuck_ends_the_system(doomed: ActorSystem) -> None:
    is_blocked, may_go_on = threading.Event(), threading.Event()

    def block(_actor: object) -> None:
        is_blocked.set()
        may_go_on.wait(WAIT_SECONDS)

    pooled, other = doomed.start(Pooled), doomed.start(Pooled)
    end = watched(other)
    heartbeat = Heartbeat(doomed, tick_seconds=TICK_SECONDS, max_missed_ticks=3)
    pooled.cast(block)
    assert is_blocked.wait(WAIT_SECONDS)
    reason = end.next().reason
    may_go_on.set()
    assert isinstance(reason.exception, NoProgress)
    assert "in block" in str(reason.exception)
    heartbeat.stop()


def test_a_system_ends_where_no_thread_can_be_started(doomed: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    pooled, other = doomed.start(Pooled), doomed.start(Pooled)
    end = watched(other)
    heartbeat = Heartbeat(doomed, tick_seconds=TICK_SECONDS, max_missed_ticks=3)
    monkeypatch.setattr(threading.Thread, "start", _no_memory)
    pooled.cast(lambda _actor: may_go_on.wait(WAIT_SECONDS))
    assert isinstance(end.next().reason.exception, NoProgress)
    may_go_on.set()
    heartbeat.stop()


def test_a_dead_timer_thread_ends_the_system(doomed: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    has_died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _args: has_died.set())
    assert isinstance(doomed.clock, SystemClock)
    end = watched(doomed.start(Pooled))
    monkeypatch.setattr(doomed.clock._timers, "pop_due", _no_memory)
    doomed.clock.call_later(0.0, lambda: None)
    assert has_died.wait(WAIT_SECONDS)
    Heartbeat(doomed, tick_seconds=TICK_SECONDS, max_missed_ticks=3)
    assert isinstance(end.next().reason.exception, NoProgress)


def _no_memory(_of_whatever: object) -> None:
    raise MemoryError


def test_a_lock_that_is_never_free_ends_the_heartbeat_with_an_error(
    doomed: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, is_held, may_go_on = Seen(), threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.put(args.exc_type))

    def hold(_actor: object) -> None:
        with doomed.lock:
            is_held.set()
            may_go_on.wait(WAIT_SECONDS)

    pooled = doomed.start(Pooled)
    heartbeat = Heartbeat(doomed, tick_seconds=TICK_SECONDS, max_missed_ticks=2)
    pooled.cast(hold)
    assert is_held.wait(WAIT_SECONDS)
    assert seen.next() is NoProgress
    may_go_on.set()
    heartbeat.stop()


def test_a_system_that_works_is_left_alone(system: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    beats = Seen()
    send_beat = Heartbeat._send_beat

    def counted(heartbeat: Heartbeat) -> heartbeat_module._Beat:
        beats.put("beat")
        return send_beat(heartbeat)

    monkeypatch.setattr(Heartbeat, "_send_beat", counted)
    heartbeat = Heartbeat(system, tick_seconds=TICK_SECONDS)
    for _ in range(10):
        assert beats.next() == "beat"
    assert not system.is_stopped
    heartbeat.stop()


def test_an_actor_that_cannot_be_ended_keeps_no_other_alive(doomed: ActorSystem) -> None:
    other, name = Name(), Name()
    oldest = doomed.start(Pooled, name=other)  # all names of this kind are compared with it first
    doomed.start(Pooled, name=name)

    def broken() -> None:
        raise ZeroDivisionError

    other.on_compare = broken
    error = MemoryError()
    with pytest.raises(ZeroDivisionError):
        doomed.fail(error)
    assert exit_reason_of(oldest) == Crash(error)
