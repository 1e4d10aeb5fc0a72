"""The rules of SQS: names, characters, sizes, and the two ids of a FIFO message (``doc/fifo.rst``). Pure.

Checking before a send keeps one bad entry from failing its batch; the embedded queues refuse by the same rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from receipt_actors.domain.ports import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ENTRIES,
    MAX_VISIBILITY_SECONDS,
    EntryFailure,
    OutgoingMessage,
)
from receipt_actors.domain.values import UNSENDABLE_CHARACTER, is_queue_name, md5_hex, sha256_hex

FIFO_SUFFIX = ".fifo"  #: of the name of every FIFO queue, and of no other (SQS)
DEDUPLICATION_SECONDS = 5 * 60  #: for which a de-duplication id is remembered (SQS)


def is_fifo(queue: str) -> bool:
    return queue.endswith(FIFO_SUFFIX)


def deduplication_id(*parts: str) -> str:
    """Return a SHA-256 (hexadecimal) that differs for different parts."""
    return sha256_hex(json.dumps(parts).encode())


def in_group(message: OutgoingMessage, queue: str, group_id: str, *parts: str) -> OutgoingMessage:
    """Give a message for a FIFO queue its group and de-duplication id; others stay unchanged."""
    if not is_fifo(queue):
        return message
    return replace(message, group_id=group_id, deduplication_id=deduplication_id(*parts))


def dead_letter_queue_of(source_queue: str) -> str:
    """Return the default name of a dead-letter queue: ``NameDLQ``, ``NameDLQ.fifo``."""
    name = source_queue.removesuffix(FIFO_SUFFIX)
    return f"{name}DLQ{source_queue[len(name) :]}"


def dead_letter_queue_fault(source_queue: str, dead_letter_queue: str) -> str | None:
    """Return why this cannot be the dead-letter queue, or None."""
    if is_fifo(source_queue) == is_fifo(dead_letter_queue):
        return None
    kind = "a FIFO queue (its name ends in .fifo)" if is_fifo(source_queue) else "a standard queue"
    return f"expected {kind}, as {source_queue} is one: SQS wants a dead-letter queue to be of its source queue's kind"


BATCH_REQUEST_TOO_LONG = "BatchRequestTooLong"
TOO_MANY_ENTRIES = "TooManyEntriesInBatchRequest"
INVALID_CONTENTS = "InvalidMessageContents"
INVALID_PARAMETER = "InvalidParameterValue"
MISSING_PARAMETER = "MissingParameter"
INVALID_RECEIPT_HANDLE = "ReceiptHandleIsInvalid"
MESSAGE_NOT_IN_FLIGHT = "MessageNotInflight"

MAX_ATTRIBUTES = 10  #: message attributes of one message (SQS)
MAX_ATTRIBUTE_NAME_CHARACTERS = 256  #: SQS

_FIFO_ID = re.compile(r"[!-~]{1,128}")  # a group's, or one for de-duplication (SQS)
_ATTRIBUTE_NAME = re.compile(r"(?!aws\.|amazon\.)[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII | re.IGNORECASE)


def queue_name_fault(name: str) -> str | None:
    if not is_queue_name(name):
        expected = "expected 1 to 80 letters, digits, hyphens and underscores, .fifo at the end of a FIFO queue's"
        return f"not a queue name: {expected} (no URL, no ARN)"
    return None


def body_md5(body: str) -> str:
    return md5_hex(body.encode())


def check_send_batch(queue: str, messages: Sequence[OutgoingMessage]) -> list[EntryFailure | None]:
    """Return one value for each message: None may be sent, a failure must not.

    A message that can never pass is its sender's fault and leaves the others alone. A limit of the batch fails every
    other entry without sender's fault: each passes in a smaller batch.
    """
    crowd = _crowd_failure(len(messages))
    if crowd:
        return [crowd] * len(messages)
    needs_ids = is_fifo(queue)
    failures = [_message_failure(message) or _ids_failure(message, needs_ids) for message in messages]
    total = sum(message.size_bytes for message, failure in zip(messages, failures, strict=True) if failure is None)
    if total > MAX_BATCH_BYTES:
        detail = f"the batch has {total} bytes, at most {MAX_BATCH_BYTES} go; send it in smaller batches"
        return [failure or EntryFailure(BATCH_REQUEST_TOO_LONG, detail, False) for failure in failures]
    return failures


def check_handle_batch(count: int) -> list[EntryFailure] | None:
    crowd = _crowd_failure(count)
    return [crowd] * count if crowd else None


def visibility_fault(seconds: int) -> EntryFailure | None:
    if 0 <= seconds <= MAX_VISIBILITY_SECONDS:
        return None
    detail = f"visibility timeout {seconds}: expected 0 to {MAX_VISIBILITY_SECONDS} seconds"
    return EntryFailure(INVALID_PARAMETER, detail, True)


def _crowd_failure(count: int) -> EntryFailure | None:
    if count <= MAX_BATCH_ENTRIES:
        return None
    return EntryFailure(TOO_MANY_ENTRIES, f"{count} entries in a batch, at most {MAX_BATCH_ENTRIES} go", False)


def _message_failure(message: OutgoingMessage) -> EntryFailure | None:
    if not message.body:
        return EntryFailure(MISSING_PARAMETER, "the body is empty", True)
    if len(message.attributes) > MAX_ATTRIBUTES:
        detail = f"{len(message.attributes)} message attributes, at most {MAX_ATTRIBUTES} go"
        return EntryFailure(INVALID_PARAMETER, detail, True)
    for name, value in message.attributes.items():
        if len(name) > MAX_ATTRIBUTE_NAME_CHARACTERS or not _ATTRIBUTE_NAME.fullmatch(name):
            return EntryFailure(INVALID_PARAMETER, f"message attribute name {name[:80]!r} is not allowed", True)
        if not value:
            return EntryFailure(INVALID_PARAMETER, f"message attribute {name!r} is empty", True)
    for text in (message.body, *message.attributes.values()):
        forbidden = UNSENDABLE_CHARACTER.search(text)
        if forbidden:
            return EntryFailure(INVALID_CONTENTS, f"character U+{ord(forbidden[0]):04X} is not allowed", True)
    if message.size_bytes > MAX_BATCH_BYTES:
        detail = f"the message has {message.size_bytes} bytes, at most {MAX_BATCH_BYTES} go"
        return EntryFailure(INVALID_PARAMETER, detail, True)
    return None


def _ids_failure(message: OutgoingMessage, needs_ids: bool) -> EntryFailure | None:
    for name, value in (("MessageGroupId", message.group_id), ("MessageDeduplicationId", message.deduplication_id)):
        if value is None:
            if needs_ids:
                return EntryFailure(MISSING_PARAMETER, f"no {name}, which a FIFO queue needs", True)
        elif not needs_ids:
            return EntryFailure(INVALID_PARAMETER, f"{name} {value[:80]!r} is for FIFO queues only", True)
        elif not _FIFO_ID.fullmatch(value):
            detail = f"{name} {value[:80]!r}: expected 1 to 128 letters, digits and punctuation characters"
            return EntryFailure(INVALID_PARAMETER, detail, True)
    return None
