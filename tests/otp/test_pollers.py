"""Pollers: a scheduler waits for the outside world where no actor has anything to do; neither holds up the other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from receipt_actors.otp import ActorSystem, Ref, Runtime
from tests.otp.support import WAIT_SECONDS, Pooled, Seen, Threaded, run_in
from tests.otp.test_fork import in_child


class Pipe:
    """A poller of a pipe: it tells what it reads, and on which thread."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self.seen = Seen()
        self.due: float | None = None
        self.on_poll: Callable[[], object] = lambda: None
        self.has_stopped = False
        self._is_closed = False

    def write(self, data: bytes) -> None:
        os.write(self._writer, data)

    def fileno(self) -> int:
        return self._reader

    def due_at(self) -> float | None:
        return self.due

    def poll(self) -> None:
        is_due, self.due = self.due is not None, None
        self.on_poll()
        self.seen.put(("due" if is_due else os.read(self._reader, 1), threading.current_thread().name))

    def stop(self) -> None:
        self.has_stopped = True
        self.seen.put(("stopped", threading.current_thread().name))

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            os.close(self._reader)
            os.close(self._writer)


@pytest.fixture(autouse=True)  # there before the system, and after it
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def actor(pipe: Pipe, system: ActorSystem) -> Ref:
    actor = system.start(Pooled)
    run_in(actor, lambda _actor: system.scheduler.attach(pipe))
    return actor


def _echo(number: int, _actor: object) -> int:
    return number


def test_it_is_polled_when_there_is_something_to_read(actor: Ref, pipe: Pipe) -> None:
    pipe.write(b"a")
    assert pipe.seen.next() == (b"a", "test-scheduler")
    pipe.write(b"b")
    assert pipe.seen.next() == (b"b", "test-scheduler")


def test_it_is_polled_at_its_time(actor: Ref, pipe: Pipe) -> None:
    pipe.on_poll = lambda: setattr(pipe, "due", time.monotonic() + 0.01)
    pipe.write(b"a")
    assert pipe.seen.take(3) == [(b"a", "test-scheduler"), ("due", "test-scheduler"), ("due", "test-scheduler")]
    pipe.on_poll = lambda: None


@pytest.mark.parametrize("runtime", Runtime)
def test_a_message_wakes_the_scheduler(system: ActorSystem, actor: Ref, runtime: Runtime) -> None:
    for number in range(200):
        assert run_in(actor, partial(_echo, number)) == number
    other = system.start(Threaded if runtime is Runtime.THREAD else Pooled)
    assert run_in(other, lambda _actor: "heard") == "heard"


def test_busy_actors_do_not_keep_it_from_being_polled(system: ActorSystem, actor: Ref, pipe: Pipe) -> None:
    polled = threading.Event()
    pipe.on_poll = polled.set

    def go_round(this: Pooled) -> None:
        if not polled.is_set():
            this.ref.cast(lambda actor: go_round(actor))

    run_in(actor, go_round)
    pipe.write(b"a")
    assert polled.wait(WAIT_SECONDS)


def test_a_busy_poller_does_not_keep_actors_from_running(actor: Ref, pipe: Pipe) -> None:
    pipe.on_poll = lambda: setattr(pipe, "due", 0.0)
    pipe.write(b"a")
    pipe.seen.next()
    assert run_in(actor, lambda _actor: "heard") == "heard"
    pipe.on_poll = lambda: None


@pytest.mark.parametrize("where", ["poll", "due_at", "poll, after its descriptor was closed"])
def test_a_poller_that_fails_is_polled_no_more(
    actor: Ref, pipe: Pipe, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        if "closed" in where:
            pipe.close()
        raise ZeroDivisionError

    if where == "due_at":
        pipe.due_at = fail  # type: ignore[method-assign]
    else:
        pipe.on_poll = fail
        pipe.write(b"a")
    while "poller Pipe failed" not in caplog.text:
        assert run_in(actor, lambda _actor: "heard") == "heard"
    assert pipe.seen.rest() == []


def test_a_poller_that_is_detached_is_left_alone(system: ActorSystem, actor: Ref, pipe: Pipe) -> None:
    run_in(actor, lambda _actor: system.scheduler.detach(pipe))
    run_in(actor, lambda _actor: system.scheduler.detach(pipe))
    pipe.write(b"a")
    assert run_in(actor, lambda _actor: "heard") == "heard"
    assert pipe.seen.rest() == []


def test_it_is_stopped_with_the_system(pipe: Pipe) -> None:
    with ActorSystem("short") as system:
        run_in(system.start(Pooled), lambda _actor: system.scheduler.attach(pipe))
    assert pipe.seen.next() == ("stopped", "short-scheduler")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_leaves_it_to_the_parent(system: ActorSystem, actor: Ref, pipe: Pipe) -> None:
    assert in_child(lambda: pipe.has_stopped) == "False"
    assert run_in(actor, lambda _actor: in_child(lambda: pipe.has_stopped)) == "False"
    pipe.write(b"a")
    assert pipe.seen.next() == (b"a", "test-scheduler")
