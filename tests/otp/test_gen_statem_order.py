"""In which order a ``GenStateMachine`` handles events: postponed, inserted, state enter calls (OTP 27, gen_statem)."""

from __future__ import annotations

from typing import Any

import pytest

from receipt_actors.otp import SHUTDOWN, ActorSystem, Runtime, Stop
from receipt_actors.otp.gen_statem import (
    Internal,
    keep_state,
    next_event,
    next_state,
    postpone,
    repeat_state,
    reply,
    state_timeout,
)
from tests.otp.statem_support import Machines
from tests.otp.support import WAIT_SECONDS, exit_reason_of


@pytest.fixture
def machines(system: ActorSystem, runtime: Runtime) -> Machines:
    return Machines(system, runtime)


class TestPostpone:
    """Events that are put aside until the state changes."""

    def test_postponed_events_come_again_after_a_state_change_in_their_order(self, machines: Machines) -> None:
        """They come before what is sent later, oldest first, and once."""
        table = {
            "a 1": keep_state(postpone()),
            "a 2": keep_state(postpone()),
            "a go": next_state("b"),
            "b go": next_state("c"),
        }
        assert machines.run(table, "1", "2", "go", "3", "go") == [
            *("a Cast 1", "a Cast 2", "a Cast go"),
            *("b Cast 1", "b Cast 2", "b Cast 3", "b Cast go"),
        ]

    def test_keeping_the_state_retries_nothing(self, machines: Machines) -> None:
        """Neither keep_state, nor repeat_state, nor next_state to the same state is a state change."""
        table = {"a 1": keep_state(postpone()), "a repeat": repeat_state(), "a same": next_state("a")}
        log = ["a Cast 1", "a Cast keep", "a Cast repeat", "a Cast same"]
        assert machines.run(table, "1", "keep", "repeat", "same") == log

    def test_an_event_that_changes_the_state_and_is_postponed_comes_again_at_once(self, machines: Machines) -> None:
        """It is the newest of the postponed ones then."""
        table = {"a 1": keep_state(postpone()), "a 2": next_state("b", postpone())}
        assert machines.run(table, "1", "2") == ["a Cast 1", "a Cast 2", "b Cast 1", "b Cast 2"]

    def test_an_event_may_be_postponed_again_and_again(self, machines: Machines) -> None:
        """Its place among the others stays."""
        table = {
            **{f"{state} {event}": keep_state(postpone()) for state in "ab" for event in "12"},
            "a go": next_state("b"),
            "b go": next_state("c"),
        }
        assert machines.run(table, "1", "go", "2", "go") == [
            *("a Cast 1", "a Cast go"),
            *("b Cast 1", "b Cast 2", "b Cast go"),
            *("c Cast 1", "c Cast 2"),
        ]

    def test_the_last_postpone_counts(self, machines: Machines) -> None:
        """OTP: {postpone, false} after postpone undoes it."""
        table = {"a 1": keep_state(postpone(), postpone(False)), "a go": next_state("b")}
        assert machines.run(table, "1", "go") == ["a Cast 1", "a Cast go"]

    def test_events_of_every_type_can_be_postponed(self, machines: Machines) -> None:
        """A call that is postponed still waits for its answer; a time-out that is postponed comes again, too."""
        table = {
            "a ask": keep_state(postpone(), state_timeout(0, "late")),
            "a late": keep_state(postpone()),
            "a go": next_state("b"),
            "b ask": lambda machine, event: keep_state(reply(event.from_, "from b")),
        }
        ref = machines.start(table)
        answer = ref.ask("ask", block=False)
        ref.cast("go")
        assert answer.get(timeout=WAIT_SECONDS) == "from b"
        assert machines.log(ref)[-2:] == ["b Call ask", "b StateTimeout late"]


class TestNextEvent:
    """Events that the machine inserts."""

    def test_inserted_events_come_next_in_the_order_of_their_actions(self, machines: Machines) -> None:
        """Before what is in the mailbox; those of an inserted event come before the rest of its siblings."""
        table = {
            "a go": keep_state(next_event(Internal("1")), next_event(Internal("2"))),
            "a 1": keep_state(next_event(Internal("1.1"))),
        }
        assert machines.run(table, "go", "later") == [
            *("a Cast go", "a Internal 1", "a Internal 1.1", "a Internal 2"),
            "a Cast later",
        ]

    def test_inserted_events_come_before_postponed_ones(self, machines: Machines) -> None:
        """Also with the state change that retries those."""
        table = {"a 1": keep_state(postpone()), "a go": next_state("b", next_event(Internal("first")))}
        assert machines.run(table, "1", "go")[2:] == ["b Internal first", "b Cast 1"]

    def test_init_may_insert_events(self, machines: Machines) -> None:
        """They come before any message. There is no event to postpone, so that wish is ignored."""
        first = next_state("b", next_event(Internal("1")), postpone(), next_event(Internal("2")))
        table = {"b 2": next_state("a")}
        assert machines.run(table, "3", first=first) == ["b Internal 1", "b Internal 2", "a Cast 3"]


class TestEnter:
    """State enter calls."""

    def test_every_state_that_is_entered_is_told_where_from(self, machines: Machines) -> None:
        """The first state from itself; no call without a state change."""
        table = {"a go": next_state("b"), "b same": next_state("b"), "b back": next_state("a")}
        assert machines.run(table, "go", "same", "keep", "back", state_enter=True) == [
            *("a Enter a", "a Cast go"),
            *("b Enter a", "b Cast same", "b Cast keep", "b Cast back"),
            "a Enter b",
        ]

    def test_there_are_none_unless_the_class_asks_for_them(self, machines: Machines) -> None:
        """state_enter is off by default; repeat_state is keep_state then."""
        table = {"a go": next_state("b"), "b again": repeat_state()}
        assert machines.run(table, "go", "again") == ["a Cast go", "b Cast again"]

    def test_replies_go_out_before_the_enter_call(self, machines: Machines) -> None:
        """The actions of the event come first; the caller need not wait for the new state's work."""
        calls: list[bool] = []

        def enter(machine: Any, _event: Any) -> Any:
            calls.extend(from_.is_wanted() for from_ in machine.calls)
            return keep_state()

        table = {"a go": lambda machine, event: next_state("b", reply(event.from_, "going")), "b": enter}
        ref = machines.start(table, state_enter=True)
        assert ref.call("go") == "going"
        assert machines.log(ref) == ["a Enter a", "a Call go", "b Enter a"]
        assert calls == [False]

    def test_an_enter_call_may_reply(self, machines: Machines) -> None:
        """Calls that were kept can be answered as soon as their state has come."""
        table = {"a go": next_state("b"), "b": lambda machine, event: keep_state(*machine.answer("entered"))}
        assert machines.start(table, state_enter=True).call("go") == "entered"

    def test_repeat_state_makes_the_enter_call_again(self, machines: Machines) -> None:
        """From the state itself, even if it was entered from another one."""
        table = {"a go": next_state("b"), "b again": repeat_state(next_event(Internal("x")))}
        assert machines.run(table, "go", "again", state_enter=True)[2:] == [
            *("b Enter a", "b Cast again", "b Enter b", "b Internal x")
        ]

    def test_an_enter_call_may_stop_the_machine(self, machines: Machines) -> None:
        """Also the first one: the start has succeeded by then."""
        ref = machines.start({"a": Stop(SHUTDOWN)}, state_enter=True)
        assert exit_reason_of(ref) == SHUTDOWN
        assert machines.seen.take(2) == ["a Enter a", "a terminate"]
