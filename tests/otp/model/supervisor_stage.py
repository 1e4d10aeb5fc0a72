"""The real thing that ``supervisor_model`` is a model of: makes its specs come true and records what happens."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

from receipt_actors.otp import (
    IGNORE,
    SIMPLE_ONE_FOR_ONE,
    ChildSpec,
    Crash,
    Down,
    Exit,
    ExitReason,
    From,
    GenServer,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Runtime,
    SimpleOneForOneSupervisor,
    Start,
    Started,
    StartFinished,
    Starting,
    Stop,
    Supervisor,
)
from tests.otp.model.quiet_system import QuietSystem
from tests.otp.model.supervisor_model import (
    BAD_END,
    OWN_END_SECONDS,
    REFUSALS,
    SLOW_SECONDS,
    AnySpec,
    Event,
    NoAnswer,
    SupervisorSpec,
    WorkerSpec,
)
from tests.otp.support import WAIT_SECONDS

Key = tuple[str, int]  # the path and the number of a process, as in the model


def never(_message: object) -> bool:
    return False


class Stage:
    """An actor system with one driver, who starts trees, sends requests and monitors everyone in them."""

    def __init__(self, *, named: bool) -> None:
        self.system = QuietSystem()
        self.named = named
        self.events: list[Event] = []
        self.refs: dict[Key, Ref] = {}
        self.threads: dict[Key, threading.Thread] = {}  # of the workers that have one of their own
        self.plans: defaultdict[str, deque[str]] = defaultdict(deque)
        self._numbers: Counter[str] = Counter()
        self.driver = self.system.start(Driver)
        self.stranger = self.system.start(Driver)

    def enter(self, path: str, ref: Ref) -> Key:
        """A process is born."""
        self._numbers[path] += 1
        key = path, self._numbers[path]
        self.refs[key] = ref
        if ref.actor_class.runtime is Runtime.THREAD:
            self.threads[key] = threading.current_thread()
        self.events.append(Event("init", *key))
        return key

    def next_outcome(self, path: str) -> str:
        plan = self.plans[path]
        return plan.popleft() if plan else "ok"

    def drive(self, script: Callable[[Driver, From], Any]) -> Any:
        """Have the driver do something in one turn of its own."""
        return self.driver.call(script, WAIT_SECONDS)

    def heard(self) -> list[Any]:
        """Take what the driver has been told since."""
        return self.drive(lambda driver, _: driver.take_heard())

    def start_root(self, spec: SupervisorSpec) -> None:
        start = self.start_of(spec, str(spec.id))
        self.drive(lambda driver, _: driver.note_start(start()))

    def child_spec(self, spec: AnySpec, path: str) -> ChildSpec:
        """``path`` is that of its supervisor."""
        return ChildSpec(
            spec.id,
            self.start_of(spec, f"{path}/{spec.id}"),
            spec.restart,
            spec.shutdown,
            spec.type,
            significant=spec.significant,
        )

    def start_of(self, spec: AnySpec, path: str) -> Callable[..., Any]:
        name = path if self.named else None
        if isinstance(spec, WorkerSpec):
            return Start(WORKERS[spec.threaded, spec.traps], self, path, spec, name=name)
        if spec.strategy is SIMPLE_ONE_FOR_ONE:
            template = spec.children[0]
            children = ChildSpec(
                template.id,
                lambda token: self.start_of(template, f"{path}/{token}")(),
                template.restart,
                template.shutdown,
                template.type,
                significant=template.significant,
            )
            flags = {}
            actor_class: type[GenServer] = RecordedSimple
        else:
            children = [self.child_spec(child, path) for child in spec.children]
            flags = {"strategy": spec.strategy}
            actor_class = RecordedSupervisor
        return Start(
            actor_class,
            self,
            path,
            children,
            intensity=spec.intensity,
            period_seconds=spec.period_seconds,
            auto_shutdown=spec.auto_shutdown,
            name=name,
            **flags,
        )


class RecordedSupervisor(Supervisor):
    def __init__(self, stage: Stage, path: str, children: Sequence[ChildSpec], **flags: Any) -> None:
        super().__init__(children, **flags)
        self.stage, self.path = stage, path

    def init(self) -> Any:
        self.key = self.stage.enter(self.path, self.ref)
        return super().init()

    def terminate(self, reason: ExitReason) -> Any:
        self.stage.events.append(Event("terminate", *self.key, reason))
        return super().terminate(reason)


class RecordedSimple(SimpleOneForOneSupervisor):
    def __init__(self, stage: Stage, path: str, spec: ChildSpec, **flags: Any) -> None:
        super().__init__(spec, **flags)
        self.stage, self.path = stage, path

    def init(self) -> Any:
        self.key = self.stage.enter(self.path, self.ref)
        return super().init()

    def terminate(self, reason: ExitReason) -> Any:
        self.stage.events.append(Event("terminate", *self.key, reason))
        return super().terminate(reason)


class Worker(GenServer):
    def __init__(self, stage: Stage, path: str, spec: WorkerSpec) -> None:
        self.stage, self.path, self.spec = stage, path, spec
        self.cleanup_seconds = spec.cleanup_seconds

    def init(self) -> Any:
        self.key = self.stage.enter(self.path, self.ref)
        outcome = self.stage.next_outcome(self.path)
        if outcome == "slow":
            return self._init_slowly()
        if outcome == "ignore":
            return IGNORE
        if outcome == "raise":
            raise REFUSALS[outcome].exception.with_traceback(None)
        return Stop(REFUSALS[outcome]) if outcome == "stop" else None

    def _init_slowly(self) -> Receiving:
        yield Receive(never, SLOW_SECONDS)

    def handle_cast(self, reason: ExitReason) -> Any:
        """End by itself."""
        self.cleanup_seconds += OWN_END_SECONDS if self.cleanup_seconds else 0.0
        if isinstance(reason, Crash):
            raise reason.exception.with_traceback(None)
        return Stop(reason)

    def handle_info(self, message: Any) -> None:
        assert isinstance(message, Exit)
        assert message.ref is self.stage.stranger
        self.stage.events.append(Event("exit message", *self.key, message.reason))

    def terminate(self, reason: ExitReason) -> Any:
        self.stage.events.append(Event("terminate", *self.key, reason))
        if self.cleanup_seconds:
            return self._clean_up()
        return self._finish()

    def _clean_up(self) -> Receiving:
        yield Receive(never, self.cleanup_seconds)
        self._finish()

    def _finish(self) -> None:
        if self.spec.ends_badly:
            raise BAD_END.exception.with_traceback(None)


class TrappingWorker(Worker):
    trap_exit = True


class ThreadedWorker(Worker):
    runtime = Runtime.THREAD


class ThreadedTrappingWorker(ThreadedWorker):
    trap_exit = True


WORKERS = {
    (False, False): Worker,
    (False, True): TrappingWorker,
    (True, False): ThreadedWorker,
    (True, True): ThreadedTrappingWorker,
}


class Driver(GenServer):
    """Does what it is told in one turn, and writes down what it hears."""

    trap_exit = True

    def init(self) -> None:
        self.heard: list[Any] = []

    def take_heard(self) -> list[Any]:
        heard, self.heard = self.heard, []
        return heard

    def note_start(self, result: Started | NotStarted | Starting) -> None:
        if not isinstance(result, Starting):
            self.heard.append(result)

    def kill(self, ref: Ref) -> None:
        ref.kill()

    def handle_call(self, request: Callable[[Driver, From], Any], from_: From) -> Any:
        return request(self, from_)

    def handle_info(self, message: Any) -> None:
        assert isinstance(message, Down | Exit | StartFinished)
        self.heard.append(message.result if isinstance(message, StartFinished) else message)

    def handle_reply(self, label: int, value: Any) -> None:
        self.heard.append((label, value))

    def handle_failure(self, label: int, reason: ExitReason) -> None:
        self.heard.append((label, NoAnswer(reason)))
