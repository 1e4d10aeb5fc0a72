"""Queues as SQS has them: visibility timeouts, receive counts, receipt handles, a redrive policy. Pure.

A receipt handle names its message and the receive. As with SQS only the newest one works: a delete with an older one is
confirmed and does nothing. That hits a program which let a visibility timeout pass.

A ``FifoQueue`` keeps the order within each group, gives nothing of a group of which a message is hidden, and remembers
de-duplication ids.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from dataclasses import dataclass, field

MAX_VISIBILITY_SECONDS = 12 * 60 * 60
DEDUPLICATION_SECONDS = 5 * 60


@dataclass(frozen=True, slots=True)
class Content:
    """What a message holds, encoded once: it may be received any number of times, in any number of runs."""

    message_id: str
    body_json: bytes  #: the body as a JSON string, quotes included
    body_md5: str
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)  #: message attributes, as they were sent
    group_id: str = ""  #: of a FIFO queue's message
    deduplication_id: str = ""  #: likewise


@dataclass(slots=True, eq=False)
class Message:
    """A message in a queue, and what happened to it. Times are monotonic, in seconds."""

    number: int
    content: Content
    sent_at_ms: int  #: UNIX time
    receive_count: int = 0
    hidden_until: float | None = None  #: None: it can be received
    first_received_at: float | None = None  #: when it went out
    deleted_at: float | None = None  #: when the request came in

    @property
    def receipt_handle(self) -> str:
        """The handle of the newest receive."""
        return f"{self.number}.{self.receive_count}"


class InvalidHandle(ValueError):
    """No handle of a message of this queue."""


class NotInFlight(ValueError):
    """The message can be received, or is deleted: it has no visibility timeout to change."""


class Queue:
    """One queue. ``deleted`` has the messages in the order of their deletion, if ``keep_deleted``."""

    def __init__(self, name: str, *, keep_deleted: bool = False) -> None:
        self.name = name
        self.dead_letter_queue: Queue | None = None
        self.max_receive_count = 0
        self.sent = 0
        self.received = 0
        self.deleted: list[Message] = []
        self.deletions = 0
        self._keep_deleted = keep_deleted
        self._numbers = itertools.count(1)
        self._messages: dict[int, Message] = {}  # all that are not deleted
        self._visible: deque[Message] = deque()
        self._hidden: list[tuple[float, int, Message]] = []  # a heap; outdated where the message says otherwise

    def redrive_to(self, dead_letter_queue: Queue, max_receive_count: int) -> None:
        """Move there what was received so often and is to be received once more."""
        self.dead_letter_queue = dead_letter_queue
        self.max_receive_count = max_receive_count

    def put(self, content: Content, sent_at_ms: int) -> None:
        """Add a message that can be received at once."""
        message = Message(next(self._numbers), content, sent_at_ms)
        self._messages[message.number] = message
        self._add(message)
        self.sent += 1

    def take(self, count: int, visibility_seconds: float, now: float) -> list[Message]:
        """Receive up to ``count``; what was received too often goes to the dead-letter queue instead."""
        self._reveal(now)
        taken: list[Message] = []
        visible = self._visible
        while visible and len(taken) < count:
            message = visible.popleft()
            if self.dead_letter_queue is not None and message.receive_count >= self.max_receive_count:
                del self._messages[message.number]
                self.dead_letter_queue._adopt(message)
                continue
            message.receive_count += 1
            self._hide(message, now + visibility_seconds)
            taken.append(message)
        self.received += len(taken)
        return taken

    def delete(self, receipt_handle: str, now: float) -> None:
        """Delete a message. One that is deleted already is fine. Raises ``InvalidHandle``."""
        message, is_newest = self._find(receipt_handle)
        if message is None or not is_newest:
            return
        del self._messages[message.number]
        message.deleted_at = now
        self.deletions += 1
        self._remove(message)
        if self._keep_deleted:
            self.deleted.append(message)

    def change_visibility(self, receipt_handle: str, seconds: float, now: float) -> None:
        """Hide a message from now on for so long. Raises ``InvalidHandle`` or ``NotInFlight``."""
        self._reveal(now)
        message, is_newest = self._find(receipt_handle)
        if message is None or not is_newest or message.hidden_until is None:
            raise NotInFlight
        self._hide(message, now + seconds)

    def count(self, now: float) -> tuple[int, int]:
        """Count the messages that can be received, and those that are hidden."""
        self._reveal(now)
        return len(self._visible), len(self._messages) - len(self._visible)

    def next_reveal_at(self) -> float | None:
        """When the next hidden message may come back."""
        return self._hidden[0][0] if self._hidden else None

    def contents(self) -> list[Message]:
        """All messages that are not deleted, oldest first."""
        return list(self._messages.values())

    def _adopt(self, message: Message) -> None:
        message.number = next(self._numbers)
        message.hidden_until = None
        self._messages[message.number] = message
        self._add(message)

    def _add(self, message: Message) -> None:
        self._visible.append(message)

    def _remove(self, message: Message) -> None:
        if message.hidden_until is None:
            self._visible.remove(message)

    def _show(self, message: Message) -> None:
        """Take note that it is hidden no more."""
        self._visible.append(message)

    def _hide(self, message: Message, until: float) -> None:
        message.hidden_until = until
        heapq.heappush(self._hidden, (until, message.number, message))

    def _reveal(self, now: float) -> None:
        hidden = self._hidden
        while hidden and hidden[0][0] <= now:
            until, number, message = heapq.heappop(hidden)
            if message.hidden_until == until and self._messages.get(number) is message:
                message.hidden_until = None
                self._show(message)

    def _find(self, receipt_handle: str) -> tuple[Message | None, bool]:
        number, _, receive = receipt_handle.partition(".")
        if not (number.isdecimal() and receive.isdecimal()):
            raise InvalidHandle(receipt_handle)
        message = self._messages.get(int(number))
        return message, message is not None and message.receive_count == int(receive)


class FifoQueue(Queue):
    """A FIFO queue. Of the groups that can be received it gives those first that could be for the longest."""

    def __init__(self, name: str, *, keep_deleted: bool = False) -> None:
        super().__init__(name, keep_deleted=keep_deleted)
        self._groups: dict[str, deque[Message]] = {}  # all that are not deleted, the oldest first
        self._hidden_of_group: Counter[str] = Counter()
        self._ready: dict[str, None] = {}  # groups of which something can be received
        self._sent_at: dict[str, tuple[float, str]] = {}  # by de-duplication id, with the message id

    def repeated(self, deduplication_id: str, message_id: str, now: float) -> str | None:
        """Return the id of the message that this one repeats, or None, and remember it."""
        sent_at, first_id = self._sent_at.get(deduplication_id, (-DEDUPLICATION_SECONDS, ""))
        if now < sent_at + DEDUPLICATION_SECONDS:
            return first_id
        self._sent_at.pop(deduplication_id, None)
        self._sent_at[deduplication_id] = now, message_id
        while now >= next(iter(self._sent_at.values()))[0] + DEDUPLICATION_SECONDS:
            del self._sent_at[next(iter(self._sent_at))]
        return None

    def take(self, count: int, visibility_seconds: float, now: float) -> list[Message]:
        """See ``Queue``; of a group as many as there is room for."""
        self._reveal(now)
        taken: list[Message] = []
        while self._ready and len(taken) < count:
            group_id = next(iter(self._ready))
            del self._ready[group_id]
            for message in tuple(itertools.islice(self._groups[group_id], count - len(taken))):
                if self.dead_letter_queue is not None and message.receive_count >= self.max_receive_count:
                    del self._messages[message.number]
                    self._groups[group_id].remove(message)
                    self.dead_letter_queue._adopt(message)
                    continue
                message.receive_count += 1
                self._hidden_of_group[group_id] += 1
                self._hide(message, now + visibility_seconds)
                taken.append(message)
            self._look_at(group_id)
        self.received += len(taken)
        return taken

    def count(self, now: float) -> tuple[int, int]:
        """See ``Queue``. What only its group keeps back counts as if it could be received, as with SQS."""
        self._reveal(now)
        hidden = self._hidden_of_group.total()
        return len(self._messages) - hidden, hidden

    def _add(self, message: Message) -> None:
        self._groups.setdefault(message.content.group_id, deque()).append(message)
        self._look_at(message.content.group_id)

    def _remove(self, message: Message) -> None:
        group_id = message.content.group_id
        self._groups[group_id].remove(message)
        if message.hidden_until is not None:
            self._hidden_of_group[group_id] -= 1
        self._look_at(group_id)

    def _show(self, message: Message) -> None:
        self._hidden_of_group[message.content.group_id] -= 1
        self._look_at(message.content.group_id)

    def _look_at(self, group_id: str) -> None:
        """Find out whether something of the group can be received."""
        if not self._groups[group_id]:
            del self._groups[group_id]
            self._ready.pop(group_id, None)
        elif not self._hidden_of_group[group_id]:
            self._ready.setdefault(group_id)
        if not self._hidden_of_group[group_id]:
            del self._hidden_of_group[group_id]
