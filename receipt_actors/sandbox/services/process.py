"""A simulated service as a process of its own, seen from who starts it."""

from __future__ import annotations

import subprocess  # nosec B404
import sys
from collections.abc import Sequence

END_SECONDS = 5.0  #: in which a service ends whose standard input has ended


class ServiceProcess:
    """One process that serves, until ``close``."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # nosec B603 # this very package
            [sys.executable, "-m", "receipt_actors.sandbox.services", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self.close()
            raise OSError(f"the simulated service {arguments[0]} did not start: exit code {self._process.returncode}")

    @property
    def process_id(self) -> int:
        return self._process.pid

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
