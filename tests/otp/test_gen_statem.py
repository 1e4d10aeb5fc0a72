"""``GenStateMachine`` as an actor: its events, its answers, its data (OTP 27, gen_statem)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pykka
import pytest

from receipt_actors.otp import NO_PROCESS, SHUTDOWN, ActorSystem, Receive, Receiving, Runtime, Shutdown, Stop
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp.gen_statem import (
    Call,
    Cast,
    Failed,
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
    reply,
    state_timeout,
    stop_and_reply,
)
from tests.otp.statem_support import Machines, state_of
from tests.otp.support import WAIT_SECONDS, Pooled, WatchedClock, exit_reason_of


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
    """Buttons are forgotten after thirty seconds, and those that are pressed while it is open count afterwards."""
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
    """What comes in."""

    def test_each_way_to_send_has_its_event(self, machines: Machines) -> None:
        """The state's method gets them all."""
        ref = machines.start({"a 1": lambda machine, event: keep_state(reply(event.from_, "one"))})
        assert ref.call("1") == "one"
        ref.cast("2")
        ref.send("3")
        assert machines.log(ref) == ["a Call 1", "a Cast 2", "a Info 3"]

    def test_answers_to_requests_are_events(self, system: ActorSystem, machines: Machines) -> None:
        """So a machine never has to wait in a callback, and an answer can be postponed like anything else."""
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
        """A class with handle_event may have any values as states; a part that changes is a state change."""

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
        """It counts what it returns at the end. Time-outs are no messages, however greedy it is."""

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


class TestCalls:
    """Who gets an answer, and when."""

    def test_a_call_can_be_answered_from_a_later_state(self, machines: Machines) -> None:
        """By the action reply, to as many callers as there are; each gets one answer."""
        table = {"a go": lambda machine, event: next_state("b", *machine.answer(1), *machine.answer(2))}
        ref = machines.start(table)
        answers = [ref.ask(request, block=False) for request in "xy"]
        ref.cast("go")
        assert [answer.get(timeout=WAIT_SECONDS) for answer in answers] == [1, 1]

    def test_calls_without_answer_fail_when_the_machine_ends(self, machines: Machines) -> None:
        """Handled or postponed, the one under way as well: with the reason."""
        table = {"a later": keep_state(postpone()), "a last": Stop(Shutdown("enough"))}
        ref = machines.start(table)
        answers = [ref.ask(request, block=False) for request in ("kept", "later", "last")]
        for answer in answers:
            with pytest.raises(pykka.ActorDeadError, match="shutdown: enough"):
                answer.get(timeout=WAIT_SECONDS)

    def test_stop_and_reply(self, machines: Machines) -> None:
        """The replies go out, then the machine ends for the reason."""
        table = {"a end": lambda machine, event: stop_and_reply(SHUTDOWN, *machine.answer("bye"))}
        ref = machines.start(table)
        answers = [ref.ask(request, block=False) for request in ("kept", "end")]
        assert [answer.get(timeout=WAIT_SECONDS) for answer in answers] == ["bye", "bye"]
        assert exit_reason_of(ref) == SHUTDOWN
        assert machines.seen.take(3) == ["a Call kept", "a Call end", "a terminate"]


class TestSys:
    """What ``sys`` sees of a machine, and does to it."""

    def test_get_state_gives_the_state_and_the_data(self, system: ActorSystem) -> None:
        """Nothing of the runtime's among the data."""
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
        """The error names the states that there are; the machine goes on."""
        ref = system.start(Lock, "1")
        with pytest.raises(ValueError, match="Lock has no state 'ajar'.*: locked, open"):
            otp_sys.replace_state(ref, lambda _old: ("ajar", {}))
        assert otp_sys.get_state(ref) == ("locked", {"code": "1", "buttons": ""})

    def test_a_status_tells_what_waits_and_holds_no_content(self, machines: Machines) -> None:
        """State, data, postponed events and time-outs: their types."""
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
        """In the order in which they came."""
        ref = machines.start({"a 1": keep_state()}, next_state("a", generic_timeout("x", 10.0, "tick")))
        otp_sys.suspend(ref)
        ref.cast("1")
        clock.advance(10.0)
        ref.cast("2")
        assert machines.log(ref) == []
        otp_sys.resume(ref)
        assert machines.log(ref) == ["a Cast 1", "a x tick", "a Cast 2"]
