"""The program as a process of its own: started as a user starts it, looked at from outside, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from tests.patience import PATIENCE_SECONDS
from tests.ports import reserved_port

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.02


class Program:
    """One run of ``python -m receipt_actors``, or of another module that runs it and does something to it.

    Its output goes to files, which a failing test shows.
    """

    def __init__(
        self,
        module: str,
        arguments: list[str],
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path,
        within: Sequence[str] = (),
    ) -> None:
        self.command_line = " ".join([module, *arguments])
        self._stdout = stdout
        self._stderr = stderr
        with stdout.open("wb") as out, stderr.open("wb") as err:
            self._process = subprocess.Popen(
                [*within, sys.executable, "-m", module, *arguments],
                cwd=stdout.parent,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                process_group=0,  # as a shell starts it, so that it can be interrupted as by a terminal
            )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for something that the program does beside us. It has to stay alive meanwhile."""
        deadline = time.monotonic() + seconds
        while not condition():
            code = self._process.poll()
            assert code is None, f"the program ended with {code} before {what}"
            assert time.monotonic() < deadline, f"{seconds:g} s have passed, but not yet: {what}"
            time.sleep(POLL_SECONDS)  # the one place that polls: another process cannot set an event of ours

    def wait_for_log(self, text: str) -> None:
        self.wait_until(lambda: text in self.stderr, f"it logs {text!r}")

    def wait_for_end(self, seconds: float = PATIENCE_SECONDS) -> int:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program has not ended after {seconds:g} s") from None

    def ends_within(self, seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        self.send_signal(signal.SIGTERM)
        assert self.wait_for_end() == 0

    def pass_time(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() >= end, "the time has passed", seconds + PATIENCE_SECONDS)

    def interrupt_group(self) -> None:
        """Press Ctrl-C: the terminal tells the process and all that it has started."""
        os.killpg(self._process.pid, signal.SIGINT)

    def children(self) -> list[int]:
        return children_of(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def pause(self) -> None:
        """SIGSTOP to it and to all that it has started; they have stopped when this returns."""
        os.killpg(self.pid, signal.SIGSTOP)
        wait_until_stopped(self.pid, self._finish_forks)  # from now on it starts nobody
        for child in self.children():
            wait_until_stopped(child, self._finish_forks)

    def _finish_forks(self) -> None:
        """Let all go on for a moment: a thread in ``vfork`` stops only after its child, stopped as well, has begun."""
        os.killpg(self.pid, signal.SIGCONT)
        time.sleep(POLL_SECONDS)
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def end_by(self, tell: Callable[[], None]) -> int:
        """Tell it to end until it has: a signal at the very moment of one before counts once. Returns the exit code."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.ends_within(0.05):
            assert time.monotonic() < deadline, "the program has been told again and again, and does not end"
            tell()
        return self.wait_for_end(0)

    def kill(self) -> None:
        """kill -9, in the middle of a run: that it was still running is part of the claim."""
        self._process.kill()
        assert self.wait_for_end() == -signal.SIGKILL, "the program had ended by itself before it was killed"

    def kill_if_running(self) -> bool:
        """kill -9 where it may end by itself at this very moment; tell whether it had not."""
        self._process.kill()
        return self.wait_for_end() == -signal.SIGKILL

    def close(self) -> None:
        if self._process.poll() in (None, -signal.SIGKILL):  # workers of a parent that was killed end by themselves,
            with suppress(ProcessLookupError):  # or a test has failed
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


class Programs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: list[Program] = []
        self._ports = ExitStack()

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        module: str = "receipt_actors",
        within: Sequence[str] = (),
    ) -> Program:
        number = len(self._runs) + 1
        surroundings = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
            "HOME": str(self._folder),  # no ~/.aws
            "TMPDIR": str(self._folder),
            "COLUMNS": "100",
            "RECEIPT_ACTORS_LOG_FORMAT": "text",
            **(environment or {}),
        }
        out, err = self._folder / f"run-{number}.out", self._folder / f"run-{number}.err"
        program = Program(module, list(arguments), surroundings, out, err, within)
        self._runs.append(program)
        return program

    def reserve_port(self) -> int:
        return self._ports.enter_context(reserved_port())

    def outputs(self) -> list[tuple[str, str]]:
        return [(run.command_line, f"{run.stdout}{run.stderr}") for run in self._runs]

    def close(self) -> None:
        for run in self._runs:
            run.close()
        self._ports.close()


def children_of(process_id: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(process_id).children()]
    return []


def wait_until_stopped(process_id: int, insist: Callable[[], object] = lambda: None) -> None:
    """Wait until no thread runs any more: on a busy machine one may be within a call of the system for a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(state not in "TZX" for state in _states(process_id)):
        assert time.monotonic() < deadline, f"process {process_id} does not stop"
        time.sleep(0.001)
        insist()


def _states(process_id: int) -> list[str]:
    states = []
    for task in Path(f"/proc/{process_id}/task").glob("*/stat"):
        with suppress(OSError):  # it has ended
            states.append(task.read_text().rpartition(") ")[2][0])
    return states
