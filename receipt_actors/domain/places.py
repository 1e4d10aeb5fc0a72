"""``Place``: how a node keeps its place in its group (``domain.roles``), without a table, a clock or timers.

Its owner passes it the time and what the table says, and does the ``Step`` that it returns; at most one ``Read`` or
``Write`` is under way at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Protocol, TypeAlias

from receipt_actors.domain.limits import Limits, Share
from receipt_actors.domain.roles import RENEWALS_PER_LEASE, Group, Lease, StepDown, Work

MAX_WRITES = 10  #: in a row that others were faster with; then the next renewal tries


@dataclass(frozen=True, slots=True)
class SteppedDown:
    unable_seconds: float  #: for how long nothing could be received
    unavailable: tuple[str, ...]  #: services, which are why
    successor: str


@dataclass(frozen=True, slots=True)
class Read:
    """Read the record and pass it to ``Place.found``."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write this, if the record's version is ``stored``: then ``Place.written``, else ``found`` with the record."""

    content: Group
    stored: int
    attempt: int
    gone: tuple[str, ...] = ()  #: nodes that it takes out
    lost: tuple[int, int] | None = None  #: the version found, and the one known, if it puts back a lost record
    stepped_down: SteppedDown | None = None  #: why this node steps down by it; None: it does not


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float  #: until the only next call of ``Place.renew``


Step: TypeAlias = Read | Write | Wait | None


class Holder(Protocol):
    """What works with the share of a node; it has none at first. No method waits."""

    def grant(self, share: Share | None, limits: Limits) -> None:
        """Apply the limits to new work, and call ``Place.obeyed`` when no more is in use."""

    def lend_until(self, seconds: float) -> None:
        """Begin no new work from this time on."""

    def release(self) -> None:
        """Hand back what is in flight."""

    def work(self) -> Work: ...


class Place:
    """See the module. Times are of one clock, which goes on while the machine is suspended."""

    def __init__(self, lease: Lease, step_down: StepDown, holder: Holder) -> None:
        self.lease = lease
        self.step_down = step_down
        self.is_calling = False  #: the table
        self.began_at_seconds = -inf  #: the last renewal
        self.granted: Share | None = None  #: what the holder has
        self.work = Work()  #: as it was seen last, while this node is active
        self._holder = holder
        self._is_granted = False  # by this very place, and not by one before it
        self._renews_at_once = False  # when the call under way is over
        self._held_until_seconds = -inf  # as the holder knows it
        self._was_over = True  # the lease: the holder may have stopped, and waits for a grant

    def renew(self, now_seconds: float) -> Step:
        if self.is_calling:
            self._renews_at_once = True
            return None
        self.is_calling, self.began_at_seconds = True, now_seconds
        return Read()

    def found(self, group: Group, now_seconds: float, after: Write | None = None) -> Step:
        """Go on from a record that was read, or that a write (``after``) found instead of the expected one."""
        self._looked(group, now_seconds)
        attempt = 1 if after is None else after.attempt + 1
        return self._write(attempt, now_seconds) if attempt <= MAX_WRITES else self.failed(now_seconds)

    def written(self, write: Write, now_seconds: float) -> Step:
        self._looked(write.content, now_seconds)
        share, me = self.lease.share, self.lease.me
        if not is_same(share, self.granted) or self._was_over or not self._is_granted:
            self._grant(share)
        self._was_over = False
        if me is not None and me.token is None:
            self._holder.release()
        return self.failed(now_seconds)

    def failed(self, now_seconds: float) -> Step:
        """Wait for the next renewal; also if the table did not answer, or its record can't be read."""
        self.is_calling = False
        if self._renews_at_once:
            self._renews_at_once = False
            return self.renew(now_seconds)
        interval, me = self.lease.seconds / RENEWALS_PER_LEASE, self.lease.me
        if me is not None and me.token is not None and me.share is None and now_seconds < self.lease.held_until_seconds:
            interval /= 4  # others are about to give back what it waits for
        return Wait(max(0.0, self.began_at_seconds + interval - now_seconds))

    def obeyed(self, asked: Share | None, now_seconds: float) -> Step:
        """Note that the holder keeps to this share."""
        share = self.lease.share
        if share is None or not share.is_same_order(asked):
            return None
        self.lease = self.lease.obeys(share.number)
        return self.renew(now_seconds) if share.held != share.told else None  # so that the others get the rest

    def _write(self, attempt: int, now: float) -> Write:
        lease = self.lease
        gone = tuple(sorted(lease.gone(now)))
        lost = (lease.stored, lease.group.version) if lease.puts_back else None
        successor = lease.successor(now) if self.step_down.is_over(self.work, now) else None
        stepped_down = None
        if successor is not None:
            unable_seconds = self.step_down.unable_seconds(self.work, now)
            stepped_down = SteppedDown(unable_seconds, self.work.unavailable, successor)
        self.lease, content = lease.renewal(now, steps_down=stepped_down is not None)
        return Write(content, lease.stored, attempt, gone, lost, stepped_down)

    def _looked(self, group: Group, now: float) -> None:
        before, self.lease = self.lease, self.lease.looked(group, now)
        me, share = self.lease.me, self.lease.share
        self.work = Work() if me is None or me.token is None else self._holder.work()
        self.step_down = self.step_down.looked(before, self.lease, self.work, now)
        if share is None and not (self._is_granted and self.granted is None):
            self._grant(None)  # before anything is lent again
        if share is not None and self.granted is not None and not self.granted.told.is_within(share.held):
            self._grant(share)  # what was lent more went to another node, and was lost
        if me is None or self.lease.held_until_seconds > -inf:  # after a crash it is left as it was, until it is known
            self._was_over |= now >= self._held_until_seconds
            self._held_until_seconds = self.lease.held_until_seconds
            self._holder.lend_until(self._held_until_seconds)

    def _grant(self, share: Share | None) -> None:
        self.granted, self._is_granted = share, True
        self._holder.grant(share, self.lease.limits)


def is_same(one: Share | None, other: Share | None) -> bool:
    """Return whether both are the same order, or none."""
    return one is other if one is None else one.is_same_order(other)
