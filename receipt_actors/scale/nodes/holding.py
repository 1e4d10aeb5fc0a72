"""What a group of nodes lends to one of them, as those see it who work with it; and how that work goes."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Protocol

from receipt_actors.domain.limits import Limits, LiveLimits
from receipt_actors.domain.patience import Work
from receipt_actors.otp import ActorSystem, Name, look_at
from receipt_actors.pipeline.protocol import (
    APP_STORE_GATEWAY,
    IN_FLIGHT,
    LEDGER_GATEWAY,
    IntakeStatus,
    ObeyLimits,
    ReleaseCustodians,
)
from receipt_actors.telemetry.statistics import statistics_of

LIMITED: tuple[Name, ...] = (IN_FLIGHT, APP_STORE_GATEWAY, LEDGER_GATEWAY)  #: who keep to the limits of a process


class Holding(Protocol):
    """What is lent: nothing, before the role keeper says otherwise."""

    def hold(self, until_seconds: float) -> None:
        """Have nothing new begun from this time of ``clock.boottime`` on."""

    def use(self, limits: Limits) -> Sequence[tuple[Name, object]]:
        """Let these hold for what is new. Returns whom to ask whether no more is in use, each with its question."""

    def release(self) -> None:
        """Hand back what is in flight."""

    def work(self) -> Work:
        """Tell how the work goes. It waits for nobody."""


class ProcessHolding:
    """What is lent to a node that is one process."""

    def __init__(self, limits: LiveLimits, actors: ActorSystem) -> None:
        self._limits = limits
        self._actors = actors
        limits.change(limits.whole.nothing)
        limits.held_until_seconds = -inf

    def hold(self, until_seconds: float) -> None:
        """See ``Holding``."""
        self._limits.held_until_seconds = until_seconds

    def use(self, limits: Limits) -> Sequence[tuple[Name, object]]:
        """See ``Holding``."""
        self._limits.change(limits)
        return [(name, ObeyLimits()) for name in LIMITED]

    def release(self) -> None:
        """See ``Holding``."""
        release(self._actors)

    def work(self) -> Work:
        """See ``Holding``."""
        intake = self._actors.whereis(IN_FLIGHT)
        status = None if intake is None else look_at(intake, 0).view
        answered = statistics_of(self._actors).answered
        if not isinstance(status, IntakeStatus):  # it is being started: nobody knows
            return Work(answered)
        return Work(answered, status.unable_seconds, tuple(sorted(status.troubles)))


def release(actors: ActorSystem) -> None:
    """Have what is in flight in this process handed back."""
    intake = actors.whereis(IN_FLIGHT)
    if intake is not None:
        intake.cast(ReleaseCustodians())
