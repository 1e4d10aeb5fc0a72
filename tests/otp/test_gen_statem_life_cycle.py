"""How a ``GenStateMachine`` starts and ends (OTP 27, gen_statem)."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    IGNORE,
    NORMAL,
    SHUTDOWN,
    ActorSystem,
    Continue,
    Crash,
    NotStarted,
    Receive,
    Receiving,
    Runtime,
    StartError,
    Stop,
)
from receipt_actors.otp.gen_statem import (
    Call,
    GenStateMachine,
    Internal,
    keep_state,
    next_event,
    next_state,
    postpone,
    reply,
    state_timeout,
    stop_and_reply,
)
from tests.otp.statem_support import Machines, TableMachine, state_of
from tests.otp.support import WAIT_SECONDS, Gate, Seen, WatchedClock, exit_reason_of, settle


@pytest.fixture
def machines(system: ActorSystem, runtime: Runtime) -> Machines:
    return Machines(system, runtime)


def wrong(reason: object, error: type[Exception], complaint: str) -> None:
    """Check why a machine crashed."""
    assert isinstance(reason, Crash)
    with pytest.raises(error, match=complaint):
        raise reason.exception


class TestStart:
    """``init`` and the first state."""

    def test_init_may_decline(self, machines: Machines, system: ActorSystem) -> None:
        """With IGNORE, or for a reason, as any actor's init."""
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
        """With an error that says what was expected."""
        with pytest.raises(StartError) as caught:
            machines.start({}, first)
        with pytest.raises(error, match=complaint):
            raise caught.value.__cause__ or AssertionError("no cause")

    def test_a_class_without_a_first_state_does_not_start(self, system: ActorSystem) -> None:
        """It says what is missing."""
        with pytest.raises(StartError, match="GenStateMachine has no init, which returns next_state"):
            system.start(GenStateMachine)

    def test_init_may_receive_selectively(self, machines: Machines, system: ActorSystem) -> None:
        """The start takes until then; what came meanwhile is handled in the first state."""

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
    """Stop, crash, shutdown, kill."""

    @pytest.mark.parametrize(
        ("result", "error", "complaint"),
        [
            (None, TypeError, "returned None for Cast.*no case fits"),
            ("b", TypeError, "returned str\\[1\\] for Cast"),
            (Continue("x"), TypeError, "returned Continue"),
            (Stop(NORMAL, reply=1), TypeError, "stop_and_reply"),
            (next_state("d"), ValueError, "TableMachine has no state 'd'"),
            (next_state("terminate"), ValueError, "no state 'terminate'"),
            (next_state("_private"), ValueError, "no state '_private'"),
            (next_state(7), ValueError, "no state 7"),
            (lambda *_args: keep_state("postpone"), TypeError, "'postpone' is not an action"),  # type: ignore[arg-type]
            (lambda *_args: next_state("b", keep_state()), TypeError, "is not an action"),  # type: ignore[arg-type]
            (lambda *_args: keep_state(next_event("x")), TypeError, "needs an event"),  # type: ignore[arg-type]
            (lambda *_args: keep_state(reply("me", 1)), TypeError, "needs the from_ of a Call"),  # type: ignore[arg-type]
            (lambda *_args: stop_and_reply(NORMAL, postpone()), TypeError, "nothing else"),  # type: ignore[arg-type]
        ],
    )
    def test_a_wrong_result_is_a_crash_that_says_what_is_wrong(
        self, machines: Machines, result: Any, error: type[Exception], complaint: str
    ) -> None:
        """The machine ends in the state that it was in."""
        ref = machines.start({"a go": result})
        ref.cast("go")
        wrong(exit_reason_of(ref), error, complaint)
        assert machines.seen.take(2) == ["a Cast go", "a terminate"]

    def test_a_machine_that_is_killed_handles_no_event_any_more(
        self, machines: Machines, system: ActorSystem, clock: WatchedClock
    ) -> None:
        """What the callback that ran returns counts for nothing: no event, no reply, no timer."""
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
        """It waits for its turn and ends the machine with the reason normal."""
        ref = machines.start({"a 1": next_state("b")})
        ref.cast("1")
        ref.stop()
        assert exit_reason_of(ref) == NORMAL
        assert machines.seen.rest() == ["a Cast 1", "b terminate"]


def test_a_crash_is_logged_without_the_message(system: ActorSystem, caplog: pytest.LogCaptureFixture) -> None:
    """As for any actor: only the message's type."""
    ref = system.start(TableMachine, Seen(), {"a secret": None})
    with caplog.at_level(logging.ERROR, "receipt_actors.otp"):
        ref.send("secret")
        exit_reason_of(ref)
    assert "crashed while handling str: TypeError" in caplog.text
    assert "secret" not in caplog.text
