"""``Membership``: the actor that keeps this node's place in its group, and grants what the group lends to it.

It owns the lease (``domain.roles``): it renews it several times while it lasts, takes members for gone that are not
heard of, and confirms a smaller share when that is kept to. What the group lends it grants to the ``Lessee``: the
actors of this process, or the divider of several. Those look at their limits, and at until when these are lent, before
each receive and each request: a node that sleeps, or is cut off from the table, begins nothing after its lease, whether
or not this actor runs.

A node that stands by hands back what it still has in flight, for the active ones to take. One that is cut off keeps it:
the table that it does not reach is where claims are made, too. A record that was lost it puts back. A node that can
receive nothing for long steps down for one that stands by (``StepDown``).

It waits for the table on a thread. When it is told to end it leaves the group, so that others need not wait for its
lease. A crash of it forgets since when others have not been heard of, and how often the node stepped down; its
successor finds its place in the table, and what is lent stays lent meanwhile. ``role_news`` has the log and incidents.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, ClassVar, Protocol

from receipt_actors.domain.limits import Limits, LiveLimits, Share
from receipt_actors.domain.ports import RoleRecord, RoleTable
from receipt_actors.domain.role_records import group_in, record_of
from receipt_actors.domain.roles import RENEWALS_PER_LEASE, Group, Lease, Member, Node, StepDown, Work
from receipt_actors.errors import UnavailableError
from receipt_actors.otp import (
    ActorSystem,
    Continue,
    Crash,
    ExitReason,
    GenServer,
    Name,
    Receive,
    Receiving,
    Reply,
    Timer,
    look_at,
)
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    IN_FLIGHT,
    LEDGER_GATEWAY,
    InFlightStatus,
    ObeyLimits,
    ReleaseMessages,
)
from receipt_actors.scale.nodes.role_news import RoleNews, SteppedDown, standing_of, standing_of_member
from receipt_actors.telemetry.incidents import INCIDENTS
from receipt_actors.telemetry.overview import NodeOverview, RoleOverview, Standing
from receipt_actors.telemetry.statistics import statistics_of

MEMBERSHIP = "membership"
MAX_WRITES = 10  #: in a row that others were faster with; then the next renewal tries
ASK_AGAIN_SECONDS = 0.1  #: before asking an actor that is being restarted whether limits are kept to
_READ = "read"  # labels of what is asked of the table,
_LEAVE = "leave"
#: the actors that keep to the limits of a process
LIMITED: tuple[Name, ...] = (IN_FLIGHT, APP_STORE_GATEWAY, LEDGER_GATEWAY)


class Lessee(Protocol):
    """What the group grants is granted to it: nothing, at first."""

    def grant(self, limits: Limits) -> Sequence[tuple[Name, object]]:
        """Let these hold for what is new. Returns whom to ask whether no more is in use, each with its question."""

    def lend_until(self, seconds: float) -> None:
        """Have nothing new begun from this time of ``clock.boottime`` on."""

    def release(self) -> None:
        """Hand back what is in flight."""

    def work(self) -> Work:
        """Tell how the work goes. It waits for no other actor."""


class ProcessLessee:
    """A node that is one process."""

    def __init__(self, limits: LiveLimits, actors: ActorSystem) -> None:
        self._limits = limits
        self._actors = actors
        limits.change(limits.whole.nothing)
        limits.held_until_seconds = -inf

    def grant(self, limits: Limits) -> Sequence[tuple[Name, object]]:
        """See ``Lessee``."""
        self._limits.change(limits)
        return [(name, ObeyLimits()) for name in LIMITED]

    def lend_until(self, seconds: float) -> None:
        """See ``Lessee``."""
        self._limits.held_until_seconds = seconds

    def release(self) -> None:
        """See ``Lessee``."""
        release(self._actors)

    def work(self) -> Work:
        """See ``Lessee``."""
        in_flight = self._actors.whereis(IN_FLIGHT)
        status = None if in_flight is None else look_at(in_flight, 0).view
        answered = statistics_of(self._actors).answered
        if not isinstance(status, InFlightStatus):  # it is being started
            return Work(answered)
        return Work(answered, status.unable_seconds, tuple(sorted(status.troubles)))


def release(actors: ActorSystem) -> None:
    """Have what is in flight in this process handed back."""
    in_flight = actors.whereis(IN_FLIGHT)
    if in_flight is not None:
        in_flight.cast(ReleaseMessages())


@dataclass(frozen=True, slots=True)
class _Write:
    """Label of a renewal."""

    content: Group
    attempt: int
    gone: tuple[str, ...]  #: who is taken out by it
    lost: tuple[int, int] | None  #: what stood, and what is known, where a record that was lost is put back by it
    stepped_down: SteppedDown | None  #: why this node steps down by it; None: it does not


@dataclass(frozen=True, slots=True)
class _Obey:
    """Label of the question whether no more is used than this share allows."""

    share: Share | None


@dataclass(frozen=True, slots=True)
class _Renew:
    """To itself: it is time."""


@dataclass(frozen=True, slots=True)
class _AskAgain:
    """To itself: an actor of the lessee was not there to be asked."""

    share: Share | None


class Membership(GenServer):
    """See the module."""

    trap_exit: ClassVar[bool] = True

    def __init__(
        self, table: RoleTable, group: str, node: Node, lease_seconds: float, lessee: Lessee, step_down: StepDown
    ) -> None:
        self._table = table
        self._group = group
        self._lessee = lessee
        # Beats begin anywhere: a renewal of a keeper before this one, which comes late, is none of its own.
        self._lease = Lease(node, lease_seconds, beat=secrets.randbits(48))
        self._pool = self.system.new_blocking_pool(MEMBERSHIP, 1)
        self._is_calling = False
        self._renews_at_once = False  # when the call under way is over
        self._began_at_seconds = -inf  # of ``clock.boottime``; of the last renewal
        self._next_renewal: Timer | None = None
        self._granted: Share | None = None  # what the lessee has
        self._is_granted = False  # whether this actor has granted it
        self._work = Work()  # as it was looked at last, while this node is active
        self._step_down = step_down
        self._held_until_seconds = -inf  # of ``clock.boottime``; as the lessee knows it
        self._was_over = True  # the lease: the lessee may have stopped, and waits for a grant
        self._news = RoleNews(group, lambda noticed: self.cast(INCIDENTS, noticed))

    def init(self) -> Continue:
        """Look at the table first."""
        return Continue()

    def handle_continue(self, term: Any) -> None:
        """Join."""
        self._renew()

    def terminate(self, reason: ExitReason) -> Receiving | None:
        """Leave the group, unless this is a crash: then a successor goes on."""
        if not isinstance(reason, Crash):
            return self._leave()
        self._pool.close()
        return None

    def outside_view(self) -> RoleOverview:
        """Describe the group. On any thread: a lease is replaced, never changed."""
        lease, now = self._lease, self.clock.boottime()
        whole = lease.group.whole
        return RoleOverview(
            role=lease.node.role.value,
            group=self._group,
            node=lease.node.name,
            standing=standing_of(lease, now),
            lease_seconds=lease.seconds,
            held_for_seconds=lease.held_until_seconds - now if lease.is_held(now) else None,
            whole=None if whole is None else asdict(whole),
            nodes=tuple(self._node_overview(lease, member, now) for member in lease.group.members.values()),
        )

    def _node_overview(self, lease: Lease, member: Member, now: float) -> NodeOverview:
        is_me = member.node.name == lease.node.name
        _, since = lease.sightings.since_seconds.get(member.node.name, (0, now))
        return NodeOverview(
            name=member.node.name,
            standing=standing_of(lease, now) if is_me else standing_of_member(member),
            token=member.token,
            share=None if member.share is None else asdict(member.share.told),
            processes=member.node.processes,
            seconds_since_heard=0.0 if is_me else round(now - since, 3),
        )

    def describe_state(self) -> dict[str, object]:
        """See ``Actor``. What is ``seen`` from outside says the rest."""
        lease = self._lease
        share = lease.share
        return {
            "version": lease.group.version,
            "beat": lease.beat,
            "renewed_seconds_ago": round(self.clock.boottime() - self._began_at_seconds, 3),
            "waits_for_the_table": self._is_calling,
            "share_number": _number(share),
            "share_obeyed": lease.obeyed,
            "share_used": _number(self._granted),
            "share_held": None if share is None else asdict(share.held),
            "limits": asdict(lease.limits),
            "unable_seconds": round(self._step_down.unable_seconds(self._work, self.clock.boottime()), 3),
            "steps_down_after_seconds": self._step_down.seconds,
            "not_heard_of": sorted(lease.gone(self.clock.boottime())),
        }

    # --- the table ---

    def _renew(self) -> None:
        if self._is_calling:
            self._renews_at_once = True
            return
        if self._next_renewal is not None:
            self._next_renewal.cancel()  # or there would be one more after each renewal out of turn, for ever
        self._began_at_seconds = self.clock.boottime()
        self._call(_READ, self._table.read, self._group)

    def _call(self, label: object, function: Any, *args: object) -> None:
        self._is_calling = True
        self.run_blocking(self._pool, label, function, *args)

    def _write(self, attempt: int) -> None:
        now = self.clock.boottime()
        lease = self._lease
        gone = tuple(sorted(lease.gone(now)))
        lost = (lease.stored, lease.group.version) if lease.puts_back else None
        stepped_down = self._stepped_down(lease, now)
        self._lease, content = lease.renewal(now, steps_down=stepped_down is not None)
        label = _Write(content, attempt, gone, lost, stepped_down)
        self._call(label, self._table.write, self._group, record_of(content), lease.stored)

    def _stepped_down(self, lease: Lease, now: float) -> SteppedDown | None:
        """Say why this node steps down now; None: it does not."""
        successor = lease.successor(now) if self._step_down.is_over(self._work, now) else None
        if successor is None:
            return None
        return SteppedDown(self._step_down.unable_seconds(self._work, now), self._work.unavailable, successor)

    def handle_reply(self, label: Any, value: Any) -> None:
        """The table answered, or the lessee says that limits are kept to."""
        if isinstance(label, _Obey):
            self._asked(label.share, value)
            return
        self._is_calling = False
        if isinstance(label, _Write) and value == record_of(label.content):
            self._looked(label.content)
            self._news.renewed(self._lease, self.clock.boottime(), label.gone, label.lost, label.stepped_down)
            self._take_up()
            self._renew_later()
        elif self._read(value) and (not isinstance(label, _Write) or label.attempt < MAX_WRITES):
            self._write(label.attempt + 1 if isinstance(label, _Write) else 1)
        else:
            self._news.tell_state(self._lease, self.clock.boottime())
            self._renew_later()

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """The table did not answer."""
        self._is_calling = False
        if not isinstance(reason, Crash) or not isinstance(reason.exception, UnavailableError):
            raise reason.exception if isinstance(reason, Crash) else RuntimeError(str(reason))
        self._news.failed(self._lease, self.clock.boottime(), reason.exception)
        self._renew_later()

    def _read(self, record: RoleRecord | None) -> bool:
        """Look at the record; False where it can't be read."""
        try:
            group = group_in(record)
        except ValueError as error:
            self._news.unreadable(self._lease, self.clock.boottime(), str(error))
            return False
        self._news.read()
        self._looked(group)
        return True

    def _looked(self, group: Group) -> None:
        now = self.clock.boottime()
        before, self._lease = self._lease, self._lease.looked(group, now)
        me = self._lease.me
        self._work = Work() if me is None or me.token is None else self._lessee.work()
        self._step_down = self._step_down.looked(before, self._lease, self._work, now)
        if before.me is not None and self._lease.me is None:
            self._news.taken_out(self._lease, self.clock.boottime())
        share = self._lease.share
        if share is None and not (self._is_granted and self._granted is None):
            self._grant(None)  # before anything is lent again
        if share is not None and self._granted is not None and not self._granted.told.is_within(share.held):
            self._grant(share)  # what was lent more went to another node, and was lost
        self._lend()

    def _renew_later(self) -> None:
        interval = self._lease.seconds / RENEWALS_PER_LEASE
        if self._renews_at_once:
            self._renews_at_once = False
            self._renew()
            return
        if standing_of(self._lease, self.clock.boottime()) is Standing.WAITING:
            interval /= 4  # somebody is about to give back what it waits for
        pause = max(0.0, self._began_at_seconds + interval - self.clock.boottime())
        self._next_renewal = self.send_after(pause, _Renew())

    def handle_info(self, message: Any) -> Any:
        """It is time."""
        match message:
            case _Renew():
                self._renew()
            case _AskAgain(share):
                if _is_same(share, self._granted):
                    self._grant(self._granted)
            case _:
                return super().handle_info(message)
        return None

    # --- the lessee ---

    def _lend(self) -> None:
        """Pass on until when it is lent; after a crash that is left as it was, until it is known."""
        if self._lease.me is None or self._lease.held_until_seconds > -inf:
            self._was_over |= self.clock.boottime() >= self._held_until_seconds
            self._held_until_seconds = self._lease.held_until_seconds
            self._lessee.lend_until(self._held_until_seconds)

    def _take_up(self) -> None:
        """Grant the share that has just been lent, or was lent again."""
        share, me = self._lease.share, self._lease.me
        if not _is_same(share, self._granted) or self._was_over or not self._is_granted:
            self._grant(share)
        self._was_over = False
        if me is not None and me.token is None:
            self._lessee.release()
        self._news.tell_state(self._lease, self.clock.boottime())

    def _grant(self, share: Share | None) -> None:
        self._granted, self._is_granted = share, True
        self.send_requests(self._lessee.grant(self._lease.limits), _Obey(share))

    def _asked(self, asked: Share | None, replies: Sequence[Reply]) -> None:
        if any(reply.failure is not None for reply in replies):
            self.send_after(ASK_AGAIN_SECONDS, _AskAgain(asked))
            return
        share = self._lease.share
        if share is None or not share.is_same_order(asked):
            return
        self._lease = self._lease.obeys(share.number)
        if share.held != share.told:
            self._renew()  # so that the others get what it has given back

    # --- the end ---

    def _leave(self) -> Receiving:
        if self._is_calling:
            reply = yield Receive(lambda message: isinstance(message, Reply) and not isinstance(message.label, _Obey))
            if reply.failure is None:
                self._lease = self._seen(reply)
        for _ in range(MAX_WRITES):
            if self._lease.me is None:
                break
            left = self._lease.leave()
            self.run_blocking(self._pool, _LEAVE, self._table.write, self._group, record_of(left), self._lease.stored)
            reply = yield Receive(lambda message: isinstance(message, Reply) and message.label == _LEAVE)
            if reply.failure is not None:
                self._news.left(self._lease, is_known=False)
                break
            if reply.value == record_of(left):
                self._news.left(self._lease, is_known=True)
                break
            self._lease = self._seen(reply)
        self._pool.close()

    def _seen(self, reply: Reply) -> Lease:
        record: RoleRecord | None = reply.value
        try:
            group = group_in(record)
        except ValueError:
            return replace(self._lease, group=Group())
        return self._lease.looked(group, self.clock.boottime())


def _number(share: Share | None) -> int:
    """Return the number of a share, of which the first is 1."""
    return 0 if share is None else share.number


def _is_same(one: Share | None, other: Share | None) -> bool:
    return one is other if one is None else one.is_same_order(other)
