"""Honest ends: a killed actor is gone for everyone at once, and what its callback still does comes to nothing.

CPython can't end a thread, so the callback that was under way goes on: the actor is a zombie until it returns. An exit
signal that is not trapped does the same as ``kill``, for its own reason.
"""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    KILLED,
    NO_REPLY,
    NORMAL,
    SHUTDOWN,
    ActorSystem,
    BlockingPool,
    Continue,
    Down,
    Exit,
    ExitReason,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Runtime,
    Shutdown,
    Stop,
    which_children,
)
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp._process import Process
from receipt_actors.otp._scheduler import Running
from tests.otp.support import (
    WAIT_SECONDS,
    Gate,
    Pooled,
    PooledTrapping,
    Seen,
    Threaded,
    ThreadedTrapping,
    WatchedClock,
    exit_reason_of,
    link_child_script,
    raising,
    run_in,
    settle,
    sync,
    thread_of,
)

Action = Callable[[Any, Ref], object]


@dataclass(frozen=True)
class End:
    reason: ExitReason
    by: Callable[[Ref], object]


def end_by_link(ref: Ref) -> None:
    linked = ref.process.system.start(Pooled)
    linked.process.link(ref.process)
    linked.cast(lambda _actor: Stop(Shutdown("linked")))


ENDS = {
    "kill": End(KILLED, Ref.kill),
    "exit signal": End(SHUTDOWN, lambda ref: ref.exit(SHUTDOWN)),
    "link": End(Shutdown("linked"), end_by_link),
}


@pytest.fixture(params=ENDS.values(), ids=ENDS.keys())
def end(request: pytest.FixtureRequest, runtime: Runtime) -> End:
    """Each way in which a running callback can be cut short."""
    end: End = request.param
    if runtime is Runtime.POOLED and end.by is end_by_link:
        return End(SHUTDOWN, lambda ref: ref.process.signal(None, SHUTDOWN))  # no other pooled one can end meanwhile
    return end


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def bystander(system: ActorSystem, seen: Seen) -> Ref:
    return system.start(PooledTrapping, seen, name="bystander")


@pytest.fixture
def pool(system: ActorSystem) -> Iterator[BlockingPool]:
    pool = system.new_blocking_pool("shared", 1)
    yield pool
    pool.close()
    assert pool.join(WAIT_SECONDS)


def mark(actor: Any, *_: object) -> str:
    actor.seen.put("late")
    return "late"


def as_zombie(system: ActorSystem, ref: Ref, action: Callable[[Any], object], end: End = ENDS["kill"]) -> Any:
    """End an actor in a callback that then does ``action``; return what that returns, or the exception it raises."""
    outcome = Seen()
    thread = thread_of(ref)

    def script(actor: Any) -> None:
        gate()
        try:
            outcome.put(action(actor))
        except Exception as error:  # noqa: BLE001
            outcome.put(error)

    with Gate() as gate:
        ref.cast(script)
        gate.wait_entered()
        end.by(ref)
        assert exit_reason_of(ref) == end.reason
    result = outcome.next()
    settle(system, thread)
    return result


COMES_TO_NOTHING: dict[str, Action] = {
    "send": lambda _actor, other: other.send(mark),
    "tell": lambda _actor, other: other.tell(mark),
    "cast": lambda _actor, other: other.cast(mark),
    "cast to a ref": lambda actor, other: actor.cast(other, mark),
    "cast to a name": lambda actor, _other: actor.cast("bystander", mark),
    "send_request": lambda actor, other: actor.send_request(other, mark, "label"),
    "send_request to a name": lambda actor, _other: actor.send_request("bystander", mark, "label"),
    "send_request to nobody": lambda actor, _other: actor.send_request("nobody", mark, "label"),
    "exit": lambda _actor, other: other.exit(SHUTDOWN),
    "kill": lambda _actor, other: other.kill(),
    "link": lambda actor, other: actor.link(other),
    "unlink": lambda actor, other: actor.unlink(other),
    "monitor": lambda actor, other: actor.monitor(other) and None,
    "demonitor": lambda actor, _other: actor.demonitor(1, flush=True),
    "send_after": lambda actor, _other: actor.send_after(0, mark) and None,
    "send to itself": lambda actor, _other: actor.ref.send(mark),
}

IS_REFUSED: dict[str, Action] = {
    "ask": lambda _actor, other: other.ask(mark, block=False),
    "stop": lambda _actor, other: other.stop(block=False),
    "start": lambda actor, _other: actor.system.start(Pooled, name="late"),
    "start a thread": lambda actor, _other: actor.system.start(Threaded, name="late"),
    "start_link": lambda actor, _other: actor.system.start_link(Pooled, name="late"),
    "start_link of a thread": lambda actor, _other: actor.system.start_link(Threaded, name="late"),
    "start_link with a name that is taken": lambda actor, _other: actor.system.start_link(Pooled, name="bystander"),
}

IS_REFUSED_ON_A_THREAD: dict[str, Action] = {
    "call": lambda _actor, other: other.call(mark, WAIT_SECONDS),
    "ask and wait": lambda _actor, other: other.ask(mark, timeout=WAIT_SECONDS),
    "stop and wait": lambda _actor, other: other.stop(timeout=WAIT_SECONDS),
    "sys.suspend": lambda _actor, other: otp_sys.suspend(other),
    "sys.terminate": lambda _actor, other: otp_sys.terminate(other, SHUTDOWN),
    "supervisor call": lambda _actor, other: which_children(other),
    "system.stop": lambda actor, _other: actor.system.stop(),
}


def assert_untouched(system: ActorSystem, bystander: Ref, seen: Seen) -> None:
    sync(bystander)
    assert seen.rest() == []
    status = run_in(bystander, lambda actor: (actor.ref.process.links, actor.ref.process.is_suspended))
    assert status == ([], False)
    assert system.registered() == {"bystander": bystander}


def test_what_a_zombie_sends_is_dropped(
    system: ActorSystem, server: type[Pooled], bystander: Ref, seen: Seen, clock: WatchedClock, end: End
) -> None:
    def act(actor: Any) -> dict[str, object]:
        return {name: action(actor, bystander) for name, action in COMES_TO_NOTHING.items()}

    returned = as_zombie(system, system.start(server, seen), act, end)
    assert returned == dict.fromkeys(COMES_TO_NOTHING)
    clock.advance(1)
    assert_untouched(system, bystander, seen)


def test_what_a_zombie_wants_an_answer_to_is_refused(
    system: ActorSystem, server: type[Pooled], bystander: Ref, seen: Seen, end: End
) -> None:
    actions = {**IS_REFUSED, **(IS_REFUSED_ON_A_THREAD if server is Threaded else {})}

    def act(actor: Any) -> dict[str, object]:
        outcomes: dict[str, object] = {}
        for name, action in actions.items():
            try:
                outcomes[name] = action(actor, bystander)
            except pykka.ActorDeadError as error:
                outcomes[name] = re.search("has ended", str(error)) and "refused"
        return outcomes

    assert as_zombie(system, system.start(server, seen), act, end) == dict.fromkeys(actions, "refused")
    assert_untouched(system, bystander, seen)


RETURNS: dict[str, Callable[[], object]] = {
    "a reply": lambda: "late",
    "NO_REPLY": lambda: NO_REPLY,
    "Stop": lambda: Stop(NORMAL, "late"),
    "Continue": lambda: Continue(mark),
    "a generator": lambda: (receive for receive in [Receive(lambda _message: True)]),
    "an exception": raising(ValueError("late")),
    "an exit": raising(SystemExit(1)),
}


@pytest.mark.parametrize("returns", RETURNS.values(), ids=RETURNS.keys())
def test_what_a_zombies_callback_returns_does_not_count(
    system: ActorSystem,
    server: type[Pooled],
    seen: Seen,
    end: End,
    returns: Callable[[], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It has ended, whatever comes of its last callback; terminate does not run and no crash is reported.

    The caller gets the end while the callback still runs.
    """
    ref = system.start(server, seen)
    thread = thread_of(ref)
    with Gate() as gate:
        answer = ref.ask(lambda _actor, _from: gate() or returns(), block=False)
        gate.wait_entered()
        ref.send("waiting")
        end.by(ref)
        with pytest.raises(pykka.ActorDeadError, match=str(end.reason)):
            answer.get(timeout=WAIT_SECONDS)
    settle(system, thread)
    assert ref.process.exit_reason == end.reason
    assert seen.rest() == []
    assert caplog.records == []


def test_a_zombie_is_one_until_its_callback_returns(system: ActorSystem, server: type[Pooled], end: End) -> None:
    ref = system.start(server)
    thread = thread_of(ref)
    with Gate() as gate:
        ref.cast(gate)
        gate.wait_entered()
        assert not ref.is_zombie
        end.by(ref)
        assert exit_reason_of(ref) == end.reason
        assert (ref.is_zombie, ref.is_alive()) == (True, False)
        assert ref in system.zombies()
        ref.kill()
        assert system.zombies() == [ref]
    settle(system, thread)
    assert not ref.is_zombie
    assert system.zombies() == []


def test_a_chain_of_busy_actors_ends_with_its_first(system: ActorSystem) -> None:
    count = 400  # more than a stack of calls would bear, at several a link
    with ExitStack() as gates:
        refs = [system.start(Threaded) for _ in range(count)]
        threads = [thread_of(ref) for ref in refs]
        for ref, other in pairwise(refs):
            ref.process.link(other.process)
        for ref in refs:
            gate = gates.enter_context(Gate())
            ref.cast(gate)
            gate.wait_entered()
        refs[0].exit(SHUTDOWN)
        assert [ref.process.exit_reason for ref in refs] == [SHUTDOWN] * count
        assert len(system.zombies()) == count
    for thread in threads:
        settle(system, thread)
    assert system.zombies() == []


def test_killed_in_init(system: ActorSystem, server: type[Pooled]) -> None:
    parent_seen, late = Seen(), Seen()
    parent = system.start(ThreadedTrapping, parent_seen)

    def init(actor: Any) -> None:
        gate()
        parent.send("late")
        late.put("done")

    with Gate() as gate:
        result = parent.ask(lambda actor, _from: link_child_script(actor, server, init=init, name="it"), block=False)
        gate.wait_entered()
        child = system.whereis("it")
        assert child is not None
        child.kill()
        assert result.get(timeout=WAIT_SECONDS) == NotStarted(KILLED)
        assert system.zombies() == [child]
        assert system.whereis("it") is None
    assert late.next() == "done"
    sync(parent)
    assert parent_seen.rest() == []


def test_a_pooled_parent_killed_while_its_childs_init_runs(system: ActorSystem) -> None:
    parent, after = system.start(Pooled), Seen()
    with Gate() as gate:

        def script(actor: Any) -> None:
            try:
                actor.system.start_link(Pooled, init=gate, name="child")
            finally:
                after.put(actor.ref.is_zombie)

        parent.cast(script)
        gate.wait_entered()
        child = system.whereis("child")
        assert child is not None
        parent.kill()
        assert parent.is_zombie
        assert child.is_zombie  # by the exit signal of its parent
        child.kill()
        assert system.zombies() == [parent, child]
    assert after.next() is True
    sync(system.start(Pooled))
    assert system.zombies() == []


def test_a_pooled_parent_killed_before_its_childs_init(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch, bystander: Ref, seen: Seen
) -> None:
    parent, result, original = system.start(Pooled), Seen(), Process.start

    def start(process: Process, *args: Any) -> Any:
        parent.kill()
        return original(process, *args)

    def script(actor: Any) -> None:
        monkeypatch.setattr(Process, "start", start)
        result.put(actor.system.start_link(Pooled, init=lambda _child: bystander.send("begun")))

    parent.cast(script)
    assert result.next() == NotStarted(KILLED)
    sync(bystander)
    assert seen.rest() == []
    assert system.processes() == [bystander]


def test_killed_in_terminate(system: ActorSystem, server: type[Pooled], bystander: Ref, seen: Seen) -> None:
    def terminate(_actor: Any) -> None:
        gate()
        bystander.send("late")

    ref = system.start(server, terminate=terminate)
    thread = thread_of(ref)
    monitor = run_in(bystander, lambda actor: actor.monitor(ref))
    run_in(bystander, lambda actor: actor.link(ref))
    with Gate() as gate:
        otp_sys.terminate(ref, SHUTDOWN)
        gate.wait_entered()
        assert not ref.is_zombie
        ref.kill()
        assert ref.is_zombie
    settle(system, thread)
    sync(bystander)
    assert seen.rest() == [Exit(ref, KILLED), Down(monitor, ref, KILLED)]
    assert system.zombies() == []


@pytest.mark.parametrize("timeout_seconds", [None, 0, 3600])
def test_killed_before_a_receive(
    system: ActorSystem,
    clock: WatchedClock,
    server: type[Pooled],
    bystander: Ref,
    seen: Seen,
    timeout_seconds: float | None,
) -> None:
    ref, cleaned = system.start(server), Seen()
    thread = thread_of(ref)
    with Gate() as gate:

        def script(_actor: Any) -> Receiving:
            try:
                gate()
                cleaned.put((yield Receive(lambda message: message == "there", timeout_seconds)))
            finally:
                bystander.send("late")
                cleaned.put(threading.current_thread())

        ref.cast(script)
        gate.wait_entered()
        ref.send("there")
        ref.kill()
        ref.send("there")
    assert cleaned.next() is thread
    settle(system, thread)
    clock.advance(3600)
    sync(bystander)
    assert seen.rest() == []
    assert clock.set_timers.rest() == []


def test_killed_in_a_receive(system: ActorSystem, server: type[Pooled], bystander: Ref, seen: Seen) -> None:
    def script(_actor: Any) -> Receiving:
        try:
            yield Receive(lambda message: bool(looked.put(message)), 3600)
        finally:
            bystander.send("late")
            cleaned.put(threading.current_thread())

    ref, looked, cleaned = system.start(server), Seen(), Seen()
    thread = thread_of(ref)
    ref.cast(script)
    ref.send("passed over")
    assert looked.next() == "passed over"
    held = ref.ask(lambda _actor, _from: "never", block=False)
    run_in(system.start(Threaded), lambda _actor: ref.kill())
    assert exit_reason_of(ref) == KILLED
    with pytest.raises(pykka.ActorDeadError, match="killed"):
        held.get(timeout=WAIT_SECONDS)
    assert cleaned.next() is thread
    settle(system, thread)
    sync(bystander)
    assert seen.rest() == []
    assert system.zombies() == []


def test_a_killed_receive_that_will_not_end(system: ActorSystem, server: type[Pooled]) -> None:
    def stubborn(_actor: Any) -> Receiving:
        try:
            yield Receive(lambda message: bool(looked.put(message)))
        finally:
            yield Receive(lambda _message: False)

    def failing(_actor: Any) -> Receiving:
        try:
            yield Receive(lambda message: bool(looked.put(message)))
        finally:
            raise ValueError("bug")

    looked = Seen()
    for script in (stubborn, failing):
        ref = system.start(server)
        thread = thread_of(ref)
        ref.cast(script)
        ref.send("passed over")
        looked.next()
        ref.kill()
        settle(system, thread)
    gc.collect()
    sync(system.start(server))


def test_its_pool_is_closed_at_any_end(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server)
    pool = run_in(ref, lambda actor: actor.system.new_blocking_pool("own", 1))
    done = Seen()
    with Gate() as gate:

        def script(actor: Any) -> Stop:
            actor.run_blocking(pool, "under way", gate)
            actor.run_blocking(pool, "queued", done.put, "done")
            return Stop()

        ref.cast(script)
        exit_reason_of(ref)
    assert pool.join(WAIT_SECONDS)
    assert done.rest() == ["done"]


def test_a_zombie_begins_no_work(system: ActorSystem, server: type[Pooled], seen: Seen, pool: BlockingPool) -> None:
    def act(actor: Any) -> Any:
        actor.run_blocking(pool, "label", seen.put, "late")
        actor.run_async("label", seen.put)
        return actor.system.new_blocking_pool("late", 1)

    made = as_zombie(system, system.start(server, seen), act)
    assert isinstance(made, pykka.ActorDeadError) or made.is_over
    other = system.start(server, seen)
    run_in(other, lambda actor: actor.run_blocking(pool, "label", lambda: 1))
    assert seen.next() == ("reply", "label", 1)


def test_an_outcome_for_a_killed_actor_is_dropped(system: ActorSystem, server: type[Pooled], seen: Seen) -> None:
    begun, worked = Seen(), Seen()
    ref = system.start(server, seen)
    run_in(ref, lambda actor: actor.run_async("label", begun.put, then=worked.put))
    ref.kill()
    exit_reason_of(ref)
    begun.next()("late")
    assert (worked.rest(), seen.rest()) == ([], [])


def test_what_a_killed_actor_had_queued_in_a_shared_pool_never_begins(
    system: ActorSystem, server: type[Pooled], seen: Seen, pool: BlockingPool
) -> None:
    ref, other = system.start(server, seen), system.start(server, seen)
    with Gate() as gate:
        pool.submit(gate)
        gate.wait_entered()
        run_in(ref, lambda actor: actor.run_blocking(pool, "label", seen.put, "late"))
        run_in(other, lambda actor: actor.run_blocking(pool, "label", lambda: 1))
        ref.kill()
        exit_reason_of(ref)
    assert seen.next() == ("reply", "label", 1)


# --- races -----------------------------------------------------------------------------------------------------------


def test_a_message_at_the_moment_of_a_kill_does_not_keep_a_callback_open(
    system: ActorSystem, server: type[Pooled]
) -> None:
    closed = Seen()

    def receive(_actor: Any) -> Receiving:
        try:
            yield Receive(lambda _message: False)
        finally:
            closed.put(threading.current_thread())

    ref = system.start(server)
    thread = thread_of(ref)
    ref.cast(receive)
    turn = ref.process._scheduled
    assert turn.acquire(timeout=WAIT_SECONDS)  # the sender: nobody has the turn any more, since the callback waits
    ref.kill()
    turn.release()
    ref.send("late")
    assert closed.next() is thread
    settle(system, thread)


def test_who_is_between_two_turns_of_a_stack_is_seen_by_a_kill() -> None:
    running, process = Running(), object()
    running.process = process  # type: ignore[assignment]
    running.enter(object())  # type: ignore[arg-type]
    seen: list[bool] = []

    class Watched(list[Any]):
        def pop(self, *args: Any) -> Any:
            item = super().pop(*args)
            seen.append(running.is_inside(process))  # type: ignore[arg-type]
            return item

    running.interrupted = Watched(running.interrupted)
    running.leave()
    assert seen == [True]
    assert running.process is process


def test_who_goes_back_from_a_stack_is_seen_by_a_kill_that_is_looking() -> None:
    running, process = Running(), object()
    running.process = process  # type: ignore[assignment]
    running.enter(object())  # type: ignore[arg-type]

    class Leaving(list[Any]):
        def __contains__(self, item: object) -> bool:
            running.leave()
            return super().__contains__(item)

    running.interrupted = Leaving(running.interrupted)
    assert running.is_inside(process)  # type: ignore[arg-type]
