"""Messages as SQS's JSON protocol has them, and the rules that they must keep. Pure."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Any

from receipt_actors.sandbox.services.protocol import AwsError, dumps
from receipt_actors.sandbox.services.queues import MAX_VISIBILITY_SECONDS, Content, Message

ACCOUNT = "123456789012"
MAX_BATCH_ENTRIES = 10
MAX_BATCH_BYTES = 1024 * 1024

_NOT_ALLOWED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_FIFO_IDS = ("MessageGroupId", "MessageDeduplicationId")
_FIFO_ID = re.compile("[!-~]{1,128}")

Fields = Mapping[str, Any]


def make_content(
    body: str, attributes: Mapping[str, dict[str, str]], group_id: str = "", deduplication_id: str = ""
) -> Content:
    """Encode a message that is sent now."""
    encoded = body.encode()
    md5 = hashlib.md5(encoded, usedforsecurity=False).hexdigest()
    return Content(str(uuid.uuid4()), dumps(body), md5, dict(attributes), group_id, deduplication_id)


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


def checked_content(fields: Fields, *, is_fifo: bool) -> Content:
    """Read a message that is sent; refuse what SQS does not take."""
    for name in _FIFO_IDS:
        if is_fifo and not _FIFO_ID.fullmatch(fields.get(name) or ""):
            raise AwsError("MissingParameter", f"The request must contain the parameter {name}.")
    if not is_fifo and "MessageDeduplicationId" in fields:  # a group it may have: it is fair then, and in no order
        raise AwsError("InvalidParameterValue", "MessageDeduplicationId: not valid for this queue type")
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
    return make_content(body, attributes, *(fields[name] for name in _FIFO_IDS if is_fifo))


def encoded(message: Message, system_attributes: frozenset[str], message_attributes: frozenset[str]) -> bytes:
    """Write a message as a receive answers it, with those attributes that were asked for."""
    content = message.content
    more = b""
    if system_attributes:
        everything = "All" in system_attributes
        system = {
            name: value
            for name, value in (
                ("ApproximateReceiveCount", str(message.receive_count)),
                ("SentTimestamp", str(message.sent_at_ms)),
                ("SenderId", ACCOUNT),
                ("MessageGroupId", content.group_id),
                ("MessageDeduplicationId", content.deduplication_id),
            )
            if value and (everything or name in system_attributes)
        }
        more = b',"Attributes":' + dumps(system)
    if content.attributes and message_attributes:
        wanted = {
            name: value
            for name, value in content.attributes.items()
            if name in message_attributes or "All" in message_attributes
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


def checked_entries(fields: Fields) -> list[dict[str, Any]]:
    """Read the entries of a batch; refuse a batch that breaks SQS's rules."""
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


def size_bytes(fields: Fields) -> int:
    """What SQS counts against its limit: the body, and each attribute's name, type and value."""
    size = _bytes(fields["MessageBody"])
    for name, attribute in (fields.get("MessageAttributes") or {}).items():
        size += _bytes(name) + _bytes(attribute["DataType"])
        size += _bytes(attribute.get("StringValue", attribute.get("BinaryValue", "")))
    return size


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))  # a lone surrogate is refused later, entry by entry


def checked_seconds(value: object) -> float:
    """Read a visibility timeout."""
    if not isinstance(value, int) or not 0 <= value <= MAX_VISIBILITY_SECONDS:
        raise AwsError("InvalidParameterValue", f"VisibilityTimeout: expected 0 to {MAX_VISIBILITY_SECONDS}")
    return float(value)
