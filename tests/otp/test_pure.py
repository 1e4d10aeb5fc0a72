"""The pure parts: restart window, strategies, exit reasons, and specs that are refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.otp import (
    ANY_SIGNIFICANT,
    INFINITY,
    NEVER,
    ONE_FOR_ONE,
    PERMANENT,
    SIMPLE_ONE_FOR_ONE,
    SUPERVISOR,
    TEMPORARY,
    WORKER,
    ActorSystem,
    Backoff,
    ChildSpec,
    RestartWindow,
    SimpleOneForOneSupervisor,
    Start,
    Supervisor,
    check_child_specs,
    start_child,
    supervisor_spec,
)
from tests.otp.support import Pooled

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
