"""The time-outs of a ``GenStateMachine``: of an event, of a state, and those with a name (OTP 27, gen_statem)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from receipt_actors.otp import NORMAL, ActorSystem, Ref, Runtime, Stop
from receipt_actors.otp.gen_statem import (
    CANCEL,
    UPDATE,
    Internal,
    event_timeout,
    generic_timeout,
    keep_state,
    next_event,
    next_state,
    postpone,
    repeat_state,
    state_timeout,
)
from tests.otp.statem_support import Machines, state_of
from tests.otp.support import Gate, WatchedClock, exit_reason_of


@pytest.fixture
def machines(system: ActorSystem, runtime: Runtime) -> Machines:
    return Machines(system, runtime)


def cast(ref: Ref, *requests: str) -> None:
    for request in requests:
        ref.cast(request)
    state_of(ref)


class TestStateTimeout:
    """One for each state."""

    def test_it_comes_when_the_state_has_lasted_that_long(self, machines: Machines, clock: WatchedClock) -> None:
        """Other events meanwhile do not matter; it comes once."""
        ref = machines.start({"a go": next_state("b", state_timeout(10.0, "late"))})
        cast(ref, "go", "other")
        clock.advance(9.9)
        assert machines.log(ref) == ["a Cast go", "b Cast other"]
        clock.advance(0.1)
        clock.advance(60.0)
        assert machines.log(ref) == ["b StateTimeout late"]

    def test_a_state_change_cancels_it(self, machines: Machines, clock: WatchedClock) -> None:
        """Also when the machine comes back to the state."""
        first = next_state("a", state_timeout(10.0, "late"))
        ref = machines.start({"a go": next_state("b"), "b back": next_state("a")}, first)
        cast(ref, "go", "back")
        clock.advance(60.0)
        assert machines.log(ref) == ["a Cast go", "b Cast back"]

    @pytest.mark.parametrize("result", [keep_state(), repeat_state(), next_state("a")], ids=["keep", "repeat", "same"])
    def test_staying_in_the_state_leaves_it_running(self, machines: Machines, clock: WatchedClock, result: Any) -> None:
        """Its time still counts from its start."""
        ref = machines.start({"a stay": result}, next_state("a", state_timeout(10.0, "late")))
        clock.advance(5.0)
        cast(ref, "stay")
        clock.advance(5.0)
        assert machines.log(ref) == ["a Cast stay", "a StateTimeout late"]

    def test_setting_it_again_starts_it_anew(self, machines: Machines, clock: WatchedClock) -> None:
        """With the new time and content; the old one never comes."""
        first = next_state("a", state_timeout(10.0, "old"))
        ref = machines.start({"a again": keep_state(state_timeout(10.0, "new"))}, first)
        clock.advance(5.0)
        cast(ref, "again")
        clock.advance(9.0)
        assert machines.log(ref) == ["a Cast again"]
        clock.advance(1.0)
        assert machines.log(ref) == ["a StateTimeout new"]

    @pytest.mark.parametrize("seconds", [None, CANCEL], ids=["never", "cancel"])
    def test_it_can_be_cancelled(self, machines: Machines, clock: WatchedClock, seconds: Any) -> None:
        """By CANCEL or by None (OTP: cancel, infinity); where none runs, that does nothing."""
        table = {"a stop": keep_state(state_timeout(seconds))}
        ref = machines.start(table, next_state("a", state_timeout(10.0, "late")))
        cast(ref, "stop", "stop")
        clock.advance(60.0)
        assert machines.log(ref) == ["a Cast stop", "a Cast stop"]

    def test_an_update_changes_the_content_and_not_the_time(self, machines: Machines, clock: WatchedClock) -> None:
        """OTP: {state_timeout, update, NewContent}."""
        table = {"a update": keep_state(state_timeout(UPDATE, "new"))}
        ref = machines.start(table, next_state("a", state_timeout(10.0, "old")))
        clock.advance(5.0)
        cast(ref, "update")
        clock.advance(5.0)
        assert machines.log(ref) == ["a Cast update", "a StateTimeout new"]

    def test_an_update_of_none_comes_at_once(self, machines: Machines) -> None:
        """OTP: as if it had been started with zero time."""
        assert machines.run({"a update": keep_state(state_timeout(UPDATE, "new"))}, "update") == [
            *("a Cast update", "a StateTimeout new")
        ]

    def test_one_that_fired_while_a_callback_replaced_it_is_not_delivered(
        self, machines: Machines, clock: WatchedClock
    ) -> None:
        """Its message, in the mailbox by then, counts for nothing: it does not cancel the event time-out either."""
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


class TestGenericTimeout:
    """Any number, by name."""

    def test_each_name_has_its_own(self, machines: Machines, clock: WatchedClock) -> None:
        """State changes and other events leave them alone."""
        table = {"a go": next_state("b")}
        ref = machines.start(table, next_state("a", generic_timeout("x", 10.0, 1), generic_timeout("y", 5.0, 2)))
        cast(ref, "go")
        clock.advance(10.0)
        assert machines.log(ref) == ["a Cast go", "b y 2", "b x 1"]

    def test_a_name_is_set_anew_cancelled_and_updated_by_itself(self, machines: Machines, clock: WatchedClock) -> None:
        """What is done to one name is nothing to the others."""
        table = {
            "a change": keep_state(
                generic_timeout("x", CANCEL), generic_timeout("y", UPDATE, "new"), generic_timeout("z", 20.0, "later")
            )
        }
        names = ("w", "x", "y", "z")
        ref = machines.start(table, next_state("a", *(generic_timeout(name, 10.0, "old") for name in names)))
        cast(ref, "change")
        clock.advance(10.0)
        assert machines.log(ref) == ["a Cast change", "a w old", "a y new"]
        clock.advance(10.0)
        assert machines.log(ref) == ["a z later"]


class TestEventTimeout:
    """It comes unless anything else does."""

    def test_it_comes_when_nothing_else_does(self, machines: Machines, clock: WatchedClock) -> None:
        """After a state change, too: it does not belong to the state."""
        ref = machines.start({"a go": next_state("b", event_timeout(10.0, "quiet"))})
        cast(ref, "go")
        clock.advance(10.0)
        assert machines.log(ref) == ["a Cast go", "b EventTimeout quiet"]

    def test_any_event_cancels_it(self, machines: Machines, clock: WatchedClock) -> None:
        """Another time-out, an inserted or a postponed event as well as one from outside."""
        quiet = event_timeout(10.0, "quiet")
        table = {
            "a timer": keep_state(quiet, generic_timeout("x", 5.0, "tick")),
            "a insert": keep_state(quiet, next_event(Internal("x"))),
            "a later": keep_state(postpone()),
            "a go": next_state("b", quiet),
        }
        ref = machines.start(table, next_state("a", quiet))
        for request in ("outside", "timer", "insert", "later", "go"):
            cast(ref, request)
            clock.advance(5.0)
        clock.advance(60.0)
        assert machines.log(ref) == [
            *("a Cast outside", "a Cast timer", "a x tick", "a Cast insert", "a Internal x"),
            *("a Cast later", "a Cast go", "b Cast later"),
        ]


class TestZero:
    """Time-outs of no time at all."""

    def test_they_come_after_what_is_queued_in_the_machine_and_before_any_message(self, machines: Machines) -> None:
        """In the order of their actions, the last of each kind; no clock is needed."""
        table = {
            "a 1": keep_state(postpone()),
            "a go": next_state(
                "b",
                generic_timeout("x", 0, "dropped"),
                generic_timeout("y", 0, "2"),
                state_timeout(0, "3"),
                generic_timeout("x", 0, "4"),
                next_event(Internal("5")),
            ),
        }
        assert machines.run(table, "1", "go", "later")[2:] == [
            *("b Internal 5", "b Cast 1"),
            *("b y 2", "b StateTimeout 3", "b x 4"),
            "b Cast later",
        ]

    def test_a_zero_event_timeout_comes_only_if_nothing_is_queued(self, machines: Machines) -> None:
        """OTP: a zero state time-out that was asked for before it counts as an event, too."""
        quiet = event_timeout(0, "quiet")
        table = {
            "a alone": keep_state(quiet),
            "a insert": keep_state(quiet, next_event(Internal("1"))),
            "a before": keep_state(quiet, state_timeout(0, "2")),
            "a after": keep_state(state_timeout(0, "3"), quiet),
        }
        assert machines.run(table, "alone", "insert", "before", "after") == [
            *("a Cast alone", "a EventTimeout quiet"),
            *("a Cast insert", "a Internal 1"),
            *("a Cast before", "a EventTimeout quiet", "a StateTimeout 2"),
            *("a Cast after", "a StateTimeout 3"),
        ]

    def test_what_cancels_a_timeout_cancels_a_zero_one_that_waits(self, machines: Machines) -> None:
        """A state change does, and so does CANCEL."""
        table = {
            "a go": keep_state(state_timeout(0, "late"), generic_timeout("x", 0, "late"), next_event(Internal("now"))),
            "a now": next_state("b", generic_timeout("x", CANCEL)),
        }
        assert machines.run(table, "go") == ["a Cast go", "a Internal now"]


class TestAbsolute:
    """Time-outs at a moment of the clock."""

    @pytest.mark.parametrize("past", [-5.0, 0.0])
    def test_one_in_the_past_comes_at_once_as_a_message(
        self, machines: Machines, clock: WatchedClock, past: float
    ) -> None:
        """So it takes its turn behind the messages that have come already."""
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
    """Not later, in the engine."""
    for make in (event_timeout, state_timeout, lambda time: generic_timeout("x", time)):
        with pytest.raises(error, match="a time-out needs"):
            make(seconds)


@pytest.mark.parametrize("end", [lambda ref: ref.stop(), lambda ref: ref.cast("end")], ids=["stopped", "stops"])
def test_timers_end_with_the_machine(machines: Machines, clock: WatchedClock, end: Callable[[Ref], Any]) -> None:
    """Nothing is delivered, and nothing complains, when the clock goes on."""
    first = next_state("a", state_timeout(10.0), generic_timeout("x", 10.0))
    ref = machines.start({"a end": Stop()}, first)
    end(ref)
    assert exit_reason_of(ref) == NORMAL
    clock.advance(60.0)
    assert machines.seen.rest()[-1] == "a terminate"
