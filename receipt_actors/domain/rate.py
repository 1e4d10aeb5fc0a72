"""A limit on requests a second. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

BURST_SECONDS = 0.1  #: how much of a second's allowance may be used at once
ROUNDING_SECONDS = 1e-6
LONGEST_SECONDS = (
    1e9  #: between two requests, 30 years: whatever the rate, times stay numbers that can be reckoned with
)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``per_second`` requests in any second, evenly spread but for bursts of ``BURST_SECONDS``."""

    per_second: float
    used_until_seconds: float = 0.0  #: monotonic time up to which the allowance is used

    def __post_init__(self) -> None:
        """Refuse a limit that makes no sense."""
        if not self.per_second > 0:
            raise ValueError(f"a rate limit must be more than 0 requests a second, not {self.per_second}")

    def wait_seconds(self, now_seconds: float) -> float:
        """Return how long the next request has to wait; 0 for not at all."""
        wait_seconds = self.used_until_seconds - now_seconds - BURST_SECONDS
        # What rounding leaves over is no time to wait: a clock may be too coarse to let it pass.
        return wait_seconds if wait_seconds > ROUNDING_SECONDS else 0.0

    def at(self, per_second: float, now_seconds: float) -> RateLimit:
        """Go on at another rate. At a faster one what has been used is made up for sooner."""
        if per_second == self.per_second:
            return self
        ahead_seconds = max(0.0, self.used_until_seconds - now_seconds) * min(1.0, self.per_second / per_second)
        return RateLimit(per_second, now_seconds + ahead_seconds)

    def paused(self, until_seconds: float) -> RateLimit:
        """Make no request before this monotonic time."""
        return replace(self, used_until_seconds=max(self.used_until_seconds, until_seconds + BURST_SECONDS))

    def taken(self, now_seconds: float) -> RateLimit:
        """Note that a request was made."""
        seconds = min(1.0 / self.per_second, LONGEST_SECONDS)
        return replace(self, used_until_seconds=max(self.used_until_seconds, now_seconds) + seconds)
