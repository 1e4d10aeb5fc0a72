"""The progress bar: for people who have to wait, and for nobody else."""

from __future__ import annotations

import io
import sys

import pytest

from receipt_actors.cli.terminal import SLOW_SECONDS, SlowProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("stderr", "seconds", "shown"),
    [(Terminal(), SLOW_SECONDS, True), (Terminal(), SLOW_SECONDS - 0.1, False), (io.StringIO(), 60.0, False)],
    ids=["slow", "quick", "no terminal"],
)
def test_it_shows_after_two_seconds_on_a_terminal_only(
    stderr: io.StringIO, seconds: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    with SlowProgress("counting sheep", 20, clock=clock) as progress:
        progress.advance(3)
        clock.now = seconds
        progress.advance(4)
    assert ("counting sheep" in stderr.getvalue()) is shown
    assert ("7/20" in stderr.getvalue()) is shown
