"""An actor is a real pykka actor: references, futures, proxies and hooks work as pykka documents them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pykka
import pytest

from receipt_actors.otp import KILLED, NORMAL, SHUTDOWN, Actor, ActorSystem, Crash, Ref, Runtime, Stop
from tests.otp.support import WAIT_SECONDS, Gate, Pooled, Seen, Threaded, exit_reason_of, raising, run_in


class Plain(Actor):
    def __init__(self, seen: Seen, limit: int = 10) -> None:
        super().__init__()
        self.seen = seen
        self.limit = limit

    def on_start(self) -> None:
        self.seen.put("on_start")

    def on_stop(self) -> None:
        self.seen.put("on_stop")

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        self.seen.put(("on_failure", exception_type, exception_value, traceback is not None))

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        self.seen.put(message)
        return message

    def call(self, function: Any) -> None:
        function()


class PlainThreaded(Plain):
    runtime = Runtime.THREAD


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def plain(system: ActorSystem, runtime: Runtime, seen: Seen) -> Ref:
    return system.start(Plain if runtime is Runtime.POOLED else PlainThreaded, seen)


class Foreigner(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        return message


@pytest.fixture
def foreigner() -> Iterator[pykka.ActorRef[Any]]:
    ref = Foreigner.start()
    yield ref
    ref.stop()


def test_an_actor_prints_as_its_reference_does(system: ActorSystem) -> None:
    class Printing(Actor):
        def on_receive(self, message: Any) -> str:
            return str(self)

    nameless = system.start(Printing)
    assert nameless.ask("print", timeout=WAIT_SECONDS) == str(nameless) == f"Printing ({nameless.actor_urn})"
    named = system.start(Printing, name="press")
    assert named.ask("print", timeout=WAIT_SECONDS) == str(named) == "Printing (press)"
    assert str(Printing()) == "Printing (not started)"


def test_stop_handles_what_came_before(plain: Ref, seen: Seen) -> None:
    plain.tell("before")
    assert plain.stop(timeout=WAIT_SECONDS) is True
    assert exit_reason_of(plain) == NORMAL
    assert not plain.is_alive()
    assert seen.rest() == ["on_start", "before", "on_stop"]
    assert plain.stop(timeout=WAIT_SECONDS) is False


def test_all_who_stop_it_at_once_are_told(system: ActorSystem, server: type[Pooled]) -> None:
    ref = system.start(server)
    with Gate() as gate:
        ref.cast(gate)
        stops = [ref.stop(block=False) for _ in range(3)]
        late = ref.ask("late", block=False)
    assert [stop.get(timeout=WAIT_SECONDS) for stop in stops] == [True, True, True]
    with pytest.raises(pykka.ActorDeadError):
        late.get(timeout=WAIT_SECONDS)


@pytest.mark.parametrize("ending", ["on_stop", "on_failure"])
def test_an_actor_that_cleans_up_can_not_be_told(system: ActorSystem, server: type[Pooled], ending: str) -> None:
    gate = Gate()

    class Ending(Actor):
        runtime = server.runtime

        def on_receive(self, message: Any) -> Any:
            raise message

        def on_stop(self) -> None:
            gate()

        def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
            gate()

    ref = system.start(Ending)
    with gate:
        if ending == "on_stop":
            ref.stop(block=False)
        else:
            ref.tell(ValueError("bug"))
        gate.wait_entered()
        assert not ref.is_alive()
        with pytest.raises(pykka.ActorDeadError):
            ref.tell("message")
        with pytest.raises(pykka.ActorDeadError):
            ref.ask("message")
        stopped = ref.stop(block=False)
        with pytest.raises(pykka.Timeout):
            stopped.get(timeout=0)
    assert stopped.get(timeout=WAIT_SECONDS) is True
    assert exit_reason_of(ref) is not None


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_on_failure_sees_every_crash(plain: Ref, seen: Seen, error: BaseException) -> None:
    with pytest.raises(type(error)):
        plain.ask(error, timeout=WAIT_SECONDS)
    assert exit_reason_of(plain) == Crash(error)
    assert seen.rest() == ["on_start", ("on_failure", type(error), error, True)]


def test_exit_signals_end_it_without_on_stop(system: ActorSystem, plain: Ref, seen: Seen) -> None:
    class Trapping(Plain):
        trap_exit = True

    plain.kill()
    assert exit_reason_of(plain) == KILLED
    not_trapping = system.start(Plain, seen)
    not_trapping.exit(SHUTDOWN)
    assert exit_reason_of(not_trapping) == SHUTDOWN
    assert seen.rest() == ["on_start", "on_start"]
    trapping = system.start(Trapping, seen)
    trapping.exit(SHUTDOWN)
    assert exit_reason_of(trapping) == SHUTDOWN
    assert seen.rest() == ["on_start", "on_stop"]


def test_a_pooled_actor_may_not_wait_for_another(system: ActorSystem) -> None:
    plain, server = system.start(Plain, Seen()), system.start(Pooled)
    ways = (
        lambda _actor: plain.ask("asked"),
        lambda _actor: plain.proxy().limit.get(),
        lambda _actor: run_in(server, lambda _other: "called"),
        lambda _actor: plain.stop(),
    )
    for way in ways:
        with pytest.raises(RuntimeError, match="must not block"):
            run_in(system.start(Pooled), way)
    plain = system.start(Plain, Seen())
    assert [run_in(system.start(Threaded), way) for way in ways] == ["asked", 10, "called", True]


def test_a_pooled_actor_may_take_an_answer_that_is_there(system: ActorSystem, plain: Ref) -> None:
    ready = plain.ask("ready", block=False)
    ready.get(timeout=WAIT_SECONDS)
    pooled = system.start(Pooled)
    assert run_in(pooled, lambda _actor: ready.get()) == "ready"
    with Gate() as gate:
        plain = system.start(PlainThreaded, Seen())
        plain.proxy().call.defer(gate)
        late = plain.ask("late", block=False)
        with pytest.raises(pykka.Timeout):
            run_in(pooled, lambda _actor: late.get(timeout=0))


def test_an_attribute_is_only_a_value(plain: Ref) -> None:
    proxy = plain.proxy()
    values = (number for number in range(3))
    for value in (values, Stop(SHUTDOWN)):
        proxy.limit = value
        assert proxy.limit.get(timeout=WAIT_SECONDS) is value
    assert plain.is_alive()


def test_pykkas_way_of_starting_is_refused() -> None:
    with pytest.raises(TypeError, match=r"ActorSystem\.start\(Plain"):
        Plain.start(Seen())


def test_a_foreign_pykka_actor_survives_everything(
    system: ActorSystem, server: type[Pooled], foreigner: pykka.ActorRef[Any]
) -> None:
    for error in (SystemExit(1), KeyboardInterrupt(), GeneratorExit(), ValueError("bug")):
        with pytest.raises(type(error)):
            system.start(server).call(raising(error), WAIT_SECONDS)
    system.start(server).kill()
    system.stop()
    assert foreigner.ask("alive?", timeout=WAIT_SECONDS) == "alive?"
    assert pykka.ActorRegistry.get_all() == [foreigner]


def test_pykkas_registry_does_not_reach_our_actors(plain: Ref, foreigner: pykka.ActorRef[Any]) -> None:
    assert pykka.ActorRegistry.get_by_class(Plain) == []
    pykka.ActorRegistry.broadcast("message")
    pykka.ActorRegistry.stop_all(timeout=WAIT_SECONDS)
    assert plain.ask("alive?", timeout=WAIT_SECONDS) == "alive?"
