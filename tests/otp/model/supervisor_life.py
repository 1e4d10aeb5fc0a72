"""What starts, ends and waits in the model of a supervisor, and the record of it; see ``supervisor_model``."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from receipt_actors.otp import (
    BRUTAL_KILL,
    IGNORE,
    INFINITY,
    KILLED,
    SHUTDOWN,
    TEMPORARY,
    ExitReason,
    FailedToStartChild,
    NotStarted,
    Shutdown,
)
from tests.otp.model.supervisor_records import BAD_END, REFUSALS, SLOW_SECONDS, Child, Event, NoAnswer, Process
from tests.otp.model.supervisor_specs import AnySpec, SupervisorSpec, WorkerSpec


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
