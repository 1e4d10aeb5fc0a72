"""``Custodian``: the base of the short-lived actors that are responsible for one source message each.

It owns the message until it is deleted, moved or handed back, and holds a credit of intake for as long as it lives. It
never waits on a thread: it sends a request and handles the answer as a message. When the actor that it asked has ended
meanwhile, it asks that actor's successor; when nobody answers for too long it hands the message back. A crash of it
forgets everything; the visibility keeper sees it and hands the message back. That is why custodians are temporary:
redelivery is their restart.

One whose message is of a FIFO queue begins when the visibility keeper says that it is its turn (``domain.lines``).
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from receipt_actors.domain.messages import Unanswerable, dead_letter_message
from receipt_actors.domain.ports import OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sources import Source
from receipt_actors.domain.trace_context import TraceContext, trace_context_of
from receipt_actors.otp import NO_PROCESS, NORMAL, Crash, ExitReason, GenServer, Name, StartChild, Stop
from receipt_actors.pipeline.protocol import (
    INTAKE,
    RESULT_BATCHERS,
    VISIBILITY_KEEPER,
    AnnounceYourself,
    Broken,
    DeleteMessage,
    Done,
    GatewayFailure,
    GaveUp,
    HandBack,
    MessageTaken,
    NoRoom,
    Refused,
    SendMessage,
    StandBack,
    WatchMessage,
    YourTurn,
    delete_batcher_of,
    result_batcher_name,
)
from receipt_actors.telemetry.decisions import log_handed_back, log_moved
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from receipt_actors.telemetry.statistics import statistics_of
from receipt_actors.telemetry.tracing import tracer_of
from receipt_actors.telemetry.walks import Walk

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.05  #: before asking the successor of an actor that ended; doubles each time
MAX_TRIES = 10  #: of asking: some 50 seconds


@dataclass(frozen=True, slots=True)
class _AskAgain:
    """To itself: the pause is over."""

    label: Hashable


@dataclass(frozen=True, slots=True)
class _BatcherWanted:
    """Label of the request to start the result batcher that the request ``label`` needs."""

    label: Hashable


@dataclass(slots=True)
class _Question:
    """A request that has not been answered."""

    destination: Name
    request: object
    tries: int = 0


_MOVE = "move"
_DELETE = "delete"


class Custodian(GenServer):
    """See the module. A subclass begins in ``begin`` and goes on in ``answered``."""

    def __init__(self, source: Source, delivery: ReceivedMessage, received_at_seconds: float) -> None:
        self.source = source
        self.delivery = delivery
        self._received_at_seconds = received_at_seconds  # monotonic; when the receive began, a long poll ago perhaps
        self._started_at_seconds = self.clock.monotonic()
        self._questions: dict[Hashable, _Question] = {}
        self._moved_for: Unanswerable | None = None
        self._waits_for_its_turn = delivery.group_id is not None
        self._steps: list[tuple[str, float]] = []  # name and monotonic begin of each step so far
        self.tracer = tracer_of(self.system)
        self._context: TraceContext | None = None  # of its walk, once somebody has to know it

    # --- what a subclass says ---

    def begin(self) -> Stop | None:
        """Take the first step."""
        raise NotImplementedError

    def answered(self, label: Any, value: Any) -> Stop | None:
        """Take the next step: the question ``label`` was answered."""
        raise NotImplementedError

    def failed(self, label: Any, failure: GatewayFailure) -> Stop | None:
        """Decide what to do about a question that the service could not answer; by default, hand back."""
        match failure:
            case Broken(error):
                raise error
            case Refused(detail) | GaveUp(detail):
                return self.hand_back(Reason.GAVE_UP_FOR_NOW, detail)
            case NoRoom(detail):
                return self.hand_back(Reason.POST_QUEUE_UNAVAILABLE, detail)

    def log_answered(self, seconds: float) -> None:
        """Tell what was answered; a custodian that answers nothing has nothing to tell."""

    def not_answered(self, why: Unanswerable) -> None:
        """Tell the program that waits for an answer, if it is this one, that there will be none."""

    def whole_delivery(self) -> ReceivedMessage:
        """Return the delivery with its body, for the dead-letter queue; a subclass may keep it in another form."""
        return self.delivery

    def describe_state(self) -> dict[str, object]:
        """See ``Actor``: which message it is about, and what it waits for."""
        nothing = "waiting for its turn" if self._waits_for_its_turn else "none"
        step, began_at = self._steps[-1] if self._steps else (nothing, self._started_at_seconds)
        now = self.clock.monotonic()
        return {
            "message_id": self.delivery.message_id,
            "approximate_receive_count": self.delivery.approximate_receive_count,
            "step": step,
            "seconds_in_step": round(now - began_at, 3),
            "seconds_since_start": round(now - self._started_at_seconds, 3),
            "waits_for": sorted({str(question.destination) for question in self._questions.values()}),
        }

    def traced_fields(self) -> dict[str, object]:
        """Return what is known of the message, by the names of ``telemetry.tracing``."""
        return {
            "message_id": self.delivery.message_id,
            "receive_count": self.delivery.approximate_receive_count,
            "source_queue": self.source.queue,
        }

    def walk(self, walk: Walk) -> Walk:
        """Add what else is known of the walk, which is over."""
        return walk

    # --- steps ---

    def init(self) -> Stop | None:
        """Announce itself, then begin, unless somebody has to say when."""
        self.cast(INTAKE, MessageTaken(self.ref, self.source.queue))
        self._announce_to_keeper()
        return None if self._waits_for_its_turn else self.begin()

    def enter(self, step: str) -> None:
        """Note that a step begins, for the statistics: ``verifying``, ``claiming``, ..."""
        self._steps.append((step, self.clock.monotonic()))

    def trace(self, event: str, **fields: object) -> None:
        """Tell who traces of an event. To be called where ``tracer.is_on`` only: it takes its time."""
        if self.tracer.wants(event):
            if self._steps:
                fields["seconds"] = self.clock.monotonic() - self._steps[-1][1]
            self.tracer.emit(event, {**self.traced_fields(), **fields}, self._started_at_seconds)

    def traceparent(self) -> str | None:
        """Return the trace context to hand on with what is sent, if the message came with one."""
        parent = trace_context_of(self.delivery)
        if parent is None:
            return None
        if self.tracer.walks is not None:
            self._context = self.tracer.walks.context(parent)
        return (self._context or parent).traceparent

    def _walk_over(self, fate: str, reason: Reason | None) -> None:
        """Tell who wants to know of walks; only where there is somebody."""
        walks = self.tracer.walks
        assert walks is not None
        parent = trace_context_of(self.delivery)
        context = self._context or walks.context(parent)
        if not context.is_sampled:
            return
        now = self.clock.time()
        to_unix_time = now - self.clock.monotonic()
        walk = Walk(
            context,
            parent,
            self.source.queue,
            self.delivery.message_id,
            self.delivery.approximate_receive_count,
            self._started_at_seconds + to_unix_time,
            now,
            tuple((step, begin + to_unix_time) for step, begin in self._steps),
            fate,
            reason,
        )
        walks.over(self.walk(walk))

    def ask(self, label: Hashable, destination: Name, request: object) -> None:
        """Send a request; ``answered(label, value)`` or ``failed(label, failure)`` follows."""
        self._questions[label] = _Question(destination, request)
        self.send_request(destination, request, label)

    def post(self, label: Hashable, queue: str, message: OutgoingMessage) -> None:
        """Send a message to a queue through its batcher, which is started if need be."""
        name = result_batcher_name(queue)
        self._questions[label] = _Question(name, SendMessage(message))
        self._ask_batcher(label)

    @property
    def has_open_questions(self) -> bool:
        """Tell whether an answer is still to come."""
        return bool(self._questions)

    def move(self, unanswerable: Unanswerable) -> Stop | None:
        """Move the message to the dead-letter queue: send it there, then delete it."""
        dead_letter_queue = self.source.dead_letter_queue
        if dead_letter_queue is None:
            self.not_answered(unanswerable)
            return self.hand_back(Reason.NO_DEAD_LETTER_QUEUE, f"{unanswerable.reason}: {unanswerable.detail}")
        self._moved_for = unanswerable
        self.enter("moving")
        if self.tracer.is_on:
            self.trace("move", reason=unanswerable.reason)
        letter = dead_letter_message(self.whole_delivery(), unanswerable, dead_letter_queue)
        self.post(_MOVE, dead_letter_queue, letter)
        return None

    def delete(self) -> None:
        """Delete the message: its answer is confirmed, or it has been moved."""
        self.enter("deleting")
        if self.tracer.is_on:
            self.trace("delete")
        self.ask(_DELETE, delete_batcher_of(self.source), DeleteMessage(self.delivery.receipt_handle))

    def hand_back(self, reason: Reason, detail: str) -> Stop:
        """Give up for this delivery. No answer is invented: the message comes back."""
        seconds = self.clock.monotonic() - self._started_at_seconds
        log_handed_back(self.delivery.message_id, reason, detail, seconds)
        self.cast(VISIBILITY_KEEPER, HandBack(self.ref, reason))
        summary = f"a message is handed back, {reason}: {detail}"
        self.cast(INCIDENTS, Noticed(IncidentKind.HANDED_BACK, reason.value, summary, self.delivery.message_id))
        if self.tracer.is_on:
            self.trace("handed_back", reason=reason)
        if self.tracer.walks is not None:
            self._walk_over("handed_back", reason)
        return Stop(NORMAL)

    # --- answers ---

    def handle_reply(self, label: Any, value: Any) -> Any:
        """Go on with the answer."""
        if isinstance(label, _BatcherWanted):
            return self._batcher_started(label)
        if self._questions.pop(label, None) is None:
            return None
        if isinstance(value, GatewayFailure):
            if label == _DELETE:
                # Answered, but not deleted: it comes back, and gets the same answer again.
                logger.warning("message %s could not be deleted: %s", self.delivery.message_id, value)
                return self._finish()
            return self.failed(label, value)
        if label == _MOVE:
            self.delete()
            return None
        if label == _DELETE:
            assert isinstance(value, Done)
            return self._finish()
        return self.answered(label, value)

    def handle_failure(self, label: Any, reason: ExitReason) -> Any:
        """Ask the successor of the actor that ended, after a pause."""
        wanted = label.label if isinstance(label, _BatcherWanted) else label
        question = self._questions.get(wanted)
        if question is None:
            return None
        question.tries += 1
        if question.tries > MAX_TRIES:
            return self.hand_back(Reason.GAVE_UP_FOR_NOW, f"nobody answers as {question.destination}")
        # The first time there is most likely only no batcher for this queue yet.
        self.send_after(FIRST_PAUSE_SECONDS * 2 ** (question.tries - 1), _AskAgain(wanted))
        return None

    def handle_info(self, message: Any) -> Any:
        """A pause is over, or a new visibility keeper wants to know."""
        match message:
            case _AskAgain(label):
                self._ask_if_open(label)
            case AnnounceYourself():
                self._announce_to_keeper()
                if self._waits_for_its_turn:  # and nobody knows any more what became of those before it
                    return self.hand_back(Reason.GROUP_HANDED_BACK, "its group's order is not known any more")
            case YourTurn():
                if self._waits_for_its_turn:
                    self._waits_for_its_turn = False
                    return self.begin()
            case StandBack():
                if self._waits_for_its_turn:
                    return self.hand_back(Reason.GROUP_HANDED_BACK, "one before it in its group was handed back")
            case _:
                return super().handle_info(message)
        return None

    def terminate(self, reason: ExitReason) -> None:
        """Tell of a walk that ends in a crash: the visibility keeper hands the message back."""
        if self.tracer.walks is not None and isinstance(reason, Crash):
            self._walk_over("handed_back", Reason.CRASHED)

    def _ask_if_open(self, label: Hashable) -> None:
        question = self._questions.get(label)
        if question is None:
            return
        if isinstance(question.request, SendMessage):
            self._ask_batcher(label)
        else:
            self.send_request(question.destination, question.request, label)

    def _ask_batcher(self, label: Hashable) -> None:
        question = self._questions[label]
        if self.system.whereis(question.destination) is None:
            assert isinstance(question.destination, tuple)
            _kind, queue = question.destination
            self.send_request(RESULT_BATCHERS, StartChild((queue,)), _BatcherWanted(label))
        else:
            self.send_request(question.destination, question.request, label)

    def _batcher_started(self, label: _BatcherWanted) -> Any:
        question = self._questions.get(label.label)
        if question is not None and self.system.whereis(question.destination) is None:
            return self.handle_failure(label, NO_PROCESS)  # it did not start, or has ended already
        self._ask_if_open(label.label)
        return None

    def _announce_to_keeper(self) -> None:
        delivery = self.delivery
        self.cast(
            VISIBILITY_KEEPER,
            WatchMessage(
                self.ref,
                delivery.message_id,
                delivery.receipt_handle,
                delivery.approximate_receive_count,
                self._received_at_seconds,
                self.source,
                delivery.group_id,
            ),
        )

    def _finish(self) -> Stop:
        moved_for = self._moved_for
        fate, reason = ("answered", None) if moved_for is None else ("moved", moved_for.reason)
        if self.tracer.is_on:
            self.trace(fate, reason=reason)
        if self.tracer.walks is not None:
            self._walk_over(fate, reason)
        now = self.clock.monotonic()
        seconds = now - self._started_at_seconds
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
