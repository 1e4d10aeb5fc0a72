"""Limits of work that several share: their division over nodes or processes, and what holds in this process now.

``Limits`` are values, ``divide`` and ``Division`` are pure. ``LiveLimits`` is the one object here that changes: actors
are given it in the place of numbers and look at ``current`` whenever they decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

MAX_BLOCKING_CONCURRENCY = 200  #: threads of a process that wait for Apple: more of them are slower, not faster
MAX_CURL_CONCURRENCY = 5000  #: requests to Apple that one thread with curl has under way
DEFAULT_CURL_CONCURRENCY = 1000  #: over HTTP/1.1 each takes a connection, and a connection with TLS 120 KiB

_ROUNDING = 1e-9  #: what a sum of rates may be off, as a part of the whole


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be going on at once."""

    max_in_flight: int  #: messages taken in and not finished yet
    ledger_concurrency: int  #: requests to the ledger under way
    app_store_concurrency: int  #: requests to Apple under way
    app_store_rate_per_second: float | None = None  #: requests to Apple a second; None: no limit

    @property
    def amounts(self) -> tuple[int, int, int, float | None]:
        """The four of them, in the order of the fields; ``dataclasses.astuple`` copies each value deeply."""
        return self.max_in_flight, self.ledger_concurrency, self.app_store_concurrency, self.app_store_rate_per_second

    @property
    def smallest_count(self) -> int:
        """Into how many parts it can be divided so that each has something of everything."""
        return min(self.max_in_flight, self.ledger_concurrency, self.app_store_concurrency)

    def is_within(self, other: Limits) -> bool:
        """Tell whether it is of nothing more than the other; no limit of the rate is more than any."""
        rate, most = self.app_store_rate_per_second, other.app_store_rate_per_second
        return (
            self.max_in_flight <= other.max_in_flight
            and self.ledger_concurrency <= other.ledger_concurrency
            and self.app_store_concurrency <= other.app_store_concurrency
            and (most is None or (rate is not None and rate <= most))
        )

    @property
    def nothing(self) -> Limits:
        """No part of it at all."""
        return Limits(0, 0, 0, None if self.app_store_rate_per_second is None else 0.0)


class LiveLimits:
    """The limits that hold in this process now: a share of the whole, which may change at any time.

    And until when they hold, where they are lent by a lease; and whether anything is taken in at all, for that is an
    operator's word. Both outlive whoever obeys them.
    """

    def __init__(self, whole: Limits, current: Limits | None = None) -> None:
        self.whole = whole  #: the most that this process may ever be given
        self._current = whole if current is None else current
        self.held_until_seconds = inf  #: of ``Clock.boottime``; then nothing new is begun
        self.is_paused = False  #: by an operator: nothing more is taken in

    @property
    def current(self) -> Limits:
        """What new work has to keep to."""
        return self._current

    def change(self, limits: Limits) -> None:
        """Let these hold from now on."""
        self._current = limits

    def are_held(self, now_seconds: float) -> bool:
        """Tell whether anything new may be begun at this time."""
        return now_seconds < self.held_until_seconds


def divide(whole: Limits, parts: int) -> tuple[Limits, ...]:
    """Divide into parts that sum up to the whole and, of what is counted, differ by at most 1. No parts: nobody."""

    def counts(number: int) -> list[int]:
        return [number // parts + (index < number % parts) for index in range(parts)]

    rate = whole.app_store_rate_per_second
    return tuple(
        Limits(in_flight, ledger, app_store, None if rate is None else rate / parts)
        for in_flight, ledger, app_store in zip(
            counts(whole.max_in_flight),
            counts(whole.ledger_concurrency),
            counts(whole.app_store_concurrency),
            strict=True,
        )
    )


@dataclass(frozen=True, slots=True)
class Share:
    """What one of those who share was told, and what it may be using."""

    number: int  #: of what it was told; it confirms by it
    told: Limits
    held: Limits  #: more than ``told`` until it has confirmed that it uses no more than that

    def is_same_order(self, other: Share | None) -> bool:
        """Tell whether both tell the same: by the same number, for that may come again where a record was lost."""
        return other is not None and (self.number, self.told) == (other.number, other.told)


@dataclass(frozen=True, slots=True)
class Division:
    """Who has which share of the whole.

    **What all of them hold never sums up to more than the whole.** Who is to have less is told so first; what it gives
    back is given to others only when it has confirmed. Who has left holds nothing. Each event returns the division
    after it, and whom to tell what. (A whole that becomes smaller is exceeded until enough has been given back.)
    """

    whole: Limits
    shares: Mapping[str, Share | None] = field(default_factory=dict)  #: None: nothing is free for it yet
    standing_by: frozenset[str] = frozenset()  #: those of them who are to have nothing
    number: int = 0  #: the highest that a share has had: a confirmation that comes late confirms nothing newer
    due: Mapping[str, Limits] | None = None  #: what the others are to have; None: equal parts of the whole

    def of(self, whole: Limits) -> tuple[Division, Mapping[str, Share]]:
        """Divide another whole from now on."""
        return replace(self, whole=whole)._divided()

    def joined(self, name: str) -> tuple[Division, Mapping[str, Share]]:
        """Count in one that holds nothing yet."""
        return replace(self, shares={**self.shares, name: self.shares.get(name)})._divided()

    def left(self, name: str) -> tuple[Division, Mapping[str, Share]]:
        """Count one out: what it held is free at once."""
        return replace(self, shares={other: it for other, it in self.shares.items() if other != name})._divided()

    def confirmed(self, name: str, number: int) -> tuple[Division, Mapping[str, Share]]:
        """Note that it uses no more than it was told by this number. What is out of date confirms nothing."""
        share = self.shares.get(name)
        if share is None or share.number != number:
            return self, {}
        return replace(self, shares={**self.shares, name: confirmed(share)})._divided()

    def found(self, shares: Mapping[str, Share | None]) -> tuple[Division, Mapping[str, Share]]:
        """Begin with what they say that they have."""
        number = max([self.number, *(share.number for share in shares.values() if share is not None)])
        return replace(self, shares={name: _if_some(share) for name, share in shares.items()}, number=number)._divided()

    @property
    def is_kept(self) -> bool:
        """Tell whether what all hold is no more than the whole; after that has become smaller it may not be."""
        free = self._free(self.shares)
        rate, room = self.whole.app_store_rate_per_second, free.app_store_rate_per_second
        return min(free.max_in_flight, free.ledger_concurrency, free.app_store_concurrency) >= 0 and (
            rate is None or room is None or room >= -rate * _ROUNDING
        )

    def _divided(self) -> tuple[Division, Mapping[str, Share]]:
        """Tell everyone as much of what is due to it as is free."""
        if not self.shares:
            return self, {}
        names = sorted(self.shares)  # so that who comes back finds its own share again
        sharing = [name for name in names if name not in self.standing_by]
        due = dict.fromkeys(names, self.whole.nothing)
        due.update(zip(sharing, divide(self.whole, len(sharing)), strict=True) if self.due is None else self.due)
        shares = {name: _adapted(share, self.whole) for name, share in self.shares.items()}
        for name, share in shares.items():
            if share is not None:
                shares[name] = replace(share, told=_each(min, share.told, due[name]))
        for name in sorted(names, key=lambda name: shares[name] is not None):  # first who has nothing
            free = self._free(shares)
            share = shares[name]
            if share is None:
                first = _each(_first, due[name], free)
                if _is_some(first, due[name]):
                    shares[name] = Share(0, first, first)
                continue
            told = _each(_grown, share.told, due[name], share.held, free)
            shares[name] = replace(share, told=told, held=_each(max, share.held, told))
        orders = {}
        for name, share in shares.items():
            before = self.shares[name]
            if share is not None and (before is None or share.told != before.told):
                orders[name] = shares[name] = replace(share, number=self.number + 1)
        return replace(self, shares=shares, number=self.number + bool(orders)), orders

    def _free(self, shares: Mapping[str, Share | None]) -> Limits:
        held = [share.held for share in shares.values() if share is not None]
        return _each(lambda whole, *parts: whole - sum(parts), self.whole, *held)


def confirmed(share: Share) -> Share | None:
    """Return what is left of a share when it has been confirmed: None where nothing is."""
    return _if_some(replace(share, held=share.told))


def _adapted(share: Share | None, whole: Limits) -> Share | None:
    """Have a share say something of the rate exactly where the whole does: who had no limit may use all of it still."""
    rate = whole.app_store_rate_per_second
    if share is None or (share.told.app_store_rate_per_second is None) == (rate is None):
        return share
    told, held = (replace(limits, app_store_rate_per_second=rate) for limits in (share.told, share.held))
    return replace(share, told=told, held=held)


def _if_some(share: Share | None) -> Share | None:
    return None if share is None or share.held == share.held.nothing else share


def _each(function: Callable[..., float], *limits: Limits) -> Limits:
    """Apply a function to the limits' values of each kind; no limit is none, whatever is done to it."""
    rows = zip(*(each.amounts for each in limits), strict=True)
    return Limits(*(None if None in values else function(*values) for values in rows))  # type: ignore[arg-type]


def _first(due: float, free: float) -> float:
    return due if due <= free + due * _ROUNDING else max(free, 0)


def _grown(told: float, due: float, held: float, free: float) -> float:
    room = max(free, 0) + held - told
    if due <= told or room <= due * _ROUNDING:
        return told
    return due if due - told <= room + due * _ROUNDING else told + room


def _is_some(limits: Limits, due: Limits) -> bool:
    rate, rate_due = limits.app_store_rate_per_second, due.app_store_rate_per_second
    return limits.smallest_count >= 1 and (rate is None or rate_due is None or rate > rate_due * _ROUNDING)
