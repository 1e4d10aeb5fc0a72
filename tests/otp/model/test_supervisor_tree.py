"""Random supervision trees against the model of OTP's ``supervisor``: whatever happens, they agree on all of it.

After every stimulus, once nothing runs any more: who runs and in which order they were started, every ``init`` and
``terminate`` in order, every answer, one ``Down`` with the right reason for everyone who ended, names and threads.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from itertools import cycle
from typing import Any, TypeAlias

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from receipt_actors.otp import (
    KILLED,
    AlreadyStarted,
    CountChildren,
    DeleteChild,
    Down,
    Exit,
    ExitReason,
    NotStarted,
    RestartChild,
    StartChild,
    Started,
    TerminateChild,
    WhichChildren,
    count_children,
    which_children,
)
from tests.otp.model.supervisor_model import (
    END_REASONS,
    PICKS,
    AnySpec,
    Event,
    Model,
    Process,
    SupervisorSpec,
    WorkerSpec,
    allowed,
    child_specs,
    gently_ended,
    picked,
    supervisor_specs,
)
from tests.otp.model.supervisor_stage import Driver, Stage
from tests.otp.support import WAIT_SECONDS

REQUESTS_BY_ID = {"terminate": TerminateChild, "restart": RestartChild, "delete": DeleteChild}
OUTCOMES = st.lists(st.sampled_from(["stop", "raise", "ignore", "slow", "ok"]), max_size=4)
#: What is sent, about which child, how the next starts of that child will go, and the spec of a new one.
MESSAGES = st.one_of(
    st.tuples(
        st.just("kill") | st.sampled_from([f"kill, then {what}" for what in ("which", "count", *REQUESTS_BY_ID)]),
        PICKS,
        OUTCOMES,
        st.none(),
    ),
    st.tuples(st.sampled_from(["which", "count", *REQUESTS_BY_ID]), PICKS, OUTCOMES, st.none()),
    st.tuples(st.just("start"), PICKS, OUTCOMES, child_specs(depth=1)),
)
TREES = st.one_of([supervisor_specs(depth=depth) for depth in (1, 2, 3)])
Message: TypeAlias = tuple[str, int, list[str], Any]
MANY_STIMULI = 8  #: after which the root may end


class SupervisorTree(RuleBasedStateMachine):
    """One tree, and all that can happen to it."""

    @initialize(named=st.booleans(), specs=st.lists(TREES, min_size=1, max_size=3), outcomes=OUTCOMES, pick=PICKS)
    def begin(self, named: bool, specs: list[SupervisorSpec], outcomes: list[str], pick: int) -> None:
        self.model = Model()
        self.stage = Stage(named=named)
        self.specs = cycle(map(gently_ended, specs) if named else specs)
        self.everyone: dict[tuple[str, int], Process] = {}  # also those that have ended
        self.monitors: dict[tuple[str, int], int] = {}
        self.stimuli = 0  # since the root was started
        self.requests = 0
        self.tokens = 0
        paths = [path for path, spec in every_path(specs[0], str(specs[0].id)) if isinstance(spec, WorkerSpec)]
        if paths:
            self._plan(picked(paths, pick), outcomes)

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            self.stage.system.close()

    # --- what can happen ---

    @rule(pick=PICKS, reason=END_REASONS, outcomes=OUTCOMES, meanwhile=st.lists(MESSAGES, max_size=2))
    def end_worker(self, pick: int, reason: ExitReason, outcomes: list[str], meanwhile: list[Message]) -> None:
        """A worker ends by itself; its next starts will go as ``outcomes`` say."""
        workers = self._workers()
        if not workers:
            return
        worker = picked(workers, pick)
        ref = self._ref(worker)
        assert worker.parent is not None and isinstance(worker.spec, WorkerSpec)
        self._plan(worker.path, outcomes)
        modelled, script = self._burst(worker.parent, meanwhile if worker.spec.cleanup_seconds else [])

        def end() -> None:
            ref.cast(reason)
            self.stage.system.settle()
            self.stage.drive(script)

        self._do(lambda: self.model.stop_worker(worker, reason, modelled), end)

    @rule(pick=PICKS, messages=st.lists(MESSAGES, min_size=1, max_size=6))
    def send_at_once(self, pick: int, messages: list[Message]) -> None:
        """Requests to one supervisor and kills of its children, all of them before it handles the first."""
        supervisors = self._supervisors()
        if supervisors:
            self._send(picked(supervisors, pick), messages)

    @rule(pick=PICKS, reason=END_REASONS | st.just(KILLED), outcomes=OUTCOMES)
    def send_exit_signal(self, pick: int, reason: ExitReason, outcomes: list[str]) -> None:
        """From somebody who is no parent: a supervisor and who traps exits do not mind, unless it is a kill."""
        mortals = self._mortals()
        if not mortals:
            return
        process = picked(mortals, pick)
        ref = self._ref(process)
        self._plan(process.path, outcomes)
        if reason == KILLED:
            self._do(lambda: self.model.kill(process), ref.kill)
        else:
            self._do(
                lambda: self.model.signal(process, reason),
                lambda: self.stage.stranger.call(lambda _, __: ref.exit(reason), WAIT_SECONDS),
            )

    @rule(reason=END_REASONS)
    def end_root(self, reason: ExitReason) -> None:
        """Its parent ends the root of a tree that is no longer young."""
        root = self.model.root
        if root is not None and self.stimuli >= MANY_STIMULI:
            ref = self._ref(root)
            self._do(lambda: self.model.exit_root(reason), lambda: self.stage.drive(lambda _, __: ref.exit(reason)))

    @rule(seconds=st.sampled_from([1.0, 2.0, 5.0, 6.0, 10.0, 11.0]))
    def let_time_pass(self, seconds: float) -> None:
        """Restarts are forgotten; nothing else depends on the time when nothing runs."""
        if any(each.restarts for each in self.model.living):
            self._do(lambda: self.model.advance(seconds), lambda: None)

    # --- who is there ---

    def _supervisors(self) -> list[Process]:
        """Return those that run, in start order; where there is no tree, the next one is started."""
        if self.model.root is None:
            self.stimuli = 0
            spec = next(self.specs)
            self._do(lambda: self.model.start_root(spec), lambda: self.stage.start_root(spec))
            for supervisor in [each for each in self.model.living if each.is_simple]:
                self._send(supervisor, 2 * [("start", 0, [], None)])
        return [each for each in self.model.living if isinstance(each.spec, SupervisorSpec)]

    def _workers(self) -> list[Process]:
        self._supervisors()
        return [each for each in self.model.living if isinstance(each.spec, WorkerSpec)]

    def _mortals(self) -> list[Process]:
        """Return those that may be killed: not the root of a young tree; with names, no supervisor, as the names of
        its children may then still be taken when it is started again.
        """
        workers = self._workers()
        return workers if self.stage.named else self.model.living[self.stimuli < MANY_STIMULI :]

    # --- requests ---

    def _send(self, supervisor: Process, messages: list[Message]) -> None:
        modelled, script = self._burst(supervisor, messages)
        self._do(lambda: self.model.send(supervisor, modelled), lambda: self.stage.drive(script))

    def _burst(
        self, supervisor: Process, messages: list[Message]
    ) -> tuple[list[tuple[int, Any] | Process], Callable[[Driver, Any], None]]:
        """Return the messages for the model, and what sends the real ones in one turn."""
        modelled: list[tuple[int, Any] | Process] = []
        real: list[Callable[[Driver], None]] = []
        destination = self._ref(supervisor)

        def send(request: Any, real_request: Any) -> None:
            self.requests += 1
            modelled.append((self.requests, request))
            real.append(
                partial(Driver.send_request, destination=destination, request=real_request, label=self.requests)
            )

        for what, pick, outcomes, spec in messages:
            # restart_child and delete_child are not for simple_one_for_one: it gets more children instead, mostly.
            if what == "start" or (supervisor.is_simple and what in ("restart", "delete") and pick % 4 != 3):
                send(*self._start_request(supervisor, spec, outcomes))
                continue
            kill, _, request = what.partition(", then ") if what.startswith("kill") else ("", "", what)
            subject = self._subject(supervisor, pick)
            if kill:
                victims = [each for each in self._mortals() if each.parent is supervisor and each not in modelled]
                if not victims:
                    continue
                victim = picked(victims, pick)
                modelled.append(victim)
                real.append(partial(Driver.kill, ref=self._ref(victim)))
                self._plan(victim.path, outcomes)
                subject = victim if supervisor.is_simple else victim.spec.id
            elif what == "restart" and not isinstance(subject, Process):
                self._plan(f"{supervisor.path}/{subject}", outcomes)
            if request:
                send(*self._request(request, subject))

        def script(driver: Driver, _from: Any) -> None:
            for each in real:
                each(driver)

        return modelled, script

    def _subject(self, supervisor: Process, pick: int) -> Hashable:
        """Return whom a request is about: an id, or for simple_one_for_one mostly a process."""
        known: list[Hashable] = list(supervisor.children)
        if supervisor.is_simple:
            known = [each for each in self.everyone.values() if each.parent is supervisor]
        return picked(known, pick) if known and pick % 4 != 3 else picked("abcd", pick)

    def _request(self, what: str, subject: Hashable) -> tuple[Any, Any]:
        """Return a request for the model, and the same for the supervisor."""
        if what in REQUESTS_BY_ID:
            request = REQUESTS_BY_ID[what]
            return request(subject), request(self._ref(subject) if isinstance(subject, Process) else subject)
        request = WhichChildren() if what == "which" else CountChildren()
        return request, request

    def _start_request(self, supervisor: Process, spec: AnySpec, outcomes: list[str]) -> tuple[Any, Any]:
        assert isinstance(supervisor.spec, SupervisorSpec)
        if supervisor.is_simple:
            self.tokens += 1
            token = f"#{self.tokens}"
            self._plan(f"{supervisor.path}/{token}", outcomes)
            return StartChild((token,)), StartChild((token,))
        spec = allowed(spec, supervisor.spec.auto_shutdown)
        if self.stage.named:
            spec = gently_ended(spec)
        self._plan(f"{supervisor.path}/{spec.id}", outcomes)
        return StartChild(spec), StartChild(self.stage.child_spec(spec, supervisor.path))

    # --- doing it, and comparing ---

    def _plan(self, path: str, outcomes: list[str]) -> None:
        self.model.plans[path] = deque(outcomes)
        self.stage.plans[path] = deque(outcomes)

    def _do(self, modelled: Callable[[], Any], real: Callable[[], Any]) -> None:
        model, system = self.model, self.stage.system
        model.forget()
        self.stimuli += 1
        started = modelled()
        real()
        system.settle()
        for moment in sorted(model.moments):
            system.advance_to(moment)
        self.everyone.update({process.key: process for process in [*model.living, *(each for each, _ in model.ends)]})
        assert system.clock.monotonic() == model.now
        self._compare_events()
        self._compare_messages(started)
        self._compare_processes()
        self._compare_answers()
        self._monitor_all()

    def _ref(self, process: Process) -> Any:
        return self.stage.refs[process.key]

    def _compare_events(self) -> None:
        happened, self.stage.events[:] = list(self.stage.events), []
        loose = Counter(self.model.loose)
        assert loose <= Counter(happened)
        in_order = [event for event in happened if event not in loose]
        expected: list[Event] = []
        for together in self.model.events:
            here = slice(len(expected), len(expected) + len(together))
            in_order[here] = sorted(in_order[here], key=repr)
            expected += sorted(together, key=repr)
        assert in_order == expected

    def _compare_messages(self, started: Any) -> None:
        """What the driver has been told: how the root started and ended, answers, ends of those it monitors."""
        heard = self.stage.heard()
        answers = dict(each for each in heard if type(each) is tuple)
        assert len(answers) == sum(type(each) is tuple for each in heard), "an answer came twice"
        assert answers.keys() == self.model.answers.keys()
        for number, answer in self.model.answers.items():
            self._compare_answer(answers[number], answer)

        downs = [each for each in heard if isinstance(each, Down)]
        ends = [(process, reason) for process, reason in self.model.ends if process.key in self.monitors]
        expected = [Down(self.monitors[each.key], self._ref(each), reason) for each, reason in ends]
        assert sorted(downs, key=lambda down: down.monitor) == sorted(expected, key=lambda down: down.monitor)

        exits = [each for each in heard if isinstance(each, Exit)]
        assert exits == [Exit(self._ref(each), reason) for each, reason in ends if each.parent is None]

        starts = [each for each in heard if isinstance(each, Started | NotStarted)]
        assert len(starts) == (started is not None)
        if starts:
            self._compare_answer(starts[0], started)

    def _compare_answer(self, actual: Any, expected: Any) -> None:
        if isinstance(expected, Process):
            assert actual == Started(self._ref(expected))
        elif isinstance(expected, NotStarted) and isinstance(expected.reason, AlreadyStarted):
            assert actual == NotStarted(AlreadyStarted(self._ref(expected.reason.ref)))
        elif isinstance(expected, list):
            children = [(id_, self._ref(c) if isinstance(c, Process) else c, type_) for id_, c, type_ in expected]
            if any(id_ is None for id_, _, _ in expected):  # simple_one_for_one promises no order
                actual, children = sorted(actual, key=repr), sorted(children, key=repr)
            assert actual == children
        else:
            assert actual == expected

    def _compare_processes(self) -> None:
        model, stage = self.model, self.stage
        refs = [self._ref(process) for process in model.living]
        assert stage.system.processes() == [stage.driver, stage.stranger, *refs]
        assert stage.system.registered() == ({p.path: self._ref(p) for p in model.living} if stage.named else {})
        living = {process.key for process in model.living}
        for key, thread in list(stage.threads.items()):
            if key in living:
                assert thread.is_alive()
            else:
                del stage.threads[key]
                thread.join(WAIT_SECONDS)
                assert not thread.is_alive()

    def _compare_answers(self) -> None:
        """Ask every supervisor."""
        for supervisor in self._supervisors():
            ref = self._ref(supervisor)
            self._compare_answer(which_children(ref), self.model.ask(supervisor, WhichChildren()))
            self._compare_answer(count_children(ref), self.model.ask(supervisor, CountChildren()))

    def _monitor_all(self) -> None:
        new = [process for process in self.model.living if process.key not in self.monitors]
        refs = [self._ref(process) for process in new]
        monitors = self.stage.drive(lambda driver, _: [driver.monitor(ref) for ref in refs])
        self.monitors.update({process.key: monitor for process, monitor in zip(new, monitors, strict=True)})


def every_path(spec: AnySpec, path: str) -> Iterator[tuple[str, AnySpec]]:
    yield path, spec
    for child in spec.children if isinstance(spec, SupervisorSpec) else ():
        yield from every_path(child, f"{path}/{child.id}")


TestSupervisorTree = SupervisorTree.TestCase
TestSupervisorTree.settings = settings(
    max_examples=settings().max_examples,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
