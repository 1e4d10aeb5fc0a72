"""``FakeQueues``: SQS's queues, standard and FIFO, in memory."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from receipt_actors.domain import sqs_rules
from receipt_actors.domain.fifo import DEDUPLICATION_SECONDS, is_fifo
from receipt_actors.domain.ports import (
    MAX_BATCH_ENTRIES,
    MAX_VISIBILITY_SECONDS,
    EntryFailure,
    OutgoingMessage,
    ReceivedMessage,
)
from receipt_actors.errors import QueueRefused
from receipt_actors.otp import Clock, SystemClock
from receipt_actors.testing._faults import Fake

_RECEIPT_HANDLE = re.compile(r"(message-[0-9]+)/([0-9]+)")


@dataclass(slots=True)
class _Message:
    message_id: str
    content: OutgoingMessage
    sent_at_seconds: float  # UNIX time
    receive_count: int = 0
    handle_number: int = 0  # of the newest receipt handle; 0: never received from this queue
    received_at_seconds: float = 0.0  # monotonic
    visible_at_seconds: float = 0.0  # monotonic

    @property
    def receipt_handle(self) -> str:
        return f"{self.message_id}/{self.handle_number}"


@dataclass(slots=True)
class _Queue:
    name: str
    dead_letter_queue: str | None
    max_receive_count: int
    messages: dict[str, _Message] = field(default_factory=dict)  # by message id, oldest first
    sent_at_seconds: dict[str, float] = field(default_factory=dict)  # monotonic; by de-duplication id

    def blocked_groups(self, now: float) -> set[str | None]:
        """Groups of which a message is hidden."""
        hidden = (each for each in self.messages.values() if each.visible_at_seconds > now)
        return {each.content.group_id for each in hidden} - {None}


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
        self._handles = 0
        self._events: list[Event] = []
        self._polling: set[threading.Thread] = set()
        self._interruptions = 0
        self._corrupt = 0

    # --- what only a test does ---

    def create_queue(self, name: str, dead_letter_queue: str | None = None, max_receive_count: int = 20) -> None:
        """Create a queue (and its dead-letter queue) unless it exists; with a redrive policy, where one is given."""
        with self._changed:
            if dead_letter_queue is not None:
                self._queues.setdefault(dead_letter_queue, _Queue(dead_letter_queue, None, 0))
            queue = self._queues.setdefault(name, _Queue(name, None, 0))
            if dead_letter_queue is not None:
                queue.dead_letter_queue, queue.max_receive_count = dead_letter_queue, max_receive_count

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
                    max(0.0, message.visible_at_seconds - now),
                    message.content.group_id,
                )
                for message in self._find(queue).messages.values()
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
        """See ``Queues.receive``."""
        if not 1 <= max_messages <= MAX_BATCH_ENTRIES:
            raise ValueError(f"max_messages {max_messages}: expected 1 to {MAX_BATCH_ENTRIES}")
        return self._carry_out(
            "receive", lambda: self._poll(queue, max_messages, wait_seconds, visibility_timeout_seconds)
        )

    def send(self, queue: str, messages: Sequence[OutgoingMessage]) -> Sequence[EntryFailure | None]:
        """See ``Queues.send``."""

        def work(entries: Sequence[OutgoingMessage]) -> Sequence[EntryFailure | None]:
            failures = sqs_rules.check_send_batch(queue, entries)
            with self._changed:
                found = self._find(queue)
                for message, failure in zip(entries, failures, strict=True):
                    if failure is None and self._is_new(found, message.deduplication_id):
                        self._put(found, message)
            return failures

        return self._carry_out_batch("send", messages, work)

    def delete(self, queue: str, receipt_handles: Sequence[str]) -> Sequence[EntryFailure | None]:
        """See ``Queues.delete``. An older receipt handle of a message that was received again deletes nothing."""

        def work(entries: Sequence[str]) -> Sequence[EntryFailure | None]:
            with self._changed:
                found = self._find(queue)
                crowd = sqs_rules.check_handle_batch(len(entries))
                return crowd if crowd is not None else [self._delete(found, each) for each in entries]

        return self._carry_out_batch("delete", receipt_handles, work)

    def change_visibility(self, queue: str, changes: Sequence[tuple[str, int]]) -> Sequence[EntryFailure | None]:
        """See ``Queues.change_visibility``."""

        def work(entries: Sequence[tuple[str, int]]) -> Sequence[EntryFailure | None]:
            with self._changed:
                found = self._find(queue)
                crowd = sqs_rules.check_handle_batch(len(entries))
                outcomes = crowd if crowd is not None else [self._hide(found, *each) for each in entries]
                self._wake()
                return outcomes

        return self._carry_out_batch("change_visibility", changes, work)

    def dead_letter_queue(self, queue: str) -> str | None:
        """See ``Queues.dead_letter_queue``."""

        def work() -> str | None:
            with self._changed:
                return self._find(queue).dead_letter_queue

        return self._carry_out("dead_letter_queue", work)

    def approximate_number_of_messages(self, queue: str) -> int:
        """See ``Queues.approximate_number_of_messages``; here it is exact."""
        return self._carry_out(
            "approximate_number_of_messages",
            lambda: sum(message.hidden_for_seconds == 0 for message in self.messages(queue)),
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

    def _is_new(self, queue: _Queue, deduplication_id: str | None) -> bool:
        if deduplication_id is None:
            return True
        now = self._clock.monotonic()
        sent_at_seconds = queue.sent_at_seconds.get(deduplication_id)
        if sent_at_seconds is not None and now < sent_at_seconds + DEDUPLICATION_SECONDS:
            return False
        queue.sent_at_seconds[deduplication_id] = now
        return True

    def _put(self, queue: _Queue, content: OutgoingMessage) -> str:
        self._sent += 1
        message = _Message(f"message-{self._sent}", content, self._clock.time())
        queue.messages[message.message_id] = message
        self._note("send", queue, message)
        self._wake()
        return message.message_id

    def _note(self, operation: str, queue: _Queue, message: _Message, seconds: int | None = None) -> None:
        self._events.append(Event(operation, queue.name, message.message_id, message.content.body, seconds))

    def _poll(
        self, name: str, max_messages: int, wait_seconds: float, visibility_timeout_seconds: int
    ) -> list[ReceivedMessage]:
        deadline = self._clock.monotonic() + wait_seconds
        timers_until = -1.0
        with self._changed:
            interruptions = self._interruptions
            while True:
                queue = self._find(name)
                received = self._take(queue, max_messages, visibility_timeout_seconds)
                now = self._clock.monotonic()
                if received or now >= deadline or interruptions != self._interruptions:
                    return received
                hidden_until = [each.visible_at_seconds for each in queue.messages.values()]
                wake_at = min([deadline, *(each for each in hidden_until if each > now)])
                if wake_at != timers_until:
                    self._wake_later(wake_at - now)
                    timers_until = wake_at
                self._polling.add(threading.current_thread())
                self._changed.wait()

    def _take(self, queue: _Queue, max_messages: int, visibility_timeout_seconds: int) -> list[ReceivedMessage]:
        now = self._clock.monotonic()
        received: list[ReceivedMessage] = []
        blocked = queue.blocked_groups(now)
        for message in list(queue.messages.values()):
            if len(received) == max_messages:
                break
            if message.visible_at_seconds > now or message.content.group_id in blocked:
                continue
            if queue.dead_letter_queue is not None and message.receive_count >= queue.max_receive_count:
                del queue.messages[message.message_id]
                self._queues[queue.dead_letter_queue].messages[message.message_id] = message
                message.handle_number = 0
                self._wake()
                continue
            received.append(self._deliver(queue, message, now, visibility_timeout_seconds))
        return received

    def _deliver(self, queue: _Queue, message: _Message, now: float, hidden_seconds: int) -> ReceivedMessage:
        self._handles += 1
        message.handle_number = self._handles
        message.receive_count += 1
        message.received_at_seconds = now
        message.visible_at_seconds = now + hidden_seconds
        self._note("receive", queue, message, hidden_seconds)
        body, md5 = message.content.body, sqs_rules.body_md5(message.content.body)
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
            sent_at_seconds=message.sent_at_seconds,
            group_id=message.content.group_id,
        )

    def _of_handle(self, queue: _Queue, receipt_handle: str) -> _Message | EntryFailure | None:
        """Return the message whose newest handle this is, None where there is none (any more), or what is wrong."""
        match = _RECEIPT_HANDLE.fullmatch(receipt_handle)
        if match is None:
            return EntryFailure(sqs_rules.INVALID_RECEIPT_HANDLE, "not a receipt handle of these queues", True)
        message = queue.messages.get(match[1])
        return message if message is not None and message.receipt_handle == receipt_handle else None

    def _delete(self, queue: _Queue, receipt_handle: str) -> EntryFailure | None:
        message = self._of_handle(queue, receipt_handle)
        if isinstance(message, EntryFailure):
            return message
        if message is not None:
            del queue.messages[message.message_id]
            self._note("delete", queue, message)
            if message.content.group_id is not None:
                self._wake()  # what is behind it in its group can be received
        return None

    def _hide(self, queue: _Queue, receipt_handle: str, seconds: int) -> EntryFailure | None:
        message = self._of_handle(queue, receipt_handle)
        if isinstance(message, EntryFailure):
            return message
        fault = sqs_rules.visibility_fault(seconds)
        if fault is not None:
            return fault
        now = self._clock.monotonic()
        if message is None or message.visible_at_seconds <= now:
            detail = "the message is deleted, visible again, or was received again"
            return EntryFailure(sqs_rules.MESSAGE_NOT_IN_FLIGHT, detail, True)
        if now + seconds > message.received_at_seconds + MAX_VISIBILITY_SECONDS:
            detail = f"beyond the limit of {MAX_VISIBILITY_SECONDS} seconds since the receive"
            return EntryFailure(sqs_rules.INVALID_PARAMETER, detail, True)
        message.visible_at_seconds = now + seconds
        self._note("change_visibility", queue, message, seconds)
        return None
