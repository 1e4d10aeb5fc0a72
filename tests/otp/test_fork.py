"""A fork brings no thread along: in the child every actor of before has ended, and nothing of before is waited for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pykka
import pytest

from receipt_actors.otp import NO_PROCESS, ActorSystem, SystemClock
from receipt_actors.otp import _system as system_module
from receipt_actors.otp import sys as otp_sys
from tests.otp.support import WAIT_SECONDS, Gate, Pooled, Threaded, run_in

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def in_child(tell: Callable[[], object]) -> str:
    """Fork, and return what ``tell()`` says in the child; a child that hangs is ended by an alarm, and says nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(int(WAIT_SECONDS))
        try:
            try:
                told = str(tell())
            except BaseException as error:  # noqa: BLE001  # a child tells whatever it is, and ends
                told = repr(error)
            os.write(writer, told.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def holding(lock: AbstractContextManager[object]) -> tuple[threading.Thread, Gate]:
    gate = Gate()

    def hold() -> None:
        with lock:
            gate()

    thread = threading.Thread(target=hold)
    thread.start()
    gate.wait_entered()
    return thread, gate


def test_a_system_does_not_survive_a_fork(system: ActorSystem) -> None:
    def tell() -> str:
        with pytest.raises(RuntimeError) as refused:
            system.start(Pooled)
        with ActorSystem() as fresh:
            return f"{refused.value}; {run_in(fresh.start(Pooled), lambda _actor: 'fresh')}"

    assert in_child(tell) == "actor system 'test' has been stopped by a fork: make a new one in the child; fresh"
    assert run_in(system.start(Pooled), lambda _actor: "still here") == "still here"


def test_who_held_the_lock_does_not_hold_up_the_child(system: ActorSystem) -> None:
    system.start(Pooled)
    thread, gate = holding(system_module.LOCK)
    with gate:

        def tell() -> object:
            with ActorSystem() as fresh:
                return run_in(fresh.start(Pooled), lambda _actor: "fresh")

        told = in_child(tell)
    thread.join(WAIT_SECONDS)
    assert told == "fresh"


def test_in_the_child_every_actor_of_before_has_ended(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server, name="old")

    def tell() -> object:
        return (
            ref.is_alive(),
            system.processes(),
            system.registered(),
            system.whereis("old"),
            ref.wait() == NO_PROCESS,
            ref.stop(),
            system.stop(),
        )

    assert in_child(tell) == "(False, [], {}, None, True, False, [])"


def test_in_the_child_who_asks_one_of_before_is_told_so(system: ActorSystem) -> None:
    ref = system.start(Pooled)

    def tell() -> str:
        for ask in (ref.ask, lambda request: ref.call(request, None), lambda _request: otp_sys.get_state(ref, None)):
            with pytest.raises(pykka.ActorDeadError):
                ask("request")
        return "told"

    assert in_child(tell) == "told"


def test_in_the_child_a_busy_actor_holds_up_nobody(no_threads_left: None) -> None:
    with ActorSystem() as system, Gate() as gate:
        pool = system.new_blocking_pool("pool", 1)
        try:
            busy = system.start(Threaded)
            busy.cast(gate)
            gate.wait_entered()
            waiting = busy.ask(lambda _actor, _from: 1, block=False)
            locks = [holding(pool._changed), holding(system.clock._changed)]  # type: ignore[attr-defined]

            def tell() -> object:
                busy.kill()
                return system.stop(), busy.is_zombie, system.zombies(), pool.submit(lambda: None), pool.is_over

            told = in_child(tell)
            for thread, held in locks:
                held.open()
                thread.join(WAIT_SECONDS)
            gate.open()
            assert told == "([], False, [], False, True)"
            waiting.get(timeout=WAIT_SECONDS)
        finally:
            pool.close()


def test_a_clock_that_is_shared_goes_on_in_the_child(no_threads_left: None) -> None:
    clock = SystemClock()
    started = threading.Event()
    clock.call_later(0.0, started.set)
    assert started.wait(WAIT_SECONDS)

    def tell() -> bool:
        fired = threading.Event()
        clock.call_later(0.0, fired.set)
        return fired.wait(WAIT_SECONDS)

    told = in_child(tell)
    clock.close()
    assert told == "True"


def test_an_actor_may_fork(system: ActorSystem, server: type[Pooled]) -> None:
    def tell() -> object:
        with ActorSystem() as fresh:
            ref = fresh.start(Threaded)
            ref.cast(lambda actor: actor.seen.put("cast"))
            return run_in(ref, lambda actor: actor.seen.next())

    assert run_in(system.start(server), lambda _actor: in_child(tell)) == "cast"
