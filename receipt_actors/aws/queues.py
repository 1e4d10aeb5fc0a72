"""SQS behind the port ``Queues``."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import boto3
from botocore.exceptions import ClientError

from receipt_actors.aws.calls import Calls, blocking
from receipt_actors.aws.connection import (
    READ_TIMEOUT_SECONDS,
    Client,
    Garbled,
    build_client,
    call,
    describe,
    error_code,
    integer,
    member,
    not_done,
    optional_member,
    reading,
)
from receipt_actors.aws.requests import told
from receipt_actors.domain import sqs_rules
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, EntryFailure, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.sqs_rules import is_fifo
from receipt_actors.errors import QueueRefused, QueueUnavailable

MAX_WAIT_SECONDS = 20  #: the longest long poll (SQS)

_NO_SUCH_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})

_SYSTEM_ATTRIBUTES = ["ApproximateReceiveCount", "SentTimestamp", "AWSTraceHeader"]
_FIFO_ATTRIBUTES = [*_SYSTEM_ATTRIBUTES, "MessageGroupId"]  # which is no order where the queue is a standard one

#: Error codes that do not pass; every other code is ``QueueUnavailable``.
_REFUSED = _NO_SUCH_QUEUE | {
    "AWS.SimpleQueueService.QueueDeletedRecently",
    "AccessDenied",
    "AccessDeniedException",
    "InvalidAddress",
    "KMS.AccessDeniedException",
    "KMS.DisabledException",
    "KMS.NotFoundException",
    "KmsAccessDenied",
    "KmsDisabled",
    "KmsNotFound",
}

#: Error codes of a whole send batch that its halves may not get: one entry, or their sum, is at fault.
_DIVISIBLE = frozenset(
    {
        sqs_rules.BATCH_REQUEST_TOO_LONG,
        f"AWS.SimpleQueueService.{sqs_rules.BATCH_REQUEST_TOO_LONG}",
        sqs_rules.INVALID_CONTENTS,
        sqs_rules.INVALID_PARAMETER,
    }
)


class AwsQueues:
    """``Queues`` on SQS; any thread may call the methods.

    Error answers are ``QueueRefused`` if the queue does not exist or may not be used, else ``QueueUnavailable``; so is
    trouble with the connection and the credentials.
    """

    def __init__(
        self,
        session: boto3.Session | None = None,
        *,
        max_connections: int = 10,
        longest_wait_seconds: float = MAX_WAIT_SECONDS,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> None:
        """Build the clients; no request is made.

        ``max_connections`` are kept for receives, and as many for everything else. ``longest_wait_seconds`` bounds the
        long polls, hence how long a dead connection goes unnoticed. Raises ``ConfigurationError`` if boto3 finds no
        region or cannot use its settings.
        """
        self._longest_wait_seconds = longest_wait_seconds
        self._client = build_client(session, "sqs", read_timeout_seconds, max_connections)
        receive_seconds = longest_wait_seconds + read_timeout_seconds
        self._receiving_client = build_client(session, "sqs", receive_seconds, max_connections)
        self.may_transfer = self._client.maker is not None  #: whether ``AwsCalls`` needs no thread for a call
        self._urls: dict[str, str] = {}

    @blocking
    def receive(
        self, queue: str, *, max_messages: int, wait_seconds: float, visibility_timeout_seconds: int
    ) -> Calls[Sequence[ReceivedMessage]]:
        if not 1 <= max_messages <= MAX_BATCH_ENTRIES:
            raise ValueError(f"max_messages {max_messages}: expected 1 to {MAX_BATCH_ENTRIES}")
        answer = yield from self._call(
            queue,
            self._receiving_client,
            "receive_message",
            MaxNumberOfMessages=max_messages,
            WaitTimeSeconds=math.ceil(min(wait_seconds, self._longest_wait_seconds)),  # SQS takes whole seconds
            VisibilityTimeout=visibility_timeout_seconds,
            MessageSystemAttributeNames=_FIFO_ATTRIBUTES if is_fifo(queue) else _SYSTEM_ATTRIBUTES,
            MessageAttributeNames=["All"],
        )
        with reading(QueueUnavailable, "ReceiveMessage"):
            return [_received_message(message) for message in optional_member(answer, "Messages", list) or ()]

    @blocking
    def send(self, queue: str, messages: Sequence[OutgoingMessage]) -> Calls[Sequence[EntryFailure | None]]:
        results = sqs_rules.check_send_batch(queue, messages)  # what SQS would refuse is not sent: it fails the others
        passing = [index for index, failure in enumerate(results) if failure is None]
        sent = yield from self._send_all(queue, [messages[index] for index in passing])
        for index, result in zip(passing, sent, strict=True):
            results[index] = result
        return results

    @blocking
    def delete(self, queue: str, receipt_handles: Sequence[str]) -> Calls[Sequence[EntryFailure | None]]:
        entries = [{"ReceiptHandle": handle} for handle in receipt_handles]
        return (yield from self._handle_batch(queue, "delete_message_batch", entries))

    @blocking
    def change_visibility(self, queue: str, changes: Sequence[tuple[str, int]]) -> Calls[Sequence[EntryFailure | None]]:
        entries = [{"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle, seconds in changes]
        return (yield from self._handle_batch(queue, "change_message_visibility_batch", entries))

    @blocking
    def dead_letter_queue(self, queue: str) -> Calls[str | None]:
        policy = yield from self._attribute(queue, "RedrivePolicy")
        if not policy:
            return None
        try:
            return member(json.loads(policy), "deadLetterTargetArn", str).rpartition(":")[2]
        except (Garbled, json.JSONDecodeError, RecursionError) as error:
            raise QueueUnavailable(f"GetQueueAttributes: a garbled redrive policy: {policy[:200]!r}") from error

    @blocking
    def approximate_number_of_messages(self, queue: str) -> Calls[int]:
        count = yield from self._attribute(queue, "ApproximateNumberOfMessages")
        if count is None or not count.isdecimal():
            raise QueueUnavailable(f"GetQueueAttributes: a garbled number of messages: {count!r}")
        return int(count)

    def close(self) -> None:
        """Close the connections that are not in use. Closing twice is fine."""
        self._client.api.close()
        self._receiving_client.api.close()

    def _attribute(self, queue: str, name: str) -> Calls[str | None]:
        answer = yield from self._call(queue, self._client, "get_queue_attributes", AttributeNames=[name])
        attributes: Mapping[str, str] = answer.get("Attributes") or {}
        return attributes.get(name)

    def _send_all(self, queue: str, messages: Sequence[OutgoingMessage]) -> Calls[Sequence[EntryFailure | None]]:
        """Send; in halves if SQS refuses the whole batch (a queue may have a smaller limit than 1 MiB)."""
        if not messages:
            return []
        entries = [{"Id": str(index), **_entry(message)} for index, message in enumerate(messages)]
        try:
            answer = yield from self._call(queue, self._client, "send_message_batch", Entries=entries)
        except _BatchRefused as refusal:
            if len(messages) == 1:
                return [refusal.failure]
            middle = len(messages) // 2
            first = yield from self._send_all(queue, messages[:middle])
            return [*first, *(yield from self._send_all(queue, messages[middle:]))]
        with reading(QueueUnavailable, "SendMessageBatch"):
            results = _results(answer, len(messages))
            digests = {
                optional_member(entry, "Id", str): optional_member(entry, "MD5OfMessageBody", str)
                for entry in optional_member(answer, "Successful", list) or ()
            }
        for index, message in enumerate(messages):
            expected = sqs_rules.body_md5(message.body)
            if results[index] is None and digests[str(index)] != expected:
                detail = f"SQS has a body of MD5 {digests[str(index)]}, {expected} was sent"
                results[index] = EntryFailure("Md5Mismatch", detail, False)
        return results

    def _handle_batch(
        self, queue: str, operation: str, entries: Sequence[Mapping[str, object]]
    ) -> Calls[Sequence[EntryFailure | None]]:
        crowd = sqs_rules.check_handle_batch(len(entries))
        if crowd or not entries:
            return crowd or []
        numbered = [{"Id": str(index), **entry} for index, entry in enumerate(entries)]
        answer = yield from self._call(queue, self._client, operation, Entries=numbered)
        with reading(QueueUnavailable, operation):
            return _results(answer, len(entries))

    def _call(self, queue: str, client: Client, operation: str, **parameters: object) -> Calls[Any]:
        try:
            url = yield from self._url(queue)
            return (yield from call(QueueUnavailable, client, operation, QueueUrl=url, **parameters))
        except ClientError as error:
            code = error_code(error)
            if code in _REFUSED:
                self._urls.pop(queue, None)
                raise QueueRefused(queue, describe(error)) from error
            if operation == "send_message_batch" and code in _DIVISIBLE:
                raise _BatchRefused(EntryFailure(code, describe(error), True)) from error
            raise not_done(QueueUnavailable, error) from error

    def _url(self, queue: str) -> Calls[str]:
        url = self._urls.get(queue)
        if url is None:
            fault = sqs_rules.queue_name_fault(queue)
            if fault:
                raise QueueRefused(queue, fault)
            answer = yield from call(QueueUnavailable, self._client, "get_queue_url", QueueName=queue)
            url = answer.get("QueueUrl")
            if not url:
                raise QueueUnavailable("GetQueueUrl: the answer lacks the URL")
            self._urls[queue] = url
        return url


class _BatchRefused(Exception):
    """SQS refused a whole send batch; ``failure`` is the result for a batch of one."""

    def __init__(self, failure: EntryFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def _entry(message: OutgoingMessage) -> dict[str, Any]:
    attributes = {name: {"DataType": "String", "StringValue": value} for name, value in message.attributes.items()}
    entry = {"MessageBody": message.body, "MessageAttributes": attributes}
    if message.group_id is None:
        return entry
    return {**entry, "MessageGroupId": message.group_id, "MessageDeduplicationId": message.deduplication_id}


def _results(answer: Mapping[str, Any], count: int) -> list[EntryFailure | None]:
    """Return one value an entry: failed if the answer says so, or does not mention the entry."""
    missing = EntryFailure("NotConfirmed", "the answer does not mention this entry", False)
    results: dict[str | None, EntryFailure | None] = {str(index): missing for index in range(count)}
    for kind in ("Successful", "Failed"):
        for entry in optional_member(answer, kind, list) or ():
            entry_id = optional_member(entry, "Id", str)
            if entry_id not in results:
                continue
            results[entry_id] = None
            if kind == "Failed":
                code, words = (optional_member(entry, name, str) or "" for name in ("Code", "Message"))
                results[entry_id] = EntryFailure(code, told(words), entry.get("SenderFault") is True)
    return list(results.values())


def _received_message(message: object) -> ReceivedMessage:
    system = optional_member(message, "Attributes", dict) or {}
    attributes = optional_member(message, "MessageAttributes", dict) or {}
    return ReceivedMessage(
        message_id=member(message, "MessageId", str),
        receipt_handle=member(message, "ReceiptHandle", str),
        body=member(message, "Body", str),
        body_md5=member(message, "MD5OfBody", str),
        attributes={name: _text(attribute) for name, attribute in attributes.items()},
        approximate_receive_count=integer(optional_member(system, "ApproximateReceiveCount", str) or "1"),
        sent_at_seconds=integer(optional_member(system, "SentTimestamp", str) or "0") / 1000,
        aws_trace_header=optional_member(system, "AWSTraceHeader", str),
        group_id=optional_member(system, "MessageGroupId", str),
    )


def _text(attribute: object) -> str:
    """Read a message attribute of any type: ``String``, ``Number``, ``Binary``; empty: bytes that are no UTF-8."""
    if (optional_member(attribute, "DataType", str) or "").partition(".")[0] != "Binary":
        return optional_member(attribute, "StringValue", str) or ""
    value = member(attribute, "BinaryValue", object)
    try:
        # A transport leaves bytes in base64.
        return (value if isinstance(value, bytes) else base64.b64decode(str(value), validate=True)).decode()
    except ValueError:
        return ""
