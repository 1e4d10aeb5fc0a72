"""Random processes that link, monitor, signal and kill one another, against the model of Erlang's signals.

After every stimulus, once nothing runs any more: who lives, why the others ended, whose ``terminate`` ran, and what
everyone who lives was told: every ``Exit`` and ``Down`` once, messages in the order in which each sender sent them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from pykka import ActorDeadError

from receipt_actors.otp import (
    NO_PROCESS,
    SHUTDOWN,
    Crash,
    Down,
    Exit,
    ExitReason,
    GenServer,
    Ref,
    Runtime,
    Started,
    StartFinished,
    Starting,
    Stop,
)
from tests.otp.model.common import END_REASONS, PICKS, picked
from tests.otp.model.quiet_system import QuietSystem
from tests.otp.model.signal_model import Model, Process
from tests.otp.support import WAIT_SECONDS

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["link", "link", "monitor", "monitor", "send", "unlink", "demonitor", "trap", "do not trap"]),
        PICKS,
        st.booleans(),
    ),
    max_size=5,
)
LAST_STEPS = st.tuples(
    st.sampled_from(["nothing", "stop", "exit", "exit twice", "kill", "link to the dead", "start"]), PICKS, END_REASONS
)


class Peer(GenServer):
    """Does what it is sent; writes down what else it hears."""

    def __init__(self, journal: Journal, number: int, traps: bool) -> None:
        self.journal, self.number, self.traps = journal, number, traps

    def init(self) -> None:
        self.set_trap_exit(self.traps)
        self.journal.refs[self.number] = self.ref

    def handle_cast(self, script: Callable[[Peer], Any]) -> Any:
        return script(self)

    def handle_info(self, message: Any) -> None:
        if not isinstance(message, StartFinished):
            self.journal.heard[self.number].append(message)

    def terminate(self, reason: ExitReason) -> None:
        self.journal.terminated.append((self.number, reason))


class ThreadedPeer(Peer):
    runtime = Runtime.THREAD


class Journal:
    def __init__(self) -> None:
        self.refs: dict[int, Ref] = {}
        self.heard: defaultdict[int, list[Any]] = defaultdict(list)
        self.terminated: list[tuple[int, ExitReason]] = []
        self.monitors: dict[int, int] = {}  # the real monitor by that of the model


class Observer(GenServer):
    def init(self) -> None:
        self.downs: list[Down] = []

    def handle_call(self, request: Ref | None, _from: Any) -> Any:
        if request is not None:
            return self.monitor(request)
        downs, self.downs = self.downs, []
        return downs

    def handle_info(self, message: Down) -> None:
        self.downs.append(message)


class SignalsAndMonitors(RuleBasedStateMachine):
    @initialize(peers=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=5))
    def begin(self, peers: list[tuple[bool, bool]]) -> None:
        self.model = Model()
        self.system = QuietSystem()
        self.journal = Journal()
        self.observer = self.system.start(Observer)
        self.observed: set[Process] = set()
        self.monitors: dict[int, tuple[Process, Process]] = {}  # watcher and target
        for traps, threaded in peers:
            self.start(traps, threaded)

    def teardown(self) -> None:
        if hasattr(self, "system"):
            self.system.close()

    @precondition(lambda self: len(self.model.living) < 6)
    @rule(traps=st.booleans(), threaded=st.booleans())
    def start(self, traps: bool, threaded: bool) -> None:
        """Nobody's child."""
        process = self.model.start(traps)
        self.system.start(ThreadedPeer if threaded else Peer, self.journal, process.number, traps)
        self._observe()

    @precondition(lambda self: self.model.living)
    @rule(pick=PICKS, steps=STEPS, last=LAST_STEPS)
    def act(self, pick: int, steps: list[tuple[str, int, bool]], last: tuple[str, int, ExitReason]) -> None:
        """One process does several things in one turn; what may be the death of somebody comes last."""
        self.model.forget()
        actor = picked(self.model.living, pick)
        script = [self._step(actor, *step) for step in steps]
        ending = self._last_step(actor, *last)

        def turn(peer: Peer) -> Any:
            for step in script:
                step(peer)
            return ending(peer)

        self._ref(actor).cast(turn)
        self._compare()

    @precondition(lambda self: any(each.traps for each in self.model.living) and len(self.model.living) > 1)
    @rule(pick=PICKS, pick_target=PICKS, link=st.booleans(), unlink=st.booleans(), flush=st.booleans())
    def kill_and_forget(self, pick: int, pick_target: int, link: bool, unlink: bool, flush: bool) -> None:
        """After ``demonitor(flush=True)`` there is no ``Down``; without it, and after ``unlink``, it may come."""
        model = self.model
        model.forget()
        actor = picked([each for each in model.living if each.traps], pick)
        target = picked([each for each in model.living if each is not actor], pick_target)
        ref, number = self._ref(target), self._new_monitor(actor, target)
        model.monitor(actor, target, number)
        if link:
            model.link(actor, target)
        model.kill(target)
        if unlink:
            model.unlink(actor, target)
        model.demonitor(actor, number, flush=flush)

        def turn(peer: Peer) -> None:
            monitor = self.journal.monitors[number] = peer.monitor(ref)
            if link:
                peer.link(ref)
            ref.kill()
            if unlink:
                peer.unlink(ref)
            peer.demonitor(monitor, flush=flush)

        self._ref(actor).cast(turn)
        self._compare()

    def _target(self, pick: int) -> Process:
        """Return one of those that live, or the one that was started last of those that do not."""
        return picked(self.model.living + [each for each in self.model.processes if not each.alive][-1:], pick)

    # --- steps: the model takes them at once, the real process in its turn ---

    def _step(self, actor: Process, what: str, pick: int, flag: bool) -> Callable[[Peer], Any]:
        model = self.model
        target = self._target(pick)
        ref = self._ref(target)
        match what:
            case "link" if target.alive or (actor.traps and target is not actor.parent):
                model.link(actor, target)
                return lambda peer: peer.link(ref)
            case "unlink":
                model.unlink(actor, target)
                return lambda peer: peer.unlink(ref)
            case "monitor":
                number = self._new_monitor(actor, target)
                model.monitor(actor, target, number)
                return lambda peer: self.journal.monitors.update({number: peer.monitor(ref)})
            case "demonitor":
                own = [number for number, (watcher, _) in self.monitors.items() if watcher is actor]
                if own:
                    number = picked(own, pick)
                    model.demonitor(actor, number, flush=flag)
                    return lambda peer: peer.demonitor(self.journal.monitors[number], flush=flag)
            case "send":
                text = f"message {pick}"
                model.send(actor, target, text)
                return lambda peer: ref.send((peer.number, text))
            case "trap" | "do not trap":
                before, actor.traps = actor.traps, what == "trap"
                return lambda peer: assert_equal(peer.set_trap_exit(what == "trap"), before)
        return lambda peer: None

    def _last_step(self, actor: Process, what: str, pick: int, reason: ExitReason) -> Callable[[Peer], Any]:
        model = self.model
        target = self._target(pick)
        ref = self._ref(target)
        match what:
            case "stop":
                model.stop(actor, reason)
                return lambda _peer: stop(reason)
            case "exit" | "exit twice":  # of two that would end it, the first counts
                reasons = [reason, SHUTDOWN] if what == "exit twice" else [reason]
                for each in reasons:
                    model.exit(actor, target, each)
                return lambda _peer: exit_with(ref, reasons)
            case "kill":
                model.kill(target)
                return lambda _peer: ref.kill()
            case "link to the dead" if not target.alive:
                model.link(actor, target)
                return lambda peer: peer.link(ref)
            case "start" if len(model.living) < 6:
                traps, threaded = bool(pick & 1), bool(pick & 2)
                child = model.start(traps, actor)
                actor_class = ThreadedPeer if threaded else Peer
                return lambda peer: assert_started(
                    peer.system.start_link(actor_class, self.journal, child.number, traps)
                )
        return lambda _peer: None

    def _new_monitor(self, watcher: Process, target: Process) -> int:
        self.monitors[number := len(self.monitors)] = watcher, target
        return number

    # --- comparing ---

    def _ref(self, process: Process) -> Ref:
        return self.journal.refs[process.number]

    def _compare(self) -> None:
        self.system.settle()
        model, journal = self.model, self.journal
        assert self.system.processes() == [self.observer, *map(self._ref, model.living)]
        downs = self.observer.call(None, WAIT_SECONDS)
        assert Counter((down.ref, said(down.reason)) for down in downs) == Counter(
            (self._ref(process), reason) for process, reason in model.ends.items()
        )
        terminated, journal.terminated = journal.terminated, []
        assert Counter((number, said(reason)) for number, reason in terminated) == Counter(
            (each.number, reason) for each, reason in model.terminated.items()
        )
        for process in model.living:
            self._compare_heard(process)
        journal.heard.clear()
        self._observe()

    def _compare_heard(self, process: Process) -> None:
        heard = [self._described(message) for message in self.journal.heard[process.number]]
        expected = self.model.heard[process]
        surplus = Counter(heard)
        surplus.subtract(expected)
        assert not -surplus, "never heard"
        assert +surplus <= Counter(self.model.may_hear[process]), "heard without a reason"
        for sender in self.model.processes:
            texts = [each for each in expected if each[:2] == ("message", sender)]
            assert [each for each in heard if sender in each][: len(texts)] == texts

    def _observe(self) -> None:
        """Monitor everyone from outside, once."""
        for process in self.model.living:
            if process not in self.observed:
                self.observed.add(process)
                self.observer.call(self._ref(process), WAIT_SECONDS)

    def _described(self, message: Any) -> tuple[Any, ...]:
        """Return what was heard as the model says it."""
        processes = {self._ref(each): each for each in self.model.processes}
        if isinstance(message, Exit):
            return "exit", processes[message.ref], said(message.reason)
        if isinstance(message, Down):
            number = next(number for number, monitor in self.journal.monitors.items() if monitor == message.monitor)
            return "down", number, processes[message.ref], said(message.reason)
        return "message", self.model.processes[message[0]], message[1]


def exit_with(ref: Ref, reasons: list[ExitReason]) -> None:
    for reason in reasons:
        ref.exit(reason)


def said(reason: ExitReason) -> ExitReason:
    """Return a reason as the model says it: noproc is an exception of ours."""
    return NO_PROCESS if isinstance(reason, Crash) and isinstance(reason.exception, ActorDeadError) else reason


def stop(reason: ExitReason) -> Stop:
    if isinstance(reason, Crash):
        raise reason.exception.with_traceback(None)
    return Stop(reason)


def assert_equal(actual: object, expected: object) -> None:
    assert actual == expected


def assert_started(result: object) -> None:
    assert isinstance(result, Started | Starting)


TestSignalsAndMonitors = SignalsAndMonitors.TestCase
TestSignalsAndMonitors.settings = settings(
    max_examples=2 * settings().max_examples,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
