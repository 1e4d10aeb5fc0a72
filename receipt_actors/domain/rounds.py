"""In which order the messages of one receive are begun: what is of one FIFO group one after the other. Pure.

A round has one message of each group at most, and the next round begins when all of it are on their way; so whoever
keeps the groups in order (``domain.lines``) hears of them in order. What is of no group is in the first round. Behind a
message that is not begun nothing of its group is: it will come again, and so must they, after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from receipt_actors.domain.messages import Submission, Unanswerable
from receipt_actors.domain.ports import ReceivedMessage

#: A delivery and what is to be done about it.
Delivery: TypeAlias = tuple[ReceivedMessage, Submission | Unanswerable]


@dataclass(frozen=True, slots=True)
class Rounds:
    """What is to be begun; none of the rounds is empty."""

    rounds: Sequence[Sequence[Delivery]]
    corrupt: Sequence[ReceivedMessage] = ()  #: copies that did not arrive as they were sent: left to come again
    behind: Sequence[ReceivedMessage] = ()  #: what may not be begun before others of its group have come again

    def after_first(self, groups_with_gap: Collection[str | None]) -> Rounds:
        """Return the rounds after the first one, without those groups of which something in it did not begin."""
        rounds = self.rounds[1:]
        if not rounds or not groups_with_gap:
            return Rounds(rounds)
        kept = [[each for each in one if each[0].group_id not in groups_with_gap] for one in rounds]
        behind = [delivery for one in rounds for delivery, _ in one if delivery.group_id in groups_with_gap]
        return Rounds(tuple(filter(None, kept)), behind=behind)


def into_rounds(received: Sequence[tuple[ReceivedMessage, Submission | Unanswerable | None]]) -> Rounds:
    """Divide what a receive has brought, in the order in which it came; None for a corrupt copy."""
    rounds: list[list[Delivery]] = []
    corrupt: list[ReceivedMessage] = []
    behind: list[ReceivedMessage] = []
    lengths: Counter[str] = Counter()  # of each group so far
    groups_with_gap: set[str | None] = set()
    for delivery, work in received:
        group = delivery.group_id
        if group in groups_with_gap:
            behind.append(delivery)
            continue
        if work is None:
            corrupt.append(delivery)
            if group is not None:
                groups_with_gap.add(group)
            continue
        number = 0
        if group is not None:
            number, lengths[group] = lengths[group], lengths[group] + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append((delivery, work))
    return Rounds(rounds, corrupt, behind)
