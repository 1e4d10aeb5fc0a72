"""The log and the incidents of a node's place in its group: each line once, and not with every renewal."""

from __future__ import annotations

import logging
from collections.abc import Callable

from receipt_actors.domain.places import Write
from receipt_actors.domain.roles import Lease, Member, Role
from receipt_actors.telemetry.incidents import IncidentKind, Noticed
from receipt_actors.telemetry.overview import NodeState

logger = logging.getLogger(__name__)

ROLE_TABLE = "role table"  #: the service that is unavailable while a node is cut off from it


def state_of_node(lease: Lease, now_seconds: float) -> NodeState:
    """Return what the node that has this lease may do."""
    me = lease.me
    return NodeState.CUT_OFF if me is None or now_seconds >= lease.held_until_seconds else state_of_member(me)


def state_of_member(member: Member) -> NodeState:
    """Return what a node may do by the record."""
    if member.token is None:
        return NodeState.STANDBY
    return NodeState.WAITING if member.share is None else NodeState.ACTIVE


class RoleNews:
    """Log and report what happened, where it is news. ``notice`` gets the incidents."""

    def __init__(self, group: str, notice: Callable[[Noticed], object]) -> None:
        self._group = group
        self._notice = notice
        self._state: NodeState | None = None  # as it was told last
        self._is_failing = False  # the table has not answered since the last renewal
        self._is_outage_told = False
        self._fault: str | None = None  # of the record; as it was told last

    def renewed(self, lease: Lease, now_seconds: float, write: Write) -> None:
        """Tell what this renewal has done for all: it was carried out, so no other node says it."""
        self._is_failing = False
        if write.lost is not None:
            stood, known = write.lost
            found = f"only version {stood}" if stood else "no record"
            words = (
                f"the table of roles had {found} of group {self._group!r}, though version {known} is known: it was "
                f"lost, and is put back as version {lease.group.version}; expected that no other program writes there"
            )
            self._tell(lease, now_seconds, words, logging.WARNING, IncidentKind.CONFIGURATION)
        for name in write.gone:
            words = f"node {name} has not been heard of for a lease: it is out of the group"
            self._tell(lease, now_seconds, words, logging.WARNING, IncidentKind.NODE_LOST, name)
        if (why := write.stepped_down) is not None:
            words = (
                f"node {lease.node.name} steps down: for {why.unable_seconds:.1f} s nothing could be received "
                f"({', '.join(why.unavailable)} unavailable); {why.successor} takes over"
            )
            self._tell(lease, now_seconds, words, logging.WARNING, IncidentKind.STEPPED_DOWN, lease.node.name)

    def failed(self, lease: Lease, now_seconds: float, error: Exception) -> None:
        level = logging.DEBUG if self._is_failing else logging.WARNING  # an outage may be long
        logger.log(level, "the role of this node could not be renewed: %s", error)
        self._is_failing = True
        self.tell_state(lease, now_seconds)

    def unreadable(self, lease: Lease, now_seconds: float, fault: str) -> None:
        """Tell that the record can't be read, once for each fault."""
        if fault == self._fault:
            return
        self._fault = fault
        words = (
            f"the record of group {self._group!r} in the table of roles can't be read: {fault}; expected that no other "
            "program writes it, and the same version of this one everywhere: delete it while no node runs"
        )
        self._tell(lease, now_seconds, words, logging.ERROR, IncidentKind.CONFIGURATION)

    def read(self) -> None:
        """Note that the record could be read: the same fault would be told again."""
        self._fault = None

    def taken_out(self, lease: Lease, now_seconds: float) -> None:
        self._tell(lease, now_seconds, "the others have taken this node for gone: it joins again", logging.WARNING)

    def tell_state(self, lease: Lease, now_seconds: float) -> None:
        """Tell whether this node is active, waits, stands by or is cut off, where that is news."""
        state = state_of_node(lease, now_seconds)
        has_no_place_yet = state is NodeState.CUT_OFF and self._state is None
        if state is self._state or (has_no_place_yet and not self._is_failing):
            return
        before, self._state = self._state, state
        kind = IncidentKind.ROLE
        me = f"node {lease.node.name} of group {self._group}"
        match state:
            case NodeState.ACTIVE:
                token = None if lease.me is None else lease.me.token
                words = f"{me} is active ({lease.node.role}, token {token}, {_counted(lease)})"
            case NodeState.WAITING:
                words = f"{me} waits for its share of the limits ({_counted(lease)})"
            case NodeState.STANDBY:
                active = ", ".join(name for name, member in lease.group.members.items() if member.token is not None)
                words = f"{me} stands by for {active}{_why_it_stands_by(lease)}"
            case NodeState.CUT_OFF:
                words = f"{me} is cut off from the table of roles: its lease is over, it begins nothing new"
                if has_no_place_yet:
                    words = f"{me} has not found its place yet: the table of roles does not answer"
                kind, self._is_outage_told = IncidentKind.OUTAGE, True
        if self._is_outage_told and state is not NodeState.CUT_OFF:
            kind, self._is_outage_told = IncidentKind.RECOVERED, False
        is_worse = state is NodeState.CUT_OFF or (before is NodeState.ACTIVE and state is not NodeState.ACTIVE)
        self._tell(lease, now_seconds, words, logging.WARNING if is_worse else logging.INFO, kind)

    def left(self, lease: Lease, *, is_known: bool) -> None:
        if is_known:
            logger.info("node %s has left group %s", lease.node.name, self._group)
        else:
            logger.warning("this node could not leave its group: the others wait for its lease to end")

    def _tell(
        self,
        lease: Lease,
        now_seconds: float,
        words: str,
        level: int,
        kind: IncidentKind = IncidentKind.ROLE,
        subject: str | None = None,
    ) -> None:
        state = state_of_node(lease, now_seconds)
        facts = {"event": kind.value, "group": self._group, "node": lease.node.name, "state": state.value}
        logger.log(level, "%s", words, extra=facts)
        if subject is None:
            subject = ROLE_TABLE if kind in (IncidentKind.OUTAGE, IncidentKind.RECOVERED) else lease.node.name
        self._notice(Noticed(kind, subject, words))


def _counted(lease: Lease) -> str:
    number = len(lease.group.members)
    return "1 node" if number == 1 else f"{number} nodes"


def _why_it_stands_by(lease: Lease) -> str:
    # An operator expects all nodes to work where their role is load-balanced.
    if lease.node.role is not Role.LOAD_BALANCED:
        return ""
    others = [member.node for member in lease.group.members.values() if member.node.role is not Role.LOAD_BALANCED]
    if others:
        return f": one works at a time while {others[0].name} is here, whose role is {others[0].role}"
    return ": the limits that are shared are too small for one more node"
