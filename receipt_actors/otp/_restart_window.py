"""Restart intensity: how many restarts in how long are too many (OTP: ``intensity``, ``period``). Pure."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class RestartWindow:
    """The restarts of the last ``period_seconds``. *More than* ``intensity`` of them end the supervisor.

    Raises:
        ValueError: ``intensity`` is no whole number from 0 on, or ``period_seconds`` no finite number above 0.
    """

    intensity: int = 1
    period_seconds: float = 5.0
    restarts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a window that makes no sense."""
        intensity, period = self.intensity, self.period_seconds
        if isinstance(intensity, bool) or not isinstance(intensity, int) or intensity < 0:
            raise ValueError(
                f"intensity must be a whole number of restarts, 0 or more, not {intensity!r}; "
                "a large one for as good as no limit"
            )
        if isinstance(period, bool) or not isinstance(period, int | float) or not 0 < period < math.inf:
            raise ValueError(f"period_seconds must be a finite number of seconds, more than 0, not {period!r}")

    def add(self, now_seconds: float) -> tuple[RestartWindow, bool]:
        """Count a restart; the second value says whether it may be carried out."""
        # They are in order. More than one too many need not be kept: that is too many as well.
        first = bisect.bisect_left(self.restarts, True, key=lambda at: now_seconds - at <= self.period_seconds)
        restarts = (*self.restarts[max(first, len(self.restarts) - self.intensity) :], now_seconds)
        return replace(self, restarts=restarts), len(restarts) <= self.intensity
