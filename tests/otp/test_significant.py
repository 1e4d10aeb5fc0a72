"""Significant children: whose end ends their supervisor (OTP: ``significant``, ``auto_shutdown``)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from receipt_actors.otp import (
    ALL_SIGNIFICANT,
    ANY_SIGNIFICANT,
    KILLED,
    NEVER,
    NORMAL,
    ONE_FOR_ONE,
    REST_FOR_ONE,
    SHUTDOWN,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    TRANSIENT,
    ActorSystem,
    AutoShutdown,
    Backoff,
    ChildSpec,
    Crash,
    ExitReason,
    NotStarted,
    Ref,
    Restart,
    Shutdown,
    SimpleOneForOneSupervisor,
    Start,
    Stop,
    Supervisor,
    check_child_specs,
    start_child,
    supervisor_spec,
    which_children,
)
from tests.otp.support import Pooled, WatchedClock, end, exit_reason_of, whereis

REASONS: dict[str, ExitReason] = {
    "normal": NORMAL,
    "shutdown": SHUTDOWN,
    "shutdown, term": Shutdown("term"),
    "crash": Crash(ValueError("bug")),
    "killed": KILLED,
}
#: A transient child that ends otherwise is restarted, and that is no end.
COUNTS = {TRANSIENT: {"normal", "shutdown", "shutdown, term"}, TEMPORARY: set(REASONS)}


def spec(actor_class: type[Pooled], id_: str, restart: Restart = TEMPORARY, **options: Any) -> ChildSpec:
    return ChildSpec(id_, Start(actor_class, name=id_), restart, significant=True, **options)


def ids(supervisor: Ref) -> list[object]:
    return [info.id for info in which_children(supervisor)]


@pytest.mark.parametrize(
    ("auto_shutdown", "restart", "reason"),
    list(itertools.product([ANY_SIGNIFICANT, ALL_SIGNIFICANT], [TRANSIENT, TEMPORARY], REASONS)),
    ids=lambda value: value if isinstance(value, str) else value.value,
)
def test_whose_end_counts(
    system: ActorSystem, server: type[Pooled], auto_shutdown: AutoShutdown, restart: Restart, reason: str
) -> None:
    other = ChildSpec("other", Start(server, name="other"), TEMPORARY)
    supervisor = system.start(Supervisor, [spec(server, "a", restart), other], auto_shutdown=auto_shutdown)
    bystander = system.whereis("other")
    assert bystander is not None
    end(whereis(system, "a"), REASONS[reason])
    if reason in COUNTS[restart]:
        assert exit_reason_of(supervisor) == SHUTDOWN
        assert exit_reason_of(bystander) == SHUTDOWN
    else:
        assert ids(supervisor) == ["a", "other"]
        assert bystander.is_alive()


# --- trees -----------------------------------------------------------------------------------------------------------


def test_a_significant_child_needs_a_supervisor_that_can_end(system: ActorSystem) -> None:
    for make in (
        lambda: supervisor_spec("s", ONE_FOR_ONE, [spec(Pooled, "a")]),
        lambda: supervisor_spec("s", SIMPLE_ONE_FOR_ONE, [spec(Pooled, "a")], auto_shutdown=NEVER),
        lambda: system.start(Supervisor, [spec(Pooled, "a")]),
        lambda: system.start(SimpleOneForOneSupervisor, spec(Pooled, "a")),
    ):
        with pytest.raises(Exception, match="'a': it can't be significant while .* auto_shutdown is NEVER; give"):
            make()
    assert system.processes() == []


def test_a_significant_child_cannot_be_added_to_such_a_supervisor(system: ActorSystem, server: type[Pooled]) -> None:
    supervisor = system.start(Supervisor, [ChildSpec("a", Start(server))])
    answer = start_child(supervisor, spec(server, "b"))
    assert isinstance(answer, NotStarted)
    assert "it can't be significant while" in str(answer.reason)
    assert ids(supervisor) == ["a"]


@pytest.mark.parametrize("auto_shutdown", [ANY_SIGNIFICANT, ALL_SIGNIFICANT], ids=lambda value: value.value)
def test_simple_one_for_one_has_no_significant_children(system: ActorSystem, auto_shutdown: AutoShutdown) -> None:
    """Refused by OTP 27 as a bad combination, whether the child is significant or not."""
    child = ChildSpec("a", Start(Pooled), TEMPORARY)
    for make in (
        lambda: supervisor_spec("s", SIMPLE_ONE_FOR_ONE, [child], auto_shutdown=auto_shutdown),
        lambda: system.start(SimpleOneForOneSupervisor, child, auto_shutdown=auto_shutdown),
    ):
        with pytest.raises(Exception, match=f"can't have auto_shutdown {auto_shutdown.name}: its children come and go"):
            make()


def test_check_child_specs_knows_of_auto_shutdown() -> None:
    specs = [spec(Pooled, "a")]
    check_child_specs(specs)
    check_child_specs(specs, ANY_SIGNIFICANT)
    check_child_specs(specs, ALL_SIGNIFICANT)
    with pytest.raises(ValueError, match="can't be significant"):
        check_child_specs(specs, NEVER)
    with pytest.raises(ValueError, match="auto_shutdown must be an AutoShutdown, not 'never'"):
        check_child_specs(specs, "never")  # type: ignore[arg-type]


def test_one_that_waits_to_be_started_again_keeps_its_supervisor(system: ActorSystem, clock: WatchedClock) -> None:
    specs = [
        spec(Pooled, "first", TRANSIENT),
        ChildSpec("delayed", Start(Pooled), backoff=Backoff(first_seconds=1)),
        spec(Pooled, "last", TRANSIENT),
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
