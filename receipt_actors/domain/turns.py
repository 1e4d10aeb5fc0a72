"""Queues of what waits: ``Waiting`` is what one offers, ``InTurn`` one in which several lines take turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import chain
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Waiting(Protocol[T]):
    """A queue, first in, first out, or nearly so: a ``deque`` is one, and so is ``InTurn``."""

    def append(self, item: T, /) -> None:
        """Put an item at the end."""

    def appendleft(self, item: T, /) -> None:
        """Make an item the next one."""

    def extend(self, items: Iterable[T], /) -> None:
        """Put each item at the end."""

    def popleft(self) -> T:
        """Take the next one. Raises ``IndexError`` where there is none."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T]: ...


class InTurn(Generic[T]):
    """However long one line is, the first of another is not behind it.

    ``line_of`` says to which line an item belongs; each keeps its own order.
    """

    def __init__(self, line_of: Callable[[T], Hashable]) -> None:
        self._line_of = line_of
        self._lines: dict[Hashable, deque[T]] = {}  # those that are not empty; the next one first

    def append(self, item: T, /) -> None:
        """Put an item at the end of its line."""
        self._lines.setdefault(self._line_of(item), deque()).append(item)

    def appendleft(self, item: T, /) -> None:
        """Make an item the next one, and the first of its line."""
        key = self._line_of(item)
        line = self._lines.get(key, deque())
        line.appendleft(item)
        self._lines = {key: line, **self._lines}  # the first key keeps its place

    def extend(self, items: Iterable[T], /) -> None:
        """Put each item at the end of its line."""
        for item in items:
            self.append(item)

    def popleft(self) -> T:
        """Take the first of the line whose turn it is. Raises ``IndexError`` where there is none."""
        if not self._lines:
            raise IndexError("nothing waits")
        key = next(iter(self._lines))
        line = self._lines.pop(key)
        item = line.popleft()
        if line:
            self._lines[key] = line  # behind the others
        return item

    def __len__(self) -> int:
        return sum(map(len, list(self._lines.values())))  # from any thread

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._lines.values())
