"""What the parent's actors say to each other, and what they share with the main thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from receipt_actors.domain.limits import Limits
from receipt_actors.otp import ActorSystem
from receipt_actors.scale.processes.group_trace import GroupTrace
from receipt_actors.scale.processes.messages import StartRefused
from receipt_actors.scale.processes.shares import Shares
from receipt_actors.scale.processes.worker_process import WorkerProcess
from receipt_actors.settings import Settings


@dataclass(slots=True)
class Group:
    """What is true of all workers.

    Who controls the group writes ``is_closing``, ``is_paused`` and ``traces``, the workers' actors the rest.
    """

    names: Sequence[str]
    program: Sequence[str]
    settings: Settings = field(repr=False)
    whole: Limits  #: the most that all workers ever share
    shares: Shares = field(repr=False)
    on_refusal: Callable[[], None]
    on_complete: Callable[[], None]
    is_closing: bool = False  #: no process is started any more
    is_paused: bool = False  #: by an operator
    traces: dict[int, GroupTrace] = field(default_factory=dict)  #: those that run
    refusal: StartRefused | None = None  #: why a worker could not start before all had been started once
    started: set[str] = field(default_factory=set)  #: workers that have consumed
    processes: dict[str, WorkerProcess] = field(default_factory=dict)  #: those alive

    @property
    def is_complete(self) -> bool:
        """Tell whether every worker has been started once: from then on nothing that keeps one away ends the rest."""
        return len(self.started) == len(self.names)

    def kill(self) -> None:
        """End every worker process on the spot. Safe in a signal handler."""
        self.is_closing = True
        for process in list(self.processes.values()):
            process.kill()


# --- of workers ---


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What a worker's actor shows of itself."""

    pid: int  #: 0: there is no process
    is_running: bool  #: it consumes, and says how it goes
    is_draining: bool
    waits_for_its_share: bool = False  #: it has been loaded, and nobody has given it anything to work with yet


# --- the main thread -> workers; they take ``Drain``, ``Release``, ``StopTrace`` and ``DescribeActor`` as well ---


@dataclass(frozen=True, slots=True)
class AwaitEnd:
    """Answered by None when the process of a worker that drains has ended."""


@dataclass(frozen=True, slots=True)
class PauseChanged:
    """``Group.is_paused`` is another: tell the process, where it consumes."""


@dataclass(frozen=True, slots=True)
class JoinTrace:
    """Have the process take part in this one of the group's traces, where it consumes."""

    number: int


def cast_to_workers(actors: ActorSystem, group: Group, request: object) -> None:
    """Cast to the actors of all workers; to one that is being restarted nothing is said."""
    for name in group.names:
        worker = actors.whereis(name)
        if worker is not None:
            worker.cast(request)
