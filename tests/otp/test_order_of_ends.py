"""Nothing of an actor arrives after its ``Down``, however the end and what it sends meet (Erlang: signal order)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from receipt_actors.otp import (
    KILLED,
    NO_REPLY,
    SHUTDOWN,
    ActorSystem,
    Down,
    Exit,
    From,
    Ref,
    Runtime,
    Started,
    StartFinished,
    Starting,
)
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp._process import Process
from receipt_actors.otp._ref import RequestReply
from tests.otp.support import WAIT_SECONDS, Gate, Pooled, PooledTrapping, Seen, Threaded, run_in, sync

ENDS = {"kill": Ref.kill, "exit signal": lambda ref: ref.exit(SHUTDOWN)}


class Hot(Pooled):
    def handle_cast(self, request: Any) -> None:
        collector, effect = request
        while not self._otp_process.is_set():
            effect(self, collector)


class HotThread(Hot):
    runtime = Runtime.THREAD


EFFECTS: dict[str, Callable[[Any, Ref], object]] = {
    "send": lambda _actor, collector: collector.send("effect"),
    "cast": lambda _actor, collector: collector.cast(lambda actor: actor.seen.put("effect")),
    "tell": lambda _actor, collector: collector.tell("effect"),
    "send_request": lambda actor, collector: actor.send_request(
        collector, lambda other, _from: other.seen.put("effect"), "label"
    ),
    "exit": lambda _actor, collector: collector.exit(SHUTDOWN),
}


@pytest.fixture(params=ENDS.values(), ids=ENDS.keys())
def end(request: pytest.FixtureRequest) -> Callable[[Ref], None]:
    value: Callable[[Ref], None] = request.param
    return value


def hot_of(runtime: Runtime) -> type[Hot]:
    return Hot if runtime is Runtime.POOLED else HotThread


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS.keys())
def test_nothing_of_a_busy_actor_comes_after_its_down(
    system: ActorSystem, runtime: Runtime, end: Callable[[Ref], None], effect: Callable[[Any, Ref], object]
) -> None:
    with ActorSystem("hot") as other:  # a hot pooled actor holds up all those of its system
        seen = Seen()
        collector = system.start(PooledTrapping, seen)
        for _ in range(10):
            hot = other.start(hot_of(runtime))
            monitor = run_in(collector, lambda actor, hot=hot: actor.monitor(hot))
            hot.cast((collector, effect))
            came = [seen.next()]  # it is at it
            end(hot)
            while not isinstance(came[-1], Down):
                came.append(seen.next())
            assert came[-1].monitor == monitor
            sync(collector)
            assert seen.rest() == []


class Held:
    """Has the mailbox of one actor take its next message only when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ref: Ref) -> None:
        self.gate = Gate()
        original, count = Process.put, itertools.count()

        def put(process: Process, envelope: Any) -> None:
            if process is ref.process and threading.current_thread() is not self._test and next(count) == 0:
                self.gate()
            original(process, envelope)

        self._test = threading.current_thread()
        monkeypatch.setattr(Process, "put", put)


def end_while_held(held: Held, ref: Ref, end: Callable[[Ref], None]) -> None:
    """End an actor while what it sends is on its way; let that arrive once the end is known to the runtime."""
    held.gate.wait_entered()
    killer = threading.Thread(target=end, args=(ref,))
    killer.start()
    deadline = time.monotonic() + WAIT_SECONDS
    while not ref.process.is_set():
        assert time.monotonic() < deadline
    held.gate.open()
    killer.join(WAIT_SECONDS)
    assert not killer.is_alive()


ANSWERS: dict[str, Callable[[Any, From], Any]] = {
    "returned": lambda _actor, _from: "answer",
    "by From": lambda _actor, from_: from_.reply("answer") or NO_REPLY,
}


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_on_its_way_comes_before_the_down(
    system: ActorSystem,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Ref], None],
    answers: Callable[[Any, From], Any],
) -> None:
    seen = Seen()
    asker, answerer = system.start(Pooled, seen), system.start(Threaded)
    monitor = run_in(asker, lambda actor: actor.monitor(answerer))
    sync(answerer)
    held = Held(monkeypatch, asker)
    answerer.send_request(answers, RequestReply(asker.process, "label"))
    end_while_held(held, answerer, end)
    reason = answerer.process.exit_reason
    assert reason in {KILLED, SHUTDOWN}
    assert seen.take(2) == [("reply", "label", "answer"), Down(monitor, answerer, reason)]


def test_the_news_of_a_start_comes_before_the_end(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch, end: Callable[[Ref], None]
) -> None:
    seen = Seen()
    parent = system.start(PooledTrapping, seen)
    with Gate() as init:
        starting = run_in(parent, lambda actor: actor.system.start_link(Threaded, init=init))
        assert isinstance(starting, Starting)
        child = starting.ref
        init.wait_entered()
        held = Held(monkeypatch, parent)
        init.open()
        end_while_held(held, child, end)
    reason = child.process.exit_reason
    assert reason is not None
    assert seen.take(2) == [StartFinished(child, Started(child)), Exit(child, reason)]


def test_a_kill_by_one_that_has_ended_comes_to_nothing(system: ActorSystem) -> None:
    killer, victim = system.start(Pooled), system.start(Pooled)
    killer.kill()
    victim.process.kill(killer.process)
    sync(victim)
    assert victim.is_alive()


def test_what_watches_a_send_may_end_the_sender(system: ActorSystem) -> None:
    seen = Seen()
    sender, receiver = system.start(Pooled), system.start(Pooled, seen)
    monitor = run_in(receiver, lambda actor: actor.monitor(sender))
    otp_sys.install(sender, "end", lambda event: event.kind is otp_sys.EventKind.SENT and event.ref.kill())
    sender.cast(lambda _actor: receiver.send("late"))
    assert seen.next() == Down(monitor, sender, KILLED)
    sync(receiver)
    assert seen.rest() == []
