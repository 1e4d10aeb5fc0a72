"""The circuit breaker: when a service counts as unavailable, and who may try whether it is back. Pure.

::

    CLOSED --(failures in a row, of several messages)--> OPEN --(pause over)--> PROBING --(success)--> CLOSED
                                                          ^                        |
                                                          +------(failure)---------+   with a longer pause

Any answer of the service, whatever it says, is a success. A trip takes failures of **several** messages in a row: one
poisonous message that makes the service fail, each time anew, must not stop everybody else's. Where nobody else has
anything to say for long, one message is enough: in an outage at night it must not use up its deliveries all alone.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace


class BreakerState(enum.Enum):
    """See the module."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


@dataclass(frozen=True, slots=True)
class Breaker:
    """One service's breaker. Every step returns the next one."""

    min_failures: int = 5  #: failures in a row that trip it,
    min_messages: int = 3  #: of at least so many different messages;
    max_failures: int = 10  #: or so many in a row, of whatever messages
    first_pause_seconds: float = 1.0
    max_pause_seconds: float = 5.0  #: how late the end of an outage may be noticed
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    messages: frozenset[Hashable] = frozenset()
    pause_seconds: float = 0.0  #: while open: how long until the next probe

    @property
    def is_closed(self) -> bool:
        """Tell whether requests flow."""
        return self.state is BreakerState.CLOSED

    def succeeded(self) -> Breaker:
        """Note that the service answered."""
        if self.is_closed and not self.failures:
            return self
        return replace(self, state=BreakerState.CLOSED, failures=0, messages=frozenset(), pause_seconds=0.0)

    def failed(self, messages: Iterable[Hashable], *, retry_after_seconds: float = 0.0) -> Breaker:
        """Note that a request got no answer.

        Args:
            messages: whom it was for; a batch of several is one failure all the same.
            retry_after_seconds: the service's own wish.
        """
        if self.state is BreakerState.OPEN:  # a straggler, sent before it tripped
            return self
        if self.state is BreakerState.PROBING:
            doubled = min(max(self.pause_seconds, self.first_pause_seconds) * 2, self.max_pause_seconds)
            return replace(self, state=BreakerState.OPEN, pause_seconds=max(doubled, retry_after_seconds))
        failures = self.failures + 1
        failed = self.messages.union(messages) if len(self.messages) < self.min_messages else self.messages
        is_spread = failures >= self.min_failures and len(failed) >= self.min_messages
        if not is_spread and failures < self.max_failures:
            return replace(self, failures=failures, messages=failed)
        pause = max(self.first_pause_seconds, retry_after_seconds)
        return replace(self, state=BreakerState.OPEN, failures=failures, messages=failed, pause_seconds=pause)

    def probing(self) -> Breaker:
        """Note that the pause is over and one request may try."""
        return replace(self, state=BreakerState.PROBING) if self.state is BreakerState.OPEN else self
