"""A pure model of OTP's ``supervisor``, written from the manual of OTP 27: what a tree does, without any process.

``Model`` holds a tree of supervisors and workers, a time, and what happened: each ``init`` and ``terminate`` in order,
each end with its reason, each answer. One stimulus (an end, a signal, messages to one supervisor) is worked off to the
end at once; where somebody waits, the time moves on, and ``moments`` says to when.

Two things have no order: what the children of a simple_one_for_one supervisor do while they are shut down together, and
what the children of a killed supervisor do, whom nobody shuts down ("race condition" in the manual, at ``shutdown``).

Where the manual is silent the model leaves out what no user could rely on: an id of None in simple_one_for_one after a
restart that ended in ``ignore`` is not a child.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from receipt_actors.otp import (
    NORMAL,
    ONE_FOR_ALL,
    REST_FOR_ONE,
    SHUTDOWN,
    SUPERVISOR,
    TEMPORARY,
    TRANSIENT,
    AlreadyStarted,
    AutoShutdown,
    ChildCounts,
    ChildError,
    CountChildren,
    DeleteChild,
    ExitReason,
    NotStarted,
    RestartChild,
    StartChild,
    TerminateChild,
    WhichChildren,
    is_orderly,
)
from tests.otp.model.supervisor_life import Life
from tests.otp.model.supervisor_records import BAD_END, OWN_END_SECONDS, Child, Messages, Process
from tests.otp.model.supervisor_specs import SupervisorSpec, WorkerSpec


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
