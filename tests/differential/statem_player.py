"""Plays a scenario of a state machine on ``GenStateMachine`` and writes the trace that the Erlang side writes.

The counterpart of ``erlang/statem_player.erl``, step by step.
"""

from __future__ import annotations

import contextlib
import queue
from typing import Any

import pykka

from receipt_actors import otp
from receipt_actors.otp import gen_statem as statem
from receipt_actors.otp import sys as otp_sys
from tests.differential import statem_model as model
from tests.differential.stage import REASONS, WAIT_SECONDS, Boom, Stage, as_text
from tests.differential.statem_model import Scenario, Step

TIMES = {"zero": 0, "long": 3600.0, "infinity": None, "cancel": statem.CANCEL, "update": statem.UPDATE}


class _Machine(statem.GenStateMachine):
    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage = stage
        self._first = scenario.first
        self._results = list(scenario.results)
        self._entered = list(scenario.entered)
        self._calls: list[otp.From] = []

    def init(self) -> Any:
        self._stage.register(self.ref, "m", 1)
        match self._first:
            case model.Result("next", state, actions):
                return statem.next_state(state, *self._actions(actions))
            case model.Result("stop", reason=reason):
                return otp.Stop(REASONS[reason])
            case model.Result("crash"):
                raise Boom("init")
        return "junk"

    def terminate(self, reason: Any) -> Any:
        self._stage.log([self.state, "terminate", as_text(reason)])

    def _on(self, event: Any, state: str) -> Any:
        if isinstance(event, statem.Enter):
            self._stage.log([state, "enter", event.old_state])
            return self._result(self._entered.pop(0)) if self._entered else statem.keep_state()
        if isinstance(event, statem.Call):
            self._calls = [call for call in self._calls if call is not event.from_] + [event.from_]
        self._stage.log([state, *_told(event)])
        return self._result(self._results.pop(0)) if self._results else statem.keep_state()

    def _result(self, result: model.Result) -> Any:
        open_calls = list(self._calls)
        actions = self._actions(result.actions)
        match result.how:
            case "next":
                return statem.next_state(result.state, *actions)
            case "keep":
                return statem.keep_state(*actions)
            case "repeat":
                return statem.repeat_state(*actions)
            case "stop":
                return otp.Stop(REASONS[result.reason])
            case "stop_reply":
                return statem.stop_and_reply(
                    REASONS[result.reason], *(statem.reply(call, "stopping") for call in open_calls)
                )
            case "crash":
                raise Boom("event")
        return "junk"

    def _actions(self, actions: tuple[model.Action, ...]) -> list[Any]:
        made: list[Any] = []
        for action in actions:
            match action:
                case model.Reply(value, oldest):
                    if self._calls:
                        made.append(statem.reply(self._calls.pop(0 if oldest else -1), value))
                case model.Postpone(flag):
                    made.append(statem.postpone(flag))
                case model.NextEvent(type_, content):
                    made.append(statem.next_event(_event(type_, content)))
                case model.Timeout("timeout", time, content):
                    made.append(statem.event_timeout(TIMES[time], content))
                case model.Timeout("state_timeout", time, content):
                    made.append(statem.state_timeout(TIMES[time], content))
                case model.Timeout(timer, time, content):
                    made.append(statem.generic_timeout(timer, TIMES[time], content))
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


#: By the names that the Erlang side gives them; any other is a generic time-out.
_EVENTS = {
    "internal": statem.Internal,
    "cast": statem.Cast,
    "info": statem.Info,
    "timeout": statem.EventTimeout,
    "state_timeout": statem.StateTimeout,
}


def _event(type_: str, content: str) -> statem.Event:
    return _EVENTS[type_](content) if type_ in _EVENTS else statem.GenericTimeout(type_, content)


def _told(event: statem.Event) -> list[str]:
    match event:
        case statem.Call(request):
            return ["call", request]
        case statem.GenericTimeout(name, content):
            return [str(name), content]
    (name,) = (name for name, kind in _EVENTS.items() if isinstance(event, kind))
    (content,) = (getattr(event, field) for field in event.__match_args__)
    return [name, content]


class Player:
    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage = stage
        self._scenario = scenario
        self._requests: list[tuple[str, queue.SimpleQueue[Any]]] = []

    def play(self) -> list[dict[str, Any]]:
        scenario = self._scenario
        base = _WithStates if scenario.has_state_functions else _WithHandler
        machine_class = self._stage.actor_class(base, state_enter=scenario.state_enter)
        try:
            machine = self._stage.system.start(machine_class, self._stage, scenario)
        except otp.StartError as error:
            return [{"start": as_text(error.result.reason)}]
        trace = [self._settled(machine)]
        for step in scenario.steps:
            self._step(machine, step)
            trace.append(self._settled(machine))
        return trace

    def _step(self, machine: otp.Ref, step: Step) -> None:
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

    def _send(self, machine: otp.Ref, send: model.Send) -> None:
        match send.how:
            case "call":
                self._requests.append((send.content, self._stage.request(machine, send.content)))
            case "cast":
                machine.cast(send.content)
            case "info":
                machine.send(send.content)

    def _settled(self, machine: otp.Ref) -> dict[str, Any]:
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
