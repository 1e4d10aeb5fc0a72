"""How many cores this process may use: those it is bound to, and no more than its control group is given time for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """Count them, at least 1. A part of a core that is left over in a container does not count."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return max(1, bound if quota is None else min(bound, int(quota)))


def _quota(cgroups: Path) -> float | None:
    """Return the cores' time that a container's limit grants; None where there is no limit."""
    with suppress(OSError, ValueError, ZeroDivisionError):  # version 2: "max 100000" or "150000 100000"
        granted, period = (cgroups / "cpu.max").read_text().split()
        return None if granted == "max" else int(granted) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        granted_us = int((cgroups / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((cgroups / "cpu" / "cpu.cfs_period_us").read_text())
        return None if granted_us < 0 else granted_us / period_us
    return None
