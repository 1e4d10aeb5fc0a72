"""``SystemControl``: what an operator may ask of a running system; and ``Watcher``, which looks at one on a thread."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, TypeAlias

from receipt_actors.errors import TraceRefused
from receipt_actors.telemetry.overview import Overview
from receipt_actors.telemetry.trace_filters import TraceFilter

MAX_EVENTS: Final = 10_000  #: that a trace may ask for
MAX_SECONDS: Final = 3_600.0  #: likewise
OnEvent: TypeAlias = Callable[[Mapping[str, Any]], None]
OnEnd: TypeAlias = Callable[[str], None]


class UnknownActor(LookupError):
    pass


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """What to trace, and how much at most. Raises ``TraceRefused`` if nothing can match, or a bound is out of range."""

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
    @property
    def lost(self) -> int:
        """Return how many events may have matched and are not told, for lack of room or time."""

    def stop(self) -> None:
        """End it; ``on_end`` is called if it was not."""


class SystemControl(Protocol):
    """``ReceiptSystem`` or ``ProcessGroup``. Every method may be called on any thread, and returns within seconds."""

    def overview(self, *, looks_at_queues: bool = True) -> Overview:
        """Look at the system, in every state; without ``looks_at_queues`` SQS is not called."""

    def pause(self) -> None:
        """Take in nothing more until ``resume``; what is in flight is finished."""

    def resume(self) -> None: ...

    def actor_state(self, name: str) -> Mapping[str, Any]:
        """Describe an actor in JSON's types, without receipts and secrets; by process if there are several.

        Raises ``UnknownActor``.
        """

    def trace(self, request: TraceRequest, on_event: OnEvent, on_end: OnEnd) -> Trace:
        """Call ``on_event`` with each event, a flat mapping of JSON's types, and ``on_end`` once with why it is over.

        They are called on any thread and must not block. Raises ``TraceRefused`` if too many traces run, or the system
        has ended.
        """


class Watcher(ABC):
    """Looks at a system from ``watch`` to ``close``, on a thread of its own."""

    def __init__(self, name: str, close_seconds: float | None = None) -> None:
        self._name = name
        self._close_seconds = close_seconds  # for ``_run`` to end; None: however long it takes
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, system: SystemControl) -> None:
        """Look at this system from now on. Call it once."""
        name = f"receipt-actors-{self._name}"
        self._thread = threading.Thread(target=self._run, args=(system,), name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join(self._close_seconds)

    @abstractmethod
    def _run(self, system: SystemControl) -> None:
        """Look again and again until ``_is_over``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
