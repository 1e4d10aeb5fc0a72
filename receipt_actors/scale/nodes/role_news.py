"""The log and the incidents of a node's role: each line once, and not with every renewal.

``RoleNews`` knows what was told last. It is given what happened, and the lease as it is then, and decides nothing else.
A successor of the keeper that had it begins anew, and tells once more where this node stands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from receipt_actors.domain.roles import Lease, Member, Role, SteppedDown
from receipt_actors.telemetry.incidents import IncidentKind, Noticed
from receipt_actors.telemetry.overview import Standing

logger = logging.getLogger(__name__)

ROLE_TABLE = "role table"  #: what is said to be unavailable while a node is cut off from it


def standing_of(lease: Lease, now_seconds: float) -> Standing:
    """Say what the node that has this lease may do."""
    me = lease.me
    return Standing.CUT_OFF if me is None or now_seconds >= lease.held_until_seconds else standing_of_member(me)


def standing_of_member(member: Member) -> Standing:
    """Say what a node may do by the record, as far as others know."""
    if member.token is None:
        return Standing.STANDBY
    return Standing.WAITING if member.share is None else Standing.ACTIVE


class RoleNews:
    """See the module. ``notice`` gets the incidents."""

    def __init__(self, group: str, notice: Callable[[Noticed], object]) -> None:
        self._group = group
        self._notice = notice
        self._standing: Standing | None = None  # as was told last
        self._is_failing = False  # since a call was not answered nothing has been renewed
        self._is_outage_told = False  # that the table does not answer
        self._fault: str | None = None  # of the record; as was told last

    def renewed(
        self,
        lease: Lease,
        now_seconds: float,
        gone: Iterable[str],
        lost: tuple[int, int] | None,
        stepped_down: SteppedDown | None = None,
    ) -> None:
        """Tell what a renewal has done for all: of all nodes only the one that did so says it.

        It has taken out the nodes ``gone``; where it has put a record back that was ``lost``, that is the version that
        stood and the one that was known.
        """
        self._is_failing = False
        if lost is not None:
            stood, known = lost
            found = f"only version {stood}" if stood else "no record"
            words = (
                f"the table of roles had {found} of group {self._group!r}, though version {known} is known: it was "
                f"lost, and is put back as version {lease.group.version}; expected that nobody else writes there"
            )
            self._tell(lease, now_seconds, words, logging.WARNING, IncidentKind.CONFIGURATION)
        for name in gone:
            words = f"node {name} has not been heard of for a lease: it is out of the group"
            self._tell(lease, now_seconds, words, logging.WARNING, IncidentKind.NODE_LOST, name)
        if stepped_down is not None:
            words = (
                f"node {lease.node.name} steps down: for {stepped_down.unable_seconds:.1f} s nothing could be "
                f"received ({', '.join(stepped_down.unavailable)} unavailable); {stepped_down.successor} takes over"
            )
            self._tell(lease, now_seconds, words, logging.WARNING, IncidentKind.SEAT_GIVEN_UP, lease.node.name)

    def failed(self, lease: Lease, now_seconds: float, error: Exception) -> None:
        """Tell that the table does not answer: in full the first time, for an outage may be long."""
        level = logging.DEBUG if self._is_failing else logging.WARNING
        logger.log(level, "the role of this node could not be renewed: %s", error)
        self._is_failing = True
        self.tell_state(lease, now_seconds)

    def unreadable(self, lease: Lease, now_seconds: float, fault: str) -> None:
        """Tell that the record is none, once for each fault."""
        if fault == self._fault:
            return
        self._fault = fault
        words = (
            f"the record of group {self._group!r} in the table of roles can't be read: {fault}; expected that no other "
            "program writes it, and the same version of this one everywhere: delete it while no node runs"
        )
        self._tell(lease, now_seconds, words, logging.ERROR, IncidentKind.CONFIGURATION)

    def read(self) -> None:
        """Note that the record is one: the same fault would be told again."""
        self._fault = None

    def taken_out(self, lease: Lease, now_seconds: float) -> None:
        self._tell(lease, now_seconds, "the others have taken this node for gone: it joins again", logging.WARNING)

    def tell_state(self, lease: Lease, now_seconds: float) -> None:
        """Tell whether this node is active, waits, stands by or is cut off, where that is news."""
        standing = standing_of(lease, now_seconds)
        has_no_place_yet = standing is Standing.CUT_OFF and self._standing is None
        if standing is self._standing or (has_no_place_yet and not self._is_failing):
            return
        before, self._standing = self._standing, standing
        kind = IncidentKind.ROLE
        me = f"node {lease.node.name} of group {self._group}"
        match standing:
            case Standing.ACTIVE:
                token = None if lease.me is None else lease.me.token
                words = f"{me} is active ({lease.node.role}, token {token}, {_counted(lease)})"
            case Standing.WAITING:
                words = f"{me} waits for its share of the limits ({_counted(lease)})"
            case Standing.STANDBY:
                active = ", ".join(name for name, member in lease.group.members.items() if member.token is not None)
                words = f"{me} stands by for {active}{_why_it_stands_by(lease)}"
            case Standing.CUT_OFF:
                words = f"{me} is cut off from the table of roles: its lease is over, it begins nothing new"
                if has_no_place_yet:
                    words = f"{me} has not found its place yet: the table of roles does not answer"
                kind, self._is_outage_told = IncidentKind.OUTAGE, True
        if self._is_outage_told and standing is not Standing.CUT_OFF:
            kind, self._is_outage_told = IncidentKind.RECOVERED, False
        is_worse = standing is Standing.CUT_OFF or (before is Standing.ACTIVE and standing is not Standing.ACTIVE)
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
        standing = standing_of(lease, now_seconds)
        facts = {"event": kind.value, "group": self._group, "node": lease.node.name, "standing": standing.value}
        logger.log(level, "%s", words, extra=facts)
        if subject is None:
            subject = ROLE_TABLE if kind in (IncidentKind.OUTAGE, IncidentKind.RECOVERED) else lease.node.name
        self._notice(Noticed(kind, subject, words))


def _counted(lease: Lease) -> str:
    number = len(lease.group.members)
    return "1 node" if number == 1 else f"{number} nodes"


def _why_it_stands_by(lease: Lease) -> str:
    """Return what an operator would not expect: that a node stands by though all were to work."""
    if lease.node.role is not Role.LOAD_BALANCED:
        return ""
    others = [member.node for member in lease.group.members.values() if member.node.role is not Role.LOAD_BALANCED]
    if others:
        return f": one works at a time while {others[0].name} is here, whose role is {others[0].role}"
    return ": the limits that are shared are too small for one more node"
