"""``Watcher``: the base of what looks at a running system from outside, on a thread of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from receipt_actors.telemetry.control import SystemControl


class Watcher(ABC):
    """Watches one system from ``watch`` to ``close``; as a context manager it is closed at its end."""

    def __init__(self, name: str, close_seconds: float | None = None) -> None:
        self._name = name
        self._close_seconds = close_seconds  # for ``_run`` to end; None: however long it takes
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, system: SystemControl) -> None:
        """Look at this system from now on; once."""
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
