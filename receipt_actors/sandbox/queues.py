"""SQS's queues in memory, standard and FIFO: the simulated SQS, the fake of ``testing``, the model of SQLite's. Pure.

As with SQS only the newest receipt handle of a message counts: a delete with an older one is confirmed and does
nothing, a change of visibility fails. A message that was received ``max_receive_count`` times moves to the dead-letter
queue instead of being received once more; its id, its sent time and its receive count go along.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from receipt_actors.domain import sqs_rules
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS, EntryFailure
from receipt_actors.domain.sqs_rules import DEDUPLICATION_SECONDS, is_fifo

Content = TypeVar("Content")

_RECEIPT_HANDLE = re.compile(r"[0-9]+\.[0-9]+")
_NO_HANDLE = EntryFailure(sqs_rules.INVALID_RECEIPT_HANDLE, "not a receipt handle of these queues", True)
_NOT_IN_FLIGHT = EntryFailure(
    sqs_rules.MESSAGE_NOT_IN_FLIGHT, "the message is deleted, visible again, or was received again", True
)
_TOO_LONG = EntryFailure(
    sqs_rules.INVALID_PARAMETER,
    f"total visibility timeout beyond the limit of {MAX_VISIBILITY_SECONDS} seconds since the receive",
    True,
)

_numbers = itertools.count(1)  # of all messages of all queues: a handle of one queue means nothing to another


@dataclass(slots=True, eq=False)
class Message(Generic[Content]):
    """A message in a queue, and what happened to it. Times are monotonic, in seconds, but for ``sent_at``."""

    message_id: str
    content: Content
    sent_at: float  #: UNIX time
    group_id: str | None = None  #: on a FIFO queue
    receive_count: int = 0
    receipt_handle: str = ""  #: of the newest receive from this queue
    hidden_until: float | None = None  #: None: it can be received
    first_received_at: float | None = None
    received_at: float = 0.0
    deleted_at: float | None = None
    number: int = field(default_factory=lambda: next(_numbers))


class Queue(Generic[Content]):
    """A standard queue: it gives first what could be received for the longest."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead_letter_queue: Queue[Content] | None = None
        self.max_receive_count = 0
        self.received = self.deleted = self.moved = 0  #: messages so far
        self._messages: dict[Message[Content], None] = {}  # all that are not deleted, the oldest first
        self._by_handle: dict[str, Message[Content]] = {}  # the newest handles
        self._visible: deque[Message[Content]] = deque()
        self._hidden: list[tuple[float, int, Message[Content]]] = []  # a heap; outdated where the message disagrees

    def redrive_to(self, dead_letter_queue: Queue[Content], max_receive_count: int) -> None:
        self.dead_letter_queue = dead_letter_queue
        self.max_receive_count = max_receive_count

    def send(self, message: Message[Content], now: float, deduplication_id: str | None = None) -> str:
        """Add a message that can be received at once. Returns its id; of a repetition the id of the first."""
        self._messages[message] = None
        self._add(message)
        return message.message_id

    def take(self, count: int, visibility_seconds: float, now: float) -> list[Message[Content]]:
        self._reveal(now)
        taken: list[Message[Content]] = []
        while self._visible and len(taken) < count:
            message = self._visible.popleft()
            if not self._moved(message):
                self._receive(message, visibility_seconds, now)
                taken.append(message)
        return taken

    def delete(self, receipt_handle: str, now: float) -> Message[Content] | EntryFailure | None:
        """Delete and return a message; None where it is deleted already, or was received again."""
        message = self._by_handle.pop(receipt_handle, None)
        if message is None:
            return None if _RECEIPT_HANDLE.fullmatch(receipt_handle) else _NO_HANDLE
        del self._messages[message]
        message.deleted_at = now
        self.deleted += 1
        self._remove(message)
        return message

    def change_visibility(self, receipt_handle: str, seconds: int, now: float) -> Message[Content] | EntryFailure:
        if fault := sqs_rules.visibility_fault(seconds):
            return fault
        self._reveal(now)
        message = self._by_handle.get(receipt_handle)
        if message is None or message.hidden_until is None:
            return _NOT_IN_FLIGHT if _RECEIPT_HANDLE.fullmatch(receipt_handle) else _NO_HANDLE
        if now + seconds > message.received_at + MAX_VISIBILITY_SECONDS:
            return _TOO_LONG
        self._hide(message, now + seconds)
        return message

    def count(self, now: float) -> tuple[int, int]:
        self._reveal(now)
        return len(self._visible), len(self._messages) - len(self._visible)

    def next_reveal_at(self) -> float | None:
        return self._hidden[0][0] if self._hidden else None

    def messages(self) -> Sequence[Message[Content]]:
        return list(self._messages)

    def _moved(self, message: Message[Content]) -> bool:
        target = self.dead_letter_queue
        if target is None or message.receive_count < self.max_receive_count:
            return False
        del self._messages[message]
        self._by_handle.pop(message.receipt_handle, None)
        message.receipt_handle = ""
        self.moved += 1
        target._messages[message] = None
        target._add(message)
        return True

    def _receive(self, message: Message[Content], visibility_seconds: float, now: float) -> None:
        self._by_handle.pop(message.receipt_handle, None)
        message.receive_count += 1
        message.receipt_handle = f"{message.number}.{message.receive_count}"
        self._by_handle[message.receipt_handle] = message
        message.received_at = now
        if message.first_received_at is None:
            message.first_received_at = now
        self.received += 1
        self._hide(message, now + visibility_seconds)

    def _hide(self, message: Message[Content], until: float) -> None:
        message.hidden_until = until
        heapq.heappush(self._hidden, (until, message.number, message))

    def _reveal(self, now: float) -> None:
        hidden = self._hidden
        while hidden and hidden[0][0] <= now:
            until, _, message = heapq.heappop(hidden)
            if message.hidden_until == until and message in self._messages:
                message.hidden_until = None
                self._show(message)

    # --- what the two kinds of queues do differently ---

    def _add(self, message: Message[Content]) -> None:
        self._visible.append(message)

    def _show(self, message: Message[Content]) -> None:
        self._visible.append(message)

    def _remove(self, message: Message[Content]) -> None:
        if message.hidden_until is None:
            self._visible.remove(message)


class FifoQueue(Queue[Content]):
    """A FIFO queue: it keeps the order within each group, and gives nothing of a group of which a message is hidden.

    Of the groups that can be received it gives first those that could be for the longest.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._groups: dict[str | None, deque[Message[Content]]] = {}  # all that are not deleted, the oldest first
        self._hidden_of_group: Counter[str | None] = Counter()
        self._ready: dict[str | None, None] = {}  # groups of which something can be received
        self._sent_at: dict[str, tuple[float, str]] = {}  # by de-duplication id, with the message id

    def send(self, message: Message[Content], now: float, deduplication_id: str | None = None) -> str:
        if deduplication_id is not None:
            first = self._sent_at.get(deduplication_id)
            if first is not None and now < first[0] + DEDUPLICATION_SECONDS:
                return first[1]
            self._sent_at.pop(deduplication_id, None)
            self._sent_at[deduplication_id] = now, message.message_id
            while now >= next(iter(self._sent_at.values()))[0] + DEDUPLICATION_SECONDS:
                del self._sent_at[next(iter(self._sent_at))]
        return super().send(message, now)

    def take(self, count: int, visibility_seconds: float, now: float) -> list[Message[Content]]:
        self._reveal(now)
        taken: list[Message[Content]] = []
        while self._ready and len(taken) < count:
            group_id = next(iter(self._ready))
            del self._ready[group_id]
            group = self._groups[group_id]
            for message in tuple(itertools.islice(group, count - len(taken))):
                if self._moved(message):
                    group.remove(message)
                else:
                    self._receive(message, visibility_seconds, now)
                    self._hidden_of_group[group_id] += 1
                    taken.append(message)
            self._look_at(group_id)
        return taken

    def count(self, now: float) -> tuple[int, int]:
        """See ``Queue``. What only its group keeps back counts as if it could be received, as with SQS."""
        self._reveal(now)
        hidden = self._hidden_of_group.total()
        return len(self._messages) - hidden, hidden

    def _add(self, message: Message[Content]) -> None:
        self._groups.setdefault(message.group_id, deque()).append(message)
        self._look_at(message.group_id)

    def _show(self, message: Message[Content]) -> None:
        self._hidden_of_group[message.group_id] -= 1
        self._look_at(message.group_id)

    def _remove(self, message: Message[Content]) -> None:
        self._groups[message.group_id].remove(message)
        if message.hidden_until is not None:
            self._hidden_of_group[message.group_id] -= 1
        self._look_at(message.group_id)

    def _look_at(self, group_id: str | None) -> None:
        if not self._groups[group_id]:
            del self._groups[group_id]
            self._ready.pop(group_id, None)
        elif not self._hidden_of_group[group_id]:
            self._ready.setdefault(group_id)
        if not self._hidden_of_group[group_id]:
            del self._hidden_of_group[group_id]


def make_queue(name: str) -> Queue[Content]:
    return FifoQueue(name) if is_fifo(name) else Queue(name)
