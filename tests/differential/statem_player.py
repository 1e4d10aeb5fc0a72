"""Plays a scenario of a state machine on ``GenStateMachine`` and writes the trace that the Erlang side writes.

The counterpart of ``erlang/statem_player.erl``, step by step.
"""

from __future__ import annotations

import contextlib
import queue
from typing import Any

import pykka

from receipt_actors.otp import From, Ref, Runtime, StartError, Stop
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp.gen_statem import (
    CANCEL,
    UPDATE,
    Call,
    Cast,
    Enter,
    Event,
    EventTimeout,
    GenericTimeout,
    GenStateMachine,
    Info,
    Internal,
    StateTimeout,
    event_timeout,
    generic_timeout,
    keep_state,
    next_event,
    next_state,
    postpone,
    repeat_state,
    reply,
    state_timeout,
    stop_and_reply,
)
from tests.differential import statem_model as model
from tests.differential.stage import REASONS, WAIT_SECONDS, Boom, Stage, as_text
from tests.differential.statem_model import Scenario, Step

TIMES = {"zero": 0, "long": 3600.0, "infinity": None, "cancel": CANCEL, "update": UPDATE}


def play(scenario: Scenario, runtime: Runtime) -> list[dict[str, Any]]:
    with Stage(runtime) as stage:
        return _Player(stage, scenario).play()


class _Machine(GenStateMachine):
    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage = stage
        self._first = scenario.first
        self._results = list(scenario.results)
        self._entered = list(scenario.entered)
        self._calls: list[From] = []

    def init(self) -> Any:
        self._stage.register(self.ref, "m", 1)
        match self._first:
            case model.Result("next", state, actions):
                return next_state(state, *self._actions(actions))
            case model.Result("stop", reason=reason):
                return Stop(REASONS[reason])
            case model.Result("crash"):
                raise Boom("init")
        return "junk"

    def terminate(self, reason: Any) -> Any:
        self._stage.log([self.state, "terminate", as_text(reason)])

    def _on(self, event: Any, state: str) -> Any:
        if isinstance(event, Enter):
            self._stage.log([state, "enter", event.old_state])
            return self._result(self._entered.pop(0)) if self._entered else keep_state()
        if isinstance(event, Call):
            self._calls = [call for call in self._calls if call is not event.from_] + [event.from_]
        self._stage.log([state, *_told(event)])
        return self._result(self._results.pop(0)) if self._results else keep_state()

    def _result(self, result: model.Result) -> Any:
        open_calls = list(self._calls)
        actions = self._actions(result.actions)
        match result.how:
            case "next":
                return next_state(result.state, *actions)
            case "keep":
                return keep_state(*actions)
            case "repeat":
                return repeat_state(*actions)
            case "stop":
                return Stop(REASONS[result.reason])
            case "stop_reply":
                return stop_and_reply(REASONS[result.reason], *(reply(call, "stopping") for call in open_calls))
            case "crash":
                raise Boom("event")
        return "junk"

    def _actions(self, actions: tuple[model.Action, ...]) -> list[Any]:
        made: list[Any] = []
        for action in actions:
            match action:
                case model.Reply(value, oldest):
                    if self._calls:
                        made.append(reply(self._calls.pop(0 if oldest else -1), value))
                case model.Postpone(flag):
                    made.append(postpone(flag))
                case model.NextEvent(type_, content):
                    made.append(next_event(_event(type_, content)))
                case model.Timeout("timeout", time, content):
                    made.append(event_timeout(TIMES[time], content))
                case model.Timeout("state_timeout", time, content):
                    made.append(state_timeout(TIMES[time], content))
                case model.Timeout(timer, time, content):
                    made.append(generic_timeout(timer, TIMES[time], content))
        return made


class _WithHandler(_Machine):
    def handle_event(self, event: Any, state: Any) -> Any:
        return self._on(event, state)


class _WithStates(_Machine):
    def a(self, event: Any) -> Any:
        return self._on(event, "a")

    def b(self, event: Any) -> Any:
        return self._on(event, "b")

    def c(self, event: Any) -> Any:
        return self._on(event, "c")


def _event(type_: str, content: str) -> Event:
    match type_:
        case "internal":
            return Internal(content)
        case "cast":
            return Cast(content)
        case "info":
            return Info(content)
        case "timeout":
            return EventTimeout(content)
        case "state_timeout":
            return StateTimeout(content)
    return GenericTimeout(type_, content)


def _told(event: Event) -> list[str]:
    match event:
        case Call(request):
            return ["call", request]
        case Cast(request):
            return ["cast", request]
        case Info(message):
            return ["info", message]
        case Internal(content):
            return ["internal", content]
        case EventTimeout(content):
            return ["timeout", content]
        case StateTimeout(content):
            return ["state_timeout", content]
        case GenericTimeout(name, content):
            return [str(name), content]
    raise AssertionError(event)


class _Player:
    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage = stage
        self._scenario = scenario
        self._requests: list[tuple[str, queue.SimpleQueue[Any]]] = []

    def play(self) -> list[dict[str, Any]]:
        scenario = self._scenario
        base = _WithStates if scenario.has_state_functions else _WithHandler
        namespace = {"runtime": self._stage.runtime, "state_enter": scenario.state_enter}
        machine_class: type[_Machine] = type(base.__name__, (base,), namespace)
        try:
            machine = self._stage.system.start(machine_class, self._stage, scenario)
        except StartError as error:
            return [{"start": as_text(error.result.reason)}]
        trace = [self._settled(machine)]
        for step in scenario.steps:
            self._step(machine, step)
            trace.append(self._settled(machine))
        return trace

    def _step(self, machine: Ref, step: Step) -> None:
        match step:
            case model.Send():
                self._send(machine, step)
            case model.Burst(sends):
                with contextlib.suppress(pykka.ActorDeadError):
                    otp_sys.suspend(machine, WAIT_SECONDS)
                    for send in sends:
                        self._send(machine, send)
                    otp_sys.resume(machine, WAIT_SECONDS)
            case model.Replace(state):
                with contextlib.suppress(pykka.ActorDeadError):
                    otp_sys.replace_state(machine, lambda before: (state, before[1]), WAIT_SECONDS)

    def _send(self, machine: Ref, send: model.Send) -> None:
        match send.how:
            case "call":
                self._requests.append((send.content, self._stage.request(machine, send.content)))
            case "cast":
                machine.cast(send.content)
            case "info":
                machine.send(send.content)

    def _settled(self, machine: Ref) -> dict[str, Any]:
        state = None
        with contextlib.suppress(pykka.ActorDeadError):
            state = otp_sys.get_state(machine, WAIT_SECONDS)[0]
        if state is None:
            assert machine.process.wait(WAIT_SECONDS)
        self._stage.act(lambda _driver: None)  # what has been answered has come to us now
        answers, waiting = [], []
        for content, request in self._requests:
            if state is not None and request.empty():
                waiting.append((content, request))
                continue
            kind, value = self._stage.wait_for(request)
            answers.append([content, value if kind == "reply" else ["exit", as_text(value)]])
        self._requests = waiting
        ended = self._stage.ended()
        return {
            "state": state,
            "events": self._stage.take_events(),
            "ended": ended[0][2] if ended else "alive",
            "answers": answers,
        }
