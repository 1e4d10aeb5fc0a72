"""``GroupTrace``: one trace of all processes.

The parent traces its own actors, as every process does its own, and takes what the workers tell into the same trace: so
limit, time and what is lost are of all of them together, and there is one thread that tells.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from receipt_actors.scale.processes.messages import StartTrace
from receipt_actors.telemetry.control import TraceRequest
from receipt_actors.telemetry.tracing import RunningTrace, Tracer

LAST_WORDS_SECONDS = 1.0  #: for the workers to say what they have lost


class GroupTrace:
    """See the module, and ``telemetry.control.Trace``. The workers know it by its ``number``."""

    def __init__(
        self,
        number: int,
        request: TraceRequest,
        on_event: Callable[[Mapping[str, Any]], None],
        on_end: Callable[[str], None],
        stop_workers: Callable[[], None],
    ) -> None:
        self.number = number
        self._request = request
        self._on_event = on_event
        self._on_end = on_end
        self._stop_workers = stop_workers
        self._end_at_seconds = time.monotonic() + request.seconds
        self._changed = threading.Condition()  # guards what follows
        self._ours: RunningTrace | None = None
        self._waited_for: set[str] = set()  # workers that trace

    def begin(self, tracer: Tracer) -> None:
        """Begin, with the parent's own actors. Raises ``TraceRefused``."""
        self._ours = tracer.start(self._request, self._on_event, self._ended)

    def order_for(self, worker: str) -> StartTrace | None:
        """Return what a worker is to be told, which is to begin now; None where the time is over."""
        seconds_left = self._end_at_seconds - time.monotonic()
        if seconds_left <= 0:
            return None
        with self._changed:
            self._waited_for.add(worker)
        return StartTrace(self.number, self._request.filters, self._request.limit, seconds_left)

    @property
    def lost(self) -> int:
        """See ``Trace``; of the workers when the trace is over."""
        return 0 if self._ours is None else self._ours.lost

    def stop(self) -> None:
        if self._ours is not None:
            self._ours.stop()

    def happened(self, event: Mapping[str, Any]) -> None:
        """Take in what a worker told. It has matched there; here what is not known has been left out."""
        if self._ours is not None:
            self._ours.accept(event)

    def ended_in(self, worker: str, lost: int = 0) -> None:
        with self._changed:
            self._waited_for.discard(worker)
            self._changed.notify()
        if self._ours is not None:
            self._ours.lose(lost)

    def _ended(self, why: str) -> None:
        """Have the workers end it as well, hear what they have lost, and tell; on the trace's own thread."""
        self._stop_workers()
        with self._changed:
            self._changed.wait_for(lambda: not self._waited_for, LAST_WORDS_SECONDS)
        self._on_end(why)
