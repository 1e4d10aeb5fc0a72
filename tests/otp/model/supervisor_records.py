"""What the model of a supervisor knows of a tree: processes, children, and what happened to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from receipt_actors.otp import SIMPLE_ONE_FOR_ONE, Crash, ExitReason, Shutdown
from tests.otp.model.common import Boom
from tests.otp.model.supervisor_specs import AnySpec, SupervisorSpec

SLOW_SECONDS = 3.0  #: how long a slow ``init`` takes
OWN_END_SECONDS = 0.5  #: how much longer a cleanup takes that nobody asked for: it ends at a time of its own


BAD_END = Crash(Boom("in terminate"))
REFUSALS = {"stop": Shutdown("refused"), "raise": Crash(Boom("in init"))}  #: why an ``init`` fails


@dataclass(frozen=True)
class NoAnswer:
    """The supervisor ended first, for this reason."""

    reason: ExitReason


@dataclass(frozen=True)
class Event:
    """The ``number``-th process at ``path`` did this."""

    what: str
    path: str
    number: int
    reason: ExitReason | None = None


@dataclass(eq=False)
class Child:
    """What a supervisor knows of one child. ``process`` is the last one where it is restarting."""

    spec: AnySpec
    path: str
    process: Process | None = None
    restarting: bool = False

    @property
    def running(self) -> bool:
        return self.process is not None and not self.restarting

    @property
    def idle(self) -> bool:
        return self.process is None and not self.restarting

    @property
    def shown(self) -> Any:
        return "restarting" if self.restarting else self.process


@dataclass(eq=False)
class Process:
    """A worker or a supervisor, from its start to its end."""

    spec: AnySpec
    path: str
    number: int
    parent: Process | None
    alive: bool = True
    children: dict[Hashable, Child] = field(default_factory=dict)  # a supervisor's; by token in simple_one_for_one
    mailbox: deque[tuple[Any, ...]] = field(default_factory=deque)
    restarts: list[float] = field(default_factory=list)

    @property
    def is_simple(self) -> bool:
        return isinstance(self.spec, SupervisorSpec) and self.spec.strategy is SIMPLE_ONE_FOR_ONE

    @property
    def key(self) -> tuple[str, int]:
        return self.path, self.number


#: Requests, each with the number of its answer, and children to kill.
Messages: TypeAlias = Sequence[tuple[int, Any] | Process]
