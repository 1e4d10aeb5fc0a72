"""What an actor does about others' lives: ``link``, ``unlink``, ``set_trap_exit``, ``monitor``, ``demonitor``.

The rules are those of "Links", "Error Handling" and "Monitors" in Erlang's reference manual. ``test_signals`` is about
parents and children, ``test_processes_manual`` about the manual's plain cases; here are both runtimes in one
relation, two systems, what happens on the way, and what is changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    KILLED,
    NO_PROCESS,
    NORMAL,
    SHUTDOWN,
    ActorSystem,
    Crash,
    Down,
    Exit,
    ExitReason,
    ManualClock,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Shutdown,
    StartError,
    Stop,
)
from receipt_actors.otp import sys as otp_sys
from tests.otp.support import (
    Gate,
    Pooled,
    PooledTrapping,
    Seen,
    Threaded,
    ThreadedTrapping,
    exit_reason_of,
    link_child,
    raising,
    run_in,
    sync,
)

OVER = Shutdown("over")
CRASH = Crash(ValueError("bug"))
REASONS = [NORMAL, SHUTDOWN, OVER, KILLED, CRASH]


@pytest.fixture(params=["same system", "other system"])
def elsewhere(request: pytest.FixtureRequest, system: ActorSystem) -> Iterator[ActorSystem]:
    """Where the other actor lives: here, or in a system of its own."""
    if request.param == "same system":
        yield system
        return
    with ActorSystem("other", ManualClock()) as other:
        yield other


@pytest.fixture(params=[Pooled, Threaded])
def peer(request: pytest.FixtureRequest, elsewhere: ActorSystem) -> Ref:
    """The other actor: of the same runtime or not, in the same system or not; it does not trap exits."""
    return elsewhere.start(request.param)


@pytest.fixture(params=[PooledTrapping, ThreadedTrapping])
def trapping_peer(request: pytest.FixtureRequest, elsewhere: ActorSystem, heard: Seen) -> Ref:
    """The same, trapping exits and telling of them."""
    return elsewhere.start(request.param, heard)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def heard() -> Seen:
    """What ``trapping_peer`` observes."""
    return Seen()


def link(ref: Ref, other: Ref) -> None:
    run_in(ref, lambda actor: actor.link(other))


def unlink(ref: Ref, other: Ref) -> None:
    run_in(ref, lambda actor: actor.unlink(other))


def monitor(ref: Ref, other: Ref) -> int:
    number: int = run_in(ref, lambda actor: actor.monitor(other))
    return number


def end(ref: Ref, reason: ExitReason) -> None:
    """Have an actor end for a reason."""
    if reason == KILLED:
        ref.kill()
    else:
        ref.cast(lambda _actor: Stop(reason))
    assert exit_reason_of(ref) == reason


def links(ref: Ref) -> set[Ref]:
    return set(otp_sys.get_status(ref).links)


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", REASONS, ids=str)
def test_a_linked_end_is_a_message_where_exits_are_trapped(
    system: ActorSystem, trapping: type[Pooled], seen: Seen, peer: Ref, reason: ExitReason
) -> None:
    """Every reason comes through a link, normal and killed too, and can be trapped."""
    ref = system.start(trapping, seen)
    link(ref, peer)
    end(peer, reason)
    assert seen.next() == Exit(peer, reason)
    sync(ref)
    assert seen.rest() == []
    assert links(ref) == set()


@pytest.mark.parametrize("reason", REASONS, ids=str)
def test_a_linked_end_is_the_end_where_they_are_not(
    system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref, reason: ExitReason
) -> None:
    """For the same reason, killed included, and without terminate; only normal is ignored."""
    ref = system.start(server, seen)
    link(ref, peer)
    end(peer, reason)
    if reason == NORMAL:
        sync(ref)
        assert links(ref) == set()
    else:
        assert exit_reason_of(ref) == reason
    assert seen.rest() == []


def test_the_end_reaches_who_did_not_make_the_link(
    system: ActorSystem, server: type[Pooled], heard: Seen, trapping_peer: Ref
) -> None:
    """A link has no direction."""
    ref = system.start(server)
    link(ref, trapping_peer)
    assert links(ref) == {trapping_peer}
    assert links(trapping_peer) == {ref}
    end(ref, OVER)
    assert heard.next() == Exit(ref, OVER)


@pytest.mark.parametrize("undo", [0, 1], ids=["by who made it", "by the other"])
@pytest.mark.parametrize("times", [1, 3])
def test_unlink_undoes_it_for_both(
    system: ActorSystem, server: type[Pooled], heard: Seen, trapping_peer: Ref, undo: int, times: int
) -> None:
    """Either may undo a link, whoever made it and however often; no signal passes any more, in either direction."""
    pair = (system.start(server), trapping_peer)
    for _ in range(times):
        link(*pair)
    unlink(pair[undo], pair[1 - undo])
    assert links(pair[0]) == links(pair[1]) == set()
    end(pair[0], OVER)
    sync(trapping_peer)
    assert heard.rest() == []

    again = system.start(server)
    link(again, trapping_peer)
    unlink(trapping_peer, again)
    end(trapping_peer, OVER)
    sync(again)


def test_unlink_without_a_link(system: ActorSystem, server: type[Pooled], peer: Ref) -> None:
    """To undo what there is not, or not any more, or with oneself, does nothing."""
    ref, kept = system.start(server), system.start(server)
    link(ref, kept)
    unlink(ref, peer)
    unlink(ref, ref)
    end(peer, OVER)
    unlink(ref, peer)
    assert links(ref) == {kept}


def test_a_link_can_be_made_anew(system: ActorSystem, trapping: type[Pooled], seen: Seen, peer: Ref) -> None:
    """After unlink a new link counts like the first, once."""
    ref = system.start(trapping, seen)
    for _ in range(2):
        link(ref, peer)
        unlink(ref, peer)
    link(ref, peer)
    end(peer, OVER)
    assert seen.next() == Exit(peer, OVER)
    sync(ref)
    assert seen.rest() == []


def test_each_of_many_links_is_its_own(system: ActorSystem, trapping: type[Pooled], server: type[Pooled]) -> None:
    """Undoing one, or losing one, leaves the others."""
    seen = Seen()
    ref = system.start(trapping, seen)
    others = [system.start(server) for _ in range(4)]
    for other in others:
        link(ref, other)
    unlink(ref, others[0])
    end(others[0], OVER)
    end(others[1], OVER)
    assert links(ref) == {others[2], others[3]}
    assert seen.next() == Exit(others[1], OVER)
    end(ref, SHUTDOWN)
    assert exit_reason_of(others[2]) == exit_reason_of(others[3]) == SHUTDOWN


def test_an_end_runs_along_a_chain_of_links(system: ActorSystem, peer: Ref, heard: Seen, trapping_peer: Ref) -> None:
    """It goes from link to link, and stops at the one that traps exits."""
    first, last = system.start(Pooled), system.start(Threaded)
    for ref, other in ((first, peer), (peer, trapping_peer), (trapping_peer, last)):
        link(ref, other)
    end(first, CRASH)
    assert exit_reason_of(peer) == CRASH
    assert heard.next() == Exit(peer, CRASH)
    assert links(trapping_peer) == {last}
    sync(last)


def test_a_link_to_an_ended_actor_elsewhere(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], seen: Seen, peer: Ref
) -> None:
    """Too late is told: as a message where exits are trapped, else as an error that the actor may handle."""
    end(peer, OVER)
    ref, other = system.start(trapping, seen), system.start(server)
    link(ref, peer)
    assert seen.next() == Exit(peer, NO_PROCESS)

    def script(actor: Any) -> None:
        with pytest.raises(pykka.ActorDeadError):
            actor.link(peer)

    run_in(other, script)
    assert links(ref) == links(other) == set()


def test_a_link_to_an_actor_that_does_not_come_up(system: ActorSystem, trapping: type[Pooled], seen: Seen) -> None:
    """Who is linked to an actor whose init fails learns of its end like of any other."""
    ref = system.start(trapping, seen)
    starting = Seen()

    def init(actor: Any) -> Stop:
        starting.put(actor.ref)
        actor.link(ref)
        return Stop(OVER)

    with pytest.raises(StartError) as raised:
        system.start(Pooled, init=init)
    assert raised.value.result == NotStarted(OVER)
    assert seen.next() == Exit(starting.next(), OVER)


def test_what_was_sent_before_the_end_comes_before_its_exit_and_down(
    system: ActorSystem, trapping: type[Pooled], seen: Seen, peer: Ref
) -> None:
    """Signals of one sender keep their order."""
    ref = system.start(trapping, seen)
    link(ref, peer)
    number = monitor(ref, peer)

    def script(_actor: Any) -> Stop:
        ref.send("first")
        ref.cast(lambda actor: actor.seen.put("second"))
        return Stop(OVER)

    peer.cast(script)
    found = seen.take(4)
    assert found[:2] == ["first", "second"]
    assert Exit(peer, OVER) in found[2:]
    assert Down(number, peer, OVER) in found[2:]


def test_the_name_is_free_when_the_end_is_known(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled]
) -> None:
    """Signals are sent when all that others could see of the actor has been released: a successor can be started."""
    seen = Seen()
    ref, target = system.start(trapping), system.start(server, name="it")

    def take_the_name(actor: Any) -> Receiving:
        actor.link(target)
        yield Receive(lambda message: isinstance(message, Exit))
        seen.put(actor.system.whereis("it"))

    ref.cast(take_the_name)
    end(target, OVER)
    assert seen.next() is None


# --- exit signals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [SHUTDOWN, OVER, KILLED, CRASH], ids=str)
def test_exit_from_another_actor(
    system: ActorSystem, server: type[Pooled], heard: Seen, trapping_peer: Ref, peer: Ref, reason: ExitReason
) -> None:
    """It needs no link: it ends who does not trap exits, and tells who does, with the sender; the sender lives on."""
    sender = system.start(server)
    for target in (trapping_peer, peer):
        run_in(sender, lambda _actor, target=target: target.exit(reason))
    assert heard.next() == Exit(sender, reason)
    assert exit_reason_of(peer) == reason
    sync(trapping_peer)
    sync(sender)


def test_exit_normal_from_another_actor(system: ActorSystem, heard: Seen, trapping_peer: Ref, peer: Ref) -> None:
    """It is ignored, and a message where exits are trapped."""
    sender = system.start(Threaded)
    for target in (trapping_peer, peer):
        run_in(sender, lambda _actor, target=target: target.exit(NORMAL))
    assert heard.next() == Exit(sender, NORMAL)
    sync(peer)


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, CRASH], ids=str)
def test_exit_to_itself(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], seen: Seen, reason: ExitReason
) -> None:
    """It ends an actor, for normal too, without terminate and before its next message; trapped, it is a message."""
    traps, ref = system.start(trapping, seen), system.start(server, seen)
    run_in(traps, lambda actor: actor.ref.exit(reason))
    assert seen.next() == Exit(traps, reason)

    def script(actor: Any) -> None:
        actor.ref.send("never handled")
        actor.ref.exit(reason)

    ref.cast(script)
    assert exit_reason_of(ref) == reason
    assert seen.rest() == []


def test_kill_can_not_be_trapped_but_its_echo_can(system: ActorSystem, heard: Seen, trapping_peer: Ref) -> None:
    """Who is killed ends, whatever it traps; those linked to it get killed as a reason like any other."""
    ref = system.start(ThreadedTrapping)
    link(ref, trapping_peer)
    ref.kill()
    assert exit_reason_of(ref) == KILLED
    assert heard.next() == Exit(ref, KILLED)
    sync(trapping_peer)


def test_a_parents_exit_is_an_order_with_or_without_a_link(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], seen: Seen
) -> None:
    """A child that traps exits terminates when its parent says so, though they are no longer linked."""
    parent = system.start(server)
    child = link_child(parent, trapping, seen)
    unlink(child, parent)
    run_in(parent, lambda _actor: child.exit(OVER))
    assert exit_reason_of(child) == OVER
    assert seen.rest() == [("terminate", OVER)]
    sync(parent)


def test_a_child_that_has_unlinked_itself_outlives_its_parent(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], seen: Seen
) -> None:
    """No signal comes from a parent's end then, and none from the child's."""
    parent_seen = Seen()
    parent = system.start(trapping, parent_seen)
    first, second = link_child(parent, trapping, seen), link_child(parent, server, seen)
    for child in (first, second):
        unlink(child, parent)
    end(first, CRASH)
    sync(parent)
    assert parent_seen.rest() == []
    end(parent, CRASH)
    sync(second)
    assert seen.rest() == [("terminate", CRASH)]


def test_a_link_to_an_ended_parent_is_its_end(system: ActorSystem, server: type[Pooled], seen: Seen) -> None:
    """For a child that traps exits any exit signal of its parent is an order, one from before it as well."""
    parent = system.start(server)
    child = link_child(parent, PooledTrapping, seen)
    unlink(child, parent)
    end(parent, OVER)
    link(child, parent)
    assert exit_reason_of(child) == NO_PROCESS
    assert seen.rest() == [("terminate", NO_PROCESS)]


def test_siblings_are_no_parents(system: ActorSystem, trapping: type[Pooled], seen: Seen) -> None:
    """Linked siblings tell each other of their ends; that orders nothing."""
    parent = system.start(trapping)
    first, second = link_child(parent, trapping, seen), link_child(parent, trapping)
    link(first, second)
    end(second, CRASH)
    assert seen.next() == Exit(second, CRASH)
    sync(first)


# --- set_trap_exit ---------------------------------------------------------------------------------------------------


def test_trap_exit_belongs_to_one_actor(system: ActorSystem, server: type[Pooled], peer: Ref) -> None:
    """One that changes it changes it for itself, not for its class."""
    ref, other = system.start(server), system.start(server)
    run_in(ref, lambda actor: actor.set_trap_exit(True) and None)
    for linked in (ref, other):
        link(linked, peer)
    end(peer, OVER)
    assert exit_reason_of(other) == OVER
    sync(ref)
    sync(system.start(server))


def test_trap_exit_set_in_init(system: ActorSystem, server: type[Pooled], seen: Seen) -> None:
    """It counts from the start, for the parent's order as well: the child terminates."""
    parent = system.start(server)
    child = link_child(parent, server, seen, init=lambda actor: actor.set_trap_exit(True) and None)
    end(parent, OVER)
    assert exit_reason_of(child) == OVER
    assert seen.rest() == [("terminate", OVER)]


def test_trap_exit_off_makes_a_parents_order_a_signal(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], seen: Seen
) -> None:
    """An actor that no longer traps exits ends without terminate, and its class does not matter."""
    parent = system.start(server)
    child = link_child(parent, trapping, seen)
    assert run_in(child, lambda actor: actor.set_trap_exit(False)) is True
    end(parent, OVER)
    assert exit_reason_of(child) == OVER
    assert seen.rest() == []


def test_a_trapped_signal_stays_a_message(system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref) -> None:
    """What came while exits were trapped does no harm after they no longer are."""
    ref = system.start(server, seen)

    def script(actor: Any) -> None:
        actor.set_trap_exit(True)
        actor.link(peer)
        peer.kill()
        actor.set_trap_exit(False)

    run_in(ref, script)
    assert seen.next() == Exit(peer, KILLED)
    sync(ref)


def test_a_signal_that_came_before_still_ends_it(
    system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref
) -> None:
    """To trap exits, or to unlink, in the callback in which the signal has come is too late."""
    ref = system.start(server, seen)
    link(ref, peer)

    def script(actor: Any) -> None:
        peer.kill()
        actor.set_trap_exit(True)
        actor.unlink(peer)

    ref.cast(script)
    assert exit_reason_of(ref) == KILLED
    assert seen.rest() == []


def test_a_signal_that_came_before_a_crash_counts(
    system: ActorSystem, server: type[Pooled], seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """An actor that has been told to end does not crash any more: no report, no terminate, and the signal's reason."""
    ref = system.start(server, seen)
    with Gate() as gate:
        ref.cast(lambda _actor: gate() or raising(ValueError("bug"))())
        gate.wait_entered()
        ref.exit(OVER)
    assert exit_reason_of(ref) == OVER
    assert seen.rest() == []
    assert caplog.records == []


# --- monitors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", REASONS, ids=str)
def test_a_monitor_tells_and_does_no_more(
    system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref, reason: ExitReason
) -> None:
    """One Down, whatever the reason, no end of the watcher, and nothing in the other direction."""
    ref, fleeting = system.start(server, seen), system.start(server)
    number = monitor(ref, peer)
    monitor(fleeting, peer)
    end(fleeting, CRASH)
    sync(peer)
    end(peer, reason)
    assert seen.next() == Down(number, peer, reason)
    sync(ref)
    assert seen.rest() == []


def test_several_monitors_on_one_target(system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref) -> None:
    """Each is its own: each tells once, with its own number, and can be undone alone."""
    ref = system.start(server, seen)
    numbers = [monitor(ref, peer) for _ in range(4)]
    assert len(set(numbers)) == 4
    run_in(ref, lambda actor: actor.demonitor(numbers[0]))
    run_in(ref, lambda actor: actor.demonitor(numbers[2], flush=True))
    end(peer, OVER)
    assert {down.monitor for down in seen.take(2)} == {numbers[1], numbers[3]}
    sync(ref)
    assert seen.rest() == []


def test_a_link_and_a_monitor_on_one_target(system: ActorSystem, trapping: type[Pooled], seen: Seen, peer: Ref) -> None:
    """They know nothing of each other: undoing one leaves the other."""
    ref = system.start(trapping, seen)
    link(ref, peer)
    number = monitor(ref, peer)
    unlink(ref, peer)
    other = system.start(Pooled)
    link(ref, other)
    gone = monitor(ref, other)
    run_in(ref, lambda actor: actor.demonitor(gone))
    end(peer, OVER)
    assert seen.next() == Down(number, peer, OVER)
    end(other, OVER)
    assert seen.next() == Exit(other, OVER)
    sync(ref)
    assert seen.rest() == []


def test_monitors_in_two_systems_are_told_apart(
    system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref
) -> None:
    """A watcher's monitors have numbers of their own, wherever their targets live."""
    ref = system.start(server, seen)
    targets = [system.start(server), peer, system.start(server)]
    numbers = [monitor(ref, target) for target in targets]
    assert len(set(numbers)) == 3
    for target, number in zip(targets, numbers, strict=True):
        end(target, OVER)
        assert seen.next() == Down(number, target, OVER)


@pytest.mark.parametrize("flush", [False, True])
def test_demonitor_before_the_end(
    system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref, flush: bool
) -> None:
    """Nothing comes any more, with flush and without; to undo it again does nothing."""
    ref = system.start(server, seen)
    number = monitor(ref, peer)
    for _ in range(2):
        run_in(ref, lambda actor: actor.demonitor(number, flush=flush))
    end(peer, OVER)
    run_in(ref, lambda actor: actor.demonitor(number, flush=flush))
    sync(ref)
    assert seen.rest() == []


@pytest.mark.parametrize("flush", [False, True])
def test_demonitor_after_the_end(system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref, flush: bool) -> None:
    """A Down that is in the mailbox already still arrives, unless it is flushed."""
    ref = system.start(server, seen)
    number = monitor(ref, peer)
    with Gate() as gate:

        def script(actor: Any) -> None:
            gate()
            actor.demonitor(number, flush=flush)
            actor.demonitor(number)

        ref.cast(script)
        gate.wait_entered()
        # The watcher's thread is busy; where the target shares it, only a kill ends the target now.
        peer.kill()
    sync(ref)
    assert seen.rest() == ([] if flush else [Down(number, peer, KILLED)])


@pytest.mark.parametrize("flush", [False, True])
def test_demonitor_of_an_actor_that_had_ended_before(
    system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref, flush: bool
) -> None:
    """The Down that says so is one like any other."""
    end(peer, OVER)
    ref = system.start(server, seen)

    def script(actor: Any) -> int:
        number: int = actor.monitor(peer)
        actor.demonitor(number, flush=flush)
        return number

    number = run_in(ref, script)
    sync(ref)
    assert seen.rest() == ([] if flush else [Down(number, peer, NO_PROCESS)])


def test_a_down_that_was_passed_over_can_be_flushed(
    system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref
) -> None:
    """Also one that a selective receive has looked at and left."""
    ref, looked = system.start(server, seen), Seen()

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


def test_a_flushed_down_is_not_received(system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref) -> None:
    """After demonitor with flush a receive that would take it finds nothing."""
    ref = system.start(server, seen)

    def script(actor: Any) -> Receiving:
        number = actor.monitor(peer)
        peer.kill()
        actor.demonitor(number, flush=True)
        seen.put((yield Receive(lambda message: isinstance(message, Down), 0)))

    ref.cast(script)
    assert seen.next() is None


def test_a_down_that_was_received_is_gone(system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref) -> None:
    """It comes once; a demonitor afterwards does nothing."""
    ref = system.start(server, seen)

    def script(actor: Any) -> Receiving:
        number = actor.monitor(peer)
        peer.kill()
        down = yield Receive(lambda message: isinstance(message, Down))
        assert down == Down(number, peer, KILLED)
        actor.demonitor(number)
        actor.demonitor(number, flush=True)
        seen.put("done")

    ref.cast(script)
    assert seen.next() == "done"
    sync(ref)
    assert seen.rest() == []


@pytest.mark.parametrize("flush", [False, True])
def test_demonitor_leaves_others_monitors_alone(
    system: ActorSystem, server: type[Pooled], seen: Seen, peer: Ref, flush: bool
) -> None:
    """A monitor can be undone by who has it, and by nobody else; an unknown one is no error."""
    ref, other = system.start(server, seen), system.start(server)
    number = monitor(ref, peer)
    run_in(other, lambda actor: actor.demonitor(number, flush=flush))
    run_in(other, lambda actor: actor.demonitor(-1, flush=flush))
    run_in(peer, lambda actor: actor.demonitor(number, flush=flush))
    end(peer, OVER)
    assert seen.next() == Down(number, peer, OVER)


@pytest.mark.parametrize("watch", [link, monitor])
def test_whom_it_watches_may_be_watched_by_it(
    system: ActorSystem, trapping: type[Pooled], seen: Seen, trapping_peer: Ref, watch: Callable[[Ref, Ref], object]
) -> None:
    """Two that watch each other learn of the first end only, and nothing is left of it."""
    ref = system.start(trapping, seen)
    watch(ref, trapping_peer)
    watch(trapping_peer, ref)
    end(trapping_peer, OVER)
    assert seen.next().ref is trapping_peer
    end(ref, OVER)
    assert seen.rest() == [("terminate", OVER)]
