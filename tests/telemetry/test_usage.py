"""What a process takes of its machine, with /proc and without."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from receipt_actors.telemetry.usage import PROC, usage_now


@pytest.mark.parametrize("proc", [PROC, Path("/nowhere")], ids=["with /proc", "without"])
def test_a_process_knows_what_it_takes(proc: Path) -> None:
    """As far as it can be found out."""
    if not proc.exists() and proc is PROC:
        pytest.skip("this system has no /proc")
    usage = usage_now(proc)
    assert usage.cpu_seconds > 0
    assert 1 << 20 < usage.memory_bytes < 1 << 40
    assert usage.threads >= threading.active_count()
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
    try:
        # Of threads that other tests have left behind one may open or close a file just now.
        assert usage_now(proc).open_files == pytest.approx(usage.open_files + 100, abs=10)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
