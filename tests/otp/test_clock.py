"""Time: the manual clock of tests, the real one, and an actor's timers on both."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.otp import ActorSystem, Clock, ManualClock, Ref, SystemClock, Timer
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp._clock import SWEEP_AT_LEAST
from receipt_actors.otp.gen_statem import GenStateMachine, keep_state, next_state, state_timeout
from tests.otp.support import WAIT_SECONDS, Pooled, Seen, exit_reason_of, run_in, sync, thread_of
from tests.patience import PATIENCE_SECONDS


class Timed(GenStateMachine):
    def init(self) -> Any:
        return next_state("on", state_timeout(3600))

    def on(self, _event: object) -> Any:
        return keep_state()


@pytest.fixture
def system_clock(no_threads_left: None) -> Iterator[SystemClock]:
    clock = SystemClock()
    yield clock
    clock.close()


@given(delays=st.lists(st.integers(0, 20)), steps=st.lists(st.integers(0, 7), max_size=10))
def test_the_manual_clock_fires_in_order_each_at_its_own_time(delays: list[int], steps: list[int]) -> None:
    clock = ManualClock(monotonic=100.0)
    fired: list[tuple[float, int, float]] = []
    for number, delay in enumerate(delays):
        clock.call_later(delay, lambda n=number, d=delay: fired.append((d, n, clock.monotonic() - 100.0)))  # type: ignore[misc]
    for step in steps:
        clock.advance(step)
    due = sorted((float(delay), number) for number, delay in enumerate(delays) if delay <= sum(steps) and steps)
    assert fired == [(delay, number, delay) for delay, number in due]
    assert clock.monotonic() == 100.0 + sum(steps)


def test_a_machine_that_is_suspended_fires_no_timer(clock: ManualClock) -> None:
    fired: list[str] = []
    clock.call_later(5, lambda: fired.append("fired"))
    clock.advance(4)
    before = clock.monotonic(), clock.boottime(), clock.time()
    clock.suspend(3600)
    assert (clock.monotonic(), clock.boottime(), clock.time()) == (before[0], before[1] + 3600, before[2] + 3600)
    assert not fired
    clock.advance(1)
    assert fired == ["fired"]
    assert clock.boottime() == before[1] + 3601


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_a_manual_clock_never_goes_back(clock: ManualClock, seconds: float) -> None:
    before = clock.monotonic()
    for move in (clock.suspend, clock.advance):
        with pytest.raises(ValueError, match="0 or more are expected"):
            move(seconds)
    assert clock.monotonic() == before


def test_a_timer_set_by_a_timer_fires_on_the_way(clock: ManualClock) -> None:
    fired: list[float] = []

    def tick() -> None:
        fired.append(clock.monotonic())
        clock.call_later(2, tick)

    clock.call_later(2, tick)
    clock.advance(7)
    assert fired == [2, 4, 6]


def test_the_real_clock_fires_in_order(system_clock: SystemClock) -> None:
    fired = Seen()

    def set_both() -> None:  # on the clock's own thread, so that neither can fire in between
        system_clock.call_later(0.05, lambda: fired.put("second"))
        system_clock.call_later(0.01, lambda: fired.put("first"))

    system_clock.call_later(0, set_both)
    assert fired.take(2) == ["first", "second"]


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()], ids=lambda clock: type(clock).__name__)
def test_a_time_that_is_none_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="NaN"):
        clock.call_later(float("nan"), lambda: None)
    clock.close()


def test_the_real_clock_can_be_closed_by_a_timer(no_threads_left: None) -> None:
    clock = SystemClock()
    closed = threading.Event()
    thread = Seen()

    def close() -> None:
        thread.put(threading.current_thread())
        clock.close()
        closed.set()

    clock.call_later(0, close)
    assert closed.wait(WAIT_SECONDS)
    thread.next().join(WAIT_SECONDS)
    fired = Seen()
    clock.call_later(0, lambda: fired.put("late"))
    clock.close()
    assert fired.rest() == []


def test_send_after_delivers_in_time(system: ActorSystem, clock: ManualClock, server: type[Pooled]) -> None:
    seen = Seen()
    ref = system.start(server, seen)
    run_in(ref, lambda actor: actor.send_after(2, "second"))
    run_in(ref, lambda actor: actor.send_after(1, "first"))
    run_in(ref, lambda actor: actor.send_after(1, "cancelled").cancel())
    clock.advance(0.9)
    sync(ref)
    assert seen.rest() == []
    clock.advance(1.1)
    sync(ref)
    assert seen.rest() == ["first", "second"]


def test_cancelled_timers_do_not_pile_up() -> None:
    clock = ManualClock()
    last = clock.call_later(1e6, list)
    for _ in range(10 * SWEEP_AT_LEAST):
        last.cancel()
        last = clock.call_later(1e6, list)
    assert len(clock._timers._heap) <= 2 * SWEEP_AT_LEAST + 2


def test_sweeping_loses_no_timer() -> None:
    clock = ManualClock()
    fired: list[int] = []
    for number in range(4 * SWEEP_AT_LEAST):
        timer = clock.call_later(number, partial(fired.append, number))
        if number % 4:
            timer.cancel()
    clock.advance(1e6)
    assert fired == list(range(0, 4 * SWEEP_AT_LEAST, 4))


def test_a_callback_that_raises_costs_no_other_timer(caplog: pytest.LogCaptureFixture) -> None:
    clock = SystemClock()
    fired = threading.Event()
    clock.call_later(0.0, partial(int, "no number"))
    clock.call_later(0.001, fired.set)
    assert fired.wait(PATIENCE_SECONDS)
    clock.close()
    assert [record.getMessage() for record in caplog.records] == ["a timer's callback failed"]


@pytest.mark.parametrize("end", [lambda ref: ref.stop(), lambda ref: ref.kill()], ids=["stop", "kill"])
def test_the_timers_of_an_actor_end_with_it(
    system: ActorSystem, server: type[Pooled], end: Callable[[Ref], None]
) -> None:
    set_timers: list[Timer] = []
    refs = [system.start(server), system.start(Timed)]
    set_timers.append(run_in(refs[0], lambda actor: actor.send_after(3600, "late")))
    otp_sys.get_state(refs[1])
    set_timers += refs[1].process._timers._timers  # type: ignore[union-attr]
    kept = [weakref.ref(ref.process) for ref in refs]
    assert [timer.is_over for timer in set_timers] == [False, False]
    threads = [] if server is Pooled else [thread_of(refs[0])]
    for ref in refs:
        end(ref)
        exit_reason_of(ref)
    assert [timer.is_over for timer in set_timers] == [True, True]
    for thread in threads:
        thread.join(WAIT_SECONDS)
    sync(system.start(Pooled))
    del refs, ref
    gc.collect()
    assert [process() for process in kept] == [None, None]


def test_an_actor_keeps_no_timers_that_are_over(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server)

    def set_many(actor: Any) -> int:
        for _ in range(1_000):
            actor.send_after(3600, "late").cancel()
        return len(actor._otp_process._timers._timers)

    assert run_in(ref, set_many) < 50


@pytest.mark.parametrize("clock", [5, "system", object()], ids=["number", "text", "object"])
def test_what_is_no_clock_is_refused(clock: Any) -> None:
    functions = "monotonic, boottime, time, call_later, close"
    with pytest.raises(TypeError, match=f"clock must have {functions}, as SystemClock has"):
        ActorSystem(clock=clock)
