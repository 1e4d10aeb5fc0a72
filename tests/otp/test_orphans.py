"""Orphans: who ends because a supervisor above it was killed is waited for where its name is needed; nobody else is."""

from __future__ import annotations

from typing import Any

import pytest

from receipt_actors.otp import (
    INFINITY,
    KILLED,
    SHUTDOWN,
    ActorSystem,
    AlreadyStarted,
    ChildSpec,
    ChildType,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Shutdown,
    Start,
    StartChild,
    Supervisor,
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
    sync,
)


def named(system: ActorSystem, name: str) -> Ref:
    ref = system.whereis(name)
    assert ref is not None
    return ref


def a_supervisor_of(id_: str, *specs: ChildSpec, name: str | None = None, **options: Any) -> ChildSpec:
    start = Start(Supervisor, list(specs), name=name, **options)
    return ChildSpec(id_, start, type=ChildType.SUPERVISOR, shutdown=INFINITY)


@pytest.mark.parametrize("name", ["middle", None], ids=["named", "unnamed"])
def test_a_killed_supervisors_grandchildren_are_waited_for(system: ActorSystem, name: str | None) -> None:
    """With a supervisor in between, named or not, one restart is enough, however long its child takes to clean up."""
    with Gate() as gate:
        gate.open()
        leaf = ChildSpec("leaf", Start(ThreadedTrapping, name="leaf", terminate=gate), shutdown=INFINITY)
        top = a_supervisor_of("top", a_supervisor_of("middle", leaf, name=name), name="top")
        root = system.start(Supervisor, [top], intensity=1)
        old = named(system, "leaf")
        with Gate() as slow:
            run_in(old, lambda actor: setattr(actor, "_on_terminate", slow))
            named(system, "top").kill()
            slow.wait_entered()
            sync(system.start(Pooled))
            assert root.is_alive()
            assert system.whereis("leaf") is old
        exit_reason_of(old)
        assert len(which_children(root, WAIT_SECONDS)) == 1
        assert named(system, "leaf") is not old
        assert root.is_alive()


def test_an_orphan_that_had_to_be_killed_counts_as_a_zombie(system: ActorSystem, clock: WatchedClock) -> None:
    """The supervisor that sees it off has killed what still runs, and gives up where that is one too many."""
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
    """A supervisor that is bound to end itself is told ``already_started`` of its own child, as ever."""
    leaf = Start(Threaded, name="leaf")
    starter = system.start(PooledTrapping)
    inner = link_child(starter, Supervisor, [ChildSpec("leaf", leaf)])
    held = named(system, "leaf")
    answers = Seen()

    def ask_and_kill(actor: Any) -> None:  # the supervisor has its turn after this one, as all are pooled
        actor.send_request(inner, StartChild(ChildSpec("twin", leaf)), "twin")
        starter.process.kill()

    system.start(Pooled, answers).cast(ask_and_kill)
    assert answers.next() == ("reply", "twin", NotStarted(AlreadyStarted(held)))
    assert exit_reason_of(inner) == KILLED
    assert exit_reason_of(held) == SHUTDOWN
