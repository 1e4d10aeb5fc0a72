"""Whether a system is healthy and ready: judged from overviews, for probes and watchdogs.

The tree of a *healthy* system is whole, or is being restarted: a new process would not help. A *ready* system takes
messages in, or waits for a service or for other nodes. Of several processes one that is ready is enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from receipt_actors.telemetry.overview import ActorOverview, NodeState, Overview, ProcessOverview, State

MOMENT_SECONDS = 10.0  #: for which an actor, or a whole process, may be missing while it is restarted

_READY = frozenset({State.CONSUMING, State.WAITING, State.STANDBY})
_WHY_NOT_READY = {
    State.STARTING: "it is being started",
    State.PAUSED: "paused by an operator",
    State.DRAINING: "draining: it takes nothing in any more",
    State.SILENT: "a process has not said for seconds how it goes; its parent kills it if it hangs",
    State.ENDED: "the supervision tree has ended",
}
_WHICH_OF_SEVERAL = {
    State.STARTING: "is being started",
    State.SILENT: "has not said for seconds how it goes; the parent kills it if it hangs",
}


@dataclass(frozen=True, slots=True)
class Health:
    state: State
    is_healthy: bool
    is_ready: bool
    why: tuple[str, ...]  #: what is not as it should be

    def as_json(self) -> dict[str, object]:
        return {"state": self.state.value, "why": list(self.why)}


class HealthWatch:
    """Judges one overview after the other, and remembers since when an actor is missing."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._missing_since: dict[str, float] = {}

    def judge(self, overview: Overview | None) -> Health:
        """Judge an overview; None: the system has not been started yet."""
        if overview is None:
            return Health(State.STARTING, True, False, (_WHY_NOT_READY[State.STARTING],))
        now = self._monotonic()
        missing = set(_missing(overview))
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
        too_long = sorted(name for name, since in self._missing_since.items() if now - since >= MOMENT_SECONDS)
        has_ended = _has_ended(overview)
        why = list(_why_not_ready(overview))
        why += [f"{name} is missing for more than {MOMENT_SECONDS:g} s" for name in too_long]
        services = sorted({service for process in overview.processes for service in process.unavailable})
        why += [f"{service} is unavailable" for service in services]
        if overview.role is not None and overview.role.state is NodeState.CUT_OFF:
            why.append("the table of roles does not answer")
        return Health(overview.state, not has_ended and not too_long, _is_ready(overview), tuple(why))


def _is_ready(overview: Overview) -> bool:
    if overview.state in (State.DRAINING, State.PAUSED):  # those that are not yet are about to be
        return False
    return overview.state in _READY or any(process.state in _READY for process in overview.processes)


def _why_not_ready(overview: Overview) -> Iterator[str]:
    names = [process.name for process in overview.processes if process.state is overview.state]
    if overview.state in _WHICH_OF_SEVERAL and 0 < len(names) < len(overview.processes):
        yield f"{', '.join(names)} {_WHICH_OF_SEVERAL[overview.state]}"
    elif overview.state in _WHY_NOT_READY:
        yield _WHY_NOT_READY[overview.state]


def _has_ended(overview: Overview) -> bool:
    # A process that ended alone is missing, and is about to be restarted.
    ended = [process.state is State.ENDED for process in overview.processes]
    return overview.state is State.ENDED and (all(ended) or not any(ended))


def _missing(overview: Overview) -> Iterator[str]:
    several = overview.parent is not None
    if overview.parent is not None:
        yield from _restarting(overview.parent, "")
    for process in overview.processes:
        prefix = f"{process.name}: " if several else ""
        if process.state is State.ENDED or _lacks_its_tree(process):
            yield f"{prefix}root"
        if process.tree is not None:
            yield from _restarting(process.tree, prefix)


def _lacks_its_tree(process: ProcessOverview) -> bool:
    has_begun = process.started_at_seconds > 0  # else it has not said anything of itself: it loads, or waits for work
    return process.tree is None and process.state is not State.STARTING and has_begun


def _restarting(actor: ActorOverview, prefix: str) -> Iterator[str]:
    if actor.status == "restarting":
        yield f"{prefix}{actor.name}"
    for child in actor.children:
        yield from _restarting(child, prefix)
