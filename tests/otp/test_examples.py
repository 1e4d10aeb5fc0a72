"""The manual's examples of the OTP layer: they run, and print what the manual says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

DOC = Path(__file__).parents[2] / "doc"


def test_the_guide_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """A reader who types the example sees the very lines that stand below it."""
    promised = re.search(r"It prints::\n\n((?:    .*\n)+)", (DOC / "otp-guide.rst").read_text(encoding="utf-8"))
    assert promised is not None
    runpy.run_path(str(DOC / "examples" / "supervised.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [line.strip() for line in promised[1].splitlines()]
