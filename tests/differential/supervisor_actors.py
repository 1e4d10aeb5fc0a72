"""The actors of a scenario of supervision, on our side: workers and supervisors that do as the scenario says."""

from __future__ import annotations

from typing import Any

from receipt_actors.otp import (
    BRUTAL_KILL,
    IGNORE,
    INFINITY,
    AutoShutdown,
    ChildSpec,
    ChildType,
    Crash,
    Exit,
    From,
    GenServer,
    NotStarted,
    Receive,
    Receiving,
    Restart,
    Runtime,
    SimpleOneForOneSupervisor,
    Start,
    Starting,
    StartResult,
    Stop,
    Strategy,
    Supervisor,
)
from tests.differential.stage import REASONS, Boom, Stage, as_text
from tests.differential.supervisor_model import Spec, Tree, Worker

SHUTDOWNS = (BRUTAL_KILL, INFINITY)


class _Worker(GenServer):
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
                return IGNORE
            case "crash":
                raise Boom("init")
        return Stop(REASONS[self._how.removeprefix("stop_")])

    def handle_call(self, request: Any, from_: From) -> Any:
        match request:
            case "sync":
                return "ok"
            case ("stop", reason):
                return Stop(reason)
            case ("stop_reply", reason):
                return Stop(reason, "stopping")
        raise Boom("call")

    def handle_cast(self, request: Any) -> Any:
        if isinstance(request, Stop):
            return request
        raise Boom("cast")

    def handle_info(self, message: Any) -> Any:
        assert isinstance(message, Exit)
        self._log("exit_message", message.reason)

    def terminate(self, reason: Any) -> Any:
        if self._worker.terminate == "endless":
            return self._never_end()
        self._log("terminate", reason)
        if self._worker.terminate == "crash":
            raise Boom("terminate")
        return None

    def _never_end(self) -> Receiving:
        yield Receive(lambda _message: False)


class _TrappingWorker(_Worker):
    trap_exit = True


class _ThreadWorker(_Worker):
    runtime = Runtime.THREAD


class _ThreadTrappingWorker(_TrappingWorker):
    runtime = Runtime.THREAD


_WORKERS = {
    (Runtime.POOLED, False): _Worker,
    (Runtime.POOLED, True): _TrappingWorker,
    (Runtime.THREAD, False): _ThreadWorker,
    (Runtime.THREAD, True): _ThreadTrappingWorker,
}


class _Tree(Supervisor):
    """As Erlang's: it is there before its flags and specs are looked at."""

    def __init__(self, stage: Stage, label: str, number: int, tree: Tree) -> None:
        stage.register(self.ref, label, number, is_tree=True)
        super().__init__(
            [child_spec(stage, spec) for spec in tree.children],
            strategy=word(Strategy, tree.strategy),
            intensity=tree.intensity,
            period_seconds=tree.period,
            auto_shutdown=word(AutoShutdown, tree.auto_shutdown),
        )


class _DynamicTree(SimpleOneForOneSupervisor):
    def __init__(self, stage: Stage, label: str, number: int, tree: Tree) -> None:
        stage.register(self.ref, label, number, is_tree=True)
        if len(tree.children) != 1:
            raise ValueError("simple_one_for_one takes one spec")  # there is no way to give it none, or two
        super().__init__(
            child_spec(stage, tree.children[0]),
            intensity=tree.intensity,
            period_seconds=tree.period,
            auto_shutdown=word(AutoShutdown, tree.auto_shutdown),
        )


class _IgnoredTree(GenServer):
    def __init__(self, stage: Stage, label: str, number: int) -> None:
        stage.register(self.ref, label, number, is_tree=True)

    def init(self) -> Any:
        return IGNORE


class _ThreadTree(_Tree):
    runtime = Runtime.THREAD


class _ThreadDynamicTree(_DynamicTree):
    runtime = Runtime.THREAD


_TREES: dict[tuple[Runtime, bool], Any] = {
    (Runtime.POOLED, False): _Tree,
    (Runtime.POOLED, True): _DynamicTree,
    (Runtime.THREAD, False): _ThreadTree,
    (Runtime.THREAD, True): _ThreadDynamicTree,
}


class ChildStart:
    def __init__(self, stage: Stage, label: str, start: Worker | Tree) -> None:
        self._stage = stage
        self._label = label
        self._start = start

    def __call__(self, *arguments: Any) -> StartResult | Starting:
        stage, label, start = self._stage, self._label, self._start
        number = stage.attempt(label)
        stage.log(["start", label, number, arguments[0] if arguments else None])
        how = start.starts[number - 1] if number <= len(start.starts) else "ok"
        match how:
            case "refused":
                return NotStarted(Crash(Boom("refused")))
            case "start_crash":
                raise Boom("start")
            case "junk":
                junk: Any = "junk"
                return junk
        if isinstance(start, Worker):
            actor_class = _WORKERS[stage.runtime, start.trap_exit]
            return Start(actor_class, stage, label, number, how, start, name=start.name)()
        if how == "ignore":
            return Start(_IgnoredTree, stage, label, number)()
        return Start(_TREES[stage.runtime, start.strategy == "simple_one_for_one"], stage, label, number, start)()


def word(words: Any, value: Any) -> Any:
    """Return the enum member, or what is none as it is, for the other side to refuse."""
    return next((word for word in words if word.value == value), value)


def child_spec(stage: Stage, spec: Spec) -> ChildSpec:
    given: dict[str, Any] = {
        "restart": word(Restart, spec.restart),
        "shutdown": spec.shutdown / 1000 if isinstance(spec.shutdown, int) else word(SHUTDOWNS, spec.shutdown),
        "type": word(ChildType, spec.type),
        "significant": spec.significant,
    }
    fields = {name: value for name, value in given.items() if getattr(spec, name) is not None}
    return ChildSpec(spec.id, ChildStart(stage, spec.label, spec.start), **fields)
