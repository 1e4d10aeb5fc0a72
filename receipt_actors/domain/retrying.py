"""When to try again, and when to stop; actors wait by timer. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from receipt_actors.domain.reasons import Reason

MIN_HAND_BACK_SECONDS = 30  #: visibility timeout of the first hand-back
MIN_GROUP_HAND_BACK_SECONDS = 5  #: likewise, of a message of a FIFO queue: all of its group has to wait for it
MAX_HAND_BACK_SECONDS = 15 * 60
RECEIVES_AT_ONCE = 8  #: receives after which a message is no longer handed back at once


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is made for one delivery of a message, and how long to pause in between.

    Each pause is twice the one before, and up to ``first_seconds`` longer at random, so that many do not come back at
    once.
    """

    attempts: int  #: after so many the request is given up
    first_seconds: float
    max_seconds: float  #: of a pause, without what is added at random

    def pause_seconds(self, failed_attempts: int, *, at_least_seconds: float = 0.0) -> float | None:
        """Return how long to wait before the next attempt, or None to give up.

        Args:
            failed_attempts: attempts made so far, 1 or more.
            at_least_seconds: what the service asked for (``Retry-After``).
        """
        if failed_attempts >= self.attempts:
            return None
        doublings = min(failed_attempts - 1, 60)  # a float holds no more than 1023
        pause_seconds = min(self.first_seconds * 2.0**doublings, self.max_seconds)
        jitter_seconds = random.uniform(0.0, self.first_seconds)  # nosec B311 # jitter of waits
        return max(pause_seconds + jitter_seconds, at_least_seconds)


#: What only an operator can put right: to come back soon would only use up deliveries.
_FOR_THE_OPERATOR = frozenset({Reason.MISCONFIGURED, Reason.NO_DEAD_LETTER_QUEUE, Reason.POST_QUEUE_UNAVAILABLE})


def hand_back_seconds(
    reason: Reason, approximate_receive_count: int, rng: random.Random, *, blocks_group: bool = False
) -> int:
    """Return the visibility timeout with which a message is handed back: 30 s x 2^n with jitter, at most 15 minutes.

    Args:
        reason: why; what waits for an operator is handed back for the longest time at once. What only stood behind
            another one of its group is handed back for no time: the queue keeps it until that one has come.
        approximate_receive_count: how often it has been received, 1 for the first time.
        rng: where the jitter (up to a fifth less) comes from.
        blocks_group: whether it is of a FIFO queue, which gives nothing of its group meanwhile: 5 s x 2^n. In the
            end the pauses are as long as any: an outage that is told by status is outlasted all the same.
    """
    if reason is Reason.GROUP_HANDED_BACK:
        return 0
    doublings = 10 if reason in _FOR_THE_OPERATOR else min(max(approximate_receive_count - 1, 0), 10)
    first_seconds = MIN_GROUP_HAND_BACK_SECONDS if blocks_group else MIN_HAND_BACK_SECONDS
    seconds = min(first_seconds * (1 << doublings), MAX_HAND_BACK_SECONDS)
    return round(seconds * rng.uniform(0.8, 1.0))


def hand_back_unfinished_seconds(approximate_receive_count: int, rng: random.Random) -> int:
    """Return the visibility timeout of a message that its process could not finish, through no fault of the message.

    0, for another process to take it at once. Later, where it was received often already: a pipeline that is restarted
    again and again must not use up its receives.
    """
    if approximate_receive_count <= RECEIVES_AT_ONCE:
        return 0
    return hand_back_seconds(Reason.DRAINED, approximate_receive_count, rng)
