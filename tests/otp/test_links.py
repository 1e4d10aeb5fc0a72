"""What an actor does about others' lives: ``link``, ``unlink``, ``set_trap_exit``, ``monitor``, ``demonitor``.

The rules are those of "Links", "Error Handling" and "Monitors" in Erlang's reference manual. ``test_signals`` is about
parents and children, ``test_processes_manual`` about the manual's plain cases; here are both runtimes in one
relation, two systems, what happens on the way, and what is changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from receipt_actors.otp import (
    KILLED,
    ActorSystem,
    Down,
    ExitReason,
    ManualClock,
    Receive,
    Receiving,
    Ref,
    Shutdown,
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
    raising,
    run_in,
    sync,
)

OVER = Shutdown("over")


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


# --- set_trap_exit ---------------------------------------------------------------------------------------------------


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
