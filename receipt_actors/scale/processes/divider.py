"""The divider: gives each worker its share of the limits, and again when one dies or comes back.

It owns the ``Division``, whose promise it keeps: what the workers hold never sums up to more than the whole, which may
change where other nodes share it. A dead worker's share goes to the living at once; they give it back, and confirm that
they have, before its successor has it. A crash of the divider forgets the division; its successor asks the workers what
they have, and divides nothing before all have answered. Meanwhile everyone keeps what it has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from receipt_actors.domain.limits import Division, Limits, Share
from receipt_actors.domain.roles import Work
from receipt_actors.otp import NO_REPLY, ActorSystem, Continue, Down, ExitReason, From, GenServer, Name, Ref
from receipt_actors.pipeline.protocol import Done
from receipt_actors.scale.processes.collector import FRESH_SECONDS, Heard, collected_by
from receipt_actors.scale.processes.messages import Release
from receipt_actors.scale.processes.protocol import (
    DIVIDER,
    ChangeShare,
    ConfirmShare,
    DescribeShare,
    DivideAnew,
    ExtendLease,
    Group,
    JoinDivision,
    LeaveDivision,
    LendUntil,
    ShareDescribed,
    TellProcess,
    cast_to_workers,
)

logger = logging.getLogger(__name__)


class Divider(GenServer):
    """See the module."""

    def __init__(self, group: Group) -> None:
        self._division = Division(group.whole)
        self._group = group
        self._workers: dict[str, Ref] = {}
        self._not_heard = set(group.names)
        self._found: dict[str, Share | None] = {}
        self._put_off: list[Any] = []  # what came before all had been heard
        self._yielding: list[From] = []  # who waits for the workers to use no more than the whole

    def init(self) -> Continue:
        """Find out who has what already, in case this is a restart."""
        return Continue()

    def handle_continue(self, term: Any) -> None:
        """Ask everyone."""
        for name in self._group.names:
            self.send_request(name, DescribeShare(), name)

    def handle_reply(self, label: Any, value: Any) -> None:
        """Note what a worker has."""
        described: ShareDescribed = value
        if described.has_joined:
            self._watch(label, described.worker)
            self._found[label] = described.share
        self._heard(label)

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """There is no such actor now, and no process: it will join by itself."""
        self._heard(label)

    def _heard(self, name: str) -> None:
        self._not_heard.discard(name)
        if not self._not_heard:
            self._carry_out(self._division.found(self._found))
            put_off, self._put_off = self._put_off, []
            for request in put_off:
                self._divide(request)

    def handle_call(self, request: Any, from_: From) -> Any:
        """Divide another whole."""
        if not isinstance(request, DivideAnew):
            return super().handle_call(request, from_)
        self._yielding.append(from_)
        self._divide(request)
        return NO_REPLY

    def handle_cast(self, request: Any) -> Any:
        """Somebody joins, leaves or confirms; or what all have is lent for longer."""
        if not isinstance(request, JoinDivision | LeaveDivision | ConfirmShare | ExtendLease):
            return super().handle_cast(request)
        self._divide(request)
        return None

    def handle_info(self, message: Any) -> Any:
        """A worker has died, and its process with it."""
        if not isinstance(message, Down):
            return super().handle_info(message)
        self._divide(message)
        return None

    def _divide(self, event: Any) -> None:
        if self._not_heard:
            self._put_off.append(event)
            return
        match event:
            case DivideAnew():
                self._carry_out(self._division.of(self._group.whole))
            case ExtendLease():
                for worker in self._workers.values():
                    worker.cast(LendUntil(self._group.held_until_seconds))
            case JoinDivision(name, worker):
                self._watch(name, worker)
                self._carry_out(self._division.joined(name))
            case LeaveDivision(name):
                self._carry_out(self._division.left(name))
            case ConfirmShare(name, number):
                self._carry_out(self._division.confirmed(name, number))
            case Down(_, worker):
                for name in [name for name, other in self._workers.items() if other is worker]:
                    del self._workers[name]
                    self._carry_out(self._division.left(name))

    def _watch(self, name: str, worker: Ref) -> None:
        if self._workers.get(name) is not worker:
            self._workers[name] = worker
            self.monitor(worker)

    def _carry_out(self, decided: tuple[Division, Mapping[str, Share]]) -> None:
        self._division, orders = decided
        if self._division.is_kept:
            for from_ in self._yielding:
                from_.reply(Done())
            self._yielding.clear()
        for name, share in orders.items():
            self._workers[name].cast(ChangeShare(share))
            if self._group.is_complete and not self._group.is_closing:
                logger.info("%s may have %s", name, described(share.told))


def described(limits: Limits) -> str:
    """Put limits into words, for the log."""
    rate = limits.app_store_rate_per_second
    return (
        f"{limits.max_in_flight} messages in flight, {limits.app_store_concurrency} requests to Apple at once"
        + ("" if rate is None else f" and {rate:.4g} a second")
        + f", {limits.ledger_concurrency} to the ledger"
    )


class GroupLessee:
    """A node of several processes (``scale.nodes.membership.Lessee``).

    Until when something is lent is a time of a clock of the machine (``Clock.boottime``), which all its processes read:
    a parent that is stopped, or gone, leaves no worker behind that goes on with what is lent to others meanwhile. A
    longer lease goes by way of the divider, so that a worker hears first that it may use less. A shorter one goes
    straight to the workers.

    How the work goes is what the workers said of it a second ago or so.
    """

    def __init__(self, group: Group, actors: ActorSystem) -> None:
        self._group = group
        self._actors = actors
        group.whole = group.whole.nothing
        group.held_until_seconds = -inf

    def lend_until(self, seconds: float) -> None:
        """See ``Lessee``."""
        before, self._group.held_until_seconds = self._group.held_until_seconds, seconds
        if seconds < before:
            cast_to_workers(self._actors, self._group, LendUntil(seconds))
        elif seconds > before:
            divider = self._actors.whereis(DIVIDER)
            if divider is not None:  # else the next renewal tells
                divider.cast(ExtendLease())

    def grant(self, limits: Limits) -> Sequence[tuple[Name, object]]:
        """See ``Lessee``."""
        self._group.whole = limits
        return [(DIVIDER, DivideAnew())]

    def release(self) -> None:
        """See ``Lessee``."""
        cast_to_workers(self._actors, self._group, TellProcess(Release()))

    def work(self) -> Work:
        """See ``Lessee``. As long as one worker receives something, or may for all that is known, the node can."""
        collected = collected_by(self._actors)
        answered = collected.answered
        heard = [collected.heard.get(name) for name in self._group.names]
        known = [
            it.process for name, it in zip(self._group.names, heard, strict=True) if it and self._is_news(name, it)
        ]
        if len(known) < len(self._group.names) or self._group.is_closing:
            return Work(answered)
        unavailable = sorted({service for process in known for service in process.unavailable})
        return Work(answered, min(process.unable_seconds for process in known), tuple(unavailable))

    def _is_news(self, name: str, heard: Heard) -> bool:
        """Tell whether the process that lives has said this, and a moment ago."""
        process = self._group.processes.get(name)
        is_of_it = process is not None and process.pid == heard.process.pid
        return is_of_it and self._actors.clock.monotonic() - heard.at_seconds <= FRESH_SECONDS
