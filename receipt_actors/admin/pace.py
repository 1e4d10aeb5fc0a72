"""``Pace``: how many requests a second are served; who asks for more waits for its turn.

The port shares a processor, and Python's one lock, with the pipeline: whoever asks as fast as there are answers would
take half of both.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from receipt_actors.admin.limits import (
    BURST_REQUESTS,
    LARGE_PATHS,
    LARGE_WEIGHT,
    LONGEST_TURN_SECONDS,
    REQUESTS_PER_SECOND,
)


class Pace:
    """See the module. Used within the event loop; one for all connections."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_at = float("-inf")  # when the next request would be due, had all come evenly

    def pause_seconds(self, path: str) -> float:
        """Take the turn of a request for ``path``; return for how many seconds to wait until it has come."""
        return self.turn(LARGE_WEIGHT if path in LARGE_PATHS else 1)

    def turn(self, weight: int = 1) -> float:
        """Take a turn; return for how many seconds to wait until it has come.

        ``weight`` is how many requests this one counts as.
        """
        now = self._clock()
        due_at = max(self._next_at, now - BURST_REQUESTS / REQUESTS_PER_SECOND)
        # Bounded: those who ask and hang up must not let others wait for ever.
        self._next_at = min(due_at + weight / REQUESTS_PER_SECOND, now + LONGEST_TURN_SECONDS)
        return max(0.0, self._next_at - now)
