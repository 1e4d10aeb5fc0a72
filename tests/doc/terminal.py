"""A terminal for the manual's commands: one bash, in a folder of its own, with the program that is being tested."""

from __future__ import annotations

import doctest
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.patience import PATIENCE_SECONDS
from tests.ports import reserved_port

from .blocks import ROOT

PORTS = ("8421", "8430", "9464", "8000")  #: of the manual; each page gets free ones in their place
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
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._jobs = 0
        prefix = Path(sys.prefix)
        (folder / ".venv").symlink_to(prefix)
        (folder / "doc").symlink_to(ROOT / "doc")
        (folder / "cloudformation").symlink_to(ROOT / "cloudformation")
        self._reserved = ExitStack()
        self._ports = {port: str(self._reserved.enter_context(reserved_port())) for port in PORTS}
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
        assert self._bash.stdout is not None
        self._output = _Lines(self._bash.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._writer)
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        self._reserved.close()

    def with_free_ports(self, text: str) -> str:
        """Put free ports in the place of the manual's: others may have those."""
        for port, free in self._ports.items():
            text = text.replace(port, free)
        return text

    def run(self, command: str) -> tuple[int, str]:
        """Run it; returns the code of the last command that failed, and all that was printed meanwhile."""
        os.write(self._writer, self.with_free_ports(command).encode() + b"\0")
        output: list[str] = []
        for line in self._output.until(time.monotonic() + PATIENCE_SECONDS):
            if line.startswith(_MARK):
                return int(line.split()[-1]), "".join(output).removesuffix("\n")
            output.append(line)
        raise AssertionError(f"still running after {PATIENCE_SECONDS} s: {command}\n{''.join(output)}")

    def run_in_background(self, command: str, want: str) -> str:
        """Start it, and read what it prints until that is what the manual shows; returns what was printed."""
        self._jobs += 1
        pipe = self.folder / f".job-{self._jobs}"  # a terminal of its own: others' output must not come in between
        os.mkfifo(pipe)
        lines = _Lines(pipe).until(time.monotonic() + PATIENCE_SECONDS)
        self.run(f"exec {{out}}>&1 {{err}}>&2 >{pipe.name} 2>&1\n{command}\nexec >&$out 2>&$err {{out}}>&- {{err}}>&-")
        output = ""
        while not is_as_shown(self.with_free_ports(want), output):
            try:
                output += next(lines)
            except StopIteration:
                break
        if copy := re.search(r"\| tee (\S+)", command):  # which shows what it is given before it writes it down
            self._wait_for_line(self.folder / copy[1], output.splitlines()[-1])
        return output

    @staticmethod
    def _wait_for_line(file: Path, line: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (file.exists() and f"{line}\n" in file.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline, f"{line!r} has not been written to {file.name}"


class _Lines:
    def __init__(self, stream: IO[str] | Path) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def until(self, deadline: float) -> Iterator[str]:
        with suppress(queue.Empty):
            while (line := self._lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
                yield line

    def _read(self, stream: IO[str] | Path) -> None:
        with stream.open(encoding="utf-8") if isinstance(stream, Path) else stream as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)


def is_as_shown(want: str, got: str) -> bool:
    """Say whether it is what the manual shows, where ``...`` stands for anything; white space does not matter.

    On a line of its own it stands for any number of lines, none included.
    """
    want = re.sub(r"(?m)\s*^\.\.\.$\s*", "...", want.strip())
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(want + "\n", got.strip() + "\n", flags)


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
