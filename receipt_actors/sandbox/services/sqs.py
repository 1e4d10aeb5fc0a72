"""SQS's JSON protocol over ``queues``: what a client of SQS may ask for, and how it is refused.

A receive takes its messages when its answer goes out, that is after the latency; sends, deletes and changes are done
when the request is in, and answered after the latency.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from receipt_actors.sandbox.services.protocol import AwsError, Connection, Request, aws_ok, dumps
from receipt_actors.sandbox.services.queues import (
    MAX_VISIBILITY_SECONDS,
    Content,
    InvalidHandle,
    Message,
    NotInFlight,
    Queue,
)

ACCOUNT = "123456789012"
REGION = "eu-west-1"
MAX_BATCH_ENTRIES = 10
MAX_BATCH_BYTES = 1024 * 1024
DEFAULT_VISIBILITY_SECONDS = 30

_TARGET = b"x-amz-target: amazonsqs."
_NAMESPACE = "com.amazonaws.sqs"
_NOT_ALLOWED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_SUCH_QUEUE = "AWS.SimpleQueueService.NonExistentQueue"

Fields = Mapping[str, Any]


@dataclass(slots=True, eq=False)
class _Poll:
    """A receive that waits for messages."""

    connection: Connection
    queue: Queue
    max_messages: int
    visibility_seconds: float
    system_attributes: frozenset[str]
    message_attributes: frozenset[str]
    timer: asyncio.TimerHandle | None = None


class SimulatedSqs:
    """The service. ``requests`` and ``entries`` count what was asked for, by operation.

    ``on_sent`` is told of every message that was sent, and when its request came in (monotonic).
    """

    def __init__(self, latency_seconds: float) -> None:
        self.latency_seconds = latency_seconds
        self.queues: dict[str, Queue] = {}
        self.requests: Counter[str] = Counter()
        self.entries: Counter[str] = Counter()
        self.held: Queue | None = None  #: a queue that gives nothing for now: receives wait
        self.is_patient = True  #: False: nobody waits for messages any more
        self.first_receive_at: float | None = None  #: when the first request for messages came in
        self.url = ""  #: of this service, for the URLs of queues
        self.on_sent: Callable[[Queue, Content, float], None] | None = None
        self._polls: defaultdict[Queue, list[_Poll]] = defaultdict(list)
        self._revealing: dict[Queue, asyncio.TimerHandle] = {}
        self._operations: dict[bytes, tuple[str, Callable[[Connection, Fields], bytes | None]]] = {
            name.lower().encode(): (name, operation)
            for name, operation in {
                "ReceiveMessage": self._receive,
                "SendMessageBatch": self._send_batch,
                "SendMessage": self._send,
                "DeleteMessageBatch": self._delete_batch,
                "DeleteMessage": self._delete,
                "ChangeMessageVisibilityBatch": self._change_batch,
                "ChangeMessageVisibility": self._change,
                "GetQueueUrl": self._get_url,
                "GetQueueAttributes": self._get_attributes,
                "CreateQueue": self._create,
            }.items()
        }

    def create_queue(self, name: str, *, keep_deleted: bool = False) -> Queue:
        """Make a queue, in the place of the one of that name if there is one."""
        queue = self.queues[name] = Queue(name, keep_deleted=keep_deleted)
        return queue

    def handle(self, connection: Connection, request: Request) -> bool:
        """Answer a request, unless it is none for SQS."""
        start = request.head.find(_TARGET)
        if start < 0:
            return False
        start += len(_TARGET)
        end = request.head.find(b"\r\n", start)
        target = request.head[start:end] if end > 0 else request.head[start:]
        try:
            name, operation = self._operations.get(target) or _no_operation(target)
            self.requests[name] += 1
            try:
                fields = json.loads(request.body)
            except ValueError:
                raise AwsError("SerializationException", "the body is no JSON") from None
            try:
                answer = operation(connection, fields)
            except (AttributeError, KeyError, TypeError) as error:
                raise AwsError("MissingRequiredParameterException", f"{type(error).__name__}: {error}") from None
        except AwsError as error:
            answer = error.response(_NAMESPACE)
        if answer is not None:
            connection.respond(answer, self.latency_seconds)
        return True

    def wake(self, queue: Queue) -> None:
        """Let those who wait for messages of a queue have what is there now."""
        polls = self._polls[queue]
        while polls and queue is not self.held:
            poll = polls[0]
            messages = queue.take(poll.max_messages, poll.visibility_seconds, time.monotonic())
            if not messages:
                self._wake_when_revealed(queue)
                return
            self._end_poll(poll)
            self._deliver(poll, messages)

    def end_polls(self) -> None:
        """Answer those who wait with nothing, and let nobody wait from now on."""
        self.is_patient = False
        for polls in list(self._polls.values()):
            for poll in tuple(polls):
                self._end_poll(poll)
                self._deliver(poll, [])

    # --- operations: the answer, or None where it comes later ---

    def _receive(self, connection: Connection, fields: Fields) -> None:
        if self.first_receive_at is None:
            self.first_receive_at = time.monotonic()
        poll = _Poll(
            connection,
            self._queue(fields),
            int(fields.get("MaxNumberOfMessages", 1)),
            _seconds(fields.get("VisibilityTimeout", DEFAULT_VISIBILITY_SECONDS)),
            frozenset(fields.get("MessageSystemAttributeNames") or fields.get("AttributeNames") or ()),
            frozenset(fields.get("MessageAttributeNames") or ()),
        )
        if not 1 <= poll.max_messages <= MAX_BATCH_ENTRIES:
            raise AwsError("InvalidParameterValue", "MaxNumberOfMessages: expected 1 to 10")
        wait_seconds = float(fields.get("WaitTimeSeconds", 0))
        connection.after(self.latency_seconds, lambda: self._poll(poll, wait_seconds))

    def _poll(self, poll: _Poll, wait_seconds: float) -> None:
        queue = poll.queue
        if queue is not self.held:
            messages = queue.take(poll.max_messages, poll.visibility_seconds, time.monotonic())
            if messages or wait_seconds <= 0:
                self._deliver(poll, messages)
                return
        if not self.is_patient:
            wait_seconds = min(wait_seconds, 0.05)
        polls = self._polls[queue]
        polls.append(poll)
        poll.connection.on_lost = lambda: self._end_poll(poll)
        poll.timer = asyncio.get_running_loop().call_later(wait_seconds, self._poll_in_vain, poll)
        self._wake_when_revealed(queue)

    def _poll_in_vain(self, poll: _Poll) -> None:
        self._end_poll(poll)
        self._deliver(poll, [])

    def _deliver(self, poll: _Poll, messages: list[Message]) -> None:
        if not messages:
            poll.connection.respond(aws_ok(b"{}"))
            return
        encoded = b",".join([_encoded(message, poll) for message in messages])
        poll.connection.respond(aws_ok(b'{"Messages":[%b]}' % encoded))
        self.entries["ReceiveMessage"] += len(messages)
        now = time.monotonic()
        for message in messages:
            if message.first_received_at is None:
                message.first_received_at = now

    def _end_poll(self, poll: _Poll) -> None:
        self._polls[poll.queue].remove(poll)
        poll.connection.on_lost = None
        if poll.timer is not None:
            poll.timer.cancel()

    def _wake_when_revealed(self, queue: Queue) -> None:
        reveal_at = queue.next_reveal_at()
        if reveal_at is None or queue in self._revealing:
            return

        def wake() -> None:
            del self._revealing[queue]
            if self._polls[queue]:
                self.wake(queue)

        delay_seconds = max(0.0, reveal_at - time.monotonic()) + 0.001
        self._revealing[queue] = asyncio.get_running_loop().call_later(delay_seconds, wake)

    def _send_batch(self, _connection: Connection, fields: Fields) -> bytes:
        queue, entries = self._queue(fields), _entries(fields)
        if sum(map(_size_bytes, entries)) > MAX_BATCH_BYTES:
            raise AwsError(
                "BatchRequestTooLong",
                "Batch requests cannot be longer than 1048576 bytes.",
                query_code="AWS.SimpleQueueService.BatchRequestTooLong",
            )
        self.entries["SendMessageBatch"] += len(entries)
        successful, failed = [], []
        for entry in entries:
            try:
                successful.append({"Id": entry["Id"], **self._put(queue, entry)})
            except AwsError as error:
                failed.append(_failed(entry["Id"], error))
        self.wake(queue)
        return aws_ok(dumps({"Successful": successful, "Failed": failed} if failed else {"Successful": successful}))

    def _send(self, _connection: Connection, fields: Fields) -> bytes:
        queue = self._queue(fields)
        if _size_bytes(fields) > MAX_BATCH_BYTES:
            raise AwsError("InvalidParameterValue", "One or more parameters are invalid: more than 1048576 bytes.")
        self.entries["SendMessage"] += 1
        sent = self._put(queue, fields)
        self.wake(queue)
        return aws_ok(dumps(sent))

    def _put(self, queue: Queue, fields: Fields) -> dict[str, str]:
        body = fields["MessageBody"]
        if not body or _NOT_ALLOWED.search(body):
            raise AwsError("InvalidMessageContents", "empty, or with characters that XML does not have")
        attributes = fields.get("MessageAttributes") or {}
        if len(attributes) > MAX_BATCH_ENTRIES:
            raise AwsError("InvalidParameterValue", f"{len(attributes)} message attributes: expected 10 at most")
        for name, attribute in attributes.items():
            value = attribute.get("StringValue", attribute.get("BinaryValue"))
            if not name or not attribute["DataType"] or not value or _NOT_ALLOWED.search(value):
                raise AwsError("InvalidParameterValue", f"message attribute {name!r}: empty, or not allowed")
        content = make_content(body, attributes)
        queue.put(content, int(time.time() * 1000))
        if self.on_sent is not None:
            self.on_sent(queue, content, time.monotonic())
        sent = {"MessageId": content.message_id, "MD5OfMessageBody": content.body_md5}
        if attributes:
            sent["MD5OfMessageAttributes"] = attributes_md5(attributes)
        return sent

    def _delete_batch(self, _connection: Connection, fields: Fields) -> bytes:
        queue, entries, now = self._queue(fields), _entries(fields), time.monotonic()
        self.entries["DeleteMessageBatch"] += len(entries)
        return _batch_answer(entries, lambda entry: _delete(queue, entry["ReceiptHandle"], now))

    def _delete(self, _connection: Connection, fields: Fields) -> bytes:
        self.entries["DeleteMessage"] += 1
        _delete(self._queue(fields), fields["ReceiptHandle"], time.monotonic())
        return aws_ok(b"{}")

    def _change_batch(self, _connection: Connection, fields: Fields) -> bytes:
        queue, entries = self._queue(fields), _entries(fields)
        self.entries["ChangeMessageVisibilityBatch"] += len(entries)
        answer = _batch_answer(entries, lambda entry: _change_visibility(queue, entry))
        self._changed(queue)
        return answer

    def _change(self, _connection: Connection, fields: Fields) -> bytes:
        queue = self._queue(fields)
        self.entries["ChangeMessageVisibility"] += 1
        _change_visibility(queue, fields)
        self._changed(queue)
        return aws_ok(b"{}")

    def _changed(self, queue: Queue) -> None:
        """A message may be visible again at once, or sooner than the one that was waited for."""
        timer = self._revealing.pop(queue, None)
        if timer is not None:
            timer.cancel()
        if self._polls[queue]:
            self.wake(queue)

    def _get_url(self, _connection: Connection, fields: Fields) -> bytes:
        queue = self.queues.get(fields["QueueName"])
        if queue is None:
            raise _no_such_queue()
        return aws_ok(dumps({"QueueUrl": self._url(queue)}))

    def _get_attributes(self, _connection: Connection, fields: Fields) -> bytes:
        queue = self._queue(fields)
        visible, hidden = queue.count(time.monotonic())
        known = {
            "ApproximateNumberOfMessages": str(visible),
            "ApproximateNumberOfMessagesNotVisible": str(hidden),
            "ApproximateNumberOfMessagesDelayed": "0",
            "QueueArn": _arn(queue),
        }
        if queue.dead_letter_queue is not None:
            policy = {
                "deadLetterTargetArn": _arn(queue.dead_letter_queue),
                "maxReceiveCount": queue.max_receive_count,
            }
            known["RedrivePolicy"] = json.dumps(policy)
        wanted = fields.get("AttributeNames") or ()
        found = {name: value for name, value in known.items() if name in wanted or "All" in wanted}
        return aws_ok(dumps({"Attributes": found} if found else {}))

    def _create(self, _connection: Connection, fields: Fields) -> bytes:
        name = fields["QueueName"]
        queue = self.queues.get(name) or self.create_queue(name)
        attributes = fields.get("Attributes") or {}
        unknown = attributes.keys() - {"RedrivePolicy"}
        if unknown:
            raise AwsError("InvalidAttributeName", f"{', '.join(sorted(unknown))}: not simulated")
        if attributes:
            policy = json.loads(attributes["RedrivePolicy"])
            dead_letter_queue = self.queues[policy["deadLetterTargetArn"].rpartition(":")[2]]
            queue.redrive_to(dead_letter_queue, int(policy["maxReceiveCount"]))
        return aws_ok(dumps({"QueueUrl": self._url(queue)}))

    def _url(self, queue: Queue) -> str:
        return f"{self.url}/{ACCOUNT}/{queue.name}"

    def _queue(self, fields: Fields) -> Queue:
        queue = self.queues.get(fields["QueueUrl"].rpartition("/")[2])
        if queue is None:
            raise _no_such_queue()
        return queue


def make_content(body: str, attributes: Mapping[str, dict[str, str]]) -> Content:
    """Encode a message that is sent now."""
    encoded = body.encode()
    md5 = hashlib.md5(encoded, usedforsecurity=False).hexdigest()
    return Content(str(uuid.uuid4()), dumps(body), md5, dict(attributes))


def attributes_md5(attributes: Mapping[str, Mapping[str, str]]) -> str:
    """The sum of message attributes, as SQS's manual defines it (of those that are strings or numbers)."""
    parts = []
    for name, attribute in sorted(attributes.items()):
        for text in (name, attribute["DataType"]):
            encoded = text.encode()
            parts += [len(encoded).to_bytes(4, "big"), encoded]
        value = attribute.get("StringValue", "").encode()
        parts += [b"\x01", len(value).to_bytes(4, "big"), value]
    return hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()


def _encoded(message: Message, poll: _Poll) -> bytes:
    content = message.content
    more = b""
    if poll.system_attributes:
        everything = "All" in poll.system_attributes
        system = {
            name: value
            for name, value in (
                ("ApproximateReceiveCount", str(message.receive_count)),
                ("SentTimestamp", str(message.sent_at_ms)),
                ("SenderId", ACCOUNT),
            )
            if everything or name in poll.system_attributes
        }
        more = b',"Attributes":' + dumps(system)
    if content.attributes and poll.message_attributes:
        wanted = {
            name: value
            for name, value in content.attributes.items()
            if name in poll.message_attributes or "All" in poll.message_attributes
        }
        if wanted:
            more += b',"MD5OfMessageAttributes":"%b","MessageAttributes":%b' % (
                attributes_md5(wanted).encode(),
                dumps(wanted),
            )
    return b'{"MessageId":"%b","ReceiptHandle":"%d.%d","MD5OfBody":"%b","Body":%b%b}' % (
        content.message_id.encode(),
        message.number,
        message.receive_count,
        content.body_md5.encode(),
        content.body_json,
        more,
    )


def _entries(fields: Fields) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = fields["Entries"]
    if not entries:
        raise AwsError("EmptyBatchRequest", "no entries", query_code="AWS.SimpleQueueService.EmptyBatchRequest")
    if len(entries) > MAX_BATCH_ENTRIES:
        raise AwsError(
            "TooManyEntriesInBatchRequest",
            f"Maximum number of entries per request are 10. You have sent {len(entries)}.",
            query_code="AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
        )
    if len({entry["Id"] for entry in entries}) != len(entries):
        raise AwsError(
            "BatchEntryIdsNotDistinct",
            "an Id is repeated",
            query_code="AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
        )
    return entries


def _size_bytes(fields: Fields) -> int:
    size = _bytes(fields["MessageBody"])
    for name, attribute in (fields.get("MessageAttributes") or {}).items():
        size += _bytes(name) + _bytes(attribute["DataType"])
        size += _bytes(attribute.get("StringValue", attribute.get("BinaryValue", "")))
    return size


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))  # a lone surrogate is refused later, entry by entry


def _batch_answer(entries: list[dict[str, Any]], action: Callable[[Fields], None]) -> bytes:
    successful: list[dict[str, str]] = []
    failed = []
    for entry in entries:
        try:
            action(entry)
        except AwsError as error:
            failed.append(_failed(entry["Id"], error))
        else:
            successful.append({"Id": entry["Id"]})
    return aws_ok(dumps({"Successful": successful, "Failed": failed} if failed else {"Successful": successful}))


def _failed(entry_id: str, error: AwsError) -> dict[str, object]:
    return {"Id": entry_id, "Code": error.code, "Message": error.message, "SenderFault": True}


def _delete(queue: Queue, receipt_handle: str, now: float) -> None:
    try:
        queue.delete(receipt_handle, now)
    except InvalidHandle:
        raise _invalid_handle() from None


def _change_visibility(queue: Queue, fields: Fields) -> None:
    try:
        queue.change_visibility(fields["ReceiptHandle"], _seconds(fields["VisibilityTimeout"]), time.monotonic())
    except InvalidHandle:
        raise _invalid_handle() from None
    except NotInFlight:
        raise AwsError(
            "MessageNotInflight", "not in flight", query_code="AWS.SimpleQueueService.MessageNotInflight"
        ) from None


def _seconds(value: object) -> float:
    if not isinstance(value, int) or not 0 <= value <= MAX_VISIBILITY_SECONDS:
        raise AwsError("InvalidParameterValue", f"VisibilityTimeout: expected 0 to {MAX_VISIBILITY_SECONDS}")
    return float(value)


def _invalid_handle() -> AwsError:
    return AwsError(
        "ReceiptHandleIsInvalid", "The input receipt handle is invalid.", query_code="ReceiptHandleIsInvalid"
    )


def _arn(queue: Queue) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.name}"


def _no_such_queue() -> AwsError:
    return AwsError("QueueDoesNotExist", "The specified queue does not exist.", query_code=_NO_SUCH_QUEUE)


def _no_operation(target: bytes) -> Any:
    raise AwsError("UnknownOperationException", f"{target.decode('latin-1')} is not simulated")
