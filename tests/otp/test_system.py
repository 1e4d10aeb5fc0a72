"""The actor system: isolated, stopped in order, and gone without a trace."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from receipt_actors.otp import (
    KILLED,
    SHUTDOWN,
    ActorSystem,
    AlreadyStarted,
    GenServer,
    NotStarted,
    Receive,
    Receiving,
    Shutdown,
    StartError,
    Stop,
)
from tests.otp.support import (
    WAIT_SECONDS,
    Gate,
    Pooled,
    PooledTrapping,
    Seen,
    Threaded,
    ThreadedTrapping,
    exit_reason_of,
    link_child_script,
    run_in,
    sync,
    thread_of,
)


def test_stop_ends_actors_newest_first(system: ActorSystem, trapping: type[Pooled]) -> None:
    ended = Seen()
    for name in "abc":
        system.start(trapping, terminate=lambda actor: ended.put(actor.ref.name), name=name)
    assert system.stop() == []
    assert ended.rest() == ["c", "b", "a"]


def test_stop_kills_who_does_not_end(system: ActorSystem, trapping: type[Pooled]) -> None:

    def terminate(_actor: Any) -> Receiving:
        yield Receive(lambda _message: False)

    ref = system.start(trapping, terminate=terminate)
    assert system.stop(timeout_seconds=0.05) == []
    assert exit_reason_of(ref) == KILLED


def test_stop_may_be_called_by_an_actor(no_threads_left: None) -> None:
    ended = Seen()
    system = ActorSystem("test")
    system.start(PooledTrapping, terminate=lambda _actor: ended.put("other"))
    stopper = system.start(Threaded, name="stopper")
    thread = thread_of(stopper)
    stopped = Seen()
    stopper.cast(lambda actor: stopped.put(actor.system.stop(timeout_seconds=WAIT_SECONDS)))
    assert stopped.next() == ["test-stopper"]
    assert ended.rest() == ["other"]
    thread.join(WAIT_SECONDS)


def test_nothing_starts_in_a_stopped_system(no_threads_left: None, server: type[Pooled]) -> None:
    system = ActorSystem("test")
    ref = system.start(server)
    assert system.stop() == []
    assert system.stop() == []
    with pytest.raises(RuntimeError, match="'test' has been stopped"):
        system.start(server)
    assert not ref.is_alive()


def test_a_start_during_the_stop_leaves_no_thread(no_threads_left: None) -> None:
    system = ActorSystem("test")
    outcomes = Seen()
    first = threading.Event()

    def start_again_and_again() -> None:
        for _ in range(200):
            try:
                outcomes.put(system.start(Threaded))
            except RuntimeError:
                outcomes.put(None)
                return
            except StartError:  # killed while it started
                pass
            first.set()

    starter = threading.Thread(target=start_again_and_again)
    starter.start()
    assert first.wait(WAIT_SECONDS)
    assert system.stop() == []
    starter.join(WAIT_SECONDS)
    assert system.processes() == []
    assert all(ref is None or not ref.is_alive() for ref in outcomes.rest())


def test_threads_that_are_over_are_forgotten(system: ActorSystem) -> None:
    lasting = [system.start(Threaded) for _ in range(3)]
    for _ in range(30):
        ref = system.start(Threaded)
        thread = thread_of(ref)
        ref.stop()
        thread.join(WAIT_SECONDS)
    gc.collect()
    known = list(system._own_threads)
    assert len(known) <= 8
    assert {ref.process._scheduler for ref in lasting} <= set(known)


def test_one_turn_is_bounded(system: ActorSystem) -> None:
    def again(actor: Any) -> None:
        actor.ref.cast(again)

    busy = system.start(Pooled)
    busy.cast(again)
    sync(system.start(Pooled))
    busy.exit(Shutdown("enough"))
    assert exit_reason_of(busy) == Shutdown("enough")


def test_one_that_does_not_end_leaves_time_to_the_others(no_threads_left: None) -> None:
    def has_time_to_clean_up(seconds: float) -> bool:
        system = ActorSystem()
        with Gate() as gate:
            cleaned = Seen()
            tidy = system.start(PooledTrapping, terminate=lambda _actor: cleaned.put("tidy"))
            stuck = system.start(ThreadedTrapping)
            stuck.cast(gate)
            gate.wait_entered()
            thread = next(other for other in threading.enumerate() if other.name == stuck.process._scheduler.name)
            assert system.stop(seconds) == [thread.name]
            assert exit_reason_of(stuck) == KILLED
            reason, done = exit_reason_of(tidy), cleaned.rest()
        thread.join(WAIT_SECONDS)
        return reason == SHUTDOWN and done == ["tidy"]

    # On a busy machine a part of a short time is over before anybody has done anything.
    assert any(map(has_time_to_clean_up, (0.4, 1.6, 6.4, 25.6)))


def test_a_pooled_actor_starts_nobody_that_it_would_wait_for(system: ActorSystem) -> None:
    def init(_actor: Any) -> Receiving:
        yield Receive(lambda _message: False)

    def start_both(actor: Any) -> None:
        with pytest.raises(RuntimeError, match="Threaded has a thread of its own, and a pooled actor must not wait"):
            actor.system.start(Threaded, name="thread")
        with pytest.raises(RuntimeError, match="Pooled takes its time to start, and a pooled actor must not wait"):
            actor.system.start(Pooled, init=init, name="receiving")

    starter = system.start(Pooled)
    run_in(starter, start_both)
    assert system.processes() == [starter]
    assert system.registered() == {}


def test_an_actor_is_found_under_its_name(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    ref = system.start(server, init=lambda actor: seen.put(actor.system.whereis(("it", 1))), name=("it", 1))
    assert seen.rest() == [ref]
    assert system.whereis(("it", 1)) is ref
    assert system.registered() == {("it", 1): ref}
    assert ref.name == ("it", 1)
    assert system.whereis("else") is None


def test_a_name_is_given_once(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server, name="it")
    with pytest.raises(StartError, match="already started") as raised:
        system.start(server, name="it")
    assert raised.value.result == NotStarted(AlreadyStarted(ref))
    result = run_in(system.start(server), lambda actor: link_child_script(actor, server, name="it"))
    assert result == NotStarted(AlreadyStarted(ref))
    assert system.whereis("it") is ref


def test_a_name_is_free_when_the_end_is_known(system: ActorSystem, server: type[Pooled]) -> None:
    free = Seen()
    first = system.start(server, name="it")
    first.process.add_monitor(lambda _down: free.put(system.whereis("it")))
    first.cast(lambda _actor: Stop())
    assert free.next() is None
    assert system.start(server, name="it") is system.whereis("it")


class Idle(GenServer):
    """Waits."""


def test_very_many_processes_live_at_once(no_threads_left: None) -> None:
    with ActorSystem("many") as system:
        first = system.start(Pooled)
        threads = threading.active_count()
        for number in range(10_000):
            system.start(Idle, name=number)
        assert threading.active_count() == threads
        sync(first)
        last = system.whereis(9_999)
        assert last is not None
        assert last.is_alive()
