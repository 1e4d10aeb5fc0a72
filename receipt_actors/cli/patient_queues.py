"""Queues for commands that work through many messages: any number an operation, and passing trouble is tried again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Self, TypeVar

import tenacity

from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, EntryFailure, OutgoingMessage, Queues, ReceivedMessage
from receipt_actors.domain.sending import RetryPolicy, take_batch
from receipt_actors.errors import QueueUnavailable
from receipt_actors.settings import QueueSettings

HIDDEN_SECONDS = 120  #: visibility timeout of what a command receives
LAST_WAIT_SECONDS = 1.0  #: long poll that shows a queue to be empty; a short one asks a part of SQS's servers only

Entry = TypeVar("Entry")


def last_wait_seconds(settings: QueueSettings) -> float:
    """Return how long a receive has to wait until "nothing" means that the queue is empty."""
    return LAST_WAIT_SECONDS if settings.backend == "aws" else 0.0


class PatientQueues:
    """Queues whose operations take any number of entries, and are tried a few times before they raise."""

    def __init__(self, queues: Queues, retry: RetryPolicy | None = None) -> None:
        retry = retry or RetryPolicy(4, first_seconds=0.1, max_seconds=2.0)
        self._queues = queues
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retry.attempts),
            wait=tenacity.wait_exponential(multiplier=retry.first_seconds, max=retry.max_seconds)
            + tenacity.wait_random(0, retry.first_seconds),
            retry=tenacity.retry_if_exception_type(QueueUnavailable),
            reraise=True,
        )

    def receive(
        self, queue: str, *, max_messages: int = MAX_BATCH_ENTRIES, wait_seconds: float
    ) -> Sequence[ReceivedMessage]:
        return self._retrying(
            self._queues.receive,
            queue,
            max_messages=max_messages,
            wait_seconds=wait_seconds,
            visibility_timeout_seconds=HIDDEN_SECONDS,
        )

    def send(self, queue: str, messages: Sequence[OutgoingMessage]) -> list[EntryFailure | None]:
        """Send; raises only where nothing is known of the whole batch."""
        return self._in_batches(
            messages, lambda message: message.size_bytes, lambda part: self._queues.send(queue, part)
        )

    def delete(self, queue: str, receipt_handles: Sequence[str]) -> list[EntryFailure | None]:
        """Delete; raises as ``send`` does."""
        return self._in_batches(receipt_handles, lambda _: 0, lambda part: self._queues.delete(queue, part))

    def change_visibility(self, queue: str, receipt_handles: Sequence[str], seconds: int) -> list[EntryFailure | None]:
        """Set the visibility timeout of each, counted from now; raises as ``send`` does."""
        changes = [(receipt_handle, seconds) for receipt_handle in receipt_handles]
        return self._in_batches(changes, lambda _: 0, lambda part: self._queues.change_visibility(queue, part))

    def _in_batches(
        self,
        entries: Sequence[Entry],
        size_bytes: Callable[[Entry], int],
        operation: Callable[[Sequence[Entry]], Sequence[EntryFailure | None]],
    ) -> list[EntryFailure | None]:
        waiting = deque(entries)
        outcomes: list[EntryFailure | None] = []
        while waiting:
            outcomes += self._batch(take_batch(waiting, size_bytes), operation)
        return outcomes

    def _batch(
        self, batch: Sequence[Entry], operation: Callable[[Sequence[Entry]], Sequence[EntryFailure | None]]
    ) -> list[EntryFailure | None]:
        outcomes: dict[int, EntryFailure | None] = {}
        unconfirmed = list(range(len(batch)))

        def attempt() -> None:
            outcomes.update(zip(unconfirmed, operation([batch[index] for index in unconfirmed]), strict=True))
            unconfirmed[:] = [index for index, failure in outcomes.items() if failure and not failure.sender_fault]
            if unconfirmed:
                raise QueueUnavailable(f"{len(unconfirmed)} entries are not confirmed")

        try:
            self._retrying(attempt)
        except QueueUnavailable:
            if not outcomes:
                raise
        return [outcomes[index] for index in range(len(batch))]


class QueueReader:
    """Reads one queue through. What it received stays hidden until it is deleted, or visible again after the ``with``.

    A reader that is killed forgets what it has received; its visibility timeout brings it back.
    """

    def __init__(self, queues: PatientQueues, queue: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._queues = queues
        self._queue = queue
        self._clock = clock
        self._held: dict[str, float] = {}  # receipt handle -> when it would be visible again; the soonest first

    def receive(self, *, max_messages: int = MAX_BATCH_ENTRIES, wait_seconds: float) -> Sequence[ReceivedMessage]:
        self._extend()
        messages = self._queues.receive(self._queue, max_messages=max_messages, wait_seconds=wait_seconds)
        self._hold([message.receipt_handle for message in messages])
        return messages

    def delete(self, receipt_handles: Sequence[str]) -> list[EntryFailure | None]:
        outcomes = self._queues.delete(self._queue, receipt_handles)
        for receipt_handle, failure in zip(receipt_handles, outcomes, strict=True):
            if failure is None:
                self._held.pop(receipt_handle, None)
        return outcomes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._queues.change_visibility(self._queue, list(self._held), 0)

    def _extend(self) -> None:
        """Extend what has less than half of its time left; what SQS does not extend (after 12 h) is given up."""
        soon = self._clock() + HIDDEN_SECONDS / 2
        due = list(takewhile(lambda handle: self._held[handle] <= soon, self._held))
        for receipt_handle in due:
            del self._held[receipt_handle]
        outcomes = self._queues.change_visibility(self._queue, due, HIDDEN_SECONDS)
        self._hold([handle for handle, failure in zip(due, outcomes, strict=True) if failure is None])

    def _hold(self, receipt_handles: Sequence[str]) -> None:
        until = self._clock() + HIDDEN_SECONDS
        self._held.update(dict.fromkeys(receipt_handles, until))
