"""Patience: how long a node that is cut off from its queues keeps its seat, where another one waits for it. Pure.

A node may reach the table of roles, renew its lease, and all the same be cut off from its source queues. What it sees
of that is ``Work``. When it could receive nothing without a break for as long as its ``Patience`` lasts, it gives up
its seat to the next one in line and waits at the end of that (``Group.renewed``). What another node could do nobody
knows before it tries: who has no seat sees no outage. So in an outage of the queues that all nodes see the seat moves,
and each node has twice as much patience the next time, and so on, up to ``LONGEST_PATIENCE_SECONDS``. It begins anew
once it has answered something.

Cut off from its queues a node can neither finish nor keep what it has in flight: giving up costs nothing. An outage of
Apple's, or of the ledger, is another thing. What is in flight is kept then; a move would cost each of those messages a
delivery, of which it has few, and nobody knows that the next node could do any better. So such a node waits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from receipt_actors.domain.roles import Lease

LEASES = 1.2  #: that patience lasts at first; a hiccup is over by then
RECEIVE_SECONDS = 2.0  #: beside its long poll, after which a receive has shown that the queue is back
LONGEST_PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Work:
    """How the work of a node goes, as far as it knows."""

    answered: int = 0  #: results that were posted, since some moment
    unable_seconds: float = 0.0  #: for how long nothing could be received without a break; 0: something can, or might
    unavailable: tuple[str, ...] = ()  #: services, where that is so


@dataclass(frozen=True, slots=True)
class Patience:
    """Each event returns the next one."""

    first_seconds: float
    times: int = 0  #: that the seat was given up, since something was answered
    since_seconds: float = inf  #: from when on the seat, and a share, have been held without a break
    token: int | None = None  #: of the seat that it has, or had last
    answered: int = 0  #: ``Work.answered`` when that began, or when it was more last

    @classmethod
    def of(cls, lease_seconds: float, receive_wait_seconds: float) -> Patience:
        """Return what a node has at first.

        It is never shorter than a long poll: one failure may be followed by a receive that waits in vain, and well.
        """
        return cls(max(lease_seconds * LEASES, receive_wait_seconds + RECEIVE_SECONDS))

    @property
    def seconds(self) -> float:
        """How long it lasts now."""
        longest = max(self.first_seconds, LONGEST_PATIENCE_SECONDS)
        return float(min(self.first_seconds * 2 ** min(self.times, 30), longest))

    def looked(self, before: Lease, lease: Lease, work: Work, now_seconds: float) -> Patience:
        """Note what the node knows of its group now, and what it knew before; and how its work goes."""
        patience, was, me = self, before.me, lease.me
        if was is not None and me is not None and was.token is not None and me.token is None and me.joined > was.joined:
            patience = replace(patience, times=patience.times + 1)
        if me is None or me.token is None or not lease.is_held(now_seconds):
            return replace(patience, since_seconds=inf)
        if patience.since_seconds == inf:
            patience = replace(patience, since_seconds=now_seconds)
        if me.token != patience.token:
            return replace(patience, token=me.token, answered=work.answered)
        if work.answered > patience.answered:
            patience = replace(patience, times=0, answered=work.answered)
        return patience

    def unable_seconds(self, work: Work, now_seconds: float) -> float:
        """Tell for how long the node has held its seat in vain."""
        return max(0.0, min(work.unable_seconds, now_seconds - self.since_seconds))

    def is_over(self, work: Work, now_seconds: float) -> bool:
        """Tell whether the seat is to be given up, if anybody waits for it."""
        return self.unable_seconds(work, now_seconds) >= self.seconds
