"""Killed children whose threads go on, and orphans: whom a supervisor counts, and for whom one waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from receipt_actors.otp import (
    BRUTAL_KILL,
    INFINITY,
    KILLED,
    ONE_FOR_ALL,
    SHUTDOWN,
    TEMPORARY,
    ActorSystem,
    AlreadyStarted,
    ChildSpec,
    ChildType,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Shutdown,
    SimpleOneForOneSupervisor,
    Start,
    StartChild,
    Started,
    Supervisor,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from tests.otp.support import (
    WAIT_SECONDS,
    Gate,
    Pooled,
    PooledTrapping,
    Seen,
    Threaded,
    ThreadedTrapping,
    WatchedClock,
    exit_reason_of,
    link_child,
    run_in,
    settle,
    sync,
    thread_of,
    whereis,
)

TWO = Shutdown("killed children that still run: 2 (allowed: 1)")
ONE = Shutdown("killed children that still run: 1 (allowed: 0)")


@contextmanager
def blocked(ref: Ref) -> Iterator[threading.Thread]:
    """Have a child's thread busy in a callback for as long as the block lasts."""
    thread = thread_of(ref)
    with Gate() as gate:
        ref.cast(gate)
        gate.wait_entered()
        yield thread


def specs(*ids: str) -> list[ChildSpec]:
    return [ChildSpec(id_, Start(Threaded, name=id_), shutdown=BRUTAL_KILL) for id_ in ids]


def test_too_many_end_their_supervisor(system: ActorSystem, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = system.start(Supervisor, specs("a", "b", "c"), max_zombies=1)
    with blocked(whereis(system, "a")), blocked(whereis(system, "b")):
        assert terminate_child(supervisor, "a") is None
        assert [info.id for info in which_children(supervisor) if info.child is not None] == ["b", "c"]
        assert terminate_child(supervisor, "b") is None
        assert exit_reason_of(supervisor) == TWO
    assert "gives up because of child b: killed children that still run: 2" in caplog.text
    assert system.processes() == []


def test_one_that_took_too_long_counts(system: ActorSystem, clock: WatchedClock) -> None:
    """A child that is killed because its time was up is no better."""
    spec = ChildSpec("a", Start(ThreadedTrapping, name="a"), shutdown=3)
    supervisor = system.start(Supervisor, [spec], max_zombies=0)
    with blocked(whereis(system, "a")):
        request = threading.Thread(target=terminate_child, args=(supervisor, "a"))
        request.start()
        assert clock.set_timers.next() == 3
        clock.advance(3)
        assert exit_reason_of(supervisor) == ONE
        request.join()


def test_one_that_has_returned_does_not_count(system: ActorSystem) -> None:
    supervisor = system.start(Supervisor, specs("a"), max_zombies=1)
    for _ in range(3):
        with blocked(whereis(system, "a")) as thread:
            assert terminate_child(supervisor, "a") is None
        settle(system, thread)
        assert isinstance(restart_child(supervisor, "a"), Started)


def test_one_that_an_exit_signal_ended_in_a_callback_counts(system: ActorSystem) -> None:
    supervisor = system.start(Supervisor, [ChildSpec("a", Start(Threaded, name="a"))], max_zombies=0)
    with blocked(whereis(system, "a")):
        assert terminate_child(supervisor, "a") is None
        assert exit_reason_of(supervisor) == ONE
    many = system.start(SimpleOneForOneSupervisor, ChildSpec("job", Start(Threaded), TEMPORARY), max_zombies=0)
    child = start_child(many, ())
    assert isinstance(child, Started)
    with blocked(child.ref):
        child.ref.exit(SHUTDOWN)
        assert exit_reason_of(many) == ONE


def test_a_group_that_is_killed_is_not_started_again(system: ActorSystem) -> None:
    supervisor = system.start(Supervisor, specs("a", "b", "c"), strategy=ONE_FOR_ALL, max_zombies=1, intensity=9)
    with blocked(whereis(system, "a")), blocked(whereis(system, "b")):
        whereis(system, "c").kill()
        assert exit_reason_of(supervisor) == TWO


def test_simple_one_for_one_counts_them_too(system: ActorSystem) -> None:
    spec = ChildSpec("job", Start(Threaded), TEMPORARY, BRUTAL_KILL)
    supervisor = system.start(SimpleOneForOneSupervisor, spec, max_zombies=1)
    first, second = (start_child(supervisor, ()) for _ in range(2))
    assert isinstance(first, Started) and isinstance(second, Started)
    with blocked(first.ref), blocked(second.ref):
        assert terminate_child(supervisor, first.ref) is None
        second.ref.kill()
        assert exit_reason_of(supervisor) == TWO


def test_one_that_somebody_else_killed_counts(system: ActorSystem) -> None:
    supervisor = system.start(Supervisor, specs("a"), max_zombies=0, intensity=9)
    child = whereis(system, "a")
    with blocked(child):
        child.kill()
        assert exit_reason_of(supervisor) == ONE


def a_supervisor_of(id_: str, *specs: ChildSpec, name: str | None = None, **options: Any) -> ChildSpec:
    start = Start(Supervisor, list(specs), name=name, **options)
    return ChildSpec(id_, start, type=ChildType.SUPERVISOR, shutdown=INFINITY)


@pytest.mark.parametrize("name", ["middle", None], ids=["named", "unnamed"])
def test_a_killed_supervisors_grandchildren_are_waited_for(system: ActorSystem, name: str | None) -> None:
    with Gate() as gate:
        gate.open()
        leaf = ChildSpec("leaf", Start(ThreadedTrapping, name="leaf", terminate=gate), shutdown=INFINITY)
        top = a_supervisor_of("top", a_supervisor_of("middle", leaf, name=name), name="top")
        root = system.start(Supervisor, [top], intensity=1)
        old = whereis(system, "leaf")
        with Gate() as slow:
            run_in(old, lambda actor: setattr(actor, "_on_terminate", slow))
            whereis(system, "top").kill()
            slow.wait_entered()
            sync(system.start(Pooled))
            assert root.is_alive()
            assert system.whereis("leaf") is old
        exit_reason_of(old)
        assert len(which_children(root, WAIT_SECONDS)) == 1
        assert whereis(system, "leaf") is not old
        assert root.is_alive()


def test_an_orphan_that_had_to_be_killed_counts_as_a_zombie(system: ActorSystem, clock: WatchedClock) -> None:
    spec = ChildSpec("leaf", Start(ThreadedTrapping, name="leaf"), shutdown=3)
    starter = system.start(PooledTrapping)
    with Gate() as gate:
        orphan = link_child(starter, ThreadedTrapping, name="leaf")
        orphan.cast(gate)
        gate.wait_entered()
        starter.kill()
        exit_reason_of(starter)
        failed = Seen()

        def start(actor: Any) -> Receiving:
            starting = actor.system.start_link(Supervisor, [spec], max_zombies=0)
            finished = yield Receive(lambda message: getattr(message, "ref", None) is starting.ref)
            failed.put(finished.result)

        system.start(PooledTrapping).cast(start)
        assert clock.set_timers.next() == 3
        clock.advance(3)
        result = failed.next()
        assert result == NotStarted(Shutdown("killed children that still run: 1 (allowed: 0)"))
        assert exit_reason_of(orphan) == KILLED


def test_nobody_waits_for_who_ends_with_it(system: ActorSystem) -> None:
    leaf = Start(Threaded, name="leaf")
    starter = system.start(PooledTrapping)
    inner = link_child(starter, Supervisor, [ChildSpec("leaf", leaf)])
    held = whereis(system, "leaf")
    answers = Seen()

    def ask_and_kill(actor: Any) -> None:  # the supervisor has its turn after this one, as all are pooled
        actor.send_request(inner, StartChild(ChildSpec("twin", leaf)), "twin")
        starter.process.kill()

    system.start(Pooled, answers).cast(ask_and_kill)
    assert answers.next() == ("reply", "twin", NotStarted(AlreadyStarted(held)))
    assert exit_reason_of(inner) == KILLED
    assert exit_reason_of(held) == SHUTDOWN
