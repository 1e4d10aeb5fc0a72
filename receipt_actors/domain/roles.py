"""Roles: how nodes that share one record of a table agree on which of them works. Pure.

A *node* is one command, with one process or several; a *group* is the nodes that share limits. Each node rewrites the
group's record every few seconds, on condition that no other node has meanwhile: they talk to each other in no other
way.

**Active and standby.** Members are active in the order of joining: one of ``active-standby``, as many of
``load-balanced`` as the limits have parts for. Each active member has a share of the whole (``Division``): in no
version of the record do shares sum up to more. The whole is the least that the settings of any node say, for requests
to the ledger and Apple's rate. What is in flight is about a node's own memory, and is not shared; nor are requests to
Apple at once, unless the settings of an active node name a number.

**Leases.** A node may use its share for ``seconds`` from the moment at which it *sent* its last renewal (``Lease``).
The others wait longer: they take a member out whose beat stands still for ``EXPIRY_FACTOR`` times its lease
(``Sightings``). Each node uses its own clock, which never goes back and goes on while the machine is suspended
(``boottime``, on Linux). Wall clocks are never compared.

**A lost record** (deleted, or replaced by an older copy) is put back by the node that looks first, as that node knows
it: all members keep their shares. What has moved since the version that it knows may be held twice, until all have
looked once more. Beats were lost as well, so no member counts as gone. The version leaps (``LEAP``) above all that
others may know, so that no write under way fits by chance.

**Stepping down.** An active node that can receive nothing (``StepDown``) goes to the end of the line, if the next one
has been heard of lately.

**Fencing.** An active member has a token: the version of the record that made it active. Its successor has a higher
one. A write on condition of an old version is refused, however late it arrives. After a loss, a token below a known
version is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import Any

from receipt_actors.domain.limits import Division, Limits, Share, confirmed, divide
from receipt_actors.domain.ports import RoleRecord
from receipt_actors.domain.values import is_name

#: How much longer than the lease a beat stands still before its node is gone: clocks may run apart by that.
EXPIRY_FACTOR = 1.05
#: In how many lease times a node that is gone has been replaced, at most: two renewals, the wait, and room for calls.
TAKEOVER_FACTOR = 1.5
RENEWALS_PER_LEASE = 5  #: how often a lease is renewed while it lasts
LEAP = 1_000_000  #: between versions where a record was lost: more than any node may have missed in hours
LONGEST_LEASE_SECONDS = 300  #: or no node would ever take over from one that is gone
STEP_DOWN_LEASES = 1.2  #: for so many leases an active node may receive nothing at first; a hiccup is over by then
RECEIVE_SECONDS = 2.0  #: beside its long poll, after which a receive has shown that the queue is back
LONGEST_STEP_DOWN_SECONDS = 3600.0
RECORD_SCHEMA = 1  #: of what ``record_of`` writes
MOST = 2**63 - 1  #: that a number in a record may be


class Role(StrEnum):
    ALONE = "alone"  #: it knows of no other
    ACTIVE_STANDBY = "active-standby"  #: one works, the others wait to take over
    LOAD_BALANCED = "load-balanced"  #: all work, and share the limits


@dataclass(frozen=True, slots=True)
class Node:
    name: str  #: unique, also among nodes that were started before in the same place
    role: Role
    limits: Limits  #: what its settings say
    processes: int = 1  #: each of which needs a part of its share
    shares_app_store_concurrency: bool = False  #: whether that limit is of all nodes together

    def due(self, part: Limits, *, is_own: bool) -> Limits:
        """Return the node's share of an equal part; ``is_own``: requests to Apple at once are not shared."""
        own = self.limits.app_store_concurrency
        app_store = own if is_own else min(part.app_store_concurrency, own)
        return replace(part, max_in_flight=self.limits.max_in_flight, app_store_concurrency=app_store)


@dataclass(frozen=True, slots=True)
class Member:
    node: Node
    joined: int  #: the version of the record in which it came, or stepped down: the order of the line
    beat: int  #: another one with each of its renewals
    lease_seconds: float  #: for how long it counts on what it is lent
    token: int | None = None  #: the version of the record that made it active; None: it stands by
    share: Share | None = None  #: None: it stands by, or nothing is free for it yet


@dataclass(frozen=True, slots=True)
class Group:
    """The record. Each of its methods returns the next version."""

    version: int = 0
    members: Mapping[str, Member] = field(default_factory=dict)

    def renewed(
        self,
        node: Node,
        beat: int,
        lease_seconds: float,
        *,
        obeyed: int | None = None,
        gone: frozenset[str] = frozenset(),
        steps_down: bool = False,
    ) -> Group:
        """Let a node join, or renew its lease.

        Args:
            node: which.
            beat: of this renewal; no other one has it.
            lease_seconds: for how long the node counts on its share, from now on.
            obeyed: the number of the share that the node keeps to.
            gone: members to take out.
            steps_down: whether the node goes to the end of the line.
        """
        version = self.version + 1
        members = {name: member for name, member in self.members.items() if name not in gone or name == node.name}
        member = members.get(node.name) or Member(node, version, beat, lease_seconds)
        share = member.share
        if share is not None and share.number == obeyed:
            share = confirmed(share)
        member = replace(member, node=node, beat=beat, lease_seconds=lease_seconds, share=share)
        members[node.name] = replace(member, joined=version, token=None) if steps_down else member
        return Group(version, _divided(members, version))

    def put_back(self, beat: int) -> Group:
        """Return the group that puts back a lost record. With new beats no member is gone before it was heard of."""
        members = {name: replace(member, beat=beat) for name, member in self.members.items()}
        return Group(self.version + LEAP, members)

    def known_from(self, known: Group) -> Group:
        """Remove wrong tokens: of known versions, or older ones, which gave that member another one, or none."""
        members = {}
        for name, member in self.members.items():
            before = known.members.get(name)
            is_right = member.token is None or member.token > known.version
            is_right = is_right or (before is not None and before.token == member.token)
            members[name] = member if is_right else replace(member, token=None)
        return Group(self.version, members)

    def without(self, name: str) -> Group:
        """Let a node leave that uses nothing any more."""
        version = self.version + 1
        return Group(version, _divided({other: it for other, it in self.members.items() if other != name}, version))

    @property
    def whole(self) -> Limits | None:
        """What the active members may use together; None: no member is active."""
        active = [member.node for member in self.members.values() if member.token is not None]
        return _whole(self.members, active) if active else None


def _divided(members: Mapping[str, Member], version: int) -> Mapping[str, Member]:
    """Choose the active members, in the order of joining, and divide the whole among them."""
    if not members:
        return members
    in_order = sorted(members, key=lambda name: members[name].joined)
    active = in_order[: _most_active(members)]
    nodes = [members[name].node for name in sorted(active)]
    whole = _whole(members, nodes)
    is_own = not any(node.shares_app_store_concurrency for node in nodes)
    due = {
        node.name: node.due(part, is_own=is_own) for node, part in zip(nodes, divide(whole, len(nodes)), strict=True)
    }
    standing_by = frozenset(in_order) - frozenset(active)
    # A share's number is that of the version which lends it: no other one has it, but where a record was lost.
    division = Division(whole, standing_by=standing_by, number=version - 1, due=due)
    division, _ = division.found({name: member.share for name, member in members.items()})
    return {
        name: replace(
            members[name],
            token=(members[name].token or version) if name in active else None,
            share=division.shares[name],
        )
        for name in in_order
    }


def _whole(members: Mapping[str, Member], active: Sequence[Node]) -> Limits:
    everybody = [member.node.limits for member in members.values()]
    rates = [each.app_store_rate_per_second for each in everybody]
    own = sum(node.limits.app_store_concurrency for node in active if not node.shares_app_store_concurrency)
    common = [node.limits.app_store_concurrency for node in active if node.shares_app_store_concurrency]
    return Limits(
        sum(node.limits.max_in_flight for node in active),
        min(each.ledger_concurrency for each in everybody),
        min(common, default=own),
        min((rate for rate in rates if rate is not None), default=None),
    )


def _most_active(members: Mapping[str, Member]) -> int:
    nodes = [member.node for member in members.values()]
    if any(node.role is not Role.LOAD_BALANCED for node in nodes):
        return 1
    parts = [node.limits.ledger_concurrency for node in nodes]
    parts += [node.limits.app_store_concurrency for node in nodes if node.shares_app_store_concurrency]
    return max(1, min(parts) // max(node.processes for node in nodes))


@dataclass(frozen=True, slots=True)
class Sightings:
    """Since when the beat of each member has stood still, as one node sees it, by its own clock."""

    lease_seconds: float  #: of who looks
    since_seconds: Mapping[str, tuple[int, float]] = field(default_factory=dict)  #: beat, and when it was seen first
    looked_at_seconds: float = -inf

    def looked(self, group: Group, now_seconds: float) -> Sightings:
        # A node that could not look for a while begins anew: in an outage of the table no member is gone.
        known = self.since_seconds if self.are_fresh(now_seconds) else {}
        since = {}
        for name, member in group.members.items():
            beat, seconds = known.get(name, (None, now_seconds))
            since[name] = (member.beat, seconds if beat == member.beat else now_seconds)
        return Sightings(self.lease_seconds, since, now_seconds)

    def are_fresh(self, now_seconds: float) -> bool:
        return now_seconds - self.looked_at_seconds <= self.lease_seconds / 2

    def gone(self, group: Group, now_seconds: float) -> frozenset[str]:
        """Return the members that have not been heard of for longer than their leases."""
        return frozenset(
            name
            for name, member in group.members.items()
            if now_seconds - self.since_seconds[name][1] >= member.lease_seconds * EXPIRY_FACTOR
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """What one node may count on, and until when. Each method returns the next one."""

    node: Node
    seconds: float
    group: Group = Group()  #: as it was read or written last, or is to be put back; the next version follows it
    stored: int = 0  #: the version in the table, which the next one replaces; 0: none
    is_adopted: bool = False  #: ``group`` is what others have begun anew; they may go on before it is put back
    beat: int = 0  #: of the last renewal that was sent; a successor begins far from it
    sent_at_seconds: float = -inf  #: by the node's own clock; when that was sent
    held_until_seconds: float = -inf  #: likewise; what is lent is lent until then
    obeyed: int | None = None  #: the number of the share that is kept to
    sightings: Sightings = Sightings(0.0)

    @property
    def me(self) -> Member | None:
        """This node as the group knows it; None: not at all, or no more."""
        return self.group.members.get(self.node.name)

    @property
    def share(self) -> Share | None:
        """What this node may use while the lease is held."""
        return None if self.me is None else self.me.share

    @property
    def limits(self) -> Limits:
        """What new work has to keep to while the lease is held."""
        share = self.share
        return self.node.limits.nothing if share is None else share.told

    @property
    def puts_back(self) -> bool:
        """Whether the record was lost, and this node is to put back what it knows."""
        return self.stored < self.group.version

    def looked(self, group: Group, now_seconds: float) -> Lease:
        """Note what was read, what stood in the way of a write, or what has been written."""
        stored, is_adopted = group.version, self._is_begun_anew(group, now_seconds)
        group = self._followed_by(group, is_adopted)
        me = group.members.get(self.node.name)
        held_until, obeyed = self.held_until_seconds, self.obeyed
        if me is None or me.share is None or not me.share.is_same_order(self.share):
            obeyed = None
        if me is None:
            held_until = -inf  # the others have taken it for gone
        elif me.beat == self.beat:  # the renewal was carried out, whatever became of its answer
            held_until = max(held_until, self.sent_at_seconds + self.seconds)
        seen = self.sightings if self.sightings.lease_seconds else Sightings(self.seconds)
        return replace(
            self,
            group=group,
            stored=stored,
            is_adopted=is_adopted,
            held_until_seconds=held_until,
            obeyed=obeyed,
            sightings=seen.looked(group, now_seconds),
        )

    def _is_begun_anew(self, group: Group, now_seconds: float) -> bool:
        # While this node did not look; it follows them until it has written.
        if not 0 < group.version < self.group.version:
            return False
        goes_on = self.is_adopted and group.version >= self.stored
        return goes_on or not self.sightings.are_fresh(now_seconds)

    def _followed_by(self, group: Group, is_begun_anew: bool) -> Group:
        if group.version >= self.group.version:
            return group.known_from(self.group)
        if is_begun_anew:  # all but its version is newer than what this node knows
            return replace(group.known_from(self.group), version=self.group.version)
        return self.group

    def renewal(self, now_seconds: float, *, steps_down: bool = False) -> tuple[Lease, Group]:
        """Return what to write if the stored version is still ``stored``. To step down needs a ``successor``."""
        sent = replace(self, beat=self.beat + 1, sent_at_seconds=now_seconds)
        group, gone = self.group, self.gone(now_seconds)
        if self.puts_back:
            group = group.put_back(sent.beat)
        return sent, group.renewed(
            self.node, sent.beat, self.seconds, obeyed=self.obeyed, gone=gone, steps_down=steps_down
        )

    def leave(self) -> Group:
        """Return what to write, likewise, when this node ends."""
        group = self.group.put_back(self.beat + 1) if self.puts_back else self.group
        return group.without(self.node.name)

    def gone(self, now_seconds: float) -> frozenset[str]:
        """Return the other members that have not been heard of for longer than a lease lasts."""
        if self.puts_back:  # they may have been, and that was lost
            return frozenset()
        return self.sightings.gone(self.group, now_seconds) - {self.node.name}

    def successor(self, now_seconds: float) -> str | None:
        """Return the node that would be active instead if this one stepped down now; None: none, or unknown."""
        if self.me is None or self.me.token is None or self.puts_back or not self.is_held(now_seconds):
            return None
        # The first in line. One that has not been heard of for half a lease may be gone; and when others are taken out
        # more may be active than before.
        in_line = [member for member in self.group.members.values() if member.token is None]
        if not in_line or self.gone(now_seconds):
            return None
        first = min(in_line, key=lambda member: member.joined)
        _, since_seconds = self.sightings.since_seconds[first.node.name]
        return first.node.name if now_seconds - since_seconds <= first.lease_seconds / 2 else None

    def obeys(self, number: int) -> Lease:
        """Note that the node keeps to the share of this number, if it is still the newest."""
        return self if self.share is None or self.share.number != number else replace(self, obeyed=number)

    def is_held(self, now_seconds: float) -> bool:
        """Return whether the node may begin new work."""
        return self.share is not None and now_seconds < self.held_until_seconds


@dataclass(frozen=True, slots=True)
class Work:
    answered: int = 0  #: results that were posted, since some moment
    unable_seconds: float = 0.0  #: for how long nothing could be received without a break; 0: something can, or might
    unavailable: tuple[str, ...] = ()  #: services, where that is so


@dataclass(frozen=True, slots=True)
class StepDown:
    """When an active node that can receive nothing lets another one try. Each event returns the next one.

    If it could receive nothing for ``seconds`` without a break, and another node stands by, it steps down
    (``Group.renewed``). Only a try shows whether the other one can: a standby receives nothing. So each node waits
    twice as long the next time, up to ``LONGEST_STEP_DOWN_SECONDS``, until it has answered something.

    It stays active in an outage of Apple or of the ledger: it keeps what is in flight then, and a move would cost each
    message one of its few deliveries. Cut off from its queues it can neither finish nor keep it, so a move costs
    nothing.
    """

    first_seconds: float
    times: int = 0  #: that the node stepped down, since something was answered
    since_seconds: float = inf  #: since then it is active, and its lease is held without a break
    token: int | None = None  #: that it has, or had last
    answered: int = 0  #: ``Work.answered`` when that began, or when it was more last

    @classmethod
    def of(cls, lease_seconds: float, receive_wait_seconds: float) -> StepDown:
        # Longer than a long poll: after a failure a sound receive may wait in vain for that long.
        return cls(max(lease_seconds * STEP_DOWN_LEASES, receive_wait_seconds + RECEIVE_SECONDS))

    @property
    def seconds(self) -> float:
        """After which it steps down the next time."""
        longest = max(self.first_seconds, LONGEST_STEP_DOWN_SECONDS)
        return float(min(self.first_seconds * 2 ** min(self.times, 30), longest))

    def looked(self, before: Lease, lease: Lease, work: Work, now_seconds: float) -> StepDown:
        after, was, me = self, before.me, lease.me
        if was is not None and me is not None and was.token is not None and me.token is None and me.joined > was.joined:
            after = replace(after, times=after.times + 1)
        if me is None or me.token is None or not lease.is_held(now_seconds):
            return replace(after, since_seconds=inf)
        if after.since_seconds == inf:
            after = replace(after, since_seconds=now_seconds)
        if me.token != after.token:
            return replace(after, token=me.token, answered=work.answered)
        if work.answered > after.answered:
            after = replace(after, times=0, answered=work.answered)
        return after

    def unable_seconds(self, work: Work, now_seconds: float) -> float:
        """Return for how long the node has been active in vain."""
        return max(0.0, min(work.unable_seconds, now_seconds - self.since_seconds))

    def is_over(self, work: Work, now_seconds: float) -> bool:
        """Return whether the node is to step down, if another one stands by."""
        return self.unable_seconds(work, now_seconds) >= self.seconds


def record_of(group: Group) -> RoleRecord:
    """Write a group in few bytes: each write is paid for by its size."""
    members = [_as_json(member) for member in group.members.values()]
    content = json.dumps({"schema": RECORD_SCHEMA, "members": members}, separators=(",", ":"))
    return RoleRecord(group.version, content)


def group_in(record: RoleRecord | None) -> Group:
    """Read what ``record_of`` wrote; where nothing stands, a group that nobody is in.

    What a later program of the same schema adds is passed over. Raises ``ValueError`` for anything else; whatever the
    record holds, its words are few, and in one line.
    """
    if record is None:
        return Group()
    version = record.version
    try:
        _count(version, 1, MOST - 1)  # the next one has to fit, too
        data = json.loads(record.content)
        if data["schema"] != RECORD_SCHEMA:
            raise ValueError(f"found schema {data['schema']!r:.40}, expected {RECORD_SCHEMA}")
        if not isinstance(data["members"], list):
            raise TypeError
        members = [_member(each, version) for each in data["members"]]
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"expected what this program writes ({type(error).__name__})") from None
    if len({member.node.name for member in members}) < len(members):
        raise ValueError("found a node twice")
    return Group(version, {member.node.name: member for member in members})


def _as_json(member: Member) -> dict[str, Any]:
    node, share = member.node, member.share
    return {
        "name": node.name,
        "role": node.role.value,
        "limits": node.limits.amounts,
        "processes": node.processes,
        "shares_app_store_concurrency": node.shares_app_store_concurrency,
        "joined": member.joined,
        "beat": member.beat,
        "lease_seconds": member.lease_seconds,
        "token": member.token,
        "share": None if share is None else [share.number, share.told.amounts, share.held.amounts],
    }


def _member(data: Mapping[str, Any], version: int) -> Member:
    name, shares, token, share = (data[key] for key in ("name", "shares_app_store_concurrency", "token", "share"))
    if not is_name(name) or not isinstance(shares, bool):
        raise TypeError
    limits, processes = _limits(data["limits"], least=1), _count(data["processes"], 1)
    return Member(
        Node(name, _role(data["role"]), limits, processes, shares),
        joined=_count(data["joined"], 1, version),
        beat=_count(data["beat"]),
        lease_seconds=_amount(data["lease_seconds"], LONGEST_LEASE_SECONDS),
        token=None if token is None else _count(token, 1, version),
        share=None if share is None else _share(share, version),
    )


def _role(value: object) -> Role:
    if value not in list(Role):
        raise ValueError(f"found role {value!r:.40}, expected one of {', '.join(Role)}")
    return Role(value)  # type: ignore[arg-type]


def _share(values: Sequence[Any], version: int) -> Share:
    number, told, held = values
    return Share(_count(number, 1, version), _limits(told), _limits(held))


def _limits(values: Sequence[Any], least: int = 0) -> Limits:
    *counts, rate = values
    in_flight, ledger, app_store = (_count(count, least) for count in counts)
    return Limits(in_flight, ledger, app_store, None if rate is None else _amount(rate))


def _count(value: object, least: int = 0, most: int = MOST) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"found {value!r:.40}, expected a number from {least} to {most}")
    return value


def _amount(value: object, most: float = float(MOST)) -> float:
    if type(value) not in (int, float) or not 0 <= value <= most:  # type: ignore[operator]  # NaN is not, either
        raise ValueError(f"found {value!r:.40}, expected a number from 0 to {most:g}")
    return value  # type: ignore[return-value]
