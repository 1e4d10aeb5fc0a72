"""The manual's table of what an actor costs. That its examples print what it says is held by ``tests/doc``."""

from __future__ import annotations

from pathlib import Path

DOC = Path(__file__).parents[2] / "doc"


def test_the_manual_shows_what_an_actor_costs() -> None:
    """The table that it includes has every figure of the benchmark."""
    table = (DOC / "otp-benchmark.txt").read_text(encoding="utf-8")
    assert "CPython" in table
    assert "start under a supervisor" in table
    assert "crash to restarted" in table
