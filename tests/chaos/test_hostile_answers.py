"""Hostile answers: of an App Store that is none, and of a table that somebody else writes to as well."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from receipt_actors.aws import AwsLedger
from receipt_actors.domain.ledger import OursElsewhere, Ownership, ownership_after_claim, ownership_after_lookup
from receipt_actors.domain.messages import Submission
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import TAKEN, EntryFailure, Environment, LedgerItem, OutgoingMessage
from receipt_actors.domain.receipts import Genuine, Unidentified
from receipt_actors.domain.verdicts import Plan, make_plan
from receipt_actors.errors import AppStoreUnavailable, BatchesRefused, LedgerUnavailable
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, response
from receipt_actors.sandbox.load import Answered, SampleMessage
from receipt_actors.sqlite import EmbeddedQueues
from receipt_actors.stores.apple.client.endpoints import endpoints_at
from receipt_actors.stores.apple.client.verify_receipt_client import VerifyReceiptClient
from receipt_actors.stores.apple.verify_receipt import interpret
from receipt_actors.transport.blocking import BlockingTransport
from receipt_actors.transport.curl import CurlTransport
from tests.backends.test_aws import FakeAws, error
from tests.backends.test_aws import Reply as AwsReply
from tests.system.conftest import empty_account
from tests.system.processes import Programs
from tests.system.worlds import (
    DEAD_LETTERS,
    REGION,
    RESULTS,
    SOURCE,
    TABLE,
    AwsServer,
    EmbeddedWorld,
    genuine_messages,
)
from tests.transport.places import running

from .hostile_answers import BUNDLE_ID, HostileAnswer, Outcome, hostile_answers

SEED = 77
POLICY = Policy(frozenset({BUNDLE_ID}))
FOREVER_SECONDS = 3600.0
HASTY_SECONDS = 0.5  #: for an answer; whoever is not hasty waits for as long as a busy machine takes
PATIENT_SECONDS = 60.0
Figure = Callable[[str], None]


class HostileAppStore(HttpServer):
    """Answers the receipt that is a number with the answer of that number."""

    def __init__(self, answers: list[HostileAnswer], slow_every: int = 0) -> None:
        super().__init__(self._answer)
        self._answers = answers
        self._slow_every = slow_every

    def _answer(self, request: Request) -> Reply:
        number = int(json.loads(request.body)["receipt-data"])
        is_slow = self._slow_every and number % self._slow_every == 0
        data = response(200, self._answers[number].body, "application/json")
        return Reply(data, FOREVER_SECONDS if is_slow else 0.0)


def submission(number: int) -> Submission:
    return Submission(f"s-{number}", f"m-{number}", number, str(number), "hash", RESULTS, None, None, 1_760_000_000.0)


def outcome_of(client: VerifyReceiptClient, number: int) -> tuple[Outcome, frozenset[str]]:
    """What the answer leads to, as far as ledger and actors are told, and which transactions it names."""
    try:
        meaning = interpret(client.verify_receipt(str(number), Environment.PRODUCTION), Environment.PRODUCTION)
    except AppStoreUnavailable:
        return Outcome.NOTHING, frozenset()
    if isinstance(meaning, Unidentified):
        return Outcome.REFUSED, frozenset()
    plan = make_plan(submission(number), meaning, POLICY) if isinstance(meaning, Genuine) else None
    if not isinstance(plan, Plan):
        return Outcome.NOTHING, frozenset()
    is_refused = any(candidate.refusal for candidate in plan.candidates)
    return Outcome.INVALID if is_refused else Outcome.OK, frozenset(each.transaction_id for each in plan.candidates)


@pytest.mark.short
def test_no_answer_is_read_as_more_than_it_says(is_full: bool, figure: Figure) -> None:
    """Through the real client: garbage of every shape is no verdict, neither OK nor INVALID; what is clear is read.

    Bodies of 10 MB are read, larger ones and slow ones are given up.
    """
    count, large = (20_000, 12) if is_full else (400, 2)
    answers = list(hostile_answers(count, SEED, large=large))
    slow_every = count // 3
    found: Counter[Outcome] = Counter()
    with HostileAppStore(answers, slow_every) as store:
        urls = (f"{store.url}/production", f"{store.url}/sandbox")
        patient = endpoints_at(*urls, PATIENT_SECONDS, PATIENT_SECONDS)
        hasty = endpoints_at(*urls, PATIENT_SECONDS, HASTY_SECONDS)
        with running(CurlTransport(4)) as curl, closing(BlockingTransport(4)) as blocking:
            for number, answer in enumerate(answers):
                is_slow = number % slow_every == 0
                transport = curl if number % 2 else blocking
                client = VerifyReceiptClient(transport, hasty if is_slow else patient, "secret")
                outcome, transaction_ids = outcome_of(client, number)
                allowed = {Outcome.NOTHING} if is_slow else answer.allowed
                assert outcome in allowed, (answer.family, outcome, answer.body[:400])
                assert all(each.encode() in answer.body for each in transaction_ids), answer.body[:400]
                found[outcome] += 1
    told = ", ".join(f"{found[each]} {each.value}" for each in Outcome)
    figure(f"{count} answers through the client: {told}")


@pytest.mark.short
def test_the_whole_program_survives_a_hostile_app_store(
    programs: Programs, tmp_path: Path, is_full: bool, figure: Figure
) -> None:
    """OK for what is clear, and nobody else is answered: moved, or still to come. No crash."""
    count = 5000 if is_full else 160
    answers = list(hostile_answers(count, SEED + 1, only_readable=True))
    answers += hostile_answers(count // 20, SEED + 2)
    random.Random(SEED).shuffle(answers)
    world = EmbeddedWorld(programs, tmp_path)
    with closing(world), HostileAppStore(answers) as store, closing(EmbeddedQueues(world.database)) as queues:
        for number in range(len(answers)):
            body = json.dumps({"receipt": str(number), "user_id": number, "post_queue": RESULTS})
            assert queues.send(SOURCE, [OutgoingMessage(body)]) == [None]
        settings = {
            "bundle_ids": BUNDLE_ID,
            "app_store_url": store.url,
            "app_store_read_timeout_seconds": str(PATIENT_SECONDS),
            "receive_wait_seconds": "1",
            "exit_when_idle_seconds": "2",
        }
        program = world.run(settings)
        assert program.wait_for_end() == 0
        given = {letter.fields["user_id"]: letter.fields for letter in world.take(RESULTS)}
        moved = {letter.fields["user_id"] for letter in world.take(DEAD_LETTERS)}
        left = world.total(SOURCE)
    assert "Traceback" not in program.stderr
    assert "crash" not in program.stderr
    for number, answer in enumerate(answers):
        if answer.allowed == {Outcome.OK}:
            assert given[number]["status"] == "OK"
            assert given[number]["transaction_id"] == answer.transaction_id
        elif len(answer.allowed) == 1:
            assert number not in given, (answer.family, given[number], answer.body[:400])
    assert len(given) + len(moved) + left == len(answers)
    figure(f"{len(answers)} answers through the program: {len(given)} answered, {len(moved)} moved, {left} to come")


# --- the ledger ---


def test_what_another_program_left_in_the_table_crashes_nobody(
    programs: Programs, is_full: bool, figure: Figure
) -> None:
    """Through the whole program: an item that DynamoDB holds, whatever its attributes, is another's claim."""
    messages = genuine_messages(200 if is_full else 15, SEED)
    server = AwsServer()
    try:
        with empty_account(programs, server) as aws, SimulatedAppStore() as store:
            aws.create_queues()
            aws.create_table()
            items = [item for item, _ in hostile_items(20 * len(messages), SEED) if isinstance(item, dict)]
            planted = plant(server.url, messages, items)
            aws.send(messages)
            program = aws.start(store, exit_when_idle_seconds=1)
            assert program.wait_for_end() == 0
            statuses = {letter.fields["user_id"]: letter.fields["status"] for letter in aws.take(RESULTS)}
    finally:
        server.close()
    assert "Traceback" not in program.stderr
    assert planted
    assert statuses == {message.user_id: "INVALID" if message in planted else "OK" for message in messages}
    figure(f"{len(planted)} claims of another program among {len(messages)}")


def plant(url: str, messages: list[SampleMessage], items: list[dict[str, Any]]) -> list[SampleMessage]:
    """Put items that DynamoDB takes under the transactions of two messages of three; return these messages."""
    session = boto3.Session("testing", "testing", region_name=REGION)
    planted = [message for message in messages if message.user_id % 3]
    once = Config(retries={"total_max_attempts": 1})  # of what moto crashes at there is enough
    with closing(session.client("dynamodb", endpoint_url=url, config=once)) as dynamodb:
        for message in planted:
            assert isinstance(message.expected, Answered)
            (transaction_id,) = message.expected.transaction_ids
            while True:
                item = {**items.pop(), "TransactionId": {"S": transaction_id}}
                try:
                    dynamodb.put_item(TableName=TABLE, Item=item)
                except (ClientError, ParamValidationError):
                    continue  # not even DynamoDB would hold that
                break
    return planted


WANTED = LedgerItem(
    *("1000", "s-1", "m-1", 42, "0a" * 32, "coins", "1000", Environment.PRODUCTION, SOURCE, RESULTS),
    claimed_at_seconds=1_760_000_000.0,
)
OURS: Mapping[str, Any] = {
    "TransactionId": {"S": "1000"},
    "SubmissionId": {"S": "s-1"},
    "UserId": {"N": "42"},
    "ReceiptSha256": {"S": "0a" * 32},
    "MessageId": {"S": "m-1"},
    "SourceQueue": {"S": SOURCE},
    "PostQueue": {"S": RESULTS},
    "Environment": {"S": "Production"},
    "ClaimedAt": {"N": "1760000000"},
    "RefundedAt": {"N": "1760000001"},
    "RevocationPercentage": {"N": "33333"},
    "Quantity": {"N": "3"},
    "SchemaVersion": {"N": "1"},
}
#: What makes a submission the same: one of these wrong, and the item is not ours.
IDENTITY = ("SubmissionId", "UserId", "ReceiptSha256")


def hostile_attribute(rng: random.Random, name: str) -> object:
    """A value that is not what our program writes there."""
    good = next(iter(OURS[name].values()))
    numbers = (
        "NaN",
        "sNaN",
        "Infinity",
        "-Infinity",
        "1E+999999",
        "1E-999999",
        "",
        "x",
        "4 2",
        "42.5",
        "9" * 400,
        "٤٢٫٥",
    )
    values: list[object] = [
        *({"S": text} for text in ("", "x" * 5000, f"{good} ", "\x00", "\ud800")),
        *({"N": number} for number in numbers),
        *({"SS": [good]}, {"NS": ["42"]}, {"L": [{"S": good}]}, {"M": {"S": {"S": good}}}, {"B": "AAAA"}),
        *({"BOOL": True}, {"NULL": True}, {}, {"X": good}, {"S": None}, {"N": None}),
        *({"S": 42}, {"N": 43}, {"S": [good]}, {"N": [good]}, {"N": True}, {"S": {"S": good}}),
        *(good, 42, None, [], [good], True),
    ]
    return rng.choice(values)


def hostile_items(count: int, seed: int) -> Iterator[tuple[object, bool]]:
    """Items of the table, and whether each is ours beyond doubt."""
    rng = random.Random(seed)
    for number in range(count):
        item = dict(OURS)
        names = rng.sample(list(OURS), rng.choice((1, 1, 2, 5, len(OURS))))
        for name in names:
            if rng.random() < 0.3:
                del item[name]
            else:
                item[name] = hostile_attribute(rng, name)
        if number % 50 == 49:
            yield rng.choice(([], "x", 5, True, [item], {"Item": item})), False
        else:
            yield item, not set(names) & set(IDENTITY)


@pytest.fixture
def fake() -> Iterator[FakeAws]:
    server = FakeAws()
    yield server
    server.stop()


@pytest.fixture
def ledger(fake: FakeAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsLedger]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)  # read when a client is built
    with closing(AwsLedger("claims", boto3.Session("testing", "testing", region_name="eu-west-1"))) as ledger:
        yield ledger


def test_no_item_of_the_table_is_taken_for_ours_unless_it_is(
    fake: FakeAws, ledger: AwsLedger, is_full: bool, figure: Figure
) -> None:
    """Attributes that are missing or of a wrong type: the item is somebody else's, or the ledger is unavailable.

    Never a crash of whoever asked; and never an invitation to claim what is claimed.
    """
    count = 5000 if is_full else 300
    found: Counter[str] = Counter()
    questions = (
        lambda: ownership_after_claim(ledger.claim(WANTED), WANTED),
        lambda: ownership_after_lookup(ledger.get("1000"), WANTED),
    )
    for item, is_ours in hostile_items(count, SEED):
        fake.answer("PutItem", error("ConditionalCheckFailedException", Item=item))
        fake.answer("GetItem", AwsReply({"Item": item}))
        for ask in questions:
            try:
                ownership = ask()
            except LedgerUnavailable:
                found["unavailable"] += 1
                continue
            assert ownership not in (Ownership.NEW, Ownership.FREE), item
            assert is_ours or ownership in (Ownership.SAME_USER, Ownership.OTHER_USER, Ownership.REFUNDED), item
            found["ours elsewhere" if isinstance(ownership, OursElsewhere) else ownership.value] += 1
    assert found[Ownership.OURS.value]
    told = ", ".join(f"{number} {name}" for name, number in found.most_common())
    figure(f"{count} items, each as the answer to a claim and to a look-up: {told}")


def test_no_item_that_is_answered_to_a_refund_is_a_crash(
    fake: FakeAws, ledger: AwsLedger, is_full: bool, figure: Figure
) -> None:
    """Nor to its reversal: what cannot be read is unavailable; and only what has nothing but a mark is deleted."""
    count = 3000 if is_full else 300
    found: Counter[str] = Counter()
    for item, _ in hostile_items(count, SEED + 2):
        fake.answer("UpdateItem", AwsReply({"Attributes": item}))
        found[f"mark: {told_of(lambda: ledger.mark_refunded('1000', 1.0))}"] += 1
        found[f"reversal: {told_of(lambda: ledger.unmark_refunded('1000', 2.0))}"] += 1
        fake.answer("UpdateItem", error("ConditionalCheckFailedException", Item=item))
        fake.answer("DeleteItem", error("ConditionalCheckFailedException", Item=item))
        found[f"marked before: {told_of(lambda: ledger.mark_refunded('1000', 1.0))}"] += 1
        found[f"conflict: {told_of(lambda: ledger.unmark_refunded('1000', 2.0))}"] += 1
    assert found["mark: LedgerItem"]
    told = ", ".join(f"{number} {name}" for name, number in found.most_common())
    figure(f"{count} items, each as the answer to a refund and to a reversal: {told}")


def told_of(ask: Callable[[], object]) -> str:
    try:
        return type(ask()).__name__
    except LedgerUnavailable:
        return "unavailable"


def hostile_entry(rng: random.Random) -> tuple[object, bool]:
    """What might be answered for one claim of a batch, and whether it says that it was put."""
    if rng.random() < 0.3:
        return {"TableName": "claims"}, True
    code = rng.choice(("DuplicateItem", "ThrottlingError", "ValidationError", "AccessDenied", "?", "", 7, None, {}))
    entries = (
        {"Error": {"Code": code, "Message": "x"}, "TableName": "claims"},
        {"Error": {"Code": code}},
        {"Error": {}, "TableName": "claims"},
        {"Error": rng.choice(("x", [], 5, True)), "TableName": "claims"},
        {"TableName": rng.choice(("another", "", 7, ["claims"], {"S": "claims"}))},
        {"Item": OURS},
        {"tablename": "claims"},
        {},
        None,
        [],
        "claims",
    )
    return rng.choice(entries), False


def test_no_claim_of_a_batch_is_made_unless_its_own_entry_says_so(
    fake: FakeAws, ledger: AwsLedger, is_full: bool, figure: Figure
) -> None:
    """Entries of any sort, too few and too many of them: nobody gets OK for a claim that was not made."""
    count = 5000 if is_full else 300
    rng = random.Random(SEED)
    found: Counter[str] = Counter()
    for _ in range(count):
        wanted = [replace(WANTED, transaction_id=str(number)) for number in range(rng.randint(1, 4))]
        entries = [hostile_entry(rng) for _ in range(max(0, len(wanted) + rng.choice((0, 0, 0, 0, 0, 0, -1, 1))))]
        fake.answer("BatchExecuteStatement", AwsReply({"Responses": [entry for entry, _ in entries]}))
        try:
            outcomes = ledger.claim_all(wanted)
        except (LedgerUnavailable, BatchesRefused) as error:
            found[type(error).__name__] += 1
            continue
        assert [outcome is None for outcome in outcomes] == [was_put for _, was_put in entries]
        found["put"] += sum(outcome is None for outcome in outcomes)
        found["taken"] += sum(outcome is TAKEN for outcome in outcomes)
        found["failed"] += sum(isinstance(outcome, EntryFailure) for outcome in outcomes)
    assert found["put"] and found["taken"] and found["failed"]
    told = ", ".join(f"{number} {name}" for name, number in found.most_common())
    figure(f"{count} batches of claims: {told}")
