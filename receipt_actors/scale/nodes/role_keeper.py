"""The role keeper: keeps this node's place in its group, and sees to it that no more is used than the group lends.

It owns the lease (``domain.roles``): it renews it several times while it lasts, takes members for gone that are not
heard of, and confirms a smaller share when that is kept to. Whoever does the work looks at the limits that it is given,
and at until when they are held, before each receive and each request: a node that sleeps, or is cut off from the table,
begins nothing after its lease, whether or not this actor runs.

A node that stands by hands back what it still has in flight, for those who have a seat to take. One that is cut off
keeps it: the table that it does not reach is where claims are made, too. A record that was lost it puts back.

A node that could receive nothing for as long as its patience lasts (``domain.patience``) gives up its seat to one that
waits for it, and then stands by as any other.

It waits for the table on a thread, and nobody waits for it. When it is told to end it leaves the group, so that others
need not wait for its lease. A crash of it forgets since when others have not been heard of, and how often a seat was
given up; its successor finds its place in the table, and what is held stays held meanwhile. What people are told is in
``role_news``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, ClassVar

from receipt_actors.domain.limits import Share
from receipt_actors.domain.patience import Patience, Work
from receipt_actors.domain.ports import RoleRecord, RoleTable
from receipt_actors.domain.role_records import group_in, record_of
from receipt_actors.domain.roles import RENEWALS_PER_LEASE, Group, Lease, Member, Node
from receipt_actors.errors import UnavailableError
from receipt_actors.otp import Continue, Crash, ExitReason, GenServer, Receive, Receiving, Reply, Timer
from receipt_actors.scale.nodes.holding import Holding
from receipt_actors.scale.nodes.role_news import GivenUp, RoleNews, standing_of, standing_of_member
from receipt_actors.telemetry.incidents import INCIDENTS
from receipt_actors.telemetry.overview import NodeOverview, RoleOverview, Standing

ROLE_KEEPER = "role_keeper"
MAX_WRITES = 10  #: in a row that others were faster with; then the next renewal tries
ASK_AGAIN_SECONDS = 0.1  #: before asking an actor that is being restarted whether limits are kept to
_READ = "read"  # labels of what is asked of the table,
_LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class _Write:
    """Label of a renewal."""

    content: Group
    attempt: int
    gone: tuple[str, ...]  #: who is taken out by it
    lost: tuple[int, int] | None  #: what stood, and what is known, where a record that was lost is put back by it
    given_up: GivenUp | None  #: the seat of this node, by it


@dataclass(frozen=True, slots=True)
class _Obey:
    """Label of the question whether no more is used than this share allows."""

    share: Share | None


@dataclass(frozen=True, slots=True)
class _Renew:
    """To itself: it is time."""


@dataclass(frozen=True, slots=True)
class _AskAgain:
    """To itself: somebody whom to ask was not there."""

    share: Share | None


class RoleKeeper(GenServer):
    """See the module."""

    trap_exit: ClassVar[bool] = True

    def __init__(
        self, table: RoleTable, group: str, node: Node, lease_seconds: float, holding: Holding, patience: Patience
    ) -> None:
        self._table = table
        self._group = group
        self._holding = holding
        # Beats begin anywhere: a renewal of a keeper before this one, which comes late, is none of its own.
        self._lease = Lease(node, lease_seconds, beat=secrets.randbits(48))
        self._pool = self.system.new_blocking_pool(ROLE_KEEPER, 1)
        self._is_calling = False
        self._renews_at_once = False  # when the call under way is over
        self._began_at_seconds = -inf  # of ``clock.boottime``; of the last renewal
        self._next_renewal: Timer | None = None
        self._used: Share | None = None  # what is worked with
        self._is_used = False  # whether anybody has been told of it
        self._work = Work()  # as it was looked at last, while there is a seat
        self._patience = patience
        self._held_until_seconds = -inf  # likewise; as those who work have been told
        self._was_over = True  # the lease; those who work may have stopped, and wait to be told
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
            "share_used": _number(self._used),
            "share_held": None if share is None else asdict(share.held),
            "limits": asdict(lease.limits),
            "unable_seconds": round(self._patience.unable_seconds(self._work, self.clock.boottime()), 3),
            "patience_seconds": self._patience.seconds,
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
        lost = (lease.standing, lease.group.version) if lease.puts_back else None
        given_up = self._given_up(lease, now)
        self._lease, content = lease.renewal(now, yields=given_up is not None)
        label = _Write(content, attempt, gone, lost, given_up)
        self._call(label, self._table.write, self._group, record_of(content), lease.standing)

    def _given_up(self, lease: Lease, now: float) -> GivenUp | None:
        """Tell what is to be said if this node gives up its seat now; None: it keeps it."""
        successor = lease.successor(now) if self._patience.is_over(self._work, now) else None
        if successor is None:
            return None
        return GivenUp(self._patience.unable_seconds(self._work, now), self._work.unavailable, successor)

    def handle_reply(self, label: Any, value: Any) -> None:
        """The table answered, or somebody said that limits are kept to."""
        if isinstance(label, _Obey):
            self._asked(label.share, value)
            return
        self._is_calling = False
        if isinstance(label, _Write) and value == record_of(label.content):
            self._looked(label.content)
            self._news.renewed(self._lease, self.clock.boottime(), label.gone, label.lost, label.given_up)
            self._take_up()
            self._renew_later()
        elif self._read(value) and (not isinstance(label, _Write) or label.attempt < MAX_WRITES):
            self._write(label.attempt + 1 if isinstance(label, _Write) else 1)
        else:
            self._news.stands(self._lease, self.clock.boottime())
            self._renew_later()

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """The table did not answer."""
        self._is_calling = False
        if not isinstance(reason, Crash) or not isinstance(reason.exception, UnavailableError):
            raise reason.exception if isinstance(reason, Crash) else RuntimeError(str(reason))
        self._news.failed(self._lease, self.clock.boottime(), reason.exception)
        self._renew_later()

    def _read(self, record: RoleRecord | None) -> bool:
        """Look at what stands; False where it is nothing that could be gone on from."""
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
        self._work = Work() if me is None or me.token is None else self._holding.work()
        self._patience = self._patience.looked(before, self._lease, self._work, now)
        if before.me is not None and self._lease.me is None:
            self._news.taken_out(self._lease, self.clock.boottime())
        share = self._lease.share
        if share is None and not (self._is_used and self._used is None):
            self._use(None)  # before anything is lent again
        if share is not None and self._used is not None and not self._used.told.is_within(share.held):
            self._use(share)  # what was lent more went to another node, and was lost
        self._hold()

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
                if _is_same(share, self._used):
                    self._use(self._used)
            case _:
                return super().handle_info(message)
        return None

    # --- what is lent ---

    def _hold(self) -> None:
        """Pass on until when it is lent; what nobody has said yet, after a crash, is left as it was."""
        if self._lease.me is None or self._lease.held_until_seconds > -inf:
            self._was_over |= self.clock.boottime() >= self._held_until_seconds
            self._held_until_seconds = self._lease.held_until_seconds
            self._holding.hold(self._held_until_seconds)

    def _take_up(self) -> None:
        """Work with the share that has just been lent, or was lent again."""
        share, me = self._lease.share, self._lease.me
        if not _is_same(share, self._used) or self._was_over or not self._is_used:
            self._use(share)
        self._was_over = False
        if me is not None and me.token is None:
            self._holding.release()
        self._news.stands(self._lease, self.clock.boottime())

    def _use(self, share: Share | None) -> None:
        self._used, self._is_used = share, True
        self.send_requests(self._holding.use(self._lease.limits), _Obey(share))

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
            self.run_blocking(self._pool, _LEAVE, self._table.write, self._group, record_of(left), self._lease.standing)
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
