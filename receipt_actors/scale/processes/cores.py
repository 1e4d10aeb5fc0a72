"""How many cores this process may use: by its CPU affinity, and by the limit of its control group."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """Return the number of whole cores, at least 1."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return max(1, bound if quota is None else min(bound, int(quota)))


def _quota(cgroups: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):  # version 2: "max 100000" or "150000 100000"
        granted, period = (cgroups / "cpu.max").read_text().split()
        return None if granted == "max" else int(granted) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        granted_us = int((cgroups / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((cgroups / "cpu" / "cpu.cfs_period_us").read_text())
        return None if granted_us < 0 else granted_us / period_us
    return None
