"""What a newcomer gets wrong: each is told at once, in words, and nothing hangs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pykka
import pytest

from receipt_actors.otp import ActorSystem, Crash, GenServer, IdleTimeout, Receive, Ref, StartError
from tests.otp.support import WAIT_SECONDS, Pooled, Threaded, exit_reason_of, raising


class Silent(Exception):
    """One that can't say what it is."""

    def __str__(self) -> str:
        raise ZeroDivisionError


def test_an_exception_that_can_not_be_printed_reaches_its_caller(system: ActorSystem, server: type[Pooled]) -> None:
    """Whoever answers the caller, reports the crash or the failed start has to name it."""
    error = Silent()
    with pytest.raises(Silent):
        system.start(server).call(raising(error), WAIT_SECONDS)
    with pytest.raises(StartError, match="crash: Silent") as raised:
        system.start(server, init=raising(error))
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("seconds", ["1", None, math.nan, -1.0, True])
def test_a_time_out_that_is_none_is_refused_where_it_is_written(seconds: Any) -> None:
    """Not later, by the runtime."""
    with pytest.raises(ValueError, match="must be a number of seconds, 0 or more, not"):
        IdleTimeout(seconds)
    if seconds is not None:
        with pytest.raises(ValueError, match="must be a number of seconds, 0 or more, not"):
            Receive(bool, seconds)


@pytest.mark.parametrize("seconds", ["1", None, math.nan, -1.0])
def test_a_stop_with_a_senseless_time_limit_stops_nothing(system: ActorSystem, seconds: Any) -> None:
    """It can be called again, properly."""
    ref = system.start(Threaded)
    with pytest.raises(ValueError, match="must be a number of seconds, 0 or more, not"):
        system.stop(seconds)
    assert ref.is_alive()
    assert system.stop(math.inf) == []
    assert system.stop() == []


def test_async_callbacks_are_refused(system: ActorSystem, server: type[Pooled]) -> None:
    """They would never run, and nobody would be told."""

    async def script(*_args: object) -> None:
        raise AssertionError("never awaited")

    with pytest.raises(StartError, match="is async def"):
        system.start(server, init=script)
    with pytest.raises(TypeError, match="is async def"):
        system.start(server).call(script, WAIT_SECONDS)
    ref = system.start(server)
    ref.cast(script)
    reason = exit_reason_of(ref)
    assert isinstance(reason, Crash)
    assert "is async def" in str(reason)


@pytest.mark.parametrize("runtime", ["thread", None])
def test_a_runtime_that_is_none_is_refused(system: ActorSystem, runtime: Any) -> None:
    """It must not silently mean POOLED: a blocking actor would hold up all others."""
    wrong = type("Wrong", (GenServer,), {"runtime": runtime})
    with pytest.raises(TypeError, match="Wrong.runtime must be a Runtime, not"):
        system.start(wrong)


@pytest.mark.parametrize("wrong", [Pooled(), 5, int, "Pooled"], ids=["instance", "number", "class", "name"])
def test_what_is_no_actor_class_is_not_started(system: ActorSystem, wrong: Any) -> None:
    """The error says what is expected."""
    with pytest.raises(TypeError, match="a subclass of Actor or GenServer"):
        system.start(wrong)


@pytest.mark.parametrize(
    "wait",
    [
        lambda ref: ref.call("request"),
        lambda ref: ref.ask("request"),
        lambda ref: ref.ask("request", block=False).get(),
        lambda ref: ref.proxy().seen.get(),
        lambda ref: ref.stop(),
    ],
    ids=["call", "ask", "future", "proxy", "stop"],
)
def test_an_actor_can_not_wait_for_itself(system: ActorSystem, wait: Callable[[Ref], object]) -> None:
    """It is told so instead of waiting for ever, and ends by it like by any other exception."""
    ref = system.start(Threaded)
    with pytest.raises((RuntimeError, pykka.ActorDeadError), match="must not"):
        ref.call(lambda actor, _from: wait(actor.ref), WAIT_SECONDS)
