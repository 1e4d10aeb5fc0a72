"""The program as a task on ECS: the agent hears when it had better be left alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault
from tests.telemetry.ecs_agent import NO_ANSWER, EcsAgent

from .processes import ROOT, Program
from .worlds import RESULTS, EmbeddedWorld, genuine_messages

PROTECT = {"ProtectionEnabled": True, "ExpiresInMinutes": 5}
DROP = {"ProtectionEnabled": False}
#: A program that gives the agent more time than a test has.
WAITS_FOR_THE_AGENT = """
import sys
import urllib3
from receipt_actors.cli import main
from receipt_actors.telemetry import scale_in_protection
scale_in_protection._TIMEOUT = urllib3.Timeout(3600)
sys.exit(main())
"""
TOO_FEW_FOR_AN_OUTAGE = 2  #: messages that fail


@pytest.mark.parametrize("processes", [1, 2])
def test_a_task_that_keeps_messages_in_an_outage_is_protected_until_it_is_over(
    embedded: EmbeddedWorld, processes: int
) -> None:
    messages = genuine_messages(10, 61)
    embedded.send(messages)
    store = SimulatedAppStore(port=embedded.programs.reserve_port())
    with EcsAgent() as agent:
        embedded.environment["ECS_AGENT_URI"] = agent.agent_url
        program = embedded.start(store, processes=processes, receive_wait_seconds=0)
        assert agent.wait_for(1) == [PROTECT]
        program.wait_for_log("protected from scale-in: ")
        with store:
            program.wait_until(lambda: embedded.total(RESULTS) == len(messages), "all are answered")
            if processes == 1:
                agent.wait_for(2)
            program.stop()
        assert agent.wishes == [PROTECT, DROP][: len(agent.wishes)]


def test_an_agent_that_hangs_does_not_hold_up_the_end(embedded: EmbeddedWorld, tmp_path: Path) -> None:
    (tmp_path / "waits_for_the_agent.py").write_text(WAITS_FOR_THE_AGENT, encoding="utf-8")
    embedded.module = "waits_for_the_agent"
    embedded.environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    embedded.send(genuine_messages(TOO_FEW_FOR_AN_OUTAGE, 64))
    with EcsAgent(always=lambda _wish: NO_ANSWER) as agent, SimulatedAppStore() as store:
        embedded.environment["ECS_AGENT_URI"] = agent.agent_url
        program = _start_and_stop_while_apple_hangs(embedded, store)
        agent.wait_for(1)
        store.recover()
        assert program.wait_for_end() == 0
    assert embedded.total(RESULTS) == TOO_FEW_FOR_AN_OUTAGE


def _start_and_stop_while_apple_hangs(world: EmbeddedWorld, store: SimulatedAppStore) -> Program:
    store.outage(Fault.hang(600))
    program = world.start(store, receive_wait_seconds=0)
    program.wait_until(lambda: store.statistics().requests, "Apple is asked")
    program.send_signal(signal.SIGTERM)
    return program
