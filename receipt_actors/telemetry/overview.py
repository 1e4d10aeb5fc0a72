"""What a running system looks like at one moment: for the admin port, its page, the terminal, and embedders.

Everything here is a value that can be sent between processes as JSON: nothing of a receipt, no secret.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from receipt_actors.telemetry.statistics import StatisticsSnapshot


class State(enum.StrEnum):
    """What a system, or one process of it, is doing."""

    STARTING = "starting"
    CONSUMING = "consuming"
    WAITING = "waiting"  #: a service is unavailable: what is in flight is kept, nothing is taken in
    PAUSED = "paused"  #: by an operator: what is in flight is finished, nothing is taken in
    DRAINING = "draining"
    SILENT = "silent"  #: one of several processes that has not said for seconds how it goes: it may hang
    ENDED = "ended"  #: the tree has ended: a storm of crashes, or the end of a drain


@dataclass(frozen=True, slots=True)
class ActorOverview:
    """One actor, and what it supervises."""

    name: str  #: by which ``state`` finds it, such as ``intake`` or ``result_batcher ResultsSQS``
    kind: str  #: ``worker`` or ``supervisor``
    status: str  #: ``running``, ``suspended`` or ``restarting``
    mailbox_length: int = 0
    messages: int = 0  #: handled since it was started
    restarts: int = 0  #: of this child since the system was started
    strategy: str | None = None  #: of a supervisor
    children: tuple[ActorOverview, ...] = ()
    children_unlisted: int = 0  #: of a simple_one_for_one supervisor, beyond those listed

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``as_json`` of an overview wrote."""
        return cls(**{**data, "children": tuple(cls.from_json(child) for child in data["children"])})


@dataclass(frozen=True, slots=True)
class ServiceOverview:
    """A gateway or batcher, and the service behind it."""

    name: str  #: ``app_store``, ``ledger``, ``send to ResultsSQS``, ...
    is_available: bool  #: whether its breaker is closed
    waiting: int  #: requests that wait to be sent, or for their pause to be over
    under_way: int  #: calls that have not been answered
    retries: int  #: of requests, since the start
    unavailable_since_seconds: float | None = None  #: UNIX time


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process takes of its machine."""

    cpu_seconds: float
    memory_bytes: int  #: resident
    threads: int
    open_files: int


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that an operator may want to know of."""

    at_seconds: float  #: UNIX time; of the last one where there are several
    kind: str  #: see ``telemetry.incidents``
    summary: str  #: one line
    story: tuple[str, ...] = ()  #: lines: what led to it, and what was done about it
    message_id: str | None = None
    count: int = 1  #: how many were alike
    process: str = ""  #: where there are several
    subject: str = ""  #: whom it is about: an actor, a service

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``as_json`` of an overview wrote."""
        return cls(**{**data, "story": tuple(data["story"])})


@dataclass(frozen=True, slots=True)
class ProcessOverview:
    """One process that validates."""

    name: str  #: ``main``, or ``worker-1`` and so on
    pid: int
    started_at_seconds: float  #: UNIX time; 0 where it has not said anything of itself yet
    state: State
    in_flight: int
    reserved: int  #: credits of receives under way
    unavailable: tuple[str, ...]  #: services that keep the gate closed
    usage: Usage
    services: tuple[ServiceOverview, ...]
    tree: ActorOverview | None  #: None where its root has ended
    statistics: StatisticsSnapshot
    idle_seconds: float = 0.0  #: how long nothing has been in flight or received
    oldest_in_flight_seconds: float = 0.0  #: how long the oldest message has been

    def as_json(self, statistics: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return what ``from_json`` reads; ``statistics`` are those of this process, if they have been written."""
        return {**_fields(self), "statistics": self.statistics.as_json() if statistics is None else statistics}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``as_json`` wrote."""
        tree = data["tree"]
        return cls(
            **{
                **data,
                "state": State(data["state"]),
                "unavailable": tuple(data["unavailable"]),
                "usage": Usage(**data["usage"]),
                "services": tuple(ServiceOverview(**service) for service in data["services"]),
                "tree": None if tree is None else ActorOverview.from_json(tree),
                "statistics": StatisticsSnapshot.from_json(data["statistics"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Overview:
    """A whole system: one process, or several under one parent."""

    at_seconds: float  #: UNIX time
    version: str  #: of receipt_actors
    state: State
    source_queue: str
    queues: Mapping[str, int | None]  #: approximate number of messages by queue; None: not known just now
    processes: tuple[ProcessOverview, ...]
    statistics: StatisticsSnapshot  #: of all processes, those that have ended included
    incidents: tuple[Incident, ...] = ()  #: the newest first
    parent: ActorOverview | None = None  #: the tree of the parent, where there are several processes
    parent_usage: Usage | None = None

    @property
    def up_for_seconds(self) -> float | None:
        """How long the oldest of its processes has been running; None where none has said so yet."""
        began = [process.started_at_seconds for process in self.processes if process.started_at_seconds]
        return self.at_seconds - min(began) if began else None

    def as_json(self) -> dict[str, Any]:
        """Return what ``from_json`` reads."""
        statistics = self.statistics.as_json()
        processes = [
            # The only process has the statistics of the whole, and they are half of the work.
            process.as_json(statistics if process.statistics is self.statistics else process.statistics.as_json())
            for process in self.processes
        ]
        return {**_fields(self), "statistics": statistics, "processes": processes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``as_json`` wrote."""
        parent, usage = data["parent"], data["parent_usage"]
        return cls(
            **{
                **data,
                "state": State(data["state"]),
                "processes": tuple(ProcessOverview.from_json(process) for process in data["processes"]),
                "statistics": StatisticsSnapshot.from_json(data["statistics"]),
                "incidents": tuple(map(Incident.from_json, data["incidents"])),
                "parent": None if parent is None else ActorOverview.from_json(parent),
                "parent_usage": None if usage is None else Usage(**usage),
            }
        )


_SCALARS = frozenset({str, int, float, bool, type(None)})


def _fields(value: ProcessOverview | Overview) -> dict[str, Any]:
    """Return the fields in JSON's types, but for those that ``as_json`` writes itself."""
    special = ("statistics", "processes")
    return {each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.name not in special}


def _plain(value: object) -> Any:
    if type(value) in _SCALARS:  # most are
        return value
    if isinstance(value, State):
        return value.value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, ActorOverview | ServiceOverview | Incident | Usage):
        # A look has hundreds, each second: ``asdict`` takes three times as long, to copy what never changes.
        return {name: _plain(getattr(value, name)) for name in value.__slots__}
    return value


def state_of(processes: Sequence[ProcessOverview]) -> State:
    """Return what a system does whose processes do this: the state that most needs to be known."""
    states = {process.state for process in processes}
    for state in (State.ENDED, State.SILENT, State.DRAINING, State.STARTING, State.PAUSED, State.WAITING):
        if state in states:
            return state
    return State.CONSUMING if states else State.STARTING
