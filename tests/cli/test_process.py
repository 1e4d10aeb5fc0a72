"""What surrounds a process: closed streams, signals, the limit on open files, a log that nobody reads."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from receipt_actors.cli.process import StopSignals
from receipt_actors.domain.ports import OutgoingMessage
from tests.patience import PATIENCE_SECONDS

from .conftest import BUNDLE_ID, DEAD_LETTERS, RESULTS, ROOT, SOURCE, EmbeddedWorld, Processes


@pytest.fixture
def answered(embedded: EmbeddedWorld) -> EmbeddedWorld:
    """A database with an answer on the post queue, and nothing to do."""
    embedded.send(RESULTS, OutgoingMessage(json.dumps({"user_id": 7, "transaction_id": "1", "status": "OK"})))
    return embedded


def run(world: EmbeddedWorld, *arguments: str, closed: tuple[int, ...]) -> int:
    """Run a command whose standard streams of these numbers are closed; return its exit code."""

    def close() -> None:
        for number in closed:
            os.close(number)

    command = [sys.executable, "-m", "receipt_actors", arguments[0], *world.flags, *arguments[1:]]
    ended = subprocess.run(command, preexec_fn=close, timeout=PATIENCE_SECONDS, check=False, capture_output=True)
    return ended.returncode


def test_an_answer_that_nobody_could_read_stays_on_the_queue(answered: EmbeddedWorld) -> None:
    assert run(answered, "results", closed=(1,)) == 1
    assert answered.visible(RESULTS) == 1
    assert run(answered, "results", "--delete", closed=(0, 2)) == 0
    assert answered.visible(RESULTS) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("closed", "processes"), [((1,), 1), ((2,), 1), ((0, 1, 2), 1), ((0, 1, 2), 2)])
def test_the_service_needs_no_standard_streams(
    answered: EmbeddedWorld, closed: tuple[int, ...], processes: int
) -> None:
    arguments = ("--bundle-ids", BUNDLE_ID, "--exit-when-idle", "0", "--processes", str(processes))
    assert run(answered, "start", *arguments, closed=closed) == 0
    assert answered.visible(RESULTS) == 1


#: Holds the program up where it is about to import what its environment names, and says so.
HOLD = """
import os, select, sys

class Hold:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["HOLD_AT"]:
            sys.stdout.write("here\\n")
            sys.stdout.flush()
            while True:
                select.select([], [], [], 0.1)  # not for ever: a signal may come just before it

sys.meta_path.insert(0, Hold())
"""
START = ("start", "--database", "receipts.db", "--bundle-ids", "com.example.game")


def signalled(
    processes: Processes, folder: Path, hold_at: str, number: signal.Signals, *arguments: str
) -> tuple[int, str]:
    """Send the signal while the command imports that module; return exit code and stderr."""
    (folder / "sitecustomize.py").write_text(HOLD)
    environment = {"PYTHONPATH": f"{folder}:{ROOT}", "HOLD_AT": hold_at}
    process = processes.start(*arguments, environment=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("hold_at", ["receipt_actors.cli", "click", "receipt_actors.cli.start", "pydantic"])
def test_start_ends_orderly_while_it_is_being_loaded(
    processes: Processes, tmp_path: Path, hold_at: str, number: signal.Signals
) -> None:
    code, errors = signalled(processes, tmp_path, hold_at, number, *START)
    assert (code, errors) == (0, f"receipt-actors: {number.name}: nothing to drain\n")
    assert not (tmp_path / "receipts.db").exists()


def test_other_commands_end_without_a_traceback(processes: Processes, tmp_path: Path) -> None:
    assert signalled(processes, tmp_path, "click", signal.SIGINT, "results") == (130, "")
    assert signalled(processes, tmp_path, "click", signal.SIGTERM, "results") == (-signal.SIGTERM, "")


#: Lowers its own limits on open files, then is the program, and shows the soft limit that it ended with.
LIMITED = """
import resource, sys
from receipt_actors.cli import main
soft, hard, *arguments = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), int(hard)))
code = main(arguments)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
sys.exit(code)
"""


def test_a_soft_limit_of_open_files_that_is_too_low_is_raised_if_the_hard_limit_allows(
    processes: Processes, tmp_path: Path
) -> None:
    process = processes.start("256", "256", *START, "--exit-when-idle", "0", program=("-c", LIMITED))
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert "these settings need" in err
    assert "the hard limit is 256" in err
    assert not (tmp_path / "receipts.db").exists()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = processes.start("256", str(hard), *START, "--exit-when-idle", "0", program=("-c", LIMITED))
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert int(out) > 256


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_wait_ends_it(number: signal.Signals) -> None:
    with StopSignals() as signals:
        assert not signals.wait(0)
        for _ in range(5):  # at the same moment, so they count once
            signal.raise_signal(number)
        assert signals.wait(PATIENCE_SECONDS)
        assert signals.wait(PATIENCE_SECONDS)
        assert signals.received == number.name


@pytest.mark.parametrize("is_signal", [True, False])
def test_another_thread_can_end_the_wait(is_signal: bool) -> None:
    with StopSignals() as signals:
        sender = threading.Thread(target=lambda: signal.raise_signal(signal.SIGTERM) if is_signal else signals.wake())
        sender.start()
        assert signals.wait(PATIENCE_SECONDS)
        assert signals.received == ("SIGTERM" if is_signal else None)
        sender.join()
    signals.wake()  # too late, and no harm


def test_what_handled_signals_before_does_so_again() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals():
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.slow
@pytest.mark.parametrize("processes_flag", [[], ["--processes", "2"]], ids=["one process", "several"])
def test_nobody_waits_for_who_reads_the_log(
    embedded: EmbeddedWorld, processes: Processes, processes_flag: list[str]
) -> None:
    embedded.send(SOURCE, *[OutgoingMessage("garbage")] * 200)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    program = processes.start(
        *("start", "--database", embedded.database, "--bundle-ids", BUNDLE_ID, "--receive-wait-seconds", "1"),
        *("--exit-when-idle", "1", "--log-level", "DEBUG", *processes_flag),
        stderr=writing,
        stdout=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as log:
        assert program.wait(PATIENCE_SECONDS) == 0
        assert len(log.read()) > 4096 / 2  # as many whole lines as it takes
    assert embedded.total(SOURCE) == 0
    assert embedded.total(DEAD_LETTERS) == 200
