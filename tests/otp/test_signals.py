"""Links, exit signals and monitors: how actors learn of each other's end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    IGNORE,
    KILLED,
    NO_PROCESS,
    NORMAL,
    SHUTDOWN,
    Actor,
    ActorSystem,
    ChildSpec,
    Crash,
    Down,
    Exit,
    ExitReason,
    GenServer,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Runtime,
    Shutdown,
    Start,
    Stop,
    Supervisor,
    which_children,
)
from receipt_actors.otp.gen_statem import GenStateMachine, keep_state, next_state
from tests.otp.support import (
    Gate,
    Pooled,
    Seen,
    end,
    exit_reason_of,
    link_child,
    link_child_script,
    raising,
    run_in,
    settle,
    sync,
    thread_of,
)

CRASH = Crash(ValueError("bug"))


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [SHUTDOWN, Shutdown("over"), KILLED, CRASH], ids=str)
def test_an_abnormal_end_takes_linked_actors_along(
    system: ActorSystem, server: type[Pooled], reason: ExitReason
) -> None:
    """Actors that do not trap exits share one fate, in both directions, without terminate."""
    seen = Seen()
    parent = system.start(server, seen)
    child, sibling = link_child(parent, server), link_child(parent, server, seen)
    end(child, reason)
    assert exit_reason_of(parent) == reason
    assert exit_reason_of(sibling) == reason
    assert seen.rest() == []


def test_a_normal_end_leaves_linked_actors_alone(system: ActorSystem, server: type[Pooled]) -> None:
    """Who has simply done its work takes nobody along."""
    parent = system.start(server)
    child, sibling = link_child(parent, server), link_child(parent, server)
    end(child, NORMAL)
    sync(parent)
    end(parent, NORMAL)
    sync(sibling)


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, KILLED, CRASH], ids=str)
def test_a_parent_that_traps_exits_gets_them_as_messages(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], reason: ExitReason
) -> None:
    """A parent that traps exits survives its children, and learns of every end, the normal one too, once."""
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
    """A child that traps exits does not outlive its parent: it cleans up and ends for the same reason."""
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


def test_a_failed_start_ends_a_parent_that_does_not_trap_exits(system: ActorSystem, server: type[Pooled]) -> None:
    """It was linked already, as with gen_server:start_link; an init that says ignore is no such failure."""
    parent = system.start(server)
    run_in(parent, lambda actor: link_child_script(actor, server, init=lambda _: IGNORE))
    parent.cast(lambda actor: link_child_script(actor, server, init=lambda _: Stop(CRASH)))
    assert exit_reason_of(parent) == CRASH


# --- exit signals


def test_exit_ends_an_actor_that_does_not_trap_exits(system: ActorSystem, server: type[Pooled]) -> None:
    """An exit signal ends it before its next message, without terminate."""
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


def test_an_exit_signal_normal_is_ignored(system: ActorSystem, server: type[Pooled]) -> None:
    """As in OTP, nobody can be ended by another's normal."""
    ref = system.start(server)
    ref.exit(NORMAL)
    sync(ref)


def test_exit_from_outside_terminates_an_actor_that_traps_exits(system: ActorSystem, trapping: type[Pooled]) -> None:
    """From a thread that is no actor an exit signal is the system's: the actor handles its messages, then cleans up."""
    seen = Seen()
    ref = system.start(trapping, seen)
    with Gate() as gate:
        ref.cast(gate)
        gate.wait_entered()
        ref.send("message")
        ref.exit(SHUTDOWN)
    assert exit_reason_of(ref) == SHUTDOWN
    assert seen.rest() == ["message", ("terminate", SHUTDOWN)]


def test_signals_to_an_ended_actor_are_dropped(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server)
    end(ref, NORMAL)
    ref.exit(SHUTDOWN)
    ref.kill()
    assert ref.process.exit_reason == NORMAL


# --- monitors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, KILLED, CRASH], ids=str)
def test_each_monitor_gets_one_down(system: ActorSystem, server: type[Pooled], reason: ExitReason) -> None:
    """Every monitor, of the same watcher too, is told once, with the reason; the watcher lives on."""
    seen = Seen()
    target = system.start(server)
    watcher = system.start(server, seen)
    monitors = [run_in(watcher, lambda actor: actor.monitor(target)) for _ in range(2)]
    end(target, reason)
    sync(watcher)
    downs = seen.rest()
    assert [down.monitor for down in downs] == monitors
    assert all(down == Down(down.monitor, target, reason) for down in downs)


def test_a_monitor_on_an_ended_actor_tells_at_once(system: ActorSystem, server: type[Pooled]) -> None:
    """Watching too late is not waiting for ever."""
    seen = Seen()
    target = system.start(server)
    end(target, SHUTDOWN)
    watcher = system.start(server, seen)
    monitor = run_in(watcher, lambda actor: actor.monitor(target))
    assert seen.next() == Down(monitor, target, NO_PROCESS)


def test_demonitor_undoes_its_own_monitor_only(system: ActorSystem, server: type[Pooled]) -> None:
    """A watcher that has lost interest is not told; others are."""
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
    """A target that many short-lived actors watch keeps none of them in memory."""
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


def test_a_signal_that_came_before_a_crash_counts(
    system: ActorSystem, server: type[Pooled], caplog: pytest.LogCaptureFixture
) -> None:
    """An actor that has been told to end does not crash any more: no report, no terminate, and the signal's reason."""
    seen = Seen()
    ref = system.start(server, seen)
    with Gate() as gate:
        ref.cast(lambda _actor: gate() or raising(ValueError("bug"))())
        gate.wait_entered()
        ref.exit(SHUTDOWN)
    assert exit_reason_of(ref) == SHUTDOWN
    assert seen.rest() == []
    assert caplog.records == []


def test_a_down_that_was_passed_over_can_be_flushed(system: ActorSystem, server: type[Pooled]) -> None:
    """Also one that a selective receive has looked at and left."""
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
    """Either may undo a link, whoever made it and however often; no signal passes any more, in either direction."""
    pair = [system.start(trapping, Seen()), system.start(server)]
    for _ in range(2):
        run_in(pair[0], lambda actor: actor.link(pair[1]))
    run_in(pair[undo], lambda actor: actor.unlink(pair[1 - undo]))
    assert [ref.process.links for ref in pair] == [[], []]
    end(pair[first], Shutdown("over"))
    assert run_in(pair[1 - first], lambda actor: actor.seen.rest()) == []


DONE = Shutdown("done")


# --- links -----------------------------------------------------------------------------------------------------------


def link_to(other: Ref) -> Callable[[Actor], None]:
    """Make a script that links whoever runs it."""
    return lambda actor: actor.link(other)


def test_there_is_one_link_however_often_it_is_made(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled]
) -> None:
    """One end is one message, and one unlink, from either side, is enough."""
    seen = Seen()
    ref = system.start(trapping, seen)
    first, second = system.start(server), system.start(server)
    for other in (first, second, first, second):
        run_in(ref, link_to(other))
    run_in(second, lambda actor: actor.link(ref))
    run_in(second, lambda actor: actor.unlink(ref))
    for other in (first, second):
        other.kill()
    sync(ref)
    assert seen.rest() == [Exit(first, KILLED)]


def test_an_unlink_after_the_end_leaves_its_message(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled]
) -> None:
    """What has come, has come; there is no unlink that flushes."""
    seen = Seen()
    ref, other = system.start(trapping, seen), system.start(server)

    def script(actor: Any) -> None:
        actor.link(other)
        other.kill()
        actor.unlink(other)

    run_in(ref, script)
    assert seen.next() == Exit(other, KILLED)


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


def test_a_link_to_oneself_does_nothing(system: ActorSystem, server: type[Pooled]) -> None:
    """The process ends as if it had made none."""
    ref = system.start(server)
    run_in(ref, lambda actor: actor.link(actor.ref))
    ref.cast(lambda _actor: Stop(DONE))
    assert exit_reason_of(ref) == DONE


# --- exit signals


def test_normal_from_itself_ends_a_process(system: ActorSystem, server: type[Pooled], trapping: type[Pooled]) -> None:
    """It alone can end itself by ``normal``; where it traps exits even that is a message."""
    seen, heard = Seen(), Seen()
    ref = system.start(server, seen)
    ref.cast(lambda actor: actor.ref.exit(NORMAL))
    assert exit_reason_of(ref) == NORMAL
    assert seen.rest() == []  # and no terminate
    traps = system.start(trapping, heard)
    run_in(traps, lambda actor: actor.ref.exit(NORMAL))
    assert heard.next() == Exit(traps, NORMAL)


def test_trap_exit_can_be_changed_at_any_time(system: ActorSystem, server: type[Pooled]) -> None:
    """What counts is what it is when the signal comes; the old value is returned."""
    seen = Seen()
    ref, sender = system.start(server, seen), system.start(server)
    assert run_in(ref, lambda actor: actor.set_trap_exit(True)) is False
    run_in(sender, lambda _actor: ref.exit(DONE))
    assert seen.next() == Exit(sender, DONE)
    assert run_in(ref, lambda actor: actor.set_trap_exit(False)) is True
    run_in(sender, lambda _actor: ref.exit(DONE))
    assert exit_reason_of(ref) == DONE


class Server(GenServer):
    """Would tell of its terminate."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def terminate(self, reason: ExitReason) -> None:
        self.seen.put(reason)


class Machine(GenStateMachine):
    """The same as a state machine."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def init(self) -> Any:
        return next_state("ready")

    def ready(self, _event: Any) -> Any:
        return keep_state()

    def terminate(self, reason: ExitReason) -> None:
        self.seen.put(reason)


@pytest.mark.parametrize("behaviour", [Server, Machine], ids=lambda behaviour: behaviour.__name__)
@pytest.mark.parametrize("traps", [True, False], ids=["trapping", "not trapping"])
def test_no_behaviour_traps_exits_unless_it_says_so(
    system: ActorSystem, runtime: Runtime, behaviour: type[Actor], traps: bool
) -> None:
    """A parent's order to end reaches terminate only where the class traps exits."""
    seen = Seen()
    actor_class = type("Behaviour", (behaviour,), {"runtime": runtime, "trap_exit": traps or behaviour.trap_exit})
    supervisor = system.start(Supervisor, [ChildSpec("child", Start(actor_class, seen))])
    child = which_children(supervisor)[0].child
    assert isinstance(child, Ref)
    supervisor.exit(SHUTDOWN)
    assert exit_reason_of(child) == SHUTDOWN
    assert seen.rest() == ([SHUTDOWN] if traps else [])


# --- monitors --------------------------------------------------------------------------------------------------------


def test_demonitor_with_flush_takes_a_down_away(system: ActorSystem, server: type[Pooled]) -> None:
    """Without it a ``Down`` that is on its way still arrives."""
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
