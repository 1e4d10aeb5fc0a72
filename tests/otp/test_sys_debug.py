"""``sys``: the functions that watch an actor: ``statistics``, ``trace``, ``log``, ``install``. More in ``test_sys``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pykka
import pytest

from receipt_actors.otp import ActorSystem, Crash, From, Ref, Shutdown
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
    raising,
    run_in,
    settle,
    sync,
    thread_of,
)

SECRET = "hunter2"


@pytest.fixture
def ref(system: ActorSystem, server: type[Pooled]) -> Ref:
    """An actor of either runtime."""
    return system.start(server)


def watch(ref: Ref) -> Seen:
    """Have the events of an actor put where the test sees them."""
    events = Seen()
    otp_sys.install(ref, "watch", events.put)
    return events


def kinds(events: Seen) -> list[EventKind]:
    return [event.kind for event in events.rest()]


# --- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_count_since_they_were_switched_on(
    system: ActorSystem, clock: WatchedClock, server: type[Pooled]
) -> None:
    """Messages in and out are counted, on the system's clock; requests of sys are not."""
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
    """Only switching off forgets the counts, and returns the last of them."""
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


# --- trace, log, install ---------------------------------------------------------------------------------------------


def test_events_tell_what_happens(system: ActorSystem, clock: WatchedClock, server: type[Pooled]) -> None:
    """Each message in and out is an event with its content, its time, and whom it was sent to, in order."""
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


def test_events_of_the_end(ref: Ref) -> None:
    """A crash is an event with its exception, the end one with its reason; it is the last."""
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
    """EXITED is the last event, whatever the callback that was under way still does."""
    thread = thread_of(ref)
    other = system.start(server)
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
    assert kinds(events) == []


def test_a_late_answer_to_its_call_is_no_event_of_an_ended_actor(ref: Ref, system: ActorSystem) -> None:
    """EXITED is the last event also where somebody answers later what the actor had left open."""
    events, kept = watch(ref), Seen()
    ref.ask(deferring(kept), block=False)
    from_ = kept.next()
    thread = thread_of(ref)
    ref.kill()
    settle(system, thread)
    assert kinds(events)[-1] is EventKind.EXITED
    from_.reply("late")
    assert kinds(events) == []


def test_trace_logs_each_event_without_its_content(
    system: ActorSystem, server: type[Pooled], caplog: pytest.LogCaptureFixture
) -> None:
    """The text says what happened, and nothing that may be secret; who wants more takes the event of the record."""
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
    """As many as it was told, the oldest first; telling it another number keeps as many as that allows."""
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


def test_log_refuses_a_negative_size(ref: Ref) -> None:
    """It is an error of the caller, and changes nothing."""
    with pytest.raises(ValueError, match="0 or more events, not -1"):
        otp_sys.log(ref, -1)
    assert ref.process.debug is None


def test_install_and_remove(ref: Ref) -> None:
    """A function is called at each event until it is removed; others are not touched by that."""
    first, second = Seen(), Seen()
    otp_sys.install(ref, 1, first.put)
    otp_sys.install(ref, 2, second.put)
    sync(ref)
    otp_sys.remove(ref, 1)
    otp_sys.remove(ref, "nobody")
    sync(ref)
    otp_sys.get_state(ref)
    assert kinds(first) == [EventKind.CALL, EventKind.SENT]
    assert kinds(second) == [EventKind.CALL, EventKind.SENT] * 2


def test_install_runs_the_function_on_the_actors_thread(ref: Ref) -> None:
    """So it may look at what is the actor's alone."""
    thread = thread_of(ref)
    threads = Seen()
    otp_sys.install(ref, "id", lambda _event: threads.put(threading.current_thread()))
    sync(ref)
    assert threads.next() is thread


def test_a_debug_function_that_is_done_is_removed(ref: Ref) -> None:
    """It says so by True, and by nothing else; the others stay."""
    seen, steady = Seen(), Seen()
    otp_sys.install(ref, "trigger", lambda event: seen.put(event) or event.kind is EventKind.SENT)
    otp_sys.install(ref, "steady", lambda event: steady.put(event) or 1)
    for _ in range(2):
        sync(ref)
    otp_sys.get_state(ref)
    assert kinds(seen) == [EventKind.CALL, EventKind.SENT]
    assert kinds(steady) == [EventKind.CALL, EventKind.SENT] * 2


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_debug_function_that_fails_is_removed(
    ref: Ref, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Who watches must not harm who is watched; the failure is logged, and the others stay."""
    steady = Seen()
    otp_sys.install(ref, "broken", raising(error))
    otp_sys.install(ref, "steady", steady.put)
    sync(ref)
    sync(ref)
    otp_sys.get_state(ref)
    assert kinds(steady) == [EventKind.CALL, EventKind.SENT] * 2
    assert caplog.text.count("debug function 'broken'") == 1


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(1)], ids=repr)
def test_a_debug_function_that_fails_at_the_end_keeps_nobody_waiting(ref: Ref, error: BaseException) -> None:
    """Callers are told, and the thread ends, also where who watches fails at the last event."""
    kept = Seen()
    deferred = ref.ask(deferring(kept), block=False)
    kept.next()
    otp_sys.install(ref, "broken", lambda event: raising(error)() if event.kind is EventKind.EXITED else None)
    ref.kill()
    with pytest.raises(pykka.ActorDeadError):
        deferred.get(timeout=WAIT_SECONDS)


def test_no_debug_ends_all_watching(ref: Ref, caplog: pytest.LogCaptureFixture) -> None:
    """trace, statistics, log and every function that was installed."""
    caplog.set_level(logging.INFO, "receipt_actors.otp")
    events = watch(ref)
    otp_sys.trace(ref, True)
    otp_sys.statistics(ref, True)
    otp_sys.log(ref, 10)
    otp_sys.no_debug(ref)
    sync(ref)
    assert otp_sys.statistics(ref) is None
    assert otp_sys.get_log(ref) == []
    assert events.rest() == []
    assert caplog.records == []


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
    """However the last watch ends, nothing of it is left; until then it is there."""
    begin(ref)
    assert ref.process.debug is not None
    assert ref.process.observed
    end(ref)
    assert not otp_sys.get_status(ref).is_watched
    assert ref.process.debug is None
    assert not ref.process.observed


def test_a_zombie_that_is_watched_no_more_stays_fenced(system: ActorSystem) -> None:
    """The last debug function goes at the moment of the kill: what the callback still sends comes to nothing."""
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


# --- all actors of a system ------------------------------------------------------------------------------------------


def everywhere(system: ActorSystem, *kinds: EventKind, but: Ref | None = None) -> Seen:
    """Have events of these kinds, of every actor but one, put where the test sees them."""
    events = Seen()
    otp_sys.install_everywhere(system, events, lambda ref: None if ref == but else events.put, kinds or EventKind)
    return events


def test_install_everywhere_watches_those_who_live_and_those_who_start_later(
    system: ActorSystem, server: type[Pooled]
) -> None:
    """Whom the chooser wants, from the next message on; a new one from its first; nobody else."""
    old, other = system.start(server), system.start(server)
    events = everywhere(system, but=other)
    for ref in (old, other, system.start(server)):
        sync(ref)
        otp_sys.get_state(ref)
    assert not otp_sys.get_status(other).is_watched
    assert kinds(events) == [EventKind.CALL, EventKind.SENT] * 2


def test_install_everywhere_tells_the_kinds_that_are_wanted(system: ActorSystem, ref: Ref) -> None:
    """Whoever has other wishes for the same actor has them fulfilled as well."""
    calls = everywhere(system, EventKind.CALL)
    sync(ref)
    everything = watch(ref)
    sync(ref)
    otp_sys.remove(ref, "watch")
    sync(ref)
    otp_sys.get_state(ref)
    assert kinds(calls) == [EventKind.CALL] * 3
    assert kinds(everything) == [EventKind.CALL, EventKind.SENT]


def test_remove_everywhere_leaves_nothing(system: ActorSystem, server: type[Pooled]) -> None:
    """Nobody is watched, also who is suspended or starts now; what others have installed stays."""
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
    """An actor that was busy all the while is never watched."""
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
    """Who starts an actor is not at fault: it is not watched, and the failure is logged."""
    otp_sys.install_everywhere(system, "broken", raising(ValueError("bug")))
    ref = system.start(server)
    sync(ref)
    assert not otp_sys.get_status(ref).is_watched
    assert "chosen or not by 'broken'" in caplog.text
