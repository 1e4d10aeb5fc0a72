"""Restart intensity: how many restarts in how long are too many (OTP: ``intensity``, ``period``). Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class RestartWindow:
    """The restarts of the last ``period_seconds``. *More than* ``intensity`` of them end the supervisor."""

    intensity: int = 1
    period_seconds: float = 5.0
    restarts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a window that makes no sense."""
        if self.intensity < 0:
            raise ValueError(f"intensity must be 0 or more, not {self.intensity}")
        if not self.period_seconds > 0:
            raise ValueError(f"period must be more than 0 seconds, not {self.period_seconds}")

    def add(self, now_seconds: float) -> tuple[RestartWindow, bool]:
        """Count a restart; the second value says whether it may be carried out."""
        recent = tuple(at for at in self.restarts if now_seconds - at <= self.period_seconds)
        restarts = (*recent, now_seconds)
        return replace(self, restarts=restarts), len(restarts) <= self.intensity
