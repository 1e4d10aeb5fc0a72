"""The benchmark of the OTP layer does not rot: a hundredth of it runs, and has every figure. No figure is judged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.benchmark.otp import FIGURES
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]


def test_every_figure_is_measured() -> None:
    """What a contributor gets who runs it: a line for each figure."""
    command = [sys.executable, "-m", "tests.benchmark.otp", "--runs", "1", "--scale", "0.01"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[:38].strip() for line in lines[2:]] == [figure.what for figure in FIGURES.values()]
