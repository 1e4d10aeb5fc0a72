"""``Lines``: whose turn it is among the messages of a FIFO queue's groups. Pure.

A receive may bring several messages of one group, and they must be worked on one after the other. In the line of a
group the first one is worked on, the others wait. When the first one is finished it is the next one's turn. When one is
not finished (it is handed back, or its processor crashed), it will come again, so whatever stands behind it must come
again after it: all of these leave the line with it, and so does what the same receive has brought and joins only later.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

M = TypeVar("M", bound=Hashable)


class Turn(Enum):
    """What whoever joins a line is to do."""

    BEGIN = auto()
    WAIT = auto()
    STAND_BACK = auto()  #: one before it was not finished


@dataclass(frozen=True, slots=True)
class Left(Generic[M]):
    """What follows from a member's end."""

    begin: M | None = None  #: whose turn it is now
    stand_back: Sequence[M] = ()  #: who has left the line with it


class Lines(Generic[M]):
    """See the module. ``receive`` is anything that the messages of one receive share, and no others of the group."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, list[M]] = {}
        self._broken: dict[tuple[Hashable, Hashable], float] = {}  # group and receive, and when that was

    def join(self, group: Hashable, member: M, receive: Hashable) -> Turn:
        """Stand at the end of the group's line, unless that has been broken up for this receive."""
        if (group, receive) in self._broken:
            return Turn.STAND_BACK
        line = self._lines.setdefault(group, [])
        line.append(member)
        return Turn.BEGIN if len(line) == 1 else Turn.WAIT

    def leave(self, group: Hashable, member: M, receive: Hashable, *, is_finished: bool, now_seconds: float) -> Left[M]:
        """Take a member out, whose message is finished, or will come again; also one that is not in line any more."""
        line = self._lines.get(group, [])
        place = line.index(member) if member in line else len(line)
        if is_finished:
            del line[place : place + 1]
            followers: Sequence[M] = ()
        else:
            followers = tuple(line[place + 1 :])
            del line[place:]
            self._broken[group, receive] = now_seconds
        if not line:
            self._lines.pop(group, None)
        return Left(line[0] if line and is_finished and place == 0 else None, followers)

    def forget(self, before_seconds: float) -> None:
        """Forget which receives were broken up before that time; nothing joins so late."""
        if self._broken:
            self._broken = {key: seconds for key, seconds in self._broken.items() if seconds >= before_seconds}
