"""simple_one_for_one: many children from one spec, started, forgotten and shut down together."""

from __future__ import annotations

from typing import Any

import pytest

from receipt_actors.otp import (
    INFINITY,
    KILLED,
    NO_PROCESS,
    NORMAL,
    SHUTDOWN,
    TEMPORARY,
    ActorSystem,
    ChildCounts,
    ChildError,
    ChildSpec,
    ChildType,
    Crash,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Restart,
    Runtime,
    SimpleOneForOneSupervisor,
    Start,
    Started,
    Stop,
    Supervisor,
    count_children,
    get_child_spec,
    start_child,
    which_children,
)
from receipt_actors.otp import sys as otp_sys
from tests.otp.support import WAIT_SECONDS, Pooled, PooledTrapping, Seen, WatchedClock, exit_reason_of, raising, run_in

BUG = Crash(ValueError("bug"))


class Job(Pooled):
    """A child with arguments: the first from the spec, the second from ``start_child``."""

    trap_exit = True

    def __init__(self, seen: Seen, fixed: str, given: Any = None) -> None:
        super().__init__(seen, init=given if callable(given) else None)
        self.arguments = (fixed, given)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def job(runtime: Runtime) -> type[Job]:
    return type("Job", (Job,), {"runtime": runtime})


def start_job(supervisor: Ref, *args: Any) -> Ref:
    result = start_child(supervisor, args)
    assert isinstance(result, Started), result
    return result.ref


def children(supervisor: Ref) -> list[Any]:
    return [info.child for info in which_children(supervisor)]


def start_supervisor(
    system: ActorSystem, job: type[Job], seen: Seen, restart: Restart = TEMPORARY, *, intensity: int = 1, **spec: Any
) -> Ref:
    return system.start(
        SimpleOneForOneSupervisor, ChildSpec("job", Start(job, seen, "fixed"), restart, **spec), intensity=intensity
    )


def test_start_child_appends_its_arguments(system: ActorSystem, job: type[Job], seen: Seen) -> None:
    supervisor = start_supervisor(system, job, seen)
    assert which_children(supervisor) == []
    first, second = start_job(supervisor, "given"), start_job(supervisor)
    assert run_in(first, lambda actor: actor.arguments) == ("fixed", "given")
    assert run_in(second, lambda actor: actor.arguments) == ("fixed", None)
    assert which_children(supervisor) == [(None, first, ChildType.WORKER), (None, second, ChildType.WORKER)]
    assert count_children(supervisor) == ChildCounts(specs=1, active=2, supervisors=0, workers=2)


def test_an_orderly_end_costs_the_supervisor_no_message(system: ActorSystem, seen: Seen) -> None:
    supervisor = start_supervisor(system, Job, seen)
    infos, bystander = Seen(), system.start(Pooled)

    def handled() -> int:
        run_in(bystander, lambda _: None)  # its turn comes after the supervisor's, which counts at its end
        return supervisor.process.messages_handled

    def end_one() -> None:
        job = start_job(supervisor)
        run_in(job, lambda _: Stop(NORMAL, None))
        job.wait(WAIT_SECONDS)

    before = handled()
    end_one()
    assert children(supervisor) == []
    assert handled() == before + 2  # the start, and the list of the children
    otp_sys.install(supervisor, "infos", lambda event: infos.put(event.kind))
    end_one()
    assert children(supervisor) == []
    assert otp_sys.EventKind.INFO in infos.rest()


@pytest.mark.parametrize("wrong", [ChildSpec("a", Start(Job)), 5, None], ids=["ChildSpec", "int", "None"])
def test_start_child_with_something_else_harms_nobody(
    system: ActorSystem, job: type[Job], seen: Seen, wrong: Any
) -> None:
    supervisor = start_supervisor(system, job, seen)
    child = start_job(supervisor)
    answer = start_child(supervisor, wrong)
    assert isinstance(answer, NotStarted)
    assert f"takes arguments, not {type(wrong).__name__}" in str(answer.reason)
    assert children(supervisor) == [child]


def test_get_child_spec_takes_the_ref_or_the_id(system: ActorSystem, job: type[Job], seen: Seen) -> None:
    spec = ChildSpec("job", Start(job, seen, "fixed"), TEMPORARY)
    supervisor = system.start(SimpleOneForOneSupervisor, spec)
    for known in (start_job(supervisor), "job"):
        assert get_child_spec(supervisor, known) is spec
    for unknown in ("other", supervisor):
        assert get_child_spec(supervisor, unknown) is ChildError.NOT_FOUND


def test_a_child_that_is_not_linked_ends_with_its_supervisor(
    system: ActorSystem, slow_job: type[Job], seen: Seen
) -> None:
    stray = system.start(slow_job, seen, "stray")
    spec = ChildSpec("job", lambda: Started(stray), TEMPORARY, INFINITY)
    supervisor = system.start(SimpleOneForOneSupervisor, spec)
    assert start_job(supervisor) is stray
    supervisor.exit(SHUTDOWN)
    stray.stop(block=False)
    assert seen.next() == ("terminate", NORMAL)
    assert not supervisor.process.is_set()
    stray.send("go")
    assert exit_reason_of(stray) == NORMAL
    assert exit_reason_of(supervisor) == SHUTDOWN


def wait_for_go(_actor: Any) -> Receiving:
    yield Receive(lambda message: message == "go")


class SlowJob(Job):
    def terminate(self, reason: Any) -> Receiving:
        self.seen.put(("terminate", reason))
        return wait_for_go(self)


@pytest.fixture
def slow_job(runtime: Runtime) -> type[Job]:
    return type("SlowJob", (SlowJob,), {"runtime": runtime})


def test_children_are_shut_down_together(system: ActorSystem, slow_job: type[Job], seen: Seen) -> None:
    supervisor = start_supervisor(system, slow_job, seen, shutdown=INFINITY)
    jobs = [start_job(supervisor) for _ in range(5)]
    supervisor.exit(SHUTDOWN)
    assert seen.take(5) == [("terminate", SHUTDOWN)] * 5
    for job in reversed(jobs):
        assert not supervisor.process.is_set()
        job.send("go")
        exit_reason_of(job)
    assert exit_reason_of(supervisor) == SHUTDOWN


def test_children_that_take_too_long_are_killed(
    system: ActorSystem, clock: WatchedClock, slow_job: type[Job], seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = start_supervisor(system, slow_job, seen, shutdown=3)
    jobs = [start_job(supervisor) for _ in range(4)]
    supervisor.exit(SHUTDOWN)
    seen.take(4)
    jobs[0].send("go")
    assert exit_reason_of(jobs[0]) == SHUTDOWN
    while clock.set_timers.next() != 3:
        pass
    clock.advance(3)
    assert [exit_reason_of(job) for job in jobs[1:]] == [KILLED] * 3
    assert exit_reason_of(supervisor) == SHUTDOWN
    assert "3 children job did not end as told: killed (they had 3 s to end)" in caplog.text


@pytest.mark.parametrize("supervisor_class", [Supervisor, SimpleOneForOneSupervisor], ids=["one_for_one", "simple"])
def test_no_time_at_all_to_end_is_the_same_for_all_supervisors(
    system: ActorSystem, clock: WatchedClock, supervisor_class: Any
) -> None:
    def never(_actor: Any) -> Receiving:
        yield Receive(lambda _message: False)

    spec = ChildSpec("a", Start(PooledTrapping, terminate=never), shutdown=0)
    if supervisor_class is Supervisor:
        supervisor = system.start(Supervisor, [spec])
        child = which_children(supervisor)[0].child
    else:
        supervisor = system.start(SimpleOneForOneSupervisor, spec)
        child = start_child(supervisor, []).ref  # type: ignore[union-attr]
    assert isinstance(child, Ref)
    supervisor.exit(SHUTDOWN)
    assert exit_reason_of(supervisor) == SHUTDOWN
    assert exit_reason_of(child) == KILLED
    assert clock.set_timers.rest() == []


# --- a pooled actor that asks for a child ---


@pytest.fixture
def jobs(system: ActorSystem, seen: Seen) -> Ref:
    return system.start(SimpleOneForOneSupervisor, ChildSpec("job", Start(Job, seen, "fixed"), TEMPORARY))


def test_a_pooled_actor_starts_children_on_the_spot(system: ActorSystem, jobs: Ref) -> None:
    """They are the supervisor's, and end with it; a child that crashes at its start is none."""
    asking = system.start(Pooled)
    child, crashed = run_in(asking, lambda _: [start_child(jobs, ["a"]), start_child(jobs, [raising(BUG.exception)])])
    assert crashed == NotStarted(BUG)
    assert [each.child for each in which_children(jobs)] == [child.ref]
    jobs.exit(SHUTDOWN)
    assert exit_reason_of(child.ref) == SHUTDOWN


def test_a_pooled_actor_waits_for_no_child(system: ActorSystem, jobs: Ref) -> None:

    def waits(_actor: object) -> Receiving:
        yield Receive(lambda _message: False)

    asking = system.start(Pooled)
    assert isinstance(run_in(asking, lambda _: start_child(jobs, [waits])), NotStarted)
    otp_sys.suspend(jobs)
    assert run_in(asking, lambda _: start_child(jobs, ["a"])) == NotStarted(NO_PROCESS)
    otp_sys.resume(jobs)
    assert which_children(jobs) == []
    jobs.kill()
    assert run_in(asking, lambda _: start_child(jobs, ["a"])) == NotStarted(NO_PROCESS)
