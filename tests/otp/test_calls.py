"""Calls, deferred replies, requests whose answer is a message, and what callers learn when there is no answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    KILLED,
    NO_REPLY,
    SHUTDOWN,
    ActorSystem,
    Crash,
    From,
    Receive,
    Receiving,
    Ref,
    Shutdown,
    Stop,
)
from tests.otp.support import (
    WAIT_SECONDS,
    Gate,
    Pooled,
    Seen,
    Threaded,
    deferring,
    exit_reason_of,
    raising,
    run_in,
    sync,
)


@pytest.mark.parametrize("answer", [1, None, "text"], ids=repr)
def test_a_call_returns_what_handle_call_returns(system: ActorSystem, server: type[Pooled], answer: object) -> None:
    ref = system.start(server)
    assert ref.call(lambda _actor, _from: answer, WAIT_SECONDS) == answer
    assert ref.ask(lambda _actor, _from: answer, timeout=WAIT_SECONDS) == answer


def test_an_answer_may_come_later(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server)
    kept = Seen()
    future = ref.ask(deferring(kept), block=False)
    sync(ref)
    from_: From = kept.next()
    assert from_.is_wanted()
    assert ref.process.unanswered_calls == 1
    from_.reply("later")
    run_in(ref, lambda _actor: from_.reply("again"))
    assert future.get(timeout=WAIT_SECONDS) == "later"
    assert not from_.is_wanted()
    assert ref.process.unanswered_calls == 0


def test_an_answer_that_was_given_early_stays_the_answer(system: ActorSystem, server: type[Pooled]) -> None:
    for end in (Stop(Shutdown("done")), ValueError("bug")):
        ref = system.start(server)
        assert ref.call(lambda _actor, from_: from_.reply("early"), WAIT_SECONDS) == "early"
        seen = Seen()
        asker = system.start(server, seen)
        run_in(asker, lambda actor, ref=ref: actor.send_request(ref, lambda _, from_: from_.reply("early"), "label"))  # type: ignore[misc]
        assert seen.next() == ("reply", "label", "early")
        sync(ref)
        sync(asker)
        assert seen.rest() == []

        def script(_actor: Any, from_: From, end: Any = end) -> Any:
            from_.reply("early")
            return end if isinstance(end, Stop) else raising(end)()

        assert ref.call(script, WAIT_SECONDS) == "early"
        assert exit_reason_of(ref) == (end.reason if isinstance(end, Stop) else Crash(end))


def test_a_call_gives_up_after_its_timeout(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server)
    kept = Seen()
    with pytest.raises(pykka.Timeout):
        ref.call(deferring(kept), timeout=0)
    kept.next().reply("late")
    sync(ref)


BUG = ValueError("bug")


def _reach_queued(ref: Ref, gate: Gate) -> object:
    ref.cast(gate)
    return lambda _actor, _from: "never"


def _reach_deferred(_ref: Ref, gate: Gate) -> object:
    return lambda _actor, _from: gate.entered.set() or NO_REPLY


def _reach_suspended(_ref: Ref, gate: Gate) -> object:
    def script(_actor: Any, _from: From) -> Receiving:
        gate.entered.set()
        yield Receive(lambda _message: False)

    return script


def _reach_stashed(ref: Ref, gate: Gate) -> object:
    """A selective receive has passed over it (and then over the marker)."""

    def script(_actor: Any) -> Receiving:
        yield Receive(lambda _message: bool(gate.entered.set()))

    ref.cast(script)
    return lambda _actor, _from: "never"


def _reach_terminating(ref: Ref, gate: Gate) -> object:
    def script(actor: Any) -> Stop:
        actor.terminate = gate
        return Stop(SHUTDOWN)

    ref.cast(script)
    gate.wait_entered()
    return lambda _actor, _from: "never"


#: phase -> how to get there
PHASES: dict[str, Callable[[Ref, Gate], object]] = {
    "queued": _reach_queued,
    "handled": lambda _ref, gate: lambda _actor, _from: gate(),
    "deferred": _reach_deferred,
    "suspended": _reach_suspended,
    "stashed": _reach_stashed,
    "terminating": _reach_terminating,
}


@pytest.mark.parametrize("reach", PHASES.values(), ids=PHASES.keys())
@pytest.mark.parametrize("asks", [True, False], ids=["ask", "send_request"])
def test_a_caller_is_told_once_when_the_actor_is_killed(
    system: ActorSystem, server: type[Pooled], asks: bool, reach: Callable[[Ref, Gate], object]
) -> None:
    seen = Seen()
    ref, asker = system.start(server), system.start(Threaded, seen)
    with Gate() as gate:
        request = reach(ref, gate)
        if asks:
            future = ref.ask(request, block=False)
        else:
            run_in(asker, lambda actor: actor.send_request(ref, request, "label"))
        ref.send("marker")
        gate.wait_entered()
        ref.kill()
        if asks:
            with pytest.raises(pykka.ActorDeadError):
                future.get(timeout=WAIT_SECONDS)
        else:
            assert seen.next() == ("failure", "label", KILLED)
    sync(system.start(server))
    sync(asker)
    assert seen.rest() == []


def test_a_call_to_an_ended_actor_fails(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server)
    ref.stop()
    exit_reason_of(ref)
    with pytest.raises(pykka.ActorDeadError):
        ref.call("request", WAIT_SECONDS)
    ref.cast("request")
    ref.send("message")
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("message")


def test_callers_of_all_phases_are_told_of_a_crash(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server)
    deferred = ref.ask(lambda _actor, _from: NO_REPLY, block=False)
    with Gate() as gate:
        ref.cast(gate)
        crashing = ref.ask(raising(BUG), block=False)
        queued = ref.ask(lambda _actor, _from: "never", block=False)
    for future in (deferred, crashing):
        with pytest.raises(ValueError, match="bug") as raised:
            future.get(timeout=WAIT_SECONDS)
        assert raised.value is BUG
    with pytest.raises(pykka.ActorDeadError):
        queued.get(timeout=WAIT_SECONDS)


def test_a_deferred_caller_learns_the_reason_of_an_orderly_end(system: ActorSystem, server: type[Pooled]) -> None:
    """Unless ``terminate`` answers it."""
    kept = Seen()
    ref = system.start(server)
    deferred = ref.ask(lambda _actor, _from: NO_REPLY, block=False)
    ref.cast(lambda _actor: Stop(Shutdown("over")))
    with pytest.raises(pykka.ActorDeadError, match="shutdown: over"):
        deferred.get(timeout=WAIT_SECONDS)
    ref = system.start(server, terminate=lambda _actor: kept.next().reply("at last"))
    deferred = ref.ask(deferring(kept), block=False)
    ref.cast(lambda _actor: Stop())
    assert deferred.get(timeout=WAIT_SECONDS) == "at last"


def test_a_request_is_answered_by_a_message(system: ActorSystem, server: type[Pooled]) -> None:
    seen, kept = Seen(), Seen()
    ref = system.start(server, name="it")
    asker = system.start(server, seen)
    run_in(asker, lambda actor: actor.send_request(ref, lambda _actor, _from: 1, ("by", "ref")))
    assert seen.next() == ("reply", ("by", "ref"), 1)
    run_in(asker, lambda actor: actor.send_request("it", deferring(kept), "by name"))
    from_: From = kept.next()
    assert from_.is_wanted()
    from_.reply(None)
    assert seen.next() == ("reply", "by name", None)
    assert not from_.is_wanted()


def test_an_answer_is_not_wanted_any_more_when_the_asker_has_ended(system: ActorSystem, server: type[Pooled]) -> None:
    kept = Seen()
    ref = system.start(server)
    asker = system.start(server)
    run_in(asker, lambda actor: actor.send_request(ref, deferring(kept), "label"))
    from_: From = kept.next()
    asker.kill()
    assert not from_.is_wanted()
    from_.reply("anyway")


def test_blocking_work_comes_back_as_a_message(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    pool = system.new_blocking_pool("io", 2)
    ref = system.start(server, seen)
    with Gate(returns="result") as gate:
        run_in(ref, lambda actor: actor.run_blocking(pool, "slow", gate, 1, 2))
        gate.wait_entered()
        error = SystemExit(1)
        run_in(ref, lambda actor: actor.run_blocking(pool, "bad", raising(error)))
        assert seen.next() == ("failure", "bad", Crash(error))
    assert seen.next() == ("reply", "slow", "result")


def test_what_is_begun_comes_back_as_a_message(system: ActorSystem, server: type[Pooled]) -> None:
    """The outcome, an exception or not, may come from another thread, or at once; what the beginning raises is one."""
    seen, begun = Seen(), Seen()
    ref = system.start(server, seen)
    error = SystemExit(1)
    for outcome, expected in (("result", ("reply", "label", "result")), (error, ("failure", "label", Crash(error)))):
        run_in(ref, lambda actor: actor.run_async("label", lambda *args: begun.put(args), 1, 2))
        one, two, done = begun.next()
        assert (one, two) == (1, 2)
        thread = threading.Thread(target=done, args=(outcome,))
        thread.start()
        thread.join(WAIT_SECONDS)
        assert seen.next() == expected
    run_in(ref, lambda actor: actor.run_async("bad", raising(error)))
    run_in(ref, lambda actor: actor.run_async("at once", lambda done: done("result")))
    assert [seen.next(), seen.next()] == [("failure", "bad", Crash(error)), ("reply", "at once", "result")]


def test_only_the_first_outcome_counts(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    ref = system.start(server, seen)

    def begin(done: Any) -> None:
        done("first")
        done("second")
        done(ValueError("third"))
        raise ValueError("fourth")

    run_in(ref, lambda actor: actor.run_async("label", begin))
    sync(ref)
    assert seen.rest() == [("reply", "label", "first")]


def test_an_outcome_is_worked_on_where_it_arrives(system: ActorSystem, server: type[Pooled]) -> None:
    seen, begun = Seen(), Seen()
    ref = system.start(server, seen)
    error = ZeroDivisionError()
    for label, then in (("good", lambda outcome: outcome + 1), ("bad", raising(error))):
        run_in(ref, lambda actor, label=label, then=then: actor.run_async(label, begun.put, then=then))
        begun.next()(1)
    run_in(ref, lambda actor: actor.run_async("failed", lambda done: done(error), then=raising(SystemExit())))
    assert [seen.next() for _ in range(3)] == [
        ("reply", "good", 2),
        ("failure", "bad", Crash(error)),
        ("failure", "failed", Crash(error)),
    ]


def test_an_answer_that_comes_before_the_call_is_put_off_leaves_nothing(
    system: ActorSystem, server: type[Pooled]
) -> None:
    ref = system.start(server)
    process = ref.process
    answered = Seen()

    class Owner(type(process)):  # type: ignore[misc]
        __slots__ = ()

        def _defer(self, envelope: Any) -> None:
            thread = threading.Thread(target=lambda: answered.put(kept.next().reply("early")))
            thread.start()
            answered.next()
            thread.join(WAIT_SECONDS)
            super()._defer(envelope)

    kept = Seen()
    process.__class__ = Owner
    assert ref.call(deferring(kept), WAIT_SECONDS) == "early"
    sync(ref)
    process.__class__ = Owner.__mro__[1]
    assert process.unanswered_calls == 0
