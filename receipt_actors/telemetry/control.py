"""``SystemControl``: what an operator may ask of a running system, however many processes it has.

``ReceiptSystem`` and ``ProcessGroup`` both offer it; the admin port calls it, from threads of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from receipt_actors.telemetry.overview import Overview


class UnknownActor(LookupError):
    """No actor has this name."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """What to trace, and how much of it at most; see ``telemetry.tracing``."""

    filters: Mapping[str, Sequence[str]]  #: values by name, see ``telemetry.trace_filters``; ``{}``: every event
    limit: int = 10  #: events
    seconds: float = 15.0


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

        Who looks without ``looks_at_queues`` gets what others have found of the queues, and costs no call to SQS.
        """

    def pause(self) -> None:
        """Take in nothing more until ``resume``; what is in flight is finished."""

    def resume(self) -> None:
        """Undo ``pause``."""

    def actor_state(self, name: str) -> Mapping[str, Any]:
        """Describe an actor's state in JSON's types, without receipts and secrets; by process where there are several.

        Raises:
            UnknownActor: nobody has this name.
        """

    def trace(
        self,
        request: TraceRequest,
        on_event: Callable[[Mapping[str, Any]], None],
        on_end: Callable[[str], None],
    ) -> Trace:
        """Trace; ``on_event`` gets each event as a flat mapping of JSON's types, ``on_end`` why it is over. Once.

        Both are called on any thread and must not block.

        Raises:
            TraceRefused: the filters match no event, or limit or seconds can't be.
        """
