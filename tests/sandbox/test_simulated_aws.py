"""SQS and DynamoDB of the benchmark, beyond what our own clients ask of them: for that see the contracts' tests.

They are met by boto3 as everybody has it: whoever measures another pipeline may ask in other words than we do.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

from receipt_actors.sandbox.services import ServiceProcess
from receipt_actors.sandbox.services.sqs import attributes_md5
from tests.patience import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with closing(ServiceProcess(["aws"])) as process:
        yield process.url


@pytest.fixture(scope="module")
def sqs(url: str) -> Iterator[Any]:
    client = boto3.client("sqs", "eu-west-1", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x")
    yield client
    client.close()


@pytest.fixture(scope="module")
def dynamodb(url: str) -> Iterator[Any]:
    client = boto3.client("dynamodb", "eu-west-1", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x")
    yield client
    client.close()


@pytest.fixture
def queue(sqs: Any) -> str:
    queue_url: str = sqs.create_queue(QueueName=f"q{uuid.uuid4().hex}")["QueueUrl"]
    return queue_url


@pytest.fixture
def table(dynamodb: Any) -> str:
    name = f"t{uuid.uuid4().hex}"
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "Id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "Id", "AttributeType": "S"}],
    )
    return name


def code_of(refusal: pytest.ExceptionInfo[ClientError]) -> str:
    return refusal.value.response["Error"]["Code"]


def test_single_calls_do_what_batches_do(sqs: Any, queue: str) -> None:
    sent = sqs.send_message(QueueUrl=queue, MessageBody="héllo")
    assert sent["MD5OfMessageBody"] == hashlib.md5("héllo".encode()).hexdigest()
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    assert (message["MessageId"], message["Body"]) == (sent["MessageId"], "héllo")
    assert "Attributes" not in message
    sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    (again,) = sqs.receive_message(QueueUrl=queue, MessageSystemAttributeNames=["All"])["Messages"]
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=again["ReceiptHandle"])
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == attributes["ApproximateNumberOfMessagesNotVisible"] == "0"


@pytest.mark.parametrize("what", ["send", "hand back", "visibility timeout"])
def test_a_long_poll_gets_what_comes_while_it_waits(sqs: Any, queue: str, what: str) -> None:
    if what != "send":
        sqs.send_message(QueueUrl=queue, MessageBody="here")
        timeout = 600 if what == "hand back" else 1
        (held,) = sqs.receive_message(QueueUrl=queue, VisibilityTimeout=timeout)["Messages"]
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(sqs.receive_message, QueueUrl=queue, WaitTimeSeconds=20)
        if what == "send":
            sqs.send_message(QueueUrl=queue, MessageBody="here")
        elif what == "hand back":
            sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=held["ReceiptHandle"], VisibilityTimeout=0)
        assert poll.result(timeout=15)["Messages"][0]["Body"] == "here"


def test_a_poll_whose_client_is_gone_takes_nothing(sqs: Any, queue: str, url: str) -> None:
    host = urlsplit(url)
    body = json.dumps({"QueueUrl": queue, "WaitTimeSeconds": 20}).encode()
    with socket.create_connection((host.hostname or "", host.port or 0)) as connection:
        head = f"POST / HTTP/1.1\r\nX-Amz-Target: AmazonSQS.ReceiveMessage\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
    sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])  # by now it has seen that one go
    sqs.send_message(QueueUrl=queue, MessageBody="for somebody")
    assert len(sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]) == 1


def test_message_attributes_come_as_asked_for(sqs: Any, queue: str) -> None:
    attributes = {
        "reason": {"DataType": "String", "StringValue": "claimed"},
        "count": {"DataType": "Number", "StringValue": "7"},
    }
    sent = sqs.send_message(QueueUrl=queue, MessageBody="x", MessageAttributes=attributes)
    assert sent["MD5OfMessageAttributes"] == attributes_md5(attributes)
    for asked, expected in (([], {}), (["count"], {"count": attributes["count"]}), (["All"], attributes)):
        (message,) = sqs.receive_message(QueueUrl=queue, VisibilityTimeout=0, MessageAttributeNames=asked)["Messages"]
        assert message.get("MessageAttributes", {}) == expected


def test_the_sum_of_attributes_is_the_one_of_the_manual() -> None:
    expected = hashlib.md5(b"\0\0\0\x01a" + b"\0\0\0\x06String" + b"\x01" + b"\0\0\0\x02xy").hexdigest()
    assert attributes_md5({"a": {"DataType": "String", "StringValue": "xy"}}) == expected


def test_batches_that_break_the_rules_are_refused_whole(sqs: Any, queue: str) -> None:
    def refused(entries: list[dict[str, str]]) -> str:
        with pytest.raises(ClientError) as refusal:
            sqs.send_message_batch(QueueUrl=queue, Entries=entries)
        return code_of(refusal).rpartition(".")[2]

    assert refused([]) == "EmptyBatchRequest"
    assert refused([{"Id": str(n), "MessageBody": "x"} for n in range(11)]) == "TooManyEntriesInBatchRequest"
    assert refused([{"Id": "1", "MessageBody": "x"}] * 2) == "BatchEntryIdsNotDistinct"
    large = "x" * (1024 * 1024 // 2 + 1)
    assert refused([{"Id": str(n), "MessageBody": large} for n in range(2)]) == "BatchRequestTooLong"
    assert "Messages" not in sqs.receive_message(QueueUrl=queue)


def test_a_put_without_a_condition_overwrites(dynamodb: Any, table: str) -> None:
    dynamodb.put_item(TableName=table, Item={"Id": {"S": "1"}, "By": {"S": "a"}})
    dynamodb.put_item(TableName=table, Item={"Id": {"S": "1"}, "By": {"S": "b"}})
    assert dynamodb.get_item(TableName=table, Key={"Id": {"S": "1"}})["Item"]["By"] == {"S": "b"}
    with pytest.raises(ClientError) as refusal:
        dynamodb.put_item(
            TableName=table,
            Item={"Id": {"S": "1"}, "By": {"S": "c"}},
            ConditionExpression="attribute_not_exists(#key)",
            ExpressionAttributeNames={"#key": "Id"},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert code_of(refusal) == "ConditionalCheckFailedException"
    assert refusal.value.response["Item"]["By"] == {"S": "b"}  # type: ignore[typeddict-item]


def insert(table: str, *ids: str) -> list[dict[str, Any]]:
    statement = f"INSERT INTO \"{table}\" VALUE {{'Id': ?, 'Note': 'it''s', 'Count': 3}}"
    return [{"Statement": statement, "Parameters": [{"S": each}]} for each in ids]


def test_a_batch_of_inserts_fails_entry_by_entry(dynamodb: Any, table: str) -> None:
    dynamodb.put_item(TableName=table, Item={"Id": {"S": "taken"}})
    answer = dynamodb.batch_execute_statement(Statements=insert(table, "new", "taken"))
    assert [response.get("Error", {}).get("Code") for response in answer["Responses"]] == [None, "DuplicateItem"]
    assert dynamodb.get_item(TableName=table, Key={"Id": {"S": "new"}})["Item"] == {
        "Id": {"S": "new"},
        "Note": {"S": "it's"},
        "Count": {"N": "3"},
    }
    assert dynamodb.get_item(TableName=table, Key={"Id": {"S": "taken"}})["Item"] == {"Id": {"S": "taken"}}


def test_a_batch_that_breaks_the_rules_is_refused_whole(dynamodb: Any, table: str) -> None:
    wrong = {
        "twice": insert(table, "1", "1"),
        "too many": insert(table, *map(str, range(26))),
        "no insert": [{"Statement": f'SELECT * FROM "{table}"'}],
        "too few": [{"Statement": f"INSERT INTO \"{table}\" VALUE {{'Id': ?, 'By': ?}}", "Parameters": [{"S": "1"}]}],
        "no key": [{"Statement": f"INSERT INTO \"{table}\" VALUE {{'Other': ?}}", "Parameters": [{"S": "1"}]}],
    }
    for what, statements in wrong.items():
        with pytest.raises(ClientError) as refusal:
            dynamodb.batch_execute_statement(Statements=statements)
        assert code_of(refusal) == "ValidationException", what
    assert dynamodb.describe_table(TableName=table)["Table"]["ItemCount"] == 0


def test_what_is_not_simulated_is_refused(sqs: Any, dynamodb: Any, queue: str, table: str) -> None:
    with pytest.raises(ClientError) as refusal:
        sqs.purge_queue(QueueUrl=queue)
    assert code_of(refusal) == "UnknownOperationException"
    with pytest.raises(ClientError) as refusal:
        dynamodb.scan(TableName=table)
    assert code_of(refusal) == "UnknownOperationException"
    with pytest.raises(ClientError) as refusal:
        dynamodb.put_item(TableName=table, Item={"Id": {"S": "1"}}, ConditionExpression="Id < 3")
    assert code_of(refusal) == "ValidationException"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", http.client.NOT_FOUND),
        (b"nonsense\r\n\r\n", http.client.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nX-Amz-Target: AmazonSQS.SendMessage\r\nContent-Length: 2\r\n\r\n{]", 400),
        (b"POST / HTTP/1.1\r\nX-Amz-Target: AmazonSQS.SendMessage\r\nContent-Length: 2\r\n\r\n[]", 400),
    ],
)
def test_garbage_is_answered_and_harms_nobody(
    url: str, sqs: Any, queue: str, request_bytes: bytes, status: int
) -> None:
    host = urlsplit(url)
    with socket.create_connection((host.hostname or "", host.port or 0), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(4096).split(b" ")[1] == str(int(status)).encode()
    assert "Messages" not in sqs.receive_message(QueueUrl=queue)
