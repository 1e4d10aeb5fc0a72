"""``SystemControl``: what an operator may ask of a running system; and ``Watcher``, which looks at one on a thread.

``ReceiptSystem`` and ``ProcessGroup`` are a ``SystemControl``.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self

from receipt_actors.errors import TraceRefused
from receipt_actors.telemetry.overview import Overview
from receipt_actors.telemetry.trace_filters import TraceFilter

MAX_EVENTS: Final = 10_000  #: that a trace may ask for
MAX_SECONDS: Final = 3_600.0  #: likewise


class UnknownActor(LookupError):
    """No actor has this name."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """What to trace, and how much of it at most.

    Raises:
        TraceRefused: no event can match the filters, or limit or seconds are out of range.
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
        """Count the events so far that may have matched and are not told, for lack of room or time."""

    def stop(self) -> None:
        """End it; ``on_end`` is called if it was not."""


class SystemControl(Protocol):
    """See the module. Every method may be called on any thread, and returns within seconds."""

    def overview(self, *, looks_at_queues: bool = True) -> Overview:
        """Look at everything, in every state; without ``looks_at_queues`` SQS is not called."""

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
        """Trace. ``on_event`` gets each event as a flat mapping of JSON's types, ``on_end`` once why it is over.

        Both are called on any thread and must not block.

        Raises:
            TraceRefused: too many traces run, or the system has ended.
        """


class Watcher(ABC):
    """Looks at a system from ``watch`` to ``close``, on a thread of its own; as a context manager it closes itself."""

    def __init__(self, name: str, close_seconds: float | None = None) -> None:
        self._name = name
        self._close_seconds = close_seconds  # for ``_run`` to end; None: however long it takes
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, system: SystemControl) -> None:
        """Look at this system from now on. To be called once."""
        self._thread = threading.Thread(
            target=self._run, args=(system,), name=f"receipt-actors-{self._name}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join(self._close_seconds)

    @abstractmethod
    def _run(self, system: SystemControl) -> None:
        """Look again and again until ``_is_over``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()
