"""Plays a scenario of processes on ``receipt_actors.otp`` and writes the trace that the Erlang side writes.

The counterpart of ``erlang/process_player.erl``, step by step.
"""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Any

import pykka

from receipt_actors import otp
from receipt_actors.otp import sys as otp_sys
from tests.differential import process_model as model
from tests.differential.process_model import Scenario, Step
from tests.differential.stage import REASONS, WAIT_SECONDS, Boom, Stage, as_text, when_started


class _Told:
    def __init__(self, by: int) -> None:
        self.by = by


class _Mark:
    def __init__(self, number: int) -> None:
        self.number = number


class _Asked:
    def __init__(self, by: int, how: str) -> None:
        self.by = by
        self.how = how


class _Puppet(otp.GenServer):
    def __init__(self, stage: Stage, number: int, init: str, *, trap_exit: bool, is_child: bool) -> None:
        self._stage = stage
        self._number = number
        self._init = init
        self._traps = trap_exit
        self._is_child = is_child
        self._taken = 0
        self._monitors: dict[int, tuple[int, otp.Ref]] = {}
        self._later: list[otp.From] = []

    def _see(self, *event: Any) -> None:
        self._stage.log([self._number, *event])

    def init(self) -> Any:
        self.set_trap_exit(self._traps)
        self._stage.register(self.ref, "p", self._number, is_tree=self._is_child)
        match self._init:
            case "ok":
                return None
            case "continue":
                return otp.Continue("init")
            case "ignore":
                return otp.IGNORE
            case "crash":
                raise Boom("init")
        return otp.Stop(REASONS[self._init.removeprefix("stop_")])

    # --- messages ---

    def handle_call(self, request: Any, from_: otp.From) -> Any:
        if request == "sync":
            return "ok"
        if isinstance(request, model.Act):
            return self._act(request)
        assert isinstance(request, _Asked)
        self._see("request", request.by, request.how)
        match request.how:
            case "reply":
                return "reply"
            case "later":
                self._later.append(from_)
                return otp.NO_REPLY
            case "stop_reply":
                return otp.Stop(otp.Shutdown("done"), "stopping")
            case "stop":
                return otp.Stop(otp.Shutdown("done"))
        raise Boom("request")

    def handle_cast(self, request: Any) -> Any:
        if isinstance(request, model.Act):
            return self._act(request)
        return self._see("cast", request.by)

    def handle_info(self, message: Any) -> Any:
        match message:
            case model.Act():
                return self._act(message)
            case _Told(by=by):
                self._see("send", by)
            case _Mark(number=number):
                self._see("mark", number)
            case otp.Exit(ref, reason):
                self._see("exit", self._number_of(ref), as_text(reason))
            case otp.Down(monitor, ref, reason):
                self._see("down", self._monitors[monitor][0], self._number_of(ref), as_text(reason))
        return None

    def handle_reply(self, label: Any, value: Any) -> Any:
        self._see("reply", label, value)

    def handle_failure(self, label: Any, reason: Any) -> Any:
        self._see("failure", label, as_text(reason))

    def handle_continue(self, term: Any) -> Any:
        self._see("continue", term)

    def terminate(self, reason: Any) -> Any:
        self._see("terminate", as_text(reason))

    def _number_of(self, ref: otp.Ref) -> int | str:
        member = self._stage.find(ref)
        return "stranger" if member is None else member.number

    # --- what it does ---

    def _act(self, act: model.Act) -> otp.Receiving:
        for op in act.ops:
            yield from self._op(op)
        self._see("acted")  # so that whoever waits for quiet looks once more at those whom it has sent something
        match act.then:
            case "go_on":
                return "acted" if act.how == "call" else None
            case "continue":
                return otp.Continue("act")
            case "stop":
                return otp.Stop(REASONS[act.reason])
            case "stop_reply":
                return otp.Stop(REASONS[act.reason], "stopping")
        raise Boom("call" if act.how == "call" else "cast")

    def _op(self, op: model.Op) -> otp.Receiving:
        match op:
            case model.Relate(index, how):
                self._relate(how, self._stage.at(index))
            case model.Demonitor(number, flush):
                if self._monitors:
                    self.demonitor(list(self._monitors)[number % len(self._monitors)], flush=flush)
            case model.TrapExit(flag):
                self._see("trap_exit", self.set_trap_exit(flag))
                self._traps = flag
            case model.Tell(index, how, name):
                told = _Told(self._number)
                if how == "send":
                    self._stage.at(index).send(told)
                else:
                    self.cast(name if how == "cast_name" else self._stage.at(index), told)
            case model.Request(index, how, name):
                target = self._stage.at(index) if name is None else self.system.whereis(name) or name
                if target is not self.ref:
                    self._taken += 1
                    self.send_request(target, _Asked(self._number, how), self._taken)
            case model.Answer():
                later, self._later = self._later, []
                for from_ in later:
                    from_.reply("late")
            case model.WhereIs(name):
                ref = self.system.whereis(name)
                self._see("whereis", None if ref is None else self._number_of(ref))
            case model.Spawn():
                yield from self._spawn(op)
            case model.Signal(index) if self._stage.at(index) is not self.ref:
                self._signal(self._stage.at(index), op)
            case model.ExitSelf("kill"):
                self.ref.kill()
            case model.ExitSelf(reason) if self._is_child or not self._traps:
                self.ref.exit(REASONS[reason])

    def _signal(self, ref: otp.Ref, op: model.Signal) -> None:
        if op.reason != "kill":
            ref.exit(REASONS[op.reason])
            return
        ref.kill()
        afterwards = op.afterwards
        if afterwards in {"demonitor", "flush"}:
            monitors = [monitor for monitor, (_, other) in self._monitors.items() if other is ref]
            if monitors:
                self.demonitor(monitors[-1], flush=afterwards == "flush")
        elif afterwards is not None:
            self._relate(afterwards, ref)

    def _relate(self, how: str, ref: otp.Ref) -> None:
        match how:
            case "link":
                other = self._stage.find(ref)
                assert other is not None
                if ref is self.ref or not (self._is_child or other.is_tree):
                    self.link(ref)
            case "unlink":
                self.unlink(ref)
            case "monitor":
                self._taken += 1
                self._monitors[self.monitor(ref)] = self._taken, ref

    def _spawn(self, spawn: model.Spawn) -> otp.Receiving:
        options = {"name": spawn.name, "trap_exit": spawn.trap_exit, "is_child": True}
        puppet, number = self._stage.actor_class(_Puppet), self._stage.attempt("p")
        match (yield from when_started(otp.Start(puppet, self._stage, number, spawn.init, **options)())):
            case otp.Started(ref):
                told: Any = ["ok", self._number_of(ref)]
            case otp.NotStarted(otp.AlreadyStarted(ref)):
                told = ["already_started", self._number_of(ref)]
            case otp.NotStarted(reason):
                told = ["error", as_text(reason)]
            case _:
                told = "ignore"
        self._see("spawned", told)


class Player:
    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage = stage
        self._scenario = scenario

    def play(self) -> list[dict[str, Any]]:
        for first in self._scenario.processes:
            puppet, number = self._stage.actor_class(_Puppet), self._stage.attempt("p")
            options = {"name": first.name, "trap_exit": first.trap_exit, "is_child": False}
            self._stage.system.start(puppet, self._stage, number, "ok", **options)
        return [self._settled(self._step(step)) for step in self._scenario.steps]

    def _step(self, step: Step) -> Any:
        match step:
            case model.Held(index, steps):
                held = self._stage.at(index)
                return self._hold(index, held, steps) if held.is_alive() else "no_process"
            case model.Stranger(index, reason):
                ref = self._stage.at(index)
                if REASONS[reason] is otp.KILLED:
                    ref.kill()
                else:
                    self._stage.act_as_stranger(lambda _stranger: ref.exit(REASONS[reason]))
                return "ok"
            case model.Act():
                return self._answer(self._send(step))

    def _hold(self, index: int, held: otp.Ref, steps: tuple[model.Act | model.Stranger, ...]) -> list[Any]:
        otp_sys.suspend(held, WAIT_SECONDS)
        sent: list[Any] = []
        for number, step in enumerate(steps, 1):
            sent.append(self._held_step(index, held, step))
            self._settle(held)
            held.send(_Mark(number))
        with contextlib.suppress(pykka.ActorDeadError):  # it may have been ended meanwhile
            otp_sys.resume(held, WAIT_SECONDS)
        return [self._answer(one) for one in sent]

    def _held_step(self, index: int, held: otp.Ref, step: model.Act | model.Stranger) -> Any:
        if not isinstance(step, model.Act) or self._stage.at(step.index) is not held:
            return self._step(step)
        return self._send(step) if step.index == index else "held"

    def _send(self, act: model.Act) -> Any:
        ref = self._stage.at(act.index)
        match act.how:
            case "call":
                return self._stage.request(ref, act)
            case "cast":
                ref.cast(act)
            case "send":
                ref.send(act)
        return "ok"

    def _answer(self, sent: Any) -> Any:
        if not isinstance(sent, queue.SimpleQueue):
            return sent
        kind, value = self._stage.wait_for(sent)
        return value if kind == "reply" else ["exit", as_text(value)]

    # --- waiting until nothing happens any more ---

    def _settled(self, answer: Any) -> dict[str, Any]:
        self._settle(None)
        ended = [[number, reason] for _, number, reason in self._stage.ended()]
        return {"answer": answer, "events": self._stage.take_events(), "ended": ended}

    def _settle(self, held: otp.Ref | None) -> None:
        """Wait until all (but one that is held) have answered, and nothing has been reported meanwhile."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._is_quiet(held):
            assert time.monotonic() < deadline, "the processes do not come to rest"

    def _is_quiet(self, held: otp.Ref | None) -> bool:
        stage = self._stage
        stage.join_ended()
        mark = stage.mark()
        if held is not None:
            with contextlib.suppress(pykka.ActorDeadError):
                otp_sys.get_status(held, WAIT_SECONDS)  # it handles no message, but ends where it has to
        answers = [stage.request(member.ref, "sync") for member in stage.alive() if member.ref is not held]
        return all([stage.wait_for(answer) == ("reply", "ok") for answer in answers]) and stage.mark() == mark
