"""Credits: how many more messages may be taken in now, and from which source queue the next ones.

A message in flight holds a credit; so does each message that a receive under way may bring. ``Credits`` keeps count and
decides; who asks it (``pipeline.in_flight``) tells it what happened, and passes the credits on.

It lets few consumers of a source receive at once while receives are not full: many would bring one message each, and
every one costs as much as ten.

Where there are several sources none may starve another. Half of all credits is divided among them, and the share of
each (``domain.sources``) is kept for it; of the other half, the next goes to the source that has the fewest, as long as
its receives are full.

There may be hundreds of sources, and something happens many times for each message. So nothing is counted anew that
can be kept up to date, and only those sources are looked at that may have more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from receipt_actors.domain.outages import Outages
from receipt_actors.domain.sources import credits_kept_for_each

MIN_RECEIVES = 2  #: at once, of a source; a single one that hangs would hold up everything

C = TypeVar("C", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Grant(Generic[C]):
    """A consumer may receive as many messages as it has credits now."""

    consumer: C
    credits: int


@dataclass(frozen=True, slots=True)
class SourceCredits:
    """What one source has, for people."""

    in_flight: int
    reserved: int
    waiting: int  #: consumers


class _Source(Generic[C]):
    """What is going on at one source queue."""

    __slots__ = (
        "consumers",
        "granted_at",
        "in_flight",
        "max_receives",
        "place",
        "queue",
        "receives",
        "reserved",
        "used",
        "waiting",
    )

    def __init__(self, queue: str, place: int) -> None:
        self.queue = queue
        self.place = place  # among the sources
        self.consumers: set[C] = set()
        self.waiting: deque[tuple[C, int]] = deque()  # consumers, and how many credits each would like
        self.receives = 0  # under way
        self.max_receives = MIN_RECEIVES  # at once, now
        self.reserved = 0  # credits of the receives under way
        self.in_flight = 0  # messages
        self.used = 0  # credits: the sum of both
        self.granted_at = 0  # the last time, counted in grants to any source

    @property
    def rank(self) -> tuple[int, int, int]:
        """Who has the fewest credits is next; of several, whose turn is longest ago."""
        return self.used, self.granted_at, self.place


class Credits(Generic[C]):
    """See the module. ``C`` is what stands for a consumer."""

    def __init__(self, source_queues: Sequence[str]) -> None:
        self._sources = {queue: _Source[C](queue, place) for place, queue in enumerate(source_queues)}
        self._wanting: set[_Source[C]] = set()  # somebody waits there who may receive, as far as it goes by receives
        self._reserved: dict[C, int] = {}
        self._grants = 0
        self._kept = 0  # for each source, by the limit of the last decision
        self._kept_free = 0  # the sum of what is kept for sources and they have not: kept, as they take and give back
        self.in_flight = 0  #: messages of all sources, and of those nobody knows the source of
        self.reserved = 0  #: credits of all receives under way

    def of_each_source(self) -> Iterator[tuple[str, SourceCredits]]:
        """Describe each source."""
        for queue, source in self._sources.items():
            yield queue, SourceCredits(source.in_flight, source.reserved, len(source.waiting))

    def room(self, limit: int) -> int:
        """Say how many more of so many credits nobody has; below 0: how many too many are out."""
        return limit - self.in_flight - self.reserved

    # --- what happens ---

    def took(self, source_queue: str | None) -> None:
        """One more message is in flight; None where nobody knows yet where it came from."""
        self.in_flight += 1
        if source_queue is not None:
            self.recognised(source_queue)

    def recognised(self, source_queue: str) -> None:
        """A message in flight is known to have come from there."""
        source = self._sources[source_queue]
        source.in_flight += 1
        self._use(source, 1)

    def finished(self, source_queue: str | None) -> None:
        """One message fewer is in flight; None as for ``took``."""
        self.in_flight -= 1
        if source_queue is not None:
            source = self._sources[source_queue]
            source.in_flight -= 1
            self._use(source, -1)

    def asked(self, consumer: C, source_queue: str, credits: int) -> None:
        """A consumer would like to receive up to so many messages."""
        source = self._sources[source_queue]
        source.consumers.add(consumer)
        source.waiting.append((consumer, credits))
        self._update(source)

    def received(self, consumer: C, source_queue: str, messages: int) -> None:
        """A receive is over, and what it brought was told by ``took``; a full one makes room for one more at once."""
        source = self._sources[source_queue]
        granted = self._give_back(consumer, source)
        if granted and messages >= granted:
            source.max_receives = min(source.max_receives + 1, max(MIN_RECEIVES, len(source.consumers)))
        elif granted and messages <= granted // 2:
            source.max_receives = max(source.max_receives - 1, MIN_RECEIVES)
        self._update(source)

    def failed(self, consumer: C, source_queue: str) -> None:
        """A receive is over, and says nothing of what there is."""
        source = self._sources[source_queue]
        self._give_back(consumer, source)
        self._update(source)

    def left(self, consumer: C, source_queue: str) -> None:
        """A consumer has ended: it neither waits nor receives."""
        source = self._sources[source_queue]
        source.consumers.discard(consumer)
        source.waiting = deque(waiting for waiting in source.waiting if waiting[0] != consumer)
        self._give_back(consumer, source)
        self._update(source)

    # --- what follows ---

    def grant(self, limit: int, outages: Outages) -> Grant[C] | None:
        """Hand out the next credits, as far as there is room; None where nobody may receive now.

        While a service is unavailable that all need, or one source alone, a single message may come where none is in
        flight: somebody has to find out whether it is back.
        """
        if self.room(limit) <= 0:
            return None
        self._keep_for_each(limit)
        if not self._wanting:
            return None
        best: _Source[C] | None = None
        available = 0
        for source in self._wanting:
            if best is None or source.rank < best.rank:
                credits = self._available(source, limit, outages)
                if credits > 0:
                    best, available = source, credits
        return None if best is None else self._grant(best, available)

    def grant_to_try_with(self, limit: int, credits: int, source_queue: str | None) -> Grant[C] | None:
        """Hand out so many credits all the same, of this source or of any; not where messages may be coming already."""
        sources = list(self._sources.values()) if source_queue is None else [self._sources[source_queue]]
        waiting = [source for source in sources if source.waiting]
        if not waiting or self.room(limit) <= 0 or any(source.reserved for source in sources):
            return None
        return self._grant(min(waiting, key=lambda source: source.granted_at), min(credits, self.room(limit)))

    def _available(self, source: _Source[C], limit: int, outages: Outages) -> int:
        """Say how many credits this source may have now, beside those that it has."""
        room = self.room(limit)
        if outages.closes_all:
            return 1 if room == limit else 0
        if len(self._sources) > 1:
            room -= self._kept_free - max(0, self._kept - source.used)  # what is kept for others
            if source.max_receives == MIN_RECEIVES:  # quiet: its long polls need not hold what others have a use for
                room = min(room, max(1, self._kept) - source.reserved)
        if outages.closes(source.queue):
            return min(room, 1) if source.used == 0 else 0
        return room

    def _grant(self, source: _Source[C], available: int) -> Grant[C]:
        consumer, wanted = source.waiting.popleft()
        self._give_back(consumer, source)  # of one that has asked twice
        credits = min(wanted, available)
        self._reserved[consumer] = credits
        self.reserved += credits
        source.reserved += credits
        source.receives += 1
        self._use(source, credits)
        self._grants += 1
        source.granted_at = self._grants
        self._update(source)
        return Grant(consumer, credits)

    def _give_back(self, consumer: C, source: _Source[C]) -> int:
        credits = self._reserved.pop(consumer, 0)
        if credits:
            self.reserved -= credits
            source.reserved -= credits
            source.receives -= 1
            self._use(source, -credits)
        return credits

    # --- what is kept up to date ---

    def _use(self, source: _Source[C], credits: int) -> None:
        self._kept_free -= max(0, self._kept - source.used)
        source.used += credits
        self._kept_free += max(0, self._kept - source.used)

    def _keep_for_each(self, limit: int) -> None:
        kept = credits_kept_for_each(limit, len(self._sources))
        if kept != self._kept:
            self._kept = kept
            self._kept_free = sum(max(0, kept - source.used) for source in self._sources.values())
            for source in self._sources.values():
                self._update(source)

    def _has_its_quiet_share(self, source: _Source[C]) -> bool:
        quiet = len(self._sources) > 1 and source.max_receives == MIN_RECEIVES
        return quiet and source.reserved >= max(1, self._kept)

    def _update(self, source: _Source[C]) -> None:
        if source.waiting and source.receives < source.max_receives and not self._has_its_quiet_share(source):
            self._wanting.add(source)
        else:
            self._wanting.discard(source)
