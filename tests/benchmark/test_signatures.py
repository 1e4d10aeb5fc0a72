"""The measurement of signatures runs, and measures what it says."""

from __future__ import annotations

import pytest

from tests.benchmark import signatures


def test_every_way_to_verify_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each, with CPU time in processes only where there are some."""
    assert signatures.main(["--runs", "1", "--count", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line[:34].strip() for line in lines[3:8]]
    assert names == [
        "Apple's library alone",
        "each chain for the first time",
        "chains remembered",
        "in 1 process beside this one",
        "in 2 processes beside this one",
    ]
    assert all(float(line[34:46]) > 0 for line in lines[3:8])
    assert all(float(line[46:54]) == 0 for line in lines[3:6])
    assert lines[8].startswith("one at a time, in a process: ")
