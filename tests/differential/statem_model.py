"""Random lives of one state machine: what its callbacks return, one after the other, and what it is sent. Pure.

What a callback returns is taken from a list, whatever it is called for, so that no scenario goes on for ever.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

STATES = ("a", "b", "c")
EVENT_TYPES = ("internal", "cast", "info", "timeout", "state_timeout", "timer1")
TIMEOUTS = ("timeout", "state_timeout", "timer1", "timer2")
TIMES = ("zero", "zero", "zero", "long", "infinity", "cancel", "update")

# --- what a callback returns ---


@dataclass(frozen=True, slots=True)
class Reply:  # Answer the oldest call that has none, if there is one; or the newest
    value: str
    oldest: bool = True


@dataclass(frozen=True, slots=True)
class Postpone:
    flag: bool = True


@dataclass(frozen=True, slots=True)
class NextEvent:
    type: str
    content: str


@dataclass(frozen=True, slots=True)
class Timeout:  # Set a time-out; "long" is never reached
    timer: str
    time: str
    content: str


Action: TypeAlias = Reply | Postpone | NextEvent | Timeout


@dataclass(frozen=True, slots=True)
class Result:  # next, keep, repeat; or stop, stop_reply (of all calls), crash, junk
    how: str = "keep"
    state: str = "a"
    actions: tuple[Action, ...] = ()
    reason: str = "normal"


# --- what it is sent ---


@dataclass(frozen=True, slots=True)
class Send:
    content: str
    how: str = "cast"


@dataclass(frozen=True, slots=True)
class Burst:
    sends: tuple[Send, ...]


@dataclass(frozen=True, slots=True)
class Replace:
    state: str


Step: TypeAlias = Send | Burst | Replace


@dataclass(frozen=True, slots=True)
class Scenario:  # ``results`` are for events, ``entered`` for state enter calls; after the last all is "keep"
    first: Result
    results: tuple[Result, ...] = ()
    entered: tuple[Result, ...] = ()
    steps: tuple[Step, ...] = ()
    state_enter: bool = False
    has_state_functions: bool = False

    def is_fair(self) -> bool:
        return self.first.how in {"next", "stop", "crash", "junk"}


# --- the generator ---


def generate(seed: int) -> Scenario:
    return _Generator(random.Random(seed)).scenario()


class _Generator:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._contents = count(1)

    def scenario(self) -> Scenario:
        rng = self._rng
        ending = ("stop", "crash", "junk")
        first = Result(
            rng.choice(ending) if rng.random() < 0.03 else "next", rng.choice(STATES), self._actions(NextEvent, Timeout)
        )
        return Scenario(
            first,
            tuple(self._result() for _ in range(rng.randint(0, 20))),
            tuple(self._entered() for _ in range(rng.randint(0, 6))),
            tuple(self._step() for _ in range(rng.randint(1, 6))),
            rng.random() < 0.5,
            rng.random() < 0.5,
        )

    def _content(self) -> str:
        return f"e{next(self._contents)}"

    def _result(self) -> Result:
        rng = self._rng
        hows = ("next", "next", "keep", "keep", "repeat")
        how = rng.choice(hows)
        if rng.random() < 0.04:
            how = rng.choice(("stop", "stop_reply", "crash", "junk"))
        reason = rng.choice(("normal", "shutdown", "shutdown_done", "crash"))
        return Result(how, rng.choice(STATES), self._actions(Reply, Postpone, NextEvent, Timeout), reason)

    def _entered(self) -> Result:
        """Enter calls may do less; what they must not do, some try.

        These hold no reply: OTP sends those that stand before what it refuses, ours refuses the whole result.
        """
        rng = self._rng
        wrong = rng.random() < 0.1
        how = rng.choice(("next", "keep", "stop", "crash", "junk") if wrong else ("keep", "keep", "repeat"))
        kinds = (Postpone, NextEvent, Timeout) if wrong else (Reply, Timeout)
        return Result(how, rng.choice(STATES), self._actions(*kinds))

    def _actions(self, *kinds: type[Action]) -> tuple[Action, ...]:
        return tuple(self._action(self._rng.choice(kinds)) for _ in range(self._rng.choice((0, 0, 1, 1, 2, 3))))

    def _action(self, kind: type[Action]) -> Action:
        rng = self._rng
        if kind is Reply:
            return Reply(self._content(), rng.random() < 0.7)
        if kind is Postpone:
            return Postpone(rng.random() < 0.85)
        if kind is NextEvent:
            return NextEvent(rng.choice(EVENT_TYPES), self._content())
        return Timeout(rng.choice(TIMEOUTS), rng.choice(TIMES), self._content())

    def _step(self) -> Step:
        rng = self._rng
        kind = rng.random()
        if kind < 0.1:
            return Replace(rng.choice(STATES))
        if kind < 0.5:
            return Burst(tuple(self._send() for _ in range(rng.randint(2, 4))))
        return self._send()

    def _send(self) -> Send:
        return Send(self._content(), self._rng.choice(("call", "call", "cast", "info")))
