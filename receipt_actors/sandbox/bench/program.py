"""The program under test as a process, looked at from outside. Needs ``psutil``."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

CHILDREN_SECONDS = 1.0  #: the list of child processes is that old, at most: it takes a look at every process there is


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used."""

    at: float  #: monotonic
    cpu_seconds: float
    rss_bytes: int  #: pages that several of them share are counted for each


class Program:
    """A process, in a session of its own, so that Ctrl-C is for who measures it. ``close`` leaves nothing behind."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            list(command), env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._meter = Meter(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def usage(self, *, is_exact: bool = False) -> Usage:
        """Measure; ``is_exact`` looks for new children first."""
        return self._meter.usage(is_exact=is_exact)

    def stop(self, seconds: float) -> int | None:
        """Ask it to end (SIGTERM) and wait; None where it did not in this time."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End it and its children at once, unless they have ended."""
        for process in self._meter.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


class Meter:
    """Measures a process and its children."""

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self._children: list[psutil.Process] = []
        self._looked_at = 0.0

    def processes(self) -> list[psutil.Process]:
        """Those that run."""
        with suppress(psutil.NoSuchProcess):
            self._children = self._process.children(recursive=True)
        return [self._process, *self._children]

    def usage(self, *, is_exact: bool = False) -> Usage:
        """Measure; a process that has ended counts with what its parent knows of it."""
        now = time.monotonic()
        if is_exact or now - self._looked_at > CHILDREN_SECONDS:
            self.processes()
            self._looked_at = now
        cpu_seconds, rss_bytes = 0.0, 0
        for process in (self._process, *self._children):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                rss_bytes += process.memory_info().rss
                cpu_seconds += times.user + times.system + times.children_user + times.children_system
        return Usage(now, cpu_seconds, rss_bytes)
