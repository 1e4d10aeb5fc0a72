"""What a running system looks like at one moment. All values can be sent as JSON, and hold no receipt and no secret."""

from __future__ import annotations

import enum
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from receipt_actors.telemetry.statistics import JsonValue, StatisticsSnapshot

PROC = Path("/proc/self")


class State(enum.StrEnum):
    """What a system, or one of its processes, does."""

    STARTING = "starting"
    CONSUMING = "consuming"
    WAITING = "waiting"  #: services are unavailable: what is in flight is kept, nothing is taken in
    PAUSED = "paused"  #: by an operator: what is in flight is finished, nothing is taken in
    STANDBY = "standby"  #: other nodes do the work; it takes over from one that goes
    DRAINING = "draining"
    SILENT = "silent"  #: one of several processes that has sent no report for seconds: it may hang
    ENDED = "ended"  #: the tree has ended: a storm of crashes, or the end of a drain


@dataclass(frozen=True, slots=True)
class ActorOverview(JsonValue):
    """An actor, and what it supervises."""

    name: str  #: by which ``status --actor`` finds it, such as ``in_flight`` or ``result_batcher ResultsSQS``
    kind: str  #: ``worker`` or ``supervisor``
    status: str  #: ``running``, ``suspended`` or ``restarting``
    mailbox_length: int = 0
    messages: int = 0  #: handled since it was started
    restarts: int = 0  #: of this child since the system was started
    strategy: str | None = None  #: of a supervisor
    children: tuple[ActorOverview, ...] = ()
    children_unlisted: int = 0  #: of a simple_one_for_one supervisor, beyond those listed

    def with_descendants(self) -> Iterator[ActorOverview]:
        """Yield this actor, then all that it supervises."""
        yield self
        for child in self.children:
            yield from child.with_descendants()


@dataclass(frozen=True, slots=True)
class ServiceOverview(JsonValue):
    """A gateway or batcher, and the service behind it."""

    name: str  #: ``app_store``, ``ledger``, ``send to ResultsSQS``, ...
    is_available: bool  #: whether its breaker is closed
    waiting: int  #: requests that wait to be sent, or for their pause to be over
    under_way: int  #: calls that have not been answered
    retries: int  #: of requests, since the start
    unavailable_since_seconds: float | None = None  #: UNIX time


@dataclass(frozen=True, slots=True)
class Usage(JsonValue):
    """The resources that a process uses."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0  #: resident
    threads: int = 0
    open_files: int = 0


@dataclass(frozen=True, slots=True)
class Incident(JsonValue):
    """Something that an operator may want to know of."""

    at_seconds: float  #: UNIX time; of the last one where there are several
    kind: str  #: see ``telemetry.incidents``
    summary: str  #: one line
    story: tuple[str, ...] = ()  #: lines: what led to it, and what was done about it
    message_id: str | None = None
    count: int = 1  #: how many were alike
    process: str = ""  #: where there are several
    subject: str = ""  #: whom it is about: an actor, a service


@dataclass(frozen=True, slots=True)
class ProcessOverview(JsonValue):
    """A process that validates."""

    name: str  #: ``main``, or ``worker-1`` and so on
    pid: int
    started_at_seconds: float  #: UNIX time; 0 where it has not said anything of itself yet
    state: State
    in_flight: int = 0
    reserved: int = 0  #: credits of receives under way
    unavailable: tuple[str, ...] = ()  #: services that keep the gate closed, for one of several sources at least
    usage: Usage = Usage()
    services: tuple[ServiceOverview, ...] = ()
    tree: ActorOverview | None = None  #: None where its root has ended
    statistics: StatisticsSnapshot = field(default_factory=StatisticsSnapshot)
    idle_seconds: float = 0.0  #: see ``InFlightStatus``
    oldest_in_flight_seconds: float = 0.0  #: how long the oldest message has been
    unable_seconds: float = 0.0  #: for how long no source queue could be received from, without a break


class NodeState(enum.StrEnum):
    """What a node does of its group's work."""

    ACTIVE = "active"  #: it has a share of the limits
    WAITING = "waiting"  #: it is to be active; others are giving back what is to be its share
    STANDBY = "standby"  #: it takes over from the next active node that goes
    CUT_OFF = "cut off"  #: its lease is over, and the table of roles does not answer: it begins nothing


@dataclass(frozen=True, slots=True)
class NodeOverview(JsonValue):
    """A node of the group, as one of its nodes knows it."""

    name: str
    state: NodeState  #: what the others do is known as of their last sign
    token: int | None  #: of an active node: the one before it has a lower one
    share: Mapping[str, float | None] | None  #: by the names of ``Limits``; None: nothing
    processes: int
    seconds_since_heard: float  #: how long its beat has stood still; 0 of the node itself


@dataclass(frozen=True, slots=True)
class RoleOverview(JsonValue):
    """How a node shares the work with others."""

    role: str
    group: str
    node: str  #: the one that says so
    state: NodeState
    lease_seconds: float
    held_for_seconds: float | None  #: how long it may go on without another renewal; None: it may not
    whole: Mapping[str, float | None] | None  #: what all nodes share
    nodes: tuple[NodeOverview, ...]  #: in the order of joining

    @property
    def own(self) -> NodeOverview | None:
        """This node, as its group knows it; None: not yet, or no more."""
        return next((node for node in self.nodes if node.name == self.node), None)

    @property
    def is_active(self) -> bool:
        """Whether this node may begin new work."""
        return self.state is NodeState.ACTIVE


@dataclass(frozen=True, slots=True)
class Overview(JsonValue):
    """A whole system: one process, or several under one parent."""

    at_seconds: float  #: UNIX time
    version: str  #: of receipt_actors
    state: State
    source_queues: tuple[str, ...]  #: the first is the one that the settings begin with
    queues: Mapping[str, int | None]  #: approximate number of messages by queue; None: not known just now
    processes: tuple[ProcessOverview, ...]
    #: of all processes, those that have ended included
    statistics: StatisticsSnapshot = field(default_factory=StatisticsSnapshot)
    incidents: tuple[Incident, ...] = ()  #: the newest first
    parent: ActorOverview | None = None  #: the tree of the parent, where there are several processes
    parent_usage: Usage | None = None
    role: RoleOverview | None = None  #: None: this node is alone

    @property
    def waiting(self) -> int | None:
        """Approximate number of messages on the source queues; None if one of the numbers is unknown."""
        depths = [self.queues.get(queue) for queue in self.source_queues]
        return None if None in depths else sum(depth or 0 for depth in depths)

    @property
    def trees(self) -> Mapping[str, ActorOverview | None]:
        """The supervision tree of each process, by its name; that of the parent of several, ``parent``, comes first."""
        parent = {} if self.parent is None else {"parent": self.parent}
        return {**parent, **{process.name: process.tree for process in self.processes}}

    @property
    def usages(self) -> Mapping[int, Usage]:
        """By process id; 0 stands for the parent."""
        of_processes = {process.pid: process.usage for process in self.processes}
        return of_processes if self.parent_usage is None else {0: self.parent_usage, **of_processes}

    def cpu_seconds_since(self, earlier: Overview) -> float:
        """Return the CPU time that all processes took; a new process took all of its time since."""
        before = earlier.usages
        return sum(
            max(0.0, usage.cpu_seconds - (before[pid].cpu_seconds if pid in before else 0.0))
            for pid, usage in self.usages.items()
        )

    @property
    def up_for_seconds(self) -> float | None:
        """The age of the oldest process; None if none has reported yet."""
        began = [process.started_at_seconds for process in self.processes if process.started_at_seconds]
        return self.at_seconds - min(began) if began else None


def usage_now(proc: Path = PROC) -> Usage:
    """Measure this process, in some 0.1 ms. Without ``/proc`` the memory is the peak."""
    return Usage(time.process_time(), _memory_bytes(proc), _threads(proc), _open_files(proc))


def _memory_bytes(proc: Path) -> int:
    try:
        return int((proc / "statm").read_bytes().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def _threads(proc: Path) -> int:
    try:
        return len(os.listdir(proc / "task"))  # those of C libraries as well
    except OSError:
        return threading.active_count()


def _open_files(proc: Path) -> int:
    for folder in (proc / "fd", Path("/dev/fd")):
        try:
            return len(os.listdir(folder)) - 1  # without the one that lists them
        except OSError:
            continue
    return 0


_MOST_URGENT_FIRST = [
    *(State.ENDED, State.SILENT, State.DRAINING, State.STARTING, State.PAUSED, State.WAITING),
    *(State.CONSUMING, State.STANDBY),
]


def state_of(processes: Sequence[ProcessOverview]) -> State:
    """Return the state of a system of these processes: the one that most needs to be known."""
    states = {process.state for process in processes} or {State.STARTING}
    return min(states, key=_MOST_URGENT_FIRST.index)
