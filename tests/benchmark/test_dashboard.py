"""The benchmark of the dashboard still works; its figures are looked at by people."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_pair_is_measured(processes: str) -> None:
    """A run alone and one that is watched, by a page and a scraper; all answers are right."""
    command = [sys.executable, "-m", "tests.benchmark.dashboard", "--pairs", "1", "--messages", "300"]
    done = subprocess.run([*command, "--processes", processes], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    row = re.search(r"(?m)^pair 1 .* ([0-9]+) +([0-9]+)$", done.stdout)
    assert row is not None, done.stdout
    assert int(row[1]) > 0
    assert int(row[2]) > 0
