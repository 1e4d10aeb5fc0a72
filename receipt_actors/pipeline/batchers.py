"""The batchers: gateways that gather requests into SQS batches of up to 10 entries and 1 MiB.

Only entries that SQS did not confirm are sent again. A crash forgets waiting entries; their callers ask the successor.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, BackgroundCalls, EntryFailure, Queues
from receipt_actors.domain.sending import RetryPolicy, take_batch
from receipt_actors.otp import NORMAL, Receiving, Stop
from receipt_actors.pipeline.gateway import DISPATCH, BlockingCall, Gateway, Job, ToItself
from receipt_actors.pipeline.protocol import ChangeVisibility, Done, NoRoom, Refused

logger = logging.getLogger(__name__)

PACE_SECONDS = 0.01  #: what an entry waits for others at most: as long as SQS itself takes


class _Batcher(Gateway):
    batch_entries: ClassVar[int] = MAX_BATCH_ENTRIES
    pace_seconds: ClassVar[float] = PACE_SECONDS
    _ready: deque[Job]  # a batch is taken by the size of what comes next

    task: ClassVar[str]  #: before the queue's name in the service's

    def __init__(
        self,
        queues: Queues,
        queue: str,
        concurrency: int,
        retry: RetryPolicy,
        background: BackgroundCalls | None = None,
    ) -> None:
        super().__init__(f"{self.task} {queue}", concurrency, retry, background)
        if self.stops_receiving:
            self.source_queue = queue
        self._queues = queues
        self._queue = queue

    def take_batch(self) -> list[Job]:
        return take_batch(self._ready, self.size_bytes)

    def size_bytes(self, job: Job) -> int:
        return 0

    def settle(self, batch: Sequence[Job], answer: Any) -> None:
        outcomes: Sequence[EntryFailure | None] = answer
        for job, failure in zip(batch, outcomes, strict=True):
            if failure is None:
                job.from_.reply(Done())
            elif failure.sender_fault:
                job.from_.reply(Refused(f"{failure.code}: {failure.detail}"))
            else:
                self.retry(job, f"{failure.code}: {failure.detail}")


@dataclass(frozen=True, slots=True)
class _EndWhenIdle:
    """To itself: has there been nothing to do since ``requests`` were counted?"""

    requests: int


class ResultBatcher(_Batcher):
    """Sends answers (or dead letters) to one queue; started on demand, ends when idle for a while.

    Trouble of its queue does not stop receiving: ``max_parked()`` requests wait, to leave room for other queues.
    """

    task: ClassVar[str] = "send to"

    def __init__(
        self,
        queues: Queues,
        concurrency: int,
        retry: RetryPolicy,
        idle_seconds: float,
        max_parked: Callable[[], int],
        queue: str,
        background: BackgroundCalls | None = None,
    ) -> None:
        super().__init__(queues, queue, concurrency, retry, background)
        self._idle_seconds = idle_seconds
        self._max_parked = max_parked
        self._requests = 0

    def init(self) -> None:
        self.send_after(self._idle_seconds, _EndWhenIdle(self._requests))

    @property
    def stops_receiving(self) -> bool:
        return False

    def accept(self, job: Job) -> None:
        self._requests += 1
        super().accept(job)
        self._keep_room()

    def _wait_and_try(self) -> None:
        super()._wait_and_try()
        self._keep_room()

    def _keep_room(self) -> None:
        if self._breaker.is_closed:
            return
        max_parked = self._max_parked()
        while self.waiting > max_parked and (self._ready or self._kept):
            job = (self._ready or self._kept).pop()
            job.from_.reply(NoRoom(f"{self.service}: down, and {max_parked} wait for it already"))

    def blocking_call(self, batch: Sequence[Job]) -> BlockingCall:
        return self._queues.send, (self._queue, [job.request.message for job in batch])

    def size_bytes(self, job: Job) -> int:
        size: int = job.request.message.size_bytes
        return size

    def handle_info(self, message: Any) -> Any:
        if not isinstance(message, _EndWhenIdle):
            return super().handle_info(message)
        if self._requests == message.requests and self.is_idle:
            return Stop(NORMAL)
        self.send_after(self._idle_seconds, _EndWhenIdle(self._requests))
        return DISPATCH


class DeleteBatcher(_Batcher):
    task: ClassVar[str] = "delete from"

    def blocking_call(self, batch: Sequence[Job]) -> BlockingCall:
        return self._queues.delete, (self._queue, [job.request.receipt_handle for job in batch])


class VisibilityBatcher(_Batcher):
    task: ClassVar[str] = "visibility of"
    drops_unwanted: ClassVar[bool] = False  # ``in_flight`` ends before its last hand-backs are done
    finishes_on_shutdown: ClassVar[bool] = True

    def __init__(
        self,
        queues: Queues,
        queue: str,
        concurrency: int,
        retry: RetryPolicy,
        background: BackgroundCalls | None = None,
        left_behind: Callable[[str], Sequence[ChangeVisibility]] = lambda _queue: (),
    ) -> None:
        super().__init__(queues, queue, concurrency, retry, background)
        self._left_behind = left_behind  # what no other actor could hand back

    def _finish(self) -> Receiving:
        for change in self._left_behind(self._queue):
            self.accept(Job(change, ToItself(lambda _answer: None)))
        return super()._finish()

    def blocking_call(self, batch: Sequence[Job]) -> BlockingCall:
        changes = [(job.request.receipt_handle, job.request.seconds) for job in batch]
        return self._queues.change_visibility, (self._queue, changes)
