"""The consumer: takes messages from one source queue and hands them to ``in_flight``, a receive at a time.

It asks for credits before each. A corrupt copy (MD5) is left for redelivery. A crash forgets a receive under way: its
messages come back by their visibility timeout. A shutdown finishes it and hands the messages back, if there is time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from receipt_actors.domain.messages import Submission, Unanswerable, is_intact, parse_submission
from receipt_actors.domain.policy import Source
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, BackgroundCalls, Queues, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.errors import QueueRefused, QueueUnavailable
from receipt_actors.otp import NO_PROCESS, Crash, ExitReason, GenServer, Receive, Receiving, Reply
from receipt_actors.pipeline.gateway import CallsOnThreads
from receipt_actors.pipeline.protocol import IN_FLIGHT, CreditsGranted, Delivery, Received, ReserveCredits
from receipt_actors.telemetry.logs import log_left
from receipt_actors.telemetry.statistics import statistics_of
from receipt_actors.telemetry.tracing import tracer_of

EMPTY_RECEIVE_SECONDS = 0.1  #: between two receives that bring nothing
PAUSE_SECONDS = 0.1  #: before asking for credits where they are granted by an actor that is being restarted
_RECEIVE = "receive"  # label of a receive


class Consumer(GenServer):
    trap_exit: ClassVar[bool] = True  # so that a receive under way is finished

    def __init__(
        self,
        queues: Queues,
        source: Source,
        wait_seconds: float,
        visibility_timeout_seconds: int,
        retry: RetryPolicy,
        background: BackgroundCalls | None = None,
    ) -> None:
        self._queues = queues
        self._source = source
        self._wait_seconds = wait_seconds
        self._visibility_timeout_seconds = visibility_timeout_seconds
        self._retry = retry
        # A client that can only block needs one thread: there is one receive at a time.
        self._threads = CallsOnThreads(self.system.new_blocking_pool(f"receive from {source.queue}", 1))
        self._calls: BackgroundCalls = self._threads if background is None else background
        self._statistics = statistics_of(self.system)
        self._tracer = tracer_of(self.system)
        self._failures = 0
        self._pause_seconds = 0.0  # before the next receive
        self._receive_began_at: float | None = None  # monotonic; while a receive is under way

    def init(self) -> None:
        self._ask(self._wish())

    def outside_view(self) -> dict[str, object]:
        began_at = self._receive_began_at
        return {
            "is_receiving": began_at is not None,
            "seconds": None if began_at is None else round(self.clock.monotonic() - began_at, 3),
            "failures_in_a_row": self._failures,
        }

    def describe_state(self) -> dict[str, object]:
        return self.outside_view()

    def _wish(self) -> ReserveCredits:
        return ReserveCredits(self.ref, self._source.queue, MAX_BATCH_ENTRIES)

    def _ask(self, request: ReserveCredits | Received) -> None:
        self.send_request(IN_FLIGHT, request, request)

    def handle_info(self, message: Any) -> Any:
        if not isinstance(message, ReserveCredits | Received):
            return super().handle_info(message)
        self._ask(message)  # its pause is over
        return None

    def handle_reply(self, label: Any, value: Any) -> None:
        if label == _RECEIVE:
            self._received(value)
        elif isinstance(value, CreditsGranted):
            self._receive(value.count)
        else:
            self.send_after(self._pause_seconds, self._wish())

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        if label != _RECEIVE:
            # What has never got there is sent once more; what the one before had got is in the table.
            self.send_after(PAUSE_SECONDS, label if reason is NO_PROCESS else self._wish())
            return
        assert isinstance(reason, Crash)
        if not isinstance(reason.exception, QueueUnavailable | QueueRefused):
            raise reason.exception
        self._failures += 1
        self._hand_over([], self._retry.pause_seconds(self._failures) or 0.0, str(reason.exception))

    def _receive(self, count: int) -> None:
        self._receive_began_at = self.clock.monotonic()
        how = {
            "max_messages": count,
            "wait_seconds": self._wait_seconds,
            "visibility_timeout_seconds": self._visibility_timeout_seconds,
        }
        self.run_async(_RECEIVE, self._calls.begin, self._queues.receive, (self._source.queue,), how, then=self._read)

    def _read(self, messages: Sequence[ReceivedMessage]) -> Sequence[Delivery]:
        """Read what was received, on whatever thread."""
        post_queues, queue = self._source.post_queues, self._source.queue
        return [(each, parse_submission(each, post_queues, queue) if is_intact(each) else None) for each in messages]

    def _received(self, messages: Sequence[Delivery]) -> None:
        assert self._receive_began_at is not None
        self._failures = 0
        self._statistics.request_answered(f"receive from {self._source.queue}", len(messages))
        self._note(messages)
        # A receive that is back at once with nothing was no long poll (a setting, or an emulator): do not spin.
        spins = not messages and self.clock.monotonic() - self._receive_began_at < EMPTY_RECEIVE_SECONDS
        self._hand_over(messages, EMPTY_RECEIVE_SECONDS if spins else 0.0)

    def _hand_over(self, messages: Sequence[Delivery], pause_seconds: float, failure: str | None = None) -> None:
        # The visibility timeout begins at some time after the receive.
        began_at, self._receive_began_at = self._receive_began_at or 0.0, None
        self._pause_seconds = pause_seconds
        next_count = 0 if pause_seconds else MAX_BATCH_ENTRIES
        self._ask(Received(self.ref, self._source, messages, began_at, failure, next_count))

    def _note(self, messages: Sequence[Delivery]) -> None:
        if messages:
            self._statistics.messages_received(len(messages))
        for delivery, work in messages:
            if self._tracer.is_on:
                self._trace_received(delivery, work)
            if work is None:
                detail = "arrived corrupt (MD5); it is left for redelivery"
                log_left(delivery.message_id, Reason.BODY_MD5_MISMATCH, detail)
                self._statistics.message_finished("left", Reason.BODY_MD5_MISMATCH, 0.0)

    def _trace_received(self, delivery: ReceivedMessage, work: Submission | Unanswerable | None) -> None:
        match work:
            case Submission():
                about = {name: getattr(work, name) for name in ("user_id", "submission_id", "post_queue")}
            case Unanswerable(reason):
                about = {"reason": reason}
            case None:
                about = {"reason": Reason.BODY_MD5_MISMATCH}
        event = "received" if work else "left"
        if self._tracer.wants(event):
            known = {
                "message_id": delivery.message_id,
                "receive_count": delivery.approximate_receive_count,
                "source_queue": self._source.queue,
            }
            self._tracer.emit(event, {**known, **about})

    def terminate(self, reason: ExitReason) -> Receiving | None:
        if self._receive_began_at is not None and not isinstance(reason, Crash):
            return self._finish(self._receive_began_at)
        self._threads.close()
        return None

    def _finish(self, began_at_seconds: float) -> Receiving:
        reply = yield Receive(lambda message: isinstance(message, Reply) and message.label == _RECEIVE)
        if reply.failure is None:
            self._note(reply.value)
            self._ask(Received(self.ref, self._source, reply.value, began_at_seconds, is_last=True))
        self._threads.close()
