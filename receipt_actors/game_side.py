"""The game's side of the queues: put a receipt on a source queue, take answers from a post queue.

``ReceiptSystem`` has both for programs that embed it. Neither needs a running system.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from receipt_actors.domain.messages import PostedResult, Unanswerable, checked_submission, parse_result
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, Queues, ReceivedMessage
from receipt_actors.errors import QueueUnavailable, SubmissionRefused
from receipt_actors.pipeline.result_listener import VISIBILITY_SECONDS
from receipt_actors.pipeline.validator import Pending, PendingSubmissions
from receipt_actors.settings import Settings


def submit(
    queues: Queues,
    settings: Settings,
    pending_submissions: PendingSubmissions,
    receipt: str,
    user_id: int,
    *,
    source_queue: str | None = None,
    submission_id: str | None = None,
    **optional: str | None,
) -> Pending:
    """Put a receipt on a source queue; see ``ReceiptSystem.submit``. ``optional`` are keys of the message."""
    submission_id = str(uuid.uuid4()) if submission_id is None else submission_id
    if source_queue is not None and source_queue != settings.source_queue:
        if source_queue not in settings.sources:
            known = ", ".join(settings.source_queues)
            raise SubmissionRefused(f"source_queue: found {source_queue!r}, expected one of {known}")
        settings = settings.of_source(source_queue)
    body = {"receipt": receipt, "user_id": user_id, "post_queue": settings.post_queues[0]}
    body |= {key: value for key, value in optional.items() if value is not None}
    try:
        text = json.dumps(body)
    except (TypeError, ValueError) as error:  # no JSON type; an integer of more digits than Python writes
        raise SubmissionRefused(f"the arguments can't be written as JSON: {error}") from None
    checked = checked_submission(text, submission_id, settings.post_queues, settings.source_queue)
    if isinstance(checked, Unanswerable):
        raise SubmissionRefused(f"{checked.reason}: {checked.detail}")
    submission, message = checked
    # Before the send: the answer may come at once.
    pending = pending_submissions.expect(submission, settings.source_queue)
    (failure,) = queues.send(settings.source_queue, [message])
    if failure is not None and failure.sender_fault:
        raise SubmissionRefused(f"{failure.code}: {failure.detail}")
    if failure is not None:
        raise QueueUnavailable(f"{failure.code}: {failure.detail}")
    return pending


class Results:
    """Takes the answers from a post queue, one by one; see ``ReceiptSystem.results``.

    An answer is deleted when the next one is asked for. When the iterator is dropped, answers that were received along
    with it go back at once; the answer itself, which may have crashed the reader, after a minute. So a reader may get
    an answer again, and loses none.

    ``timeout_seconds`` ends it when none has come for so long; None: never. ``is_over`` is asked before each receive.
    """

    def __init__(
        self,
        queues: Queues,
        queue: str,
        receive_wait_seconds: float,
        timeout_seconds: float | None,
        is_over: Callable[[], bool],
    ) -> None:
        self._queues = queues
        self._queue = queue
        self._receive_wait_seconds = receive_wait_seconds
        self._timeout_seconds = float("inf") if timeout_seconds is None else timeout_seconds
        self._give_up_at = time.monotonic() + self._timeout_seconds
        self._is_over = is_over
        self._in_hand: str | None = None  # receipt handle of the answer that was returned last
        self._received: deque[ReceivedMessage] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> PostedResult:
        """Acknowledge the answer that was returned last, and return the next one."""
        if self._in_hand is not None:
            self._queues.delete(self._queue, [self._in_hand])
            self._in_hand = None
        while True:
            while self._received:
                message = self._received.popleft()
                result = parse_result(message)
                if result is not None:
                    self._in_hand = message.receipt_handle
                    return result
            if self._is_over():
                raise StopIteration
            self._received.extend(
                self._queues.receive(
                    self._queue,
                    max_messages=MAX_BATCH_ENTRIES,
                    wait_seconds=max(0.0, min(self._receive_wait_seconds, self._give_up_at - time.monotonic())),
                    visibility_timeout_seconds=VISIBILITY_SECONDS,
                )
            )
            if self._received:
                self._give_up_at = time.monotonic() + self._timeout_seconds
            elif time.monotonic() >= self._give_up_at:
                raise StopIteration

    def close(self) -> None:
        """Give back at once what was not acknowledged; it comes again."""
        if self._in_hand is not None:
            self._give_back([self._in_hand])
            self._in_hand = None
        self.__del__()

    def __del__(self) -> None:
        """Give back what was received and not returned."""
        received, self._received = self._received, deque()
        self._give_back([message.receipt_handle for message in received])

    def _give_back(self, receipt_handles: Sequence[str]) -> None:
        if receipt_handles:
            with suppress(QueueUnavailable):  # the system may have been stopped: they come back all the same
                self._queues.change_visibility(self._queue, [(handle, 0) for handle in receipt_handles])
