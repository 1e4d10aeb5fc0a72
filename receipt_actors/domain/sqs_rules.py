"""The rules of SQS that an adapter can check before it sends: names, characters, sizes. Pure; shared by both adapters.

Checking here keeps one bad entry from failing a whole batch, lets the embedded queues refuse just what SQS would
refuse, and keeps strings that are no queue name (URLs, ARNs) from ever reaching a service.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from receipt_actors.domain.fifo import is_fifo
from receipt_actors.domain.ports import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ENTRIES,
    MAX_VISIBILITY_SECONDS,
    EntryFailure,
    OutgoingMessage,
)
from receipt_actors.domain.values import UNSENDABLE_CHARACTER, is_queue_name, md5_hex

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
    """Say why ``name`` cannot be a queue's, or return None where it can; see ``is_queue_name``."""
    if not is_queue_name(name):
        expected = "expected 1 to 80 letters, digits, hyphens and underscores, .fifo at the end of a FIFO queue's"
        return f"not a queue name: {expected} (no URL, no ARN)"
    return None


def body_md5(body: str) -> str:
    """Compute what SQS calls ``MD5OfMessageBody``; it detects corruption, it secures nothing."""
    return md5_hex(body.encode())


def check_send_batch(queue: str, messages: Sequence[OutgoingMessage]) -> list[EntryFailure | None]:
    """Answer one value a message: None may be sent to the queue, a failure must not.

    What will never pass (empty, forbidden characters, bad attributes, alone over 1 MiB; without the ids that a FIFO
    queue needs, or with them where the queue is none) is the sender's fault and leaves the others alone. What is over a
    limit of the *batch* fails every other entry without being the sender's fault: each of them passes in a smaller
    batch.
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
    """Answer the failures of a delete or visibility batch of too many entries; None where ``count`` is allowed."""
    crowd = _crowd_failure(count)
    return [crowd] * count if crowd else None


def visibility_fault(seconds: int) -> EntryFailure | None:
    """Refuse a visibility timeout outside 0 to 43,200 seconds (SQS)."""
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
