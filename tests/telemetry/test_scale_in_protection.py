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
from receipt_actors.telemetry.overview import Overview, ProcessOverview, State
from receipt_actors.telemetry.scale_in_protection import (
    EXPIRES_IN_MINUTES,
    LONG_SECONDS,
    MAX_TOLD_CHARACTERS,
    ScaleInProtection,
    Timing,
    failure_in,
    reason_to_protect,
)
from tests.patience import PATIENCE_SECONDS
from tests.stand_in_system import StandInSystem

from .ecs_agent import EcsAgent, answer, error, failure

PROTECT = {"ProtectionEnabled": True, "ExpiresInMinutes": EXPIRES_IN_MINUTES}
TIMING = Timing()
QUICK = replace(TIMING, look_seconds=0.01, quiet_seconds=0.05, first_pause_seconds=0.02)
DROP = {"ProtectionEnabled": False}
QUIET = ProcessOverview("main", 1, 0.0, State.CONSUMING)
BUSY = replace(QUIET, in_flight=3, oldest_in_flight_seconds=0.4)
SLOW = replace(BUSY, oldest_in_flight_seconds=LONG_SECONDS)


def overview(*processes: ProcessOverview) -> Overview:
    return Overview(0.0, "1", processes[0].state, "Q", {}, processes)


class System(StandInSystem):
    def __init__(self, process: ProcessOverview) -> None:
        super().__init__(lambda _number: overview(self.process))
        self.process = process

    def overview(self, *, looks_at_queues: bool = True) -> Overview:
        assert not looks_at_queues, "a look at the queues costs calls to SQS"
        return super().overview()

    def wait_for_looks(self, count: int) -> None:
        for _ in range(count):
            assert self.looked.acquire(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("processes", "why"),
    [
        ([QUIET], None),
        ([replace(QUIET, state=State.DRAINING)], None),
        ([BUSY, BUSY], None),
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


class Scripted(ScaleInProtection):
    """Asks no agent; a test moves its clock, and says what the answers are."""

    def __init__(self) -> None:
        super().__init__("http://agent", TIMING, lambda: self.now)
        self.now = 0.0
        self.answers = True
        self.wishes: list[bool] = []

    def failure_of(self, wish: bool) -> str | None:
        self.wishes.append(wish)
        return None if self.answers else "down"

    def look_at(self, process: ProcessOverview, now: float) -> list[bool]:
        self.now, self.wishes = now, []
        assert self.look(overview(process))
        return self.wishes


def test_protection_is_renewed_long_before_it_expires_and_dropped_when_its_reason_is_over() -> None:
    assert 3 * TIMING.renew_seconds > EXPIRES_IN_MINUTES * 60 > 2 * TIMING.renew_seconds  # two renewals may be lost
    protection = Scripted()
    assert protection.look_at(BUSY, 0.0) == []
    assert protection.look_at(SLOW, 1.0) == [True]
    assert protection.look_at(SLOW, TIMING.renew_seconds) == []
    assert protection.look_at(SLOW, TIMING.renew_seconds + 1.0) == [True]
    over = TIMING.renew_seconds + 1.0 + TIMING.quiet_seconds
    assert protection.look_at(BUSY, over - 0.1) == []
    assert protection.look_at(BUSY, over) == [False]
    assert protection.look_at(BUSY, over + 1000.0) == []


def test_a_failure_is_followed_by_ever_longer_pauses() -> None:
    protection, now, pauses = Scripted(), 0.0, []
    protection.answers = False
    assert protection.look_at(SLOW, now) == [True]
    for _ in range(10):
        began = now
        while not protection.look_at(SLOW, now := now + 1.0):
            pass
        pauses.append(now - began)
    assert pauses[:3] == [TIMING.first_pause_seconds, 2 * TIMING.first_pause_seconds, 4 * TIMING.first_pause_seconds]
    assert pauses[-1] == TIMING.max_pause_seconds


def test_what_may_have_been_granted_unheard_is_dropped() -> None:
    protection = Scripted()
    protection.answers = False
    assert protection.look_at(SLOW, 0.0) == [True]
    assert protection.look_at(BUSY, TIMING.first_pause_seconds) == []
    assert protection.look_at(BUSY, TIMING.quiet_seconds) == [False]


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 200.0), st.booleans()), max_size=60))
def test_it_is_protected_while_there_is_a_reason_and_not_for_ever_after(steps: list[tuple[bool, float, bool]]) -> None:
    protection, now = Scripted(), 0.0
    protected_until = float("-inf")  # as the agent sees it
    is_wanted = bool(steps) and steps[-1][0]
    for wanted, seconds, protection.answers in [*steps, *[(is_wanted, TIMING.max_pause_seconds, True)] * 2]:
        now += seconds
        for wish in protection.look_at(SLOW if wanted else BUSY, now):
            assert wish is wanted
            if protection.answers:
                protected_until = now + EXPIRES_IN_MINUTES * 60 if wish else float("-inf")
    assert (protected_until > now) is is_wanted


def test_a_slow_message_protects_the_task_until_it_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    system = System(BUSY)
    with EcsAgent() as agent, ScaleInProtection(agent.agent_url, QUICK) as protection:
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
        (error("ThrottlingException", "Rate exceeded", 500), "ThrottlingException: Rate exceeded"),
        (answer(200, {"protection": {"ProtectionEnabled": False}}), "status 200"),
        (Reply(response(200, b"<html>" + b"[" * 100_000, "text/html")), "no JSON"),
        (Reply(b""), "ProtocolError"),
    ],
)
def test_an_agent_that_errs_is_told_of_once_and_asked_again(
    reply: Reply, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with EcsAgent([reply] * 3) as agent, ScaleInProtection(agent.agent_url, QUICK) as protection:
        protection.watch(System(SLOW))
        assert agent.wait_for(4) == [PROTECT] * 4
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert told in warnings[0]


def test_a_task_of_no_service_is_asked_about_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with EcsAgent(always=lambda _wish: failure("TASK_NOT_VALID")) as agent:
        protection = ScaleInProtection(agent.agent_url, QUICK)
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
    told = failure_in(200, text, wish)
    if told is None:
        assert json.loads(text)["protection"]["ProtectionEnabled"] is wish
    else:
        assert 0 < len(told) <= 10 * MAX_TOLD_CHARACTERS  # with what can't be seen as ten characters each
        assert told.isprintable()  # in one line of the log, and no terminal obeys it


def test_no_http_client_is_loaded_where_there_is_no_agent() -> None:
    program = (
        "import sys, receipt_actors.cli.start, receipt_actors.scale.processes.group\n"
        "sys.exit(', '.join({'requests', 'ssl', 'urllib3'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (1, "\n"), done.stderr
