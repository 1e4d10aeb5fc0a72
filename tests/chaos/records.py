"""What holds of the record that nodes agree on, and of what services see of them. Pure; trusts no node.

The record is read here by its JSON, not by the program's own code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

from .network import Request

#: What a share has of each, in this order.
_LIMITS = ("max_in_flight", "ledger_concurrency", "app_store_concurrency", "app_store_rate_per_second")
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    at_seconds: float  #: monotonic
    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  #: by name, without what makes it unique
    came_at_seconds: float = 0.0  #: likewise; when it was asked for: nobody can have seen it before

    @classmethod
    def read(cls, number: int, content: str, at_seconds: float, came_at_seconds: float | None = None) -> Version:
        members = {member["name"].rpartition("-")[0]: member for member in json.loads(content)["members"]}
        return cls(number, at_seconds, members, at_seconds if came_at_seconds is None else came_at_seconds)

    @property
    def seats(self) -> Mapping[str, int]:
        return {name: member["token"] for name, member in self.members.items() if member["token"] is not None}

    @property
    def sharing(self) -> frozenset[str]:
        return frozenset(name for name, member in self.members.items() if member["share"] is not None)

    def held(self, limit: str) -> float:
        shares = [member["share"] for member in self.members.values() if member["share"] is not None]
        return sum(held[_LIMITS.index(limit)] for _, _, held in shares)


def faults_of(versions: Sequence[Version], whole: Mapping[str, float], most_seats: int | None = None) -> list[str]:
    """Say what is wrong with a history.

    Each version is there once, in its order; what all hold is never more than the whole; no more have a seat than there
    are; and a seat's token is the version that gave it, so that a later holder's is always higher.
    """
    faults = []
    numbers = [version.number for version in versions]
    if numbers != list(range(1, len(versions) + 1)):
        twice = [number for number, count in Counter(numbers).items() if count > 1]
        faults.append(f"versions are missing, or written twice ({twice[:5]}), or out of order: {len(numbers)} of them")
    seats: Mapping[str, int] = {}
    for version in versions:
        for limit, most in whole.items():
            if version.held(limit) > most * (1 + _ROUNDING):
                faults.append(f"version {version.number}: {version.held(limit):g} of {limit} are held, not {most:g}")
        if most_seats is not None and len(version.seats) > most_seats:
            faults.append(f"version {version.number}: {len(version.seats)} have a seat: {sorted(version.seats)}")
        for name, token in version.seats.items():
            if token != seats.get(name, version.number):
                faults.append(f"version {version.number}: {name} has token {token}, not {version.number}")
        seats = version.seats
    return faults


def tenures(versions: Sequence[Version]) -> Mapping[str, Sequence[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    since: dict[str, float] = {}
    for version in versions:
        for name in version.sharing - since.keys():
            since[name] = version.at_seconds
        for name in since.keys() - version.sharing:
            found.setdefault(name, []).append((since.pop(name), version.at_seconds))
    for name, at_seconds in since.items():
        found.setdefault(name, []).append((at_seconds, inf))
    return found


def out_of_tenure(versions: Sequence[Version], requests: Iterable[Request]) -> list[Request]:
    """List what nodes asked for at times at which they had no share."""
    of_all = tenures(versions)
    return [
        request
        for request in requests
        if not any(begin <= request.came_at_seconds <= end for begin, end in of_all.get(request.node, ()))
    ]


def thrown_out(versions: Sequence[Version], is_alive: Callable[[str, float], bool]) -> list[tuple[float, str]]:
    """List who was taken out of the group at a time at which it lived."""
    found = []
    for before, after in pairwise(versions):
        gone = before.members.keys() - after.members.keys()
        found += [(after.at_seconds, name) for name in gone if is_alive(name, after.at_seconds)]
    return found


def thrown_out_too_soon(
    versions: Sequence[Version],
    out: Iterable[tuple[float, str]],
    lease_seconds: float,
    reachable_again_at: Sequence[float] = (),
) -> list[str]:
    """List who was taken out of the group (``thrown_out``) while what it had been lent last may have been lent still.

    What a renewal lends begins before it comes to the table, and nobody has seen it before that. Nor has anybody seen
    that nothing came while the table was not to be reached: ``reachable_again_at`` says until when.
    """
    found = []
    for at_seconds, name in out:
        heard_at, beat = -inf, None
        for version in versions:
            if version.at_seconds >= at_seconds:
                break
            member = version.members.get(name)
            if member is not None and member["beat"] != beat:
                heard_at, beat = version.came_at_seconds, member["beat"]
        heard_at = max(heard_at, *(again_at for again_at in reachable_again_at if again_at < at_seconds), -inf)
        if at_seconds - heard_at < lease_seconds:
            found.append(f"{name} was taken for gone {at_seconds - heard_at:.2f} s after its last sign")
    return found


def overlap_seconds(versions: Sequence[Version], requests: Sequence[Request]) -> float:
    """Say for how long at most a request was under way of somebody who had no share, or no more.

    (With one seat: for how long an old and a new active did so at the same time, at most.)
    """
    ends = {name: [end for _, end in terms] for name, terms in tenures(versions).items()}
    over = [
        answered_at_seconds - end
        for request in requests
        for answered_at_seconds in [request.answered_at_seconds or request.came_at_seconds]
        for end in ends.get(request.node, ())
        if request.came_at_seconds <= end < answered_at_seconds
    ]
    over += [
        (request.answered_at_seconds or request.came_at_seconds) - request.came_at_seconds
        for request in out_of_tenure(versions, requests)
    ]
    return max(over, default=0.0)
