"""Plays a scenario of supervision on ``receipt_actors.otp`` and writes the trace that the Erlang side writes.

The counterpart of ``erlang/supervisor_player.erl``, step by step.
"""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Any

import pykka

from receipt_actors import otp
from receipt_actors.otp import sys as otp_sys
from tests.differential import supervisor_model as model
from tests.differential.stage import REASONS, WAIT_SECONDS, Boom, Member, Stage, as_text
from tests.differential.supervisor_model import Scenario, Spec, Step, Tree, Worker

NO_PROCESS = "no_process"


SHUTDOWNS = (otp.BRUTAL_KILL, otp.INFINITY)


class _Worker(otp.GenServer):
    def __init__(self, stage: Stage, label: str, number: int, how: str, worker: Worker) -> None:
        self._stage = stage
        self._label = label
        self._number = number
        self._how = how
        self._worker = worker

    def _log(self, kind: str, reason: Any) -> None:
        self._stage.log([kind, self._label, self._number, as_text(reason)])

    def init(self) -> Any:
        self._stage.register(self.ref, self._label, self._number)
        match self._how:
            case "ok":
                return None
            case "ignore":
                return otp.IGNORE
            case "crash":
                raise Boom("init")
        return otp.Stop(REASONS[self._how.removeprefix("stop_")])

    def handle_call(self, request: Any, from_: otp.From) -> Any:
        match request:
            case "sync":
                return "ok"
            case ("stop", reason):
                return otp.Stop(reason)
            case ("stop_reply", reason):
                return otp.Stop(reason, "stopping")
        raise Boom("call")

    def handle_cast(self, request: Any) -> Any:
        if isinstance(request, otp.Stop):
            return request
        raise Boom("cast")

    def handle_info(self, message: Any) -> Any:
        assert isinstance(message, otp.Exit)
        self._log("exit_message", message.reason)

    def terminate(self, reason: Any) -> Any:
        if self._worker.terminate == "endless":
            return self._never_end()
        self._log("terminate", reason)
        if self._worker.terminate == "crash":
            raise Boom("terminate")
        return None

    def _never_end(self) -> otp.Receiving:
        yield otp.Receive(lambda _message: False)


class _Tree(otp.Supervisor):
    """As Erlang's: it is there before its flags and specs are looked at."""

    def __init__(self, stage: Stage, label: str, number: int, tree: Tree) -> None:
        stage.register(self.ref, label, number, is_tree=True)
        super().__init__(
            [child_spec(stage, spec) for spec in tree.children],
            strategy=word(otp.Strategy, tree.strategy),
            intensity=tree.intensity,
            period_seconds=tree.period,
            auto_shutdown=word(otp.AutoShutdown, tree.auto_shutdown),
        )


class _DynamicTree(otp.SimpleOneForOneSupervisor):
    def __init__(self, stage: Stage, label: str, number: int, tree: Tree) -> None:
        stage.register(self.ref, label, number, is_tree=True)
        if len(tree.children) != 1:
            raise ValueError("simple_one_for_one takes one spec")  # there is no way to give it none, or two
        super().__init__(
            child_spec(stage, tree.children[0]),
            intensity=tree.intensity,
            period_seconds=tree.period,
            auto_shutdown=word(otp.AutoShutdown, tree.auto_shutdown),
        )


class _IgnoredTree(otp.GenServer):
    def __init__(self, stage: Stage, label: str, number: int) -> None:
        stage.register(self.ref, label, number, is_tree=True)

    def init(self) -> Any:
        return otp.IGNORE


class ChildStart:
    def __init__(self, stage: Stage, label: str, start: Worker | Tree) -> None:
        self._stage = stage
        self._label = label
        self._start = start

    def __call__(self, *arguments: Any) -> otp.StartResult | otp.Starting:
        stage, label, start = self._stage, self._label, self._start
        number = stage.attempt(label)
        stage.log(["start", label, number, arguments[0] if arguments else None])
        how = start.starts[number - 1] if number <= len(start.starts) else "ok"
        match how:
            case "refused":
                return otp.NotStarted(otp.Crash(Boom("refused")))
            case "start_crash":
                raise Boom("start")
            case "junk":
                junk: Any = "junk"
                return junk
        if isinstance(start, Worker):
            actor_class = stage.actor_class(_Worker, trap_exit=start.trap_exit)
            return otp.Start(actor_class, stage, label, number, how, start, name=start.name)()
        if how == "ignore":
            return otp.Start(_IgnoredTree, stage, label, number)()
        base = _DynamicTree if start.strategy == "simple_one_for_one" else _Tree
        return otp.Start(stage.actor_class(base), stage, label, number, start)()


def word(words: Any, value: Any) -> Any:
    """Return the enum member, or what is none as it is, for the other side to refuse."""
    return next((word for word in words if word.value == value), value)


def child_spec(stage: Stage, spec: Spec) -> otp.ChildSpec:
    given: dict[str, Any] = {
        "restart": word(otp.Restart, spec.restart),
        "shutdown": spec.shutdown / 1000 if isinstance(spec.shutdown, int) else word(SHUTDOWNS, spec.shutdown),
        "type": word(otp.ChildType, spec.type),
        "significant": spec.significant,
    }
    fields = {name: value for name, value in given.items() if getattr(spec, name) is not None}
    return otp.ChildSpec(spec.id, ChildStart(stage, spec.label, spec.start), **fields)


class Player:
    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage = stage
        self._scenario = scenario
        self._workers = {
            part.label: part.start
            for part in model.parts(scenario)
            if isinstance(part, Spec) and isinstance(part.start, Worker)
        }
        self._stuck: set[otp.Ref] = set()
        self._top: otp.Ref | None = None

    def play(self) -> list[dict[str, Any]]:
        steps = (*self._scenario.steps, model.EndTree("top", "parent", "shutdown"))
        return [self._settled(self._begin()), *(self._settled(self._step(step)) for step in steps)]

    def _begin(self) -> Any:
        result = self._stage.start_child(ChildStart(self._stage, "top", self._scenario.tree))
        if isinstance(result, otp.Started):
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
        auto_shutdown = None if step.auto_shutdown is None else word(otp.AutoShutdown, step.auto_shutdown)
        try:
            otp.check_child_specs([child_spec(self._stage, spec) for spec in step.specs], auto_shutdown)
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

    def _end_tree(self, tree: otp.Ref, step: model.EndTree) -> Any:
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

    def _burst(self, tree: otp.Ref, step: Step) -> Any:
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

    def _end_child(self, ref: otp.Ref, worker: Worker, step: model.End) -> bool:
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
        ref.cast(otp.Stop(reason) if step.how == "stop" else "crash")
        if worker.terminate == "endless":
            self._stuck.add(ref)
            return False
        return True

    # --- requests and answers ---

    def _request(self, tree: otp.Ref, step: Step) -> queue.SimpleQueue[Any] | Any:
        match step:
            case model.StartChild(_, spec):
                try:
                    request: object = otp.StartChild(child_spec(self._stage, spec))
                except ValueError:
                    return ["error", "bad spec"]
            case model.StartDynamic(_, argument):
                request = otp.StartChild([argument])
            case model.Ask(_, function):
                request = otp.WhichChildren() if function == "which_children" else otp.CountChildren()
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
            case otp.ChildCounts():
                return list(value)
            case otp.ChildSpec(shutdown=shutdown):
                milliseconds = int(shutdown * 1000) if isinstance(shutdown, float | int) else shutdown.value
                return [value.id, value.restart.value, value.significant, milliseconds, value.type.value]
            case list():
                return self._which(value)
            case str():
                return value
        return self._started(value)

    def _started(self, value: otp.StartResult | otp.ChildError) -> Any:
        match value:
            case otp.ChildError():
                return value.value
            case otp.Started(ref):
                return ["ok", self._stage.reference(ref)]
            case otp.NotStarted(otp.AlreadyStarted(ref)):
                return ["already_started", self._stage.reference(ref)]
            case otp.NotStarted(reason):
                return ["error", as_text(reason)]
        return ["ok", None]

    def _which(self, children: list[otp.ChildInfo]) -> list[Any]:
        lines = [
            [id_, self._stage.reference(child) if isinstance(child, otp.Ref) else child, type_.value]
            for id_, child, type_ in children
        ]
        if lines and lines[0][0] is None:
            lines.sort(key=lambda line: (isinstance(line[1], list), line[1]))
        return lines

    # --- who is there ---

    def _the_living(self, step: model.End | model.Call) -> tuple[otp.Ref, Worker] | None:
        refs = [member.ref for member in self._stage.alive() if member.label == step.label]
        return (refs[step.index % len(refs)], self._workers[step.label]) if refs else None

    def _latest(self, label: str) -> otp.Ref | None:
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
        reached: set[otp.Ref] = set()
        lines: list[Any] = []
        if self._top in alive:
            assert self._top is not None
            if not self._walk(self._stage.member(self._top), reached, lines):
                return None
        return lines if reached == alive and self._stage.mark() == mark else None

    def _walk(self, member: Member, reached: set[otp.Ref], lines: list[Any]) -> bool:
        stage = self._stage
        if stage.is_over(member.ref):
            return False
        reached.add(member.ref)
        if not member.is_tree:
            if member.ref in self._stuck:
                return True
            kind, _ = stage.wait_for(stage.request(member.ref, "sync"))
            return bool(kind == "reply")
        kind, children = stage.wait_for(stage.request(member.ref, otp.WhichChildren()))
        if kind != "reply" or any(info.child == "restarting" for info in children):
            return False
        lines.append([member.label, self._which(children)])
        refs = [info.child for info in children if info.child is not None]
        return all(self._walk(stage.member(ref), reached, lines) for ref in refs)


_BY = {"terminate": otp.TerminateChild, "restart": otp.RestartChild, "delete": otp.DeleteChild, "get": otp.GetChildSpec}
