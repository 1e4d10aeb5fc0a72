"""What the AWS adapters promise beyond the ports: every kind of trouble by its right name, and how items are laid out.

Trouble comes from a real HTTP server that answers what a test tells it to; the layout is looked at in moto.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.aws import AwsCalls, AwsLedger, AwsNotifications, AwsQueues, AwsRoles
from receipt_actors.aws.tables import ATTRIBUTES, NO_USER_ID, AwsTable, _to_attributes
from receipt_actors.domain.ports import TAKEN, EntryFailure, Environment, LedgerItem, OutgoingMessage, Tombstone
from receipt_actors.domain.verdicts import Ownership, ownership_after_claim
from receipt_actors.errors import (
    BatchesRefused,
    ConfigurationError,
    LedgerRefused,
    LedgerUnavailable,
    QueueRefused,
    QueueUnavailable,
    UnavailableError,
)
from tests.backends.conftest import Begun, plain_session
from tests.patience import PATIENCE_SECONDS
from tests.transport.wire import Asked, Wire

if TYPE_CHECKING:
    from tests.backends.conftest import Aws

QUEUE = "ReceiptsSQS"
ITEM = LedgerItem(
    transaction_id="1000000046178817",
    submission_id="submission-1",
    message_id="message-1",
    user_id=42,
    receipt_sha256="ab" * 32,
    product_id="com.example.coins.100",
    original_transaction_id="1000000046178800",
    environment=Environment.SANDBOX,
    source_queue="ReceiptsSQS",
    post_queue="ResultsSQS",
    claimed_at_seconds=1_700_000_000.125,
    quantity=3,
)
ITEMS = [replace(ITEM, transaction_id=transaction_id) for transaction_id in "abcde"]


@dataclass(frozen=True)
class Reply:
    """What the server answers: as AWS does, unless a test says otherwise. Status 0 closes the connection instead."""

    body: object = field(default_factory=dict)  #: sent as JSON, or as it is where it is bytes
    status: int = 200
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": "request-1"}
    )
    missing_bytes: int = 0  #: how much of the announced body never comes


def error(code: str, status: int = 400, **members: object) -> Reply:
    return Reply({"__type": f"com.amazonaws#{code}", "message": "told by the test", **members}, status)


HTML = b"<html><body>Welcome to the airport's network</body></html>"
PROXY_HEADERS = {"Content-Type": "text/html"}

TROUBLE = {
    "500": error("InternalFailure", 500),
    "503 with a web page": Reply(HTML, 503, PROXY_HEADERS),
    "502 without a body": Reply(b"", 502, {}),
    "redirected": Reply(b"", 302, {"Location": "/login"}),
    "throttled": error("ThrottlingException"),
    "provisioned throughput exceeded": error("ProvisionedThroughputExceededException"),
    "over limit": error("OverLimit"),
    "token expired": error("ExpiredTokenException"),
    "token invalid": error("UnrecognizedClientException"),
    "clock skewed": error("InvalidSignatureException"),
    "an unknown code": error("SomethingNobodyKnows"),
    "400 without a code": Reply({}, 400),
    "200 with a web page": Reply(HTML, 200, PROXY_HEADERS),
    "200 with somebody's JSON": Reply({"blocked": True}, 200, {"Content-Type": "application/json"}),
    "200 with an empty body of nobody": Reply(b"", 200, {}),
    "200 with a list": Reply([1, 2]),
    "200 with broken UTF-8": Reply(b"\xff\xfe{}"),
    "500 with a list": Reply([1, 2], 500),
    "connection closed": Reply(status=0),
    "half an answer": Reply({"Messages": []}, missing_bytes=100),
}


class FakeAws(Wire):
    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Reply]] = {}
        self.stopping = threading.Event()
        super().__init__(self._answer_to)
        self.answer("GetQueueUrl", lambda request: Reply({"QueueUrl": f"{self.url}/1/{request['QueueName']}"}))

    def answer(self, operation: str, reply: Reply | Callable[[dict[str, Any]], Reply]) -> None:
        self.answers[operation] = (lambda request: reply) if isinstance(reply, Reply) else reply

    def asked_for(self, operation: str) -> list[dict[str, Any]]:
        return [request for asked, request in self.requests if asked == operation]

    def close(self) -> None:
        self.stopping.set()
        super().close()

    def _answer_to(self, asked: Asked) -> bytes | None:
        request, operation = json.loads(asked.body), asked.headers["x-amz-target"].rpartition(".")[2]
        self.requests.append((operation, request))
        reply = self.answers[operation](request)
        if reply.status == 0:
            return None
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        # boto3 must not race the close with its next request.
        headers = {**reply.headers, "Content-Length": str(len(body) + reply.missing_bytes), "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n".encode() + body + self.CLOSE


@pytest.fixture
def fake() -> Iterator[FakeAws]:
    with closing(FakeAws()) as server:
        yield server


@pytest.fixture(scope="module")
def any_session() -> boto3.Session:
    return plain_session("testing", "testing", region_name="eu-west-1")


@pytest.fixture
def session(any_session: boto3.Session, fake: FakeAws, monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)  # read when a client is built
    return any_session


@pytest.fixture(params=["called", "begun"])
def way(request: pytest.FixtureRequest, calls: AwsCalls) -> Callable[[Any], Any]:
    """Each call style in turn: by boto3 on this thread, and on a transport."""
    return (lambda adapter: Begun(adapter, calls)) if request.param == "begun" else lambda adapter: adapter


@pytest.fixture
def queues(session: boto3.Session, way: Callable[[Any], Any]) -> Iterator[AwsQueues]:
    aws = AwsQueues(session, longest_wait_seconds=1, read_timeout_seconds=60)
    yield way(aws)
    aws.close()


@pytest.fixture
def ledger(session: boto3.Session, way: Callable[[Any], Any]) -> Iterator[AwsLedger]:
    aws = AwsLedger("claims", session, read_timeout_seconds=60)
    yield way(aws)
    aws.close()


QUEUE_CALLS: dict[str, Callable[[AwsQueues], object]] = {
    "ReceiveMessage": lambda queues: queues.receive(
        QUEUE, max_messages=10, wait_seconds=0, visibility_timeout_seconds=60
    ),
    "SendMessageBatch": lambda queues: queues.send(QUEUE, [OutgoingMessage("a"), OutgoingMessage("b")]),
    "DeleteMessageBatch": lambda queues: queues.delete(QUEUE, ["handle"]),
    "ChangeMessageVisibilityBatch": lambda queues: queues.change_visibility(QUEUE, [("handle", 60)]),
    "GetQueueAttributes": lambda queues: queues.dead_letter_queue(QUEUE),
    "GetQueueUrl": lambda queues: queues.approximate_number_of_messages("AnotherQueue"),
}
LEDGER_CALLS: dict[str, Callable[[AwsLedger], object]] = {
    "PutItem": lambda ledger: ledger.claim(ITEM),
    "GetItem": lambda ledger: ledger.get("1"),
    "BatchExecuteStatement": lambda ledger: ledger.claim_all(ITEMS),
}


# --- trouble --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", TROUBLE.values(), ids=TROUBLE.keys())
def test_trouble_is_unavailable(fake: FakeAws, queues: AwsQueues, ledger: AwsLedger, reply: Reply) -> None:
    for operation, ask in QUEUE_CALLS.items():
        fake.answer(operation, reply)
        with pytest.raises(QueueUnavailable):
            ask(queues)
    assert len(fake.requests) == len(QUEUE_CALLS) + 1  # one more for the URL, which is asked for once
    for operation, call in LEDGER_CALLS.items():
        fake.answer(operation, reply)
        with pytest.raises(LedgerUnavailable):
            call(ledger)
        assert len(fake.asked_for(operation)) == 1
    with pytest.raises(LedgerUnavailable):
        ledger.check()


@pytest.mark.parametrize(
    ("status", "body", "is_unknown", "excerpt"),
    [
        (200, b"<html>welcome to the proxy</html>", True, "welcome to the proxy"),
        (200, b'{"hello": "world"}', True, "hello"),
        (403, b"<html>forbidden by the proxy</html>", True, "403: <html>forbidden"),
        (503, b"<html>busy</html>", False, "503: Service Unavailable"),
        (429, b"slow down", False, "429: slow down"),
        (400, b'{"__type": "com.amazonaws#SomethingNew", "message": "what?"}', False, "SomethingNew: what?"),
    ],
)
def test_an_answer_that_is_not_of_aws_is_told_as_such(
    fake: FakeAws, queues: AwsQueues, ledger: AwsLedger, status: int, body: bytes, is_unknown: bool, excerpt: str
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "SendMessageBatch": lambda: queues.send("Q", [OutgoingMessage("a")]),
        "PutItem": lambda: ledger.claim(ITEM),
    }
    for operation, call in calls.items():
        fake.answer(operation, Reply(body, status, {"Content-Type": "text/html"}))
        with pytest.raises(UnavailableError, match=re.escape(excerpt)) as told:
            call()
        assert told.value.is_unknown_answer is is_unknown


def test_a_silent_service_is_unavailable(fake: FakeAws, session: boto3.Session, way: Callable[[Any], Any]) -> None:
    queues = way(AwsQueues(session, longest_wait_seconds=0, read_timeout_seconds=0.1))
    ledger = way(AwsLedger("claims", session, read_timeout_seconds=0.1))

    def silence(request: dict[str, Any]) -> Reply:
        fake.stopping.wait(PATIENCE_SECONDS)
        return Reply(status=0)

    for operation in ("ReceiveMessage", "DeleteMessageBatch", "PutItem"):
        fake.answer(operation, silence)
    with pytest.raises(QueueUnavailable, match="Read timeout|not complete within"):
        QUEUE_CALLS["ReceiveMessage"](queues)
    with pytest.raises(QueueUnavailable, match="Read timeout|not complete within"):
        QUEUE_CALLS["DeleteMessageBatch"](queues)
    with pytest.raises(LedgerUnavailable, match="Read timeout|not complete within"):
        ledger.claim(ITEM)


def test_nobody_at_the_endpoint_is_unavailable(fake: FakeAws, queues: AwsQueues, ledger: AwsLedger) -> None:
    fake.close()
    with pytest.raises(QueueUnavailable, match=fake.url):
        QUEUE_CALLS["ReceiveMessage"](queues)
    with pytest.raises(LedgerUnavailable, match=fake.url):
        ledger.claim(ITEM)
    with pytest.raises(LedgerUnavailable, match=fake.url):
        ledger.check()


def test_credentials_that_are_not_there_are_unavailable(
    monkeypatch: pytest.MonkeyPatch, fake: FakeAws, way: Callable[[Any], Any]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with pytest.raises(QueueUnavailable, match="NoCredentialsError"):
        QUEUE_CALLS["ReceiveMessage"](way(AwsQueues()))
    with pytest.raises(LedgerUnavailable, match="NoCredentialsError"):
        way(AwsLedger("claims")).claim(ITEM)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AWS_DEFAULT_REGION", ""), ("AWS_PROFILE", "nobody"), ("AWS_ENDPOINT_URL", "no url at all")],
)
def test_settings_that_cannot_work_are_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    for name in ("AWS_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match="AWS"):
        AwsQueues()
    with pytest.raises(ConfigurationError, match="AWS"):
        AwsLedger("claims")


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_is_read_from_either_variable(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """AWS_REGION is what ECS and Lambda set and what AWS's other tools read; boto3 alone knows only the other one."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv(variable, "eu-west-3")
    AwsQueues().close()


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException", "QueueDoesNotExist", "KmsAccessDenied"])
def test_a_queue_that_may_not_be_used_is_refused(fake: FakeAws, queues: AwsQueues, code: str) -> None:
    for operation, call in QUEUE_CALLS.items():
        fake.answer(operation, error(code))
        with pytest.raises(QueueRefused, match=code):
            call(queues)

    fake.answer("GetQueueUrl", Reply({"QueueUrl": f"{fake.url}/2/{QUEUE}"}))
    fake.answer("DeleteMessageBatch", Reply({"Successful": [{"Id": "0"}], "Failed": []}))
    assert queues.delete(QUEUE, ["handle"]) == [None]
    assert fake.asked_for("DeleteMessageBatch")[-1]["QueueUrl"] == f"{fake.url}/2/{QUEUE}"


# --- queues ---------------------------------------------------------------------------------------------------------


def md5(entry: Mapping[str, str]) -> str:
    return hashlib.md5(entry["MessageBody"].encode()).hexdigest()


def sent(request: Mapping[str, Any]) -> Reply:
    confirmed = [{"Id": entry["Id"], "MD5OfMessageBody": md5(entry)} for entry in request["Entries"]]
    return Reply({"Successful": confirmed, "Failed": []})


def test_a_name_becomes_a_url_once_and_by_sqs_alone(fake: FakeAws, queues: AwsQueues) -> None:
    fake.answer("SendMessageBatch", sent)
    for _ in range(3):
        assert queues.send(QUEUE, [OutgoingMessage("a")]) == [None]
    assert [request["QueueName"] for request in fake.asked_for("GetQueueUrl")] == [QUEUE]
    before = len(fake.requests)
    for name in (f"{fake.url}/1/{QUEUE}", f"arn:aws:sqs:eu-west-1:1:{QUEUE}", f"../{QUEUE}"):
        with pytest.raises(QueueRefused):
            queues.send(name, [OutgoingMessage("a")])
    assert len(fake.requests) == before


def test_a_send_reads_what_failed_and_what_is_not_mentioned(fake: FakeAws, queues: AwsQueues) -> None:
    def answer(request: dict[str, Any]) -> Reply:
        confirmed = [{"Id": "0", "MD5OfMessageBody": md5(request["Entries"][0])}, {"Id": "3", "MD5OfMessageBody": "0"}]
        failed = [
            {"Id": "1", "Code": "InternalError", "Message": "not now", "SenderFault": False},
            {"Id": "2", "Code": "Nonsense", "Message": "never", "SenderFault": True},
            {"Id": "77", "Code": "Unasked", "SenderFault": True},
        ]
        return Reply({"Successful": confirmed, "Failed": failed})

    fake.answer("SendMessageBatch", answer)
    confirmed, failed, faulty, corrupt, forgotten = queues.send(QUEUE, [OutgoingMessage(body) for body in "abcde"])
    assert confirmed is None
    assert failed == EntryFailure("InternalError", "not now", sender_fault=False)
    assert faulty is not None and (faulty.code, faulty.sender_fault) == ("Nonsense", True)
    assert corrupt is not None and (corrupt.code, corrupt.sender_fault) == ("Md5Mismatch", False)
    assert forgotten is not None and not forgotten.sender_fault


def test_a_fifo_queue_is_sent_both_ids_and_asked_for_the_group(fake: FakeAws, queues: AwsQueues) -> None:
    fake.answer("SendMessageBatch", lambda request: sent(request))
    message = {"MessageId": "m", "ReceiptHandle": "h", "Body": "x", "MD5OfBody": "0", "Attributes": {}}
    fake.answer("ReceiveMessage", Reply({"Messages": [message | {"Attributes": {"MessageGroupId": "7"}}]}))
    for queue, ids in (("q", {}), ("q.fifo", {"MessageGroupId": "7", "MessageDeduplicationId": "d"})):
        assert queues.send(queue, [OutgoingMessage("x", {}, *ids.values())]) == [None]
        (received,) = queues.receive(queue, max_messages=1, wait_seconds=0, visibility_timeout_seconds=60)
        assert received.group_id == "7"  # as it was answered, whatever was asked
        (sending,), (asked,) = (
            [request for name, request in fake.requests if name == operation and request["QueueUrl"].endswith(queue)]
            for operation in ("SendMessageBatch", "ReceiveMessage")
        )
        entry = sending["Entries"][0]
        assert {name: entry.get(name) for name in ids} == ids
        assert set(entry) == {"Id", "MessageBody", "MessageAttributes", *ids}
        assert ("MessageGroupId" in asked["MessageSystemAttributeNames"]) == bool(ids)


def test_deletes_and_extensions_read_what_failed(fake: FakeAws, queues: AwsQueues) -> None:
    answer = {
        "Successful": [{"Id": "1"}],
        "Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "Message": "no", "SenderFault": True}],
    }
    fake.answer("DeleteMessageBatch", Reply(answer))
    fake.answer("ChangeMessageVisibilityBatch", Reply(answer))
    for results in (
        queues.delete(QUEUE, ["a", "b", "c"]),
        queues.change_visibility(QUEUE, [("a", 1), ("b", 2), ("c", 3)]),
    ):
        faulty, confirmed, forgotten = results
        assert faulty is not None and (faulty.code, faulty.sender_fault) == ("ReceiptHandleIsInvalid", True)
        assert confirmed is None
        assert forgotten is not None and not forgotten.sender_fault


def test_a_batch_refused_as_a_whole_is_sent_in_parts(fake: FakeAws, queues: AwsQueues) -> None:
    """A queue may have a smaller limit than 1 MiB: what fits is sent, only what never will is the sender's fault."""

    def at_most_100_bytes(request: dict[str, Any]) -> Reply:
        total = sum(len(entry["MessageBody"]) for entry in request["Entries"])
        return sent(request) if total <= 100 else error("BatchRequestTooLong")

    fake.answer("SendMessageBatch", at_most_100_bytes)
    results = queues.send(QUEUE, [OutgoingMessage("x" * size) for size in (40, 40, 40, 101, 40)])
    assert [result is None for result in results] == [True, True, True, False, True]
    assert results[3] is not None and results[3].sender_fault


def test_a_receive_asks_for_what_the_system_needs(fake: FakeAws, queues: AwsQueues) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793"
    system = {"ApproximateReceiveCount": "3", "SentTimestamp": "1700000000125", "AWSTraceHeader": trace}
    attributes = {
        "submission_id": {"DataType": "String", "StringValue": "s"},
        "count": {"DataType": "Number", "StringValue": "7"},
        "blob": {"DataType": "Binary", "BinaryValue": "//79"},
        "nothing": {"DataType": "String"},
    }
    told = {"MessageId": "m", "ReceiptHandle": "r", "Body": "b", "MD5OfBody": "5"}
    told |= {"Attributes": system, "MessageAttributes": attributes}
    fake.answer("ReceiveMessage", Reply({"Messages": [told]}))
    (message,) = queues.receive(QUEUE, max_messages=7, wait_seconds=0.3, visibility_timeout_seconds=120)
    assert message.attributes == {"submission_id": "s", "count": "7", "blob": "", "nothing": ""}
    assert (message.approximate_receive_count, message.sent_at_seconds) == (3, 1_700_000_000.125)
    assert message.aws_trace_header == trace
    (request,) = fake.asked_for("ReceiveMessage")
    assert (request["MaxNumberOfMessages"], request["WaitTimeSeconds"], request["VisibilityTimeout"]) == (7, 1, 120)
    assert request["MessageAttributeNames"] == ["All"]
    assert set(request["MessageSystemAttributeNames"]) == system.keys()


GARBLED_MESSAGES = [
    {"MessageId": "m"},
    {"MessageId": "m", "ReceiptHandle": "r", "Body": "b", "MD5OfBody": "5", "Attributes": {"SentTimestamp": "x"}},
    {"MessageId": "m", "ReceiptHandle": "r", "Body": {"receipt": "x"}, "MD5OfBody": "5"},
]
GARBLED: list[object] = [5, "abc", {"Id": "0"}, ["abc"], [None], [[]]]


def test_an_answer_of_the_wrong_shape_is_unavailable(fake: FakeAws, queues: AwsQueues) -> None:
    """Nothing is made up for what is missing: a message is redelivered, a call is repeated.

    A redrive policy is not taken for the lack of one, which would keep dead letters on the source queue.
    """
    answers = [("ReceiveMessage", {"Messages": garbled}) for garbled in ([each] for each in GARBLED_MESSAGES)]
    answers += [("ReceiveMessage", {"Messages": garbled}) for garbled in GARBLED]
    for operation in ("SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
        answers += [(operation, {member: garbled}) for garbled in GARBLED for member in ("Successful", "Failed")]
    policies = [{"RedrivePolicy": text} for text in ("{", "[]", "{}")]
    answers += [("GetQueueAttributes", {"Attributes": attributes}) for attributes in policies]
    for operation, answer in answers:
        fake.answer(operation, Reply(answer))
        with pytest.raises(QueueUnavailable, match="garbled"):
            QUEUE_CALLS[operation](queues)


# --- ledger ---------------------------------------------------------------------------------------------------------


def table_of(moto: Aws) -> tuple[str, AwsLedger]:
    table = moto.create_table("TransactionId")
    return table, AwsLedger(table, moto.session)


def test_the_layout_of_an_item(moto: Aws) -> None:
    """Attribute names and types are a contract with every program that reads the table; None is no attribute."""
    table, ledger = table_of(moto)
    ledger.claim(ITEM)
    key = {"TransactionId": {"S": ITEM.transaction_id}}
    assert moto.dynamodb.get_item(TableName=table, Key=key)["Item"] == {
        "TransactionId": {"S": "1000000046178817"},
        "SubmissionId": {"S": "submission-1"},
        "MessageId": {"S": "message-1"},
        "UserId": {"N": "42"},
        "ReceiptSha256": {"S": "ab" * 32},
        "ProductId": {"S": "com.example.coins.100"},
        "OriginalTransactionId": {"S": "1000000046178800"},
        "Environment": {"S": "Sandbox"},
        "SourceQueue": {"S": "ReceiptsSQS"},
        "PostQueue": {"S": "ResultsSQS"},
        "ClaimedAt": {"N": "1700000000.125"},
        "Quantity": {"N": "3"},
        "SchemaVersion": {"N": "2"},
    }
    ledger.mark_refunded("1", 1_800_000_000.5)  # a tombstone: an operator sees at once that it is no claim
    tombstone = moto.dynamodb.get_item(TableName=table, Key={"TransactionId": {"S": "1"}})["Item"]
    assert tombstone == {"TransactionId": {"S": "1"}, "RefundedAt": {"N": "1800000000.5"}}


@pytest.mark.parametrize(
    "foreign",
    [
        {},
        {"UserId": {"S": "42"}, "SubmissionId": {"N": "1"}, "ClaimedAt": {"S": "yesterday"}},
        {"UserId": {"N": "42.5"}, "Environment": {"S": "Xcode"}, "SchemaVersion": {"BOOL": True}},
    ],
    ids=["nothing but the key", "other types", "other values"],
)
def test_an_item_of_another_program_is_nobodys(moto: Aws, foreign: dict[str, Any]) -> None:
    table, ledger = table_of(moto)
    moto.dynamodb.put_item(TableName=table, Item={"TransactionId": {"S": ITEM.transaction_id}, **foreign})
    standing = ledger.claim(ITEM)
    assert standing is not None and standing == ledger.get(ITEM.transaction_id)
    assert (standing.submission_id, standing.user_id, standing.receipt_sha256) == ("", NO_USER_ID, "")
    assert ownership_after_claim(standing, ITEM) is Ownership.OTHER_USER


NO_NUMBERS: list[object] = [
    *({"N": number} for number in ("NaN", "sNaN", "Infinity", "1E+999999999", "", "x", 42, None)),
    *({}, None, [], "42", 42),
]


def test_a_number_that_is_none_is_nobodys_user(fake: FakeAws, ledger: AwsLedger) -> None:
    for user_id in NO_NUMBERS:
        fake.answer("GetItem", Reply({"Item": {"TransactionId": {"S": "1"}, "UserId": user_id}}))
        try:
            standing = ledger.get("1")
        except LedgerUnavailable:
            continue
        assert standing is not None and standing.user_id == NO_USER_ID, user_id


def test_a_quantity_that_is_none_is_unknown(fake: FakeAws, ledger: AwsLedger) -> None:
    for number in ("0", "-3", "2.5", "1E+20", "NaN"):
        item = {"TransactionId": {"S": "1"}, "Quantity": {"N": number}, "RevocationPercentage": {"N": "100001"}}
        fake.answer("GetItem", Reply({"Item": item}))
        standing = ledger.get("1")
        assert isinstance(standing, LedgerItem)
        assert (standing.quantity, standing.revocation_percentage) == (None, None)


@pytest.mark.parametrize(
    "foreign",
    [{}, {"Owner": {"S": "somebody"}}, {"Owner": {"S": "somebody"}, "RefundedAt": {"N": "5"}}],
    ids=["nothing but the key", "others", "marked"],
)
def test_a_reversal_frees_no_item_of_another_program(moto: Aws, foreign: dict[str, Any]) -> None:
    """It is no tombstone of ours: the mark may go, the item stays, with all that it has."""
    table, ledger = table_of(moto)
    key = {"TransactionId": {"S": ITEM.transaction_id}}
    moto.dynamodb.put_item(TableName=table, Item={**key, **foreign})
    standing = ledger.unmark_refunded(ITEM.transaction_id, 2e9)
    assert standing is not None and standing.user_id == NO_USER_ID
    kept = {name: value for name, value in foreign.items() if name != "RefundedAt"}
    assert moto.dynamodb.get_item(TableName=table, Key=key)["Item"] == {**key, **kept}
    assert ledger.claim(ITEM) is not None


def test_an_update_that_is_answered_without_its_item_is_not_done(fake: FakeAws, ledger: AwsLedger) -> None:
    for answer in ({}, {"Attributes": {}}, {"Attributes": []}, {"Attributes": {"UserId": {"N": "1"}}}):
        fake.answer("UpdateItem", Reply(answer))
        with pytest.raises(LedgerUnavailable):
            ledger.mark_refunded("1", 5.0)


def test_the_item_in_the_way_is_read_where_the_answer_lacks_it(fake: FakeAws, ledger: AwsLedger) -> None:
    fake.answer("PutItem", Reply({}))
    assert ledger.claim(ITEM) is None
    fake.answer("PutItem", error("ConditionalCheckFailedException"))
    fake.answer("GetItem", Reply({"Item": fake.asked_for("PutItem")[0]["Item"]}))
    assert ledger.claim(ITEM) == ITEM
    (_, put), (get,) = fake.asked_for("PutItem"), fake.asked_for("GetItem")
    assert put["ConditionExpression"] == "attribute_not_exists(TransactionId)"
    assert put["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"
    assert get["ConsistentRead"] is True
    fake.answer("GetItem", Reply({}))  # neither ours nor anybody's: no answer is invented
    with pytest.raises(LedgerUnavailable, match="stood in the way"):
        ledger.claim(ITEM)


def test_a_later_mark_is_read_where_the_answer_lacks_it(fake: FakeAws, ledger: AwsLedger) -> None:
    marked = {"TransactionId": {"S": "1"}, "RefundedAt": {"N": "7"}}
    for is_told in (True, False):
        fake.answer("UpdateItem", error("ConditionalCheckFailedException", **({"Item": marked} if is_told else {})))
        fake.answer("GetItem", Reply({"Item": marked}))
        assert ledger.mark_refunded("1", 5.0) == Tombstone("1", 7.0)
        assert len(fake.asked_for("GetItem")) == (0 if is_told else 1)
    fake.answer("UpdateItem", error("ConditionalCheckFailedException"))
    fake.answer("GetItem", Reply({}))
    with pytest.raises(LedgerUnavailable, match="is gone"):
        ledger.mark_refunded("1", 5.0)


ADAPTERS: list[Callable[[str, boto3.Session], AwsTable]] = [
    AwsLedger,
    AwsNotifications,
    lambda table, session: AwsRoles(table, 60.0, session),
]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=["ledger", "notifications", "roles"])
def test_a_wrong_table_is_refused(moto: Aws, adapter: Callable[[str, boto3.Session], AwsTable]) -> None:
    right = adapter("nowhere", moto.session)
    for keys, wish in (
        ((), f"create the table, or set `{right.setting}`"),
        (("Id",), f"expected a table whose only key is the hash key {right.key} of type S"),
        ((right.key, "UserId"), "expected a table whose only key"),
    ):
        table = moto.create_table(*keys) if keys else "nowhere"
        with closing(adapter(table, moto.session)) as wrong, pytest.raises(LedgerRefused, match=f"'{table}'.*{wish}"):
            wrong.check()
    with pytest.raises(LedgerUnavailable, match="ResourceNotFound"):
        AwsLedger("nowhere", moto.session).claim(ITEM)
    with closing(adapter(moto.create_table(right.key), moto.session)) as table:
        table.check()


def test_a_table_that_may_not_be_read_is_refused(fake: FakeAws, ledger: AwsLedger) -> None:
    fake.answer("GetItem", error("AccessDeniedException"))
    with pytest.raises(LedgerRefused, match="dynamodb:GetItem"):
        ledger.check()


# --- time to live, which deletes items ---


def expire(aws: Aws, table: str, attribute: str) -> None:
    aws.dynamodb.update_time_to_live(
        TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": attribute}
    )


@pytest.mark.parametrize("emulator", ["moto", "simulated", "ministack_sqs"])
def test_a_table_that_deletes_claims_fails_the_check(
    request: pytest.FixtureRequest, way: Callable[[Any], Any], emulator: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A transaction whose claim is gone would get OK once more. Items of other programs may be deleted."""
    aws: Aws = request.getfixturevalue(emulator)
    table = aws.create_table("TransactionId")
    with closing(way(AwsLedger(table, aws.session))) as ledger:
        ledger.check()
        expire(aws, table, "ExpiresAt")
        ledger.check()
        assert caplog.records == []
    table = aws.create_table("TransactionId")
    expire(aws, table, "ClaimedAt")
    with (
        closing(way(AwsLedger(table, aws.session))) as ledger,
        pytest.raises(LedgerRefused, match=f"'{table}'.* deletes claims by their ClaimedAt; turn it off") as told,
    ):
        ledger.check()
    assert "\n" not in str(told.value)


def test_a_time_to_live_that_is_being_turned_off_still_deletes(fake: FakeAws, ledger: AwsLedger) -> None:
    fake.answer("GetItem", Reply({}))
    for status in ("ENABLING", "ENABLED", "DISABLING", "DISABLED"):
        description = {"TimeToLiveStatus": status, "AttributeName": "ClaimedAt"}
        fake.answer("DescribeTimeToLive", Reply({"TimeToLiveDescription": description}))
        if status == "DISABLED":
            ledger.check()
            continue
        with pytest.raises(LedgerRefused, match=f"{status}.*ClaimedAt"):
            ledger.check()


TTL_UNKNOWN = {
    "no permission": error("AccessDeniedException"),
    "an emulator without it": error("UnknownOperationException"),
    "throttled": error("ThrottlingException"),
    "500": error("InternalFailure", 500),
    "connection closed": Reply(status=0),
    "a web page": Reply(HTML, 200, PROXY_HEADERS),
    "a list": Reply({"TimeToLiveDescription": ["ClaimedAt"]}),
    "nothing": Reply({}),
}


@pytest.mark.parametrize("reply", TTL_UNKNOWN.values(), ids=TTL_UNKNOWN.keys())
def test_a_time_to_live_that_cannot_be_seen_keeps_nobody_from_starting(
    fake: FakeAws, ledger: AwsLedger, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    fake.answer("GetItem", Reply({}))
    fake.answer("DescribeTimeToLive", reply)
    ledger.check()
    (record,) = caplog.records
    assert "table 'claims'" in record.getMessage()
    assert "dynamodb:DescribeTimeToLive" in record.getMessage()
    assert "\n" not in record.getMessage()


@given(item=st.from_type(LedgerItem))
def test_every_attribute_of_an_item_is_known_to_the_check(item: LedgerItem) -> None:
    assert _to_attributes(item).keys() <= ATTRIBUTES


# --- batches of claims ---

PUT = {"TableName": "claims"}


def failed(code: str) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": "told by the test"}, "TableName": "claims"}


def test_a_batch_is_one_insert_each_with_every_value_as_a_parameter(fake: FakeAws, ledger: AwsLedger) -> None:
    items = [ITEM, replace(ITEM, transaction_id="'?", product_id=None)]
    fake.answer("PutItem", Reply({}))
    fake.answer("BatchExecuteStatement", Reply({"Responses": [PUT, PUT]}))
    for item in items:
        ledger.claim(item)
    assert ledger.claim_all(items) == [None, None]
    (batch,) = fake.asked_for("BatchExecuteStatement")
    for statement, put in zip(batch["Statements"], fake.asked_for("PutItem"), strict=True):
        inserted = re.fullmatch(r"INSERT INTO \"claims\" VALUE \{(('\w+': \?(, )?)+)\}", statement["Statement"])
        assert inserted is not None
        names = re.findall(r"\w+", inserted[1])
        assert dict(zip(names, statement["Parameters"], strict=True)) == put["Item"]


def test_each_claim_of_a_batch_fares_by_itself(fake: FakeAws, ledger: AwsLedger) -> None:
    answers = [
        PUT,
        failed("DuplicateItem"),
        failed("ThrottlingError"),
        failed("ValidationError"),
        failed("AccessDenied"),
    ]
    fake.answer("BatchExecuteStatement", Reply({"Responses": answers}))
    assert ledger.claim_all(ITEMS) == [
        None,
        TAKEN,
        EntryFailure("ThrottlingError", "told by the test", sender_fault=False),
        EntryFailure("ValidationError", "told by the test", sender_fault=True),
        EntryFailure("AccessDenied", "told by the test", sender_fault=False),
    ]


def test_an_entry_that_says_nothing_confirms_nothing(fake: FakeAws, ledger: AwsLedger) -> None:
    for entry in ({}, {"Item": {}}, {"blocked": True}, {"TableName": ""}, {"TableName": "another"}):
        fake.answer("BatchExecuteStatement", Reply({"Responses": [PUT, entry, PUT, PUT, PUT]}))
        assert ledger.claim_all(ITEMS) == [None, TAKEN, None, None, None]


def test_a_batch_that_is_answered_in_the_wrong_shape_is_unavailable(fake: FakeAws, ledger: AwsLedger) -> None:
    wrong = (None, {}, "PUT", [], [PUT] * 4, [PUT] * 6, [PUT, None, PUT, PUT, PUT], [PUT, "PUT", PUT, PUT, PUT])
    for responses in wrong:
        fake.answer("BatchExecuteStatement", Reply({"Responses": responses}))
        with pytest.raises(LedgerUnavailable):
            ledger.claim_all(ITEMS)


def test_batches_that_are_refused_are_told_as_such(fake: FakeAws, ledger: AwsLedger) -> None:
    for code in ("AccessDeniedException", "UnknownOperationException", "ValidationException"):
        fake.answer("BatchExecuteStatement", error(code))
        with pytest.raises(BatchesRefused, match=f"'claims'.*{code}"):
            ledger.claim_all(ITEMS)
    for code in ("AccessDenied", "ValidationError"):
        fake.answer("BatchExecuteStatement", Reply({"Responses": [failed(code)] * 5}))
        with pytest.raises(BatchesRefused, match=code):
            ledger.claim_all(ITEMS)


def test_a_batch_of_which_every_claim_fails_is_unavailable(fake: FakeAws, ledger: AwsLedger) -> None:
    for code in ("InternalServerError", "ThrottlingError", "ResourceNotFound", "SomethingNobodyKnows"):
        fake.answer("BatchExecuteStatement", Reply({"Responses": [failed(code)] * 5}))
        with pytest.raises(LedgerUnavailable, match=code):
            ledger.claim_all(ITEMS)
