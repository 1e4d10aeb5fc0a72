"""``supervisor_spec``: a supervisor, of whatever strategy, as a child; trees are written by nesting it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from receipt_actors.otp._child_spec import (
    INFINITY,
    AutoShutdown,
    ChildSpec,
    ChildType,
    Restart,
    Start,
    Strategy,
)
from receipt_actors.otp._simple_one_for_one import SimpleOneForOneSupervisor
from receipt_actors.otp._supervision import check_supervisor
from receipt_actors.otp._supervisor import Supervisor


def supervisor_spec(
    id: Hashable,
    strategy: Strategy,
    children: Sequence[ChildSpec],
    *,
    intensity: int = 1,
    period_seconds: float = 5.0,
    restart: Restart = Restart.PERMANENT,
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
    max_zombies: int = 10,
    significant: bool = False,
) -> ChildSpec:
    """Describe a supervisor as a child, registered under its id.

    Args:
        id: its id, and its name in the actor system.
        strategy: how its children's restarts hang together; ``SIMPLE_ONE_FOR_ONE`` takes exactly one spec.
        children: their specs, in start order.
        intensity: restarts allowed within ``period_seconds``; one more ends the supervisor.
        period_seconds: see ``intensity``.
        restart: when its own supervisor starts it again.
        auto_shutdown: whether it ends with its significant children; ``SIMPLE_ONE_FOR_ONE`` can't.
        max_zombies: killed children whose threads may still be busy; one more ends the supervisor.
        significant: whether its end counts for its own supervisor's ``auto_shutdown``.

    Raises:
        ValueError: an id is there twice, simple_one_for_one has not exactly one spec, or something is no strategy, no
            ``ChildSpec``, no intensity, no period, or not allowed together with ``auto_shutdown``.
    """
    try:
        check_supervisor(children, strategy, intensity, period_seconds, auto_shutdown, max_zombies)
    except ValueError as error:
        raise ValueError(f"supervisor {id!r}: {error}") from None
    is_simple = strategy is Strategy.SIMPLE_ONE_FOR_ONE
    start = Start(
        SimpleOneForOneSupervisor if is_simple else Supervisor,
        children[0] if is_simple else tuple(children),
        intensity=intensity,
        period_seconds=period_seconds,
        auto_shutdown=auto_shutdown,
        max_zombies=max_zombies,
        name=id,
        **({} if is_simple else {"strategy": strategy}),
    )
    return ChildSpec(id, start, restart, INFINITY, ChildType.SUPERVISOR, significant)
