"""``Shares``: the lessor of a command's processes. It says what each worker may use, and until when.

It keeps the promise of its ``Division``: what the workers hold never sums up to more than the whole, which may change
where other nodes share it. A dead worker's share goes to the living at once; they give it back, and confirm that they
have, before its successor has it.

No actor owns it: it belongs to the group and outlives every actor, so that no crash forgets it. The workers' actors and
``membership`` call it. All of them run on the one thread of their actor system, so one call is over before the next one
begins. What a worker is told arrives in the order in which it was decided: it hears that it may use less before it
hears that its share is lent for longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from receipt_actors.domain.limits import Division, Limits, Share
from receipt_actors.otp import Ref


@dataclass(frozen=True, slots=True)
class ChangeShare:
    """To a worker: keep to this. It confirms when no more is in use."""

    share: Share
    until_seconds: float  #: see ``LendUntil``


@dataclass(frozen=True, slots=True)
class LendUntil:
    """To a worker: its share is lent until this time of ``clock.boottime``; from then on it begins nothing new."""

    seconds: float


class Shares:
    """See the module."""

    def __init__(self, whole: Limits) -> None:
        self._division = Division(whole)
        self._workers: dict[str, Ref] = {}  # those that have joined
        self._until_seconds = inf

    def divide(self, whole: Limits) -> None:
        self._carry_out(self._division.of(whole))

    def lend_until(self, seconds: float) -> None:
        if seconds != self._until_seconds:
            self._until_seconds = seconds
            for worker in self._workers.values():
                worker.cast(LendUntil(seconds))

    def join(self, name: str, worker: Ref) -> None:
        """Give a worker its share: at once, or as soon as others have given back what is to be it."""
        self._workers[name] = worker
        self._carry_out(self._division.joined(name))

    def leave(self, name: str) -> None:
        """Take back the share of a worker that has no process any more."""
        self._workers.pop(name, None)
        self._carry_out(self._division.left(name))

    def confirm(self, name: str, number: int) -> None:
        self._carry_out(self._division.confirmed(name, number))

    def _carry_out(self, decided: tuple[Division, Mapping[str, Share]]) -> None:
        self._division, orders = decided
        for name, share in orders.items():
            self._workers[name].cast(ChangeShare(share, self._until_seconds))


def described(limits: Limits) -> str:
    """Put limits into words, for the log."""
    rate = limits.app_store_rate_per_second
    return (
        f"{limits.max_in_flight} messages in flight, {limits.app_store_concurrency} requests to Apple at once"
        + ("" if rate is None else f" and {rate:.4g} a second")
        + f", {limits.ledger_concurrency} to the ledger"
    )
