"""How a group of nodes is written to its record, and read from it: JSON of few bytes, read strictly. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from receipt_actors.domain.limits import Limits, Share
from receipt_actors.domain.ports import RoleRecord
from receipt_actors.domain.roles import LONGEST_LEASE_SECONDS, Group, Member, Node, Role
from receipt_actors.domain.values import is_name

RECORD_SCHEMA = 1  #: of what ``record_of`` writes
MOST = 2**63 - 1  #: that a number in a record may be


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
