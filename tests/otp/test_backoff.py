"""Delayed restarts: how long, how often, what cancels them, and that nobody else pays for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.otp import (
    ALL_SIGNIFICANT,
    KILLED,
    NORMAL,
    ONE_FOR_ALL,
    PERMANENT,
    REST_FOR_ONE,
    SHUTDOWN,
    TRANSIENT,
    ActorSystem,
    Backoff,
    ChildError,
    ChildSpec,
    Ref,
    SimpleOneForOneSupervisor,
    Start,
    Started,
    Stop,
    Strategy,
    Supervisor,
    count_children,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from tests.otp.support import Flaky, Pooled, Seen, WatchedClock, end, exit_reason_of, states, whereis

BACKOFF = Backoff(first_seconds=1, factor=3, max_seconds=10, reset_after_seconds=20)


def spec(actor_class: type[Pooled], id_: str = "a", backoff: Backoff | None = BACKOFF, **start: Any) -> ChildSpec:
    return ChildSpec(id_, Start(actor_class, name=id_, **start), backoff=backoff)


def kill(system: ActorSystem, name: str = "a") -> None:
    end(whereis(system, name), KILLED)


def test_delays_grow_up_to_the_longest() -> None:
    assert [BACKOFF.delay_seconds(restarts) for restarts in range(4)] == [1, 3, 9, 10]
    assert BACKOFF.delay_seconds(1_000_000) == 10


@given(restarts=st.integers(0, 2000), jitter=st.floats(0, 1), chance=st.floats(0, 1))
def test_jitter_takes_away_at_most_its_part(restarts: int, jitter: float, chance: float) -> None:
    plain = Backoff(1.0, max_seconds=30).delay_seconds(restarts)
    delay = Backoff(1.0, max_seconds=30, jitter=jitter, rng=lambda: chance).delay_seconds(restarts)
    assert plain * (1 - jitter) <= delay <= plain


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"first_seconds": 0}, "first_seconds must be more than 0, not 0"),
        ({"first_seconds": float("nan")}, "first_seconds must be a finite number, not nan"),
        ({"first_seconds": True}, "first_seconds must be a finite number, not True"),
        ({"factor": 0.5}, "factor must be 1 or more, not 0.5"),
        ({"factor": "2"}, "factor must be a finite number, not '2'"),
        ({"max_seconds": 0.5}, r"max_seconds must be first_seconds \(1\) or more, not 0.5"),
        ({"max_seconds": float("inf")}, "max_seconds must be a finite number, not inf"),
        ({"reset_after_seconds": -1}, "reset_after_seconds must be 0 or more, not -1"),
        ({"jitter": 1.1}, "jitter must be a part from 0 to 1, not 1.1"),
        ({"give_up_after": -1}, "give_up_after must be a count, 0 or more, or None for never, not -1"),
        ({"give_up_after": True}, "give_up_after must be a count, .* not True"),
        ({"rng": 0.5}, "rng must be callable, .* not 0.5"),
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=f"backoff: {error}"):
        Backoff(**{"first_seconds": 1, **options})


def test_restarts_wait_longer_each_time(system: ActorSystem, clock: WatchedClock, server: type[Pooled]) -> None:
    supervisor = system.start(Supervisor, [spec(server)], intensity=0)
    for delay in (1, 3, 9, 10, 10):
        kill(system)
        assert states(supervisor) == {"a": "restarting"}
        assert count_children(supervisor).active == 0
        clock.advance(delay - 0.25)
        assert states(supervisor) == {"a": "restarting"}
        clock.advance(0.25)
        assert states(supervisor) == {"a": "running"}


def test_a_child_that_ran_long_enough_starts_anew(
    system: ActorSystem, clock: WatchedClock, server: type[Pooled]
) -> None:
    supervisor = system.start(Supervisor, [spec(server)])
    for ran, delay in ((0, 1), (19.75, 3), (20, 1), (5, 3)):
        clock.advance(ran)
        kill(system)
        states(supervisor)
        clock.advance(delay - 0.25)
        assert states(supervisor) == {"a": "restarting"}
        clock.advance(0.25)
        assert states(supervisor) == {"a": "running"}


def test_a_failed_start_waits_too(system: ActorSystem, clock: WatchedClock, server: type[Pooled]) -> None:
    failing = Flaky()
    supervisor = system.start(Supervisor, [spec(server, init=failing)], intensity=0)
    failing.failures = 2
    kill(system)
    for delay in (1, 3):
        states(supervisor)
        clock.advance(delay)
        assert states(supervisor) == {"a": "restarting"}
    clock.advance(9)
    assert states(supervisor) == {"a": "running"}


def test_it_gives_up_when_told_to(system: ActorSystem, clock: WatchedClock, server: type[Pooled]) -> None:
    backoff = Backoff(1, factor=1, reset_after_seconds=20, give_up_after=2)
    supervisor = system.start(Supervisor, [spec(server, backoff=backoff), spec(server, "b")])
    other = system.whereis("b")
    assert other is not None
    for pause in (0, 30, 0):  # a rest in between does not count as one row
        clock.advance(pause)
        kill(system)
        states(supervisor)
        clock.advance(1)
        assert states(supervisor)["a"] == "running"
    kill(system)
    assert exit_reason_of(supervisor) == SHUTDOWN
    assert exit_reason_of(other) == SHUTDOWN


def test_terminate_child_cancels_the_restart(system: ActorSystem, clock: WatchedClock, server: type[Pooled]) -> None:
    supervisor = system.start(Supervisor, [spec(server)])
    kill(system)
    assert restart_child(supervisor, "a") is ChildError.RESTARTING
    assert delete_child(supervisor, "a") is ChildError.RESTARTING
    assert start_child(supervisor, spec(server)) is ChildError.ALREADY_PRESENT
    assert terminate_child(supervisor, "a") is None
    clock.advance(100)
    assert states(supervisor) == {"a": None}
    assert isinstance(restart_child(supervisor, "a"), Started)


def test_an_old_delay_does_not_end_a_new_one(system: ActorSystem, clock: WatchedClock, server: type[Pooled]) -> None:
    supervisor = system.start(Supervisor, [spec(server)])
    kill(system)
    terminate_child(supervisor, "a")
    restart_child(supervisor, "a")
    clock.advance(0.5)
    kill(system)
    states(supervisor)
    clock.advance(0.5)  # when the first would have been over
    assert states(supervisor) == {"a": "restarting"}
    clock.advance(0.5)
    assert states(supervisor) == {"a": "running"}


def test_terminate_child_begins_the_row_anew(system: ActorSystem, clock: WatchedClock, server: type[Pooled]) -> None:
    backoff = Backoff(first_seconds=1, give_up_after=1)
    supervisor = system.start(Supervisor, [spec(server, backoff=backoff)])
    kill(system)
    terminate_child(supervisor, "a")
    restart_child(supervisor, "a")
    kill(system)
    assert states(supervisor) == {"a": "restarting"}
    clock.advance(1)
    assert states(supervisor) == {"a": "running"}


@pytest.fixture
def log() -> Seen:
    return Seen()


@pytest.fixture
def logged(trapping: type[Pooled], log: Seen) -> Callable[[str, Backoff | None], ChildSpec]:
    def make(id_: str, backoff: Backoff | None = None) -> ChildSpec:
        return spec(
            trapping, id_, backoff, init=lambda _actor: log.put(f"+{id_}"), terminate=lambda _actor: log.put(f"-{id_}")
        )

    return make


@pytest.mark.parametrize(
    ("strategy", "stopped", "started", "waiting"),
    [
        (ONE_FOR_ALL, ["-c", "-a"], ["+a", "+b", "+c"], {"a": None, "b": "restarting", "c": None}),
        (REST_FOR_ONE, ["-c"], ["+b", "+c"], {"a": "running", "b": "restarting", "c": None}),
    ],
    ids=["one_for_all", "rest_for_one"],
)
def test_a_group_stops_at_once_and_starts_together(
    system: ActorSystem,
    clock: WatchedClock,
    logged: Callable[..., ChildSpec],
    log: Seen,
    strategy: Strategy,
    stopped: list[str],
    started: list[str],
    waiting: dict[object, object],
) -> None:
    supervisor = system.start(Supervisor, [logged("a"), logged("b", BACKOFF), logged("c")], strategy=strategy)
    log.rest()
    kill(system, "b")
    assert states(supervisor) == waiting
    assert log.rest() == stopped
    clock.advance(1)
    assert states(supervisor) == dict.fromkeys("abc", "running")
    assert log.rest() == started


def start_job(supervisor: Ref) -> Ref:
    started = start_child(supervisor, ())
    assert isinstance(started, Started)
    return started.ref


def test_each_child_of_simple_one_for_one_has_a_row_of_its_own(
    system: ActorSystem, clock: WatchedClock, server: type[Pooled]
) -> None:
    child = ChildSpec("job", Start(server), PERMANENT, backoff=BACKOFF)
    supervisor = system.start(SimpleOneForOneSupervisor, child, intensity=0)
    job, other = start_job(supervisor), start_job(supervisor)
    for delay in (1, 3):
        job.kill()
        assert [info.child for info in which_children(supervisor)] == [other, "restarting"]
        clock.advance(delay)
        job = which_children(supervisor)[1].child  # type: ignore[assignment]
        assert isinstance(job, Ref)
    job.kill()
    other.kill()
    assert count_children(supervisor).active == 0
    clock.advance(1)
    assert count_children(supervisor).active == 1
    clock.advance(8)
    assert count_children(supervisor).active == 2


def test_a_waiting_child_of_simple_one_for_one_can_be_terminated(
    system: ActorSystem, clock: WatchedClock, server: type[Pooled]
) -> None:
    child = ChildSpec("job", Start(server), PERMANENT, backoff=BACKOFF)
    supervisor = system.start(SimpleOneForOneSupervisor, child)
    job = start_job(supervisor)
    job.kill()
    assert terminate_child(supervisor, job) is None
    clock.advance(100)
    assert which_children(supervisor) == []


def test_simple_one_for_one_counts_failed_starts_and_gives_up(
    system: ActorSystem, clock: WatchedClock, server: type[Pooled]
) -> None:
    failing = Flaky()
    backoff = Backoff(1, factor=3, give_up_after=2)
    child = ChildSpec("job", Start(server, init=failing), PERMANENT, backoff=backoff)
    supervisor = system.start(SimpleOneForOneSupervisor, child)
    job = start_job(supervisor)
    failing.failures = 2
    job.kill()
    which_children(supervisor)
    clock.advance(1)
    assert [info.child for info in which_children(supervisor)] == ["restarting"]
    clock.advance(3)
    assert exit_reason_of(supervisor) == SHUTDOWN


def test_a_supervisor_of_waiting_children_can_end(
    system: ActorSystem, clock: WatchedClock, server: type[Pooled]
) -> None:
    starts = Seen()
    start = Start(server, init=lambda _actor: starts.put("+"))
    supervisor = system.start(SimpleOneForOneSupervisor, ChildSpec("job", start, PERMANENT, backoff=BACKOFF))
    start_job(supervisor).kill()
    supervisor.exit(SHUTDOWN)
    assert exit_reason_of(supervisor) == SHUTDOWN
    clock.advance(100)
    assert starts.rest() == ["+"]


def test_a_significant_child_that_waits_to_be_started_again_keeps_its_supervisor(
    system: ActorSystem, clock: WatchedClock
) -> None:
    """It is significant, and has not ended for good."""
    specs = [
        ChildSpec("first", Start(Pooled), TRANSIENT, significant=True),
        ChildSpec("delayed", Start(Pooled), backoff=Backoff(first_seconds=1)),
        ChildSpec("last", Start(Pooled), TRANSIENT, significant=True),
    ]
    supervisor = system.start(Supervisor, specs, strategy=REST_FOR_ONE, auto_shutdown=ALL_SIGNIFICANT)
    children = {info.id: info.child for info in which_children(supervisor)}
    children["delayed"].kill()  # type: ignore[union-attr]
    assert clock.set_timers.take(2) == [5, 1]  # of the end of the last, and of the delay
    children["first"].cast(lambda _actor: Stop(NORMAL))  # type: ignore[union-attr]
    exit_reason_of(children["first"])  # type: ignore[arg-type]
    assert [info.child for info in which_children(supervisor)][::2] == [None, None]
    clock.advance(1)
    last = which_children(supervisor)[-1].child
    assert isinstance(last, Ref)
    last.cast(lambda _actor: Stop(NORMAL))
    assert exit_reason_of(supervisor) == SHUTDOWN
