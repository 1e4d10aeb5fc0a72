"""The benchmarks do not rot: a hundredth of each runs, and has every figure. No figure is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmark import takeover
from tests.benchmark.otp import FIGURES
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]


def test_every_figure_of_the_otp_layer_is_measured() -> None:
    command = [sys.executable, "-m", "tests.benchmark.otp", "--runs", "1", "--scale", "0.01"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[:38].strip() for line in lines[2:]] == [figure.what for figure in FIGURES.values()]


@pytest.mark.slow
def test_a_takeover_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "takeovers.json"
    arguments = ["--runs", "1", "--leases", "1", "--ways", "killed,drain", "--json", str(report)]
    assert takeover.main(arguments) == 0
    rows = capsys.readouterr().out.splitlines()[5:]
    assert [row.split()[0] for row in rows] == ["killed", "drain"]
    for each in json.loads(report.read_text()):
        assert 0 < each["seat"] <= each["receive"] <= each["answer"]
