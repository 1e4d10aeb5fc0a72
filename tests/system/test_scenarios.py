"""A whole scenario through the whole program, on each backend: all that the contract says about what comes out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Asked, DeadLettered, Kind, Receipts, Scenario, make_scenario
from receipt_actors.telemetry.statistics import StatisticsSnapshot

from .worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, AwsWorld, Outcome, World, genuine_messages

pytestmark = pytest.mark.short("embedded")

SCENARIO = make_scenario(140, 11, BUNDLE_ID, RESULTS)


def test_everything_that_the_contract_says_about_what_comes_out(
    world: World, tmp_path: Path, store: SimulatedAppStore
) -> None:
    file = tmp_path / "statistics.json"
    program = world.start(store, exit_when_idle_seconds=2, statistics_file=str(file))
    world.send(SCENARIO.messages)
    assert program.wait_for_end() == 0
    outcome = world.outcome()
    assert outcome.faults(SCENARIO) == ()

    # Every message is answered or moved, told apart by the message id that SQS gave.
    answered = {letter.attributes["source_message_id"] for letter in outcome.answers}
    moved = {letter.attributes["source_message_id"] for letter in outcome.dead_letters}
    assert world.total(SOURCE) == 0
    assert len(answered) + len(moved) == len(SCENARIO.messages)
    assert not answered & moved

    # The ledger holds one item for each OK, and no other.
    assert Counter(world.claimed_transaction_ids()) == Counter(outcome.transaction_ids("OK"))

    # An answer has exactly three fields, on which other systems depend. It names its submission (the id is the
    # producer's own, else the message's) and its reason.
    of_user = {message.user_id: message for message in SCENARIO.messages}
    types = {"user_id": int, "transaction_id": str, "status": str}
    for letter in outcome.answers:
        assert {name: type(value) for name, value in letter.fields.items()} == types
        assert letter.fields["status"] in ("OK", "INVALID")
        given = of_user[letter.fields["user_id"]].attributes.get("submission_id")
        assert letter.attributes["submission_id"] == (given or letter.attributes["source_message_id"])
        assert letter.attributes["reason"]

    # A dead letter is the message itself with its submission id: it can be sent again as it is.
    of_body = {message.body: message for message in SCENARIO.messages}
    for letter in outcome.dead_letters:
        given = of_body[letter.body].attributes.get("submission_id", "")
        usable = given if 0 < len(given) <= 256 else ""
        assert letter.attributes["submission_id"] == (usable or letter.attributes["source_message_id"])
        assert letter.attributes["reason"]

    # The statistics file tells the run; more where a message was delivered twice.
    statistics = StatisticsSnapshot.from_json(json.loads(file.read_text()))
    results = Counter[str]()
    for (verdict, _reason), count in statistics.results.items():
        results[verdict] += count
    assert results == Counter(letter.fields["status"] for letter in outcome.answers)
    assert statistics.count("moved") == len(outcome.dead_letters)
    finished = statistics.count("answered") + statistics.count("moved")
    assert statistics.latencies.count == finished >= len(SCENARIO.messages)
    assert {"verifying", "claiming", "replying", "moving", "deleting"} == statistics.steps.keys()
    assert statistics.calls[f"receive from {SOURCE}"].entries == statistics.received
    assert statistics.calls[f"delete from {SOURCE}"].entries == finished

    # Bad messages are everyday life, not errors; and a log is no place for what players bought.
    output = program.stdout + program.stderr
    assert "Traceback" not in output
    assert "CRITICAL" not in output
    receipts = [json.loads(message.body)["receipt"] for message in SCENARIO.messages if message.kind != Kind.GARBAGE]
    assert not [receipt for receipt in receipts if receipt[-40:] in output]


@pytest.mark.parametrize("asked", Asked)
def test_signed_transactions_and_app_receipts_come_out_as_they_should(
    world: World, tmp_path: Path, asked: Asked, store: SimulatedAppStore
) -> None:
    scenario = make_scenario(100, 12, BUNDLE_ID, RESULTS, receipts=Receipts.MIXED, asked=asked)
    for receipt in scenario.sold:
        store.record(receipt)
    files = store.write_files(tmp_path / "apple")
    world.send(scenario.messages)
    program = world.start(
        store,
        exit_when_idle_seconds=1,
        app_receipts=asked.value,
        apple_roots=files.roots,
        server_api_key=files.key,
        server_api_key_id=files.key_id,
        server_api_issuer_id=files.issuer_id,
    )
    assert program.wait_for_end() == 0
    assert world.outcome().faults(scenario) == ()
    assert world.total(SOURCE) == 0
    seen = store.statistics()
    is_asked = {Asked.VERIFY_RECEIPT: seen.requests, Asked.SERVER_API: seen.api_requests}
    assert is_asked.pop(asked)
    assert not any(is_asked.values())


def test_without_a_dead_letter_queue_what_cannot_be_answered_stays(account: AwsWorld, store: SimulatedAppStore) -> None:
    account.create_queues(redrive=False)
    account.create_table()
    scenario = _without_retries(make_scenario(100, 12, BUNDLE_ID, RESULTS))
    stays = [message for message in scenario.messages if isinstance(message.expected, DeadLettered)]
    answered = Scenario(tuple(message for message in scenario.messages if message not in stays))
    account.send(scenario.messages)
    program = account.start(store, exit_when_idle_seconds=1)
    program.wait_for_log("dead_letter_queue is not set")
    assert program.wait_for_end() == 0
    assert Outcome(account.take(RESULTS), ()).faults(answered) == ()
    assert account.total(SOURCE) == len(stays)
    assert "WARNING" in next(line for line in program.stderr.splitlines() if "dead_letter_queue is not set" in line)


def test_a_dead_letter_queue_can_be_named_where_there_is_no_redrive_policy(
    account: AwsWorld, store: SimulatedAppStore
) -> None:
    account.create_queues(redrive=False)
    account.create_table()
    garbage = [message for message in SCENARIO.messages if message.kind == Kind.GARBAGE]
    account.send(garbage)
    program = account.finish(store, dead_letter_queue=DEAD_LETTERS)
    assert account.total(SOURCE) == 0
    assert Outcome((), account.take(DEAD_LETTERS)).faults(Scenario(tuple(garbage))) == ()
    assert "dead_letter_queue is not set" not in program.stderr


def test_a_post_queue_that_does_not_exist_stops_nobody_else(aws: AwsWorld, store: SimulatedAppStore) -> None:
    good, bad = genuine_messages(10, 14), genuine_messages(10, 15, "NobodyMadeThis")
    aws.send([*good, *bad])
    aws.finish(store, post_queues=f"{RESULTS},NobodyMadeThis")
    assert {letter.fields["user_id"] for letter in aws.take(RESULTS)} == {message.user_id for message in good}
    dead_letters = aws.take(DEAD_LETTERS)
    assert {letter.body for letter in dead_letters} == {message.body for message in bad}
    assert {letter.attributes["reason"] for letter in dead_letters} == {"post_queue_refused"}
    assert aws.total(SOURCE) == 0


def test_answers_of_aws_that_get_lost_change_no_verdict(aws: AwsWorld, store: SimulatedAppStore) -> None:
    scenario = _without_retries(make_scenario(50, 13, BUNDLE_ID, RESULTS))
    aws.send(scenario.messages)
    aws.server.lossy = frozenset({"PutItem", "SendMessageBatch", "DeleteMessageBatch"})
    aws.finish(store)
    outcome = aws.outcome()
    assert outcome.faults(scenario) == ()
    assert aws.total(SOURCE) == 0
    assert Counter(aws.claimed_transaction_ids()) == Counter(outcome.transaction_ids("OK"))


def _without_retries(scenario: Scenario) -> Scenario:
    """Leave out what the App Store is asked for again and again, which takes its time."""
    slow = (Kind.MALFORMED, Kind.TEMPORARY_FAILURE)
    return Scenario(tuple(message for message in scenario.messages if message.kind not in slow))
