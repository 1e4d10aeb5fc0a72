"""Hostile answers: of an App Store that is none, and of a table that somebody else writes to as well."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any, TypeVar, cast

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from receipt_actors.aws import AwsLedger
from receipt_actors.domain.messages import Submission
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import TAKEN, EntryFailure, Environment, LedgerItem, OutgoingMessage
from receipt_actors.domain.receipts import Genuine, Unidentified
from receipt_actors.domain.verdicts import (
    OursElsewhere,
    Ownership,
    Plan,
    make_plan,
    ownership_after_claim,
    ownership_after_lookup,
)
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
from tests.system.worlds import DEAD_LETTERS, REGION, RESULTS, SOURCE, TABLE, AwsWorld, EmbeddedWorld, genuine_messages
from tests.transport.places import running

T = TypeVar("T")
BUNDLE_ID = "com.example.game"
_DEEPEST = 100_000


class Outcome(Enum):
    OK = "ok"  #: its one transaction is worth an OK
    REFUSED = "refused"  #: Apple's final refusal, by its status
    INVALID = "invalid"  #: a transaction is named, and policy refuses it
    NOTHING = "nothing"  #: no verdict: tried again, handed back, or moved as not understood


@dataclass(frozen=True, slots=True)
class HostileAnswer:
    family: str
    body: bytes = field(repr=False)
    transaction_id: str
    allowed: frozenset[Outcome]


_Made = tuple[str | bytes, *tuple[Outcome, ...]]
_ABSENT = object()
_STATUSES = (-1, 1, 200, 404, 20999, 21001, 21005, 21009, 21011, 21099, 21200, 10**9, 10**30, -(10**30), 2**31)
_IDS = ("", None, True, [], {}, 1.5, -5, 10**40, "x" * 257, "a\nb", "\x00", "\ud800", _ABSENT)
_DATES = ("", "x", "-1", -1, 1.5, True, [], {}, "9" * 17, 10**17, "\u0661", "1e9", "2030-99-01 00:00:00 Etc/GMT")
_NAMES = ("Xcode", "LocalTesting", "", "production", "PRODUCTION", 0, True, [], {}, ["Production"], "Production ")

#: Where something is wrong in an object with a status, and what could stand there instead of the good value.
_WRONG: Mapping[tuple[str, Sequence[str]], Callable[[Any], Sequence[object]]] = {
    ("answer", ("status",)): lambda _good: _STATUSES,
    ("answer", ("environment",)): lambda _good: _NAMES,
    ("answer", ("latest_receipt_info",)): lambda _good: [
        "x",
        5,
        True,
        [None],
        [[]],
        {},
        [{}],
        [{"transaction_id": ""}],
    ],
    ("answer", ("receipt",)): lambda good: [
        *(None, [], [good], json.dumps(good), 0, True, {}, {"receipt": good}, {"in_app": None}, _ABSENT, _ABSENT)
    ],
    ("receipt", ("in_app",)): lambda good: [
        *(None, {}, good[0], {"0": good[0]}, "x", 5, True, [None], [good], [*good, 5], [json.dumps(good[0])], []),
        *(_crowd(good[0]) * times for times in (1, 20)),
    ],
    ("receipt", ("bundle_id",)): lambda good: [5, True, [], {}, "", "x" * 257, "a\x00", [good]],
    ("receipt", ("bid",)): lambda _good: ["com.example.other"],
    ("entry", ("transaction_id",)): lambda good: [*_IDS, [good]],
    ("entry", ("purchase_date_ms", "expires_date_ms", "expires_date", "quantity")): lambda _good: _DATES,
    ("entry", ("cancellation_date", "cancellation_date_ms")): lambda _good: [
        *("", False, True, [], {}, 1.5, "x" * 257, "\x00", "\ud800")
    ],
}


def _crowd(entry: Mapping[str, Any]) -> list[object]:
    return [{**entry, "transaction_id": f"{entry['transaction_id']}.{number}"} for number in range(101)]


def hostile_answers(count: int, seed: int, *, large: int = 0, only_readable: bool = False) -> Iterator[HostileAnswer]:
    """Make ``count`` answers, each for a transaction of its own; ``large`` of them have 10 MB and more.

    ``only_readable`` leaves out what can't even be told from a web page, of which a few in a row are an outage.
    """
    rng = random.Random(seed)
    for number in range(count):
        maker = _Maker(rng, str(70_000_000_000_000 + seed * 1_000_000 + number))
        families = {**maker.readable(), **({} if only_readable else maker.unreadable())}
        name = "large" if number < large else list(families)[number % len(families)]
        body, *allowed = maker.large() if number < large else families[name]()
        data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        yield HostileAnswer(name, data, maker.transaction_id, frozenset(allowed))


class _Maker:
    def __init__(self, rng: random.Random, transaction_id: str) -> None:
        self._random = rng
        self.transaction_id = transaction_id

    def readable(self) -> dict[str, Callable[[], _Made]]:
        wrong = {f"{of} {names[0]}": partial(self.wrong, of, names) for of, names in _WRONG}
        return {"odd but clear": self.odd_but_clear, "refusal": self.refusal, **wrong}

    def unreadable(self) -> dict[str, Callable[[], _Made]]:
        makers = (self.no_json, self.no_status, self.twice, self.constant, self.deep, self.digits, self.mutated)
        return {make.__name__: make for make in makers}

    def odd_but_clear(self) -> _Made:
        noise = self._one(
            *("x" * 10_000, [[]] * 100, {"status": 21003}, _nested(100), 10**40, 1e300, "\ud800\x00", None, "21004")
        )
        answer = self._answer()
        entry = answer["receipt"]["in_app"][0]
        entry[self._one("x", "status", "receipt", "\x00", "__proto__")] = noise
        if self._random.random() < 0.5:
            entry["transaction_id"] = int(self.transaction_id)
        answer[self._one("x", "Status", "reciept", "latest_receipt")] = noise
        text = json.dumps(answer, ensure_ascii=True, indent=self._one(None, 7))
        return self._one(text, "\n \t" + text + " \r\n", text.replace('"status"', '"\\u0073tatus"')), Outcome.OK

    def large(self) -> _Made:
        size = 10_000_000
        texts = ["x" * size, [0] * (size // 3), ["\ud800"] * (size // 10)]
        answer = self._answer() | {"latest_receipt": self._one(*texts)}
        if self._random.random() < 0.3:
            return json.dumps(answer) + " " * 17_000_000, Outcome.NOTHING
        return json.dumps(answer), Outcome.OK

    def refusal(self) -> _Made:
        return json.dumps(self._answer() | {"status": self._one(21003, 21010, 21150)}), Outcome.REFUSED

    def wrong(self, of: str, names: Sequence[str]) -> _Made:
        answer = self._answer()
        receipt = answer["receipt"]
        fields = {"answer": answer, "receipt": receipt, "entry": receipt["in_app"][0]}[of]
        if "transaction_id" in names and self._random.random() < 0.3:
            receipt["in_app"].insert(0, dict(fields))  # a good one beside it
        name = self._one(*names)
        wrong = self._one(*_WRONG[of, names](fields.get(name)))
        if wrong is _ABSENT:
            del fields[name]
        else:
            fields[name] = wrong
        return json.dumps(answer), Outcome.NOTHING

    # --- nothing that could be read ---

    def no_json(self) -> _Made:
        text = json.dumps(self._answer())
        noise = self._random.randbytes(self._one(1, 100, 50_000))
        return self._one(
            *("", " ", "null", "<html>We'll be back soon</html>", "OK", '"status"', "0"),
            *(text[: self._random.randrange(len(text))], text + text, text + "}", f"[{text}]", json.dumps(text)),
            *(text.replace('"', "'"), f"callback({text})", text.encode() + b"\xff", b"\x00" + text.encode(), noise),
        ), Outcome.NOTHING

    def no_status(self) -> _Made:
        answer = self._answer()
        wrong = self._one("0", 0.0, False, None, [], [0], {}, {"status": 0}, "", "valid")
        del answer["status"]
        if self._random.random() < 0.8:
            answer["status"] = wrong
        return json.dumps(answer), Outcome.NOTHING

    def twice(self) -> _Made:
        """A key with two values: readers disagree on which of them counts."""
        answer = self._answer()
        name, first, second = self._one(
            *(("status", "21003", "0"), ("status", "0", "21003"), ("status", "0", "21010")),
            ("bundle_id", '"com.example.other"', f'"{BUNDLE_ID}"'),
            ("transaction_id", '"1"', f'"{self.transaction_id}"'),
            ("environment", '"Sandbox"', '"Production"'),
            ("in_app", "[]", json.dumps(answer["receipt"]["in_app"])),
        )
        text = json.dumps(answer)
        value = {**answer, **answer["receipt"], **answer["receipt"]["in_app"][0]}[name]
        written = f'"{name}": {json.dumps(value)}'
        assert written in text
        return text.replace(written, f'"{name}": {first}, "{name}": {second}', 1), Outcome.NOTHING

    def constant(self) -> _Made:
        constant = self._one("NaN", "Infinity", "-Infinity")
        text = json.dumps(self._answer())
        return self._one(f'{{"x": {constant}, {text[1:]}', f'{text[:-1]}, "x": [{constant}]}}'), Outcome.NOTHING

    def deep(self) -> _Made:
        opening, closing = self._one(("[", "]"), ('{"x":', "}"))
        deep = opening * _DEEPEST + "0" + closing * _DEEPEST
        text = json.dumps(self._answer())
        return self._one(deep, f'{text[:-1]}, "x": {deep}}}', f'{{"receipt": {deep}, "status": 0}}'), Outcome.NOTHING

    def digits(self) -> _Made:
        text, digits = json.dumps(self._answer()), "9" * self._one(4301, 100_000)
        texts = text.replace('"status": 0', f'"status": {digits}'), f'{{"x": {digits}, {text[1:]}'
        return self._one(*texts), Outcome.NOTHING

    def mutated(self) -> _Made:
        """Some bytes of a good answer changed: it may be good still, but for no transaction that it does not name."""
        data = bytearray(json.dumps(self._answer()).encode())
        for _ in range(self._one(1, 2, 20)):
            data[self._random.randrange(len(data))] = self._random.randrange(256)
        return bytes(data), *Outcome

    def _answer(self) -> dict[str, Any]:
        bought = {"product_id": "coins_100", "quantity": "1", "purchase_date_ms": "1750000000000"}
        entry = {"transaction_id": self.transaction_id, **bought}
        receipt = {"bundle_id": BUNDLE_ID, "receipt_type": "Production", "in_app": [entry]}
        return {"status": 0, "environment": "Production", "receipt": receipt}

    def _one(self, *choices: T) -> T:
        return self._random.choice(choices)


def _nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


SEED = 77
POLICY = Policy(frozenset({BUNDLE_ID}))
FOREVER_SECONDS = 3600.0
HASTY_SECONDS = 0.5  #: for an answer; whoever is not hasty waits for as long as a busy machine takes
PATIENT_SECONDS = 60.0
Figure = Callable[[str], None]


class HostileAppStore(HttpServer):
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
    count, large = (20_000, 12) if is_full else (200, 2)
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
def test_the_whole_program_survives_a_hostile_app_store(embedded: EmbeddedWorld, is_full: bool, figure: Figure) -> None:
    count = 5000 if is_full else 100
    answers = list(hostile_answers(count, SEED + 1, only_readable=True))
    answers += hostile_answers(count // 20, SEED + 2)
    random.Random(SEED).shuffle(answers)
    world = embedded
    with HostileAppStore(answers) as store, closing(EmbeddedQueues(world.database)) as queues:
        for number in range(len(answers)):
            body = json.dumps({"receipt": str(number), "user_id": number, "post_queue": RESULTS})
            assert queues.send(SOURCE, [OutgoingMessage(body)]) == [None]
        settings = {"app_store_read_timeout_seconds": PATIENT_SECONDS, "exit_when_idle_seconds": 2}
        program = world.finish(cast(SimulatedAppStore, store), **settings)
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
    aws: AwsWorld, store: SimulatedAppStore, is_full: bool, figure: Figure
) -> None:
    messages = genuine_messages(200 if is_full else 15, SEED)
    items = [item for item, _ in hostile_items(20 * len(messages), SEED) if isinstance(item, dict)]
    planted = plant(aws.server.url, messages, items)
    aws.send(messages)
    program = aws.finish(store)
    statuses = {letter.fields["user_id"]: letter.fields["status"] for letter in aws.take(RESULTS)}
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
    good = next(iter(OURS[name].values()))
    numbers = [
        *["NaN", "sNaN", "Infinity", "-Infinity", "1E+999999", "1E-999999", "x", "42.5", "٤٢٫٥"],
        "",
        "4 2",
        "9" * 400,
    ]
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


def told(found: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in found.most_common())


@pytest.fixture
def fake() -> Iterator[FakeAws]:
    server = FakeAws()
    yield server
    server.close()


@pytest.fixture
def ledger(fake: FakeAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsLedger]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)  # read when a client is built
    with closing(AwsLedger("claims", boto3.Session("testing", "testing", region_name="eu-west-1"))) as ledger:
        yield ledger


def test_no_item_of_the_table_is_taken_for_ours_unless_it_is(
    fake: FakeAws, ledger: AwsLedger, is_full: bool, figure: Figure
) -> None:
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
    figure(f"{count} items, each as the answer to a claim and to a look-up: {told(found)}")


def test_no_item_that_is_answered_to_a_refund_is_a_crash(
    fake: FakeAws, ledger: AwsLedger, is_full: bool, figure: Figure
) -> None:
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
    figure(f"{count} items, each as the answer to a refund and to a reversal: {told(found)}")


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
    figure(f"{count} batches of claims: {told(found)}")
