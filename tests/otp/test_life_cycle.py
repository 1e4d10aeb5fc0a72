"""How an actor starts, runs and ends, and what one crash does; the same on both runtimes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    NORMAL,
    SHUTDOWN,
    ActorSystem,
    Continue,
    Crash,
    GenServer,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Shutdown,
    StartError,
    Stop,
)
from tests.otp.support import (
    WAIT_SECONDS,
    Pooled,
    Seen,
    exit_reason_of,
    raising,
    run_in,
    settle,
    sync,
    thread_of,
)

ERRORS = [ValueError("bug"), SystemExit(3), KeyboardInterrupt()]
by_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


# --- start -----------------------------------------------------------------------------------------------------------


@by_error
def test_a_crash_in_init_is_a_start_error_with_its_cause(
    system: ActorSystem, server: type[Pooled], error: BaseException
) -> None:
    seen = Seen()
    with pytest.raises(StartError) as raised:
        system.start(server, seen, init=raising(error), name="it")
    assert raised.value.__cause__ is error
    assert raised.value.result == NotStarted(Crash(error))
    assert system.whereis("it") is None
    assert system.processes() == []
    assert seen.rest() == []


def test_continue_runs_before_any_message(system: ActorSystem, server: type[Pooled]) -> None:
    """What init leaves to handle_continue is done before the first message, even one that init sent."""
    seen = Seen()

    def init(actor: Any) -> Continue:
        actor.ref.send("message")
        return Continue(lambda actor: actor.seen.put("continue"))

    sync(system.start(server, seen, init=init))
    assert seen.rest() == ["continue", "message"]


def test_continue_without_its_callback_is_a_crash(system: ActorSystem) -> None:
    """Continue is not dropped silently where handle_continue is missing; the start itself has succeeded by then."""

    class Forgetful(GenServer):
        def init(self) -> Continue:
            return Continue("next")

    reason = exit_reason_of(system.start(Forgetful))
    assert isinstance(reason, Crash)
    assert "handle_continue" in str(reason)


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, Shutdown("done")], ids=str)
def test_stop_ends_with_its_reason_after_terminate(system: ActorSystem, server: type[Pooled], reason: Any) -> None:
    seen = Seen()
    ref = system.start(server, seen)
    ref.cast(lambda _actor: Stop(reason))
    assert exit_reason_of(ref) == reason
    assert seen.rest() == [("terminate", reason)]
    assert not ref.is_alive()


def test_a_stop_answers_its_call_after_terminate(system: ActorSystem, server: type[Pooled]) -> None:
    """The caller of the last call gets its answer, and what terminate does has been done by then."""
    seen = Seen()
    ref = system.start(server, seen)
    assert ref.call(lambda _actor, _from: Stop(NORMAL, "bye"), WAIT_SECONDS) == "bye"
    assert seen.rest() == [("terminate", NORMAL)]
    assert exit_reason_of(ref) == NORMAL


def test_a_stop_without_an_answer_fails_its_call(system: ActorSystem, server: type[Pooled]) -> None:
    """Stop(reason) alone leaves its caller without an answer, and tells why."""
    ref = system.start(server)
    with pytest.raises(pykka.ActorDeadError, match="shutdown: over"):
        ref.call(lambda _actor, _from: Stop(Shutdown("over")), WAIT_SECONDS)


@by_error
def test_a_crash_in_terminate_replaces_the_reason(
    system: ActorSystem, server: type[Pooled], error: BaseException
) -> None:
    """A crash while cleaning up is what the actor ended of; the answer of the last call still goes out."""
    ref = system.start(server, terminate=raising(error))
    assert ref.call(lambda _actor, _from: Stop(NORMAL, "bye"), WAIT_SECONDS) == "bye"
    assert exit_reason_of(ref) == Crash(error)


def test_the_last_answer_comes_before_the_end(system: ActorSystem, server: type[Pooled]) -> None:
    """Who asked and watches sees the reply of a Stop first, then the Down (gen_server)."""
    seen = Seen()
    ref = system.start(server)
    asker = system.start(Pooled, seen)

    def ask(actor: Any) -> None:
        actor.monitor(ref)
        actor.send_request(ref, lambda _actor, _from: Stop(NORMAL, "bye"), "label")

    asker.send(ask)
    assert [type(item).__name__ for item in seen.take(2)] == ["tuple", "Down"]


def test_terminate_may_wait_for_a_message(system: ActorSystem, server: type[Pooled]) -> None:
    """terminate may receive selectively; the actor lives, and keeps its name, until it is through."""

    def terminate(actor: Any) -> Receiving:
        message = yield Receive(lambda message: message == "go")
        actor.seen.put(message)

    seen = Seen()
    ref = system.start(server, seen, terminate=terminate, name="it")
    ref.cast(lambda _actor: Stop())
    assert seen.next() == ("terminate", NORMAL)
    assert system.whereis("it") is ref
    ref.send("go")
    assert exit_reason_of(ref) == NORMAL
    assert seen.rest() == ["go"]


def test_an_ended_actor_leaves_nothing_behind(system: ActorSystem, server: type[Pooled]) -> None:
    """An actor's memory goes with it, as soon as nobody holds its reference."""
    ref = system.start(server)
    actor = weakref.ref(run_in(ref, lambda actor: actor))
    process = weakref.ref(ref.process)
    thread = thread_of(ref)
    ref.stop()
    settle(system, thread)
    gc.collect()
    assert actor() is None
    del ref
    gc.collect()
    assert process() is None


# --- one crash rule --------------------------------------------------------------------------------------------------


def _crash_in_call(ref: Ref, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        ref.call(raising(error), WAIT_SECONDS)
    assert raised.value is error


def _crash_in_selective_receive(ref: Ref, error: BaseException) -> None:
    def script(_actor: Any) -> Receiving:
        yield Receive(lambda message: message == "go")
        raise error

    ref.cast(script)
    ref.send("go")


def _crash_in_predicate(ref: Ref, error: BaseException) -> None:
    def script(_actor: Any) -> Receiving:
        yield Receive(raising(error))

    ref.cast(script)
    ref.send("anything")


CRASHES: dict[str, Callable[[Ref, BaseException], None]] = {
    "call": _crash_in_call,
    "cast": lambda ref, error: ref.cast(raising(error)),
    "info": lambda ref, error: ref.send(raising(error)),
    "continue": lambda ref, error: ref.cast(lambda _actor: Continue(raising(error))),
    "reply": lambda ref, error: ref.cast(
        lambda actor: actor.send_request(actor.ref, lambda _actor, _from: "value", raising(error))
    ),
    "failure": lambda ref, error: ref.cast(lambda actor: actor.send_request("nobody", "request", raising(error))),
    "selective receive": _crash_in_selective_receive,
    "predicate": _crash_in_predicate,
}


@by_error
@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES)
def test_whatever_a_callback_raises_ends_its_actor_alone(
    system: ActorSystem, server: type[Pooled], crash: Callable[[Ref, BaseException], None], error: BaseException
) -> None:
    """One crash rule: any exception, in any callback, ends that actor with Crash, after terminate, and no other."""
    seen = Seen()
    bystander = system.start(server)
    ref = system.start(server, seen)
    crash(ref, error)
    assert exit_reason_of(ref) == Crash(error)
    assert seen.rest() == [("terminate", Crash(error))]
    sync(bystander)


def test_a_generator_that_yields_something_else_is_a_crash(system: ActorSystem, server: type[Pooled]) -> None:
    """A callback that yields by mistake is told so; it does not hang."""

    def script(_actor: Any, _from: Any) -> Any:
        yield "oops"

    ref = system.start(server)
    with pytest.raises(TypeError, match=r"yields Receive, not str\[4\]"):
        ref.call(script, WAIT_SECONDS)
    assert isinstance(exit_reason_of(ref), Crash)
