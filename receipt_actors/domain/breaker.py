"""The circuit breaker: does a service fail, or does it choke on some messages? Pure.

A failed request does not say whose fault it was. What other requests meet does:

* An **answer** to any message, whatever it says, shows that the service works. It closes the breaker.
* A failure is **held against the message** when a later request of another message was answered meanwhile. The breaker
  does not count it, and the gateway sets the message apart as a *suspect*.
* All other failures may be the service's. The breaker opens when they come in a row, from several messages, for
  ``min_seconds``, and when there are far more of them than usual between two answers: where poisonous messages come
  in a steady stream, a long row says less.

A single message that nothing contradicts opens the breaker after ``max_failures``: in an outage at night it must not
use up its deliveries all alone.

While the breaker is open a few messages try whether the service is back. The longer it lasts, the fewer try. The more
requests have failed before, the more new messages try: as many poisonous ones may stand before an honest one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from receipt_actors.domain.ports import MAX_BATCH_ENTRIES

_MEMORY = 0.9  #: weight of what was usual, against the newest row of failures
_FAR_MORE = 5.0  #: times as many failures as usual; by chance a row is that long once in 150 rows
_TRIES = (20, 200)  #: new messages, at least and at most, that try while an outage becomes e times as long


def is_held_against(failed_since: int, last_answered: int) -> bool:
    """Tell whether a failure is the message's own.

    Requests are numbered as they are sent. ``failed_since`` is the number of the message's request, or of the newest
    request when it failed before; ``last_answered`` is the highest number that was answered.
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
        """Tell whether several messages have failed since the last answer."""
        return self.failures >= self.min_failures and len(self.messages) >= self.min_messages

    def answered(self) -> Breaker:
        """Note that the service answered."""
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
        """Note that a request failed, and that this is not held against its messages.

        Args:
            messages: the request's messages; a batch of several is one failure all the same.
            now_seconds: the time of the failure.
            retry_after_seconds: the service's own wish.
        """
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
        """Note that the service is unavailable, by another sign than requests that fail."""
        since = self.failing_since_seconds if self.failures else now_seconds
        return replace(self, is_closed=False, failures=max(1, self.failures), failing_since_seconds=since)

    def _shows_an_outage(self, now_seconds: float) -> bool:
        if not self.is_spread:
            return self.failures >= self.max_failures and len(self.messages) < self.min_messages
        is_long = now_seconds - self.failing_since_seconds >= self.min_seconds
        return is_long and self.failures >= _FAR_MORE * self.usual_failures

    def pause_seconds(self, now_seconds: float) -> float:
        """Return how long to wait, from now on, before the next request tries whether the service is back."""
        pause = min(max(self._seconds_for_each(now_seconds), self.min_pause_seconds), self.max_pause_seconds)
        return max(pause, self.silent_until_seconds - now_seconds)

    def new_messages(self, now_seconds: float) -> int:
        """Return how many messages that were never asked about may try now."""
        return max(1, min(MAX_BATCH_ENTRIES, int(self.min_pause_seconds / self._seconds_for_each(now_seconds))))

    def _seconds_for_each(self, now_seconds: float) -> float:
        fewest, most = _TRIES
        return max(now_seconds - self.failing_since_seconds, 1.0) / min(max(fewest, self.failures), most)


def suspects_at_once(concurrency: int) -> int:
    """Return how many requests of suspects may be under way, of so many in all: they may last until a time-out."""
    return max(1, concurrency // 4)
