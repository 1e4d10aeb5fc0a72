"""The messages between parent and worker processes, and those that only the parent's workers' actors get."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from receipt_actors.domain.limits import Limits
from receipt_actors.settings import Settings
from receipt_actors.telemetry.overview import Incident, ProcessOverview
from receipt_actors.telemetry.statistics import StatisticsSnapshot

# --- parent -> worker process ---


@dataclass(frozen=True, slots=True)
class Configure:
    """The first message. Settings do not travel as arguments, which everyone on the machine can see."""

    settings: Settings
    is_replacement: bool = False  #: of one that ran: a source queue that is gone since must not keep it from starting


@dataclass(frozen=True, slots=True)
class Grant:
    """What the process may do; replaces the grant before. The first one starts the tree (``Started``).

    A new number is answered by ``LimitsObeyed``.
    """

    number: int  #: of the share
    limits: Limits
    until_seconds: float  #: of the machine's ``boottime``; from then on nothing new is begun
    is_paused: bool  #: nothing is taken in


@dataclass(frozen=True, slots=True)
class Report:
    """Ask for ``Reported``."""

    looks_at_queues: bool = False  #: have the queues' depths read; a later report has them


@dataclass(frozen=True, slots=True)
class Release:
    """Hand back what is in flight: another node does the work."""


@dataclass(frozen=True, slots=True)
class DescribeActor:
    """Ask for ``ActorDescribed``."""

    name: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class StartTrace:
    """Trace: a ``TraceEvent`` for each event, then ``TraceEnded``."""

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


# --- worker process -> parent ---


@dataclass(frozen=True, slots=True)
class Loaded:
    """All is imported and open; only a share of the limits is missing."""


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
    """No more is in flight or under way than the share of this number allows."""

    number: int


@dataclass(frozen=True, slots=True)
class Reported:
    """The answer to ``Report``. None stands for what has not changed since the report before."""

    process: ProcessOverview
    queues: Mapping[str, int | None] | None = None
    incidents: tuple[Incident, ...] | None = None


@dataclass(frozen=True, slots=True)
class ActorDescribed:
    """The answer to ``DescribeActor``; None: no actor has this name."""

    number: int
    description: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """An event that a trace matched."""

    number: int
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TraceEnded:
    """A trace is over in this process."""

    number: int
    lost: int  #: events that were not sent


@dataclass(frozen=True, slots=True)
class Draining:
    """It was told to end by a signal, drains, and reads nothing any more."""

    seconds: float  #: how long that may take


@dataclass(frozen=True, slots=True)
class Stopped:
    """It has drained; the process ends."""

    handed_back: int  #: messages that could not be finished; they are not in the statistics
    statistics: StatisticsSnapshot


Message: TypeAlias = (
    Configure | Grant | Report | Release | DescribeActor | StartTrace | StopTrace | Drain | Stop
    | Loaded | Started | StartRefused | LimitsObeyed | Reported | ActorDescribed | TraceEvent | TraceEnded
    | Draining | Stopped
)  # fmt: skip

# --- to the workers' actors; they take ``Drain``, ``Release``, ``StopTrace`` and ``DescribeActor`` as well ---


@dataclass(frozen=True, slots=True)
class GrantAnew:
    """Its share, until when that is lent, or ``Group.is_paused`` has changed."""


@dataclass(frozen=True, slots=True)
class JoinTrace:
    """Have the process take part in this trace of the group, if it consumes."""

    number: int


class Phase(enum.Enum):
    """What a worker process is doing."""

    LOADING = "loading"
    LOADED = "loaded"  #: it waits for its share; where other nodes have all of it, for as long as they do
    STARTING = "starting"  #: it has its share, and may consume already
    RUNNING = "running"
    DRAINING = "draining"  #: because of a signal of its own


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What a worker's actor shows of itself."""

    pid: int = 0  #: 0: there is no process
    phase: Phase = Phase.LOADING
