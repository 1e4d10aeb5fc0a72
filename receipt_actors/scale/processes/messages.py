"""What parent and worker process tell each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from receipt_actors.domain.limits import Limits
from receipt_actors.settings import Settings
from receipt_actors.telemetry.overview import Incident, ProcessOverview
from receipt_actors.telemetry.statistics import StatisticsSnapshot

# --- parent -> worker ---


@dataclass(frozen=True, slots=True)
class Configure:
    """The first of all: the settings. They do not travel as arguments, which everybody on the machine can see."""

    settings: Settings
    is_replacement: bool = False  #: of one that ran: a source queue that is gone since must not keep it from starting


@dataclass(frozen=True, slots=True)
class Grant:
    """All that it may do. Each grant replaces the one before; the first one starts the tree.

    A new number is answered by ``LimitsObeyed``, and the first one by ``Started`` before.
    """

    number: int  #: of the share
    limits: Limits
    until_seconds: float  #: of the machine's ``boottime``; from then on nothing new is begun
    is_paused: bool  #: nothing is taken in


@dataclass(frozen=True, slots=True)
class Report:
    """Say how it goes: ``Reported``."""

    looks_at_queues: bool = False  #: have somebody look how many messages wait; a later report tells


@dataclass(frozen=True, slots=True)
class Release:
    """Hand back what is in flight: another node does the work."""


@dataclass(frozen=True, slots=True)
class DescribeActor:
    """Describe an actor's state: ``ActorDescribed``."""

    name: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class StartTrace:
    """Trace: ``TraceEvent`` for each event, at last ``TraceEnded``."""

    number: int
    filters: Mapping[str, Sequence[str]]
    limit: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StopTrace:
    """End that trace."""

    number: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Take nothing in, finish what is in flight, and end."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Hand back what is in flight, and end."""


# --- worker -> parent ---


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything is imported and open; what is missing is a share of the limits."""


@dataclass(frozen=True, slots=True)
class Started:
    """The tree runs and consumes."""


@dataclass(frozen=True, slots=True)
class StartRefused:
    """It cannot start, for reasons that are to be expected; the process ends."""

    faults: Sequence[str]
    is_configuration: bool  #: whether settings are at fault, rather than the world


@dataclass(frozen=True, slots=True)
class LimitsObeyed:
    """No more is in flight or under way than the newest limits allow, at least those of this share."""

    number: int


@dataclass(frozen=True, slots=True)
class Reported:
    """The answer to ``Report``. What has not changed since the one before is not told again: None."""

    process: ProcessOverview
    queues: Mapping[str, int | None] | None = None
    incidents: tuple[Incident, ...] | None = None


@dataclass(frozen=True, slots=True)
class ActorDescribed:
    """The answer to ``DescribeActor``."""

    number: int
    description: Mapping[str, Any] | None  #: None: there is no such actor


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """Something that a trace matched has happened."""

    number: int
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TraceEnded:
    """A trace is over in this process."""

    number: int
    lost: int  #: events that are not told


@dataclass(frozen=True, slots=True)
class Draining:
    """Somebody else told it to end: it drains, and listens to nothing any more."""

    seconds: float  #: how long that may take


@dataclass(frozen=True, slots=True)
class Stopped:
    """It has drained; the process ends."""

    handed_back: int  #: what could not be finished, and is not in the statistics
    statistics: StatisticsSnapshot


_Order: TypeAlias = Configure | Grant | Report | Release | DescribeActor | StartTrace | StopTrace | Drain | Stop
_OfATrace: TypeAlias = TraceEvent | TraceEnded
_OfItsLife: TypeAlias = Loaded | Started | StartRefused | Draining | Stopped
Message: TypeAlias = _Order | _OfATrace | _OfItsLife | LimitsObeyed | Reported | ActorDescribed
