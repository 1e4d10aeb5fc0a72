"""Supervision trees as values, and the strategies that draw them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from receipt_actors.otp import (
    BRUTAL_KILL,
    INFINITY,
    PERMANENT,
    SIMPLE_ONE_FOR_ONE,
    SUPERVISOR,
    WORKER,
    AutoShutdown,
    ChildType,
    Restart,
    Strategy,
)

IDS = st.sampled_from("abcd")


@dataclass(frozen=True)
class WorkerSpec:
    id: Hashable
    restart: Restart
    shutdown: Any
    traps: bool
    threaded: bool
    cleanup_seconds: float  #: how long its ``terminate`` takes
    ends_badly: bool  #: its ``terminate`` raises
    significant: bool
    type: ChildType = WORKER


@dataclass(frozen=True)
class SupervisorSpec:
    id: Hashable
    restart: Restart
    shutdown: Any
    strategy: Strategy
    intensity: int
    period_seconds: float
    auto_shutdown: AutoShutdown
    significant: bool
    children: tuple[AnySpec, ...]  #: one for simple_one_for_one
    type: ChildType = SUPERVISOR


AnySpec = WorkerSpec | SupervisorSpec


def allowed(spec: AnySpec, auto_shutdown: AutoShutdown) -> AnySpec:
    """Return the spec as a supervisor with this ``auto_shutdown`` takes it."""
    takes = spec.restart is not PERMANENT and auto_shutdown is not AutoShutdown.NEVER
    return replace(spec, significant=spec.significant and takes)


def gently_ended(spec: AnySpec) -> AnySpec:
    """Return the spec with no supervisor in it that is killed: its children's names are freed at some time only."""
    if isinstance(spec, WorkerSpec):
        return spec
    return replace(spec, shutdown=INFINITY, children=tuple(map(gently_ended, spec.children)))


worker_specs = st.builds(
    WorkerSpec,
    id=IDS,
    restart=st.sampled_from(Restart),
    # What a terminate takes and what it is given are never the same: who is first would be left open.
    shutdown=st.sampled_from([1.0, INFINITY, 4.0, BRUTAL_KILL]),
    traps=st.booleans(),
    threaded=st.booleans(),
    cleanup_seconds=st.sampled_from([0.0, 2.0, 6.0]),
    ends_badly=st.sampled_from([False, False, True]),
    significant=st.sampled_from([False, True, True]),
)


@st.composite
def supervisor_specs(draw: st.DrawFn, *, depth: int) -> SupervisorSpec:
    """Draw a supervisor with ``depth`` levels of supervisors, itself included, at most."""
    strategy = draw(st.sampled_from(Strategy))
    is_simple = strategy is SIMPLE_ONE_FOR_ONE  # it takes no auto_shutdown
    auto_shutdown = AutoShutdown.NEVER if is_simple else draw(st.sampled_from(AutoShutdown))
    # Sizes are drawn first: lists as hypothesis likes them are short.
    size = 1 if is_simple else draw(st.sampled_from([1, 2, 3, 4, 4, 0]))
    children = [replace(draw(child_specs(depth=depth - 1)), id=id_) for id_ in "abcd"[:size]]
    return SupervisorSpec(
        id=draw(IDS),
        restart=draw(st.sampled_from(Restart)),
        # A supervisor that is given seconds to end may be killed half-way: the manual warns of it.
        shutdown=draw(st.sampled_from([INFINITY, INFINITY, BRUTAL_KILL])),
        strategy=strategy,
        intensity=draw(st.sampled_from([4, 8, 1, 2, 20, 0])),
        period_seconds=draw(st.sampled_from([5.0, 10.0])),
        auto_shutdown=auto_shutdown,
        significant=draw(st.booleans()),
        children=tuple(allowed(child, auto_shutdown) for child in children),
    )


def child_specs(*, depth: int) -> st.SearchStrategy[AnySpec]:
    return worker_specs | supervisor_specs(depth=depth) if depth else worker_specs
