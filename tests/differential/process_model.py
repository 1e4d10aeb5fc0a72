"""Random lives of a few processes: links, monitors, exit signals, calls, casts, names. Data and a generator. Pure.

Processes are numbered as they start, from 1; an ``index`` of a scenario means the process of that number, modulo how
many there have been, dead or alive. A callback can do several things (``Act``), but only the last of them may be one
that can end a process: two ends at once would race on Erlang, and there would be nothing to compare with. What it sends
after an exit signal to itself is the exception: that signal has its effect at once, so nobody gets anything of it.

A process that another one started has no further links: of two links, either may be the first to end a process.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TypeAlias

REASONS = ("normal", "shutdown", "shutdown_done", "crash")
NAMES = ("n1", "n2", "n3")
INITS = ("ok", "continue", "ignore", "stop_normal", "stop_shutdown", "stop_crash", "crash")

# --- what a process does within a callback ---


@dataclass(frozen=True, slots=True)
class Relate:  # ``link``, ``unlink`` or ``monitor``
    index: int
    how: str = "link"


@dataclass(frozen=True, slots=True)
class Demonitor:  # Undo the monitor of this number (modulo how many it took), perhaps with ``flush``
    number: int = 0
    flush: bool = False


@dataclass(frozen=True, slots=True)
class TrapExit:
    flag: bool = True


@dataclass(frozen=True, slots=True)
class Tell:  # ``send`` or ``cast`` to a process; or ``cast_name``, then ``name`` says to whom
    index: int
    how: str = "send"
    name: str = "n1"


@dataclass(frozen=True, slots=True)
class Request:
    """``send_request``, to a name where there is one; ``how`` says what is done with it.

    reply, later (no reply for the time being), stop_reply, stop, crash.
    """

    index: int
    how: str = "reply"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer all requests that were left for later."""


@dataclass(frozen=True, slots=True)
class WhereIs:
    name: str = "n1"


@dataclass(frozen=True, slots=True)
class Spawn:
    init: str = "ok"
    trap_exit: bool = False
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """``exit/2``, to another process; where that is killed its end is waited for, and then something done about it."""

    index: int
    reason: str = "kill"
    afterwards: str | None = None  #: unlink, demonitor, flush, monitor


@dataclass(frozen=True, slots=True)
class ExitSelf:
    """``exit(self(), Reason)``: an exit signal to itself.

    Not of a process that traps exits and has no parent. OTP's ``gen_server:start`` makes it its own parent, so that it
    ends; ours gets a message, as a plain Erlang process does.
    """

    reason: str = "kill"


Op: TypeAlias = Relate | Demonitor | TrapExit | Tell | Request | Answer | WhereIs | Spawn | Signal | ExitSelf

# --- steps ---


@dataclass(frozen=True, slots=True)
class Act:
    """Have a process do this in one callback, for a ``call``, ``cast`` or ``send``; ``then`` is how that ends.

    go_on, continue (of a cast or send), stop, stop_reply (of a call), crash.
    """

    index: int
    ops: tuple[Op, ...] = ()
    how: str = "call"
    then: str = "go_on"
    reason: str = "normal"


@dataclass(frozen=True, slots=True)
class Stranger:  # An exit signal from none of them
    index: int
    reason: str = "kill"


@dataclass(frozen=True, slots=True)
class Held:  # Do all of this, one after another, while this process handles nothing; then it finds it in its mailbox
    index: int
    steps: tuple[Act | Stranger, ...]


Step: TypeAlias = Act | Stranger | Held


@dataclass(frozen=True, slots=True)
class First:
    trap_exit: bool = False
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    processes: tuple[First, ...]
    steps: tuple[Step, ...] = ()

    def is_fair(self) -> bool:
        """Tell whether nothing in it races; see the module."""
        return bool(self.processes) and all(map(_is_fair, self.steps))


def _is_fair(step: Step) -> bool:
    match step:
        case Act(_, ops, how):
            # Whose end comes back through a link while it is about to answer, may or may not have answered.
            return _are_fair([step]) and not (how == "call" and ops and _can_end_another(ops[-1]))
        case Held(index, steps):
            # What the held process does, it does all at once when it goes on.
            own = [part for part in steps if isinstance(part, Act) and part.index == index]
            return _are_fair(own) and all(_is_fair(part) for part in steps)
    return True


def _are_fair(acts: list[Act]) -> bool:
    """Tell whether nothing but the last thing that is done can end a process, and take no answer under way with it."""
    does = [op for act in acts for op in (*act.ops, act)]
    ends = [number for number, part in enumerate(does) if _can_end(part)]
    if not ends:
        return True
    after = does[ends[0] + 1 :]
    if isinstance(does[ends[0]], ExitSelf):  # which has an effect before the next thing is done
        after = [op for op in after if not isinstance(op, Tell)]
    is_last = len(ends) == 1 and len(after) <= 1
    return is_last and not any(isinstance(op, Request) for op in does[: ends[0]])


def _can_end(part: Op | Act) -> bool:
    match part:
        case Act():
            return part.then not in {"go_on", "continue"}
        case ExitSelf():
            return True
        case Spawn(init):
            return init not in {"ok", "continue"}
    return _can_end_another(part)


def _can_end_another(op: Op) -> bool:
    return isinstance(op, Signal) or (isinstance(op, Request) and op.how not in {"reply", "later"})


# --- the generator ---


def generate(seed: int) -> Scenario:
    rng = random.Random(seed)
    while not (scenario := _Generator(rng).scenario()).is_fair():
        pass
    return scenario


class _Generator:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._trapping = rng.choice((0.2, 0.5, 0.8))

    def scenario(self) -> Scenario:
        rng = self._rng
        names = [rng.choice((name, None)) for name in NAMES]
        processes = tuple(First(self._traps(), name) for name in names[: rng.randint(2, 3)])
        # Without relations there is little to see: begin with some.
        ties = tuple(Act(self._index(), self._quiet_ops(Relate)) for _ in range(rng.randint(1, 4)))
        return Scenario(processes, (*ties, *(self._step() for _ in range(rng.randint(2, 10)))))

    def _traps(self) -> bool:
        return self._rng.random() < self._trapping

    def _index(self) -> int:
        return self._rng.randint(0, 5)

    def _step(self) -> Step:
        rng = self._rng
        if rng.random() < 0.25:
            held = self._index()
            return Held(held, tuple(self._held_step(held) for _ in range(rng.randint(2, 4))))
        return self._stranger() if rng.random() < 0.15 else self._act(self._index())

    def _held_step(self, held: int) -> Act | Stranger:
        rng = self._rng
        if rng.random() < 0.4:
            how = rng.choice(("cast", "send", "call"))
            return Act(held, (), how, rng.choice(("go_on", "go_on", "continue" if how != "call" else "go_on")))
        return self._stranger() if rng.random() < 0.2 else self._act(self._index())

    def _stranger(self) -> Stranger:
        return Stranger(self._index(), self._rng.choice((*REASONS, "kill")))

    def _act(self, index: int) -> Act:
        rng = self._rng
        how = rng.choice(("call", "call", "cast", "send"))
        ops = self._quiet_ops(Relate, Demonitor, TrapExit, Tell, Request, Answer, WhereIs, Spawn)
        kind = rng.random()
        if kind < 0.35:
            lethal = self._lethal_op()
            too_late = self._quiet_ops(Tell) if isinstance(lethal, ExitSelf) else ()
            return Act(index, (*ops, lethal, *too_late), how)
        thens = ["go_on", "stop", "crash", "stop_reply" if how == "call" else "continue"]
        return Act(index, ops, how, rng.choices(thens, (6, 1, 1, 1))[0], rng.choice(REASONS))

    def _quiet_ops(self, *kinds: type[Op]) -> tuple[Op, ...]:
        return tuple(self._quiet_op(self._rng.choice(kinds)) for _ in range(self._rng.randint(1, 3)))

    def _quiet_op(self, kind: type[Op]) -> Op:
        rng = self._rng
        index, name = self._index(), rng.choice(NAMES)
        if kind is Relate:
            return Relate(index, rng.choice(("link", "link", "monitor", "monitor", "unlink")))
        if kind is Demonitor:
            return Demonitor(rng.randint(0, 3), rng.random() < 0.5)
        if kind is TrapExit:
            return TrapExit(self._traps())
        if kind is Tell:
            return Tell(index, rng.choice(("send", "cast", "cast_name")), name)
        if kind is Request:
            return Request(index, rng.choice(("reply", "later")), rng.choice((None, None, name)))
        if kind is WhereIs:
            return WhereIs(name)
        if kind is Spawn:
            return Spawn(rng.choice(("ok", "ok", "ok", "continue")), self._traps(), rng.choice((None, None, name)))
        return Answer()

    def _lethal_op(self) -> Op:
        rng = self._rng
        index = self._index()
        kind = rng.random()
        if kind < 0.2:
            return ExitSelf(rng.choice((*REASONS, "kill")))
        if kind < 0.35:
            return Signal(index, "kill", rng.choice((None, "unlink", "demonitor", "flush", "monitor")))
        if kind < 0.6:
            return Signal(index, rng.choice(REASONS))
        if kind < 0.8:
            return Request(index, rng.choice(("stop_reply", "stop", "crash")), rng.choice((None, rng.choice(NAMES))))
        return Spawn(rng.choice(INITS), self._traps(), rng.choice((None, rng.choice(NAMES))))
