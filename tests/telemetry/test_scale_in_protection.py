"""When a task asks ECS to be left alone, and what becomes of it where the agent does not play along."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receipt_actors.sandbox.http_server import Reply, response
from receipt_actors.telemetry.overview import Overview, ProcessOverview, State, Usage
from receipt_actors.telemetry.scale_in_protection import (
    EXPIRES_IN_MINUTES,
    LONG_SECONDS,
    MAX_TOLD_CHARACTERS,
    ProtectionPlan,
    ScaleInProtection,
    Timing,
    failure_in,
    reason_to_protect,
)
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from tests.patience import PATIENCE_SECONDS
from tests.stand_in_system import StandInSystem

from .ecs_agent import EcsAgent, answer, error, failure

PROTECT = {"ProtectionEnabled": True, "ExpiresInMinutes": EXPIRES_IN_MINUTES}
TIMING = Timing()
QUICK = replace(TIMING, look_seconds=0.01, quiet_seconds=0.05, first_pause_seconds=0.02)
DROP = {"ProtectionEnabled": False}
QUIET = ProcessOverview("main", 1, 0.0, State.CONSUMING, 0, 0, (), Usage(0, 0, 0, 0), (), None, StatisticsSnapshot())
BUSY = replace(QUIET, in_flight=3, oldest_in_flight_seconds=0.4)
SLOW = replace(BUSY, oldest_in_flight_seconds=LONG_SECONDS)


def overview(*processes: ProcessOverview) -> Overview:
    return Overview(0.0, "1", processes[0].state, "Q", {}, processes, StatisticsSnapshot())


class System(StandInSystem):
    """Its process looks as it is told."""

    def __init__(self, process: ProcessOverview) -> None:
        super().__init__(lambda _number: overview(self.process))
        self.process = process

    def overview(self, *, looks_at_queues: bool = True) -> Overview:
        assert not looks_at_queues, "a look at the queues costs calls to SQS"
        return super().overview()

    def wait_for_looks(self, count: int) -> None:
        for _ in range(count):
            assert self.looked.acquire(timeout=PATIENCE_SECONDS)


# --- when ---


@pytest.mark.parametrize(
    ("processes", "why"),
    [
        ([QUIET], None),
        ([replace(QUIET, state=State.WAITING, unavailable=("app_store",))], None),
        ([replace(QUIET, state=State.DRAINING)], None),
        ([BUSY], None),
        ([BUSY, BUSY], None),
        ([SLOW], "a message has been in flight for 5 s"),
        ([BUSY, QUIET, replace(SLOW, oldest_in_flight_seconds=71.6)], "a message has been in flight for 72 s"),
        ([replace(BUSY, state=State.DRAINING), BUSY], "it drains, with 6 messages in flight"),
        (
            [BUSY, replace(BUSY, state=State.WAITING, unavailable=("ledger", "app_store"))],
            "6 messages are kept until there is again: app_store, ledger",
        ),
        ([replace(SLOW, state=State.SILENT)], None),
        ([replace(SLOW, state=State.ENDED)], None),
    ],
)
def test_a_task_is_protected_while_its_end_would_waste_work(processes: Sequence[ProcessOverview], why: str) -> None:
    """Not for having messages in flight: under steady load it always has, and a service could never scale in.

    A process that hangs or has ended has nothing to be saved: its messages come back by themselves.
    """
    assert reason_to_protect(overview(*processes)) == why


# --- what to ask for ---


def carry_out(plan: ProtectionPlan, is_wanted: bool, now: float) -> bool | None:
    wish = plan.wish(is_wanted, now)
    if wish is not None:
        plan.asked(wish)
        plan.done(wish, now)
    return wish


def test_protection_is_renewed_long_before_it_expires_and_dropped_when_its_reason_is_over() -> None:
    """Two lost renewals leave it protected; and it is not dropped for a moment between two slow messages."""
    assert 3 * TIMING.renew_seconds > EXPIRES_IN_MINUTES * 60 > 2 * TIMING.renew_seconds
    plan = ProtectionPlan(TIMING)
    assert carry_out(plan, False, 0.0) is None
    assert carry_out(plan, True, 1.0) is True
    assert carry_out(plan, True, TIMING.renew_seconds) is None
    assert carry_out(plan, True, TIMING.renew_seconds + 1.0) is True
    over = TIMING.renew_seconds + 1.0 + TIMING.quiet_seconds
    assert carry_out(plan, False, over - 0.1) is None
    assert carry_out(plan, False, over) is False
    assert carry_out(plan, False, over + 1000.0) is None


def test_a_failure_is_followed_by_ever_longer_pauses() -> None:
    """An agent that is throttled is not asked every two seconds by every task."""
    plan, now, pauses = ProtectionPlan(TIMING), 0.0, []
    for _ in range(10):
        assert plan.wish(True, now) is True
        plan.asked(True)
        plan.failed(now)
        began = now
        while plan.wish(True, now) is None:
            now += 1.0
        pauses.append(now - began)
    assert pauses[:3] == [TIMING.first_pause_seconds, 2 * TIMING.first_pause_seconds, 4 * TIMING.first_pause_seconds]
    assert pauses[-1] == TIMING.max_pause_seconds


def test_what_may_have_been_granted_unheard_is_dropped() -> None:
    """The answer got lost, not the request."""
    plan = ProtectionPlan(TIMING)
    assert plan.wish(True, 0.0) is True
    plan.asked(True)
    plan.failed(0.0)
    assert plan.wish(False, TIMING.first_pause_seconds) is None
    assert plan.wish(False, TIMING.quiet_seconds) is False


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 200.0), st.booleans()), max_size=60))
def test_it_is_protected_while_there_is_a_reason_and_not_for_ever_after(steps: list[tuple[bool, float, bool]]) -> None:
    """Whatever comes and goes and fails: no call without need, and once the agent answers it is as it should be."""
    plan, now = ProtectionPlan(TIMING), 0.0
    protected_until = float("-inf")  # as the agent sees it
    for is_wanted, seconds, succeeds in steps:
        now += seconds
        wish = plan.wish(is_wanted, now)
        if wish is None:
            continue
        assert wish is is_wanted
        plan.asked(wish)
        if succeeds:
            plan.done(wish, now)
            protected_until = now + EXPIRES_IN_MINUTES * 60 if wish else float("-inf")
        else:
            plan.failed(now)
    is_wanted = bool(steps) and steps[-1][0]
    for _ in range(2):
        now += TIMING.max_pause_seconds
        if (wish := plan.wish(is_wanted, now)) is not None:
            plan.asked(wish)
            plan.done(wish, now)
            protected_until = now + EXPIRES_IN_MINUTES * 60 if wish else float("-inf")
    assert (protected_until > now) is is_wanted


# --- the agent ---


def test_a_slow_message_protects_the_task_until_it_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    """For a few minutes, and then no more."""
    caplog.set_level(logging.INFO)
    system = System(BUSY)
    with EcsAgent() as agent, ScaleInProtection(agent.url, QUICK) as protection:
        protection.watch(system)
        system.wait_for_looks(5)
        assert agent.wishes == []
        system.process = SLOW
        assert agent.wait_for(1) == [PROTECT]
        system.process = BUSY
        assert agent.wait_for(2) == [PROTECT, DROP]
        system.wait_for_looks(20)
        assert len(agent.wishes) == 2
    assert caplog.messages == [
        "protected from scale-in: a message has been in flight for 5 s",
        "protected from scale-in no more",
    ]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (error("AccessDeniedException", "not authorized to perform: ecs:UpdateTaskProtection"), "AccessDenied"),
        (error("ResourceNotFoundException", "Service not found"), "ResourceNotFoundException: Service not found"),
        (error("ThrottlingException", "Rate exceeded", 500), "ThrottlingException: Rate exceeded"),
        (failure("DEPLOYMENT_BLOCKED"), "DEPLOYMENT_BLOCKED"),
        (answer(200, {"protection": {"ProtectionEnabled": False}}), "status 200"),
        (answer(404, {}), "status 404"),
        (Reply(response(200, b"<html>" + b"[" * 100_000, "text/html")), "no JSON"),
        (Reply(b""), "ProtocolError"),
    ],
)
def test_an_agent_that_errs_is_told_of_once_and_asked_again(
    reply: Reply, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it says, the system goes on, and the task is protected as soon as it can be."""
    caplog.set_level(logging.INFO)
    with EcsAgent([reply] * 3) as agent, ScaleInProtection(agent.url, QUICK) as protection:
        protection.watch(System(SLOW))
        assert agent.wait_for(4) == [PROTECT] * 4
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert told in warnings[0]


def test_a_task_of_no_service_is_asked_about_once(caplog: pytest.LogCaptureFixture) -> None:
    """``ecs run-task`` starts such; nobody scales it in."""
    caplog.set_level(logging.INFO)
    with EcsAgent(always=lambda _wish: failure("TASK_NOT_VALID")) as agent:
        protection = ScaleInProtection(agent.url, QUICK)
        protection.watch(System(SLOW))
        agent.wait_for(1)
        assert protection._thread is not None
        protection._thread.join(PATIENCE_SECONDS)
        assert not protection._thread.is_alive()
        protection.close()
        assert agent.wishes == [PROTECT]
    assert "no service of ECS owns this task" in caplog.text


KEYS = st.sampled_from(["protection", "ProtectionEnabled", "failure", "Reason", "error", "Code"])
json_values = st.recursive(
    st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)
)


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/"])
def test_a_variable_with_something_else_in_it_is_told_and_left(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody looks at the system for that."""
    with ScaleInProtection(url, QUICK) as protection:
        protection.watch(System(SLOW))
        assert protection._thread is None
    assert caplog.messages == [
        f"ECS_AGENT_URI is '{url.rstrip('/')}', expected an http URL: no protection from scale-in"
    ]


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()), st.booleans())
@example(b'{"error": {"Code": ""}}', True)
@example(b'{"failure": {"Reason": null}}', True)
def test_whatever_the_agent_says_is_read(text: bytes, wish: bool) -> None:
    """As a success only where it says that it was done."""
    told = failure_in(200, text, wish)
    if told is None:
        assert json.loads(text)["protection"]["ProtectionEnabled"] is wish
    else:
        assert 0 < len(told) <= 10 * MAX_TOLD_CHARACTERS  # with what can't be seen as ten characters each
        assert told.isprintable()  # in one line of the log, and no terminal obeys it


def test_no_http_client_is_loaded_where_there_is_no_agent() -> None:
    """The parent of several processes talks to nobody: what that takes would cost it some 13 MB and 60 ms."""
    program = (
        "import sys, receipt_actors.cli.start, receipt_actors.scale.processes.group\n"
        "sys.exit(', '.join({'requests', 'ssl', 'urllib3'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (1, "\n"), done.stderr
