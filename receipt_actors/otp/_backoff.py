"""``Backoff``: restarts that wait, longer each time. An extension: Erlang's supervisor restarts at once. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a supervisor waits before it restarts a child; ``ChildSpec(..., backoff=...)``, off by default.

    The first restart comes after ``first_seconds``, each further one after ``factor`` times as long, up to
    ``max_seconds``. A child that ran for ``reset_after_seconds`` starts the row anew. A start that fails is one more
    restart in the row. Time is the actor system's clock's.

    While it waits, the child is ``restarting``: ``terminate_child`` cancels the restart and ends the row,
    ``restart_child`` and ``delete_child`` are refused. With one_for_all and rest_for_one the group is stopped at once
    and started together after the delay; when a sibling is restarted meanwhile and takes the child along, the child
    starts with it. Members of the group that are significant have not ended: they are about to start.

    Delayed restarts do **not** count for the supervisor's ``intensity``, which is there to notice a child that burns
    through restarts: the delay itself bounds their rate, and counted they would let a service that is away for a while
    bring down the whole tree, which is what a delay is to prevent. ``give_up_after`` is their limit instead.

    Raises:
        ValueError: naming what makes no sense.
    """

    first_seconds: float
    factor: float = 2.0
    max_seconds: float = 60.0
    reset_after_seconds: float = 60.0
    give_up_after: int | None = None
    """Restarts in a row after which the supervisor ends with ``SHUTDOWN``, as after too many restarts; None: never."""
    jitter: float = 0.0
    """The part of each delay, 0 to 1, that chance may take away, so that what failed together does not return so."""
    rng: Callable[[], float] = field(default=random.random, repr=False)
    """Where chance comes from: a number from 0 to 1 each time."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("first_seconds", "factor", "max_seconds", "reset_after_seconds", "jitter"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"backoff: {name} must be a finite number, not {value!r}")
        if self.first_seconds <= 0:
            raise ValueError(f"backoff: first_seconds must be more than 0, not {self.first_seconds!r}")
        if self.factor < 1:
            raise ValueError(f"backoff: factor must be 1 or more, not {self.factor!r}; below 1 the delays would shrink")
        if self.max_seconds < self.first_seconds:
            raise ValueError(
                f"backoff: max_seconds must be first_seconds ({self.first_seconds!r}) or more, not {self.max_seconds!r}"
            )
        if self.reset_after_seconds < 0:
            raise ValueError(f"backoff: reset_after_seconds must be 0 or more, not {self.reset_after_seconds!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"backoff: jitter must be a part from 0 to 1, not {self.jitter!r}")
        limit = self.give_up_after
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise ValueError(f"backoff: give_up_after must be a count, 0 or more, or None for never, not {limit!r}")
        if not callable(self.rng):
            raise ValueError(f"backoff: rng must be callable, as random.random is, not {self.rng!r}")

    def delay_seconds(self, restarts: int) -> float:
        """Return how long to wait after so many restarts in a row."""
        try:
            seconds = min(self.first_seconds * self.factor**restarts, self.max_seconds)
        except OverflowError:
            seconds = self.max_seconds
        return seconds * (1 - self.jitter * self.rng()) if self.jitter else seconds


class Streak:
    """The delayed restarts of one child in a row."""

    __slots__ = ("_restarts", "_started_at")

    def __init__(self) -> None:
        self._restarts = 0
        self._started_at: float | None = None  # None: it has not run since the last restart was decided

    @property
    def restarts(self) -> int:
        """How many there have been."""
        return self._restarts

    def started(self, now_seconds: float) -> None:
        """Note that the child runs from now on."""
        self._started_at = now_seconds

    def count_restart(self, backoff: Backoff, now_seconds: float) -> float | None:
        """Count one more restart and return how long to wait for it, or None when the limit has been reached."""
        if self._started_at is not None and now_seconds - self._started_at >= backoff.reset_after_seconds:
            self._restarts = 0
        self._started_at = None
        if backoff.give_up_after is not None and self._restarts >= backoff.give_up_after:
            return None
        self._restarts += 1
        return backoff.delay_seconds(self._restarts - 1)
