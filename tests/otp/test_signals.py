"""Links, exit signals and monitors: how actors learn of each other's end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pykka

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
    Receive,
    Receiving,
    Ref,
    Shutdown,
)
from tests.otp.support import Gate, Pooled, Seen, end, exit_reason_of, run_in, settle, sync, thread_of


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
