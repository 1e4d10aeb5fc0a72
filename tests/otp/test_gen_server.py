"""``gen_server``: how an actor starts, runs and ends, what one crash does, calls, time-outs; on both runtimes."""

from __future__ import annotations

import gc
import inspect
import logging
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from receipt_actors.otp import (
    BRUTAL_KILL,
    IGNORE,
    KILLED,
    NO_REPLY,
    NORMAL,
    SHUTDOWN,
    TIMEOUT,
    ActorSystem,
    ChildSpec,
    Continue,
    Crash,
    ExitReason,
    From,
    GenServer,
    IdleTimeout,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Shutdown,
    Start,
    StartError,
    Stop,
    Supervisor,
    terminate_child,
)
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp.gen_statem import GenStateMachine, keep_state, next_state, reply
from tests.otp.support import (
    WAIT_SECONDS,
    Gate,
    Pooled,
    Seen,
    WatchedClock,
    exit_reason_of,
    link_child,
    raising,
    run_in,
    settle,
    sync,
    thread_of,
)

BUG = Crash(ValueError("bug"))
DONE = Shutdown("done")


@pytest.mark.parametrize(
    ("returned", "result", "exit_reason"),
    [(IGNORE, IGNORE, NORMAL), (NotStarted(DONE), NotStarted(DONE), NORMAL), (Stop(DONE), NotStarted(DONE), DONE)],
    ids=["ignore", "error", "stop"],
)
def test_init_that_ignores_or_fails_ends_the_process(
    system: ActorSystem, server: type[Pooled], returned: object, result: object, exit_reason: ExitReason
) -> None:
    """As OTP: normal after ``ignore`` and ``{error, Reason}``, the reason itself after ``{stop, Reason}``."""
    refs, seen = Seen(), Seen()

    def init(actor: Any) -> Any:
        refs.put(actor.ref)
        return returned

    with pytest.raises(StartError) as raised:
        system.start(server, seen, init=init, name="it")
    assert raised.value.result == result
    assert exit_reason_of(refs.next()) == exit_reason
    assert system.whereis("it") is None
    assert seen.rest() == []  # no terminate


@pytest.mark.parametrize("value", [0, "text", object()], ids=["0", "text", "object"])
def test_a_value_that_means_nothing_is_ignored(system: ActorSystem, server: type[Pooled], value: object) -> None:
    """Of any callback but handle_call: as pykka does it, and unlike OTP, which ends the server."""
    ref = system.start(server, init=lambda _actor: value)
    ref.cast(lambda _actor: value)
    ref.send(lambda _actor: value)
    ref.cast(lambda _actor: Continue(lambda _actor: value))
    sync(ref)


def test_a_call_may_be_answered_and_go_on(system: ActorSystem, server: type[Pooled]) -> None:
    """OTP: ``{reply, Reply, State, {continue, Term}}``."""
    ref = system.start(server)
    with Gate() as gate:
        assert ref.call(lambda _actor, _from: Continue(gate, reply="answer"), WAIT_SECONDS) == "answer"
        gate.wait_entered()


def test_a_call_waits_five_seconds_or_as_long_as_it_is_told(system: ActorSystem, server: type[Pooled]) -> None:
    """OTP's default; None, its ``infinity``, waits for an answer that comes later."""
    assert inspect.signature(Ref.call).parameters["timeout"].default == 5.0
    ref = system.start(server)

    def script(actor: Any, from_: From) -> Any:
        actor.ref.cast(lambda _actor: from_.reply("later"))
        return NO_REPLY

    assert ref.call(script, None) == "later"


class Bare(GenServer):
    """Has no callback at all."""


@pytest.mark.parametrize("send", [Ref.cast, lambda ref, request: ref.ask(request, block=False)], ids=["cast", "call"])
def test_a_request_without_its_callback_is_a_crash(system: ActorSystem, send: Callable[[Ref, object], object]) -> None:
    ref = system.start(Bare)
    send(ref, "request")
    reason = exit_reason_of(ref)
    assert isinstance(reason, Crash)
    assert isinstance(reason.exception, NotImplementedError)


def test_a_message_without_its_callback_is_logged_and_dropped(
    system: ActorSystem, caplog: pytest.LogCaptureFixture
) -> None:
    ref = system.start(Bare)
    with caplog.at_level(logging.WARNING, "receipt_actors.otp"):
        ref.send("message")
        otp_sys.get_state(ref, WAIT_SECONDS)
    assert [record.getMessage() for record in caplog.records] == [f"{ref} dropped an unexpected message of type str"]
    assert ref.stop(timeout=WAIT_SECONDS)
    assert exit_reason_of(ref) == NORMAL


@pytest.mark.parametrize(
    ("end", "shutdown", "when_trapping", "when_not", "exit_reason"),
    [
        (lambda _supervisor, child: child.cast(lambda _actor: Stop(DONE)), 5.0, DONE, DONE, DONE),
        (lambda _supervisor, child: child.cast(raising(BUG.exception)), 5.0, BUG, BUG, BUG),
        (lambda supervisor, _child: terminate_child(supervisor, "child"), 5.0, SHUTDOWN, None, SHUTDOWN),
        (lambda supervisor, _child: terminate_child(supervisor, "child"), BRUTAL_KILL, None, None, KILLED),
        (lambda _supervisor, child: child.kill(), 5.0, None, None, KILLED),
    ],
    ids=["stop", "crash", "supervisor's order", "brutal_kill", "kill"],
)
@pytest.mark.parametrize("traps", [True, False], ids=["trapping", "not trapping"])
def test_terminate_runs_exactly_when_otp_says(
    system: ActorSystem,
    server: type[Pooled],
    trapping: type[Pooled],
    traps: bool,
    end: Callable[[Ref, Ref], None],
    shutdown: Any,
    when_trapping: ExitReason | None,
    when_not: ExitReason | None,
    exit_reason: ExitReason,
) -> None:
    seen = Seen()
    start = Start(trapping if traps else server, seen, name="child")
    supervisor = system.start(Supervisor, [ChildSpec("child", start, shutdown=shutdown)], intensity=0)
    child = system.whereis("child")
    assert child is not None
    end(supervisor, child)
    assert exit_reason_of(child) == exit_reason
    expected = when_trapping if traps else when_not
    assert seen.rest() == ([] if expected is None else [("terminate", expected)])


class Answering(GenStateMachine):
    def init(self) -> Any:
        return next_state("ready")

    def ready(self, event: Any) -> Any:
        return keep_state(reply(event.from_, "answer"))


def test_every_answer_is_an_event_of_sys(system: ActorSystem, server: type[Pooled]) -> None:
    """One that is returned, one that a machine gives by action, and (not so in OTP) one given by ``From.reply``."""
    for ref, request in (
        (system.start(server), lambda _actor, _from: "answer"),
        (system.start(server), lambda _actor, from_: from_.reply("answer")),
        (system.start(Answering), "request"),
    ):
        otp_sys.log(ref, 10, WAIT_SECONDS)
        assert ref.call(request, WAIT_SECONDS) == "answer"
        events = otp_sys.get_log(ref, WAIT_SECONDS)
        assert [event.kind for event in events] == [otp_sys.EventKind.CALL, otp_sys.EventKind.SENT]
        assert events[-1].content == "answer"


def wait_idle(_actor: Any, *_args: object) -> IdleTimeout:
    return IdleTimeout(5.0)


def assert_timeout_after_five_seconds(ref: Ref, seen: Seen, clock: WatchedClock) -> None:
    """Neither earlier nor twice; ``sys`` is no message, so it tells without disturbing."""
    otp_sys.get_state(ref, WAIT_SECONDS)
    for _ in range(2):
        clock.advance(4.9)
        otp_sys.get_state(ref, WAIT_SECONDS)  # which begins the time anew
        assert seen.rest() == []
    clock.advance(5.0)
    assert seen.next() is TIMEOUT
    clock.advance(100.0)
    sync(ref)
    assert seen.rest() == []


@pytest.mark.parametrize(
    "ask",
    [
        None,
        lambda ref, _other: ref.cast(wait_idle),
        lambda ref, _other: ref.send(wait_idle),
        lambda ref, _other: ref.cast(lambda _actor: Continue(wait_idle)),
        lambda ref, other: run_in(ref, lambda actor: actor.send_request(other, lambda *_args: 1, wait_idle)),
        lambda ref, _other: run_in(ref, lambda actor: actor.send_request("nobody", "request", wait_idle)),
    ],
    ids=["init", "cast", "info", "continue", "reply", "failure"],
)
def test_a_timeout_comes_when_nothing_else_does(
    system: ActorSystem, server: type[Pooled], clock: WatchedClock, ask: Callable[[Ref, Ref], object] | None
) -> None:
    """OTP: ``{noreply, State, Timeout}`` of every callback; once, as a message to handle_info."""
    seen = Seen()
    ref, other = system.start(server, seen, init=None if ask else wait_idle), system.start(server)
    if ask:
        ask(ref, other)
    assert clock.set_timers.next() == 5.0
    assert_timeout_after_five_seconds(ref, seen, clock)


def test_a_call_may_be_answered_and_a_timeout_set(
    system: ActorSystem, server: type[Pooled], clock: WatchedClock
) -> None:
    """OTP: ``{reply, Reply, State, Timeout}``; without a reply it comes later, as with ``NO_REPLY``."""
    seen, kept = Seen(), Seen()
    ref = system.start(server, seen)
    assert ref.call(lambda _actor, _from: IdleTimeout(5.0, reply="answer"), WAIT_SECONDS) == "answer"
    assert_timeout_after_five_seconds(ref, seen, clock)

    def script(_actor: Any, from_: From) -> IdleTimeout:
        kept.put(from_)
        return IdleTimeout(5.0)

    future = ref.ask(script, block=False)
    kept.next().reply("later")
    assert future.get(timeout=WAIT_SECONDS) == "later"
    assert_timeout_after_five_seconds(ref, seen, clock)


@pytest.mark.parametrize(
    "send",
    [
        lambda ref, _other: ref.cast(lambda _actor: IdleTimeout(math.inf)),
        lambda ref, _other: sync(ref),
        lambda ref, _other: ref.send("message"),
        lambda _ref, other: other.kill(),
    ],
    ids=["infinity", "call", "message", "Down"],
)
def test_any_message_cancels_a_timeout(
    system: ActorSystem, server: type[Pooled], clock: WatchedClock, send: Callable[[Ref, Ref], object]
) -> None:
    seen = Seen()
    ref, other = system.start(server, seen), system.start(server)
    run_in(ref, lambda actor: actor.monitor(other))
    ref.cast(wait_idle)
    assert clock.set_timers.next() == 5.0
    send(ref, other)
    otp_sys.get_state(ref, WAIT_SECONDS)
    clock.advance(1e9)
    sync(ref)
    assert TIMEOUT not in seen.rest()


def test_a_timeout_of_zero_comes_only_where_nothing_waits(system: ActorSystem, server: type[Pooled]) -> None:
    """As Erlang's ``receive ... after 0``: a message that is there already is handled in its place."""
    seen = Seen()
    ref = system.start(server, seen)
    with Gate(returns=IdleTimeout(0.0)) as gate:
        ref.cast(gate)
        gate.wait_entered()
        ref.send("message")
    sync(ref)
    assert seen.rest() == ["message"]
    ref.cast(lambda _actor: IdleTimeout(0.0))
    assert seen.next() is TIMEOUT


def test_a_timeout_of_zero_from_init_needs_no_clock(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    system.start(server, seen, init=lambda _actor: IdleTimeout(0))
    assert seen.next() is TIMEOUT
    parent = system.start(Pooled)
    child = link_child(parent, server, seen, init=lambda _actor: IdleTimeout(0))
    assert seen.next() is TIMEOUT
    otp_sys.suspend(child)
    with Gate(returns=IdleTimeout(0)) as gate:
        child.cast(gate)
    otp_sys.resume(child)
    assert seen.next() is TIMEOUT
    sync(child)
    assert seen.rest() == []


@pytest.mark.parametrize("suspended", [False, True], ids=["running", "suspended"])
def test_a_flushed_down_does_not_cancel_an_idle_time_out(
    system: ActorSystem, clock: WatchedClock, server: type[Pooled], suspended: bool
) -> None:
    """``demonitor`` with ``flush`` takes the message out of the mailbox (OTP): nothing has come, and TIMEOUT is due."""
    seen = Seen()
    ref, other = system.start(server, seen), system.start(server)

    def flush_and_idle(actor: Any) -> IdleTimeout:
        monitor = actor.monitor(other)
        other.process.kill()
        actor.demonitor(monitor, flush=True)
        return IdleTimeout(1)

    if suspended:
        otp_sys.suspend(ref)
    ref.cast(flush_and_idle)
    if suspended:
        otp_sys.resume(ref)
    otp_sys.get_state(ref)
    clock.advance(1)
    assert seen.next() is TIMEOUT


ERRORS = [ValueError("bug"), SystemExit(3), KeyboardInterrupt()]
by_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


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


def test_continue_without_its_callback_is_a_crash(system: ActorSystem) -> None:
    class Forgetful(GenServer):
        def init(self) -> Continue:
            return Continue("next")

    reason = exit_reason_of(system.start(Forgetful))
    assert isinstance(reason, Crash)
    assert "handle_continue" in str(reason)


def test_a_stop_answers_its_call_after_terminate(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    ref = system.start(server, seen)
    assert ref.call(lambda _actor, _from: Stop(NORMAL, "bye"), WAIT_SECONDS) == "bye"
    assert seen.rest() == [("terminate", NORMAL)]
    assert exit_reason_of(ref) == NORMAL


@by_error
def test_a_crash_in_terminate_replaces_the_reason(
    system: ActorSystem, server: type[Pooled], error: BaseException
) -> None:
    ref = system.start(server, terminate=raising(error))
    assert ref.call(lambda _actor, _from: Stop(NORMAL, "bye"), WAIT_SECONDS) == "bye"
    assert exit_reason_of(ref) == Crash(error)


def test_an_ended_actor_leaves_nothing_behind(system: ActorSystem, server: type[Pooled]) -> None:
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
    seen = Seen()
    bystander = system.start(server)
    ref = system.start(server, seen)
    crash(ref, error)
    assert exit_reason_of(ref) == Crash(error)
    assert seen.rest() == [("terminate", Crash(error))]
    sync(bystander)


def test_a_generator_that_yields_something_else_is_a_crash(system: ActorSystem, server: type[Pooled]) -> None:
    def script(_actor: Any, _from: Any) -> Any:
        yield "oops"

    ref = system.start(server)
    with pytest.raises(TypeError, match=r"yields Receive, not str\[4\]"):
        ref.call(script, WAIT_SECONDS)
    assert isinstance(exit_reason_of(ref), Crash)


DEEP = 400  #: more than Python's stack would hold of these
MANY = 3_000  #: continuations, likewise


@pytest.mark.parametrize("in_init", [True, False], ids=["in init", "in handle_continue"])
def test_a_row_of_starts_may_be_long(system: ActorSystem, in_init: bool) -> None:
    complete = threading.Event()

    def beginning(left: int) -> Callable[[Any], Any]:
        def start_next(actor: Any) -> None:
            if left:
                actor.system.start_link(Pooled, init=beginning(left - 1))
            else:
                complete.set()

        return start_next if in_init else lambda _actor: Continue(start_next)

    system.start(Pooled, init=beginning(DEEP))
    assert complete.wait(WAIT_SECONDS)
    assert len(system.processes()) == DEEP + 1


@pytest.mark.parametrize("by_generator", [False, True], ids=["plain", "generator"])
def test_continue_may_follow_continue_without_end(system: ActorSystem, by_generator: bool) -> None:
    """3,000 continuations in a row are no deeper than one (OTP: ``{continue, Continue}`` is a tail call)."""
    done = threading.Event()

    def step(left: int) -> Continue | None:
        if left:
            return Continue(lambda _actor: generating(left) if by_generator else step(left - 1))
        done.set()
        return None

    def generating(left: int) -> Receiving:
        yield from ()
        return step(left - 1)

    ref = system.start(Pooled, init=lambda _actor: step(MANY))
    assert done.wait(WAIT_SECONDS)
    assert ref.is_alive()


def test_a_continuation_comes_before_what_init_passed_over(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    known: Seen = Seen()

    def init(actor: Any) -> Receiving:
        known.put(actor.ref)
        yield Receive(lambda message: message == "go")
        return Continue(lambda _actor: seen.put("continued"))

    def start() -> None:
        system.start(server, seen, init=init)

    thread = threading.Thread(target=start)
    thread.start()
    ref: Ref = known.next()
    for message in ("first", "go", "second"):
        ref.send(message)
    assert seen.take(3) == ["continued", "first", "second"]
    thread.join(WAIT_SECONDS)
