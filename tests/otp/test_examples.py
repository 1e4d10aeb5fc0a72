"""The manual's examples of the OTP layer: they run, and print what the manual says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

DOC = Path(__file__).parents[2] / "doc"


@pytest.mark.parametrize("example", ["supervised.py", "asking.py"])
def test_the_guide_prints_what_it_says(capsys: pytest.CaptureFixture[str], example: str) -> None:
    """A reader who types an example sees the very lines that stand below it."""
    guide = (DOC / "otp-guide.rst").read_text(encoding="utf-8")
    after = guide.partition(f"examples/{example}")[2]
    promised = re.search(r"It prints::\n\n((?:    .*\n)+)", after)
    assert promised is not None
    runpy.run_path(str(DOC / "examples" / example), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [line.strip() for line in promised[1].splitlines()]


def test_the_manual_shows_what_an_actor_costs() -> None:
    """The table that it includes has every figure of the benchmark."""
    table = (DOC / "otp-benchmark.txt").read_text(encoding="utf-8")
    assert "CPython" in table
    assert "start under a supervisor" in table
    assert "crash to restarted" in table
