"""Receives: what they have told of each source queue of late, and what that says of the process. Times are monotonic.

* Receives from a queue **fail** as long as the last one of some consumer did. All of them meet the same outage, one
  after the other, so that its beginning and its end are each seen once.
* A queue is **deaf** while the last receive from it failed, whoever's that was. Where all queues are, or are closed
  because something else that is asked of the same queue fails (a process that is full does not receive), the process
  is **unable**. Any receive that succeeds ends that; where it is still so, it begins anew. An outage of a service that
  all messages need is none of it.
* The process is **idle** when nothing is in flight, and each queue has answered a receive with nothing since the last
  message. That nothing is in flight does not say so: who can't look does not know that there is nothing to do. An
  answer that brings something does not, either: there may be more where that came from.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set
from typing import Generic, TypeVar

from receipt_actors.domain.outages import Outages

C = TypeVar("C", bound=Hashable)


class Receives(Generic[C]):
    """See the module. What is asked of it is asked on any thread; what it is told, on one."""

    def __init__(self, queues: Sequence[str], now_seconds: float) -> None:
        self._queues = queues
        self._failing: dict[str, set[C]] = {}  # by queue: consumers whose last receive failed; none is empty
        self._deaf: set[str] = set()
        self._unable_since_seconds: float | None = None  # None: it is not unable
        self._empty: set[str] = set()  # queues that have answered with nothing since the last activity
        self._last_activity_seconds = now_seconds

    # --- what happens ---

    def succeeded(self, consumer: C, queue: str, messages: int, now_seconds: float) -> bool:
        """Note a receive that brought so many messages. Returns whether receives failed, and do not any more."""
        if messages:
            self.note_activity(now_seconds)
        else:
            self._empty.add(queue)
        self._deaf.discard(queue)
        self._unable_since_seconds = None
        return self.left(consumer, queue)

    def failed(self, consumer: C, queue: str, now_seconds: float) -> bool:
        """Note a receive that failed. Returns whether none did before."""
        self.note_activity(now_seconds)
        self._deaf.add(queue)
        is_first = queue not in self._failing
        self._failing.setdefault(queue, set()).add(consumer)
        return is_first

    def left(self, consumer: C, queue: str) -> bool:
        """Strike a consumer out. Returns whether it was the last one of its queue whose receives failed."""
        consumers = self._failing.get(queue)
        if consumers is None:
            return False
        consumers.discard(consumer)
        if consumers:
            return False
        del self._failing[queue]
        return True

    def note_activity(self, now_seconds: float) -> None:
        """Note that there is something to do, or may be."""
        self._empty.clear()  # first: on another thread nobody may take it for idle since the time that follows
        self._last_activity_seconds = now_seconds

    def stopped(self) -> None:
        """Note that nobody receives for a while: what queues have said is true no more when that is over."""
        self._deaf.clear()
        self._empty.clear()

    def resumed(self, now_seconds: float) -> None:
        """Note that it is over. Meanwhile it was not for the queues that nothing was received."""
        self._unable_since_seconds = None
        self.note_activity(now_seconds)

    def looked(self, outages: Outages, now_seconds: float) -> None:
        """Note what else fails now."""
        if not (self._deaf or outages.closing) or not self._are_out_of_reach(self._deaf, outages):  # mostly the first
            self._unable_since_seconds = None
        elif self._unable_since_seconds is None:
            self._unable_since_seconds = now_seconds

    # --- what follows ---

    @property
    def failing(self) -> frozenset[str]:
        """Queues from which receives fail."""
        return frozenset(self._failing)

    def is_closed(self, outages: Outages) -> bool:
        """Tell whether nothing can be taken in: receives fail from all queues that are not closed by outages."""
        return outages.closes_all or self._are_out_of_reach(self.failing, outages)

    def idle_seconds(self, now_seconds: float) -> float:
        """Tell since when there has been nothing to do, if nothing is in flight; 0: nobody knows that there is not."""
        return max(0.0, now_seconds - self._last_activity_seconds) if self._are_empty else 0.0

    def unable_seconds(self, now_seconds: float) -> float:
        """Tell for how long nothing could be received, without a break; 0: something can, or might."""
        since_seconds = self._unable_since_seconds
        return 0.0 if since_seconds is None else max(0.0, now_seconds - since_seconds)

    @property
    def _are_empty(self) -> bool:
        return len(self._empty) == len(self._queues)

    def _are_out_of_reach(self, failing: Set[str], outages: Outages) -> bool:
        return all(queue in failing or outages.closes(queue) for queue in self._queues)
