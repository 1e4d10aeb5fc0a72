"""The result listener: reads one post queue and hands each answer to a function of the embedding program.

One receive or call at a time runs on its I/O thread. An answer is deleted when the function has returned. When it
raises, the answer comes back by its visibility timeout, with those behind it in a FIFO group. A crash forgets nothing:
an answer may be handed over twice.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from receipt_actors.domain.messages import PostedResult, parse_result
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, Queues, ReceivedMessage
from receipt_actors.errors import QueueRefused, QueueUnavailable
from receipt_actors.otp import Crash, ExitReason, GenServer

logger = logging.getLogger(__name__)

VISIBILITY_SECONDS = 60  #: how long the function may take for ten answers before they come back
PAUSE_SECONDS = 1.0  #: after a receive that failed, or brought nothing at once
_RECEIVE = "receive"
_DELETE = "delete"


class ResultListener(GenServer):
    trap_exit: ClassVar[bool] = True

    def __init__(
        self, queues: Queues, queue: str, wait_seconds: float, on_result: Callable[[PostedResult], object]
    ) -> None:
        self._queues = queues
        self._queue = queue
        self._wait_seconds = wait_seconds
        self._on_result = on_result
        self._pool = self.system.new_blocking_pool(f"results of {queue}", 1)
        self._received: deque[ReceivedMessage] = deque()
        self._group_id: str | None = None  # of the answer that is handed over now
        self._handed_over: list[str] = []  # receipt handles

    def init(self) -> None:
        self._receive()

    def terminate(self, reason: ExitReason) -> None:
        self._pool.close()

    def _receive(self) -> None:
        self.run_blocking(
            self._pool,
            _RECEIVE,
            lambda: self._queues.receive(
                self._queue,
                max_messages=MAX_BATCH_ENTRIES,
                wait_seconds=self._wait_seconds,
                visibility_timeout_seconds=VISIBILITY_SECONDS,
            ),
        )

    def handle_reply(self, label: Any, value: Any) -> None:
        if label == _DELETE:
            self._receive()
            return
        if label == _RECEIVE:
            if not value:
                self.send_after(0.0 if self._wait_seconds else PAUSE_SECONDS, _RECEIVE)
                return
            self._received.extend(value)
        else:
            self._handed_over.append(label)
        self._next()

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        error = reason.exception if isinstance(reason, Crash) else None
        if label in (_RECEIVE, _DELETE):
            if not isinstance(error, QueueUnavailable | QueueRefused):
                assert error is not None
                raise error
            logger.warning("cannot %s from %s, trying again: %s", label, self._queue, error)
            self.send_after(PAUSE_SECONDS, _RECEIVE)
            return
        logger.error("on_result raised; the answer of %s comes back", self._queue, exc_info=error)
        if self._group_id is not None:
            self._received = deque(each for each in self._received if each.group_id != self._group_id)
        self._next()

    def handle_info(self, message: Any) -> Any:
        if message != _RECEIVE:
            return super().handle_info(message)
        self._receive()
        return None

    def _next(self) -> None:
        while self._received:
            message = self._received.popleft()
            result = parse_result(message)
            if result is not None:
                self._group_id = message.group_id
                self.run_blocking(self._pool, message.receipt_handle, self._on_result, result)
                return
            logger.warning("message %s on %s is no answer; it is left alone", message.message_id, self._queue)
        handed_over, self._handed_over = self._handed_over, []
        if handed_over:
            self.run_blocking(self._pool, _DELETE, self._queues.delete, self._queue, handed_over)
        else:
            self._receive()
