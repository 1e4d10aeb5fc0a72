"""``sys``: looking into a running actor, holding it, watching it (named after the functions of the manual page)."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    Actor,
    ActorSystem,
    Crash,
    Exit,
    ExitReason,
    From,
    GenServer,
    Receive,
    Receiving,
    Ref,
    Shutdown,
)
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp.sys import Event, EventKind
from tests.otp.support import (
    WAIT_SECONDS,
    Gate,
    Pooled,
    Seen,
    Threaded,
    WatchedClock,
    deferring,
    exit_reason_of,
    link_child,
    raising,
    run_in,
    settle,
    sync,
    thread_of,
)

SECRET = "hunter2"


def test_each_function_waits_five_seconds_unless_told_otherwise() -> None:
    functions = [
        each for _, each in inspect.getmembers(otp_sys, inspect.isfunction) if each.__module__ == otp_sys.__name__
    ]
    functions = [each for each in functions if not each.__name__.startswith("_")]
    parameters = {function.__name__: inspect.signature(function).parameters for function in functions}
    timeouts = {name: found["timeout"].default for name, found in parameters.items() if "timeout" in found}
    assert set(parameters) - set(timeouts) <= {"where", "install_everywhere", "remove_everywhere", "watch_as_chosen"}
    assert timeouts == dict.fromkeys(timeouts, 5.0)
    assert "get_state" in timeouts


class Counter(GenServer):
    def __init__(self, count: int = 0) -> None:
        self.count = count

    def handle_call(self, request: Any, from_: From) -> Any:
        self.count += 1
        return self.count


class PlainCounter(Actor):
    def __init__(self, count: int = 0) -> None:
        self.count = count

    def on_receive(self, message: Any) -> Any:
        self.count += 1
        return self.count


@pytest.fixture(params=[Counter, PlainCounter])
def counter(request: pytest.FixtureRequest, system: ActorSystem) -> Ref:
    return system.start(request.param, 1)


@contextmanager
def asked(function: Callable[[], object]) -> Iterator[Seen]:
    """Have a thread of its own call ``function``; what comes of it goes into what is yielded."""
    outcome = Seen()

    def ask() -> None:
        try:
            outcome.put(function())
        except Exception as error:  # noqa: BLE001
            outcome.put(error)

    thread = threading.Thread(target=ask)
    thread.start()
    yield outcome
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_get_state_tells_the_attributes(counter: Ref) -> None:
    assert otp_sys.get_state(counter) == {"count": 1}
    assert counter.ask("next") == 2
    assert otp_sys.get_state(counter) == {"count": 2}


def test_replace_state_changes_the_attributes(counter: Ref) -> None:
    assert otp_sys.replace_state(counter, lambda state: state) == {"count": 1}
    assert otp_sys.replace_state(counter, lambda state: {"count": state["count"] + 40}) == {"count": 41}
    assert counter.ask("next") == 42
    otp_sys.replace_state(counter, lambda state: {**state, "more": 1})
    assert otp_sys.replace_state(counter, lambda _state: {"count": 0}) == {"count": 0}


def failing(state: dict[str, Any]) -> Any:
    state["count"] = 100
    raise SystemExit


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (failing, SystemExit),
        *((lambda _state, wrong=wrong: wrong, TypeError) for wrong in (None, 5, [("count", 5)], {5: "count"})),
    ],
)
def test_replace_state_with_a_function_that_fails_changes_nothing(
    counter: Ref, function: Callable[[Any], Any], error: type[BaseException]
) -> None:
    with pytest.raises(error, match=r"must be a dict of attributes|^$"):
        otp_sys.replace_state(counter, function, WAIT_SECONDS)
    assert otp_sys.get_state(counter) == {"count": 1}
    assert counter.ask("next") == 2


class Wrapped(Counter):
    def system_get_state(self) -> Any:
        return ("count", self.count)

    def system_replace_state(self, state: Any) -> None:
        name, self.count = state
        assert name == "count"

    def format_status(self) -> Any:
        return f"{self.count} so far"


def test_an_actor_may_say_itself_what_its_state_is(system: ActorSystem) -> None:
    ref = system.start(Wrapped, 1)
    assert otp_sys.get_state(ref) == ("count", 1)
    assert otp_sys.replace_state(ref, lambda state: (state[0], 41)) == ("count", 41)
    assert otp_sys.get_status(ref).state == "41 so far"
    assert ref.call("next") == 42


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(1)], ids=repr)
def test_a_hook_that_fails_does_not_end_its_actor(system: ActorSystem, error: BaseException) -> None:

    class Broken(Counter):
        system_get_state = raising(error)
        format_status = raising(error)

    ref = system.start(Broken)
    for function in (
        otp_sys.get_state,
        otp_sys.get_status,
        lambda ref: otp_sys.replace_state(ref, lambda state: state),
    ):
        with pytest.raises(type(error)) as raised:
            function(ref)
        assert raised.value is error
    assert ref.call("next") == 1


def test_get_status_describes_the_actor(system: ActorSystem, server: type[Pooled], trapping: type[Pooled]) -> None:
    parent = system.start(trapping)
    ref = link_child(parent, server, name="it")
    kept = Seen()
    ref.ask(deferring(kept), block=False)
    kept.next()
    status = otp_sys.get_status(ref)
    assert (status.ref, status.name, status.actor_class) == (ref, "it", server)
    assert (status.parent, status.links, status.trap_exit) == (parent, (parent,), False)
    assert (status.is_suspended, status.is_watched) == (False, False)
    assert (status.mailbox_length, status.unanswered_calls) == (0, 1)

    status = otp_sys.get_status(parent)
    assert (status.name, status.parent, status.links, status.trap_exit) == (None, None, (ref,), True)


def test_get_status_holds_no_contents(system: ActorSystem) -> None:
    ref = system.start(Counter)
    secrets = {"password": SECRET, "key": SECRET.encode(), "users": {SECRET: SECRET}, "tokens": [SECRET]}
    otp_sys.replace_state(ref, lambda state: {**state, **secrets, "error": ValueError(SECRET)})
    otp_sys.suspend(ref)
    ref.cast(SECRET)
    ref.ask(SECRET, block=False)
    status = otp_sys.get_status(ref)
    assert status.mailbox_length == 2
    assert status.state == {
        "count": "int",
        "password": "str[7]",
        "key": "bytes[7]",
        "users": "dict[1]",
        "tokens": "list[1]",
        "error": "ValueError",
    }
    assert SECRET not in repr(status)
    ref.kill()


def test_suspend_leaves_sys_its_voice(counter: Ref) -> None:
    otp_sys.suspend(counter)
    answer = counter.ask("next", block=False)
    assert otp_sys.get_state(counter) == {"count": 1}
    assert otp_sys.replace_state(counter, lambda _state: {"count": 41}) == {"count": 41}
    assert otp_sys.statistics(counter, True) is None
    assert otp_sys.get_status(counter).is_suspended
    otp_sys.resume(counter)
    assert answer.get(timeout=WAIT_SECONDS) == 42


def test_suspend_does_not_count(counter: Ref) -> None:
    otp_sys.resume(counter)
    otp_sys.suspend(counter)
    with pytest.raises(pykka.Timeout):
        counter.call("next", 0)
    otp_sys.suspend(counter)
    otp_sys.resume(counter)
    assert counter.call("next") == 3
    otp_sys.resume(counter)
    assert counter.ask("next") == 4


@pytest.mark.parametrize(
    ("by", "traps", "reason", "cleans_up"),
    [
        (lambda ref, _parent: otp_sys.terminate(ref, SHUTDOWN), False, SHUTDOWN, True),
        (lambda ref, parent: run_in(parent, lambda _actor: ref.exit(SHUTDOWN)), True, SHUTDOWN, True),
        (lambda _ref, parent: parent.kill(), False, KILLED, False),
    ],
    ids=["terminate", "its parent's exit signal", "the end of its parent"],
)
def test_a_suspended_actor_can_be_ended(
    system: ActorSystem,
    server: type[Pooled],
    trapping: type[Pooled],
    by: Callable[[Ref, Ref], object],
    traps: bool,
    reason: ExitReason,
    cleans_up: bool,
) -> None:
    """Nobody has to resume it first, as OTP's suspend loop has it; it cleans up, and what was held is refused."""
    seen = Seen()
    parent = system.start(server)
    ref = link_child(parent, trapping if traps else server, seen)
    otp_sys.suspend(ref)
    ref.send("held")
    held = ref.ask(lambda _actor, _from: "never", block=False)
    by(ref, parent)
    assert exit_reason_of(ref) == reason
    assert seen.rest() == ([("terminate", reason)] if cleans_up else [])
    with pytest.raises(pykka.ActorDeadError):
        held.get(timeout=WAIT_SECONDS)


def test_suspend_waits_for_a_selective_receive(system: ActorSystem, server: type[Pooled]) -> None:
    """An actor in the middle of a callback hears sys afterwards, as in OTP: then it does what it was asked."""
    seen = Seen()
    ref = system.start(server, seen)

    def script(actor: Any) -> Receiving:
        actor.seen.put("waiting")
        message = yield Receive(lambda message: message == "awaited")
        actor.seen.put(message)

    ref.cast(script)
    assert seen.next() == "waiting"
    for function in (otp_sys.get_state, otp_sys.suspend):
        with pytest.raises(pykka.Timeout):
            function(ref, 0)
    ref.send("passed over")
    ref.send("awaited")
    assert otp_sys.get_status(ref).is_suspended
    assert seen.rest() == ["awaited"]
    otp_sys.resume(ref)
    sync(ref)
    assert seen.rest() == ["passed over"]


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, Shutdown("over"), Crash(ValueError("bug"))], ids=str)
def test_terminate_ends_it_in_an_orderly_way(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled], reason: ExitReason
) -> None:
    seen, linked_seen = Seen(), Seen()
    ref, linked = system.start(server, seen), system.start(trapping, linked_seen)
    run_in(linked, lambda actor: actor.link(ref))
    otp_sys.terminate(ref, reason)
    assert exit_reason_of(ref) == reason
    assert seen.rest() == [("terminate", reason)]
    assert linked_seen.next() == Exit(ref, reason)


def test_terminate_takes_its_turn(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    ref = system.start(server, seen)
    with Gate() as gate:
        ref.cast(gate)
        gate.wait_entered()
        ref.send("before")
        with asked(lambda: otp_sys.terminate(ref, SHUTDOWN)) as outcome:
            gate.open()
    assert outcome.rest() == [None]
    assert exit_reason_of(ref) == SHUTDOWN
    assert seen.rest() == ["before", ("terminate", SHUTDOWN)]


def test_terminate_does_not_wait_for_the_end(system: ActorSystem, server: type[Pooled]) -> None:
    """The request is answered when the actor begins to end, as in OTP: it may take its time to clean up."""
    with Gate() as gate:
        ref = system.start(server, terminate=gate)
        otp_sys.terminate(ref, SHUTDOWN, WAIT_SECONDS / 5)
        gate.wait_entered()
        assert ref.process.exit_reason is None
    assert exit_reason_of(ref) == SHUTDOWN


def test_killed_in_the_middle_of_a_request(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server)
    with Gate({}) as gate, asked(lambda: otp_sys.replace_state(ref, gate, WAIT_SECONDS)) as outcome:
        gate.wait_entered()
        ref.kill()
        assert ref.is_zombie
        assert isinstance(outcome.next(), pykka.ActorDeadError)
        gate.open()


@pytest.fixture
def ref(system: ActorSystem, server: type[Pooled]) -> Ref:
    return system.start(server)


def watch(ref: Ref) -> Seen:
    events = Seen()
    otp_sys.install(ref, "watch", events.put)
    return events


def kinds(events: Seen) -> list[EventKind]:
    return [event.kind for event in events.rest()]


def test_statistics_count_since_they_were_switched_on(
    system: ActorSystem, clock: WatchedClock, server: type[Pooled]
) -> None:
    seen = Seen()
    ref, other = system.start(server, seen), system.start(server)
    assert otp_sys.statistics(ref) is None
    ref.send("before")
    assert otp_sys.statistics(ref, True) is None
    clock.advance(2.5)
    ref.send("info")  # in
    ref.cast(lambda _actor: other.cast(lambda _actor: None))  # in, out
    assert ref.call(lambda _actor, _from: 1) == 1  # in, out
    run_in(ref, lambda actor: actor.send_request(other, lambda _actor, _from: 1, "label"))  # in, out, out
    sync(other)
    ref.send("last")  # in, behind the reply: in
    otp_sys.get_state(ref)
    assert otp_sys.statistics(ref) == otp_sys.Statistics(2.5, messages_in=6, messages_out=4)


def test_statistics_go_on_when_they_are_switched_on_again(ref: Ref, clock: WatchedClock) -> None:
    otp_sys.statistics(ref, True)
    sync(ref)
    clock.advance(1)
    counted = otp_sys.Statistics(1, messages_in=1, messages_out=1)
    assert otp_sys.statistics(ref, True) == counted
    assert otp_sys.statistics(ref) == counted
    assert otp_sys.statistics(ref, False) == counted
    assert otp_sys.statistics(ref) is None
    otp_sys.statistics(ref, True)
    assert otp_sys.statistics(ref) == otp_sys.Statistics(0, messages_in=0, messages_out=0)


def test_events_tell_what_happens(system: ActorSystem, clock: WatchedClock, server: type[Pooled]) -> None:
    ref, other = system.start(server), system.start(server)
    events = watch(ref)
    clock.advance(5)

    def request(_actor: Any, _from: From) -> str:
        return "answer"

    ref.call(request)
    message = raising(AssertionError("sent, but never handled"))
    otp_sys.suspend(other)
    cast = lambda actor: other.cast(message) or actor.system.whereis("nobody")  # noqa: E731
    ref.cast(cast)
    ref.send("info")
    sync(ref)
    found = events.take(7)
    assert found[:5] == [
        Event(ref, EventKind.CALL, request, None, 5),
        Event(ref, EventKind.SENT, "answer", None, 5),
        Event(ref, EventKind.CAST, cast, None, 5),
        Event(ref, EventKind.SENT, message, other, 5),
        Event(ref, EventKind.INFO, "info", None, 5),
    ]
    other.kill()


def test_what_a_debug_function_does_itself_is_no_event(ref: Ref) -> None:
    events = Seen()
    otp_sys.install(ref, "id", lambda event: events.put(event) or (event.kind is EventKind.CALL and ref.send("more")))
    sync(ref)
    otp_sys.get_state(ref)
    assert kinds(events) == [EventKind.CALL, EventKind.SENT, EventKind.INFO]


def test_events_of_the_end(ref: Ref) -> None:
    events = watch(ref)
    error = ValueError("bug")
    ref.cast(raising(error))
    assert exit_reason_of(ref) == Crash(error)
    cast, crashed, exited = events.take(3)
    assert cast.kind is EventKind.CAST
    assert (crashed.kind, crashed.content) == (EventKind.CRASHED, error)
    assert (exited.kind, exited.content) == (EventKind.EXITED, Crash(error))
    assert events.rest() == []


def test_a_killed_actor_makes_no_further_event(ref: Ref, system: ActorSystem, server: type[Pooled]) -> None:
    thread = thread_of(ref)
    other, kept = system.start(server), Seen()
    ref.ask(deferring(kept), block=False)
    events = watch(ref)
    with Gate() as gate:

        def script(_actor: Any) -> None:
            gate()
            other.send("late")
            raise ValueError("late")

        ref.cast(script)
        gate.wait_entered()
        ref.kill()
        assert kinds(events) == [EventKind.CAST, EventKind.EXITED]
    settle(system, thread)
    kept.next().reply("late")
    assert kinds(events) == []


def test_trace_logs_each_event_without_its_content(
    system: ActorSystem, server: type[Pooled], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "receipt_actors.otp")
    ref, other = system.start(server, name="it"), system.start(Pooled, name="other")
    otp_sys.trace(ref, True)
    ref.send(SECRET)
    run_in(ref, lambda _actor: other.send(SECRET))
    run_in(ref, lambda actor: actor.send_request(other, lambda _actor, _from: SECRET, {SECRET: SECRET}))
    sync(other)
    assert ref.call(lambda _actor, _from: SECRET) == SECRET
    thread = thread_of(ref)
    otp_sys.terminate(ref, Shutdown(SECRET))
    exit_reason_of(ref)
    settle(system, thread)
    records = [record for record in caplog.records if hasattr(record, "event")]
    assert SECRET not in "".join(record.getMessage() for record in records)
    lines = [record.getMessage() for record in records]
    assert lines[0] == f"trace: {ref} info str"
    assert f"trace: {ref} sent str to {other}" in lines
    assert lines[-1] == f"trace: {ref} exited Shutdown"
    assert {record.event.kind for record in records} >= {EventKind.REPLY, EventKind.CALL, EventKind.SENT}
    assert records[0].event.content == SECRET


def test_log_keeps_the_last_events(ref: Ref) -> None:
    assert otp_sys.get_log(ref) == []
    otp_sys.log(ref, 3)
    for number in range(5):
        ref.send(number)
    assert [event.content for event in otp_sys.get_log(ref)] == [2, 3, 4]
    otp_sys.log(ref, 2)
    assert [event.content for event in otp_sys.get_log(ref)] == [3, 4]
    otp_sys.log(ref, 9)
    ref.send(5)
    assert [event.content for event in otp_sys.get_log(ref)] == [3, 4, 5]
    otp_sys.log(ref, 0)
    ref.send(6)
    assert otp_sys.get_log(ref) == []
    otp_sys.log(ref, 1)
    assert otp_sys.get_log(ref) == []
    with pytest.raises(ValueError, match="0 or more events, not -1"):
        otp_sys.log(ref, -1)


def test_install_and_remove(ref: Ref) -> None:
    first, second, threads = Seen(), Seen(), Seen()
    thread = thread_of(ref)
    otp_sys.install(ref, 1, first.put)
    otp_sys.install(ref, 2, second.put)
    otp_sys.install(ref, 3, lambda _event: threads.put(threading.current_thread()))
    sync(ref)
    assert threads.next() is thread
    otp_sys.remove(ref, 1)
    otp_sys.remove(ref, "nobody")
    sync(ref)
    otp_sys.get_state(ref)
    assert kinds(first) == [EventKind.CALL, EventKind.SENT]
    assert kinds(second) == [EventKind.CALL, EventKind.SENT] * 2


def test_a_debug_function_that_is_done_or_fails_is_removed(ref: Ref, caplog: pytest.LogCaptureFixture) -> None:
    """It is done when it returns True, and nothing else; the others stay."""
    seen, steady = Seen(), Seen()
    otp_sys.install(ref, "trigger", lambda event: seen.put(event) or event.kind is EventKind.SENT)
    otp_sys.install(ref, "broken", raising(SystemExit(1)))
    otp_sys.install(ref, "steady", lambda event: steady.put(event) or 1)
    for _ in range(2):
        sync(ref)
    otp_sys.get_state(ref)
    assert kinds(seen) == [EventKind.CALL, EventKind.SENT]
    assert kinds(steady) == [EventKind.CALL, EventKind.SENT] * 2
    assert caplog.text.count("debug function 'broken'") == 1


def test_a_debug_function_that_fails_at_the_end_keeps_nobody_waiting(ref: Ref) -> None:
    kept = Seen()
    deferred = ref.ask(deferring(kept), block=False)
    kept.next()
    otp_sys.install(ref, "broken", lambda event: raising(SystemExit(1))() if event.kind is EventKind.EXITED else None)
    ref.kill()
    with pytest.raises(pykka.ActorDeadError):
        deferred.get(timeout=WAIT_SECONDS)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (lambda ref: otp_sys.trace(ref, True), lambda ref: otp_sys.trace(ref, False)),
        (lambda ref: otp_sys.log(ref, 5), lambda ref: otp_sys.log(ref, 0)),
        (lambda ref: otp_sys.statistics(ref, True), lambda ref: otp_sys.statistics(ref, False)),
        (watch, lambda ref: otp_sys.remove(ref, "watch")),
        (lambda ref: otp_sys.install(ref, "id", lambda _event: True), sync),
        (lambda ref: otp_sys.install(ref, "id", raising(ValueError("bug"))), sync),
        (watch, otp_sys.no_debug),
    ],
    ids=["trace", "log", "statistics", "remove", "done", "failed", "no_debug"],
)
def test_an_actor_that_nobody_watches_any_more_pays_nothing(
    ref: Ref, begin: Callable[[Ref], object], end: Callable[[Ref], object]
) -> None:
    begin(ref)
    assert ref.process.debug is not None
    assert ref.process.observed
    end(ref)
    assert not otp_sys.get_status(ref).is_watched
    assert ref.process.debug is None
    assert not ref.process.observed


def test_a_zombie_that_is_watched_no_more_stays_fenced(system: ActorSystem) -> None:
    seen = Seen()
    ref, other = system.start(Threaded), system.start(Pooled, seen)

    def watched_no_more(actor: Any) -> None:
        ref.process.kill()
        actor._otp_process.watch(None)
        other.send("from a zombie")

    thread = thread_of(ref)
    ref.cast(watched_no_more)
    exit_reason_of(ref)
    settle(system, thread)
    sync(other)
    assert seen.rest() == []


def everywhere(system: ActorSystem, *kinds: EventKind, but: Ref | None = None) -> Seen:
    """Have events of these kinds, of every actor but one, put where the test sees them."""
    events = Seen()
    otp_sys.install_everywhere(system, events, lambda ref: None if ref == but else events.put, kinds or EventKind)
    return events


def test_install_everywhere_watches_those_who_live_and_those_who_start_later(
    system: ActorSystem, server: type[Pooled]
) -> None:
    old, other = system.start(server), system.start(server)
    events = everywhere(system, but=other)
    calls = everywhere(system, EventKind.CALL, but=other)
    for ref in (old, other, system.start(server)):
        sync(ref)
        otp_sys.get_state(ref)
    assert not otp_sys.get_status(other).is_watched
    assert kinds(events) == [EventKind.CALL, EventKind.SENT] * 2
    assert kinds(calls) == [EventKind.CALL] * 2


def test_remove_everywhere_leaves_nothing(system: ActorSystem, server: type[Pooled]) -> None:
    ref, suspended = system.start(server), system.start(server)
    otp_sys.suspend(suspended)
    first, second = everywhere(system), everywhere(system)
    sync(ref)
    otp_sys.remove_everywhere(system, first)
    otp_sys.remove_everywhere(system, "nobody")
    sync(ref)
    otp_sys.remove_everywhere(system, second)
    sync(ref)
    for each in (ref, suspended, system.start(server)):
        assert not otp_sys.get_status(each).is_watched
    assert kinds(first) == [EventKind.CALL, EventKind.SENT]
    assert kinds(second) == [EventKind.CALL, EventKind.SENT] * 2


def test_what_was_removed_before_it_began_does_not_begin(system: ActorSystem, ref: Ref) -> None:
    gate = Gate()
    with gate:
        ref.cast(gate)
        gate.wait_entered()
        events = everywhere(system)
        otp_sys.remove_everywhere(system, events)
    sync(ref)
    assert not otp_sys.get_status(ref).is_watched
    assert kinds(events) == []


def test_a_chooser_that_fails_harms_nobody(
    system: ActorSystem, server: type[Pooled], caplog: pytest.LogCaptureFixture
) -> None:
    otp_sys.install_everywhere(system, "broken", raising(ValueError("bug")))
    ref = system.start(server)
    sync(ref)
    assert not otp_sys.get_status(ref).is_watched
    assert "chosen or not by 'broken'" in caplog.text
