"""``GenStateMachine``: its life, its events, their order, its time-outs, its answers, its data (OTP 27, gen_statem)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, TypeAlias

import pykka
import pytest

from receipt_actors.otp import (
    IGNORE,
    NO_PROCESS,
    NORMAL,
    SHUTDOWN,
    ActorSystem,
    Continue,
    Crash,
    ExitReason,
    From,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Runtime,
    StartError,
    Stop,
)
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp.gen_statem import (
    CANCEL,
    UPDATE,
    Call,
    Cast,
    Enter,
    Failed,
    GenericTimeout,
    GenStateMachine,
    Internal,
    Replied,
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
from tests.otp.support import WAIT_SECONDS, Gate, Pooled, Seen, WatchedClock, exit_reason_of, settle

#: For "state content", or "state" and an enter call: the result, or who makes it from machine and event.
Table: TypeAlias = Mapping[str, Any]


class TableMachine(GenStateMachine):
    """Looks up what to return; logs each event as "state Type content". A call that the table does not know is kept."""

    def __init__(self, seen: Seen, table: Table, first: Any = None) -> None:
        self.seen = seen
        self.table = table
        self.first = next_state("a") if first is None else first
        self.calls: list[From] = []

    def init(self) -> Any:
        return self.first() if callable(self.first) else self.first

    def terminate(self, reason: ExitReason) -> Any:
        self.seen.put(f"{self.state} terminate")

    def answer(self, value: object) -> list[Any]:
        return [reply(from_, value) for from_ in self.calls]

    def in_state(self, state: str, event: Any) -> Any:
        assert self.state == state
        if isinstance(event, Call):
            self.calls.append(event.from_)
            content = event.request
        else:
            content = getattr(event, fields(event)[-1].name)
        name = event.name if isinstance(event, GenericTimeout) else type(event).__name__
        self.seen.put(f"{state} {name} {content}")
        result = self.table.get(state if isinstance(event, Enter) else f"{state} {content}", keep_state())
        return result(self, event) if callable(result) else result

    def a(self, event: Any) -> Any:
        return self.in_state("a", event)

    def b(self, event: Any) -> Any:
        return self.in_state("b", event)

    def c(self, event: Any) -> Any:
        return self.in_state("c", event)


def state_of(ref: Ref) -> Any:
    """Wait until a machine has handled what is in its mailbox, without any event; return its state."""
    return otp_sys.get_state(ref, WAIT_SECONDS)[0]


class Machines:
    def __init__(self, system: ActorSystem, runtime: Runtime) -> None:
        self.seen = Seen()
        self._system = system
        self._runtime = runtime

    def start(self, table: Table, first: Any = None, *, state_enter: bool = False, trap_exit: bool = False) -> Ref:
        return self._system.start(self.a_class(state_enter, trap_exit), self.seen, table, first)

    def a_class(self, state_enter: bool = False, trap_exit: bool = False) -> type[TableMachine]:
        attributes = {"runtime": self._runtime, "state_enter": state_enter, "trap_exit": trap_exit}
        return type("TableMachine", (TableMachine,), attributes)

    def log(self, ref: Ref) -> list[str]:
        """What has happened since the last look, once the mailbox is empty."""
        state_of(ref)
        return self.seen.rest()

    def run(self, table: Table, *requests: str, first: Any = None, state_enter: bool = False) -> list[str]:
        """Start a machine, cast the requests one by one, and return the log."""
        ref = self.start(table, first, state_enter=state_enter)
        for request in requests:
            ref.cast(request)
        return self.log(ref)


@pytest.fixture
def machines(system: ActorSystem, runtime: Runtime) -> Machines:
    return Machines(system, runtime)


class Lock(GenStateMachine):
    """The code lock of OTP's design principles: open for ten seconds after the right code."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.buttons = ""

    def init(self) -> Any:
        return next_state("locked")

    def locked(self, event: Any) -> Any:
        match event:
            case Cast(button):
                self.buttons = (self.buttons + button)[-len(self.code) :]
                if self.buttons == self.code:
                    self.buttons = ""
                    return next_state("open", state_timeout(10.0, "lock"))
                return keep_state(event_timeout(30.0))
            case _:
                self.buttons = ""
                return keep_state()

    def open(self, event: Any) -> Any:
        match event:
            case StateTimeout("lock"):
                return next_state("locked")
            case Cast():
                return keep_state(postpone())


def test_a_code_lock(system: ActorSystem, clock: WatchedClock) -> None:
    lock = system.start(Lock, "123")
    for button in "012":
        lock.cast(button)
    state_of(lock)
    clock.advance(30.0)
    lock.cast("3")
    assert state_of(lock) == "locked"
    for button in "1231":
        lock.cast(button)
    assert state_of(lock) == "open"
    clock.advance(10.0)
    assert state_of(lock) == "locked"
    lock.cast("2")
    lock.cast("3")
    assert state_of(lock) == "open"


class TestEvents:
    def test_answers_to_requests_are_events(self, system: ActorSystem, machines: Machines) -> None:
        other = system.start(Pooled)

        def ask(machine: Any, _event: Any) -> Any:
            machine.send_request(other, lambda _actor, _from: "answer", "question")
            return next_state("b")

        def ask_nobody(machine: Any, event: Any) -> Any:
            machine.seen.put(event)
            machine.send_request("nobody", "hello", "vain")
            return keep_state()

        def note(machine: Any, event: Any) -> Any:
            machine.seen.put(event)
            return keep_state()

        table = {"a go": ask, "b answer": next_state("c", postpone()), "c answer": ask_nobody, "c no process": note}
        machines.start(table).cast("go")
        assert machines.seen.take(6) == [
            *("a Cast go", "b Replied answer"),
            *("c Replied answer", Replied("question", "answer")),
            *("c Failed no process", Failed("vain", NO_PROCESS)),
        ]

    def test_one_method_for_all_states(self, system: ActorSystem) -> None:
        class Door(GenStateMachine):
            def init(self) -> Any:
                return next_state(("locked", "x"))

            def handle_event(self, event: Any, state: Any) -> Any:
                match event, state:
                    case Call(("lock button", button), from_), (name, old):
                        return next_state((name, button), reply(from_, old))
                    case Cast(button), (name, lock_button):
                        return next_state(("pressed", button)) if button == lock_button else keep_state(postpone())

        door = system.start(Door)
        door.cast("y")
        assert state_of(door) == ("locked", "x")
        assert door.call(("lock button", "y")) == "x"
        assert state_of(door) == ("pressed", "y")

    def test_a_callback_may_receive_selectively(self, machines: Machines, clock: WatchedClock) -> None:
        def wait(result: Any, machine: Any, _event: Any) -> Receiving:
            first = yield Receive(lambda message: True)
            second = yield Receive(lambda message: message == "second")
            machine.seen.put((first, second))
            return result

        table = {
            "a go": partial(wait, next_state("b", next_event(Internal("next")))),
            "b next": partial(wait, keep_state()),
        }
        ref = machines.start(table, next_state("a", generic_timeout("x", 10.0, "tick")))
        ref.cast("go")
        assert machines.seen.next() == "a Cast go"
        clock.advance(10.0)
        for message in ("first", "third", "second", "fourth", "second"):
            ref.send(message)
        assert machines.log(ref) == [
            *(("first", "second"), "b Internal next", ("third", "second")),
            *("b x tick", "b Info fourth"),
        ]


def test_stop_and_reply(machines: Machines) -> None:
    ref = machines.start({"a end": lambda machine, event: stop_and_reply(SHUTDOWN, *machine.answer("bye"))})
    answers = [ref.ask(request, block=False) for request in ("kept", "end")]
    assert [answer.get(timeout=WAIT_SECONDS) for answer in answers] == ["bye", "bye"]
    assert exit_reason_of(ref) == SHUTDOWN


class TestSys:
    def test_get_state_gives_the_state_and_the_data(self, system: ActorSystem) -> None:
        assert otp_sys.get_state(system.start(Lock, "12")) == ("locked", {"code": "12", "buttons": ""})

    def test_replace_state_renames_the_state_and_replaces_the_data(
        self, system: ActorSystem, clock: WatchedClock
    ) -> None:
        """The machine goes on from there: OTP takes it for a renaming, which cancels no time-out."""
        ref = system.start(Lock, "1")
        ref.cast("1")
        assert state_of(ref) == "open"
        new = ("locked", {"code": "34", "buttons": "3", "more": 1})
        assert otp_sys.replace_state(ref, lambda _old: new) == new
        ref.cast("4")
        assert state_of(ref) == "open"
        new = ("locked", {"code": "1", "buttons": "1"})
        assert otp_sys.replace_state(ref, lambda _old: new) == new
        clock.advance(10.0)
        assert otp_sys.get_state(ref) == ("locked", {"code": "1", "buttons": ""})

    def test_replace_state_refuses_an_unknown_state_and_changes_nothing(self, system: ActorSystem) -> None:
        ref = system.start(Lock, "1")
        with pytest.raises(ValueError, match="Lock has no state 'ajar'.*: locked, open"):
            otp_sys.replace_state(ref, lambda _old: ("ajar", {}))
        assert otp_sys.get_state(ref) == ("locked", {"code": "1", "buttons": ""})

    def test_a_status_tells_what_waits_and_holds_no_content(self, machines: Machines) -> None:
        ref = machines.start({"a 1": keep_state(postpone())}, next_state("a", state_timeout(5.0, "late")))
        ref.cast("1")
        assert otp_sys.get_status(ref).state == {
            "state": "a",
            "data": {"seen": "Seen", "table": "dict", "first": "NextState", "calls": "list"},
            "postponed": ["Cast"],
            "timeouts": ["StateTimeout"],
        }

    def test_a_machine_that_is_suspended_finds_its_events_and_timeouts_afterwards(
        self, machines: Machines, clock: WatchedClock
    ) -> None:
        ref = machines.start({"a 1": keep_state()}, next_state("a", generic_timeout("x", 10.0, "tick")))
        otp_sys.suspend(ref)
        ref.cast("1")
        clock.advance(10.0)
        ref.cast("2")
        assert machines.log(ref) == []
        otp_sys.resume(ref)
        assert machines.log(ref) == ["a Cast 1", "a x tick", "a Cast 2"]


class TestEnter:
    def test_replies_go_out_before_the_enter_call(self, machines: Machines) -> None:
        calls: list[bool] = []

        def enter(machine: Any, _event: Any) -> Any:
            calls.extend(from_.is_wanted() for from_ in machine.calls)
            return keep_state()

        table = {"a go": lambda machine, event: next_state("b", reply(event.from_, "going")), "b": enter}
        ref = machines.start(table, state_enter=True)
        assert ref.call("go") == "going"
        assert machines.log(ref) == ["a Enter a", "a Call go", "b Enter a"]
        assert calls == [False]

    def test_an_enter_call_that_goes_too_far_is_a_crash(self, machines: Machines) -> None:
        for result in (next_state("c"), keep_state(postpone()), repeat_state(next_event(Internal()))):
            ref = machines.start({"a go": next_state("b"), "b": result}, state_enter=True)
            ref.cast("go")
            wrong(exit_reason_of(ref), TypeError, "a state enter call must not")
            assert machines.seen.take(4) == ["a Enter a", "a Cast go", "b Enter a", "b terminate"]


def wrong(reason: object, error: type[Exception], complaint: str) -> None:
    assert isinstance(reason, Crash)
    with pytest.raises(error, match=complaint):
        raise reason.exception


class TestStart:
    def test_init_may_decline(self, machines: Machines, system: ActorSystem) -> None:
        declined = NotStarted(SHUTDOWN)
        for first, result in ((IGNORE, IGNORE), (Stop(SHUTDOWN), declined), (declined, declined)):
            with pytest.raises(StartError) as caught:
                machines.start({}, first)
            assert caught.value.result == result

    @pytest.mark.parametrize(
        ("first", "error", "complaint"),
        [
            (lambda: None, TypeError, "init returned None, and not next_state"),
            (lambda: "a", TypeError, "init returned str\\[1\\], and not"),
            (Continue("x"), TypeError, "init returned Continue"),
            (keep_state(), TypeError, "init returned KeepState"),
            (next_state("d"), ValueError, "has no state 'd'.*these are: a, answer, b, c, in_state"),
            (Stop(NORMAL, reply=1), TypeError, "stop_and_reply"),
        ],
        ids=["None", "a name", "Continue", "keep_state", "unknown", "reply"],
    )
    def test_what_is_no_first_state_fails_the_start(
        self, machines: Machines, first: Any, error: type[Exception], complaint: str
    ) -> None:
        with pytest.raises(StartError) as caught:
            machines.start({}, first)
        with pytest.raises(error, match=complaint):
            raise caught.value.__cause__ or AssertionError("no cause")

    def test_a_class_without_a_first_state_does_not_start(self, system: ActorSystem) -> None:
        with pytest.raises(StartError, match="GenStateMachine has no init, which returns next_state"):
            system.start(GenStateMachine)

    def test_init_may_receive_selectively(self, machines: Machines, system: ActorSystem) -> None:
        def first() -> Receiving:
            yield Receive(lambda message: message == "ready", timeout_seconds=0)
            return next_state("b")

        ref = machines.start({}, first)
        assert state_of(ref) == "b"

    def test_the_start_succeeds_before_the_first_state_is_entered(self, machines: Machines) -> None:
        """OTP acknowledges it before the actions of init and the enter call: what these break is a crash."""

        def crash(*_args: Any) -> Any:
            raise KeyError("broken")

        ref = machines.start({"a": crash}, state_enter=True)
        wrong(exit_reason_of(ref), KeyError, "broken")
        assert machines.seen.take(2) == ["a Enter a", "a terminate"]


class TestEnd:
    @pytest.mark.parametrize(
        ("result", "error", "complaint"),
        [
            (None, TypeError, "returned None for Cast.*no case fits"),
            ("b", TypeError, "returned str\\[1\\] for Cast"),
            (Continue("x"), TypeError, "returned Continue"),
            (Stop(NORMAL, reply=1), TypeError, "stop_and_reply"),
            (next_state("d"), ValueError, "TableMachine has no state 'd'"),
            (next_state("terminate"), ValueError, "no state 'terminate'"),
            (next_state(7), ValueError, "no state 7"),
            (lambda *_args: keep_state("postpone"), TypeError, "'postpone' is not an action"),  # type: ignore[arg-type]
            (lambda *_args: keep_state(next_event("x")), TypeError, "needs an event"),  # type: ignore[arg-type]
            (lambda *_args: keep_state(reply("me", 1)), TypeError, "needs the from_ of a Call"),  # type: ignore[arg-type]
            (lambda *_args: stop_and_reply(NORMAL, postpone()), TypeError, "nothing else"),  # type: ignore[arg-type]
        ],
    )
    def test_a_wrong_result_is_a_crash_that_says_what_is_wrong(
        self, machines: Machines, result: Any, error: type[Exception], complaint: str
    ) -> None:
        ref = machines.start({"a go": result})
        ref.cast("go")
        wrong(exit_reason_of(ref), error, complaint)
        assert machines.seen.take(2) == ["a Cast go", "a terminate"]

    def test_a_machine_that_is_killed_handles_no_event_any_more(
        self, machines: Machines, system: ActorSystem, clock: WatchedClock
    ) -> None:
        with Gate() as gate:

            def go(machine: Any, event: Call) -> Any:
                machine.seen.put(threading.current_thread())
                gate()
                return next_state("b", reply(event.from_, "done"), next_event(Internal("x")), state_timeout(1.0))

            ref = machines.start({"a go": go})
            answer = ref.ask("go", block=False)
            gate.wait_entered()
            ref.kill()
            gate.open()
            with pytest.raises(pykka.ActorDeadError):
                answer.get(timeout=WAIT_SECONDS)
        entry, thread = machines.seen.take(2)
        settle(system, thread)
        assert (entry, machines.seen.rest()) == ("a Call go", [])
        assert clock.set_timers.rest() == []

    def test_pykkas_stop_is_a_normal_end(self, machines: Machines) -> None:
        ref = machines.start({"a 1": next_state("b")})
        ref.cast("1")
        ref.stop()
        assert exit_reason_of(ref) == NORMAL
        assert machines.seen.rest() == ["a Cast 1", "b terminate"]


def cast(ref: Ref, *requests: str) -> None:
    for request in requests:
        ref.cast(request)
    state_of(ref)


class TestStateTimeout:
    def test_it_comes_when_the_state_has_lasted_that_long(self, machines: Machines, clock: WatchedClock) -> None:
        ref = machines.start({"a go": next_state("b", state_timeout(10.0, "late"))})
        cast(ref, "go", "other")
        clock.advance(9.9)
        assert machines.log(ref) == ["a Cast go", "b Cast other"]
        clock.advance(0.1)
        clock.advance(60.0)
        assert machines.log(ref) == ["b StateTimeout late"]

    def test_a_state_change_cancels_it(self, machines: Machines, clock: WatchedClock) -> None:
        first = next_state("a", state_timeout(10.0, "late"))
        ref = machines.start({"a go": next_state("b"), "b back": next_state("a")}, first)
        cast(ref, "go", "back")
        clock.advance(60.0)
        assert machines.log(ref) == ["a Cast go", "b Cast back"]

    def test_one_that_fired_while_a_callback_replaced_it_is_not_delivered(
        self, machines: Machines, clock: WatchedClock
    ) -> None:
        with Gate() as gate:

            def go(*_args: Any) -> Any:
                gate()
                return keep_state(state_timeout(30.0, "new"), event_timeout(10.0, "quiet"))

            ref = machines.start({"a go": go}, next_state("a", state_timeout(10.0, "old")))
            ref.cast("go")
            gate.wait_entered()
            clock.advance(10.0)
            gate.open()
            assert machines.log(ref) == ["a Cast go"]
            clock.advance(10.0)
            assert machines.log(ref) == ["a EventTimeout quiet"]
            clock.advance(20.0)
            assert machines.log(ref) == ["a StateTimeout new"]


class TestOtherTimeouts:
    def test_any_event_cancels_an_event_timeout(self, machines: Machines, clock: WatchedClock) -> None:
        ref = machines.start({}, next_state("a", event_timeout(10.0, "quiet")))
        cast(ref, "1")
        clock.advance(60.0)
        assert machines.log(ref) == ["a Cast 1"]

    def test_the_last_of_a_name_wins_at_its_own_place(self, machines: Machines) -> None:
        timeouts = [generic_timeout(name, 0, content) for name, content in (("x", 1), ("y", 2), ("x", 3))]
        assert machines.run({"a go": keep_state(*timeouts)}, "go") == ["a Cast go", "a y 2", "a x 3"]

    def test_an_update_changes_the_content_alone(self, machines: Machines, clock: WatchedClock) -> None:
        ref = machines.start(
            {"a 1": keep_state(generic_timeout("x", UPDATE, "new"))}, next_state("a", generic_timeout("x", 10.0, "old"))
        )
        cast(ref, "1")
        clock.advance(10.0)
        assert machines.log(ref) == ["a Cast 1", "a x new"]

    @pytest.mark.parametrize("never", [CANCEL, None])
    def test_a_timeout_can_be_cancelled(self, machines: Machines, clock: WatchedClock, never: Any) -> None:
        table = {"a 1": keep_state(generic_timeout("x", never), state_timeout(never))}
        ref = machines.start(table, next_state("a", generic_timeout("x", 10.0), state_timeout(10.0)))
        cast(ref, "1")
        clock.advance(60.0)
        assert machines.log(ref) == ["a Cast 1"]

    def test_init_postpones_nothing(self, machines: Machines) -> None:
        assert machines.run({"a go": next_state("b")}, "go", first=next_state("a", postpone())) == ["a Cast go"]


class TestAbsolute:
    @pytest.mark.parametrize("past", [-5.0, 0.0])
    def test_one_in_the_past_comes_at_once_as_a_message(
        self, machines: Machines, clock: WatchedClock, past: float
    ) -> None:
        clock.advance(100.0)
        with Gate() as gate:

            def go(*_args: Any) -> Any:
                gate()
                return keep_state(generic_timeout("x", past, "past", absolute=True))

            ref = machines.start({"a go": go})
            ref.cast("go")
            gate.wait_entered()
            ref.cast("before")
            gate.open()
            assert machines.log(ref) == ["a Cast go", "a Cast before", "a x past"]


@pytest.mark.parametrize(
    ("seconds", "error"), [(-0.1, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_a_time_that_is_none_is_refused_where_it_is_written(seconds: Any, error: type[Exception]) -> None:
    for make in (event_timeout, state_timeout, lambda time: generic_timeout("x", time)):
        with pytest.raises(error, match="a time-out needs"):
            make(seconds)


@pytest.mark.parametrize("end", [lambda ref: ref.stop(), lambda ref: ref.cast("end")], ids=["stopped", "stops"])
def test_timers_end_with_the_machine(machines: Machines, clock: WatchedClock, end: Callable[[Ref], Any]) -> None:
    first = next_state("a", state_timeout(10.0), generic_timeout("x", 10.0))
    ref = machines.start({"a end": Stop()}, first)
    end(ref)
    assert exit_reason_of(ref) == NORMAL
    clock.advance(60.0)
    assert machines.seen.rest()[-1] == "a terminate"
