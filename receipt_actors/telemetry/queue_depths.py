"""``QueueDepths``: the actor that knows about how many messages are on each queue. A crash forgets the numbers.

An overview has the known numbers, and triggers the next look, on a thread: so queues are asked only while somebody
looks, and at most every ``LOOK_SECONDS``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from receipt_actors.domain.ports import Queues
from receipt_actors.errors import QueueRefused, QueueUnavailable
from receipt_actors.otp import ExitReason, GenServer

logger = logging.getLogger(__name__)

QUEUE_DEPTHS = "queue_depths"  #: the name of the actor
LOOK_SECONDS = 10.0  #: between two looks


@dataclass(frozen=True, slots=True)
class LookAtQueues:
    pass


class QueueDepths(GenServer):
    def __init__(self, queues: Queues, names: Sequence[str]) -> None:
        self._queues = queues
        self._names = tuple(dict.fromkeys(names))
        self._depths: Mapping[str, int | None] = dict.fromkeys(self._names)  # replaced, never changed
        self._looks_again_at_seconds = -inf  # monotonic
        self._is_looking = False
        self._pool = self.system.new_blocking_pool(QUEUE_DEPTHS, 1)

    def outside_view(self) -> Mapping[str, int | None]:
        return self._depths

    def handle_cast(self, request: Any) -> Any:
        if not isinstance(request, LookAtQueues):
            return super().handle_cast(request)
        now = self.clock.monotonic()
        if not self._is_looking and now >= self._looks_again_at_seconds:
            self._is_looking = True
            self._looks_again_at_seconds = now + LOOK_SECONDS
            self.run_blocking(self._pool, None, self._look)
        return None

    def _look(self) -> Mapping[str, int | None]:
        return {name: self._depth(name) for name in self._names}

    def _depth(self, name: str) -> int | None:
        try:
            return self._queues.approximate_number_of_messages(name)
        except (QueueUnavailable, QueueRefused) as error:
            logger.debug("the number of messages on %s is not known: %s", name, error)
            return None

    def handle_reply(self, label: Any, value: Any) -> None:
        self._is_looking = False
        self._depths = value

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        self._is_looking = False
        self._depths = dict.fromkeys(self._names)
