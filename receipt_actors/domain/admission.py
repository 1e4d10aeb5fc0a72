"""How many more messages may come in, from which source queue, and what receives say of each queue. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

C = TypeVar("C", bound=Hashable)  # what stands for a consumer


@dataclass(frozen=True, slots=True)
class Outages:
    """The services that are unavailable, and what is not taken in because of it."""

    closing: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """By service: the only source queue that nothing is taken from meanwhile; None: nothing is taken from any."""
    kept: frozenset[str] = frozenset()
    """Services that some messages wait for, which are kept; all others may come."""

    def begun(self, service: str, source_queue: str | None = None, *, stops_receiving: bool) -> Outages:
        """Note an outage, or a change in one."""
        others = self.ended(service)
        if stops_receiving:
            return Outages(MappingProxyType({**others.closing, service: source_queue}), others.kept)
        return Outages(others.closing, others.kept | {service})

    def ended(self, service: str) -> Outages:
        closing = {name: source_queue for name, source_queue in self.closing.items() if name != service}
        return Outages(MappingProxyType(closing), self.kept - {service})

    @property
    def services(self) -> frozenset[str]:
        return self.kept.union(self.closing)

    @property
    def closes_all(self) -> bool:
        return None in self.closing.values()

    def closes(self, source_queue: str) -> bool:
        return source_queue in self.closing.values()


class Receives(Generic[C]):
    """What receives have shown of each source queue; written on one thread, read on any.

    * A queue **fails** while the last receive of any of its consumers failed, so an outage begins and ends once.
    * A queue is **deaf** while the last receive from it failed. The process is **unable** while each queue is deaf or
      closed by other failures about it. A success ends that. An outage of a shared service does not count.
    * The process is **idle** when nothing is in flight and each queue has answered empty since the last message.
    """

    def __init__(self, queues: Sequence[str], now_seconds: float) -> None:
        self._queues = queues
        self._failing: dict[str, set[C]] = {}  # by queue: consumers whose last receive failed; none is empty
        self._deaf: set[str] = set()
        self._unable_since_seconds: float | None = None  # None: it is not unable
        self._empty: set[str] = set()  # queues that have answered with nothing since the last activity
        self._last_activity_seconds = now_seconds

    def succeeded(self, consumer: C, queue: str, messages: int, now_seconds: float) -> bool:
        """Note a receive. Returns whether this ends a failure of the queue."""
        if messages:
            self.note_activity(now_seconds)
        else:
            self._empty.add(queue)
        self._deaf.discard(queue)
        self._unable_since_seconds = None
        return self.left(consumer, queue)

    def failed(self, consumer: C, queue: str, now_seconds: float) -> bool:
        """Note a failure. Returns whether it is the queue's first."""
        self.note_activity(now_seconds)
        self._deaf.add(queue)
        is_first = queue not in self._failing
        self._failing.setdefault(queue, set()).add(consumer)
        return is_first

    def left(self, consumer: C, queue: str) -> bool:
        """Remove a consumer. Returns whether its queue stops failing."""
        consumers = self._failing.get(queue, set())
        was_failing = bool(consumers)
        consumers.discard(consumer)
        if consumers or not was_failing:
            return False
        del self._failing[queue]
        return True

    def note_activity(self, now_seconds: float) -> None:
        self._empty.clear()  # first: on another thread it must not look idle since the time that follows
        self._last_activity_seconds = now_seconds

    def stopped(self) -> None:
        """Forget what queues have said: nothing is received for a while."""
        self._deaf.clear()
        self._empty.clear()

    def resumed(self, now_seconds: float) -> None:
        self._unable_since_seconds = None
        self.note_activity(now_seconds)

    def looked(self, outages: Outages, now_seconds: float) -> None:
        if not (self._deaf or outages.closing) or not self._are_out_of_reach(self._deaf, outages):  # mostly the first
            self._unable_since_seconds = None
        elif self._unable_since_seconds is None:
            self._unable_since_seconds = now_seconds

    @property
    def failing(self) -> frozenset[str]:
        return frozenset(self._failing)

    def is_closed(self, outages: Outages) -> bool:
        """Return whether every queue fails or is closed."""
        return outages.closes_all or self._are_out_of_reach(self.failing, outages)

    def idle_seconds(self, now_seconds: float) -> float:
        """Return how long there has been nothing to do, if nothing is in flight; 0: not known."""
        is_known = len(self._empty) == len(self._queues)
        return max(0.0, now_seconds - self._last_activity_seconds) if is_known else 0.0

    def unable_seconds(self, now_seconds: float) -> float:
        """Return how long nothing could be received; 0: something can be, or might."""
        since_seconds = self._unable_since_seconds
        return 0.0 if since_seconds is None else max(0.0, now_seconds - since_seconds)

    def _are_out_of_reach(self, failing: Set[str], outages: Outages) -> bool:
        return all(queue in failing or outages.closes(queue) for queue in self._queues)


MIN_RECEIVES = 2  #: at once, of a source; a single one that hangs would hold up everything

#: A consumer may receive so many messages now.
Grant: TypeAlias = tuple[C, int]


def credits_kept_for_each(credits: int, sources: int) -> int:
    """Return the credits reserved for each of several sources: an equal part of half of all, at least 1."""
    return 0 if sources < 2 else max(credits // (2 * sources), min(1, credits // sources))


@dataclass(slots=True, eq=False)
class _Source(Generic[C]):
    """What is going on at one source queue."""

    queue: str
    place: int  #: among the sources
    consumers: set[C] = field(default_factory=set)
    waiting: deque[tuple[C, int]] = field(default_factory=deque)  #: consumers, and how many credits each would like
    receives: int = 0  #: under way
    max_receives: int = MIN_RECEIVES  #: at once, now
    reserved: int = 0  #: credits of the receives under way
    in_flight: int = 0  #: messages
    used: int = 0  #: credits: the sum of both
    granted_at: int = 0  #: the last time, counted in grants to any source

    @property
    def rank(self) -> tuple[int, int, int]:
        """Fewest credits first, then the longest wait."""
        return self.used, self.granted_at, self.place


class Credits(Generic[C]):
    """How many messages may come in now, and from which source queue.

    A message in flight holds a credit, and so does each that a receive under way may bring. While receives of a source
    are not full only few consumers receive: each receive costs as much as one that brings ten.

    No source may starve another: half of all credits is reserved in equal shares; the rest goes to the source with the
    fewest whose receives are full. Sums are kept up to date, for there may be hundreds of sources.
    """

    def __init__(self, source_queues: Sequence[str]) -> None:
        self._sources = {queue: _Source[C](queue, place) for place, queue in enumerate(source_queues)}
        self._wanting: set[_Source[C]] = set()  # a consumer waits, and may receive as far as it goes by receives
        self._reserved: dict[C, int] = {}
        self._grants = 0
        self._kept = 0  # for each source, by the limit of the last decision
        self._kept_free = 0  # the sum of what is kept for sources and they have not: kept, as they take and give back
        self.in_flight = 0  #: messages of all sources
        self.reserved = 0  #: credits of all receives under way

    def of_each_source(self) -> dict[str, dict[str, int]]:
        return {
            queue: {"in_flight": source.in_flight, "reserved": source.reserved, "waiting": len(source.waiting)}
            for queue, source in self._sources.items()
        }

    def room(self, limit: int) -> int:
        """Return the free credits; negative: too many are out."""
        return limit - self.in_flight - self.reserved

    def took(self, source_queue: str) -> None:
        self._count(source_queue, 1)

    def finished(self, source_queue: str) -> None:
        self._count(source_queue, -1)

    def asked(self, consumer: C, source_queue: str, credits: int) -> None:
        source = self._sources[source_queue]
        source.consumers.add(consumer)
        source.waiting.append((consumer, credits))
        self._update(source)

    def received(self, consumer: C, source_queue: str, messages: int) -> None:
        """Note what a receive brought (after ``took``); a full one lets one more receive at once."""
        source = self._sources[source_queue]
        granted = self._give_back(consumer, source)
        if granted and messages >= granted:
            source.max_receives = min(source.max_receives + 1, max(MIN_RECEIVES, len(source.consumers)))
        elif granted and messages <= granted // 2:
            source.max_receives = max(source.max_receives - 1, MIN_RECEIVES)
        self._update(source)

    def failed(self, consumer: C, source_queue: str) -> None:
        """Note a receive that says nothing of the queue."""
        source = self._sources[source_queue]
        self._give_back(consumer, source)
        self._update(source)

    def left(self, consumer: C, source_queue: str) -> None:
        source = self._sources[source_queue]
        source.consumers.discard(consumer)
        source.waiting = deque(waiting for waiting in source.waiting if waiting[0] != consumer)
        self.failed(consumer, source_queue)

    def grant(self, limit: int, outages: Outages) -> Grant[C] | None:
        """Grant the next credits; None where no consumer may receive.

        During an outage one message may come where none is in flight, to find out whether the service is back.
        """
        if self.room(limit) <= 0:
            return None
        self._keep_for_each(limit)
        best: _Source[C] | None = None
        available = 0
        for source in self._wanting:
            if best is None or source.rank < best.rank:
                credits = self._available(source, limit, outages)
                if credits > 0:
                    best, available = source, credits
        return None if best is None else self._grant(best, available)

    def grant_to_try_with(self, limit: int, credits: int, source_queue: str | None) -> Grant[C] | None:
        """Grant credits despite an outage, unless messages may be coming already."""
        sources = list(self._sources.values()) if source_queue is None else [self._sources[source_queue]]
        waiting = [source for source in sources if source.waiting]
        if not waiting or self.room(limit) <= 0 or any(source.reserved for source in sources):
            return None
        return self._grant(min(waiting, key=lambda source: source.granted_at), min(credits, self.room(limit)))

    def _available(self, source: _Source[C], limit: int, outages: Outages) -> int:
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
        credits = min(wanted, available)
        self._reserved[consumer] = credits
        self.reserved += credits
        source.reserved += credits
        source.receives += 1
        self._use(source, credits)
        self._grants += 1
        source.granted_at = self._grants
        self._update(source)
        return consumer, credits

    def _give_back(self, consumer: C, source: _Source[C]) -> int:
        credits = self._reserved.pop(consumer, 0)
        if credits:
            self.reserved -= credits
            source.reserved -= credits
            source.receives -= 1
            self._use(source, -credits)
        return credits

    def _count(self, source_queue: str, messages: int) -> None:
        source = self._sources[source_queue]
        self.in_flight += messages
        source.in_flight += messages
        self._use(source, messages)

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

    def _update(self, source: _Source[C]) -> None:
        is_quiet = len(self._sources) > 1 and source.max_receives == MIN_RECEIVES
        has_its_quiet_share = is_quiet and source.reserved >= max(1, self._kept)
        if source.waiting and source.receives < source.max_receives and not has_its_quiet_share:
            self._wanting.add(source)
        else:
            self._wanting.discard(source)
