"""SQS's JSON protocol over ``queues``: what a client of SQS may ask for, and how it is refused.

A receive takes its messages when its answer goes out, that is after the latency; sends, deletes and changes are done
when the request is in, and answered after the latency.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from receipt_actors.sandbox.services.protocol import AwsError, Connection, Request, aws_ok, dumps
from receipt_actors.sandbox.services.queues import Content, FifoQueue, InvalidHandle, Message, NotInFlight, Queue
from receipt_actors.sandbox.services.sqs_messages import (
    ACCOUNT,
    MAX_BATCH_BYTES,
    MAX_BATCH_ENTRIES,
    Fields,
    attributes_md5,
    checked_content,
    checked_entries,
    checked_seconds,
    encoded,
    size_bytes,
)

logger = logging.getLogger(__name__)

REGION = "eu-west-1"
DEFAULT_VISIBILITY_SECONDS = 30
FIFO_SUFFIX = ".fifo"

_TARGET = b"x-amz-target: amazonsqs."
_NAMESPACE = "com.amazonaws.sqs"
_NO_SUCH_QUEUE = "AWS.SimpleQueueService.NonExistentQueue"


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
        if (old := self.queues.get(name)) is not None:
            self._polls.pop(old, None)
            if (timer := self._revealing.pop(old, None)) is not None:
                timer.cancel()
        kind = FifoQueue if name.endswith(FIFO_SUFFIX) else Queue
        queue = self.queues[name] = kind(name, keep_deleted=keep_deleted)
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
            except (ValueError, RecursionError):
                raise AwsError("SerializationException", "the body is no JSON") from None
            try:
                answer = operation(connection, fields)
            except (AttributeError, KeyError, TypeError) as error:  # a request of another shape, or a bug of ours
                logger.warning("%s could not be carried out", name, exc_info=True)
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
            checked_seconds(fields.get("VisibilityTimeout", DEFAULT_VISIBILITY_SECONDS)),
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
        parts = [encoded(message, poll.system_attributes, poll.message_attributes) for message in messages]
        poll.connection.respond(aws_ok(b'{"Messages":[%b]}' % b",".join(parts)))
        self.entries["ReceiveMessage"] += len(messages)
        now = time.monotonic()
        for message in messages:
            if message.first_received_at is None:
                message.first_received_at = now

    def _end_poll(self, poll: _Poll) -> None:
        if poll.queue in self._polls:  # not where it has been replaced
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
        queue, entries = self._queue(fields), checked_entries(fields)
        if sum(map(size_bytes, entries)) > MAX_BATCH_BYTES:
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
        if size_bytes(fields) > MAX_BATCH_BYTES:
            raise AwsError("InvalidParameterValue", "One or more parameters are invalid: more than 1048576 bytes.")
        self.entries["SendMessage"] += 1
        sent = self._put(queue, fields)
        self.wake(queue)
        return aws_ok(dumps(sent))

    def _put(self, queue: Queue, fields: Fields) -> dict[str, str]:
        content = checked_content(fields, is_fifo=isinstance(queue, FifoQueue))
        repeated = None
        if isinstance(queue, FifoQueue):
            repeated = queue.repeated(content.deduplication_id, content.message_id, time.monotonic())
        if repeated is not None:
            return {"MessageId": repeated, "MD5OfMessageBody": content.body_md5}
        queue.put(content, int(time.time() * 1000))
        if self.on_sent is not None:
            self.on_sent(queue, content, time.monotonic())
        sent = {"MessageId": content.message_id, "MD5OfMessageBody": content.body_md5}
        if content.attributes:
            sent["MD5OfMessageAttributes"] = attributes_md5(content.attributes)
        return sent

    def _delete_batch(self, _connection: Connection, fields: Fields) -> bytes:
        queue, entries, now = self._queue(fields), checked_entries(fields), time.monotonic()
        self.entries["DeleteMessageBatch"] += len(entries)
        answer = _batch_answer(entries, lambda entry: _delete(queue, entry["ReceiptHandle"], now))
        self._deleted(queue)
        return answer

    def _delete(self, _connection: Connection, fields: Fields) -> bytes:
        self.entries["DeleteMessage"] += 1
        queue = self._queue(fields)
        _delete(queue, fields["ReceiptHandle"], time.monotonic())
        self._deleted(queue)
        return aws_ok(b"{}")

    def _deleted(self, queue: Queue) -> None:
        """What is behind it in its group may be received."""
        if isinstance(queue, FifoQueue) and self._polls[queue]:
            self.wake(queue)

    def _change_batch(self, _connection: Connection, fields: Fields) -> bytes:
        queue, entries = self._queue(fields), checked_entries(fields)
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
        attributes = fields.get("Attributes") or {}
        unknown = attributes.keys() - {"ContentBasedDeduplication", "FifoQueue", "RedrivePolicy"}
        if unknown or attributes.get("ContentBasedDeduplication") == "true":
            raise AwsError("InvalidAttributeName", f"{', '.join(sorted(attributes))}: not all of this is simulated")
        if (attributes.get("FifoQueue") == "true") != name.endswith(FIFO_SUFFIX):
            raise AwsError("InvalidParameterValue", f"{name}: a FIFO queue's name ends in .fifo, and no other's does")
        queue = self.queues.get(name) or self.create_queue(name)
        if "RedrivePolicy" in attributes:
            policy = json.loads(attributes["RedrivePolicy"])
            dead_letter_queue = self.queues[policy["deadLetterTargetArn"].rpartition(":")[2]]
            if isinstance(dead_letter_queue, FifoQueue) != isinstance(queue, FifoQueue):
                raise AwsError("InvalidParameterValue", "a dead-letter queue is of the kind of its source queue")
            queue.redrive_to(dead_letter_queue, int(policy["maxReceiveCount"]))
        return aws_ok(dumps({"QueueUrl": self._url(queue)}))

    def _url(self, queue: Queue) -> str:
        return f"{self.url}/{ACCOUNT}/{queue.name}"

    def _queue(self, fields: Fields) -> Queue:
        queue = self.queues.get(fields["QueueUrl"].rpartition("/")[2])
        if queue is None:
            raise _no_such_queue()
        return queue


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
        queue.change_visibility(fields["ReceiptHandle"], checked_seconds(fields["VisibilityTimeout"]), time.monotonic())
    except InvalidHandle:
        raise _invalid_handle() from None
    except NotInFlight:
        raise AwsError(
            "MessageNotInflight", "not in flight", query_code="AWS.SimpleQueueService.MessageNotInflight"
        ) from None


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
