"""A terminal for the manual's commands: one bash, in a folder of its own, with the program that is being tested."""

from __future__ import annotations

import doctest
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .blocks import ROOT

PATIENCE_SECONDS = 60.0
PORTS = ("8421", "9464", "8000")  #: of the manual; each page gets free ones in their place
_MARK = "=== the command is over:"
# Commands come over a file descriptor of their own, so that none can read the next one from its standard input.
_LOOP = f"""
trap 'failed=$?' ERR
while IFS= read -r -d '' -u "$COMMANDS" command; do
    failed=0
    eval "$command" {{COMMANDS}}<&-
    printf '\\n%s %s\\n' '{_MARK}' "$failed"
done
"""


class Terminal:
    """Runs commands one after the other; jobs in the background are ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        prefix = Path(sys.prefix)
        (folder / ".venv").symlink_to(prefix)
        (folder / "doc").symlink_to(ROOT / "doc")
        (folder / "cloudformation").symlink_to(ROOT / "cloudformation")
        self._ports = {port: _free_port() for port in PORTS}
        reader, self._writer = os.pipe()
        self._bash = subprocess.Popen(
            ["bash", "-c", _LOOP],
            cwd=folder,
            env=_environment(folder, prefix, reader),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[reader],
            start_new_session=True,
            text=True,
        )
        os.close(reader)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._writer)
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        self._thread.join()
        assert self._bash.stdout is not None
        self._bash.stdout.close()

    def with_free_ports(self, text: str) -> str:
        """Put free ports in the place of the manual's: others may have those."""
        for port, free in self._ports.items():
            text = text.replace(port, free)
        return text

    def run(self, command: str) -> tuple[int, str]:
        """Run it; returns the code of the last command that failed, and all that was printed meanwhile."""
        os.write(self._writer, self.with_free_ports(command).encode() + b"\0")
        output: list[str] = []
        for line in self._lines_until(time.monotonic() + PATIENCE_SECONDS):
            if line.startswith(_MARK):
                return int(line.split()[-1]), "".join(output).removesuffix("\n")
            output.append(line)
        raise AssertionError(f"still running after {PATIENCE_SECONDS} s: {command}\n{''.join(output)}")

    def wait_for(self, want: str, output: str) -> str:
        """Read what a job in the background prints until it is what the manual shows."""
        want = self.with_free_ports(want)
        lines = self._lines_until(time.monotonic() + PATIENCE_SECONDS)
        while not is_as_shown(want, output):
            try:
                output += next(lines)
            except StopIteration:
                return output
        return output

    def _lines_until(self, deadline: float) -> Iterator[str]:
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return
            if line is None:
                return
            yield line

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            self._lines.put(line)
        self._lines.put(None)


def is_as_shown(want: str, got: str) -> bool:
    """Say whether it is what the manual shows, where ``...`` stands for anything; white space does not matter."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(want.strip() + "\n", got.strip() + "\n", flags)


def _environment(folder: Path, prefix: Path, commands: int) -> dict[str, str]:
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RECEIPT_ACTORS_", "AWS_", "PYTHON", "OTEL_", "COV_", "COVERAGE_"))
    }
    return {
        **mine,
        "COMMANDS": str(commands),
        "COLUMNS": "100",
        "HOME": str(folder),
        "NO_COLOR": "1",
        "PATH": os.pathsep.join([str(prefix / "bin"), os.environ["PATH"]]),
        "TERM": "dumb",
    }


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])
