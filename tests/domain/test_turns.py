"""A queue in which several lines take turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.sending import InTurn


def test_a_long_line_does_not_stand_before_another() -> None:
    """Two lines alternate for as long as both have somebody; what is left keeps its order."""
    queue = InTurn[tuple[str, int]](lambda item: item[0])
    queue.extend([("long", number) for number in range(1000)])
    queue.extend([("short", 0), ("short", 1)])
    taken = [queue.popleft() for _ in range(6)]
    assert taken == [("long", 0), ("short", 0), ("long", 1), ("short", 1), ("long", 2), ("long", 3)]
    assert (len(queue), next(iter(queue))) == (996, ("long", 4))


@given(st.lists(st.one_of(st.tuples(st.integers(0, 3), st.integers()), st.none())))
def test_nothing_is_lost_and_each_line_keeps_its_order(steps: list[tuple[int, int] | None]) -> None:
    """Whatever is put in and taken out (None) when."""
    queue = InTurn[tuple[int, int]](lambda item: item[0])
    put, taken = [], []
    for step in steps:
        if step is not None:
            queue.append(step)
            put.append(step)
        elif queue:
            taken.append(queue.popleft())
        assert len(queue) == len(put) - len(taken) == len(list(queue))
    while queue:
        taken.append(queue.popleft())
    for line in range(4):
        assert [item for item in taken if item[0] == line] == [item for item in put if item[0] == line]


def test_where_nobody_waits_there_is_nobody_to_take() -> None:
    """As with a deque."""
    with pytest.raises(IndexError):
        InTurn[int](str).popleft()


def test_what_is_put_first_is_taken_first() -> None:
    """Whatever its line, and whoever's turn it was; the others keep their order."""
    queue = InTurn[tuple[str, int]](lambda item: item[0])
    queue.extend([("a", 1), ("b", 1), ("a", 2)])
    queue.appendleft(("b", 0))
    queue.appendleft(("c", 0))
    assert [queue.popleft() for _ in range(5)] == [("c", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]
