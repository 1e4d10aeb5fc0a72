"""SQS's JSON protocol over ``sandbox.queues``: what a client of SQS may ask for, and how it is refused.

A receive takes its messages when its answer goes out, that is after the latency; sends, deletes and changes are done
when the request is in, and answered after the latency.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from receipt_actors.domain import sqs_rules
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, EntryFailure, OutgoingMessage
from receipt_actors.domain.sqs_rules import dead_letter_queue_fault, is_fifo
from receipt_actors.sandbox import queues
from receipt_actors.sandbox.http_server import Connection, dumps
from receipt_actors.sandbox.queues import make_queue
from receipt_actors.sandbox.services.aws import AwsError, AwsService, Fields, Operation, aws_ok

REGION = "eu-west-1"
ACCOUNT = "123456789012"
DEFAULT_VISIBILITY_SECONDS = 30
IMPATIENT_SECONDS = 0.05  #: for which a receive waits at most, once polls have been ended

_QUERY_PREFIX = "AWS.SimpleQueueService."
_PREFIXED = {  # error codes that the older protocol has with that prefix
    "EmptyBatchRequest",
    "BatchEntryIdsNotDistinct",
    sqs_rules.TOO_MANY_ENTRIES,
    sqs_rules.BATCH_REQUEST_TOO_LONG,
    sqs_rules.MESSAGE_NOT_IN_FLIGHT,
}


@dataclass(frozen=True, slots=True)
class Content:
    """What a message holds, encoded once: it may be received any number of times, in any number of runs."""

    message_id: str
    body_json: bytes  #: the body as a JSON string, quotes included
    body_md5: str
    attributes: Mapping[str, Mapping[str, str]]  #: message attributes, as they were sent
    deduplication_id: str | None = None


Message = queues.Message[Content]
Queue = queues.Queue[Content]
_Outcome = EntryFailure | Mapping[str, str]
_CarryOut = Callable[[Queue, Sequence[Fields]], Sequence[_Outcome]]


def make_content(
    body: str, attributes: Mapping[str, Mapping[str, str]] = {}, deduplication_id: str | None = None
) -> Content:
    return Content(str(uuid.uuid4()), dumps(body), sqs_rules.body_md5(body), attributes, deduplication_id)


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


@dataclass(slots=True, eq=False)
class _Poll:
    connection: Connection
    queue: Queue
    fields: Fields
    timer: asyncio.TimerHandle | None = None

    def take(self) -> Sequence[Message]:
        count, visibility_seconds = int(self.fields.get("MaxNumberOfMessages", 1)), _visibility_seconds(self.fields)
        return self.queue.take(count, visibility_seconds, time.monotonic())


class SimulatedSqs(AwsService):
    namespace = "com.amazonaws.sqs"
    malformed = "MissingRequiredParameterException"

    def __init__(self, latency_seconds: float) -> None:
        operations: dict[str, Operation] = {
            "ReceiveMessage": self._receive,
            "GetQueueUrl": lambda fields: aws_ok(dumps({"QueueUrl": self._url(self._find(fields["QueueName"]))})),
            "GetQueueAttributes": self._get_attributes,
            "CreateQueue": self._create,
        }
        for name, carry_out in (
            ("SendMessage", self._send),
            ("DeleteMessage", self._delete),
            ("ChangeMessageVisibility", self._change_visibility),
        ):
            operations[name] = partial(self._single, name, carry_out)
            operations[f"{name}Batch"] = partial(self._batch, f"{name}Batch", carry_out)
        super().__init__(latency_seconds, operations)
        self.queues: dict[str, Queue] = {}
        self.held: Queue | None = None  #: a queue that gives nothing for now: receives wait
        self.is_patient = True  #: False: receives wait for messages no longer
        self.first_receive_at: float | None = None  #: when the first request for messages came in
        self.url = ""  #: of this service, for the URLs of queues
        #: Called with every message that was sent, when its request comes in (monotonic).
        self.on_sent: Callable[[Queue, Content, float], None] = lambda queue, content, now: None
        self._polls: defaultdict[Queue, list[_Poll]] = defaultdict(list)
        self._revealing: dict[Queue, asyncio.TimerHandle] = {}

    def create_queue(self, name: str) -> Queue:
        """Make a queue, in the place of the one of that name if there is one."""
        if (old := self.queues.get(name)) is not None:
            self._polls.pop(old, None)
            self._forget_reveal(old)
        queue: Queue = make_queue(name)
        self.queues[name] = queue
        return queue

    def wake(self, queue: Queue) -> None:
        """Give the receives that wait for messages of a queue what is there now."""
        polls = self._polls[queue]
        while polls and queue is not self.held:
            messages = polls[0].take()
            if not messages:
                self._wake_when_revealed(queue)
                return
            self._end_poll(polls[0], messages)

    def end_polls(self) -> None:
        """Answer the receives that wait with nothing, and let none wait from now on."""
        self.is_patient = False
        for poll in [poll for polls in self._polls.values() for poll in polls]:
            self._end_poll(poll, [])

    # --- receives ---

    def _receive(self, fields: Fields) -> Callable[[Connection], None]:
        if self.first_receive_at is None:
            self.first_receive_at = time.monotonic()
        queue = self._queue(fields)
        if not 1 <= int(fields.get("MaxNumberOfMessages", 1)) <= MAX_BATCH_ENTRIES:
            raise AwsError(sqs_rules.INVALID_PARAMETER, "MaxNumberOfMessages: expected 1 to 10")
        _raise(sqs_rules.visibility_fault(_visibility_seconds(fields)))
        wait_seconds = float(fields.get("WaitTimeSeconds", 0))

        def begin(connection: Connection) -> None:
            poll = _Poll(connection, queue, fields)
            connection.after(self.latency_seconds, lambda: self._poll(poll, wait_seconds))

        return begin

    def _poll(self, poll: _Poll, wait_seconds: float) -> None:
        messages = [] if poll.queue is self.held else poll.take()
        if messages or (wait_seconds <= 0 and poll.queue is not self.held):
            self._deliver(poll, messages)
            return
        if not self.is_patient:
            wait_seconds = min(wait_seconds, IMPATIENT_SECONDS)
        self._polls[poll.queue].append(poll)
        poll.connection.on_lost = lambda: self._forget_poll(poll)
        poll.timer = asyncio.get_running_loop().call_later(wait_seconds, self._end_poll, poll, [])
        self._wake_when_revealed(poll.queue)

    def _end_poll(self, poll: _Poll, messages: Sequence[Message]) -> None:
        self._forget_poll(poll)
        self._deliver(poll, messages)

    def _forget_poll(self, poll: _Poll) -> None:
        if poll.queue in self._polls:  # not where it has been replaced
            self._polls[poll.queue].remove(poll)
        poll.connection.on_lost = None
        if poll.timer is not None:
            poll.timer.cancel()

    def _deliver(self, poll: _Poll, messages: Sequence[Message]) -> None:
        fields = poll.fields
        system = frozenset(fields.get("MessageSystemAttributeNames") or fields.get("AttributeNames") or ())
        wanted = frozenset(fields.get("MessageAttributeNames") or ())
        parts = [_encoded(message, system, wanted) for message in messages]
        poll.connection.respond(aws_ok(b'{"Messages":[%b]}' % b",".join(parts) if parts else b"{}"))
        self.entries["ReceiveMessage"] += len(messages)

    def _wake_when_revealed(self, queue: Queue) -> None:
        reveal_at = queue.next_reveal_at()
        if reveal_at is None or queue in self._revealing:
            return

        def wake() -> None:
            del self._revealing[queue]
            self.wake(queue)

        delay_seconds = max(0.0, reveal_at - time.monotonic()) + 0.001
        self._revealing[queue] = asyncio.get_running_loop().call_later(delay_seconds, wake)

    def _forget_reveal(self, queue: Queue) -> None:
        timer = self._revealing.pop(queue, None)
        if timer is not None:
            timer.cancel()

    # --- the other operations ---

    def _single(self, name: str, carry_out: _CarryOut, fields: Fields) -> bytes:
        self.entries[name] += 1
        (outcome,) = carry_out(self._queue(fields), [fields])
        _raise(outcome)
        return aws_ok(dumps(outcome))

    def _batch(self, name: str, carry_out: _CarryOut, fields: Fields) -> bytes:
        queue, entries = self._queue(fields), fields["Entries"]
        if not entries:
            raise _refusal("EmptyBatchRequest", "no entries")
        if crowd := sqs_rules.check_handle_batch(len(entries)):
            _raise(crowd[0])
        if len({entry["Id"] for entry in entries}) != len(entries):
            raise _refusal("BatchEntryIdsNotDistinct", "an Id is repeated")
        self.entries[name] += len(entries)
        successful: list[Fields] = []
        failed: list[Fields] = []
        for entry, outcome in zip(entries, carry_out(queue, entries), strict=True):
            if isinstance(outcome, EntryFailure):
                code, detail, sender_fault = outcome.code, outcome.detail, outcome.sender_fault
                failed.append({"Id": entry["Id"], "Code": code, "Message": detail, "SenderFault": sender_fault})
            else:
                successful.append({"Id": entry["Id"], **outcome})
        return aws_ok(dumps({"Successful": successful, "Failed": failed} if failed else {"Successful": successful}))

    def _send(self, queue: Queue, entries: Sequence[Fields]) -> Sequence[_Outcome]:
        messages = [_outgoing(entry) for entry in entries]
        failures = sqs_rules.check_send_batch(queue.name, messages)
        _raise(next((each for each in failures if each and each.code == sqs_rules.BATCH_REQUEST_TOO_LONG), None))
        outcomes = [
            failure or self._put(queue, entry, message)
            for entry, message, failure in zip(entries, messages, failures, strict=True)
        ]
        self.wake(queue)
        return outcomes

    def _put(self, queue: Queue, entry: Fields, message: OutgoingMessage) -> dict[str, str]:
        content = make_content(message.body, entry.get("MessageAttributes") or {}, message.deduplication_id)
        now = time.monotonic()
        stored = queues.Message(content.message_id, content, time.time(), message.group_id)
        sent_id = queue.send(stored, now, message.deduplication_id)
        if sent_id == content.message_id:  # else it repeats another
            self.on_sent(queue, content, now)
        sent = {"MessageId": sent_id, "MD5OfMessageBody": content.body_md5}
        if content.attributes:
            sent["MD5OfMessageAttributes"] = attributes_md5(content.attributes)
        return sent

    def _delete(self, queue: Queue, entries: Sequence[Fields]) -> Sequence[_Outcome]:
        now = time.monotonic()
        outcomes = [_outcome(queue.delete(entry["ReceiptHandle"], now)) for entry in entries]
        if is_fifo(queue.name) and self._polls[queue]:  # what is behind it in its group may be received
            self.wake(queue)
        return outcomes

    def _change_visibility(self, queue: Queue, entries: Sequence[Fields]) -> Sequence[_Outcome]:
        now = time.monotonic()
        changes = [(entry["ReceiptHandle"], entry["VisibilityTimeout"]) for entry in entries]
        outcomes = [_outcome(queue.change_visibility(handle, seconds, now)) for handle, seconds in changes]
        # A message may be visible again at once, or sooner than the one that was waited for.
        self._forget_reveal(queue)
        if self._polls[queue]:
            self.wake(queue)
        return outcomes

    def _get_attributes(self, fields: Fields) -> bytes:
        queue = self._queue(fields)
        visible, hidden = queue.count(time.monotonic())
        known = {
            "ApproximateNumberOfMessages": str(visible),
            "ApproximateNumberOfMessagesNotVisible": str(hidden),
            "ApproximateNumberOfMessagesDelayed": "0",
            "QueueArn": _arn(queue),
        }
        if queue.dead_letter_queue is not None:
            policy = {"deadLetterTargetArn": _arn(queue.dead_letter_queue), "maxReceiveCount": queue.max_receive_count}
            known["RedrivePolicy"] = json.dumps(policy)
        found = _chosen(known, fields.get("AttributeNames") or ())
        return aws_ok(dumps({"Attributes": found} if found else {}))

    def _create(self, fields: Fields) -> bytes:
        name = fields["QueueName"]
        attributes = fields.get("Attributes") or {}
        unknown = attributes.keys() - {"ContentBasedDeduplication", "FifoQueue", "RedrivePolicy"}
        if unknown or attributes.get("ContentBasedDeduplication") == "true":
            raise AwsError("InvalidAttributeName", f"{', '.join(sorted(attributes))}: not all of this is simulated")
        if (attributes.get("FifoQueue") == "true") != is_fifo(name):
            expected = "a FIFO queue's name ends in .fifo, and no other's does"
            raise AwsError(sqs_rules.INVALID_PARAMETER, f"{name}: {expected}")
        queue = self.queues.get(name) or self.create_queue(name)
        if "RedrivePolicy" in attributes:
            policy = json.loads(attributes["RedrivePolicy"])
            dead_letter_queue = self._find(policy["deadLetterTargetArn"].rpartition(":")[2])
            if fault := dead_letter_queue_fault(name, dead_letter_queue.name):
                raise AwsError(sqs_rules.INVALID_PARAMETER, fault)
            queue.redrive_to(dead_letter_queue, int(policy["maxReceiveCount"]))
        return aws_ok(dumps({"QueueUrl": self._url(queue)}))

    def _url(self, queue: Queue) -> str:
        return f"{self.url}/{ACCOUNT}/{queue.name}"

    def _queue(self, fields: Fields) -> Queue:
        return self._find(fields["QueueUrl"].rpartition("/")[2])

    def _find(self, name: str) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            query_code = f"{_QUERY_PREFIX}NonExistentQueue"
            raise AwsError("QueueDoesNotExist", "The specified queue does not exist.", query_code=query_code)
        return queue


def _outgoing(entry: Fields) -> OutgoingMessage:
    sent = (entry.get("MessageAttributes") or {}).items()
    attributes = {name: attribute.get("StringValue", attribute.get("BinaryValue")) for name, attribute in sent}
    return OutgoingMessage(
        entry["MessageBody"], attributes, entry.get("MessageGroupId"), entry.get("MessageDeduplicationId")
    )


def _visibility_seconds(fields: Fields) -> int:
    seconds: int = fields.get("VisibilityTimeout", DEFAULT_VISIBILITY_SECONDS)
    return seconds


def _outcome(outcome: EntryFailure | Message | None) -> _Outcome:
    return outcome if isinstance(outcome, EntryFailure) else {}


def _encoded(message: Message, system_attributes: frozenset[str], message_attributes: frozenset[str]) -> bytes:
    """Write a message as a receive answers it, with those attributes that were asked for."""
    content = message.content
    more = b""
    if system_attributes:
        system: dict[str, str | None] = {
            "ApproximateReceiveCount": str(message.receive_count),
            "SentTimestamp": str(int(message.sent_at * 1000)),
            "SenderId": ACCOUNT,
            "MessageGroupId": message.group_id,
            "MessageDeduplicationId": content.deduplication_id,
        }
        more = b',"Attributes":' + dumps(_chosen(system, system_attributes))
    if content.attributes and (wanted := _chosen(content.attributes, message_attributes)):
        md5 = attributes_md5(wanted).encode()
        more += b',"MD5OfMessageAttributes":"%b","MessageAttributes":%b' % (md5, dumps(wanted))
    return b'{"MessageId":"%b","ReceiptHandle":"%b","MD5OfBody":"%b","Body":%b%b}' % (
        content.message_id.encode(),
        message.receipt_handle.encode(),
        content.body_md5.encode(),
        content.body_json,
        more,
    )


def _chosen(attributes: Mapping[str, object], names: Collection[str]) -> dict[str, Any]:
    everything = "All" in names
    return {name: value for name, value in attributes.items() if value and (everything or name in names)}


def _raise(outcome: _Outcome | None) -> None:
    if isinstance(outcome, EntryFailure):
        raise _refusal(outcome.code, outcome.detail)


def _refusal(code: str, message: str) -> AwsError:
    return AwsError(code, message, query_code=f"{_QUERY_PREFIX}{code}" if code in _PREFIXED else code)


def _arn(queue: Queue) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.name}"
