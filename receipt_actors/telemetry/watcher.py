"""``Watcher``: the base of what looks at a running system from outside, for as long as its command runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from receipt_actors.telemetry.control import SystemControl


class Watcher(ABC):
    """Watches one system from ``watch`` to ``close``; as a context manager it is closed at its end."""

    @abstractmethod
    def watch(self, system: SystemControl) -> None:
        """Look at this system from now on; once."""

    @abstractmethod
    def close(self) -> None:
        """Look no more, and end what does so."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()
