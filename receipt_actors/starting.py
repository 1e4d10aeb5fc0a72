"""``StartPatience``: what a start has to know of a service is asked again while the trouble may pass.

A throttled request, a 500 or a connection that is cut is no reason to end: systemd or ECS would only start the program
again. What never passes by itself (no such queue, no permission, wrong settings) ends the start at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from receipt_actors.errors import UnavailableError

logger = logging.getLogger(__name__)

START_SECONDS = 30.0  #: for all questions of one start together; a parent gives its workers 60 s
FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 3.0

T = TypeVar("T")


class StartPatience:
    """See the module. It begins when it is made, and may be used by several threads.

    Args:
        pause: waits so many seconds, and raises ``StartAbandoned`` where the start is not wanted any more.
        seconds: see ``START_SECONDS``.
    """

    def __init__(self, pause: Callable[[float], None] = time.sleep, seconds: float = START_SECONDS) -> None:
        self._seconds = seconds
        self._ends_at = time.monotonic() + seconds
        self._lock = threading.Lock()  # over the line below
        self._has_told = False
        self._retrying = tenacity.Retrying(
            stop=lambda state: time.monotonic() + state.upcoming_sleep > self._ends_at,
            wait=tenacity.wait_exponential(multiplier=FIRST_PAUSE_SECONDS, max=MAX_PAUSE_SECONDS)
            + tenacity.wait_random(0, FIRST_PAUSE_SECONDS),
            retry=tenacity.retry_if_exception(_may_pass),
            before_sleep=self._tell,
            sleep=pause,
            reraise=True,
        )

    def ask(self, question: Callable[..., T], *args: object) -> T:
        """Call ``question`` until it is answered. Raises its error where that does not pass, or the time is over."""
        return self._retrying(question, *args)

    def _tell(self, state: tenacity.RetryCallState) -> None:
        with self._lock:
            has_told, self._has_told = self._has_told, True
        if not has_told:
            error = None if state.outcome is None else state.outcome.exception()
            logger.warning("the start has to wait, and asks again for up to %g s: %s", self._seconds, error)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, UnavailableError) and error.may_pass
