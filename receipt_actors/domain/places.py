"""``Place``: what a node does about its place in its group (``domain.roles``), without a table, a clock or timers.

Whoever has it tells it the time and what the table says, and does the ``Step`` that it returns; at most one ``Read`` or
``Write`` is under way at a time. Its ``Holder`` is lent something, or nothing.
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
    """Why an active node steps down, and for which one."""

    unable_seconds: float  #: for how long nothing could be received
    unavailable: tuple[str, ...]  #: services, which are why
    successor: str


@dataclass(frozen=True, slots=True)
class Read:
    """Read the record: ``Place.found`` takes what stands there."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write this, if ``stored`` is the version that stands: ``Place.written``, or ``found`` with what does stand."""

    content: Group
    stored: int
    attempt: int
    gone: tuple[str, ...]  #: who is taken out by it
    lost: tuple[int, int] | None  #: what stood, and what is known, where a record that was lost is put back by it
    stepped_down: SteppedDown | None  #: why this node steps down by it; None: it does not


@dataclass(frozen=True, slots=True)
class Wait:
    """``Place.renew`` after so many seconds, in the place of all that were to come."""

    seconds: float


Step: TypeAlias = Read | Write | Wait | None


class Holder(Protocol):
    """Who works with what the group lends: nothing, at first."""

    def grant(self, share: Share | None, limits: Limits) -> None:
        """Let these limits hold for what is new; ``Place.obeyed`` is told when no more is in use."""

    def lend_until(self, seconds: float) -> None:
        """Have nothing new begun from this time on."""

    def release(self) -> None:
        """Hand back what is in flight."""

    def work(self) -> Work:
        """Tell how the work goes. It waits for nothing."""


class Place:
    """See the module. Times are those of one clock, which goes on while the machine is suspended."""

    def __init__(self, lease: Lease, step_down: StepDown, holder: Holder) -> None:
        self.lease = lease
        self.step_down = step_down
        self.is_calling = False  #: the table
        self.began_at_seconds = -inf  #: the last renewal
        self.granted: Share | None = None  #: what the holder has
        self.work = Work()  #: as it was looked at last, while this node is active
        self._holder = holder
        self._is_granted = False  # whether that was by this very place, and not by one before it
        self._renews_at_once = False  # when the call under way is over
        self._held_until_seconds = -inf  # as the holder knows it
        self._was_over = True  # the lease: the holder may have stopped, and waits for a grant

    def renew(self, now_seconds: float) -> Step:
        """Begin a renewal: it is time, or there is something that others wait for."""
        if self.is_calling:
            self._renews_at_once = True
            return None
        self.is_calling, self.began_at_seconds = True, now_seconds
        return Read()

    def found(self, group: Group, now_seconds: float, after: Write | None = None) -> Step:
        """Go on from what was read, or stood in the way of a write."""
        self._looked(group, now_seconds)
        attempt = 1 if after is None else after.attempt + 1
        return self._write(attempt, now_seconds) if attempt <= MAX_WRITES else self.failed(now_seconds)

    def written(self, write: Write, now_seconds: float) -> Step:
        """Take up what the group lends by what has been written."""
        self._looked(write.content, now_seconds)
        share, me = self.lease.share, self.lease.me
        if not is_same(share, self.granted) or self._was_over or not self._is_granted:
            self._grant(share)
        self._was_over = False
        if me is not None and me.token is None:
            self._holder.release()
        return self.failed(now_seconds)

    def failed(self, now_seconds: float) -> Step:
        """Wait for the next renewal; the table did not answer, or its answer is of no use."""
        self.is_calling = False
        if self._renews_at_once:
            self._renews_at_once = False
            return self.renew(now_seconds)
        interval, me = self.lease.seconds / RENEWALS_PER_LEASE, self.lease.me
        if me is not None and me.token is not None and me.share is None and now_seconds < self.lease.held_until_seconds:
            interval /= 4  # somebody is about to give back what it waits for
        return Wait(max(0.0, self.began_at_seconds + interval - now_seconds))

    def obeyed(self, asked: Share | None, now_seconds: float) -> Step:
        """Note that the holder uses no more than it was granted with this share."""
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
    """Tell whether both are the same order, or none."""
    return one is other if one is None else one.is_same_order(other)
