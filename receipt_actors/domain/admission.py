"""How many more messages may come in, from which source queue, and what receives tell of each queue. Pure.

Who asks (``pipeline.in_flight``) tells what happened, and acts on what follows. Times are monotonic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

C = TypeVar("C", bound=Hashable)  # what stands for a consumer


# --- outages ---


@dataclass(frozen=True, slots=True)
class Outages:
    """The services that are unavailable, and what is not taken in because of it. Every step returns the next one."""

    closing: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """By service: the only source queue that nothing is taken from meanwhile; None: nothing is taken from any."""
    kept: frozenset[str] = frozenset()
    """Services that some messages wait for, which are kept; all others may come."""

    def begun(self, service: str, source_queue: str | None = None, *, stops_receiving: bool) -> Outages:
        """Note an outage; or that of one which goes on already something else is true now."""
        others = self.ended(service)
        if stops_receiving:
            return Outages(MappingProxyType({**others.closing, service: source_queue}), others.kept)
        return Outages(others.closing, others.kept | {service})

    def ended(self, service: str) -> Outages:
        """Note that a service is there (again)."""
        closing = {name: source_queue for name, source_queue in self.closing.items() if name != service}
        return Outages(MappingProxyType(closing), self.kept - {service})

    @property
    def services(self) -> frozenset[str]:
        """All that are unavailable."""
        return self.kept.union(self.closing)

    @property
    def closes_all(self) -> bool:
        """Whether nothing is taken from any source queue."""
        return None in self.closing.values()

    def closes(self, source_queue: str) -> bool:
        """Tell whether nothing is taken from this one, whatever is true of the others."""
        return source_queue in self.closing.values()


# --- receives ---


class Receives(Generic[C]):
    """What receives have told of each source queue of late. It is told on one thread, and may be asked on any.

    * Receives from a queue **fail** as long as the last one of some consumer did. All consumers meet the same outage,
      one after the other, so that its beginning and its end are each seen once.
    * A queue is **deaf** while the last receive from it failed, whichever consumer's that was. Where all queues are, or
      are closed because something else that is asked of the same queue fails (a process that is full does not
      receive), the process is **unable**. Any receive that succeeds ends that; where it is still so, it begins anew. An
      outage of a service that all messages need is none of it.
    * The process is **idle** when nothing is in flight, and each queue has answered a receive with nothing since the
      last message. An answer that brings something does not say so: there may be more where that came from.
    """

    def __init__(self, queues: Sequence[str], now_seconds: float) -> None:
        self._queues = queues
        self._failing: dict[str, set[C]] = {}  # by queue: consumers whose last receive failed; none is empty
        self._deaf: set[str] = set()
        self._unable_since_seconds: float | None = None  # None: it is not unable
        self._empty: set[str] = set()  # queues that have answered with nothing since the last activity
        self._last_activity_seconds = now_seconds

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
        consumers = self._failing.get(queue, set())
        was_failing = bool(consumers)
        consumers.discard(consumer)
        if consumers or not was_failing:
            return False
        del self._failing[queue]
        return True

    def note_activity(self, now_seconds: float) -> None:
        """Note that there is something to do, or may be."""
        self._empty.clear()  # first: on another thread it must not look idle since the time that follows
        self._last_activity_seconds = now_seconds

    def stopped(self) -> None:
        """Note that nothing is received for a while: what queues have said is true no more when that is over."""
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

    @property
    def failing(self) -> frozenset[str]:
        """Queues from which receives fail."""
        return frozenset(self._failing)

    def is_closed(self, outages: Outages) -> bool:
        """Tell whether nothing can be taken in: receives fail from all queues that are not closed by outages."""
        return outages.closes_all or self._are_out_of_reach(self.failing, outages)

    def idle_seconds(self, now_seconds: float) -> float:
        """Tell since when there has been nothing to do, if nothing is in flight; 0: it is not known."""
        is_known = len(self._empty) == len(self._queues)
        return max(0.0, now_seconds - self._last_activity_seconds) if is_known else 0.0

    def unable_seconds(self, now_seconds: float) -> float:
        """Tell for how long nothing could be received, without a break; 0: something can, or might."""
        since_seconds = self._unable_since_seconds
        return 0.0 if since_seconds is None else max(0.0, now_seconds - since_seconds)

    def _are_out_of_reach(self, failing: Set[str], outages: Outages) -> bool:
        return all(queue in failing or outages.closes(queue) for queue in self._queues)


# --- credits ---

MIN_RECEIVES = 2  #: at once, of a source; a single one that hangs would hold up everything

#: A consumer may receive so many messages now.
Grant: TypeAlias = tuple[C, int]


def credits_kept_for_each(credits: int, sources: int) -> int:
    """Say how many of all credits are kept for each of several sources: half of all are divided among them.

    Each has one at least, where that many are there. A source that is alone needs none to be kept.
    """
    return 0 if sources < 2 else max(credits // (2 * sources), min(1, credits // sources))


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
        """Who has the fewest credits is next; of several, the one that has waited longest."""
        return self.used, self.granted_at, self.place


class Credits(Generic[C]):
    """How many more messages may be taken in now, and from which source queue the next ones.

    A message in flight holds a credit; so does each message that a receive under way may bring.

    Few consumers of a source receive at once while receives are not full: many would bring one message each, and each
    receive costs as much as one that brings ten.

    Where there are several sources none may starve another. Half of all credits is divided among them, and the share
    of each is kept for it; of the other half, the next goes to the source that has the fewest, as long as its receives
    are full. There may be hundreds of sources, and something happens many times for each message: so sums are kept up
    to date, and only those sources are looked at that may have more.
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
        """Describe each source for people: messages in flight, credits reserved, consumers that wait."""
        return {
            queue: {"in_flight": source.in_flight, "reserved": source.reserved, "waiting": len(source.waiting)}
            for queue, source in self._sources.items()
        }

    def room(self, limit: int) -> int:
        """Say how many of so many credits are free; below 0: how many too many are out."""
        return limit - self.in_flight - self.reserved

    def took(self, source_queue: str) -> None:
        """One more message is in flight."""
        self._count(source_queue, 1)

    def finished(self, source_queue: str) -> None:
        """One message fewer is in flight."""
        self._count(source_queue, -1)

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
        self.failed(consumer, source_queue)

    def grant(self, limit: int, outages: Outages) -> Grant[C] | None:
        """Hand out the next credits, as far as there is room; None where no consumer may receive now.

        While a service is unavailable that all need, or one source alone, a single message may come where none is in
        flight: it finds out whether the service is back.
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
