"""What comes in between: a finalizer or a signal handler that kills or sends, an exception in the middle of an end."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from receipt_actors.otp import KILLED, NORMAL, ActorSystem, Down, Exit, GenServer, Stop, _scheduler
from receipt_actors.otp._process import Process
from receipt_actors.otp._ref import RequestReply
from receipt_actors.otp._scheduler import Running
from tests.otp.support import WAIT_SECONDS, Gate, Pooled, PooledTrapping, Seen, Threaded, exit_reason_of, run_in, sync


class Name:
    """A name that runs ``on_compare`` where it is compared, as a name of a program's own may."""

    def __init__(self) -> None:
        self.on_compare: Any = None

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        hook, self.on_compare = self.on_compare, None
        if hook is not None:
            hook()
        return self is other


def test_an_end_that_fails_half_way_can_be_had_again(system: ActorSystem, server: type[Pooled]) -> None:
    other, name = Name(), Name()
    system.start(server, name=other)  # all names of this kind are compared with it first
    ref = system.start(server, name=name)
    watcher = system.start(PooledTrapping)
    run_in(watcher, lambda actor: actor.link(ref))

    def broken() -> None:
        raise ZeroDivisionError

    other.on_compare = broken
    with pytest.raises(ZeroDivisionError):
        ref.kill()
    assert ref in system.processes()
    assert run_in(ref, lambda _actor: "whole") == "whole"
    ref.kill()
    assert exit_reason_of(ref) == KILLED
    assert run_in(watcher, lambda actor: actor.seen.next()) == Exit(ref, KILLED)
    assert system.whereis(name) is None


def test_an_exception_while_others_are_told_leaves_nobody_untold(
    system: ActorSystem, server: type[Pooled], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = system.start(PooledTrapping)
    ref = system.start(server)
    waiting = ref.ask(lambda _actor, _from: None, block=False)
    waiting.get(timeout=WAIT_SECONDS)
    run_in(watcher, lambda actor: actor.link(ref))
    monitor = run_in(watcher, lambda actor: actor.monitor(ref))
    original, interrupted = Process.take_signal, threading.Event()

    def signal_once(self: Process, sender: Process | None, reason: Any) -> None:
        if sender is ref.process and not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        original(self, sender, reason)

    monkeypatch.setattr(Process, "take_signal", signal_once)
    with pytest.raises(KeyboardInterrupt):
        ref.kill()
    assert [watcher.call(lambda actor, _from: actor.seen.next()) for _ in range(2)] == [
        Exit(ref, KILLED),
        Down(monitor, ref, KILLED),
    ]


def test_an_exception_while_a_message_is_waited_for_leaves_nobody_untold(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, ref = system.start(PooledTrapping), system.start(Pooled)
    monitor = run_in(watcher, lambda actor: actor.monitor(ref))
    original, interrupted = Running.wait_for_send, threading.Event()

    def interrupt_once(self: Running, ended: Process) -> None:
        if ended is ref.process and not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        original(self, ended)

    monkeypatch.setattr(Running, "wait_for_send", interrupt_once)
    with Gate() as gate:
        linked = system.start(Threaded)
        run_in(linked, lambda actor: actor.link(ref))
        linked.cast(gate)
        gate.wait_entered()
        with pytest.raises(KeyboardInterrupt):
            ref.kill()
        assert watcher.call(lambda actor, _from: actor.seen.next()) == Down(monitor, ref, KILLED)
        assert linked.is_zombie


def test_a_kill_while_the_runtime_holds_its_lock_does_not_wait_for_ever(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, asker = system.start(Threaded), system.start(Pooled)
    answering, original = threading.Event(), RequestReply.set

    def answer(self: RequestReply, value: object = None) -> None:
        answering.set()
        original(self, value)

    monkeypatch.setattr(RequestReply, "set", answer)

    def kill() -> None:
        with system.lock:  # as where a name's ``__eq__`` kills
            victim.send_request(lambda _actor, _from: "answer", RequestReply(asker.process, "label"))
            assert answering.wait(WAIT_SECONDS)
            victim.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    killer.join(3 * WAIT_SECONDS)
    assert not killer.is_alive(), "the two wait for each other"
    assert exit_reason_of(victim) == KILLED
    sync(asker)


def test_an_exception_leaves_garbage_collection_on(system: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        gc.disable()
        raise KeyboardInterrupt

    looked_at = SimpleNamespace(isenabled=gc.isenabled, disable=interrupted, enable=gc.enable)
    monkeypatch.setattr(_scheduler, "gc", looked_at)
    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        system.scheduler.frame()
    is_on = gc.isenabled()
    gc.enable()
    assert is_on


def test_a_finalizer_may_kill_while_the_runtime_holds_its_lock(system: ActorSystem) -> None:
    class Handle:
        def __init__(self) -> None:
            self.ref = system.start(Pooled)
            self.cycle = self

        def __del__(self) -> None:
            self.ref.kill()

    done = threading.Event()

    def start_many() -> None:
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(300):
                Handle()
        finally:
            gc.set_threshold(*threshold)
        gc.collect()
        done.set()

    thread = threading.Thread(target=start_many, daemon=True)
    thread.start()
    assert done.wait(3 * WAIT_SECONDS), "somebody waits for himself"
    thread.join(WAIT_SECONDS)
    assert system.processes() == []


def test_a_name_may_be_looked_up_by_what_starts_and_kills(system: ActorSystem, server: type[Pooled]) -> None:
    first, second = Name(), Name()
    victim = system.start(server)
    system.start(server, name=first)
    first.on_compare = lambda: (victim.kill(), system.start(server, name="by the way"))
    system.start(server, name=second)
    assert exit_reason_of(victim) == KILLED
    assert set(system.registered()) == {first, second, "by the way"}


def test_an_actor_killed_in_the_middle_of_its_end_ends_once(system: ActorSystem) -> None:
    other, name, seen = Name(), Name(), Seen()

    class Ending(GenServer):
        def handle_cast(self, request: object) -> Stop:
            return Stop(NORMAL)

    system.start(Pooled, name=other)  # all names of this kind are compared with it first
    ref = system.start(Ending, name=name)
    ref.process.add_monitor(seen.put)
    watcher = system.start(PooledTrapping)
    run_in(watcher, lambda actor: actor.link(ref))
    other.on_compare = ref.process.kill
    ref.cast("end")
    assert exit_reason_of(ref) == KILLED
    assert run_in(watcher, lambda actor: actor.seen.next()) == Exit(ref, KILLED)
    sync(watcher)
    assert len(seen.rest()) == 1
