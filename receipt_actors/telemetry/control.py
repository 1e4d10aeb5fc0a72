"""``SystemControl``: what an operator may ask of a running system, however many processes it has.

``ReceiptSystem`` and ``ProcessGroup`` both offer it; the admin port calls it, from threads of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from receipt_actors.errors import TraceRefused
from receipt_actors.telemetry.overview import Overview
from receipt_actors.telemetry.trace_filters import TraceFilter

MAX_EVENTS: Final = 10_000  #: that a trace may ask for
MAX_SECONDS: Final = 3_600.0  #: likewise


class UnknownActor(LookupError):
    """No actor has this name."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """What to trace, and how much of it at most; see ``telemetry.tracing``.

    Raises:
        TraceRefused: no event can match the filters, or limit or seconds can't be.
    """

    filters: Mapping[str, Sequence[str]]  #: values by name, see ``telemetry.trace_filters``; ``{}``: every event
    limit: int = 10  #: events
    seconds: float = 15.0

    def __post_init__(self) -> None:
        TraceFilter(self.filters)
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or not 1 <= self.limit <= MAX_EVENTS:
            raise TraceRefused(f"limit: expected 1 to {MAX_EVENTS:,} events, not {self.limit!r}")
        is_number = isinstance(self.seconds, int | float) and not isinstance(self.seconds, bool)
        if not is_number or not 0 < self.seconds <= MAX_SECONDS:
            raise TraceRefused(f"seconds: expected more than 0, and {MAX_SECONDS:,.0f} at most, not {self.seconds!r}")


class Trace(Protocol):
    """A trace that runs."""

    @property
    def lost(self) -> int:
        """Count the events so far that may have matched and are not told: no room, or no time to look at them."""

    def stop(self) -> None:
        """End it; ``on_end`` is called if it was not."""


class SystemControl(Protocol):
    """See the module. Every method may be called from any thread, and returns within seconds."""

    def overview(self, *, looks_at_queues: bool = True) -> Overview:
        """Look at everything. Works in every state, also after the tree has ended.

        Without ``looks_at_queues`` the numbers are those of an earlier look, and SQS is not called.
        """

    def pause(self) -> None:
        """Take in nothing more until ``resume``; what is in flight is finished."""

    def resume(self) -> None:
        """Undo ``pause``."""

    def actor_state(self, name: str) -> Mapping[str, Any]:
        """Describe an actor's state in JSON's types, without receipts and secrets; by process where there are several.

        Raises:
            UnknownActor: no actor has this name.
        """

    def trace(
        self, request: TraceRequest, on_event: Callable[[Mapping[str, Any]], None], on_end: Callable[[str], None]
    ) -> Trace:
        """Trace; ``on_event`` gets each event as a flat mapping of JSON's types, ``on_end`` why it is over. Once.

        Both are called on any thread and must not block.

        Raises:
            TraceRefused: too many traces run, or the system has ended.
        """
