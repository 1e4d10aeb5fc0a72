"""Specs: what is refused where it is written, how many restarts are allowed, and how delayed restarts go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.otp import (
    ALL_SIGNIFICANT,
    ANY_SIGNIFICANT,
    INFINITY,
    KILLED,
    NEVER,
    NORMAL,
    ONE_FOR_ALL,
    ONE_FOR_ONE,
    PERMANENT,
    REST_FOR_ONE,
    SHUTDOWN,
    SIMPLE_ONE_FOR_ONE,
    SUPERVISOR,
    TEMPORARY,
    TRANSIENT,
    WORKER,
    ActorSystem,
    Backoff,
    ChildError,
    ChildSpec,
    Ref,
    RestartWindow,
    SimpleOneForOneSupervisor,
    Start,
    Started,
    Stop,
    Strategy,
    Supervisor,
    check_child_specs,
    count_children,
    delete_child,
    restart_child,
    start_child,
    supervisor_spec,
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


@given(restarts=st.integers(0, 2000), jitter=st.floats(0, 1))
def test_jitter_takes_away_at_most_its_part(restarts: int, jitter: float) -> None:
    plain = Backoff(1.0, max_seconds=30).delay_seconds(restarts)
    delay = Backoff(1.0, max_seconds=30, jitter=jitter).delay_seconds(restarts)
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


SPEC = ChildSpec("a", Start(Pooled))


@given(intensity=st.integers(0, 4), period=st.integers(1, 10), pauses=st.lists(st.integers(0, 6), max_size=30))
def test_the_window_allows_what_a_naive_count_allows(intensity: int, period: int, pauses: list[int]) -> None:
    window = RestartWindow(intensity, period)
    now = 0
    restarts: list[int] = []
    for pause in pauses:
        now += pause
        restarts.append(now)
        window, allowed = window.add(now)
        assert allowed == (sum(now - at <= period for at in restarts) <= intensity)


def test_a_restart_counts_for_exactly_the_period() -> None:
    """To the fraction of a second, and at its very end still (OTP counts whole seconds, so it may count for longer)."""
    first, _ = RestartWindow(1, 1.0).add(0.9)
    assert first.add(1.9)[1] is False
    assert first.add(1.95)[1] is True


def test_the_window_keeps_no_more_restarts_than_it_needs() -> None:
    window = RestartWindow(2, 5)
    for now in range(5):
        window, allowed = window.add(now)
        assert allowed == (now < 2)
    assert window.restarts == (2, 3, 4)


@pytest.mark.parametrize(
    ("intensity", "period", "error"),
    [
        (-1, 5, "intensity must be a whole number of restarts, 0 or more, not -1"),
        (True, 5, "intensity must be .* not True"),
        (float("nan"), 5, "intensity must be .* not nan"),
        ("1", 5, "intensity must be .* not '1'"),
        (1, 0, "period_seconds must be a finite number of seconds, more than 0, not 0"),
        (1, float("nan"), "period_seconds must be .* not nan"),
        (1, True, "period_seconds must be .* not True"),
        (1, "5", "period_seconds must be .* not '5'"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(intensity: int, period: float, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        RestartWindow(intensity, period)


# --- specs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ChildSpec("a", 5), "child 'a': start must be callable"),  # type: ignore[arg-type]
        (lambda: ChildSpec([], Start(Pooled)), r"child \[\]: id must be hashable, .* of type list"),  # type: ignore[arg-type]
        (lambda: ChildSpec("a", Start(Pooled), "permanent"), "restart must be a Restart, not 'permanent'"),  # type: ignore[arg-type]
        (lambda: ChildSpec("a", Start(Pooled), type="worker"), "type must be a ChildType, not 'worker'"),  # type: ignore[arg-type]
        (lambda: check_child_specs([SPEC, "b"]), "children are ChildSpecs, not 'b'"),  # type: ignore[list-item]
        (lambda: supervisor_spec("s", ONE_FOR_ONE, [SPEC, SPEC]), "child id 'a' is there twice"),
        (lambda: supervisor_spec("s", SIMPLE_ONE_FOR_ONE, []), "takes exactly one child spec, not 0"),
        (lambda: supervisor_spec("s", SIMPLE_ONE_FOR_ONE, ["b"]), "children are ChildSpecs, not 'b'"),  # type: ignore[list-item]
        (lambda: supervisor_spec("s", "one_for_one", []), "strategy must be a Strategy, not 'one_for_one'"),  # type: ignore[arg-type]
        (lambda: supervisor_spec("s", ONE_FOR_ONE, [], intensity=-1), "supervisor 's': intensity must be"),
        (lambda: supervisor_spec("s", ONE_FOR_ONE, [], period_seconds=0), "supervisor 's': period_seconds must be"),
        (
            lambda: supervisor_spec("s", ONE_FOR_ONE, [], max_zombies=-1),
            "supervisor 's': max_zombies must be .* not -1",
        ),
        (lambda: supervisor_spec("s", ONE_FOR_ONE, SPEC), "a list or tuple of ChildSpecs, not of type ChildSpec"),  # type: ignore[arg-type]
        (lambda: supervisor_spec("s", ONE_FOR_ONE, (s for s in [SPEC])), "not of type generator"),  # type: ignore[arg-type]
        (lambda: supervisor_spec("s", ONE_FOR_ONE, "children"), "not of type str"),  # type: ignore[arg-type]
        (lambda: ChildSpec("a", Pooled), r"child 'a': start must be .* no class: write Start\(Pooled, \.\.\.\)"),
        (lambda: ChildSpec("a", Start(Pooled), significant=1), "significant must be True or False, not 1"),  # type: ignore[arg-type]
        (lambda: ChildSpec("a", Start(Pooled), backoff=2.0), "backoff must be a Backoff or None, not 2.0"),  # type: ignore[arg-type]
        (
            lambda: ChildSpec("a", Start(Pooled), PERMANENT, significant=True),
            "child 'a': a permanent child can't be significant: .* use TRANSIENT",
        ),
        (
            lambda: ChildSpec("a", Start(Pooled), TEMPORARY, backoff=Backoff(1)),
            "child 'a': a temporary child can't have a backoff: it is never restarted",
        ),
        (lambda: Start(5), "Start takes an actor class first, .* not 5"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_spec_is_refused_where_it_is_written(make: Callable[[], object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        make()


@pytest.mark.parametrize("shutdown", [-1, float("nan"), float("inf"), True, "5", None], ids=repr)
def test_a_bad_shutdown_is_refused(shutdown: Any) -> None:
    with pytest.raises(ValueError, match=r"child 'a': shutdown must be seconds \(0 or more\), BRUTAL_KILL or INFINITY"):
        ChildSpec("a", Start(Pooled), shutdown=shutdown)


def test_the_defaults_of_a_spec() -> None:
    """As in OTP: a permanent worker gets five seconds to end, a supervisor as long as it needs."""
    assert SPEC == ChildSpec("a", SPEC.start, PERMANENT, 5.0, WORKER, significant=False, backoff=None)
    assert ChildSpec("a", Start(Pooled), type=SUPERVISOR).shutdown is INFINITY


def test_a_start_is_called_by_a_supervisor_only() -> None:
    with pytest.raises(RuntimeError, match="by its supervisor"):
        Start(Pooled)()
    assert repr(Start(Pooled)) == "Start(Pooled)"


def test_a_significant_child_needs_a_supervisor_that_can_end(system: ActorSystem) -> None:
    significant = ChildSpec("a", Start(Pooled), TEMPORARY, significant=True)
    check_child_specs([significant])
    check_child_specs([significant], ANY_SIGNIFICANT)
    supervisor = system.start(Supervisor)
    assert "it can't be significant while" in str(start_child(supervisor, significant))
    for make in (
        lambda: check_child_specs([significant], NEVER),
        lambda: supervisor_spec("s", ONE_FOR_ONE, [significant]),
        lambda: system.start(Supervisor, [significant]),
        lambda: system.start(SimpleOneForOneSupervisor, significant),
    ):
        with pytest.raises(Exception, match="'a': it can't be significant while .* auto_shutdown is NEVER; give"):
            make()
    with pytest.raises(ValueError, match="auto_shutdown must be an AutoShutdown, not 'never'"):
        check_child_specs([significant], "never")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="can't have auto_shutdown ANY_SIGNIFICANT: its children come and go"):
        supervisor_spec("s", SIMPLE_ONE_FOR_ONE, [SPEC], auto_shutdown=ANY_SIGNIFICANT)
    assert system.processes() == [supervisor]
