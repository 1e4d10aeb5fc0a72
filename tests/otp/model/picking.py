"""How machines choose: hypothesis draws a number, and the state says among whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

PICKS = st.integers(0, 60)


def picked(candidates: Sequence[T], pick: int) -> T:
    return candidates[pick % len(candidates)]
