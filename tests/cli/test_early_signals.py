"""A signal that comes while the program is still being loaded."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

from .conftest import ROOT, Processes

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
