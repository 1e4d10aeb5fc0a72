"""Many threads at many actors at once: nothing hangs, nobody is left without an answer, nobody is told twice.

The interpreter is made to switch threads as often as it can, so that ends, answers and starts meet at every point.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    NO_REPLY,
    ONE_FOR_ALL,
    ONE_FOR_ONE,
    REST_FOR_ONE,
    SHUTDOWN,
    ActorSystem,
    ChildSpec,
    Continue,
    From,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Start,
    Started,
    StartError,
    Stop,
    Supervisor,
    supervisor_spec,
    which_children,
)
from tests.otp.support import (
    WAIT_SECONDS,
    Pooled,
    PooledTrapping,
    Seen,
    Threaded,
    exit_reason_of,
    link_child_script,
    run_in,
    sync,
)

pytestmark = pytest.mark.usefixtures("frequent_switches")

THREADS = 4


def in_threads(work: Callable[[random.Random], None]) -> None:
    errors = Seen()

    def run(seed: int) -> None:
        try:
            work(random.Random(seed))
        except BaseException as error:  # noqa: BLE001
            errors.put(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    assert errors.rest() == []


def rounds(server: type[Pooled]) -> int:
    return 60 if server is Threaded else 250


def answer(_actor: Any, _from: From) -> Any:
    return "answer"


def answer_soon(actor: Any, from_: From) -> Any:
    actor.ref.send(lambda _actor: from_.reply("answer"))
    return NO_REPLY


def answer_twice(_actor: Any, from_: From) -> Any:
    from_.reply("answer")
    return "second answer"


def answer_after_continue(_actor: Any, from_: From) -> Any:
    return Continue(lambda _actor: from_.reply("answer"))


def answer_after_receive(actor: Any, _from: From) -> Receiving:
    token = object()
    actor.ref.send(lambda _actor: None)
    actor.ref.send(token)
    yield Receive(lambda message: message is token)
    return "answer"


def never_answer(_actor: Any, _from: From) -> Any:
    return NO_REPLY


def stop_with_answer(_actor: Any, _from: From) -> Any:
    return Stop(SHUTDOWN, "answer")


REQUESTS = [answer, answer_soon, answer_twice, answer_after_continue, answer_after_receive, never_answer]
ENDS: list[Callable[[Ref], object]] = [
    Ref.kill,
    Ref.kill,
    lambda ref: ref.exit(SHUTDOWN),
    lambda ref: ref.stop(block=False),
    lambda ref: ref.ask(stop_with_answer, block=False),
    lambda ref: ref.cast(lambda _actor: Stop()),
]


def test_every_call_is_answered_or_fails(system: ActorSystem, server: type[Pooled]) -> None:
    futures = Seen()

    def work(rng: random.Random) -> None:
        for _ in range(rounds(server)):
            ref = system.start(server)
            others = [threading.Thread(target=rng.choice(ENDS), args=(ref,)) for _ in range(2)]
            for number in range(12):
                if number == 4:
                    for other in others:
                        other.start()
                futures.put(ref.ask(rng.choice(REQUESTS), block=False))
                ref.cast(lambda _actor: None)
            for other in others:
                other.join()
            ref.kill()

    in_threads(work)
    outcomes: Counter[str] = Counter()
    for future in futures.rest():
        try:
            outcomes[future.get(timeout=WAIT_SECONDS)] += 1
        except pykka.ActorDeadError:
            outcomes["dead"] += 1
    assert set(outcomes) == {"answer", "dead"}


def test_every_request_gets_exactly_one_answer(system: ActorSystem, server: type[Pooled]) -> None:
    seen = Seen()
    asker = system.start(Pooled, seen)
    sent = Seen()

    def work(rng: random.Random) -> None:
        for _ in range(rounds(server)):
            ref = system.start(server)
            labels = [object() for _ in range(10)]
            requests = [rng.choice(REQUESTS) for _ in labels]
            for label, request in zip(labels, requests, strict=True):
                asker.cast(methodcaller("send_request", ref, request, label))
                sent.put(label)
            sync(asker)
            rng.choice(ENDS)(ref)
            ref.kill()

    in_threads(work)
    labels = sent.rest()
    told = Counter(label for _kind, label, _value in seen.take(len(labels)))
    sync(system.start(server))
    sync(asker)
    told.update(label for _kind, label, _value in seen.rest())
    assert told == Counter(labels)


def test_every_start_has_one_result(system: ActorSystem, server: type[Pooled]) -> None:
    started, refused = Seen(), Seen()
    names = [f"name {number}" for number in range(THREADS)]
    done = threading.Event()

    def kill_by_name() -> None:
        while not done.is_set():
            for name in names:
                ref = system.whereis(name)
                if ref is not None:
                    ref.kill()

    def work(rng: random.Random) -> None:
        parent = system.start(PooledTrapping)
        for _ in range(rounds(server)):
            try:
                started.put(system.start(server, name=rng.choice(names)))
            except StartError as error:
                refused.put(error.result)
            result = run_in(parent, partial(link_child_script, actor_class=server, name=rng.choice(names)))
            if isinstance(result, Started):
                started.put(result.ref)
            else:
                refused.put(result)

    killer = threading.Thread(target=kill_by_name)
    killer.start()
    try:
        in_threads(work)
    finally:
        done.set()
        killer.join(WAIT_SECONDS)
    for ref in started.rest():
        ref.kill()
        exit_reason_of(ref)
    assert all(isinstance(result, NotStarted) for result in refused.rest())
    assert system.registered() == {}


def test_a_tree_is_whole_again_after_kills_from_all_sides(system: ActorSystem, server: type[Pooled]) -> None:
    leaves = [f"leaf {number}" for number in range(6)]
    specs = [ChildSpec(name, Start(server, name=name)) for name in leaves]
    inner = [
        supervisor_spec(f"inner {number}", strategy, specs[2 * number : 2 * number + 2], intensity=10**6)
        for number, strategy in enumerate((ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE))
    ]
    root = system.start(Supervisor, inner, strategy=REST_FOR_ONE, intensity=10**6)
    names = [*leaves, *(spec.id for spec in inner)]

    def work(rng: random.Random) -> None:
        for _ in range(rounds(server) // 2):
            ref = system.whereis(rng.choice(names))
            if ref is not None:
                if rng.random() < 0.5:
                    ref.kill()
                else:
                    ref.exit(SHUTDOWN)
                exit_reason_of(ref)
            which_children(root)

    in_threads(work)
    while set(system.registered()) != set(names):
        which_children(root, WAIT_SECONDS)
    for spec in inner:
        supervisor = system.whereis(spec.id)
        assert supervisor is not None
        for info in which_children(supervisor, WAIT_SECONDS):
            assert isinstance(info.child, Ref)
            sync(info.child)
    assert len(system.processes()) == 1 + len(names)
