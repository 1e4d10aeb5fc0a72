"""The game's side of the queues: a receipt is put on a source queue, answers are taken from a post queue.

``ReceiptSystem`` has both for programs that embed it. Neither needs a running system, for any producer and any reader
of results do the same; nothing is remembered here. An answer that was taken is deleted only when the next one is asked
for, and goes back where that never happens: a reader may get one again, and loses none.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress

from receipt_actors.actors.result_listener import VISIBILITY_SECONDS
from receipt_actors.domain.messages import Unanswerable, checked_submission_message
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, Queues
from receipt_actors.domain.results import PostedResult, parse_result
from receipt_actors.errors import QueueUnavailable, SubmissionRefused
from receipt_actors.settings import Settings


def submit(
    queues: Queues,
    settings: Settings,
    receipt: str,
    user_id: int,
    *,
    post_queue: str | None = None,
    submission_id: str | None = None,
    transaction_id: str | None = None,
    product_id: str | None = None,
    source_queue: str | None = None,
) -> str:
    """Put a receipt on a source queue; see ``ReceiptSystem.submit``."""
    submission_id = str(uuid.uuid4()) if submission_id is None else submission_id
    if source_queue is not None and source_queue != settings.source_queue:
        if source_queue not in settings.sources:
            known = ", ".join(settings.source_queues)
            raise SubmissionRefused(f"source_queue: found {source_queue!r}, expected one of {known}")
        settings = settings.of_source(source_queue)
    body: dict[str, object] = {
        "receipt": receipt,
        "user_id": user_id,
        "post_queue": settings.post_queues[0] if post_queue is None else post_queue,
    }
    for key, value in (("transaction_id", transaction_id), ("product_id", product_id)):
        if value is not None:
            body[key] = value
    try:
        text = json.dumps(body)
    except (TypeError, ValueError) as error:  # no JSON type; an integer of more digits than Python writes
        raise SubmissionRefused(f"the arguments can't be written as JSON: {error}") from None
    message = checked_submission_message(text, submission_id, settings.post_queues, settings.source_queue)
    if isinstance(message, Unanswerable):
        raise SubmissionRefused(f"{message.reason}: {message.detail}")
    (failure,) = queues.send(settings.source_queue, [message])
    if failure is not None and failure.sender_fault:
        raise SubmissionRefused(f"{failure.code}: {failure.detail}")
    if failure is not None:
        raise QueueUnavailable(f"{failure.code}: {failure.detail}")
    return submission_id


def results(
    queues: Queues,
    queue: str,
    *,
    receive_wait_seconds: float,
    timeout_seconds: float | None,
    is_over: Callable[[], bool],
) -> Iterator[PostedResult]:
    """Take the answers from a post queue, one by one; see ``ReceiptSystem.results``.

    Args:
        queues: of the game.
        queue: which of them.
        receive_wait_seconds: long poll of a receive, at most.
        timeout_seconds: end when none has come for so long; None: go on.
        is_over: whether to end before the next receive, all the same.
    """
    patience = float("inf") if timeout_seconds is None else timeout_seconds
    give_up_at = time.monotonic() + patience
    while not is_over():
        messages = queues.receive(
            queue,
            max_messages=MAX_BATCH_ENTRIES,
            wait_seconds=max(0.0, min(receive_wait_seconds, give_up_at - time.monotonic())),
            visibility_timeout_seconds=VISIBILITY_SECONDS,
        )
        handles = [message.receipt_handle for message in messages]
        try:
            for message in messages:
                result = parse_result(message)
                if result is not None:
                    yield result
                    queues.delete(queue, [message.receipt_handle])
                handles.pop(0)
        finally:
            if handles:
                with suppress(QueueUnavailable):  # the system may have been stopped: they come back all the same
                    queues.change_visibility(queue, [(handle, 0) for handle in handles])
        if messages:
            give_up_at = time.monotonic() + patience
        elif time.monotonic() >= give_up_at:
            return
