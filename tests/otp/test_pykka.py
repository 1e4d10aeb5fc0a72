"""An actor is a real pykka actor: references, futures, proxies and hooks work as pykka documents them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    NORMAL,
    Actor,
    ActorSystem,
    Crash,
    ExitReason,
    Ref,
    Runtime,
    StartError,
)
from tests.otp.support import (
    WAIT_SECONDS,
    Gate,
    Pooled,
    Seen,
    Threaded,
    exit_reason_of,
    raising,
    run_in,
)


class Plain(Actor):
    """An actor written for pykka; ``seen`` gets what its hooks see."""

    def __init__(self, seen: Seen, limit: int = 10) -> None:
        super().__init__()
        self.seen = seen
        self.limit = limit
        self.nested = pykka.traversable(Nested())

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

    def double(self, number: int, *, plus: int = 0) -> int:
        return 2 * number + plus

    def urns(self) -> tuple[str, Any]:
        return self.actor_urn, self.actor_ref

    def finish(self) -> None:
        self.stop()


class Nested:
    value = "nested"


class PlainThreaded(Plain):
    runtime = Runtime.THREAD


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def plain(system: ActorSystem, runtime: Runtime, seen: Seen) -> Ref:
    return system.start(Plain if runtime is Runtime.POOLED else PlainThreaded, seen)


@pytest.fixture
def foreigner() -> Iterator[pykka.ActorRef[Any]]:
    """An actor of the embedding application, in pykka's global registry."""

    class Foreigner(pykka.ThreadingActor):
        def on_receive(self, message: Any) -> Any:
            return message

    ref = Foreigner.start()
    yield ref
    ref.stop()


def test_it_is_a_pykka_actor_ref(plain: Ref) -> None:
    """isinstance, actor_class, actor_urn, actor_ref and str are what pykka's users expect."""
    assert isinstance(plain, pykka.ActorRef)
    assert issubclass(plain.actor_class, pykka.Actor)
    assert plain.proxy().urns().get(timeout=WAIT_SECONDS) == (plain.actor_urn, plain)
    assert plain.actor_urn in str(plain)


def test_tell_and_ask(plain: Ref, seen: Seen) -> None:
    """tell queues, ask answers, block=False gives a future."""
    plain.tell("told")
    assert plain.ask("asked", timeout=WAIT_SECONDS) == "asked"
    assert plain.ask("future", block=False).get(timeout=WAIT_SECONDS) == "future"
    assert seen.rest() == ["on_start", "told", "asked", "future"]


def test_a_proxy(plain: Ref) -> None:
    """Methods, attributes, assignment and traversable attributes work through a proxy."""
    proxy = plain.proxy()
    assert proxy.double(4, plus=1).get(timeout=WAIT_SECONDS) == 9
    assert proxy.limit.get(timeout=WAIT_SECONDS) == 10
    proxy.limit = 11
    assert proxy.limit.get(timeout=WAIT_SECONDS) == 11
    assert proxy.nested.value.get(timeout=WAIT_SECONDS) == "nested"
    proxy.double.defer(1)
    with pytest.raises(AttributeError):
        _ = proxy.nonsense


def test_stop_handles_what_came_before(plain: Ref, seen: Seen) -> None:
    """stop() is queued: earlier messages are handled, on_stop runs, and it says whether it was the one to stop it."""
    plain.tell("before")
    assert plain.stop(timeout=WAIT_SECONDS) is True
    assert exit_reason_of(plain) == NORMAL
    assert not plain.is_alive()
    assert seen.rest() == ["on_start", "before", "on_stop"]
    assert plain.stop(timeout=WAIT_SECONDS) is False


def test_all_who_stop_it_at_once_are_told(system: ActorSystem, server: type[Pooled]) -> None:
    """Of several stops that wait in one mailbox each gets its answer; other requests find a dead actor."""
    ref = system.start(server)
    with Gate() as gate:
        ref.cast(gate)
        stops = [ref.stop(block=False) for _ in range(3)]
        late = ref.ask("late", block=False)
    assert [stop.get(timeout=WAIT_SECONDS) for stop in stops] == [True, True, True]
    with pytest.raises(pykka.ActorDeadError):
        late.get(timeout=WAIT_SECONDS)


def test_an_actor_may_stop_itself(plain: Ref, seen: Seen) -> None:
    """Actor.stop() from within works as in pykka."""
    plain.proxy().finish().get(timeout=WAIT_SECONDS)
    assert exit_reason_of(plain) == NORMAL
    assert seen.rest() == ["on_start", "on_stop"]


def test_an_ended_actor_can_not_be_told(plain: Ref) -> None:
    """tell, ask and proxy raise ActorDeadError once the actor has ended."""
    plain.stop(timeout=WAIT_SECONDS)
    with pytest.raises(pykka.ActorDeadError):
        plain.tell("message")
    with pytest.raises(pykka.ActorDeadError):
        plain.ask("message")
    with pytest.raises(pykka.ActorDeadError):
        plain.proxy()


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_on_failure_sees_every_crash(plain: Ref, seen: Seen, error: BaseException) -> None:
    """Unlike pykka's, an exception ends the actor in an ask too; the asker and on_failure both get it."""
    with pytest.raises(type(error)):
        plain.ask(error, timeout=WAIT_SECONDS)
    assert exit_reason_of(plain) == Crash(error)
    assert seen.rest() == ["on_start", ("on_failure", type(error), error, True)]


def test_a_crash_in_on_start_is_a_failed_start(system: ActorSystem) -> None:
    """Unlike pykka's, the starter learns that on_start failed."""

    class Broken(Actor):
        def on_start(self) -> None:
            raise ValueError("bug")

    with pytest.raises(StartError, match="bug"):
        system.start(Broken)


def test_pykkas_way_of_starting_is_refused() -> None:
    """Actor.start() can't know the system; the error says what to do."""
    with pytest.raises(TypeError, match=r"ActorSystem\.start\(Plain"):
        Plain.start(Seen())


def test_a_crash_is_logged_with_its_actor(
    system: ActorSystem, server: type[Pooled], caplog: pytest.LogCaptureFixture
) -> None:
    """An operator finds who crashed, over what kind of message, and the traceback, but not the message itself."""
    ref = system.start(server, name="counter")
    with caplog.at_level(logging.ERROR, "receipt_actors.otp"):
        ref.cast(raising(SystemExit(1)))
        exit_reason_of(ref)
    (record,) = caplog.records
    assert record.getMessage() == f"{server.__name__} (counter) crashed while handling function: SystemExit"
    assert record.exc_info is not None


# --- other actors of the application ---------------------------------------------------------------------------------


def test_a_foreign_pykka_actor_survives_everything(
    system: ActorSystem, server: type[Pooled], foreigner: pykka.ActorRef[Any]
) -> None:
    """A BaseException, a kill and the end of the whole system leave the embedding application's actors alone."""
    for error in (SystemExit(1), KeyboardInterrupt(), GeneratorExit(), ValueError("bug")):
        with pytest.raises(type(error)):
            system.start(server).call(raising(error), WAIT_SECONDS)
    system.start(server).kill()
    system.stop()
    assert foreigner.ask("alive?", timeout=WAIT_SECONDS) == "alive?"
    assert pykka.ActorRegistry.get_all() == [foreigner]


def test_pykkas_registry_does_not_reach_our_actors(plain: Ref, foreigner: pykka.ActorRef[Any]) -> None:
    """stop_all() of the embedding application, and broadcast, are about its own actors."""
    assert pykka.ActorRegistry.get_by_class(Plain) == []
    pykka.ActorRegistry.broadcast("message")
    pykka.ActorRegistry.stop_all(timeout=WAIT_SECONDS)
    assert plain.ask("alive?", timeout=WAIT_SECONDS) == "alive?"


def test_actors_of_both_kinds_talk(plain: Ref, foreigner: pykka.ActorRef[Any], system: ActorSystem) -> None:
    """A foreign reference can be used from our actors, and ours from foreign ones."""
    assert run_in(system.start(Threaded), lambda _actor: foreigner.ask("hello", timeout=WAIT_SECONDS)) == "hello"


def test_its_exit_reason_reaches_terminate(system: ActorSystem) -> None:
    """A subclass of Actor may override terminate instead of pykka's hooks."""
    seen = Seen()

    class Terminating(Actor):
        def terminate(self, reason: ExitReason) -> None:
            seen.put(reason)

    system.start(Terminating).stop(timeout=WAIT_SECONDS)
    assert seen.rest() == [NORMAL]
