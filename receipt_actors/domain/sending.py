"""When a gateway sends requests, in which batches, when again, and whether the service fails. Pure."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Generic, TypeVar

from receipt_actors.domain.ports import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES
from receipt_actors.domain.reasons import Reason

T = TypeVar("T")


def take_batch(
    waiting: deque[T],
    size_bytes: Callable[[T], int],
    *,
    max_entries: int = MAX_BATCH_ENTRIES,
    max_bytes: int = MAX_BATCH_BYTES,
) -> list[T]:
    """Take the next batch from the front; never empty where something waits.

    An entry that alone is too large goes alone; the service says what is wrong with it.
    """
    batch: list[T] = []
    total = 0
    while waiting and len(batch) < max_entries:
        size = size_bytes(waiting[0])
        if batch and total + size > max_bytes:
            break
        total += size
        batch.append(waiting.popleft())
    return batch


BURST_SECONDS = 0.1  #: how much of a second's allowance may be used at once
ROUNDING_SECONDS = 1e-6
LONGEST_SECONDS = 1e9  #: between two requests: whatever the rate, times stay numbers that can be reckoned with


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``per_second`` requests in any second, evenly spread but for bursts of ``BURST_SECONDS``."""

    per_second: float
    used_until_seconds: float = 0.0  #: monotonic time up to which the allowance is used

    def __post_init__(self) -> None:
        if not self.per_second > 0:
            raise ValueError(f"a rate limit must be more than 0 requests a second, not {self.per_second}")

    def wait_seconds(self, now_seconds: float) -> float:
        wait_seconds = self.used_until_seconds - now_seconds - BURST_SECONDS
        # What rounding leaves over is no time to wait: a clock may be too coarse to let it pass.
        return wait_seconds if wait_seconds > ROUNDING_SECONDS else 0.0

    def at(self, per_second: float, now_seconds: float) -> RateLimit:
        """Continue at another rate; a faster one shortens what is already used."""
        if per_second == self.per_second:
            return self
        ahead_seconds = max(0.0, self.used_until_seconds - now_seconds) * min(1.0, self.per_second / per_second)
        return RateLimit(per_second, now_seconds + ahead_seconds)

    def paused(self, until_seconds: float) -> RateLimit:
        return replace(self, used_until_seconds=max(self.used_until_seconds, until_seconds + BURST_SECONDS))

    def taken(self, now_seconds: float) -> RateLimit:
        seconds = min(1.0 / self.per_second, LONGEST_SECONDS)
        return replace(self, used_until_seconds=max(self.used_until_seconds, now_seconds) + seconds)


# --- the circuit breaker: does a service fail, or does it choke on some messages? ---
#
# A failed request does not say whose fault it was. What other requests meet does:
#
# * An *answer* to any message, whatever it says, shows that the service works. It closes the breaker.
# * A failure is *held against the message* when a later request of another message was answered meanwhile. The breaker
#   does not count it, and the gateway sets the message apart as a suspect.
# * All other failures may be the service's. The breaker opens when they come in a row, from several messages, for
#   ``min_seconds``, and when there are far more of them than usual between two answers: where poisonous messages come
#   in a steady stream, a long row says less. A single message that nothing contradicts opens it after
#   ``max_failures``: in an outage at night it must not use up its deliveries all alone.
#
# While the breaker is open a few messages try whether the service is back. The longer it lasts, the fewer try. The more
# requests have failed before, the more new messages try: as many poisonous ones may stand before an honest one.

_MEMORY = 0.9  #: weight of what was usual, against the newest row of failures
_FAR_MORE = 5.0  #: times as many failures as usual; by chance a row is that long once in 150 rows
_TRIES = (20, 200)  #: new messages, at least and at most, that try while an outage becomes e times as long


def is_held_against(failed_since: int, last_answered: int) -> bool:
    """Return whether a failure is the message's own.

    Requests are numbered as sent: ``failed_since`` is the message's, or the newest when it failed before.
    """
    return last_answered > failed_since


@dataclass(frozen=True, slots=True)
class Breaker:
    """One service's breaker. Every step returns the next one. Times are monotonic seconds."""

    min_failures: int = 5  #: failures in a row that open it,
    min_messages: int = 3  #: of at least so many different messages,
    min_seconds: float = 2.5  #: for at least so long;
    max_failures: int = 10  #: or so many in a row, of fewer messages
    min_pause_seconds: float = 0.2
    max_pause_seconds: float = 5.0  #: how late the end of an outage may be noticed
    is_closed: bool = True  #: whether requests flow
    failures: int = 0  #: in a row
    messages: frozenset[Hashable] = frozenset()  #: that failed in this row; no more than ``min_messages``
    failing_since_seconds: float = 0.0  #: where there are failures
    usual_failures: float = 0.0  #: between two answers, on average
    silent_until_seconds: float = 0.0  #: the service's own wish

    @property
    def is_spread(self) -> bool:
        return self.failures >= self.min_failures and len(self.messages) >= self.min_messages

    def answered(self) -> Breaker:
        if not self.failures and self.usual_failures == 0.0:
            return self
        usual = _MEMORY * self.usual_failures + (1 - _MEMORY) * self.failures
        return replace(
            self,
            is_closed=True,
            failures=0,
            messages=frozenset(),
            usual_failures=usual if usual > 0.01 else 0.0,
            silent_until_seconds=0.0,
        )

    def failed(self, messages: Iterable[Hashable], now_seconds: float, *, retry_after_seconds: float = 0.0) -> Breaker:
        """Note a failure that is not held against its messages; a batch is one failure."""
        silent_until = max(self.silent_until_seconds, now_seconds + retry_after_seconds)
        if not self.is_closed:
            return replace(self, silent_until_seconds=silent_until)
        failed = self.messages.union(messages) if len(self.messages) < self.min_messages else self.messages
        later = replace(
            self,
            failures=self.failures + 1,
            messages=failed,
            failing_since_seconds=self.failing_since_seconds if self.failures else now_seconds,
        )
        if not later._shows_an_outage(now_seconds):
            return later
        return replace(later, is_closed=False, silent_until_seconds=silent_until)

    def opened(self, now_seconds: float) -> Breaker:
        """Open it for another sign of an outage."""
        since = self.failing_since_seconds if self.failures else now_seconds
        return replace(self, is_closed=False, failures=max(1, self.failures), failing_since_seconds=since)

    def _shows_an_outage(self, now_seconds: float) -> bool:
        if not self.is_spread:
            return self.failures >= self.max_failures and len(self.messages) < self.min_messages
        is_long = now_seconds - self.failing_since_seconds >= self.min_seconds
        return is_long and self.failures >= _FAR_MORE * self.usual_failures

    def pause_seconds(self, now_seconds: float) -> float:
        """Return the seconds until the next try."""
        pause = min(max(self._seconds_for_each(now_seconds), self.min_pause_seconds), self.max_pause_seconds)
        return max(pause, self.silent_until_seconds - now_seconds)

    def new_messages(self, now_seconds: float) -> int:
        """Return how many new messages may try now."""
        return max(1, min(MAX_BATCH_ENTRIES, int(self.min_pause_seconds / self._seconds_for_each(now_seconds))))

    def _seconds_for_each(self, now_seconds: float) -> float:
        fewest, most = _TRIES
        return max(now_seconds - self.failing_since_seconds, 1.0) / min(max(fewest, self.failures), most)


def suspects_at_once(concurrency: int) -> int:
    return max(1, concurrency // 4)


class InTurn(Generic[T]):
    """A queue of several lines that take turns, with the methods of ``deque``; each line keeps its order."""

    def __init__(self, line_of: Callable[[T], Hashable]) -> None:
        self._line_of = line_of
        self._lines: dict[Hashable, deque[T]] = {}  # those that are not empty; the next one first

    def append(self, item: T, /) -> None:
        self._lines.setdefault(self._line_of(item), deque()).append(item)

    def appendleft(self, item: T, /) -> None:
        key = self._line_of(item)
        line = self._lines.get(key, deque())
        line.appendleft(item)
        self._lines = {key: line, **self._lines}  # the first key keeps its place

    def extend(self, items: Iterable[T], /) -> None:
        for item in items:
            self.append(item)

    def popleft(self) -> T:
        if not self._lines:
            raise IndexError("nothing waits")
        key = next(iter(self._lines))
        line = self._lines.pop(key)
        item = line.popleft()
        if line:
            self._lines[key] = line  # behind the others
        return item

    def __len__(self) -> int:
        return sum(map(len, list(self._lines.values())))  # from any thread

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._lines.values())


FIRST_SIZE = 256
MAX_LAG_SECONDS = 0.01  #: an answer that has waited longer shows that the process is busy


@dataclass(frozen=True, slots=True)
class Window:
    """The requests that may be under way at once; it opens as TCP does in its slow start.

    Each connection to Apple takes a TLS handshake, a millisecond of CPU and 120 KiB. An answer adds one while all are
    in use, until answers wait for this process: then CPU is short.
    """

    size: int = FIRST_SIZE

    def answered(self, *, is_full: bool, lag_seconds: float) -> Window:
        if not is_full or lag_seconds > MAX_LAG_SECONDS:
            return self
        return replace(self, size=self.size + 1)


MIN_HAND_BACK_SECONDS = 30  #: visibility timeout of the first hand-back
MIN_GROUP_HAND_BACK_SECONDS = 5  #: likewise, of a message of a FIFO queue: all of its group has to wait for it
MAX_HAND_BACK_SECONDS = 15 * 60
RECEIVES_AT_ONCE = 8  #: receives after which a message is no longer handed back at once


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is made in one delivery, and the pauses: doubling, with up to ``first_seconds`` of jitter."""

    attempts: int  #: after so many the request is given up
    first_seconds: float
    max_seconds: float  #: of a pause, without what is added at random

    def pause_seconds(self, failed_attempts: int, *, at_least_seconds: float = 0.0) -> float | None:
        """Return the pause after this many attempts (1 or more), or None to give up.

        ``at_least_seconds`` is the service's ``Retry-After``.
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
    """Return the visibility timeout of a message handed back: 30 s x 2^n with jitter, at most 15 minutes.

    A message that blocks its FIFO group begins with 5 s instead; one that waited behind another has 0; one that needs
    an operator gets the longest at once.
    """
    if reason is Reason.GROUP_HANDED_BACK:
        return 0
    doublings = 10 if reason in _FOR_THE_OPERATOR else min(max(approximate_receive_count - 1, 0), 10)
    first_seconds = MIN_GROUP_HAND_BACK_SECONDS if blocks_group else MIN_HAND_BACK_SECONDS
    seconds = min(first_seconds * (1 << doublings), MAX_HAND_BACK_SECONDS)
    return round(seconds * rng.uniform(0.8, 1.0))


def hand_back_unfinished_seconds(approximate_receive_count: int, rng: random.Random) -> int:
    """Return the visibility timeout of a message that its process could not finish.

    0 lets another process take it at once; later after many receives, for restarts must not use them up.
    """
    if approximate_receive_count <= RECEIVES_AT_ONCE:
        return 0
    return hand_back_seconds(Reason.DRAINED, approximate_receive_count, rng)
