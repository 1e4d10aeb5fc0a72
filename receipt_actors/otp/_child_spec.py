"""Child specifications: how a supervisor starts, restarts and stops a child (OTP: ``child_spec()``)."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from receipt_actors.otp._actor import Actor
from receipt_actors.otp._context import context
from receipt_actors.otp._messages import Name, Starting, StartResult


class Restart(enum.Enum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"  #: always
    TRANSIENT = "transient"  #: after a crash, not after ``normal`` or ``shutdown``
    TEMPORARY = "temporary"  #: never, and its spec is forgotten


class Strategy(enum.Enum):
    """Which siblings share the fate of a child that is restarted."""

    ONE_FOR_ONE = "one_for_one"  #: none
    ONE_FOR_ALL = "one_for_all"  #: all
    REST_FOR_ONE = "rest_for_one"  #: those started after it
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"  #: none; all children are made from one spec, on demand


class ChildType(enum.Enum):
    """What a child is; a supervisor should get ``INFINITY`` to shut its own children down."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"


class _ShutdownWord(enum.Enum):
    BRUTAL_KILL = "brutal_kill"
    INFINITY = "infinity"


BRUTAL_KILL: Final = _ShutdownWord.BRUTAL_KILL  #: kill it at once
INFINITY: Final = _ShutdownWord.INFINITY  #: wait for as long as it takes

#: Seconds a child may take to end after the exit signal ``shutdown`` before it is killed; or one of the two words.
Shutdown: TypeAlias = float | _ShutdownWord


class Start:
    """The usual ``start`` of a spec: an actor class, its arguments and the name to register it under (OTP: ``MFA``)."""

    __slots__ = ("actor_class", "args", "kwargs", "name")

    def __init__(self, actor_class: type[Actor], /, *args: Any, name: Name | None = None, **kwargs: Any) -> None:
        self.actor_class = actor_class
        self.args = args
        self.kwargs = kwargs
        self.name = name

    def __call__(self, *extra_args: Any) -> StartResult | Starting:
        """Start it as a child of the current actor; a simple_one_for_one supervisor appends ``extra_args``."""
        process = context.process
        if process is None:
            raise RuntimeError("a child is started by its supervisor")
        return process.system.start_link(self.actor_class, *self.args, *extra_args, name=self.name, **self.kwargs)

    def __repr__(self) -> str:
        return f"Start({self.actor_class.__name__})"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a supervisor starts, restarts and stops one child."""

    id: Hashable
    start: Callable[..., StartResult | Starting]  #: called in the supervisor; usually a ``Start``
    restart: Restart = Restart.PERMANENT
    shutdown: Shutdown = 5.0
    type: ChildType = ChildType.WORKER

    def __post_init__(self) -> None:
        """Refuse what makes no sense before anything is started."""
        try:
            hash(self.id)
        except TypeError as error:
            raise ValueError(f"child {self.id!r}: id must be hashable") from error
        if not callable(self.start):
            raise ValueError(f"child {self.id!r}: start must be callable (usually a Start), not {self.start!r}")
        if not isinstance(self.restart, Restart):
            raise ValueError(f"child {self.id!r}: restart must be a Restart, not {self.restart!r}")
        if not isinstance(self.type, ChildType):
            raise ValueError(f"child {self.id!r}: type must be a ChildType, not {self.type!r}")
        shutdown = self.shutdown
        if not isinstance(shutdown, _ShutdownWord) and (
            isinstance(shutdown, bool) or not isinstance(shutdown, int | float) or not 0 <= shutdown < math.inf
        ):
            raise ValueError(
                f"child {self.id!r}: shutdown must be seconds (0 or more), BRUTAL_KILL or INFINITY, not {shutdown!r}"
            )


def check_child_specs(specs: Sequence[ChildSpec]) -> None:
    """Refuse a list of specs with an id twice, or with something else in it.

    Raises:
        ValueError: naming the id, or what else it is.
    """
    seen: set[Hashable] = set()
    for spec in specs:
        if not isinstance(spec, ChildSpec):
            raise ValueError(f"a supervisor's children are ChildSpecs, not {spec!r}")
        if spec.id in seen:
            raise ValueError(f"child id {spec.id!r} is there twice; ids must be unique within a supervisor")
        seen.add(spec.id)
