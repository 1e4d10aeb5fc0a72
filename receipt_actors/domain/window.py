"""How many requests are worth having under way at once. Pure.

Every request of HTTP/1.1 takes a connection, and a connection to Apple takes a TLS handshake, a millisecond of CPU time
on either side, and some 120 KiB. So it begins with as many as a fair load needs and opens up as TCP does in its slow
start: one more for every answer that comes while all are in use, which doubles them in each round trip. It stops where
more would not help: where answers have to wait for this process, its CPU time is what is short.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_SIZE = 256
MAX_LAG_SECONDS = 0.01  #: an answer that has waited longer shows that the process is busy


@dataclass(frozen=True, slots=True)
class Window:
    """So many requests may be under way. Every step returns the next one."""

    size: int = FIRST_SIZE

    def answered(self, *, is_full: bool, lag_seconds: float) -> Window:
        """Note an answer.

        Args:
            is_full: whether requests wait because so many are under way.
            lag_seconds: from the answer's coming to its being looked at.
        """
        if not is_full or lag_seconds > MAX_LAG_SECONDS:
            return self
        return replace(self, size=self.size + 1)
