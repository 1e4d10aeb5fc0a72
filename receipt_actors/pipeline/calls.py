"""``CallsOnThreads``: calls clients that can only block without blocking an actor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from receipt_actors.otp import BlockingPool


class CallsOnThreads:
    """``BackgroundCalls`` on a pool of threads, which ``close`` ends after the calls that they are in."""

    def __init__(self, pool: BlockingPool) -> None:
        self._pool = pool
        self.close = pool.close

    def begin(
        self,
        method: Callable[..., object],
        args: Sequence[object],
        keywords: Mapping[str, object],
        done: Callable[[Any], object],
    ) -> None:
        def call() -> None:
            try:
                outcome = method(*args, **keywords)
            except BaseException as error:  # noqa: BLE001 - it is the outcome, and whose that is decides
                outcome = error
            done(outcome)

        if not self._pool.submit(call):
            done(RuntimeError(f"pool {self._pool.name} is closed"))
