"""A delivery's steps and times when it is over: what a trace of OpenTelemetry is made of.

The time at which each step begins is noted in any case, so a ``FinishedDelivery`` costs nothing until the delivery is
over, and is made then only if it is exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from receipt_actors.domain.messages import Result, TraceContext
from receipt_actors.domain.reasons import Reason


@dataclass(frozen=True, slots=True)
class FinishedDelivery:
    """See the module. Times are UNIX times."""

    context: TraceContext  #: of the delivery itself
    parent: TraceContext | None  #: that the message brought along
    source_queue: str
    message_id: str
    receive_count: int
    began_at_seconds: float
    ended_at_seconds: float
    steps: tuple[tuple[str, float], ...]  #: ``verifying`` and so on, and when each began; it ends where the next begins
    fate: str  #: ``answered``, ``moved`` or ``handed_back``
    reason: Reason | None  #: why, unless it was answered
    user_id: int | None = None
    submission_id: str | None = None
    post_queue: str | None = None
    results: tuple[Result, ...] = ()  #: what was answered, or was to be


class TraceExporter(Protocol):
    """Takes deliveries. The methods may be called from any thread, return at once, and raise nothing."""

    def context(self, parent: TraceContext | None) -> TraceContext:
        """Make the context of a delivery, and decide whether it is wanted (``is_sampled``)."""

    def over(self, delivery: FinishedDelivery) -> None:
        """Take a delivery that is wanted."""

    def close(self) -> None:
        """Pass on what there is, for a moment at most, and end."""
