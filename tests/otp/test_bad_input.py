"""What a newcomer gets wrong: each is told at once, in words, and nothing hangs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    NO_REPLY,
    SHUTDOWN,
    ActorSystem,
    ChildSpec,
    Continue,
    Crash,
    GenServer,
    IdleTimeout,
    NotStarted,
    Receive,
    Ref,
    Shutdown,
    Start,
    StartError,
    Stop,
    Supervisor,
)
from receipt_actors.otp import sys as otp_sys
from tests.otp.support import WAIT_SECONDS, Pooled, Threaded, exit_reason_of, raising, run_in


@pytest.mark.parametrize("seconds", ["1", None, math.nan, -1.0, True])
def test_a_time_out_that_is_none_is_refused_where_it_is_written(seconds: Any) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds, 0 or more, not"):
        IdleTimeout(seconds)
    if seconds is not None:
        with pytest.raises(ValueError, match="must be a number of seconds, 0 or more, not"):
            Receive(bool, seconds)


def test_async_callbacks_are_refused(system: ActorSystem, server: type[Pooled]) -> None:
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
    wrong = type("Wrong", (GenServer,), {"runtime": runtime})
    with pytest.raises(TypeError, match="Wrong.runtime must be a Runtime, not"):
        system.start(wrong)


@pytest.mark.parametrize("wrong", [Pooled(), 5, int, "Pooled"], ids=["instance", "number", "class", "name"])
def test_what_is_no_actor_class_is_not_started(system: ActorSystem, wrong: Any) -> None:
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
    ref = system.start(Threaded)
    with pytest.raises((RuntimeError, pykka.ActorDeadError), match="must not"):
        ref.call(lambda actor, _from: wait(actor.ref), WAIT_SECONDS)


class _Broken(logging.Handler):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self._error


@pytest.fixture(params=[RuntimeError("handler"), SystemExit(1)], ids=["RuntimeError", "SystemExit"])
def broken_log(request: pytest.FixtureRequest) -> Iterator[None]:
    handler = _Broken(request.param)
    logger = logging.getLogger("receipt_actors.otp")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.mark.usefixtures("broken_log")
def test_a_log_handler_that_raises_ends_nobody(
    system: ActorSystem, server: type[Pooled], capsys: pytest.CaptureFixture[str]
) -> None:
    bystander = system.start(server)
    with pytest.raises(ValueError, match="bug"):
        system.start(server).call(raising(ValueError("bug")), WAIT_SECONDS)
    assert run_in(bystander, lambda _actor: "here") == "here"
    assert "emit" in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["normal", None, ValueError("bug"), Crash], ids=repr)
def test_what_is_no_exit_reason_is_refused(system: ActorSystem, reason: Any) -> None:
    """Where it was written: a transient child must not be restarted because of a misspelt reason."""
    ref = system.start(Pooled)
    every = r"NORMAL, SHUTDOWN, Shutdown\(term\), Crash\(exception\), KILLED or NO_PROCESS"
    for use in (Stop, ref.exit, lambda wrong: otp_sys.terminate(ref, wrong)):
        with pytest.raises(TypeError, match=every):
            use(reason)
    assert ref.is_alive()


@pytest.mark.parametrize("result", [Stop, Continue, IdleTimeout, NotStarted])
def test_a_class_in_place_of_a_result_is_refused(system: ActorSystem, server: type[Pooled], result: type) -> None:
    with pytest.raises(TypeError, match=f"returned the class {result.__name__}: return an instance"):
        system.start(server).call(lambda _actor, _from: result, WAIT_SECONDS)
    with pytest.raises(StartError, match=f"returned the class {result.__name__}"):
        system.start(server, init=lambda _actor: result)


def test_arguments_that_nobody_takes_are_refused(system: ActorSystem) -> None:
    class Plain(GenServer):
        pass

    with pytest.raises(StartError, match=r"Plain has no __init__ that takes arguments \(are they misspelt"):
        system.start(Plain, nmae="it")


@pytest.mark.parametrize("seconds", ["1", math.nan, -1.0])
def test_a_senseless_time_limit_is_refused_before_anything_happens(system: ActorSystem, seconds: Any) -> None:
    """A call is not sent, nothing is stopped, and a future can be had later; infinity means for ever, as in Erlang."""
    ref = system.start(Pooled)
    future = ref.ask(lambda _actor, _from: 1, block=False)
    unsent = lambda _actor, _from: pytest.fail("it was sent")  # noqa: E731
    for wait in (
        lambda: ref.call(unsent, seconds),
        lambda: ref.ask(unsent, timeout=seconds),
        lambda: ref.wait(seconds),
        lambda: future.get(timeout=seconds),
        lambda: ref.stop(timeout=seconds),
        lambda: system.stop(seconds),
    ):
        with pytest.raises(ValueError, match="must be a number of seconds, 0 or more, not"):
            wait()
    assert future.get(timeout=WAIT_SECONDS) == 1
    assert ref.call(lambda _actor, _from: "answer", math.inf) == "answer"
    assert system.stop(math.inf) == []


def test_a_thread_may_wait_for_an_end(system: ActorSystem, server: type[Pooled]) -> None:
    ref, other = system.start(server), system.start(Pooled)
    assert ref.wait(0) is None
    with pytest.raises(RuntimeError, match="monitor the other"):
        run_in(other, lambda _actor: ref.wait())
    ref.cast(lambda _actor: Stop(Shutdown("over")))
    assert ref.wait(math.inf) == Shutdown("over")
    assert ref.wait() != SHUTDOWN


class Unprintable:
    """A name that can't say what it is, and would end the program if it could."""

    def __repr__(self) -> str:
        raise SystemExit


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit


def test_a_name_that_can_not_be_printed_is_one_all_the_same(system: ActorSystem, server: type[Pooled]) -> None:
    name = Unprintable()
    ref = system.start(server, name=name)
    assert str(ref) == f"{server.__name__} (<Unprintable>)"
    with pytest.raises(StartError, match="already started: .*<Unprintable>"):
        system.start(server, name=name)
    spec = ChildSpec(name, Start(server, init=raising(ValueError("bug"))))  # type: ignore[arg-type]
    with pytest.raises(StartError, match="child <Unprintable> failed to start"):
        system.start(Supervisor, [spec])


def test_an_exception_whose_text_ends_programs_ends_its_actor_alone(system: ActorSystem, server: type[Pooled]) -> None:
    error = Leaving()
    ref = system.start(server)
    later = ref.ask(lambda _actor, _from: NO_REPLY, block=False)
    with pytest.raises(Leaving):
        ref.call(raising(error), WAIT_SECONDS)
    with pytest.raises(Leaving):
        later.get(timeout=WAIT_SECONDS)
    assert str(exit_reason_of(ref)) == "crash: Leaving: <Leaving>"


def test_what_an_actor_can_not_do_is_refused_there(system: ActorSystem) -> None:

    def try_all(actor: Any) -> None:
        for wrong in ("name", None, 5):
            for function in (actor.monitor, actor.link, actor.unlink):
                with pytest.raises(TypeError, match=f"a Ref is expected, .*, not a {type(wrong).__name__}"):
                    function(wrong)
        for seconds in ("1", None, math.nan, -1):
            with pytest.raises(ValueError, match="must be a number of seconds, 0 or more, not"):
                actor.send_after(seconds, "late")
        for value in ("false", 0, None):
            with pytest.raises(TypeError, match="trap_exit must be True or False, not"):
                actor.set_trap_exit(value)

    run_in(system.start(Pooled), try_all)
