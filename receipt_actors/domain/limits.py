"""Limits of work that nodes or processes share, how they are divided, and what holds in this process now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

MAX_BLOCKING_CONCURRENCY = 200  #: threads of a process that wait for Apple: more of them are slower, not faster
MAX_CURL_CONCURRENCY = 5000  #: requests to Apple that one thread with curl has under way
DEFAULT_CURL_CONCURRENCY = 1000  #: over HTTP/1.1 each takes a connection, and a connection with TLS 120 KiB
BATCH_REQUESTS = 4  #: sends, deletes or visibility changes under way at once, of each batcher of a process

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
        return self.max_in_flight, self.ledger_concurrency, self.app_store_concurrency, self.app_store_rate_per_second

    @property
    def smallest_count(self) -> int:
        return min(self.max_in_flight, self.ledger_concurrency, self.app_store_concurrency)

    def is_within(self, other: Limits) -> bool:
        rate, most = self.app_store_rate_per_second, other.app_store_rate_per_second
        return (
            self.max_in_flight <= other.max_in_flight
            and self.ledger_concurrency <= other.ledger_concurrency
            and self.app_store_concurrency <= other.app_store_concurrency
            and (most is None or (rate is not None and rate <= most))
        )

    @property
    def nothing(self) -> Limits:
        return Limits(0, 0, 0, None if self.app_store_rate_per_second is None else 0.0)


class LiveLimits:
    """The limits that hold in this process now; actors read ``current`` whenever they decide."""

    def __init__(self, whole: Limits, current: Limits | None = None) -> None:
        self.whole = whole  #: the most that this process may ever be given
        self._current = whole if current is None else current
        self.held_until_seconds = inf  #: of ``Clock.boottime``; then nothing new is begun
        self.is_paused = False  #: by an operator: nothing more is taken in

    @property
    def current(self) -> Limits:
        return self._current

    def change(self, limits: Limits) -> None:
        self._current = limits

    def are_held(self, now_seconds: float) -> bool:
        return now_seconds < self.held_until_seconds


def divide(whole: Limits, parts: int) -> tuple[Limits, ...]:
    """Divide into parts that sum up to the whole and differ by at most 1; rates are divided evenly."""

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
    """What one participant was given, and what it may still be using."""

    number: int  #: of what it was told; it confirms by it
    told: Limits
    held: Limits  #: more than ``told`` until it has confirmed that it uses no more than that

    def is_same_order(self, other: Share | None) -> bool:
        return other is not None and (self.number, self.told) == (other.number, other.told)


@dataclass(frozen=True, slots=True)
class Division:
    """Who has which share. **The shares that are held never exceed the whole.**

    A participant gives back first and confirms; only then do others get it. Who has left holds nothing. Each event
    returns the next division and the new shares to announce. A smaller whole is exceeded until enough is given back.
    """

    whole: Limits
    shares: Mapping[str, Share | None] = field(default_factory=dict)  #: None: nothing is free for it yet
    standing_by: frozenset[str] = frozenset()  #: those of them who are to have nothing
    number: int = 0  #: the highest that a share has had: a confirmation that comes late confirms nothing newer
    due: Mapping[str, Limits] | None = None  #: what the others are to have; None: equal parts of the whole

    def of(self, whole: Limits) -> tuple[Division, Mapping[str, Share]]:
        return replace(self, whole=whole)._divided()

    def joined(self, name: str) -> tuple[Division, Mapping[str, Share]]:
        return replace(self, shares={**self.shares, name: self.shares.get(name)})._divided()

    def left(self, name: str) -> tuple[Division, Mapping[str, Share]]:
        return replace(self, shares={other: it for other, it in self.shares.items() if other != name})._divided()

    def confirmed(self, name: str, number: int) -> tuple[Division, Mapping[str, Share]]:
        share = self.shares.get(name)
        if share is None or share.number != number:
            return self, {}
        return replace(self, shares={**self.shares, name: confirmed(share)})._divided()

    def found(self, shares: Mapping[str, Share | None]) -> tuple[Division, Mapping[str, Share]]:
        number = max([self.number, *(share.number for share in shares.values() if share is not None)])
        return replace(self, shares={name: _if_some(share) for name, share in shares.items()}, number=number)._divided()

    @property
    def is_kept(self) -> bool:
        """Return whether all shares fit in the whole; they may not after the whole has shrunk."""
        free = self._free(self.shares)
        rate, room = self.whole.app_store_rate_per_second, free.app_store_rate_per_second
        return min(free.max_in_flight, free.ledger_concurrency, free.app_store_concurrency) >= 0 and (
            rate is None or room is None or room >= -rate * _ROUNDING
        )

    def _divided(self) -> tuple[Division, Mapping[str, Share]]:
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
    return _if_some(replace(share, held=share.told))


def _adapted(share: Share | None, whole: Limits) -> Share | None:
    rate = whole.app_store_rate_per_second
    if share is None or (share.told.app_store_rate_per_second is None) == (rate is None):
        return share
    told, held = (replace(limits, app_store_rate_per_second=rate) for limits in (share.told, share.held))
    return replace(share, told=told, held=held)


def _if_some(share: Share | None) -> Share | None:
    return None if share is None or share.held == share.held.nothing else share


def _each(function: Callable[..., float], *limits: Limits) -> Limits:
    """Apply a function to each kind of limit; an absent rate limit stays absent."""
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
