"""``Membership``: the actor that keeps this node's place in its group, and grants what the group lends to it.

It renews the lease (``domain.roles``) several times while it lasts, takes out members that are gone, and confirms a
smaller share once that is kept to. The ``Lessee`` looks at its limits, and until when they are lent, before each
receive and each request. So a node that sleeps, or is cut off from the table, begins nothing after its lease.

A node that stands by hands back what it has in flight, for the active ones to take. One that is cut off keeps it: the
table that it does not reach is where claims are made, too. A node that ends leaves the group, so that the others need
not wait for its lease. A crash forgets since when others have not been heard of, and how often the node stepped down.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, ClassVar, Protocol

from receipt_actors.domain.limits import Limits, LiveLimits, Share
from receipt_actors.domain.places import MAX_WRITES, Place, Read, Step, Wait, Write, is_same
from receipt_actors.domain.ports import RoleRecord, RoleTable
from receipt_actors.domain.roles import Group, Lease, Member, Node, Role, StepDown, Work, group_in, record_of
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
)
from receipt_actors.otp.tree import look_at
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    IN_FLIGHT,
    LEDGER_GATEWAY,
    InFlightStatus,
    ObeyLimits,
    ReleaseMessages,
)
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from receipt_actors.telemetry.overview import NodeOverview, NodeState, RoleOverview
from receipt_actors.telemetry.statistics import statistics_of

logger = logging.getLogger(__name__)

ROLE_TABLE = "role table"  #: the service that is unavailable while a node is cut off from it
MEMBERSHIP = "membership"
ASK_AGAIN_SECONDS = 0.1  #: before asking an actor that is being restarted whether limits are kept to
_LEAVE = "leave"  # label of the last write
#: the actors that keep to the limits of a process
LIMITED: tuple[Name, ...] = (IN_FLIGHT, APP_STORE_GATEWAY, LEDGER_GATEWAY)


class Lessee(Protocol):
    """What works with what the group lends; see ``domain.places.Holder``."""

    def grant(self, limits: Limits) -> Sequence[tuple[Name, object]]:
        """Apply the limits to new work. Return the actors to ask whether no more is in use, each with its question."""

    def lend_until(self, seconds: float) -> None: ...

    def release(self) -> None: ...

    def work(self) -> Work: ...


class ProcessLessee:
    """A node that is one process."""

    def __init__(self, limits: LiveLimits, actors: ActorSystem) -> None:
        self._limits = limits
        self._actors = actors
        limits.change(limits.whole.nothing)
        limits.held_until_seconds = -inf

    def grant(self, limits: Limits) -> Sequence[tuple[Name, object]]:
        self._limits.change(limits)
        return [(name, ObeyLimits()) for name in LIMITED]

    def lend_until(self, seconds: float) -> None:
        self._limits.held_until_seconds = seconds

    def release(self) -> None:
        release(self._actors)

    def work(self) -> Work:
        in_flight = self._actors.whereis(IN_FLIGHT)
        status = None if in_flight is None else look_at(in_flight, 0).view
        answered = statistics_of(self._actors).answered
        if not isinstance(status, InFlightStatus):  # it is being started
            return Work(answered)
        return Work(answered, status.unable_seconds, tuple(sorted(status.troubles)))


def release(actors: ActorSystem) -> None:
    """Have this process hand back what is in flight."""
    in_flight = actors.whereis(IN_FLIGHT)
    if in_flight is not None:
        in_flight.cast(ReleaseMessages())


@dataclass(slots=True, eq=False)
class _Obey:
    # Label of the questions whether no more is used than this share allows; as a message to itself: ask again.
    share: Share | None
    unanswered: int
    has_failed: bool = False


class Membership(GenServer):
    """See the module. It is the ``Holder`` of its ``Place``."""

    trap_exit: ClassVar[bool] = True

    def __init__(
        self, table: RoleTable, group: str, node: Node, lease_seconds: float, lessee: Lessee, step_down: StepDown
    ) -> None:
        self._table = table
        self._group = group
        self._lessee = lessee
        # Beats begin anywhere: a late renewal by an actor before this one must not look like its own.
        self._place = Place(Lease(node, lease_seconds, beat=secrets.randbits(48)), step_down, self)
        self._pool = self.system.new_blocking_pool(MEMBERSHIP, 1)
        self._next_renewal: Timer | None = None
        # The latest reports: each is made once, and not with every renewal.
        self._told_state: NodeState | None = None
        self._told_fault: str | None = None  # of the record
        self._is_failing = False  # the table has not answered since the last renewal
        self._is_outage_told = False
        self.lend_until, self.release, self.work = lessee.lend_until, lessee.release, lessee.work

    def init(self) -> Continue:
        return Continue()

    def handle_continue(self, term: Any) -> None:
        self._do(self._place.renew(self.clock.boottime()))

    def terminate(self, reason: ExitReason) -> Receiving | None:
        if not isinstance(reason, Crash):
            return self._leave()
        self._pool.close()
        return None

    def outside_view(self) -> RoleOverview:
        lease, now = self._place.lease, self.clock.boottime()  # on any thread: a lease is replaced, never changed
        whole = lease.group.whole
        return RoleOverview(
            role=lease.node.role.value,
            group=self._group,
            node=lease.node.name,
            state=state_of_node(lease, now),
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
            state=state_of_node(lease, now) if is_me else state_of_member(member),
            token=member.token,
            share=None if member.share is None else asdict(member.share.told),
            processes=member.node.processes,
            seconds_since_heard=0.0 if is_me else round(now - since, 3),
        )

    def describe_state(self) -> dict[str, object]:
        place, now = self._place, self.clock.boottime()
        lease, share = place.lease, place.lease.share
        return {
            "version": lease.group.version,
            "renewed_seconds_ago": round(now - place.began_at_seconds, 3),
            "waits_for_the_table": place.is_calling,
            "share_number": _number(share),
            "share_obeyed": lease.obeyed,
            "share_used": _number(place.granted),
            "limits": asdict(lease.limits),
            "unable_seconds": round(place.step_down.unable_seconds(place.work, now), 3),
            "steps_down_after_seconds": place.step_down.seconds,
            "not_heard_of": sorted(lease.gone(now)),
        }

    # --- the table ---

    def _do(self, step: Step) -> None:
        match step:
            case Read():
                if self._next_renewal is not None:
                    self._next_renewal.cancel()  # or there would be one more after each renewal out of turn, for ever
                self.run_blocking(self._pool, step, self._table.read, self._group)
            case Write():
                record = record_of(step.content)
                self.run_blocking(self._pool, step, self._table.write, self._group, record, step.stored)
            case Wait(seconds):
                self._next_renewal = self.send_after(seconds, step)

    def handle_reply(self, label: Any, value: Any) -> None:
        now = self.clock.boottime()
        if isinstance(label, _Obey):
            self._answered(label, has_failed=False)
        elif isinstance(label, Write) and value == record_of(label.content):
            step = self._place.written(label, now)
            self._is_failing = False
            self._tell_of(label)
            self._tell_state()
            self._do(step)
        else:
            self._do(self._found(value, label if isinstance(label, Write) else None, now))

    def _found(self, record: RoleRecord | None, after: Write | None, now: float) -> Step:
        was_in = self._place.lease.me is not None
        try:
            step = self._place.found(group_in(record), now, after)
        except ValueError as error:
            self._tell_fault(str(error))
            step = self._place.failed(now)
        else:
            self._told_fault = None
            if was_in and self._place.lease.me is None:
                self._tell("the others have taken this node for gone: it joins again")
        if not isinstance(step, Write):
            self._tell_state()
        return step

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        if isinstance(label, _Obey):
            self._answered(label, has_failed=True)
            return
        if not isinstance(reason, Crash) or not isinstance(reason.exception, UnavailableError):
            raise reason.exception if isinstance(reason, Crash) else RuntimeError(str(reason))
        level = logging.DEBUG if self._is_failing else logging.WARNING  # an outage may be long
        logger.log(level, "the role of this node could not be renewed: %s", reason.exception)
        self._is_failing = True
        self._tell_state()
        self._do(self._place.failed(self.clock.boottime()))

    def handle_info(self, message: Any) -> Any:
        match message:
            case Wait():  # it is over
                self._do(self._place.renew(self.clock.boottime()))
            case _Obey(share=share):
                if is_same(share, self._place.granted):
                    self.grant(share, self._place.lease.limits)
            case _:
                return super().handle_info(message)
        return None

    def grant(self, share: Share | None, limits: Limits) -> None:
        requests = self._lessee.grant(limits)
        label = _Obey(share, len(requests))
        for name, request in requests:
            self.send_request(name, request, label)

    def _answered(self, label: _Obey, *, has_failed: bool) -> None:
        label.unanswered -= 1
        label.has_failed |= has_failed
        if label.unanswered:
            return
        if label.has_failed:
            self.send_after(ASK_AGAIN_SECONDS, label)
        else:
            self._do(self._place.obeyed(label.share, self.clock.boottime()))

    # --- log and incidents ---

    def _tell_of(self, write: Write) -> None:
        """Tell what a renewal has done for all nodes: it was carried out, so no other node tells it."""
        lease = self._place.lease
        if write.lost is not None:
            stood, known = write.lost
            found = f"only version {stood}" if stood else "no record"
            words = (
                f"the table of roles had {found} of group {self._group!r}, though version {known} is known: it was "
                f"lost, and is put back as version {lease.group.version}; expected that no other program writes there"
            )
            self._tell(words, IncidentKind.CONFIGURATION)
        for name in write.gone:
            words = f"node {name} has not been heard of for a lease: it is out of the group"
            self._tell(words, IncidentKind.NODE_LOST, subject=name)
        if (why := write.stepped_down) is not None:
            words = (
                f"node {lease.node.name} steps down: for {why.unable_seconds:.1f} s nothing could be received "
                f"({', '.join(why.unavailable)} unavailable); {why.successor} takes over"
            )
            self._tell(words, IncidentKind.STEPPED_DOWN)

    def _tell_fault(self, fault: str) -> None:
        if fault != self._told_fault:
            self._told_fault = fault
            words = (
                f"the record of group {self._group!r} in the table of roles can't be read: {fault}; expected that no "
                "other program writes it, and the same version of this one everywhere: delete it while no node runs"
            )
            self._tell(words, IncidentKind.CONFIGURATION, level=logging.ERROR)

    def _tell_state(self) -> None:
        lease, before = self._place.lease, self._told_state
        state = state_of_node(lease, self.clock.boottime())
        has_no_place_yet = state is NodeState.CUT_OFF and before is None
        if state is before or (has_no_place_yet and not self._is_failing):
            return
        self._told_state, kind, subject = state, IncidentKind.ROLE, lease.node.name
        if state is NodeState.CUT_OFF:
            kind, subject, self._is_outage_told = IncidentKind.OUTAGE, ROLE_TABLE, True
        elif self._is_outage_told:
            kind, subject, self._is_outage_told = IncidentKind.RECOVERED, ROLE_TABLE, False
        me, number = f"node {lease.node.name} of group {self._group}", len(lease.group.members)
        nodes = "1 node" if number == 1 else f"{number} nodes"
        match state:
            case NodeState.ACTIVE:
                token = None if lease.me is None else lease.me.token
                words = f"{me} is active ({lease.node.role}, token {token}, {nodes})"
            case NodeState.WAITING:
                words = f"{me} waits for its share of the limits ({nodes})"
            case NodeState.STANDBY:
                active = ", ".join(name for name, member in lease.group.members.items() if member.token is not None)
                words = f"{me} stands by for {active}{_why_it_stands_by(lease)}"
            case NodeState.CUT_OFF:
                words = f"{me} is cut off from the table of roles: its lease is over, it begins nothing new"
                if has_no_place_yet:
                    words = f"{me} has not found its place yet: the table of roles does not answer"
        is_worse = state is NodeState.CUT_OFF or before is NodeState.ACTIVE
        self._tell(words, kind, subject, logging.WARNING if is_worse else logging.INFO)

    def _tell(
        self,
        words: str,
        kind: IncidentKind = IncidentKind.ROLE,
        subject: str | None = None,
        level: int = logging.WARNING,
    ) -> None:
        name, state = self._place.lease.node.name, state_of_node(self._place.lease, self.clock.boottime())
        facts = {"event": kind.value, "group": self._group, "node": name, "state": state.value}
        logger.log(level, "%s", words, extra=facts)
        self.cast(INCIDENTS, Noticed(kind, subject or name, words))

    # --- the end ---

    def _leave(self) -> Receiving:
        lease = self._place.lease
        if self._place.is_calling:
            reply = yield Receive(lambda message: isinstance(message, Reply) and not isinstance(message.label, _Obey))
            if reply.failure is None:
                lease = self._seen(lease, reply)
        for _ in range(MAX_WRITES):
            if lease.me is None:
                break
            left = record_of(lease.leave())
            self.run_blocking(self._pool, _LEAVE, self._table.write, self._group, left, lease.stored)
            reply = yield Receive(lambda message: isinstance(message, Reply) and message.label == _LEAVE)
            if reply.failure is not None or reply.value == left:
                if reply.failure is None:
                    logger.info("node %s has left group %s", lease.node.name, self._group)
                else:
                    logger.warning("this node could not leave its group: the others wait for its lease to end")
                break
            lease = self._seen(lease, reply)
        self._pool.close()

    def _seen(self, lease: Lease, reply: Reply) -> Lease:
        try:
            group = group_in(reply.value)
        except ValueError:
            return replace(lease, group=Group())
        return lease.looked(group, self.clock.boottime())


def state_of_node(lease: Lease, now_seconds: float) -> NodeState:
    """Return what the node that has this lease may do."""
    me = lease.me
    return NodeState.CUT_OFF if me is None or now_seconds >= lease.held_until_seconds else state_of_member(me)


def state_of_member(member: Member) -> NodeState:
    """Return what a node may do by the record."""
    if member.token is None:
        return NodeState.STANDBY
    return NodeState.WAITING if member.share is None else NodeState.ACTIVE


def _why_it_stands_by(lease: Lease) -> str:
    # An operator expects all nodes to work where their role is load-balanced.
    if lease.node.role is not Role.LOAD_BALANCED:
        return ""
    others = [member.node for member in lease.group.members.values() if member.node.role is not Role.LOAD_BALANCED]
    if others:
        return f": one works at a time while {others[0].name} is here, whose role is {others[0].role}"
    return ": the limits that are shared are too small for one more node"


def _number(share: Share | None) -> int:
    return 0 if share is None else share.number  # the first one has 1
