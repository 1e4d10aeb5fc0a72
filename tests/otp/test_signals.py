"""Links, exit signals and monitors: how actors learn of each other's end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    KILLED,
    NO_PROCESS,
    NORMAL,
    SHUTDOWN,
    Actor,
    ActorSystem,
    Crash,
    Down,
    Exit,
    ExitReason,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Shutdown,
    Stop,
)
from tests.otp.support import (
    Gate,
    Pooled,
    Seen,
    end,
    exit_reason_of,
    link_child,
    link_child_script,
    run_in,
    settle,
    sync,
    thread_of,
)

CRASH = Crash(ValueError("bug"))


@pytest.mark.parametrize("reason", [SHUTDOWN, Shutdown("over"), KILLED, CRASH], ids=str)
def test_an_abnormal_end_takes_linked_actors_along(
    system: ActorSystem, server: type[Pooled], reason: ExitReason
) -> None:
    seen = Seen()
    parent = system.start(server, seen)
    child, sibling = link_child(parent, server), link_child(parent, server, seen)
    end(child, reason)
    assert exit_reason_of(parent) == reason
    assert exit_reason_of(sibling) == reason
    assert seen.rest() == []


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, KILLED, CRASH], ids=str)
def test_a_parent_that_traps_exits_gets_them_as_messages(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], reason: ExitReason
) -> None:
    seen = Seen()
    parent = system.start(trapping, seen)
    child = link_child(parent, server)
    end(child, reason)
    sync(parent)
    assert seen.rest() == [Exit(child, reason)]


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, CRASH], ids=str)
def test_the_end_of_its_parent_terminates_a_child_that_traps_exits(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], reason: ExitReason
) -> None:
    seen = Seen()
    parent = system.start(server)
    child = link_child(parent, trapping, seen)
    end(parent, reason)
    assert exit_reason_of(child) == reason
    assert seen.rest() == [("terminate", reason)]


def test_a_failed_start_sends_no_exit_signal_on_top(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled]
) -> None:
    """A parent that traps exits is told of a failed start by its result alone, so that it is not counted twice."""
    seen = Seen()
    parent = system.start(trapping, seen)
    result = run_in(parent, lambda actor: link_child_script(actor, server, init=lambda _: Stop(CRASH)))
    assert result == NotStarted(CRASH)
    sync(parent)
    assert seen.rest() == []


def test_exit_ends_an_actor_that_does_not_trap_exits(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    ref = system.start(server, seen)
    with Gate() as gate:
        ref.cast(gate)
        gate.wait_entered()
        ref.send("never handled")
        ref.exit(Shutdown("first"))
        ref.exit(Shutdown("second"))
    assert exit_reason_of(ref) == Shutdown("first")
    assert seen.rest() == []


def test_exit_from_outside_terminates_an_actor_that_traps_exits(system: ActorSystem, trapping: type[Pooled]) -> None:
    seen = Seen()
    ref = system.start(trapping, seen)
    with Gate() as gate:
        ref.cast(gate)
        gate.wait_entered()
        ref.send("message")
        ref.exit(SHUTDOWN)
    assert exit_reason_of(ref) == SHUTDOWN
    assert seen.rest() == ["message", ("terminate", SHUTDOWN)]


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, KILLED, CRASH], ids=str)
def test_each_monitor_gets_one_down(system: ActorSystem, server: type[Pooled], reason: ExitReason) -> None:
    seen = Seen()
    target = system.start(server)
    watcher = system.start(server, seen)
    monitors = [run_in(watcher, lambda actor: actor.monitor(target)) for _ in range(2)]
    end(target, reason)
    sync(watcher)
    downs = seen.rest()
    assert [down.monitor for down in downs] == monitors
    assert all(down == Down(down.monitor, target, reason) for down in downs)


def test_demonitor_undoes_its_own_monitor_only(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    target = system.start(server)
    watcher = system.start(server, seen)
    dropped, kept = (run_in(watcher, lambda actor: actor.monitor(target)) for _ in range(2))
    run_in(watcher, lambda actor: actor.demonitor(dropped))
    run_in(watcher, lambda actor: actor.demonitor(dropped))
    end(target, NORMAL)
    sync(watcher)
    assert [down.monitor for down in seen.rest()] == [kept]


def test_a_watcher_that_ends_first_is_forgotten_by_its_target(system: ActorSystem, server: type[Pooled]) -> None:
    target = system.start(server)
    watcher = system.start(server)
    run_in(watcher, lambda actor: actor.monitor(target))
    thread = thread_of(watcher)
    end(watcher, NORMAL)
    settle(system, thread)
    process = weakref.ref(watcher.process)
    del watcher
    gc.collect()
    assert process() is None
    sync(target)


def test_a_down_that_was_passed_over_can_be_flushed(system: ActorSystem, server: type[Pooled]) -> None:
    seen, looked = Seen(), Seen()
    ref, peer = system.start(server, seen), system.start(Pooled)

    def script(actor: Any) -> Receiving:
        flushed, kept = actor.monitor(peer), actor.monitor(peer)
        peer.kill()
        yield Receive(lambda message: looked.put(message) or message == "go")
        actor.demonitor(flushed, flush=True)
        seen.put(kept)

    ref.cast(script)
    assert {type(looked.next()) for _ in range(2)} == {Down}
    ref.send("go")
    kept = seen.next()
    assert seen.next() == Down(kept, peer, KILLED)
    sync(ref)
    assert seen.rest() == []


@pytest.mark.parametrize("undo", [0, 1], ids=["by who made it", "by the other"])
@pytest.mark.parametrize("first", [0, 1], ids=["who made it ends", "the other ends"])
def test_unlink_undoes_it_for_both(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], undo: int, first: int
) -> None:
    pair = [system.start(trapping, Seen()), system.start(server)]
    for _ in range(2):
        run_in(pair[0], lambda actor: actor.link(pair[1]))
    run_in(pair[undo], lambda actor: actor.unlink(pair[1 - undo]))
    assert [ref.process.links for ref in pair] == [[], []]
    end(pair[first], Shutdown("over"))
    assert run_in(pair[1 - first], lambda actor: actor.seen.rest()) == []


DONE = Shutdown("done")


def link_to(other: Ref) -> Callable[[Actor], None]:
    return lambda actor: actor.link(other)


def test_a_link_to_an_ended_process_is_an_exit_signal(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled]
) -> None:
    """With ``NO_PROCESS``, where exits are trapped; who does not trap them gets an error (OTP: ``noproc``)."""
    seen = Seen()
    gone, hears, ends = system.start(server), system.start(trapping, seen), system.start(server)
    gone.kill()
    run_in(hears, link_to(gone))
    assert seen.next() == Exit(gone, NO_PROCESS)
    ends.cast(link_to(gone))
    reason = exit_reason_of(ends)
    assert isinstance(reason, Crash)
    assert isinstance(reason.exception, pykka.ActorDeadError)


def test_normal_from_itself_ends_a_process(system: ActorSystem, server: type[Pooled], trapping: type[Pooled]) -> None:
    seen, heard = Seen(), Seen()
    ref = system.start(server, seen)
    ref.cast(lambda actor: actor.ref.exit(NORMAL))
    assert exit_reason_of(ref) == NORMAL
    assert seen.rest() == []  # and no terminate
    traps = system.start(trapping, heard)
    run_in(traps, lambda actor: actor.ref.exit(NORMAL))
    assert heard.next() == Exit(traps, NORMAL)


def test_trap_exit_can_be_changed_at_any_time(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    ref, sender = system.start(server, seen), system.start(server)
    assert run_in(ref, lambda actor: actor.set_trap_exit(True)) is False
    run_in(sender, lambda _actor: ref.exit(DONE))
    assert seen.next() == Exit(sender, DONE)
    assert run_in(ref, lambda actor: actor.set_trap_exit(False)) is True
    run_in(sender, lambda _actor: ref.exit(DONE))
    assert exit_reason_of(ref) == DONE


def test_demonitor_with_flush_takes_a_down_away(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    ref, others = system.start(server, seen), [system.start(server), system.start(server)]
    monitors = Seen()

    def script(actor: Any) -> None:
        for other, flush in zip(others, (True, False), strict=True):
            monitor = actor.monitor(other)
            monitors.put(monitor)
            other.kill()
            actor.demonitor(monitor, flush=flush)

    run_in(ref, script)
    _flushed, kept = monitors.take(2)
    assert seen.next() == Down(kept, others[1], KILLED)
    sync(ref)
    assert seen.rest() == []
