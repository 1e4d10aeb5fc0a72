"""What the chapter "Processes" of OTP's reference manual says, as far as no other file of these tests is about it."""

from __future__ import annotations

import threading
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
    ChildSpec,
    Crash,
    Down,
    Exit,
    ExitReason,
    GenServer,
    Ref,
    Runtime,
    Shutdown,
    Start,
    Stop,
    Supervisor,
    which_children,
)
from receipt_actors.otp.gen_statem import GenStateMachine, keep_state, next_state
from tests.otp.support import Pooled, Seen, exit_reason_of, run_in, sync

DONE = Shutdown("done")


class Idle(GenServer):
    """Waits."""


def test_very_many_processes_live_at_once(no_threads_left: None) -> None:
    """Ten thousand of them need no thread of their own, and each can be talked to."""
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


# --- exit signals ----------------------------------------------------------------------------------------------------


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
