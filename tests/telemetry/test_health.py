"""Healthy and ready: in every state, for one process and for several, with somebody missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from receipt_actors.telemetry.health import MOMENT_SECONDS, HealthWatch
from receipt_actors.telemetry.overview import ActorOverview, NodeState, Overview, ProcessOverview, RoleOverview, State

WHOLE = ActorOverview("root", "supervisor", "running", children=(ActorOverview("intake", "worker", "running"),))
BROKEN = ActorOverview("root", "supervisor", "running", children=(ActorOverview("intake", "worker", "restarting"),))


def process(name: str, state: State, tree: ActorOverview | None = WHOLE) -> ProcessOverview:
    return ProcessOverview(name, 1, 1.0, state, tree=tree)


def overview(*processes: ProcessOverview, state: State, parent: ActorOverview | None = None) -> Overview:
    return Overview(0.0, "1", state, "Q", {}, processes, parent=parent)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("state", "is_healthy", "is_ready"),
    [
        (State.STARTING, True, False),
        (State.CONSUMING, True, True),
        (State.WAITING, True, True),
        (State.STANDBY, True, True),
        (State.PAUSED, True, False),
        (State.DRAINING, True, False),
        (State.SILENT, True, False),
        (State.ENDED, False, False),
    ],
)
def test_each_state_has_its_health(state: State, is_healthy: bool, is_ready: bool) -> None:
    tree = None if state in (State.ENDED, State.STARTING) else WHOLE
    health = HealthWatch().judge(overview(process("main", state, tree), state=state))
    assert (health.state, health.is_healthy, health.is_ready) == (state, is_healthy, is_ready)
    assert bool(health.why) == (state not in (State.CONSUMING, State.WAITING, State.STANDBY))


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (State.STARTING, "worker-2 is being started"),
        (State.SILENT, "worker-2 has not said for seconds how it goes; the parent kills it if it hangs"),
    ],
)
def test_it_is_said_which_of_several_processes_it_is(state: State, why: str) -> None:
    processes = process("worker-1", State.CONSUMING), process("worker-2", state)
    health = HealthWatch().judge(overview(*processes, state=state, parent=WHOLE))
    assert (health.is_ready, health.why) == (True, (why,))


def test_an_actor_may_be_missing_for_a_moment() -> None:
    clock = Clock()
    watch = HealthWatch(clock)
    broken = overview(process("main", State.CONSUMING, BROKEN), state=State.CONSUMING)
    whole = overview(process("main", State.CONSUMING), state=State.CONSUMING)
    assert watch.judge(broken).is_healthy
    clock.now += MOMENT_SECONDS / 2
    assert watch.judge(broken).is_healthy
    clock.now += MOMENT_SECONDS / 2
    health = watch.judge(broken)
    assert not health.is_healthy
    assert health.why == (f"intake is missing for more than {MOMENT_SECONDS:g} s",)
    assert watch.judge(whole).is_healthy
    assert watch.judge(broken).is_healthy  # another moment begins
    watch, rootless = HealthWatch(clock), overview(process("main", State.CONSUMING, None), state=State.CONSUMING)
    assert watch.judge(rootless).is_healthy
    clock.now += MOMENT_SECONDS
    assert not watch.judge(rootless).is_healthy


def test_one_of_several_processes_may_end() -> None:
    clock = Clock()
    watch = HealthWatch(clock)
    ended, alive = process("worker-1", State.ENDED, None), process("worker-2", State.CONSUMING)
    one = overview(ended, alive, state=State.ENDED, parent=WHOLE)
    assert watch.judge(one).is_healthy
    clock.now += MOMENT_SECONDS
    health = watch.judge(one)
    assert not health.is_healthy
    assert f"worker-1: root is missing for more than {MOMENT_SECONDS:g} s" in health.why
    both = overview(ended, replace(ended, name="worker-2"), state=State.ENDED, parent=WHOLE)
    assert not HealthWatch(clock).judge(both).is_healthy


@pytest.mark.parametrize("state", [State.DRAINING, State.PAUSED])
def test_a_pause_or_drain_holds_for_processes_that_have_not_heard_of_it(state: State) -> None:
    processes = process("worker-1", State.CONSUMING), process("worker-2", state)
    assert not HealthWatch().judge(overview(*processes, state=state, parent=WHOLE)).is_ready


def test_after_a_storm_nothing_of_what_was_last_known_counts() -> None:
    stale = overview(process("worker-1", State.CONSUMING), state=State.ENDED, parent=WHOLE)
    assert not HealthWatch().judge(stale).is_healthy
    assert not HealthWatch().judge(overview(state=State.ENDED)).is_healthy


@pytest.mark.parametrize("state", [State.STANDBY, State.WAITING, State.PAUSED])
def test_a_process_that_waits_for_its_share_is_no_missing_one(state: State) -> None:
    clock = Clock()
    watch = HealthWatch(clock)
    processes = (replace(process(name, state, None), started_at_seconds=0.0) for name in ("worker-1", "worker-2"))
    waits = overview(*processes, state=state, parent=WHOLE)
    assert watch.judge(waits).is_healthy
    clock.now += 3600
    health = watch.judge(waits)
    assert (health.is_healthy, health.is_ready) == (True, state is not State.PAUSED)


def test_a_node_that_is_cut_off_says_of_what() -> None:
    role = RoleOverview("active-standby", "Q", "a", NodeState.CUT_OFF, 10.0, None, None, ())
    cut_off = replace(overview(process("main", State.WAITING), state=State.WAITING), role=role)
    health = HealthWatch().judge(cut_off)
    assert (health.is_healthy, health.is_ready) == (True, True)
    assert health.why == ("the table of roles does not answer",)
