"""``FakeQueues``: SQS's queues, standard and FIFO, in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from receipt_actors.domain import sqs_rules
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, EntryFailure, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.sqs_rules import is_fifo
from receipt_actors.domain.values import md5_hex
from receipt_actors.errors import QueueRefused
from receipt_actors.otp import Clock, SystemClock
from receipt_actors.sandbox.queues import Message, Queue, make_queue
from receipt_actors.testing._faults import Fake

_Queue = Queue[OutgoingMessage]
_Message = Message[OutgoingMessage]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as it lies in a queue."""

    message_id: str
    body: str
    attributes: Mapping[str, str]
    receive_count: int
    hidden_for_seconds: float  #: 0 where it can be received now, or once nothing before it in its group is hidden
    group_id: str | None = None  #: on a FIFO queue


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was carried out on one message."""

    operation: str  #: ``send``, ``receive``, ``delete``, ``change_visibility``
    queue: str
    message_id: str
    body: str
    seconds: int | None = None  #: the visibility timeout that was set


class FakeQueues(Fake):
    """See ``domain.ports.Queues``. Make queues with ``create_queue``; look at them with ``messages`` and ``events``.

    Time is the ``clock``'s, for visibility timeouts and for long polls: with a ``ManualClock`` a poll of an empty queue
    ends when the clock is moved, or when a message comes.
    """

    operations: ClassVar[frozenset[str]] = frozenset(
        {"receive", "send", "delete", "change_visibility", "dead_letter_queue", "approximate_number_of_messages"}
    )

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self._clock: Clock = clock or SystemClock()
        self._queues: dict[str, _Queue] = {}
        self._sent = 0
        self._events: list[Event] = []
        self._polling: set[threading.Thread] = set()
        self._interruptions = 0
        self._corrupt = 0

    # --- what only a test does ---

    def create_queue(self, name: str, dead_letter_queue: str | None = None, max_receive_count: int = 20) -> None:
        """Create a queue (and its dead-letter queue) unless it exists; with a redrive policy, where one is given."""
        with self._changed:
            queue = self._queues.setdefault(name, make_queue(name))
            if dead_letter_queue is not None:
                target = self._queues.setdefault(dead_letter_queue, make_queue(dead_letter_queue))
                queue.redrive_to(target, max_receive_count)

    def delete_queue(self, name: str) -> None:
        """Delete a queue and what is in it; any use of it is refused from now on."""
        with self._changed:
            del self._queues[name]
            self._wake()

    def put(
        self, queue: str, body: str, attributes: Mapping[str, str] | None = None, group_id: str | None = None
    ) -> str:
        """Send one message, whatever faults are due and whatever SQS would say of it. Returns its message id.

        To a FIFO queue it goes as no repetition of any other, in a group of its own unless ``group_id`` says otherwise.
        """
        with self._changed:
            if group_id is None and is_fifo(queue):
                group_id = f"group-{self._sent + 1}"
            return self._put(self._find(queue), OutgoingMessage(body, attributes or {}, group_id))

    def corrupt_next(self, deliveries: int = 1) -> None:
        """Have the next messages delivered with a body that their MD5 does not fit."""
        with self._changed:
            self._corrupt += deliveries

    def messages(self, queue: str) -> list[StoredMessage]:
        """Return what lies in a queue, hidden or not, oldest first."""
        with self._changed:
            now = self._clock.monotonic()
            return [
                StoredMessage(
                    message.message_id,
                    message.content.body,
                    dict(message.content.attributes),
                    message.receive_count,
                    max(0.0, (message.hidden_until or now) - now),
                    message.group_id,
                )
                for message in self._find(queue).messages()
            ]

    @property
    def events(self) -> list[Event]:
        """What was carried out, in order."""
        with self._changed:
            return list(self._events)

    def interrupt(self) -> None:
        """Let the long polls under way return at once, with nothing. Later ones wait as ever."""
        with self._changed:
            self._interruptions += 1
            self._wake()

    def standing_threads(self) -> set[threading.Thread]:
        """See ``Fake``; a long poll of an empty queue stands still, too."""
        with self._changed:
            polling = set(self._polling)
        return polling | super().standing_threads()

    # --- the port ---

    def receive(
        self, queue: str, *, max_messages: int, wait_seconds: float, visibility_timeout_seconds: int
    ) -> Sequence[ReceivedMessage]:
        if not 1 <= max_messages <= MAX_BATCH_ENTRIES:
            raise ValueError(f"max_messages {max_messages}: expected 1 to {MAX_BATCH_ENTRIES}")
        return self._carry_out(
            "receive", lambda: self._poll(queue, max_messages, wait_seconds, visibility_timeout_seconds)
        )

    def send(self, queue: str, messages: Sequence[OutgoingMessage]) -> Sequence[EntryFailure | None]:
        def work(entries: Sequence[OutgoingMessage]) -> Sequence[EntryFailure | None]:
            failures = sqs_rules.check_send_batch(queue, entries)
            found = self._find(queue)
            for message, failure in zip(entries, failures, strict=True):
                if failure is None:
                    self._put(found, message)
            return failures

        return self._carry_out_batch("send", messages, work)

    def delete(self, queue: str, receipt_handles: Sequence[str]) -> Sequence[EntryFailure | None]:
        def work(entries: Sequence[str]) -> Sequence[EntryFailure | None]:
            found = self._find(queue)
            crowd = sqs_rules.check_handle_batch(len(entries))
            return crowd if crowd is not None else [self._delete(found, each) for each in entries]

        return self._carry_out_batch("delete", receipt_handles, work)

    def change_visibility(self, queue: str, changes: Sequence[tuple[str, int]]) -> Sequence[EntryFailure | None]:
        def work(entries: Sequence[tuple[str, int]]) -> Sequence[EntryFailure | None]:
            found = self._find(queue)
            crowd = sqs_rules.check_handle_batch(len(entries))
            outcomes = crowd if crowd is not None else [self._hide(found, *each) for each in entries]
            self._wake()
            return outcomes

        return self._carry_out_batch("change_visibility", changes, work)

    def dead_letter_queue(self, queue: str) -> str | None:
        def work() -> str | None:
            target = self._find(queue).dead_letter_queue
            return None if target is None else target.name

        return self._carry_out("dead_letter_queue", work)

    def approximate_number_of_messages(self, queue: str) -> int:
        return self._carry_out(
            "approximate_number_of_messages", lambda: self._find(queue).count(self._clock.monotonic())[0]
        )

    # --- under the lock ---

    def _find(self, name: str) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            raise QueueRefused(name, "does not exist; create it first")
        return queue

    def _wake(self) -> None:
        self._polling.clear()  # here and not by those who wake: from now on they count as busy
        self._changed.notify_all()

    def _wake_later(self, seconds: float) -> None:
        def wake() -> None:
            with self._changed:
                self._wake()

        self._clock.call_later(seconds, wake)

    def _put(self, queue: _Queue, content: OutgoingMessage) -> str:
        self._sent += 1
        message = _Message(f"message-{self._sent}", content, self._clock.time(), content.group_id)
        sent_id = queue.send(message, self._clock.monotonic(), content.deduplication_id)
        if sent_id == message.message_id:  # else it repeats another
            self._note("send", queue, message)
            self._wake()
        return sent_id

    def _note(self, operation: str, queue: _Queue, message: _Message, seconds: int | None = None) -> None:
        self._events.append(Event(operation, queue.name, message.message_id, message.content.body, seconds))

    def _poll(
        self, name: str, max_messages: int, wait_seconds: float, visibility_timeout_seconds: int
    ) -> list[ReceivedMessage]:
        deadline = self._clock.monotonic() + wait_seconds
        timers_until = -1.0
        interruptions = self._interruptions
        while True:
            queue = self._find(name)
            now = self._clock.monotonic()
            moved = queue.moved
            taken = queue.take(max_messages, visibility_timeout_seconds, now)
            if queue.moved != moved:
                self._wake()  # a poll of the dead-letter queue may have something
            if taken or now >= deadline or interruptions != self._interruptions:
                return [self._deliver(queue, message, visibility_timeout_seconds) for message in taken]
            reveal_at = queue.next_reveal_at()
            wake_at = deadline if reveal_at is None else min(deadline, reveal_at)
            if wake_at != timers_until:
                self._wake_later(wake_at - now)
                timers_until = wake_at
            self._polling.add(threading.current_thread())
            self._changed.wait()

    def _deliver(self, queue: _Queue, message: _Message, hidden_seconds: int) -> ReceivedMessage:
        self._note("receive", queue, message, hidden_seconds)
        body = message.content.body
        md5 = md5_hex(body.encode("utf-8", "surrogatepass"))  # ``put`` takes what SQS would refuse
        if self._corrupt > 0:
            self._corrupt -= 1
            body = body[:-1]
        return ReceivedMessage(
            message_id=message.message_id,
            receipt_handle=message.receipt_handle,
            body=body,
            body_md5=md5,
            attributes=dict(message.content.attributes),
            approximate_receive_count=message.receive_count,
            sent_at_seconds=message.sent_at,
            group_id=message.group_id,
        )

    def _delete(self, queue: _Queue, receipt_handle: str) -> EntryFailure | None:
        deleted = queue.delete(receipt_handle, self._clock.monotonic())
        if isinstance(deleted, EntryFailure):
            return deleted
        if deleted is not None:
            self._note("delete", queue, deleted)
            if is_fifo(queue.name):
                self._wake()  # what is behind it in its group can be received
        return None

    def _hide(self, queue: _Queue, receipt_handle: str, seconds: int) -> EntryFailure | None:
        hidden = queue.change_visibility(receipt_handle, seconds, self._clock.monotonic())
        if isinstance(hidden, EntryFailure):
            return hidden
        self._note("change_visibility", queue, hidden, seconds)
        return None
