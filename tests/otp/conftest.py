"""Fixtures of the OTP layer's tests: an actor system that leaves no thread behind, and both runtimes."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from receipt_actors.otp import ActorSystem, Runtime
from tests.otp.support import WAIT_SECONDS, Pooled, PooledTrapping, Threaded, ThreadedTrapping, WatchedClock


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_SECONDS)  # it may be about to end
    assert set(threading.enumerate()) - before == set()


class _Failures(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.CRITICAL)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def no_runtime_failures() -> Iterator[None]:
    """Fail when the runtime itself, not an actor, has raised an exception."""
    failures = _Failures()
    logger = logging.getLogger("receipt_actors.otp")
    logger.addHandler(failures)
    yield
    logger.removeHandler(failures)
    assert failures.messages == []


@pytest.fixture
def clock() -> WatchedClock:
    return WatchedClock()


@pytest.fixture
def system(clock: WatchedClock, no_threads_left: None) -> Iterator[ActorSystem]:
    """An actor system on a manual clock; all of its threads must end with it."""
    system = ActorSystem("test", clock)
    yield system
    assert system.stop() == []
    assert system.processes() == []
    assert system.registered() == {}


@pytest.fixture(params=list(Runtime), ids=lambda runtime: runtime.value)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    value: Runtime = request.param
    return value


@pytest.fixture
def server(runtime: Runtime) -> type[Pooled]:
    """A scripted actor that does not trap exits, of either runtime."""
    return Pooled if runtime is Runtime.POOLED else Threaded


@pytest.fixture
def trapping(runtime: Runtime) -> type[Pooled]:
    """A scripted actor that traps exits, of either runtime."""
    return PooledTrapping if runtime is Runtime.POOLED else ThreadedTrapping


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
