"""The messages between a parent and its worker processes, and those to the actors ``Worker``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from receipt_actors.domain.limits import Limits
from receipt_actors.settings import Settings
from receipt_actors.telemetry.control import TraceRequest
from receipt_actors.telemetry.overview import Incident, ProcessOverview
from receipt_actors.telemetry.statistics import StatisticsSnapshot

# --- parent -> worker process ---


@dataclass(frozen=True, slots=True)
class Configure:
    settings: Settings  #: arguments would be seen by everyone on the machine
    is_replacement: bool = False  #: of one that ran: a source queue that is gone since must not keep it from starting


@dataclass(frozen=True, slots=True)
class Grant:
    """What the process may do; replaces the grant before. The first one starts the tree (``Started``).

    A new number is answered by ``LimitsObeyed``.
    """

    number: int  #: of the share
    limits: Limits
    until_seconds: float  #: of the machine's ``boottime``; then nothing new is begun
    is_paused: bool


@dataclass(frozen=True, slots=True)
class Report:
    looks_at_queues: bool = False  #: read the depths of the queues; a later report has them


@dataclass(frozen=True, slots=True)
class Release:
    """Hand back what is in flight: another node does the work."""


@dataclass(frozen=True, slots=True)
class DescribeActor:
    name: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class StartTrace:
    number: int
    request: TraceRequest  #: with the seconds that are left


@dataclass(frozen=True, slots=True)
class StopTrace:
    number: int


@dataclass(frozen=True, slots=True)
class Drain:
    seconds: float  #: to finish what is in flight; then the process ends


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
    faults: Sequence[str]  #: expected ones; the process ends
    is_configuration: bool  #: whether settings are at fault, rather than the world


@dataclass(frozen=True, slots=True)
class LimitsObeyed:
    number: int  #: of the share that the process keeps to


@dataclass(frozen=True, slots=True)
class Reported:
    """Answer ``Report``. None stands for what has not changed since the report before."""

    process: ProcessOverview
    queues: Mapping[str, int | None] | None = None
    incidents: tuple[Incident, ...] | None = None


@dataclass(frozen=True, slots=True)
class ActorDescribed:
    number: int
    description: Mapping[str, Any] | None  #: None: no actor has this name


@dataclass(frozen=True, slots=True)
class TraceEvent:
    number: int
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TraceEnded:
    number: int
    lost: int  #: events that were not sent


@dataclass(frozen=True, slots=True)
class Draining:
    seconds: float  #: how long the drain may take; a signal began it, and the process reads nothing any more


@dataclass(frozen=True, slots=True)
class Stopped:
    handed_back: int  #: messages that could not be finished; they are not in the statistics
    statistics: StatisticsSnapshot


Message: TypeAlias = (
    Configure | Grant | Report | Release | DescribeActor | StartTrace | StopTrace | Drain | Stop
    | Loaded | Started | StartRefused | LimitsObeyed | Reported | ActorDescribed | TraceEvent | TraceEnded
    | Draining | Stopped
)  # fmt: skip

# --- to the actors ``Worker``; they take ``Drain``, ``Release``, ``StopTrace`` and ``DescribeActor`` as well ---


@dataclass(frozen=True, slots=True)
class GrantAnew:
    """Its share, until when that is lent, or ``Group.is_paused`` has changed."""


@dataclass(frozen=True, slots=True)
class JoinTrace:
    number: int  #: of the group's trace in which the process takes part, if it consumes


class Phase(enum.Enum):
    LOADING = "loading"
    LOADED = "loaded"  #: it waits for its share; where other nodes have all of it, for as long as they do
    STARTING = "starting"  #: it has its share, and may consume already
    RUNNING = "running"
    DRAINING = "draining"  #: because of a signal of its own


@dataclass(frozen=True, slots=True)
class WorkerView:
    pid: int = 0  #: 0: there is no process
    phase: Phase = Phase.LOADING
