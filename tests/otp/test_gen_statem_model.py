"""The rules of ``GenStateMachine`` against a model, for any machine: which callbacks are made, in which order.

The model is another way to say what the manual says. There is one line of events and a cursor in it: what stands before
the cursor has been postponed, what stands at it is next. A state change puts the cursor back to the start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receipt_actors.otp.gen_statem import (
    CANCEL,
    UPDATE,
    CancelTimer,
    Cast,
    Enter,
    EventTimeout,
    GenericTimeout,
    Info,
    Internal,
    KeepState,
    NextEvent,
    NextState,
    Postpone,
    RepeatState,
    SetTimeout,
    StartTimer,
    StateMachineLoop,
    StateTimeout,
    event_timeout,
    generic_timeout,
    keep_state,
    kind_of,
    next_event,
    next_state,
    postpone,
    repeat_state,
    state_timeout,
)

numbers = st.integers(0, 9)
times = st.sampled_from([0, 0, None, CANCEL, UPDATE, 2.0, 5.0])
timeouts = st.one_of(
    st.builds(event_timeout, times, numbers),
    st.builds(state_timeout, times, numbers),
    st.builds(generic_timeout, st.sampled_from("xy"), times, numbers),
)
inserts = st.builds(next_event, st.one_of(st.builds(kind, numbers) for kind in (Internal, Cast, Info)))
anything = st.lists(st.one_of(timeouts, inserts, st.builds(postpone, st.booleans())), max_size=4)
states = st.sampled_from("abc")
results = st.one_of(
    st.builds(lambda state, actions: next_state(state, *actions), states, anything),
    st.builds(lambda actions: keep_state(*actions), anything),
    st.builds(lambda actions: repeat_state(*actions), anything),
)
enter_results = st.builds(
    lambda repeats, actions: (repeat_state if repeats else keep_state)(*actions),
    st.booleans(),
    st.lists(timeouts, max_size=3),
)
#: For each callback what it returns to an event, and what to an enter call.
scripts = st.lists(st.tuples(results, enter_results), max_size=12)
first_states = st.builds(lambda state, actions: next_state(state, *actions), states, anything)
#: From outside: an event, or time passes until a timer fires.
WAIT = "wait"
outsides = st.lists(st.one_of(st.builds(Cast, st.integers(100, 999)), st.just(WAIT)), max_size=6)


@dataclass
class Script:
    left: list[tuple[Any, Any]]
    calls: list[tuple[Any, str]] = field(default_factory=list)

    def call(self, event: Any, state: str) -> Any:
        self.calls.append((event, state))
        to_event, to_enter = self.left.pop(0) if self.left else (keep_state(), keep_state())
        return to_enter if isinstance(event, Enter) else to_event


class Model:
    def __init__(self, script: Script, state_enter: bool) -> None:
        self.script = script
        self.state_enter = state_enter
        self.state = ""
        self.line: list[Any] = []
        self.cursor = 0
        self.zero: dict[Any, Any] = {}  # by kind, oldest first: the events of zero time-outs
        self.timers: dict[Any, tuple[float, int, Any]] = {}  # by kind: when, in which order they were set, the event
        self.now = 0.0
        self.count = 0

    def begin(self, first: NextState) -> None:
        self.state = first.state
        self.line = ["init"]
        self.transit(first, self.state, enters=True)
        self.drain()

    def outside(self, happening: Any) -> None:
        if happening is not WAIT:
            self.line.append(happening)
        elif self.timers:
            kind = min(self.timers, key=lambda kind: self.timers[kind][:2])
            self.now, _, event = self.timers.pop(kind)
            self.line.append(event)
        self.drain()

    def drain(self) -> None:
        while True:
            if self.cursor == len(self.line) and self.zero:
                self.line.append(self.zero.pop(next(iter(self.zero))))
            if self.cursor == len(self.line):
                return
            result = self.script.call(self.line[self.cursor], self.state)
            before, self.state = self.state, getattr(result, "state", self.state)
            self.transit(result, before, enters=before != self.state or isinstance(result, RepeatState))

    def transit(self, result: NextState | KeepState | RepeatState, before: str, *, enters: bool) -> None:
        actions = list(result.actions)
        while enters and self.state_enter:
            result = self.script.call(Enter(before), self.state)
            actions += result.actions
            enters = isinstance(result, RepeatState)
        puts_off = [action.value for action in actions if isinstance(action, Postpone)]
        event = self.line[self.cursor]
        if event != "init" and puts_off[-1:] == [True]:
            self.cursor += 1
        else:
            del self.line[self.cursor]
        if self.state != before:
            self.cursor = 0
            self.forget(StateTimeout)
        self.line[self.cursor : self.cursor] = [action.event for action in actions if isinstance(action, NextEvent)]
        self.forget(EventTimeout)
        wishes = [action for action in actions if isinstance(action, SetTimeout)]
        for index, wish in enumerate(wishes):
            if kind_of(wish.event) not in [kind_of(later.event) for later in wishes[index + 1 :]]:
                self.set(kind_of(wish.event), wish)

    def forget(self, kind: Any) -> None:
        self.zero.pop(kind, None)
        self.timers.pop(kind, None)

    def set(self, kind: Any, wish: SetTimeout) -> None:
        if wish.time is UPDATE and kind in self.zero:
            self.zero[kind] = wish.event
        elif wish.time is UPDATE and kind in self.timers:
            self.timers[kind] = (*self.timers[kind][:2], wish.event)
        else:
            self.forget(kind)
            if wish.time is UPDATE or wish.time == 0:
                self.zero[kind] = wish.event
            elif isinstance(wish.time, float):
                self.count += 1
                self.timers[kind] = (self.now + wish.time, self.count, wish.event)


class Shell:
    def __init__(self, script: Script, state_enter: bool) -> None:
        self.script = script
        self.loop = StateMachineLoop(state_enter=state_enter)
        self.timers: dict[int, tuple[float, Any]] = {}
        self.ended: list[tuple[Any, int]] = []
        self.now = 0.0

    def begin(self, first: NextState) -> None:
        self.do(self.loop.begin(first))
        self.drain()

    def outside(self, happening: Any) -> None:
        for kind, tag in self.ended:
            assert not self.loop.time_out(kind, tag), "a timer that is over counted"
        if happening is not WAIT:
            self.loop.receive(happening)
        elif self.timers:
            tag = min(self.timers, key=lambda tag: (self.timers[tag][0], tag))
            self.now, kind = self.timers.pop(tag)
            self.ended.append((kind, tag))
            assert self.loop.time_out(kind, tag)
        self.drain()

    def drain(self) -> None:
        while self.loop.current is not None:
            self.do(self.loop.settle(self.script.call(self.loop.current, self.loop.state)))

    def do(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, StartTimer):
                self.timers[effect.tag] = (self.now + effect.seconds, effect.kind)
            else:
                assert isinstance(effect, CancelTimer)
                _, kind = self.timers.pop(effect.tag)
                self.ended.append((kind, effect.tag))


@settings(deadline=None, max_examples=400)
@given(first=first_states, state_enter=st.booleans(), script=scripts, happenings=outsides)
def test_any_machine_runs_as_the_model_does(
    first: NextState, state_enter: bool, script: list[tuple[Any, Any]], happenings: list[Any]
) -> None:
    expected, done = Script(list(script)), Script(list(script))
    model, shell = Model(expected, state_enter), Shell(done, state_enter)
    model.begin(first)
    shell.begin(first)
    for happening in happenings:
        model.outside(happening)
        shell.outside(happening)
    assert done.calls == expected.calls
    assert shell.loop.state == model.state
    assert shell.loop.postponed == model.line
    assert sorted(when for when, _ in shell.timers.values()) == sorted(when for when, *_ in model.timers.values())
    assert len(shell.loop.timeouts) == len(model.timers)


@pytest.mark.parametrize(
    "result",
    [
        next_state("c", state_timeout(1.0)),
        keep_state(state_timeout(1.0), postpone()),
        repeat_state(generic_timeout("x", 1.0), next_event(Internal())),
    ],
)
def test_an_enter_call_that_goes_too_far_changes_nothing(result: Any) -> None:
    loop = StateMachineLoop(state_enter=True)
    assert loop.begin(next_state("a")) == []
    loop.settle(keep_state())
    loop.receive(Cast(1))
    loop.settle(next_state("b", postpone()))
    with pytest.raises(TypeError, match="a state enter call must not"):
        loop.settle(result)
    assert loop.current == Enter("a")
    loop.settle(keep_state(postpone(False), generic_timeout("y", 0, 2)))
    assert (loop.state, loop.postponed, loop.current) == ("b", [], GenericTimeout("y", 2))
