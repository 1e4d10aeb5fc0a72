"""Simulated SQS, DynamoDB and App Store for load: correct, and so cheap that they are not what is measured.

Any client of AWS can speak to them (``AWS_ENDPOINT_URL``); signatures are not checked.
"""

from __future__ import annotations

import subprocess  # nosec B404
import sys
from collections.abc import Sequence

END_SECONDS = 5.0  #: in which a service ends whose standard input has ended


class ServiceProcess:
    """A simulated service in a process of its own (see ``__main__``), until ``close``."""

    def __init__(self, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "receipt_actors.sandbox.services", *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)  # nosec B603 # this very package
        assert self._process.stdout is not None
        self.process_id = self._process.pid
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self.close()
            raise OSError(f"the simulated service {arguments[0]} did not start: exit code {self._process.returncode}")

    def close(self) -> None:
        try:
            self._process.communicate(timeout=END_SECONDS)  # closes its standard input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
