"""What the machines share: how they choose, and the reasons for which processes end by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

from receipt_actors.otp import NORMAL, SHUTDOWN, Crash, Shutdown

T = TypeVar("T")

#: Hypothesis draws a number, and the state says among whom it picks.
PICKS = st.integers(0, 60)


def picked(candidates: Sequence[T], pick: int) -> T:
    return candidates[pick % len(candidates)]


class Boom(Exception):
    """A crash; two of the same text are the same."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boom) and other.args == self.args

    def __hash__(self) -> int:
        return hash(self.args)


END_REASONS = st.sampled_from([Crash(Boom("by itself")), NORMAL, SHUTDOWN, Shutdown("done")])
