"""``Processor``: the base of the short-lived actors that are responsible for one source message each.

It owns the message until it is deleted, moved or handed back. ``work`` is a generator that no thread waits in: each
answer resumes it (``answer = yield from self.ask(...)``). When an actor that was asked ends, its successor is asked; if
that takes too long, or a service does not answer, the message is handed back. A crash forgets everything: ``in_flight``
hands the message back, and redelivery is the restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from receipt_actors.domain.messages import Unanswerable, dead_letter_message, trace_context_of
from receipt_actors.domain.policy import Source
from receipt_actors.domain.ports import OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import NORMAL, Continue, Crash, ExitReason, GenServer, Name, Shutdown, Stop, start_child
from receipt_actors.pipeline.protocol import (
    RESULT_BATCHERS,
    Broken,
    DeleteMessage,
    GatewayFailure,
    GaveUp,
    HandBack,
    NoRoom,
    Refused,
    SendMessage,
    delete_batcher_of,
    result_batcher_name,
)
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from receipt_actors.telemetry.logs import log_handed_back, log_moved
from receipt_actors.telemetry.statistics import statistics_of
from receipt_actors.telemetry.tracing import FinishedDelivery, tracer_of

if TYPE_CHECKING:
    from receipt_actors.telemetry.opentelemetry import DeliverySpan, OpenTelemetryExporter

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.05  #: before asking the successor of an actor that ended; doubles each time
MAX_TRIES = 10  #: of asking: some 50 seconds

#: What ``work`` is: it yields until its questions are answered, and returns how the processor ends.
Work: TypeAlias = Generator[None, None, Stop]


@dataclass(slots=True, eq=False)
class Question:
    """A request of ``work``, and its answer; identity matters."""

    destination: Name
    request: object
    then: Callable[[Any], object] | None = None  #: called with the answer as soon as it comes
    answer: Any = None
    tries: int = 0


class Processor(GenServer):
    """See the module. A subclass says what is done, in ``work``."""

    def __init__(self, source: Source, delivery: ReceivedMessage, since_seconds: float) -> None:
        self.source = source
        self.delivery = delivery
        self._since_seconds = since_seconds  # monotonic; when the message came in
        self._work: Work | None = None
        self._open: set[Question] = set()  # what ``work`` waits for
        self._moved_for: Unanswerable | None = None
        self._steps: list[tuple[str, float]] = []  # name and monotonic begin of each step so far
        self.tracer = tracer_of(self.system)
        self._span: DeliverySpan | None = None  # of this delivery, once it is needed

    def work(self) -> Work:
        """Work on the message, and end with ``delete``, ``move`` or ``hand_back``."""
        raise NotImplementedError

    def unsent(self, question: Question, failure: Refused) -> Unanswerable | None:
        """Return why the message is unanswerable where a queue refuses a post; None: hand it back."""
        return None

    def log_answered(self, seconds: float) -> None: ...

    def not_answered(self, why: Unanswerable) -> None: ...

    def whole_delivery(self) -> ReceivedMessage:
        """Return the delivery with its body; a subclass may keep it in another form."""
        return self.delivery

    def describe_state(self) -> dict[str, object]:
        step, began_at = self._steps[-1] if self._steps else ("none", self._since_seconds)
        now = self.clock.monotonic()
        return {
            "message_id": self.delivery.message_id,
            "approximate_receive_count": self.delivery.approximate_receive_count,
            "step": step,
            "seconds_in_step": round(now - began_at, 3),
            "seconds_since_start": round(now - self._since_seconds, 3),
            "waits_for": sorted({str(question.destination) for question in self._open}),
        }

    def traced_fields(self) -> dict[str, object]:
        return {
            "message_id": self.delivery.message_id,
            "receive_count": self.delivery.approximate_receive_count,
            "source_queue": self.source.queue,
        }

    def finished(self, delivery: FinishedDelivery) -> FinishedDelivery:
        return delivery

    def init(self) -> Continue | None:
        how = self._begin(self.work())
        return None if how is None else Continue(how)  # it ends at once, but it has started

    def handle_continue(self, term: Any) -> Any:
        return term

    def enter(self, step: str) -> None:
        self._steps.append((step, self.clock.monotonic()))

    def trace(self, event: str, **fields: object) -> None:
        """Trace an event. Call it only where ``tracer.is_on``: it takes its time."""
        if self.tracer.wants(event):
            if self._steps:
                fields["seconds"] = self.clock.monotonic() - self._steps[-1][1]
            self.tracer.emit(event, {**self.traced_fields(), **fields}, self._since_seconds)

    def traceparent(self) -> str | None:
        """Return the trace context to hand on, if the message came with one."""
        parent = trace_context_of(self.delivery)
        if parent is None:
            return None
        context = parent if self.tracer.exporter is None else self._begin_span(self.tracer.exporter).context
        return context.traceparent

    def _begin_span(self, exporter: OpenTelemetryExporter) -> DeliverySpan:
        if self._span is None:
            began_at_seconds = self._since_seconds + self.clock.time() - self.clock.monotonic()
            self._span = exporter.begin(trace_context_of(self.delivery), began_at_seconds)
        return self._span

    def _tell_exporter(self, fate: str, reason: Reason | None) -> None:
        exporter = self.tracer.exporter
        assert exporter is not None
        span = self._begin_span(exporter)
        if not span.is_wanted:
            return
        now = self.clock.time()
        to_unix_time = now - self.clock.monotonic()
        steps = tuple((step, begin + to_unix_time) for step, begin in self._steps)
        receive_count = self.delivery.approximate_receive_count
        delivery = FinishedDelivery(
            self.source.queue, self.delivery.message_id, receive_count, now, steps, fate, reason
        )
        span.end(self.finished(delivery))

    def ask(self, *questions: Question) -> Generator[None, None, Sequence[Any]]:
        """Ask all questions at once and return the answers in their order."""
        self._open.update(questions)
        for question in questions:
            self._send(question)
        yield
        return [question.answer for question in questions]

    def posting(self, queue: str, message: OutgoingMessage, then: Callable[[Any], object] | None = None) -> Question:
        return Question(result_batcher_name(queue), SendMessage(message), then)

    def move(self, unanswerable: Unanswerable) -> Work:
        dead_letter_queue = self.source.dead_letter_queue
        if dead_letter_queue is None:
            self.not_answered(unanswerable)
            return self.hand_back(Reason.NO_DEAD_LETTER_QUEUE, f"{unanswerable.reason}: {unanswerable.detail}")
        self._moved_for = unanswerable
        self.enter("moving")
        if self.tracer.is_on:
            self.trace("move", reason=unanswerable.reason)
        letter = dead_letter_message(self.whole_delivery(), unanswerable, dead_letter_queue)
        yield from self.ask(self.posting(dead_letter_queue, letter))
        return (yield from self.delete())

    def delete(self) -> Work:
        self.enter("deleting")
        if self.tracer.is_on:
            self.trace("delete")
        yield from self.ask(Question(delete_batcher_of(self.source), DeleteMessage(self.delivery.receipt_handle)))
        return self._finish()

    def hand_back(self, reason: Reason, detail: str) -> Stop:
        seconds = self.clock.monotonic() - self._since_seconds
        log_handed_back(self.delivery.message_id, reason, detail, seconds)
        summary = f"a message is handed back, {reason}: {detail}"
        self.cast(INCIDENTS, Noticed(IncidentKind.HANDED_BACK, reason.value, summary, self.delivery.message_id))
        if self.tracer.is_on:
            self.trace("handed_back", reason=reason)
        if self.tracer.exporter is not None:
            self._tell_exporter("handed_back", reason)
        return Stop(Shutdown(HandBack(reason)))

    def _begin(self, work: Work) -> Stop | None:
        self._work = work
        self._open.clear()
        return self._go_on()

    def _go_on(self) -> Stop | None:
        assert self._work is not None
        try:
            self._work.send(None)
        except StopIteration as end:
            how: Stop = end.value
            return how
        return None

    def handle_reply(self, label: Any, value: Any) -> Any:
        if label not in self._open:
            return None
        if isinstance(value, GatewayFailure) and not isinstance(label.request, DeleteMessage):
            return self._failed(label, value)
        if isinstance(value, GatewayFailure):
            # Answered, but not deleted: it comes back, and gets the same answer again.
            logger.warning("message %s could not be deleted: %s", self.delivery.message_id, value)
        self._open.discard(label)
        label.answer = value
        if label.then is not None:
            label.then(value)
        return None if self._open else self._go_on()

    def _failed(self, question: Question, failure: GatewayFailure) -> Stop | None:
        match failure:
            case Broken(error):
                raise error
            case Refused() if (why := self.unsent(question, failure)) is not None:
                return self._begin(self.move(why))
            case Refused(detail) | GaveUp(detail):
                return self.hand_back(Reason.GAVE_UP_FOR_NOW, detail)
            case NoRoom(detail):
                return self.hand_back(Reason.POST_QUEUE_UNAVAILABLE, detail)

    def handle_failure(self, label: Any, reason: ExitReason) -> Any:
        if label not in self._open:
            return None
        label.tries += 1
        if label.tries > MAX_TRIES:
            return self.hand_back(Reason.GAVE_UP_FOR_NOW, f"nobody answers as {label.destination}")
        self.send_after(FIRST_PAUSE_SECONDS * 2 ** (label.tries - 1), label)
        return None

    def handle_info(self, message: Any) -> Any:
        if not isinstance(message, Question):
            return super().handle_info(message)
        if message in self._open:  # its pause is over
            self._send(message)
        return None

    def terminate(self, reason: ExitReason) -> None:
        if self.tracer.exporter is not None and isinstance(reason, Crash):
            self._tell_exporter("handed_back", Reason.CRASHED)

    def _send(self, question: Question) -> None:
        destination = question.destination
        if isinstance(question.request, SendMessage) and self.system.whereis(destination) is None:
            assert isinstance(destination, tuple)
            _kind, queue = destination
            supervisor = self.system.whereis(RESULT_BATCHERS)
            if supervisor is not None:
                start_child(supervisor, (queue,))  # where it does not start, the question is put again later
        self.send_request(destination, question.request, question)

    def _finish(self) -> Stop:
        moved_for = self._moved_for
        fate, reason = ("answered", None) if moved_for is None else ("moved", moved_for.reason)
        if self.tracer.is_on:
            self.trace(fate, reason=reason)
        if self.tracer.exporter is not None:
            self._tell_exporter(fate, reason)
        now = self.clock.monotonic()
        seconds = now - self._since_seconds
        if moved_for is None:
            self.log_answered(seconds)
        else:
            self.not_answered(moved_for)
            log_moved(self.delivery.message_id, moved_for.reason, moved_for.detail, seconds)
            summary = f"a message was moved to the dead-letter queue, {moved_for.reason}: {moved_for.detail}"
            subject = moved_for.reason.value
            self.cast(INCIDENTS, Noticed(IncidentKind.MOVED, subject, summary, self.delivery.message_id))
        ends = [begin for _step, begin in self._steps[1:]] + [now]
        steps = [(step, end - begin) for (step, begin), end in zip(self._steps, ends, strict=True)]
        statistics_of(self.system).message_finished(fate, reason, seconds, steps)
        return Stop(NORMAL)


class Mover(Processor):
    """Has one message that cannot be answered sent to the dead-letter queue, then deleted."""

    def __init__(
        self, source: Source, delivery: ReceivedMessage, unanswerable: Unanswerable, since_seconds: float
    ) -> None:
        super().__init__(source, delivery, since_seconds)
        self._unanswerable = unanswerable

    def work(self) -> Work:
        return self.move(self._unanswerable)
