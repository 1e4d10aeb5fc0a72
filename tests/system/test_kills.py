"""kill -9 in the middle of the work: the next process goes on as if nothing had been."""

from __future__ import annotations

import signal
from collections import Counter
from functools import partial

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import make_scenario

from .worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, AwsWorld, EmbeddedWorld, World, genuine_messages

KILLS = 4
SHORTEST_VISIBILITY_TIMEOUT_SECONDS = 10


@pytest.mark.short
def test_kills_in_the_middle_of_the_work_change_no_verdict(embedded: EmbeddedWorld) -> None:
    """Killed again and again: each genuine purchase is OK for one submission and INVALID for none, nothing is lost."""
    scenario = make_scenario(200, 31, BUNDLE_ID, RESULTS)
    embedded.send(scenario.messages)
    with SimulatedAppStore(latency_seconds=0.02, jitter_seconds=0.1) as store:
        for kill in range(1, KILLS + 1):
            program = embedded.start(store, app_store_concurrency=20)
            enough = kill * len(scenario.messages) // (KILLS + 2)
            program.wait_until(partial(_has_messages, embedded, RESULTS, enough), f"{enough} answers are there")
            program.kill()
            assert embedded.total(SOURCE) > 0, "everything was done before the kill: this tells nothing"
            embedded.bring_back(SOURCE)
        assert embedded.start(store, exit_when_idle_seconds=1).wait_for_end() == 0
    outcome = embedded.outcome()
    assert outcome.faults(scenario) == ()
    assert embedded.total(SOURCE) == 0
    assert Counter(embedded.claimed_transaction_ids()) == Counter(outcome.transaction_ids("OK"))


def _has_messages(world: World, queue: str, count: int) -> bool:
    return world.total(queue) >= count


def test_a_kill_between_claim_and_answer_refuses_nobody(aws: AwsWorld) -> None:
    """All transactions are claimed, no answer is out, and the process dies: its successor recognises the claims."""
    genuine = genuine_messages(40, 32)
    aws.send(genuine)
    with SimulatedAppStore() as store:
        aws.server.refused = frozenset({"SendMessageBatch"})
        program = aws.start(store, visibility_timeout_seconds=SHORTEST_VISIBILITY_TIMEOUT_SECONDS)
        program.wait_until(lambda: len(aws.claimed_transaction_ids()) == len(genuine), "all are claimed")
        program.kill()
        assert aws.total(SOURCE) == len(genuine)
        assert aws.total(RESULTS) == aws.total(DEAD_LETTERS) == 0
        aws.server.refused = frozenset()
        successor = aws.start(store)
        successor.wait_until(lambda: aws.total(SOURCE) == 0, "all have come back and are done")
        successor.send_signal(signal.SIGTERM)
        assert successor.wait_for_end() == 0
    statuses = {(letter.fields["user_id"], letter.fields["status"]) for letter in aws.take(RESULTS)}
    assert statuses == {(message.user_id, "OK") for message in genuine}
    assert len(aws.claimed_transaction_ids()) == len(genuine)
