"""What App Review and TestFlight buy: refused by default, which is told, and put right without a loss."""

from __future__ import annotations

import json

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import DeadLettered, Kind, SampleMessage
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, mint

from .worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, World

REVIEWER = 4711
REFUSED, COUNTING = "purchases in Apple's Sandbox are refused", "purchases in Apple's Sandbox count"


def reviewers_purchase() -> SampleMessage:
    receipt = mint(SampleReceipt(BUNDLE_ID, (Purchase("2000000012345678"),), environment=Environment.SANDBOX))
    body = json.dumps({"receipt": receipt, "user_id": REVIEWER, "post_queue": RESULTS})
    return SampleMessage(Kind.SANDBOX, body, {}, REVIEWER, DeadLettered(Reason.SANDBOX_REFUSED))


def test_a_reviewers_purchase_is_refused_until_the_sandbox_counts(world: World, store: SimulatedAppStore) -> None:
    world.send([reviewers_purchase()])
    by_default = world.finish(store)
    assert [by_default.stderr.count(told) for told in (REFUSED, COUNTING)] == [1, 0]
    (letter,) = world.take(DEAD_LETTERS)
    assert letter.attributes["reason"] == "sandbox_refused"
    assert "App Review and TestFlight" in letter.attributes["detail"]
    assert world.total(RESULTS) == 0

    world.bring_back(DEAD_LETTERS)
    assert world.command("redrive", "--reason", "sandbox_refused").wait_for_end() == 0
    counting = world.finish(store, environments="Production,Sandbox", processes=2)
    assert [counting.stderr.count(told) for told in (REFUSED, COUNTING)] == [0, 1]
    (answer,) = world.take(RESULTS)
    assert (answer.fields["user_id"], answer.fields["status"]) == (REVIEWER, "OK")
    assert answer.attributes["environment"] == "Sandbox"
    assert answer.attributes["submission_id"] == letter.attributes["submission_id"]
    assert world.total(SOURCE) == world.total(DEAD_LETTERS) == 0
