"""A progress bar for people who wait, and for nobody else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import rich.progress

PATIENCE_SECONDS = 2.0  #: what ends sooner shows no bar


class SlowProgress:
    """Shows on stderr how far a command is, once it has taken two seconds, where stderr is a terminal."""

    def __init__(
        self, description: str, total: int | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._description = description
        self._total = total
        self._clock = clock
        self._began_at = clock()
        self._done = 0
        self._bar: rich.progress.Progress | None = None

    def advance(self, count: int = 1) -> None:
        """Count what has been done."""
        self._done += count
        if self._bar is None and sys.stderr.isatty() and self._clock() - self._began_at >= PATIENCE_SECONDS:
            self._bar = self._start()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _start(self) -> rich.progress.Progress:
        from rich.console import Console  # most runs are too short to need it
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )
        bar.add_task(self._description, total=self._total)
        bar.start()
        return bar
