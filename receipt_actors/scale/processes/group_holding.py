"""``GroupHolding``: what other nodes lend to this one, as its worker processes see it.

Until when something is lent is a time of a clock of the machine (``Clock.boottime``), which all its processes read: a
parent that is stopped, or gone, leaves no worker behind that goes on with what is lent to others meanwhile.

That something is lent for longer goes by way of the divider, so that no worker hears of it before it has heard that it
may use less. That it is lent no more goes straight to them.

How the work goes is what they have said of it themselves, a second ago or so.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.patience import Work
from receipt_actors.otp import ActorSystem, Name
from receipt_actors.scale.processes.collector import FRESH_SECONDS, Heard, collected_by
from receipt_actors.scale.processes.messages import HoldUntil, Release
from receipt_actors.scale.processes.protocol import DIVIDER, DivideAnew, Group, HoldLonger, TellProcess, cast_to_workers


class GroupHolding:
    """See the module, and ``scale.nodes.holding.Holding``."""

    def __init__(self, group: Group, actors: ActorSystem) -> None:
        self._group = group
        self._actors = actors
        group.whole = group.whole.nothing
        group.held_until_seconds = -inf

    def hold(self, until_seconds: float) -> None:
        """See ``Holding``."""
        before, self._group.held_until_seconds = self._group.held_until_seconds, until_seconds
        if until_seconds < before:
            cast_to_workers(self._actors, self._group, TellProcess(HoldUntil(until_seconds)))
        elif until_seconds > before:
            divider = self._actors.whereis(DIVIDER)
            if divider is not None:  # else the next renewal tells
                divider.cast(HoldLonger())

    def use(self, limits: Limits) -> Sequence[tuple[Name, object]]:
        """See ``Holding``."""
        self._group.whole = limits
        return [(DIVIDER, DivideAnew())]

    def release(self) -> None:
        """See ``Holding``."""
        cast_to_workers(self._actors, self._group, TellProcess(Release()))

    def work(self) -> Work:
        """See ``Holding``. As long as one worker receives something, or may for all that is known, the node can."""
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
