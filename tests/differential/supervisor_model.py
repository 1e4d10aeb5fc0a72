"""Lives of supervision trees: what a tree is made of, and what is done to it. Pure; see ``supervisor_generator``.

A scenario is data. It says nothing of what ought to happen: Erlang's own ``supervisor`` does. ``label`` names a spec
for good (ids may repeat); the n-th process started from it is ``(label, n)`` in every trace, on either side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one")
RESTARTS = ("permanent", "transient", "temporary")
AUTO_SHUTDOWNS = ("never", "any_significant", "all_significant")
IDS = "abcde"
#: How a start may go wrong: "refused", "start_crash" and "junk" in the start function, the rest in ``init``.
TREE_FAILURES = ("ignore", "refused", "start_crash")
FAILURES = (*TREE_FAILURES, "junk", "stop_normal", "stop_shutdown", "stop_crash", "crash")
REASONS = ("normal", "shutdown", "shutdown_done", "crash")
ENDLESS_SHUTDOWN = 1  #: milliseconds; of children that never end, and of these alone: no race with a child that does
SECONDS_LONG = 3600  #: the period of every window: no scenario lasts as long

# --- what a tree is made of ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Worker:
    """A ``gen_server``. ``starts`` says how its first starts go, see ``FAILURES``; all later ones are "ok"."""

    trap_exit: bool = False
    terminate: str = "ok"  #: or "crash", or "endless": it never returns
    starts: tuple[str, ...] = ()
    name: str | None = None  #: registered under


@dataclass(frozen=True, slots=True)
class Tree:
    strategy: str = "one_for_one"
    intensity: int = 1
    auto_shutdown: str = "never"
    children: tuple[Spec, ...] = ()
    period: int = SECONDS_LONG
    starts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """A child specification. None: the field is left out."""

    label: str
    id: str
    start: Worker | Tree = Worker()
    restart: str | None = None
    shutdown: int | str | None = None  #: milliseconds, or a word
    significant: bool | str | None = None
    type: str | None = None


# --- what is done to it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class End:
    """End a child: ``stop`` and ``crash`` are casts, ``signal`` and ``kill`` are exit signals from a stranger."""

    label: str
    how: str = "kill"
    reason: str = "normal"
    index: int = 0  #: of those that live with this label


@dataclass(frozen=True, slots=True)
class Call:
    label: str
    how: str = "crash"
    reason: str = "normal"
    index: int = 0


@dataclass(frozen=True, slots=True)
class StartChild:
    tree: str
    spec: Spec


@dataclass(frozen=True, slots=True)
class StartDynamic:
    tree: str
    argument: int = 0


@dataclass(frozen=True, slots=True)
class ById:
    """A function of ``supervisor`` that takes a child id: terminate, restart, delete, get."""

    tree: str
    function: str
    id: str


@dataclass(frozen=True, slots=True)
class ByPid:
    """The same with a pid: of the process ``index`` ever started with this label, dead or alive."""

    tree: str
    function: str
    label: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    tree: str
    function: str = "which_children"


@dataclass(frozen=True, slots=True)
class EndTree:
    """End a supervisor: ``parent``, ``stranger`` (exit signals), ``kill``, ``stop``; or send it what it can't know."""

    tree: str
    how: str = "kill"
    reason: str = "shutdown"


@dataclass(frozen=True, slots=True)
class Check:
    specs: tuple[Spec, ...]
    auto_shutdown: str | None = None


@dataclass(frozen=True, slots=True)
class Burst:
    """Do all of this while the supervisor is suspended; then it finds it all in its mailbox, in this order."""

    tree: str
    steps: tuple[Step, ...]


Step: TypeAlias = End | Call | StartChild | StartDynamic | ById | ByPid | Ask | EndTree | Check | Burst


@dataclass(frozen=True, slots=True)
class Scenario:
    """A tree, whose supervisor has the label "top", and what is done to it; at the end its parent shuts it down."""

    tree: Tree
    steps: tuple[Step, ...] = ()

    def is_ordered(self) -> bool:
        """Tell whether one thing happens after another.

        The orphans of a killed supervisor all end at once, and so do the trees under a simple_one_for_one supervisor.
        """
        return not any(map(_is_unordered, parts(self)))

    def is_fair(self) -> bool:
        """Tell whether no two things race: a child that never ends is one that is killed, at once or on time."""
        for spec in (part for part in parts(self) if isinstance(part, Spec)):
            match spec.start:
                case Worker(trap_exit, "endless"):
                    if not trap_exit or spec.shutdown not in {ENDLESS_SHUTDOWN, "brutal_kill"}:
                        return False
                case _ if spec.shutdown == ENDLESS_SHUTDOWN:
                    return False
        return True


def _is_unordered(part: object) -> bool:
    match part:
        case EndTree(how="kill") | Spec(start=Tree(), shutdown="brutal_kill" | 0):
            return True
        case Tree("simple_one_for_one", children=children):
            return any(isinstance(child.start, Tree) for child in children)
    return False


def parts(value: object) -> Iterator[object]:
    yield value
    if isinstance(value, tuple):
        for item in value:
            yield from parts(item)
    elif hasattr(value, "__dataclass_fields__"):
        for field in value.__dataclass_fields__:
            yield from parts(getattr(value, field))
