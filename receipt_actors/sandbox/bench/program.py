"""The program under test as a process, looked at from outside. Needs ``psutil``."""

from __future__ import annotations

import signal
import subprocess  # nosec B404
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CHILDREN_SECONDS = 1.0  #: the list of children is that old, at most: to make it takes a look at every process there is
MAX_TOLD_LINES = 20  #: of its output, where it fails


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used."""

    at: float  #: monotonic
    cpu_seconds: float
    rss_bytes: int  #: pages that several of them share are counted for each


class Program:
    """A process in a session of its own, so that Ctrl-C is for who measures it. ``close`` leaves nothing behind.

    What it prints goes to the file ``output``. It runs from ``start`` on.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._output = output

    def start(self) -> None:
        """Start it. A signal that comes meanwhile interrupts us when ``close`` knows the process, not before."""
        self.started_at = time.monotonic()
        with self._output.open("wb") as out, _interrupts_held():
            self._process = subprocess.Popen(  # nosec B603 # what is to be measured
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.meter = Meter(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-MAX_TOLD_LINES:])

    def stop(self, seconds: float) -> int | None:
        """Ask it to end (SIGTERM) and wait; None where it did not in this time."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End it and its children at once, unless they have ended."""
        if not hasattr(self, "meter"):  # it was never started
            return
        for process in self.meter.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold up SIGINT and SIGTERM until the end of the block. Other threads than the main one get none anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def machine_cpu_seconds() -> float:
    """What all programs of this machine have used together; what a host gave to other machines counts as used."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def own_cpu_seconds() -> float:
    """What this process has used."""
    times = psutil.Process().cpu_times()
    return times.user + times.system


class Meter:
    """Measures a process and its children."""

    def __init__(self, process_id: int) -> None:
        self._processes: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):  # it has ended already
            self._processes = [psutil.Process(process_id)]
        self._looked_at = 0.0

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            self._processes = [
                process for first in self._processes[:1] for process in (first, *first.children(recursive=True))
            ]
        self._looked_at = time.monotonic()
        return self._processes

    def usage(self, *, is_exact: bool = False) -> Usage:
        """Measure; ``is_exact`` looks for new children first. A child that has ended counts with its parent."""
        now = time.monotonic()
        if is_exact or now - self._looked_at > CHILDREN_SECONDS:
            self.processes()
        cpu_seconds, rss_bytes = 0.0, 0
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                rss_bytes += process.memory_info().rss
                cpu_seconds += times.user + times.system + times.children_user + times.children_system
        return Usage(now, cpu_seconds, rss_bytes)
