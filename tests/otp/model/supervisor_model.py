"""A pure model of OTP's ``supervisor``, written from the manual of OTP 27: what a tree does, without any process.

First trees as values and the strategies that draw them, then what the model knows of a tree, at last what happens.
``Model`` holds a tree of supervisors and workers, a time, and what happened: each ``init`` and ``terminate`` in order,
each end with its reason, each answer. One stimulus (an end, a signal, messages to one supervisor) is worked off to the
end at once; where somebody waits, the time moves on, and ``moments`` says to when.

Two things have no order: what the children of a simple_one_for_one supervisor do while they are shut down together, and
what the children of a killed supervisor do, whom nobody shuts down ("race condition" in the manual, at ``shutdown``).

Where the manual is silent the model leaves out what no user could rely on: an id of None in simple_one_for_one after a
restart that ended in ``ignore`` is not a child.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from hypothesis import strategies as st

from receipt_actors.otp import (
    BRUTAL_KILL,
    IGNORE,
    INFINITY,
    KILLED,
    NORMAL,
    ONE_FOR_ALL,
    PERMANENT,
    REST_FOR_ONE,
    SHUTDOWN,
    SIMPLE_ONE_FOR_ONE,
    SUPERVISOR,
    TEMPORARY,
    TRANSIENT,
    WORKER,
    AlreadyStarted,
    AutoShutdown,
    ChildCounts,
    ChildError,
    ChildType,
    CountChildren,
    Crash,
    DeleteChild,
    ExitReason,
    FailedToStartChild,
    NotStarted,
    Restart,
    RestartChild,
    Shutdown,
    StartChild,
    Strategy,
    TerminateChild,
    WhichChildren,
    is_orderly,
)

T = TypeVar("T")

#: Hypothesis draws a number, and the state says among whom it picks.
PICKS = st.integers(0, 60)


def picked(candidates: Sequence[T], pick: int) -> T:
    return candidates[pick % len(candidates)]


class Boom(Exception):
    """A crash; two of the same text are the same."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boom) and other.args == self.args

    def __hash__(self) -> int:
        return hash(self.args)


END_REASONS = st.sampled_from([Crash(Boom("by itself")), NORMAL, SHUTDOWN, Shutdown("done")])


IDS = st.sampled_from("abcd")


@dataclass(frozen=True)
class WorkerSpec:
    id: Hashable
    restart: Restart
    shutdown: Any
    traps: bool
    threaded: bool
    cleanup_seconds: float  #: how long its ``terminate`` takes
    ends_badly: bool  #: its ``terminate`` raises
    significant: bool
    type: ChildType = WORKER


@dataclass(frozen=True)
class SupervisorSpec:
    id: Hashable
    restart: Restart
    shutdown: Any
    strategy: Strategy
    intensity: int
    period_seconds: float
    auto_shutdown: AutoShutdown
    significant: bool
    children: tuple[AnySpec, ...]  #: one for simple_one_for_one
    type: ChildType = SUPERVISOR


AnySpec = WorkerSpec | SupervisorSpec


def allowed(spec: AnySpec, auto_shutdown: AutoShutdown) -> AnySpec:
    """Return the spec as a supervisor with this ``auto_shutdown`` takes it."""
    takes = spec.restart is not PERMANENT and auto_shutdown is not AutoShutdown.NEVER
    return replace(spec, significant=spec.significant and takes)


def gently_ended(spec: AnySpec) -> AnySpec:
    """Return the spec with no supervisor in it that is killed: its children's names are freed at some time only."""
    if isinstance(spec, WorkerSpec):
        return spec
    return replace(spec, shutdown=INFINITY, children=tuple(map(gently_ended, spec.children)))


worker_specs = st.builds(
    WorkerSpec,
    id=IDS,
    restart=st.sampled_from(Restart),
    # What a terminate takes and what it is given are never the same: who is first would be left open.
    shutdown=st.sampled_from([1.0, INFINITY, 4.0, BRUTAL_KILL]),
    traps=st.booleans(),
    threaded=st.booleans(),
    cleanup_seconds=st.sampled_from([0.0, 2.0, 6.0]),
    ends_badly=st.sampled_from([False, False, True]),
    significant=st.sampled_from([False, True, True]),
)


@st.composite
def supervisor_specs(draw: st.DrawFn, *, depth: int) -> SupervisorSpec:
    """Draw a supervisor with ``depth`` levels of supervisors, itself included, at most."""
    strategy = draw(st.sampled_from(Strategy))
    is_simple = strategy is SIMPLE_ONE_FOR_ONE  # it takes no auto_shutdown
    auto_shutdown = AutoShutdown.NEVER if is_simple else draw(st.sampled_from(AutoShutdown))
    # Sizes are drawn first: lists as hypothesis likes them are short.
    size = 1 if is_simple else draw(st.sampled_from([1, 2, 3, 4, 4, 0]))
    children = [replace(draw(child_specs(depth=depth - 1)), id=id_) for id_ in "abcd"[:size]]
    return SupervisorSpec(
        id=draw(IDS),
        restart=draw(st.sampled_from(Restart)),
        # A supervisor that is given seconds to end may be killed half-way: the manual warns of it.
        shutdown=draw(st.sampled_from([INFINITY, INFINITY, BRUTAL_KILL])),
        strategy=strategy,
        intensity=draw(st.sampled_from([4, 8, 1, 2, 20, 0])),
        period_seconds=draw(st.sampled_from([5.0, 10.0])),
        auto_shutdown=auto_shutdown,
        significant=draw(st.booleans()),
        children=tuple(allowed(child, auto_shutdown) for child in children),
    )


def child_specs(*, depth: int) -> st.SearchStrategy[AnySpec]:
    return worker_specs | supervisor_specs(depth=depth) if depth else worker_specs


SLOW_SECONDS = 3.0  #: how long a slow ``init`` takes
OWN_END_SECONDS = 0.5  #: how much longer a cleanup takes that nobody asked for: it ends at a time of its own


BAD_END = Crash(Boom("in terminate"))
REFUSALS = {"stop": Shutdown("refused"), "raise": Crash(Boom("in init"))}  #: why an ``init`` fails


@dataclass(frozen=True)
class NoAnswer:
    """The supervisor ended first, for this reason."""

    reason: ExitReason


@dataclass(frozen=True)
class Event:
    """The ``number``-th process at ``path`` did this."""

    what: str
    path: str
    number: int
    reason: ExitReason | None = None


@dataclass(eq=False)
class Child:
    """What a supervisor knows of one child. ``process`` is the last one where it is restarting."""

    spec: AnySpec
    path: str
    process: Process | None = None
    restarting: bool = False

    @property
    def running(self) -> bool:
        return self.process is not None and not self.restarting

    @property
    def idle(self) -> bool:
        return self.process is None and not self.restarting

    @property
    def shown(self) -> Any:
        return "restarting" if self.restarting else self.process


@dataclass(eq=False)
class Process:
    """A worker or a supervisor, from its start to its end."""

    spec: AnySpec
    path: str
    number: int
    parent: Process | None
    alive: bool = True
    children: dict[Hashable, Child] = field(default_factory=dict)  # a supervisor's; by token in simple_one_for_one
    mailbox: deque[tuple[Any, ...]] = field(default_factory=deque)
    restarts: list[float] = field(default_factory=list)

    @property
    def is_simple(self) -> bool:
        return isinstance(self.spec, SupervisorSpec) and self.spec.strategy is SIMPLE_ONE_FOR_ONE

    @property
    def key(self) -> tuple[str, int]:
        return self.path, self.number


#: Requests, each with the number of its answer, and children to kill.
Messages: TypeAlias = Sequence[tuple[int, Any] | Process]


class Life:
    """The processes of a tree, without what a supervisor decides."""

    def __init__(self) -> None:
        self.now = 0.0
        self.root: Process | None = None
        self.living: list[Process] = []  #: in start order
        self.plans: defaultdict[str, deque[str]] = defaultdict(deque)  #: how the next ``init`` at a path will go
        self._numbers: Counter[str] = Counter()
        self._ending: tuple[Process, float, ExitReason] | None = None  # who cleans up by itself, until when
        self._unordered = 0
        self._aside = 0
        self.forget()

    def forget(self) -> None:
        """Begin a new stimulus."""
        self.events: list[list[Event]] = []  #: what happens in order; what stands in one list has none
        self.loose: list[Event] = []  #: what happens at some time
        self.ends: list[tuple[Process, ExitReason]] = []
        self.answers: dict[int, Any] = {}
        self.moments: set[float] = set()

    # --- starting ---

    def _start(self, spec: AnySpec, path: str, parent: Process | None) -> Any:
        """Return the process, ``IGNORE`` or ``NotStarted``."""
        self._numbers[path] += 1
        process = Process(spec, path, self._numbers[path], parent)
        self.living.append(process)
        self._log("init", process)
        failure = self._init_supervisor(process) if isinstance(spec, SupervisorSpec) else self._init_worker(process)
        if failure is None:
            return process
        process.alive = False
        self.living.remove(process)
        return failure

    def _init_worker(self, worker: Process) -> Any:
        plan = self.plans[worker.path]
        outcome = plan.popleft() if plan else "ok"
        if outcome == "slow":
            self._wait(SLOW_SECONDS)
        if outcome == "ignore":
            return IGNORE
        return NotStarted(REFUSALS[outcome]) if outcome in REFUSALS else None

    def _init_supervisor(self, supervisor: Process) -> NotStarted | None:
        assert isinstance(supervisor.spec, SupervisorSpec)
        if supervisor.is_simple:
            return None
        for spec in supervisor.spec.children:
            supervisor.children[spec.id] = Child(spec, f"{supervisor.path}/{spec.id}")
        for child in list(supervisor.children.values()):
            result = self._start_child(supervisor, child)
            if isinstance(result, NotStarted):
                self._stop_children(supervisor, list(supervisor.children.values()))
                return NotStarted(Shutdown(FailedToStartChild(child.spec.id, result.reason)))
        return None

    def _start_child(self, supervisor: Process, child: Child) -> Any:
        result = self._start(child.spec, child.path, supervisor)
        if isinstance(result, NotStarted):
            return result
        child.restarting = False
        child.process = result if isinstance(result, Process) else None
        if child.process is None and (child.spec.restart is TEMPORARY or supervisor.is_simple):
            self._forget_child(supervisor, child)
        return result

    # --- ending ---

    def _end(self, process: Process, reason: ExitReason) -> None:
        process.alive = False
        if self._ending is not None and self._ending[0] is process:
            self._ending = None
        self.living.remove(process)
        self.ends.append((process, reason))
        for kind, *rest in process.mailbox:
            if kind == "request":
                self.answers[rest[0]] = NoAnswer(reason)
        if process.parent is not None and process.parent.alive:
            process.parent.mailbox.append(("exit", process, reason))
        if process is self.root:
            self.root = None

    def _kill(self, process: Process) -> None:
        self._end(process, KILLED)
        for child in process.children.values():
            if child.running and child.process.alive:
                with self._meanwhile():
                    self._exit_from_parent(child.process, KILLED)

    def _exit_from_parent(self, process: Process, reason: ExitReason) -> None:
        if isinstance(process.spec, SupervisorSpec):
            self._stop_supervisor(process, reason)
        elif process.spec.traps:
            self._terminate_worker(process, reason)
        else:
            self._end(process, reason)

    def _terminate_worker(self, worker: Process, reason: ExitReason) -> None:
        assert isinstance(worker.spec, WorkerSpec)
        self._log("terminate", worker, reason)
        self._wait(worker.spec.cleanup_seconds)
        self._end(worker, BAD_END if worker.spec.ends_badly else reason)

    def _stop_supervisor(self, supervisor: Process, reason: ExitReason) -> None:
        self._log("terminate", supervisor, reason)
        children = list(supervisor.children.values())
        if supervisor.is_simple:
            self._stop_together(supervisor, children)
        else:
            self._stop_children(supervisor, children)
        self._end(supervisor, reason)

    def _stop_together(self, supervisor: Process, children: Sequence[Child]) -> None:
        began, ended = self.now, self.now
        with self._in_any_order():
            for child in children:
                self.now = began
                self._stop_child(supervisor, child)
                ended = max(ended, self.now)
        self.now = ended
        self._end_who_is_done()

    def _stop_children(self, supervisor: Process, children: Sequence[Child]) -> None:
        for child in reversed(children):
            self._stop_child(supervisor, child)

    def _stop_child(self, supervisor: Process, child: Child) -> None:
        """End it if it runs; a temporary child, and one of simple_one_for_one, is forgotten then."""
        if child.running:
            self._shut_down(supervisor, child.process, child.spec.shutdown)
        child.process, child.restarting = None, False
        if child.spec.restart is TEMPORARY or supervisor.is_simple:
            self._forget_child(supervisor, child)

    def _shut_down(self, supervisor: Process, process: Process, shutdown: Any) -> None:
        if process.alive:
            if shutdown is BRUTAL_KILL:
                self._kill(process)
            elif isinstance(process.spec, WorkerSpec) and process.spec.traps:
                self._wait_for_cleanup(process, shutdown)
            else:
                self._exit_from_parent(process, SHUTDOWN)
        supervisor.mailbox = deque(each for each in supervisor.mailbox if each[:2] != ("exit", process))

    def _wait_for_cleanup(self, worker: Process, shutdown: Any) -> None:
        assert isinstance(worker.spec, WorkerSpec)
        if self._ending is not None and self._ending[0] is worker:
            seconds, reason = self._ending[1] - self.now, self._ending[2]
        else:
            self._log("terminate", worker, SHUTDOWN)
            seconds, reason = worker.spec.cleanup_seconds, BAD_END if worker.spec.ends_badly else SHUTDOWN
        if shutdown is not INFINITY and seconds > shutdown:
            seconds, reason = shutdown, KILLED
        self._wait(seconds)
        if worker.alive:
            self._end(worker, reason)

    @staticmethod
    def _forget_child(supervisor: Process, child: Child) -> None:
        for id_, each in list(supervisor.children.items()):
            if each is child:
                del supervisor.children[id_]

    # --- what happened, and when ---

    def _log(self, what: str, process: Process, reason: ExitReason | None = None) -> None:
        event = Event(what, *process.key, reason)
        if self._aside:
            self.loose.append(event)
        elif self._unordered:
            self.events[-1].append(event)
        else:
            self.events.append([event])

    def _wait(self, seconds: float) -> None:
        if seconds:
            self.now += seconds
            self.moments.add(self.now)
        if not (self._aside or self._unordered):
            self._end_who_is_done()

    def _end_who_is_done(self) -> None:
        if self._ending is not None and self._ending[1] <= self.now:
            worker, moment, reason = self._ending
            self.moments.add(moment)
            self._end(worker, reason)

    @contextmanager
    def _meanwhile(self) -> Iterator[None]:
        """Nobody waits for what happens here."""
        began = self.now
        self._aside += 1
        yield
        self._aside -= 1
        self.now = began

    @contextmanager
    def _in_any_order(self) -> Iterator[None]:
        if not self._unordered:
            self.events.append([])
        self._unordered += 1
        yield
        self._unordered -= 1


class Model(Life):
    """See the module."""

    # --- stimuli ---

    def start_root(self, spec: SupervisorSpec) -> Process | NotStarted:
        result = self._start(spec, str(spec.id), None)
        self._work()
        assert isinstance(result, Process | NotStarted)
        self.root = result if isinstance(result, Process) else None
        return result

    def exit_root(self, reason: ExitReason) -> None:
        """Its parent ends it."""
        assert self.root is not None
        self._exit_from_parent(self.root, reason)
        self._work()

    def stop_worker(self, worker: Process, reason: ExitReason, meanwhile: Messages = ()) -> None:
        """It ends by itself; its supervisor gets messages while it cleans up."""
        assert isinstance(worker.spec, WorkerSpec)
        self._log("terminate", worker, reason)
        reason = BAD_END if worker.spec.ends_badly else reason
        if worker.spec.cleanup_seconds:
            self._ending = worker, self.now + worker.spec.cleanup_seconds + OWN_END_SECONDS, reason
        else:
            self._end(worker, reason)
        assert worker.parent is not None
        self.send(worker.parent, meanwhile)

    def signal(self, process: Process, reason: ExitReason) -> None:
        """Somebody who is not its parent sends an exit signal."""
        if isinstance(process.spec, WorkerSpec):
            if process.spec.traps:
                self._log("exit message", process, reason)
            elif reason != NORMAL:
                self._end(process, reason)
        self._work()

    def kill(self, process: Process) -> None:
        self._kill(process)
        self._work()

    def send(self, supervisor: Process, messages: Messages) -> None:
        """At once: requests to a supervisor (with the number of the answer), and kills of children of it."""
        for message in messages:
            if isinstance(message, Process):
                self._kill(message)
            else:
                supervisor.mailbox.append(("request", *message))
        self._work()

    def advance(self, seconds: float) -> None:
        self._wait(seconds)
        self._work()

    def ask(self, supervisor: Process, request: Any) -> Any:
        """What a supervisor answers when nothing else is going on."""
        return self._answer(supervisor, request)

    # --- a supervisor at work ---

    def _work(self) -> None:
        while True:
            supervisor = next((each for each in self.living if each.mailbox), None)
            if supervisor is None:
                if self._ending is None:
                    break
                self._wait(self._ending[1] - self.now)
                continue
            kind, *rest = supervisor.mailbox.popleft()
            if kind == "exit":
                self._child_ended(supervisor, *rest)
            elif kind == "try again":
                self._try_again(supervisor, *rest)
            else:
                number, request = rest
                self.answers[number] = self._answer(supervisor, request)
        self.now = max(self.now, *self.moments, 0.0)

    def _child_ended(self, supervisor: Process, process: Process, reason: ExitReason) -> None:
        child = next((c for c in supervisor.children.values() if c.running and c.process is process), None)
        if child is None:
            return
        restart = child.spec.restart
        if restart is TEMPORARY or (restart is TRANSIENT and is_orderly(reason)):
            child.process = None
            if restart is TEMPORARY or supervisor.is_simple:
                self._forget_child(supervisor, child)
            if child.spec.significant and self._shuts_down_now(supervisor):
                self._stop_supervisor(supervisor, SHUTDOWN)
        else:
            self._restart(supervisor, child)

    @staticmethod
    def _shuts_down_now(supervisor: Process) -> bool:
        """Tell whether the end of a significant child ends the supervisor as well."""
        assert isinstance(supervisor.spec, SupervisorSpec)
        if supervisor.spec.auto_shutdown is AutoShutdown.ALL_SIGNIFICANT:
            return not any(child.spec.significant and not child.idle for child in supervisor.children.values())
        return supervisor.spec.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT

    def _try_again(self, supervisor: Process, key: Any) -> None:
        child = key if isinstance(key, Child) else supervisor.children.get(key)
        if child is not None and child.restarting:
            self._restart(supervisor, child)

    def _restart(self, supervisor: Process, child: Child) -> None:
        spec = supervisor.spec
        assert isinstance(spec, SupervisorSpec)
        supervisor.restarts = [at for at in supervisor.restarts if at >= self.now - spec.period_seconds]
        supervisor.restarts.append(self.now)
        if len(supervisor.restarts) > spec.intensity:
            self._stop_supervisor(supervisor, SHUTDOWN)
            return
        group = [child]
        if spec.strategy in (ONE_FOR_ALL, REST_FOR_ONE):
            children = list(supervisor.children.values())
            group = children if spec.strategy is ONE_FOR_ALL else children[children.index(child) :]
            self._stop_children(supervisor, group)
        for each in group:
            if each.spec.restart is TEMPORARY:
                continue
            if isinstance(self._start_child(supervisor, each), NotStarted):
                each.restarting = True
                supervisor.mailbox.append(("try again", each if supervisor.is_simple else each.spec.id))
                break

    # --- requests ---

    def _answer(self, supervisor: Process, request: Any) -> Any:
        match request:
            case WhichChildren():
                return [
                    (None if supervisor.is_simple else id_, child.shown, child.spec.type)
                    for id_, child in supervisor.children.items()
                ]
            case CountChildren():
                return self._count(supervisor)
        return self._answer_simple(supervisor, request) if supervisor.is_simple else self._change(supervisor, request)

    @staticmethod
    def _count(supervisor: Process) -> ChildCounts:
        assert isinstance(supervisor.spec, SupervisorSpec)
        children = supervisor.children.values()
        is_simple = supervisor.is_simple
        active = sum(child.running and (is_simple or child.process.alive) for child in children)
        supervisors = sum(child.spec.type is SUPERVISOR for child in children)
        return ChildCounts(1 if is_simple else len(children), active, supervisors, len(children) - supervisors)

    def _answer_simple(self, supervisor: Process, request: Any) -> Any:
        assert isinstance(supervisor.spec, SupervisorSpec)
        match request:
            case StartChild((token,)):
                child = Child(supervisor.spec.children[0], f"{supervisor.path}/{token}")
                return self._add(supervisor, token, child)
            case TerminateChild(Process() as process):
                for child in list(supervisor.children.values()):
                    if child.process is process:
                        self._stop_child(supervisor, child)
                        return None
                return ChildError.NOT_FOUND if process.alive else None
        return ChildError.SIMPLE_ONE_FOR_ONE

    def _change(self, supervisor: Process, request: Any) -> Any:
        if isinstance(request, StartChild):
            spec = request.spec_or_args
            present = supervisor.children.get(spec.id)
            if present is None:
                return self._add(supervisor, spec.id, Child(spec, f"{supervisor.path}/{spec.id}"))
            return NotStarted(AlreadyStarted(present.process)) if present.running else ChildError.ALREADY_PRESENT
        child = supervisor.children.get(request.id)
        if child is None:
            return ChildError.NOT_FOUND
        if isinstance(request, TerminateChild):
            return self._stop_child(supervisor, child)
        if not child.idle:
            return ChildError.RUNNING if child.running else ChildError.RESTARTING
        if isinstance(request, RestartChild):
            return self._start_child(supervisor, child)
        assert isinstance(request, DeleteChild)
        return self._forget_child(supervisor, child)

    def _add(self, supervisor: Process, key: Hashable, child: Child) -> Any:
        supervisor.children[key] = child
        result = self._start_child(supervisor, child)
        if isinstance(result, NotStarted):
            self._forget_child(supervisor, child)
        return result
