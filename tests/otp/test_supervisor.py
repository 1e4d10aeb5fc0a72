"""The supervisor: failed starts, shutting down, what it keeps of a child, and killed children whose threads go on."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    ALL_SIGNIFICANT,
    BRUTAL_KILL,
    IGNORE,
    INFINITY,
    KILLED,
    NORMAL,
    ONE_FOR_ALL,
    PERMANENT,
    SHUTDOWN,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    TRANSIENT,
    ActorSystem,
    AlreadyStarted,
    ChildSpec,
    ChildType,
    Crash,
    Exit,
    GenServer,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Restart,
    Shutdown,
    SimpleOneForOneSupervisor,
    Start,
    StartChild,
    Started,
    StartError,
    Starting,
    Stop,
    Supervisor,
    TerminateChild,
    count_children,
    delete_child,
    get_child_spec,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp._child_spec import ForgottenStart
from tests.otp.support import (
    WAIT_SECONDS,
    Gate,
    Pooled,
    PooledTrapping,
    Seen,
    Threaded,
    ThreadedTrapping,
    WatchedClock,
    end,
    exit_reason_of,
    link_child,
    raising,
    run_in,
    settle,
    states,
    sync,
    thread_of,
    whereis,
)

BUG = Crash(ValueError("bug"))


@pytest.fixture
def log() -> Seen:
    return Seen()


@pytest.fixture
def child(trapping: type[Pooled], log: Seen) -> Callable[..., ChildSpec]:

    def make(id_: str, restart: Restart = Restart.PERMANENT, *, init: Any = None, **spec: Any) -> ChildSpec:
        def started(actor: Any) -> Any:
            log.put(f"+{id_}")
            return None if init is None else init(actor)

        def terminated(_actor: Any) -> None:
            log.put(f"-{id_}")

        return ChildSpec(id_, Start(trapping, init=started, terminate=terminated, name=id_), restart, **spec)

    return make


def test_a_failed_start_stops_what_had_started(system: ActorSystem, child: Callable[..., ChildSpec], log: Seen) -> None:
    specs = [child("a"), child("b"), child("c", init=raising(ValueError("no disk"))), child("d")]
    with pytest.raises(StartError, match="child 'c' failed to start: crash: ValueError: no disk") as raised:
        system.start(Supervisor, specs)
    assert isinstance(raised.value.result, NotStarted)
    assert isinstance(raised.value.result.reason, Shutdown)
    assert log.rest() == ["+a", "+b", "+c", "-b", "-a"]
    assert system.processes() == []


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_a_start_function_that_raises_is_a_failed_start(system: ActorSystem, error: BaseException) -> None:
    supervisor = system.start(Supervisor)
    assert start_child(supervisor, ChildSpec("a", raising(error))) == NotStarted(Crash(error))
    assert states(supervisor) == {}


def test_a_start_function_that_returns_no_start_is_a_failed_start(system: ActorSystem, server: type[Pooled]) -> None:
    supervisor, stranger = system.start(Supervisor), system.start(server)
    for wrong in (5, None, Started, Started(5), Starting(5), Starting(stranger)):  # type: ignore[arg-type]
        answer = start_child(supervisor, ChildSpec("a", lambda wrong=wrong: wrong))  # type: ignore[misc]
        assert isinstance(answer, NotStarted)
        assert "start of child 'a' must return what start_link() gave it" in str(answer.reason)
        assert f"returned something of type {type(wrong).__name__}" in str(answer.reason)
        assert states(supervisor) == {}
    sync(stranger)


@pytest.mark.parametrize("simple", [False, True], ids=["supervisor", "simple_one_for_one"])
def test_a_start_that_is_over_before_it_is_waited_for(
    system: ActorSystem, simple: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def start() -> Any:
        starting = Start(Threaded, init=lambda _actor: Stop(BUG))()
        assert isinstance(starting, Starting)
        assert starting.ref.process.wait(WAIT_SECONDS)
        return starting

    spec = ChildSpec("a", start)
    supervisor = system.start(SimpleOneForOneSupervisor, spec) if simple else system.start(Supervisor)
    assert start_child(supervisor, () if simple else spec) == NotStarted(BUG)
    assert which_children(supervisor) == []
    assert "unexpected message" not in caplog.text


def test_a_child_that_died_during_its_start_is_restarted(system: ActorSystem) -> None:
    started: list[Ref] = []

    def start() -> Any:
        result = Start(Pooled)()
        assert isinstance(result, Started)
        started.append(result.ref)
        if len(started) == 1:
            result.ref.kill()
        return result

    supervisor = system.start(Supervisor, [ChildSpec("a", start)])
    ((_, child, _),) = which_children(supervisor)
    first, second = started
    assert not first.is_alive()
    assert child is second


def test_a_child_that_is_not_linked_is_stopped_like_any_other(system: ActorSystem, trapping: type[Pooled]) -> None:
    seen = Seen()
    stray = system.start(trapping, seen)
    supervisor = system.start(Supervisor, [ChildSpec("a", lambda: Started(stray), shutdown=INFINITY)])
    answer = supervisor.ask(TerminateChild("a"), block=False)
    assert seen.next() == Exit(supervisor, SHUTDOWN)  # not its parent's: a message, as in OTP
    stray.stop(block=False)
    assert answer.get(timeout=WAIT_SECONDS) is None
    assert exit_reason_of(stray) == NORMAL
    assert states(supervisor) == {"a": None}


def test_bad_specs_start_nothing(system: ActorSystem, child: Callable[..., ChildSpec], log: Seen) -> None:
    for specs, error in (
        ([child("a"), child("a")], "there twice"),
        ([child("a"), "b"], "not 'b'"),
        (child("a"), "a list or tuple of ChildSpecs, not of type ChildSpec"),
    ):
        with pytest.raises(StartError, match=error):
            system.start(Supervisor, specs)
    for options, error in (
        ({"strategy": SIMPLE_ONE_FOR_ONE}, "strategy must be"),
        ({"strategy": "one_for_one"}, "strategy must be"),
        ({"intensity": -1}, "intensity must be"),
        ({"intensity": True}, "intensity must be"),
        ({"period_seconds": 0}, "period_seconds must be"),
        ({"auto_shutdown": "never"}, "auto_shutdown must be an AutoShutdown, not 'never'"),
        ({"max_zombies": 0.5}, "max_zombies must be"),
    ):
        with pytest.raises(StartError, match=error):
            system.start(Supervisor, [child("a")], **options)
    assert log.rest() == []


def never_ending(_actor: Any) -> Receiving:
    yield Receive(lambda message: message == "end")


def test_a_child_that_takes_too_long_is_killed(
    system: ActorSystem, clock: WatchedClock, trapping: type[Pooled], caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    spec = ChildSpec("a", Start(trapping, seen, terminate=never_ending, name="a"), shutdown=3)
    supervisor = system.start(Supervisor, [spec])
    ref = whereis(system, "a")
    answer = supervisor.ask(TerminateChild("a"), block=False)
    assert seen.next() == ("terminate", SHUTDOWN)
    assert clock.set_timers.next() == 3
    clock.advance(2.9)
    sync(system.start(Pooled))
    assert not ref.process.is_set()
    clock.advance(0.1)
    assert answer.get(timeout=WAIT_SECONDS) is None
    assert exit_reason_of(ref) == KILLED
    assert "child a did not end as told: killed (it did not end within 3 s)" in caplog.text


class Holding:
    """Something that a child is started with."""


class Forgetful(GenServer):
    def __init__(self, argument: object) -> None:
        pass

    def handle_cast(self, request: Any) -> Any:
        raise request


@pytest.mark.parametrize(("restart", "is_kept"), [(TEMPORARY, False), (TRANSIENT, True), (PERMANENT, True)])
@pytest.mark.parametrize("as_function", [False, True], ids=["Start", "function"])
def test_the_start_arguments_of_a_temporary_child_are_forgotten(
    system: ActorSystem, restart: Restart, is_kept: bool, as_function: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never started again, so its supervisor keeps nothing of them, and its spec says so (OTP: undefined)."""
    argument = Holding()
    kept = weakref.ref(argument)
    start: Any = Start(Forgetful, argument)
    spec = ChildSpec("child", start.__call__ if as_function else start, restart)
    supervisor = system.start(Supervisor, intensity=9)
    result = start_child(supervisor, spec)
    assert isinstance(result, Started)
    del argument, start, spec
    sync(system.start(Pooled))
    gc.collect()
    assert (kept() is not None) is is_kept
    known = get_child_spec(supervisor, "child")
    assert isinstance(known, ChildSpec)
    assert isinstance(known.start, ForgottenStart) is not is_kept
    if not is_kept:
        with pytest.raises(RuntimeError, match="never started again"):
            known.start()
        result.ref.cast(ValueError("report this"))
        exit_reason_of(result.ref)
        assert count_children(supervisor) == (0, 0, 0, 0)
        assert "ForgottenStart" not in caplog.text


def spec(actor_class: type[Pooled], id_: str, restart: Restart = PERMANENT, **options: Any) -> ChildSpec:
    return ChildSpec(id_, Start(actor_class, name=id_, **options), restart)


def child_of(supervisor: Ref, id_: str) -> Ref:
    child = next(info.child for info in which_children(supervisor) if info.id == id_)
    assert isinstance(child, Ref)
    return child


def test_the_defaults_of_a_supervisor(system: ActorSystem, server: type[Pooled], clock: WatchedClock) -> None:
    supervisor = system.start(Supervisor, [spec(server, "a"), spec(server, "b")])
    other = child_of(supervisor, "b")
    end(child_of(supervisor, "a"), KILLED)
    assert child_of(supervisor, "b") is other
    clock.advance(5.1)
    end(child_of(supervisor, "a"), KILLED)
    clock.advance(4.9)
    assert len(which_children(supervisor)) == 2
    end(child_of(supervisor, "a"), KILLED)
    assert exit_reason_of(supervisor) == SHUTDOWN


def test_a_subclass_makes_its_children_anew_at_each_start(system: ActorSystem, server: type[Pooled]) -> None:
    """What ``Module:init/1`` is in OTP: flags and specs are found out by the new process, each time."""
    names = iter(["first", "second"])

    class Tree(Supervisor):
        def __init__(self) -> None:
            super().__init__([spec(server, next(names))], strategy=ONE_FOR_ALL)

    top = system.start(Supervisor, [ChildSpec("tree", Start(Tree))])
    tree = child_of(top, "tree")
    assert [info.id for info in which_children(tree)] == ["first"]
    end(child_of(top, "tree"), KILLED)
    assert [info.id for info in which_children(child_of(top, "tree"))] == ["second"]


def test_init_may_return_ignore(system: ActorSystem, server: type[Pooled]) -> None:
    refs = Seen()

    class Unneeded(Supervisor):
        def init(self) -> Any:
            refs.put(self.ref)
            return IGNORE

    unneeded = Start(Unneeded, [spec(server, "a")])
    top = system.start(Supervisor, [ChildSpec("unneeded", unneeded)])
    assert exit_reason_of(refs.next()) == NORMAL
    assert [info.child for info in which_children(top)] == [None]
    assert system.whereis("a") is None


def test_all_significant_waits_for_the_last_of_them(system: ActorSystem, server: type[Pooled]) -> None:
    specs = [ChildSpec(id_, Start(server, name=id_), TEMPORARY, significant=True) for id_ in "ab"]
    supervisor = system.start(Supervisor, specs, auto_shutdown=ALL_SIGNIFICANT)
    end(whereis(system, "a"), NORMAL)
    assert states(supervisor) == {"b": "running"}
    end(whereis(system, "b"), BUG)
    assert exit_reason_of(supervisor) == SHUTDOWN


def test_every_function_fails_where_there_is_no_supervisor(system: ActorSystem) -> None:
    """OTP: ``noproc``."""
    supervisor = system.start(Supervisor, [])
    supervisor.kill()
    for function in (terminate_child, restart_child, delete_child, get_child_spec, start_child):
        with pytest.raises(pykka.ActorDeadError):
            function(supervisor, "a")
    for ask in (which_children, count_children):
        with pytest.raises(pykka.ActorDeadError):
            ask(supervisor)


def test_sys_looks_into_a_supervisor(system: ActorSystem, server: type[Pooled]) -> None:
    supervisor = system.start(Supervisor, [spec(server, "a")])
    child = child_of(supervisor, "a")
    otp_sys.statistics(supervisor, True, WAIT_SECONDS)
    otp_sys.suspend(supervisor, WAIT_SECONDS)
    child.kill()
    exit_reason_of(child)
    assert otp_sys.get_status(supervisor, WAIT_SECONDS).is_suspended
    assert system.whereis("a") is None
    otp_sys.resume(supervisor, WAIT_SECONDS)
    assert child_of(supervisor, "a") is not child
    statistics = otp_sys.statistics(supervisor, timeout=WAIT_SECONDS)
    assert statistics is not None
    assert statistics.messages_in == 2  # the end of the child, and the question


TWO = Shutdown("killed children that still run: 2 (allowed: 1)")
ONE = Shutdown("killed children that still run: 1 (allowed: 0)")


@contextmanager
def blocked(ref: Ref) -> Iterator[threading.Thread]:
    thread = thread_of(ref)
    with Gate() as gate:
        ref.cast(gate)
        gate.wait_entered()
        yield thread


def specs(*ids: str) -> list[ChildSpec]:
    return [ChildSpec(id_, Start(Threaded, name=id_), shutdown=BRUTAL_KILL) for id_ in ids]


def test_too_many_end_their_supervisor(system: ActorSystem, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = system.start(Supervisor, specs("a", "b", "c"), max_zombies=1)
    with blocked(whereis(system, "a")), blocked(whereis(system, "b")):
        assert terminate_child(supervisor, "a") is None
        assert [info.id for info in which_children(supervisor) if info.child is not None] == ["b", "c"]
        assert terminate_child(supervisor, "b") is None
        assert exit_reason_of(supervisor) == TWO
    assert "gives up because of child b: killed children that still run: 2" in caplog.text
    assert system.processes() == []


def test_one_that_took_too_long_counts(system: ActorSystem, clock: WatchedClock) -> None:
    spec = ChildSpec("a", Start(ThreadedTrapping, name="a"), shutdown=3)
    supervisor = system.start(Supervisor, [spec], max_zombies=0)
    with blocked(whereis(system, "a")):
        request = threading.Thread(target=terminate_child, args=(supervisor, "a"))
        request.start()
        assert clock.set_timers.next() == 3
        clock.advance(3)
        assert exit_reason_of(supervisor) == ONE
        request.join()


def test_one_that_has_returned_does_not_count(system: ActorSystem) -> None:
    supervisor = system.start(Supervisor, specs("a"), max_zombies=1)
    for _ in range(3):
        with blocked(whereis(system, "a")) as thread:
            assert terminate_child(supervisor, "a") is None
        settle(system, thread)
        assert isinstance(restart_child(supervisor, "a"), Started)


def test_one_that_an_exit_signal_ended_in_a_callback_counts(system: ActorSystem) -> None:
    supervisor = system.start(Supervisor, [ChildSpec("a", Start(Threaded, name="a"))], max_zombies=0)
    with blocked(whereis(system, "a")):
        assert terminate_child(supervisor, "a") is None
        assert exit_reason_of(supervisor) == ONE
    many = system.start(SimpleOneForOneSupervisor, ChildSpec("job", Start(Threaded), TEMPORARY), max_zombies=0)
    child = start_child(many, ())
    assert isinstance(child, Started)
    with blocked(child.ref):
        child.ref.exit(SHUTDOWN)
        assert exit_reason_of(many) == ONE


def test_a_group_that_is_killed_is_not_started_again(system: ActorSystem) -> None:
    supervisor = system.start(Supervisor, specs("a", "b", "c"), strategy=ONE_FOR_ALL, max_zombies=1, intensity=9)
    with blocked(whereis(system, "a")), blocked(whereis(system, "b")):
        whereis(system, "c").kill()
        assert exit_reason_of(supervisor) == TWO


def test_simple_one_for_one_counts_them_too(system: ActorSystem) -> None:
    spec = ChildSpec("job", Start(Threaded), TEMPORARY, BRUTAL_KILL)
    supervisor = system.start(SimpleOneForOneSupervisor, spec, max_zombies=1)
    first, second = (start_child(supervisor, ()) for _ in range(2))
    assert isinstance(first, Started) and isinstance(second, Started)
    with blocked(first.ref), blocked(second.ref):
        assert terminate_child(supervisor, first.ref) is None
        second.ref.kill()
        assert exit_reason_of(supervisor) == TWO


def test_one_that_somebody_else_killed_counts(system: ActorSystem) -> None:
    supervisor = system.start(Supervisor, specs("a"), max_zombies=0, intensity=9)
    child = whereis(system, "a")
    with blocked(child):
        child.kill()
        assert exit_reason_of(supervisor) == ONE


def a_supervisor_of(id_: str, *specs: ChildSpec, name: str | None = None, **options: Any) -> ChildSpec:
    start = Start(Supervisor, list(specs), name=name, **options)
    return ChildSpec(id_, start, type=ChildType.SUPERVISOR, shutdown=INFINITY)


@pytest.mark.parametrize("name", ["middle", None], ids=["named", "unnamed"])
def test_a_killed_supervisors_grandchildren_are_waited_for(system: ActorSystem, name: str | None) -> None:
    with Gate() as gate:
        gate.open()
        leaf = ChildSpec("leaf", Start(ThreadedTrapping, name="leaf", terminate=gate), shutdown=INFINITY)
        top = a_supervisor_of("top", a_supervisor_of("middle", leaf, name=name), name="top")
        root = system.start(Supervisor, [top], intensity=1)
        old = whereis(system, "leaf")
        with Gate() as slow:
            run_in(old, lambda actor: setattr(actor, "_on_terminate", slow))
            whereis(system, "top").kill()
            slow.wait_entered()
            sync(system.start(Pooled))
            assert root.is_alive()
            assert system.whereis("leaf") is old
        exit_reason_of(old)
        assert len(which_children(root, WAIT_SECONDS)) == 1
        assert whereis(system, "leaf") is not old
        assert root.is_alive()


def test_an_orphan_that_had_to_be_killed_counts_as_a_zombie(system: ActorSystem, clock: WatchedClock) -> None:
    spec = ChildSpec("leaf", Start(ThreadedTrapping, name="leaf"), shutdown=3)
    starter = system.start(PooledTrapping)
    with Gate() as gate:
        orphan = link_child(starter, ThreadedTrapping, name="leaf")
        orphan.cast(gate)
        gate.wait_entered()
        starter.kill()
        exit_reason_of(starter)
        failed = Seen()

        def start(actor: Any) -> Receiving:
            starting = actor.system.start_link(Supervisor, [spec], max_zombies=0)
            finished = yield Receive(lambda message: getattr(message, "ref", None) is starting.ref)
            failed.put(finished.result)

        system.start(PooledTrapping).cast(start)
        assert clock.set_timers.next() == 3
        clock.advance(3)
        result = failed.next()
        assert result == NotStarted(Shutdown("killed children that still run: 1 (allowed: 0)"))
        assert exit_reason_of(orphan) == KILLED


def test_nobody_waits_for_who_ends_with_it(system: ActorSystem) -> None:
    leaf = Start(Threaded, name="leaf")
    starter = system.start(PooledTrapping)
    inner = link_child(starter, Supervisor, [ChildSpec("leaf", leaf)])
    held = whereis(system, "leaf")
    answers = Seen()

    def ask_and_kill(actor: Any) -> None:  # the supervisor has its turn after this one, as all are pooled
        actor.send_request(inner, StartChild(ChildSpec("twin", leaf)), "twin")
        starter.process.kill()

    system.start(Pooled, answers).cast(ask_and_kill)
    assert answers.next() == ("reply", "twin", NotStarted(AlreadyStarted(held)))
    assert exit_reason_of(inner) == KILLED
    assert exit_reason_of(held) == SHUTDOWN
