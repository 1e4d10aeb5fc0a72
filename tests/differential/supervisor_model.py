"""Random lives of supervision trees: what a tree is made of, and what is done to it. Data and a generator. Pure.

A scenario is data. It says nothing of what ought to happen: Erlang's own ``supervisor`` does. ``label`` names a spec
for good (ids may repeat); the n-th process started from it is ``(label, n)`` in every trace, on either side.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
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

# --- what a tree is made of ---


@dataclass(frozen=True, slots=True)
class Worker:  # A ``gen_server``. ``starts`` says how its first starts go, see ``FAILURES``; all later ones are "ok"
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
class Spec:  # A child specification. None: the field is left out
    label: str
    id: str
    start: Worker | Tree = Worker()
    restart: str | None = None
    shutdown: int | str | None = None  #: milliseconds, or a word
    significant: bool | str | None = None
    type: str | None = None


# --- what is done to it ---


@dataclass(frozen=True, slots=True)
class End:  # End a child: ``stop`` and ``crash`` are casts, ``signal`` and ``kill`` are exit signals from a stranger
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
class ById:  # A function of ``supervisor`` that takes a child id: terminate, restart, delete, get
    tree: str
    function: str
    id: str


@dataclass(frozen=True, slots=True)
class ByPid:  # The same with a pid: of the process ``index`` ever started with this label, dead or alive
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
class Burst:  # Do all of this while the supervisor is suspended; then it finds it all in its mailbox, in this order
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


# --- the generator ---


def generate(seed: int) -> Scenario:
    return _Generator(random.Random(seed)).scenario()


class _Generator:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._numbers = count(1)
        # What may not meet, as its outcome would be a race: see Scenario.is_ordered.
        self._kills_trees = rng.random() < 0.1
        self._endless = not self._kills_trees and rng.random() < 0.25
        self._names = not self._kills_trees and rng.random() < 0.15
        # What makes scenarios differ from each other, rather than be all alike.
        self._fragile = rng.random() < 0.6  # starts may fail
        self._tough = rng.random() < 0.6  # restarts are hardly ever too many
        self._faulty = rng.random() < 0.06  # specs and flags may be wrong
        self._children: dict[str, list[Spec]] = {}  # of each tree, by its label
        self._strategies: dict[str, tuple[str, str]] = {}  # and its auto_shutdown
        self._repeated: set[str] = set()  # trees of which several may live at once

    def scenario(self) -> Scenario:
        tree = self._tree("top", depth=0)
        steps = tuple(self._step() for _ in range(self._rng.randint(1, 10)))
        return Scenario(tree, steps)

    # --- trees ---

    def _tree(self, label: str, depth: int) -> Tree:
        rng = self._rng
        strategy = rng.choice(STRATEGIES) if depth else rng.choice((*STRATEGIES, *STRATEGIES[:3]))
        auto_shutdown = rng.choices(AUTO_SHUTDOWNS, (3, 1, 1))[0]
        if strategy == "simple_one_for_one":
            if not self._faulty:
                auto_shutdown = "never"
            ids = rng.choices((1, 0, 2), (40, 1, 1) if self._faulty else (1, 0, 0))[0]
        else:
            ids = rng.randint(0, 4 if depth == 0 else 2)
        children = tuple(self._spec(id_, depth, auto_shutdown) for id_ in IDS[:ids])
        intensity = 20 if self._tough else rng.randint(0, 3)
        period = SECONDS_LONG
        if self._faulty and rng.random() < 0.2:
            strategy, intensity, auto_shutdown, period = rng.choice(
                [
                    ("all_for_none", intensity, auto_shutdown, period),
                    (strategy, -1, auto_shutdown, period),
                    (strategy, intensity, "sometimes", period),
                    (strategy, intensity, auto_shutdown, 0),
                ]
            )
        starts = self._starts(TREE_FAILURES) if depth else ()
        tree = Tree(strategy, intensity, auto_shutdown, children, period, starts)
        if strategy == "simple_one_for_one":
            self._repeated |= {part.label for part in parts(children) if isinstance(part, Spec)}
        self._children[label] = list(children)
        self._strategies[label] = strategy, auto_shutdown
        return tree

    def _spec(self, id_: str, depth: int, auto_shutdown: str) -> Spec:
        rng = self._rng
        label = f"{id_}{next(self._numbers)}"
        restart = rng.choice((*RESTARTS, None))
        significant = rng.choice((True, False, None))
        if not self._faulty and (auto_shutdown == "never" or restart not in {"transient", "temporary"}):
            significant = rng.choice((False, None))
        shutdown: int | str | None
        start: Worker | Tree
        type_: str | None
        if depth < 2 and rng.random() < (0.2, 0.1)[depth]:
            start = self._tree(label, depth + 1)
            type_ = "supervisor"
            shutdown = rng.choice(("infinity", None, "brutal_kill" if self._kills_trees else "infinity"))
        else:
            start = self._worker()
            type_ = rng.choice(("worker", None))
            if start.terminate == "endless":
                shutdown = rng.choice((ENDLESS_SHUTDOWN, "brutal_kill"))
            else:
                shutdown = rng.choice(("brutal_kill", "infinity", 60_000, None))
        if self._faulty and rng.random() < 0.15:
            restart, significant, shutdown, type_ = rng.choice(
                [
                    ("sometimes", significant, shutdown, type_),
                    (restart, "maybe", shutdown, type_),
                    (restart, significant, -1, type_),
                    (restart, significant, "soon", type_),
                    (restart, significant, shutdown, "robot"),
                ]
            )
        return Spec(label, id_, start, restart, shutdown, significant, type_)

    def _worker(self) -> Worker:
        rng = self._rng
        trap_exit = rng.random() < 0.5
        endings = ("ok", "ok", "crash", "endless" if self._endless and trap_exit else "ok")
        name = rng.choice(("n1", "n2", "n3", None)) if self._names else None
        return Worker(trap_exit, rng.choice(endings), self._starts(FAILURES), name)

    def _starts(self, failures: tuple[str, ...]) -> tuple[str, ...]:
        rng = self._rng
        if not self._fragile or rng.random() < 0.4:
            return ()
        first = rng.choice(failures) if rng.random() < 0.08 else "ok"
        return (first, *(rng.choice(failures) if rng.random() < 0.5 else "ok" for _ in range(rng.randint(1, 4))))

    # --- steps ---

    def _step(self) -> Step:
        rng = self._rng
        kind = rng.random()
        if kind < 0.05:
            return self._end_tree(self._any_tree())
        if kind < 0.08:
            return self._check()
        tree = self._any_tree()
        if kind < 0.35 and tree not in self._repeated:
            return self._burst(tree)
        workers = self._workers(tree)
        if workers and kind < 0.65:
            return self._end(rng.choice(workers).label)
        if workers and kind < 0.7:
            how = rng.choice(("crash", "stop", "stop_reply"))
            return Call(rng.choice(workers).label, how, rng.choice(REASONS), rng.randint(0, 3))
        return self._request(tree)

    def _any_tree(self) -> str:
        return "top" if self._rng.random() < 0.6 else self._rng.choice(list(self._children))

    def _workers(self, tree: str) -> list[Spec]:
        return [spec for spec in self._children[tree] if isinstance(spec.start, Worker)]

    def _end(self, label: str) -> End:
        rng = self._rng
        how = rng.choice(("stop", "stop", "crash", "signal", "kill"))
        return End(label, how, rng.choice(REASONS), rng.randint(0, 3))

    def _end_tree(self, tree: str, *, in_burst: bool = False) -> EndTree:
        rng = self._rng
        hows = ["stop", "cast"] if in_burst else ["stranger", "stop", "call", "cast", "info"]
        if tree == "top" and not in_burst:
            hows.append("parent")
        if self._kills_trees:
            hows += ["kill"] * 3
        return EndTree(tree, rng.choice(hows), rng.choice(REASONS))

    def _check(self) -> Check:
        rng = self._rng
        faulty, self._faulty = self._faulty, True
        auto_shutdown = rng.choice((None, *AUTO_SHUTDOWNS, "sometimes"))
        specs = tuple(self._spec(rng.choice(IDS), 2, rng.choice(AUTO_SHUTDOWNS)) for _ in range(rng.randint(0, 3)))
        self._faulty = faulty
        return Check(specs, auto_shutdown)

    def _burst(self, tree: str) -> Burst:
        """Mostly about one child, so that things meet: its end, the next try to start it, and requests about it."""
        rng = self._rng
        children = self._children[tree]
        focus = rng.choice(children) if children else None
        steps: list[Step] = []
        for _ in range(rng.randint(2, 6)):
            child = rng.choice(children) if children and rng.random() < 0.3 else focus
            if child is None or rng.random() < 0.5:
                steps.append(self._request(tree, child, in_burst=True))
            elif child.label in self._children:
                steps.append(self._end_tree(child.label, in_burst=True))
            else:
                steps.append(self._end(child.label))
        if rng.random() < 0.1:
            how = rng.choice(("call", "cast", "info", "stranger", *(["parent"] if tree == "top" else [])))
            steps.insert(rng.randint(0, len(steps)), EndTree(tree, how, rng.choice(REASONS)))
        return Burst(tree, tuple(steps))

    def _request(self, tree: str, child: Spec | None = None, *, in_burst: bool = False) -> Step:
        rng = self._rng
        strategy, auto_shutdown = self._strategies[tree]
        children = self._children[tree]
        is_simple = strategy == "simple_one_for_one"
        kind = rng.random()
        if kind < 0.2:
            return Ask(tree, rng.choice(("which_children", "count_children")))
        if kind < (0.6 if is_simple else 0.35):
            if is_simple != (rng.random() < 0.02):
                return StartDynamic(tree, rng.randint(0, 9))
            # Ours refuses a faulty spec where it is made; OTP does so where it is used, if it is used as a spec at all.
            faulty, self._faulty = self._faulty, self._faulty and not is_simple and not in_burst
            spec = self._spec(rng.choice(IDS), 1, auto_shutdown)
            self._faulty = faulty
            children.append(spec)
            return StartChild(tree, spec)
        function = rng.choice(("terminate", "terminate", "restart", "restart", "delete", "get"))
        if child is None and children:
            child = rng.choice(children)
        if child is not None and rng.random() < (0.8 if is_simple else 0.03):
            return ByPid(tree, function, child.label, rng.randint(0, 5))
        return ById(tree, function, rng.choice(IDS) if child is None or rng.random() < 0.1 else child.id)
