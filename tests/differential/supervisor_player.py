"""Plays a scenario of supervision on ``receipt_actors.otp`` and writes the trace that the Erlang side writes.

The counterpart of ``erlang/supervisor_player.erl``, step by step.
"""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Any

import pykka

from receipt_actors.otp import (
    AlreadyStarted,
    AutoShutdown,
    ChildCounts,
    ChildError,
    ChildInfo,
    ChildSpec,
    CountChildren,
    DeleteChild,
    GetChildSpec,
    NotStarted,
    Ref,
    RestartChild,
    Runtime,
    StartChild,
    Started,
    StartResult,
    Stop,
    TerminateChild,
    WhichChildren,
    check_child_specs,
)
from receipt_actors.otp import sys as otp_sys
from tests.differential import supervisor_model as model
from tests.differential.stage import REASONS, WAIT_SECONDS, Member, Stage, as_text
from tests.differential.supervisor_actors import ChildStart, child_spec, word
from tests.differential.supervisor_model import Scenario, Spec, Step, Worker

NO_PROCESS = "no_process"


def play(scenario: Scenario, runtime: Runtime) -> list[dict[str, Any]]:
    with Stage(runtime) as stage:
        return _Player(stage, scenario).play()


class _Player:
    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage = stage
        self._scenario = scenario
        self._workers = {
            part.label: part.start
            for part in model.parts(scenario)
            if isinstance(part, Spec) and isinstance(part.start, Worker)
        }
        self._stuck: set[Ref] = set()
        self._top: Ref | None = None

    def play(self) -> list[dict[str, Any]]:
        steps = (*self._scenario.steps, model.EndTree("top", "parent", "shutdown"))
        return [self._settled(self._begin()), *(self._settled(self._step(step)) for step in steps)]

    def _begin(self) -> Any:
        result = self._stage.start_child(ChildStart(self._stage, "top", self._scenario.tree))
        if isinstance(result, Started):
            self._top = result.ref
            return "ok"
        return self._started(result)

    # --- steps ---

    def _step(self, step: Step) -> Any:
        match step:
            case model.Check():
                return self._check(step)
            case model.End():
                found = self._the_living(step)
                if found is None:
                    return NO_PROCESS
                self._end_child(*found, step)
                return "ok"
            case model.Call():
                return self._call(step)
        tree = self._latest(step.tree)
        if tree is None:
            return NO_PROCESS
        match step:
            case model.EndTree():
                return self._end_tree(tree, step)
            case model.Burst():
                otp_sys.suspend(tree, WAIT_SECONDS)
                begun = [self._burst(tree, part) for part in step.steps]
                with contextlib.suppress(pykka.ActorDeadError):  # its parent may have ended it meanwhile
                    otp_sys.resume(tree, WAIT_SECONDS)
                return [self._answer(part) if isinstance(part, queue.SimpleQueue) else part for part in begun]
        begun_one = self._request(tree, step)
        return self._answer(begun_one) if isinstance(begun_one, queue.SimpleQueue) else begun_one

    def _check(self, step: model.Check) -> str:
        auto_shutdown = None if step.auto_shutdown is None else word(AutoShutdown, step.auto_shutdown)
        try:
            check_child_specs([child_spec(self._stage, spec) for spec in step.specs], auto_shutdown)
        except ValueError:
            return "bad_specs"
        return "ok"

    def _call(self, step: model.Call) -> Any:
        found = self._the_living(step)
        if found is None:
            return NO_PROCESS
        ref, worker = found
        if ref in self._stuck or worker.terminate == "endless":
            return "stuck"
        request = "crash" if step.how == "crash" else (step.how, REASONS[step.reason])
        return self._answer(self._stage.request(ref, request))

    def _end_tree(self, tree: Ref, step: model.EndTree) -> Any:
        stage, reason = self._stage, REASONS[step.reason]
        match step.how:
            case "parent":
                stage.act(lambda _driver: tree.exit(reason))
            case "stranger":
                stage.act_as_stranger(lambda _stranger: tree.exit(reason))
            case "kill":
                tree.kill()
            case "stop":
                otp_sys.terminate(tree, reason)
            case "call":
                return self._answer(stage.request(tree, "nonsense"))
            case "cast":
                tree.cast("nonsense")
            case "info":
                tree.send("nonsense")
        return "ok"

    def _burst(self, tree: Ref, step: Step) -> Any:
        if isinstance(step, model.EndTree):
            found_tree = self._latest(step.tree)
            if found_tree is None:
                return NO_PROCESS
            if found_tree is tree and step.how == "call":
                return self._stage.request(tree, "nonsense")
            self._end_tree(found_tree, step)
            if found_tree is not tree or step.how == "parent":  # suspended or not, that it obeys
                assert found_tree.process.wait(WAIT_SECONDS)
            return "ok"
        if not isinstance(step, model.End):
            return self._request(tree, step)
        found = self._the_living(step)
        if found is None:
            return NO_PROCESS
        if self._end_child(*found, step):
            assert found[0].process.wait(WAIT_SECONDS)
        return "ok"

    def _end_child(self, ref: Ref, worker: Worker, step: model.End) -> bool:
        """Do it, and tell whether the child ends."""
        reason = REASONS[step.reason]
        match step.how:
            case "kill":
                ref.kill()
                return True
            case "signal":
                self._stage.act_as_stranger(lambda _stranger: ref.exit(reason))
                if worker.trap_exit or step.reason == "normal":
                    if ref not in self._stuck:
                        assert self._stage.wait_for(self._stage.request(ref, "sync")) == ("reply", "ok")
                    return False
                return True
        ref.cast(Stop(reason) if step.how == "stop" else "crash")
        if worker.terminate == "endless":
            self._stuck.add(ref)
            return False
        return True

    # --- requests and answers ---

    def _request(self, tree: Ref, step: Step) -> queue.SimpleQueue[Any] | Any:
        match step:
            case model.StartChild(_, spec):
                try:
                    request: object = StartChild(child_spec(self._stage, spec))
                except ValueError:
                    return ["error", "bad spec"]
            case model.StartDynamic(_, argument):
                request = StartChild([argument])
            case model.Ask(_, function):
                request = WhichChildren() if function == "which_children" else CountChildren()
            case model.ById(_, function, id_):
                request = _BY[function](id_)
            case model.ByPid(_, function, label, index):
                members = self._stage.members(label)
                if not members:
                    return NO_PROCESS
                request = _BY[function](members[index % len(members)].ref)
        return self._stage.request(tree, request)

    def _answer(self, answer: queue.SimpleQueue[Any]) -> Any:
        kind, value = self._stage.wait_for(answer)
        if kind == "exit":
            return ["exit", as_text(value)]
        match value:
            case None:
                return "ok"
            case ChildCounts():
                return list(value)
            case ChildSpec(shutdown=shutdown):
                milliseconds = int(shutdown * 1000) if isinstance(shutdown, float | int) else shutdown.value
                return [value.id, value.restart.value, value.significant, milliseconds, value.type.value]
            case list():
                return self._which(value)
            case str():
                return value
        return self._started(value)

    def _started(self, value: StartResult | ChildError) -> Any:
        match value:
            case ChildError():
                return value.value
            case Started(ref):
                return ["ok", self._stage.reference(ref)]
            case NotStarted(AlreadyStarted(ref)):
                return ["already_started", self._stage.reference(ref)]
            case NotStarted(reason):
                return ["error", as_text(reason)]
        return ["ok", None]

    def _which(self, children: list[ChildInfo]) -> list[Any]:
        lines = [
            [id_, self._stage.reference(child) if isinstance(child, Ref) else child, type_.value]
            for id_, child, type_ in children
        ]
        if lines and lines[0][0] is None:
            lines.sort(key=lambda line: (isinstance(line[1], list), line[1]))
        return lines

    # --- who is there ---

    def _the_living(self, step: model.End | model.Call) -> tuple[Ref, Worker] | None:
        refs = [member.ref for member in self._stage.alive() if member.label == step.label]
        return (refs[step.index % len(refs)], self._workers[step.label]) if refs else None

    def _latest(self, label: str) -> Ref | None:
        refs = [member.ref for member in self._stage.alive() if member.label == label and member.is_tree]
        return refs[-1] if refs else None

    # --- waiting until nothing happens any more ---

    def _settled(self, answer: Any) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_SECONDS
        while (children := self._settle()) is None:
            assert time.monotonic() < deadline, "the tree does not come to rest"
            self._stage.act(lambda _driver: None)
        return {
            "answer": answer,
            "events": self._stage.take_events(),
            "ended": self._stage.ended(),
            "children": children,
        }

    def _settle(self) -> list[Any] | None:
        """Return what lives where all is quiet.

        That is: everything alive has been reached from the top and has answered, nobody waits for a restart, and
        nothing has been reported meanwhile.
        """
        mark = self._stage.mark()
        alive = {member.ref for member in self._stage.alive()}
        reached: set[Ref] = set()
        lines: list[Any] = []
        if self._top in alive:
            assert self._top is not None
            if not self._walk(self._stage.member(self._top), reached, lines):
                return None
        return lines if reached == alive and self._stage.mark() == mark else None

    def _walk(self, member: Member, reached: set[Ref], lines: list[Any]) -> bool:
        stage = self._stage
        if stage.is_over(member.ref):
            return False
        reached.add(member.ref)
        if not member.is_tree:
            if member.ref in self._stuck:
                return True
            kind, _ = stage.wait_for(stage.request(member.ref, "sync"))
            return bool(kind == "reply")
        kind, children = stage.wait_for(stage.request(member.ref, WhichChildren()))
        if kind != "reply" or any(info.child == "restarting" for info in children):
            return False
        lines.append([member.label, self._which(children)])
        refs = [info.child for info in children if info.child is not None]
        return all(self._walk(stage.member(ref), reached, lines) for ref in refs)


_BY = {"terminate": TerminateChild, "restart": RestartChild, "delete": DeleteChild, "get": GetChildSpec}
