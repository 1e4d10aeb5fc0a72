"""Selective receive: one message is waited for, the others keep their order; a time-out counts for its own wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pykka
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receipt_actors.otp import NO_REPLY, SHUTDOWN, ActorSystem, Crash, Down, Receive, Receiving, Ref, Reply
from receipt_actors.otp._process import Waiting
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
    sync,
)


def receiving(*wanted: object, timeout_seconds: float | None = None) -> Any:

    def script(actor: Any, *_from: object) -> Receiving:
        for item in wanted:
            got = yield Receive(lambda message, item=item: message == item, timeout_seconds)  # type: ignore[misc]
            actor.seen.put(("received", got))
        return "done"

    return script


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), messages=st.lists(st.integers(0, 3), max_size=12))
def test_it_takes_what_erlangs_receive_would_take(
    system: ActorSystem, data: st.DataObject, messages: list[int]
) -> None:
    wishes = data.draw(st.permutations(messages))[: data.draw(st.integers(0, len(messages)))]
    left = list(messages)
    for wish in wishes:
        left.remove(wish)
    seen = Seen()
    ref = system.start(Pooled, seen)
    ref.cast(receiving(*wishes))
    for message in messages:
        ref.send(message)
    sync(ref)
    assert seen.rest() == [*(("received", wish) for wish in wishes), *left]


def test_down_and_replies_can_be_received(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    other = system.start(server)
    ref = system.start(server, seen)

    def script(actor: Any) -> Receiving:
        actor.send_request(other, lambda _actor, _from: 5, "label")
        reply = yield Receive(lambda message: isinstance(message, Reply))
        actor.seen.put(reply)
        actor.monitor(other)
        other.kill()
        down = yield Receive(lambda message: isinstance(message, Down))
        actor.seen.put(down.ref)

    ref.cast(script)
    assert seen.take(2) == [Reply("label", 5), other]


def test_a_receive_times_out(system: ActorSystem, clock: WatchedClock, server: type[Pooled]) -> None:
    seen = Seen()
    ref = system.start(server, seen)
    ref.send(1)
    answer = ref.ask(receiving("never", timeout_seconds=5), block=False)
    ref.send(2)
    assert clock.set_timers.next() == 5
    clock.advance(4.9)
    assert seen.next() == 1
    ref.send(3)
    clock.advance(0.1)
    assert answer.get(timeout=WAIT_SECONDS) == "done"
    sync(ref)
    assert seen.rest() == [("received", None), 2, 3]


def test_what_is_in_the_mailbox_beats_a_timeout_of_zero(system: ActorSystem, clock: WatchedClock) -> None:
    """With a time-out of 0 the mailbox is looked through first (Erlang's ``after 0``)."""
    seen = Seen()
    ref = system.start(Pooled, seen)
    with Gate() as gate:
        ref.cast(gate)
        ref.cast(receiving("there", timeout_seconds=0))
        ref.send("other")
        ref.send("there")
    sync(ref)
    assert seen.rest() == [("received", "there"), "other"]
    ref.cast(receiving("not there", timeout_seconds=0.0))
    assert seen.next() == ("received", None)


def test_a_stale_timeout_does_not_end_the_next_wait(system: ActorSystem, clock: WatchedClock) -> None:
    seen = Seen()
    ref = system.start(Pooled, seen)
    with Gate() as gate:

        def matches(message: object) -> bool:
            if message == "first":
                gate()
            return message in ("first", "second")

        def script(actor: Any) -> Receiving:
            receive = Receive(matches, 5)
            actor.seen.put((yield receive))
            actor.seen.put((yield receive))

        ref.cast(script)
        clock.set_timers.next()
        ref.send("first")
        gate.wait_entered()
        clock.advance(5)  # the time-out is behind the message that is being looked at
    assert seen.next() == "first"
    clock.set_timers.next()
    ref.send("second")
    assert seen.next() == "second"


def test_a_parents_exit_signal_waits_for_its_turn(system: ActorSystem, trapping: type[Pooled]) -> None:
    seen = Seen()
    ref = system.start(trapping, seen)
    ref.cast(receiving("go"))
    ref.send(1)
    ref.exit(SHUTDOWN)
    ref.send(2)
    ref.send("go")
    assert exit_reason_of(ref) == SHUTDOWN
    assert seen.rest() == [("received", "go"), 1, ("terminate", SHUTDOWN)]


def test_terminate_sees_what_a_crashed_receive_passed_over(system: ActorSystem, server: type[Pooled]) -> None:
    def terminate(actor: Any) -> Receiving:
        actor.seen.put((yield Receive(lambda message: message == "early")))

    def script(_actor: Any) -> Receiving:
        yield Receive(lambda message: message == "go")
        raise ValueError("bug")

    seen = Seen()
    ref = system.start(server, seen, terminate=terminate)
    ref.cast(script)
    ref.send("early")
    ref.send("go")
    assert isinstance(exit_reason_of(ref), Crash)
    assert seen.rest()[1:] == ["early"]


def test_the_same_receive_looks_again_at_what_it_passed_over(system: ActorSystem, server: type[Pooled]) -> None:
    """A predicate may have changed its mind: each ``yield`` looks through the mailbox from the beginning (Erlang)."""
    seen, wanted = Seen(), {"b"}
    ref = system.start(server, seen)

    def script(actor: Any, _from: object) -> Receiving:
        receive = Receive(lambda message: message in wanted)
        actor.seen.put((yield receive))
        wanted.add("a")
        actor.seen.put((yield receive))

    answer = ref.ask(script, block=False)
    ref.send("a")
    ref.send("b")
    answer.get(timeout=WAIT_SECONDS)
    assert seen.rest() == ["b", "a"]


def calling(other: Ref, *requests: Any, timeout: float | None = 5.0) -> Any:

    def script(actor: Any, *_from: object) -> Receiving:
        for request in requests:
            try:
                got = yield from actor.call_to(other, request, timeout)
            except Exception as error:  # noqa: BLE001
                got = error
            actor.seen.put(("answer", got))
        return "done"

    return script


def answering(value: object) -> Any:
    return lambda _actor, _from: value


def test_a_call_waits_for_its_answer_and_other_messages_wait_for_it(system: ActorSystem, server: type[Pooled]) -> None:
    seen, kept = Seen(), Seen()
    answerer, caller = system.start(Pooled), system.start(server, seen)
    caller.cast(calling(answerer, deferring(kept), answering(2)))
    from_ = kept.next()
    for message in (1, "reply", 2):
        caller.send(message)
    assert caller.process.mailbox_length == 3
    from_.reply("first")
    sync(caller)
    assert seen.rest() == [("answer", "first"), ("answer", 2), 1, "reply", 2]


def test_a_late_answer_is_dropped(system: ActorSystem, server: type[Pooled], clock: WatchedClock) -> None:
    seen, kept = Seen(), Seen()
    answerer, caller = system.start(Pooled), system.start(server, seen)
    caller.cast(calling(answerer, deferring(kept), answering("next"), timeout=2))
    from_ = kept.next()
    clock.advance(2)
    kind, error = seen.next()
    assert (kind, type(error)) == ("answer", pykka.Timeout)
    assert not from_.is_wanted()
    from_.reply("late")
    assert seen.next() == ("answer", "next")
    sync(caller)
    assert seen.rest() == []
    clock.advance(9)
    sync(caller)
    assert caller.is_alive()


def test_a_call_of_one_that_ends_raises(system: ActorSystem, server: type[Pooled]) -> None:
    seen, error = Seen(), ValueError("asked for")
    caller, kept = system.start(server, seen), Seen()
    caller.cast(calling(system.start(Threaded), raising(error)))
    _, died = seen.next()
    assert (type(died), died.__cause__) == (pykka.ActorDeadError, error)
    answerer = system.start(Threaded)
    caller.cast(calling(answerer, deferring(kept), answering(1)))
    kept.next()
    answerer.kill()
    assert [type(got) for _, got in seen.take(2)] == [pykka.ActorDeadError] * 2
    caller.cast(calling("nobody", answering(1)))  # type: ignore[arg-type]
    assert type(seen.next()[1]) is pykka.ActorDeadError
    caller.cast(calling(caller, answering(1)))
    assert type(seen.next()[1]) is RuntimeError
    caller.cast(calling(answerer, answering(1), timeout=-1))
    assert type(seen.next()[1]) is ValueError


@pytest.mark.parametrize("end", [Ref.kill, lambda ref: ref.exit(SHUTDOWN)], ids=["kill", "exit signal"])
def test_one_that_waits_for_an_answer_can_be_ended(
    system: ActorSystem, server: type[Pooled], end: Callable[[Ref], None]
) -> None:
    kept, closed = Seen(), Seen()
    answerer, caller = system.start(Pooled), system.start(server)

    def script(actor: Any, _from: Any) -> Receiving:
        try:
            yield from actor.call_to(answerer, deferring(kept), None)
        finally:
            closed.put("closed")

    asked = caller.ask(script, block=False)
    from_ = kept.next()
    behind = caller.ask(answering(1), block=False)
    end(caller)
    exit_reason_of(caller)
    assert closed.next() == "closed"
    for future in (asked, behind):
        with pytest.raises(pykka.ActorDeadError):
            future.get(timeout=WAIT_SECONDS)
    from_.reply("late")
    sync(answerer)


def test_the_answer_does_not_wait_behind_the_mailbox(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    answerer, caller = system.start(Pooled), system.start(server, seen)
    with Gate() as gate:
        caller.cast(gate)
        gate.wait_entered()
        caller.cast(calling(answerer, *[answering(number) for number in range(10)]))
        for number in range(500):
            caller.send(number)
    assert seen.take(10) == [("answer", number) for number in range(10)]
    assert seen.take(500) == list(range(500))


def test_an_answer_that_comes_as_the_wait_begins_is_taken_once(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Waiting._await

    def await_and_be_answered(waiting: Waiting, answer: Any) -> None:
        original(waiting, answer)
        answer._put("first", None)
        monkeypatch.setattr(Waiting, "_await", original)

    monkeypatch.setattr(Waiting, "_await", await_and_be_answered)

    def script(actor: Any) -> Receiving:
        actor.seen.put((yield from actor.call_to(silent, lambda _actor, _from: NO_REPLY)))
        actor.seen.put((yield Receive(lambda message: message == "second")))

    seen, silent = Seen(), system.start(Pooled)
    asking = system.start(Pooled, seen)
    asking.cast(script)
    assert seen.next() == "first"
    asking.send("second")
    assert seen.next() == "second"
