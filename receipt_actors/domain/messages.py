"""The wire format: how messages are read, refused and made.

``parse_submission`` never raises. A ``detail`` quotes only names that were found short and printable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from receipt_actors.domain.ports import MAX_BATCH_BYTES, Environment, LedgerItem, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sqs_rules import in_group
from receipt_actors.domain.values import (
    MAX_NAME_CHARACTERS,
    JsonRefused,
    is_name,
    is_queue_name,
    json_type,
    md5_hex,
    parse_object,
    sendable,
    sha256_hex,
)

SUBMISSION_ID_ATTRIBUTE = "submission_id"
SUBMITTED_AT_ATTRIBUTE = "submitted_at"
EARLIEST_SUBMITTED_AT_MS = 1_245_196_800_000  #: 17 June 2009, when iOS 3.0 brought in-app purchases
MAX_ATTRIBUTES = 10  #: of one message (SQS)
MAX_DETAIL_CHARACTERS = 1024  #: of a dead-letter message's attribute ``detail``
DEAD_LETTER_ATTRIBUTES = frozenset({"reason", "detail", "source_message_id"})  #: what only a dead letter has

_MAX_EXACT_FLOAT = 2**53 - 1  # beyond it, two integers share one float
_RECEIPT = re.compile(r"[\x21-\x7e\r\n]+")
_MILLISECONDS = re.compile(r"[0-9]{13}")
_ATTRIBUTE_NAME = re.compile(r"(?!(?i:aws|amazon)\.)(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")


class Verdict(StrEnum):
    """The ``status`` of a result."""

    OK = "OK"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class Submission:
    """One sending of one receipt by one user; the same over all its redeliveries."""

    submission_id: str  #: attribute ``submission_id``, else the ``MessageId``
    message_id: str
    user_id: int  #: within -2^63 to 2^63-1
    receipt_data: str = field(repr=False)  #: as it was given: base64, or a signed transaction
    receipt_sha256: str  #: hexadecimal, of ``receipt_data`` as it was given
    post_queue: str  #: a name in the allow-list
    transaction_id: str | None  #: the one transaction that the message is about, where it names one
    product_id: str | None  #: the product whose newest purchase the message is about, where it names one
    sent_at_seconds: float  #: UNIX time of its first sending


@dataclass(frozen=True, slots=True)
class Unanswerable:
    """Why no verdict can ever be given for a message; it belongs in the dead-letter queue."""

    reason: Reason
    detail: str  #: one short line for the operator: never a receipt, a secret or other content of the message


@dataclass(frozen=True, slots=True)
class Result:
    """One verdict on one transaction. ``transaction_id`` is empty only for a receipt that Apple refused to identify."""

    transaction_id: str
    verdict: Verdict
    reason: Reason
    product_id: str | None = None
    environment: Environment | None = None
    quantity: int | None = None  #: None where it is not known: of no transaction, or of an old claim
    revocation_type: str | None = None  #: of what was refunded: Apple's ``revocationType``, where it says so
    revocation_percentage: int | None = None  #: likewise its ``revocationPercentage`` (33.333 % is 33333)
    post_queue: str | None = None  #: of the claim, where that is another one than the message names


class _Refusal(Exception):
    """Carries an ``Unanswerable`` out of the depth of the parser; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.unanswerable = Unanswerable(reason, detail)


def is_intact(message: ReceivedMessage) -> bool:
    """Return whether the body matches its MD5; otherwise only this copy is corrupt."""
    return md5_hex(_utf8(message.body)) == message.body_md5.lower()


def submission_id_of(message: ReceivedMessage) -> str:
    """Return a valid attribute ``submission_id``, else the MessageId."""
    submission_id = message.attributes.get(SUBMISSION_ID_ATTRIBUTE)
    return submission_id if is_name(submission_id) else message.message_id


def first_sent_at_seconds(message: ReceivedMessage) -> float:
    """Return the UNIX time of the submission's first sending, by which expiry is judged.

    Attribute ``submitted_at`` (13 digits of milliseconds) counts between the first in-app purchases and the message's
    own time; else the message's own time does.
    """
    submitted_at = message.attributes.get(SUBMITTED_AT_ATTRIBUTE, "")
    if _MILLISECONDS.fullmatch(submitted_at) is None:
        return message.sent_at_seconds
    is_sane = EARLIEST_SUBMITTED_AT_MS <= int(submitted_at) <= _milliseconds(message.sent_at_seconds)
    return int(submitted_at) / 1000 if is_sane else message.sent_at_seconds


def parse_submission(
    message: ReceivedMessage, allowed_post_queues: Collection[str], source_queue: str
) -> Submission | Unanswerable:
    """Read a source message; unknown keys are ignored.

    ``receipt`` is printable ASCII with CR and LF; a space is refused: it is mostly a decoded ``+``. Apple judges the
    rest (21002). ``user_id`` is an integer, or a whole float within +-(2^53-1).
    """
    try:
        if SUBMISSION_ID_ATTRIBUTE in message.attributes and not is_name(message.attributes[SUBMISSION_ID_ATTRIBUTE]):
            raise _Refusal(
                Reason.BAD_SUBMISSION_ID,
                f"attribute submission_id: expected 1 to {MAX_NAME_CHARACTERS} printable characters",
            )
        fields = _parse_object(message.body)
        receipt_data = _receipt(fields.get("receipt"))
        return Submission(
            submission_id=submission_id_of(message),
            message_id=message.message_id,
            user_id=_user_id(fields.get("user_id")),
            receipt_data=receipt_data,
            receipt_sha256=sha256_hex(receipt_data.encode()),
            post_queue=_post_queue(fields.get("post_queue"), allowed_post_queues, source_queue),
            transaction_id=_optional_name(fields, "transaction_id", Reason.BAD_TRANSACTION_ID),
            product_id=_optional_name(fields, "product_id", Reason.BAD_PRODUCT_ID),
            sent_at_seconds=first_sent_at_seconds(message),
        )
    except _Refusal as refusal:
        return refusal.unanswerable


def around_receipt(body: str, receipt_data: str) -> tuple[str, str] | None:
    """Return the body's text before and after the receipt; None where the body escapes the receipt.

    ``receipt_data.join(...)`` of the two is the body again.
    """
    # Not ``partition``: to look for a long text it works through all of it beforehand.
    begin = body.find(receipt_data[:_BEGINNING_CHARACTERS])
    end = begin + len(receipt_data)
    return (body[:begin], body[end:]) if begin >= 0 and body.startswith(receipt_data, begin) else None


def result_message(submission: Submission, result: Result, traceparent: str | None = None) -> OutgoingMessage:
    """Make the answer: three fields in the body (ASCII), the rest in attributes."""
    message = _result_message(
        submission.user_id, result, submission.submission_id, submission.message_id, traceparent=traceparent
    )
    user = str(submission.user_id)
    # A submission is more than its id, as it is to the ledger: of two users with one id each is told.
    ids = (submission.submission_id, user, submission.receipt_sha256, result.transaction_id, result.verdict)
    return in_group(message, result.post_queue or submission.post_queue, user, *ids)


def refund_message(claim: LedgerItem, notification_uuid: str) -> OutgoingMessage:
    """Make the ``INVALID`` that takes the OK of a claim back.

    The ledger's newest mark says how much. Repeated copies share ``notification_uuid``; ``decided_at`` (milliseconds)
    orders messages that a queue delivers in any order.
    """
    assert claim.refunded_at_seconds is not None
    result = _result_of(claim, Verdict.INVALID, Reason.REFUNDED, claim.revocation_type, claim.revocation_percentage)
    return _decision_message(claim, result, notification_uuid, claim.refunded_at_seconds)


def reversal_message(claim: LedgerItem, notification_uuid: str, reversed_at_seconds: float) -> OutgoingMessage:
    """Make the ``OK`` that follows when Apple reverses a refund; otherwise like ``refund_message``."""
    result = _result_of(claim, Verdict.OK, Reason.REFUND_REVERSED)
    return _decision_message(claim, result, notification_uuid, reversed_at_seconds)


def _result_of(claim: LedgerItem, verdict: Verdict, reason: Reason, *revocation: Any) -> Result:
    known = claim.product_id, claim.environment, claim.quantity
    return Result(claim.transaction_id, verdict, reason, *known, *revocation)


def _decision_message(
    claim: LedgerItem, result: Result, notification_uuid: str, decided_at_seconds: float
) -> OutgoingMessage:
    message = _result_message(
        claim.user_id,
        result,
        claim.submission_id,
        claim.message_id,
        notification_uuid=notification_uuid,
        decided_at=str(_milliseconds(decided_at_seconds)),
    )
    # One refund, reversed and followed by another within minutes, must not swallow the other.
    ids = (claim.submission_id, result.transaction_id, result.verdict, notification_uuid)
    return in_group(message, claim.post_queue, str(claim.user_id), *ids)


def _result_message(
    user_id: int, result: Result, submission_id: str, message_id: str, **more: str | None
) -> OutgoingMessage:
    body = {"user_id": user_id, "transaction_id": result.transaction_id, "status": result.verdict.value}
    attributes = {
        "reason": result.reason.value,
        SUBMISSION_ID_ATTRIBUTE: submission_id,
        "source_message_id": message_id,
        "product_id": result.product_id,
        "environment": result.environment,
        "quantity": result.quantity,
        "revocation_type": result.revocation_type,
        "revocation_percentage": result.revocation_percentage,
        **more,
    }  # ten at most, with the two of a decision: MAX_ATTRIBUTES
    return OutgoingMessage(
        body=_ENCODER.encode(body),
        attributes={name: sendable(str(value)) for name, value in attributes.items() if value not in (None, "")},
    )


def submission_message(body: str, submission_id: str, user_id: int, source_queue: str) -> OutgoingMessage:
    message = OutgoingMessage(body, {SUBMISSION_ID_ATTRIBUTE: submission_id})
    return in_group(message, source_queue, str(user_id), submission_id, body)


def checked_submission(
    body: str, submission_id: str, allowed_post_queues: Collection[str], source_queue: str
) -> tuple[Submission, OutgoingMessage] | Unanswerable:
    """Make the message for the source queue, or return why its consumer could not answer it.

    Message id and time are missing: the queue gives them.
    """
    delivery = ReceivedMessage("", "", body, "", {SUBMISSION_ID_ATTRIBUTE: submission_id})
    outcome = parse_submission(delivery, allowed_post_queues, source_queue)
    if isinstance(outcome, Unanswerable):
        return outcome
    return outcome, submission_message(body, submission_id, outcome.user_id, source_queue)


def dead_letter_message(message: ReceivedMessage, unanswerable: Unanswerable, queue: str) -> OutgoingMessage:
    """Make the copy for the dead-letter queue: the body, its attributes, and ours, which win.

    Where SQS has no room, its own attributes go first, then ``detail``, ``source_message_id``, ``reason``, and
    last ``submitted_at`` and ``submission_id``, which a redrive needs.
    """
    why = {
        "reason": unanswerable.reason.value,
        "source_message_id": message.message_id,
        "detail": unanswerable.detail[:MAX_DETAIL_CHARACTERS],
    }
    copy = OutgoingMessage(message.body, _fitting(message.body, _identity(message) | why, message.attributes))
    return in_group(copy, queue, message.group_id or message.message_id, message.message_id, unanswerable.reason)


def redriven_message(message: ReceivedMessage, source_queue: str) -> OutgoingMessage | None:
    """Make the source queue's copy of a dead letter: the same submission, with its first time of sending.

    None where SQS has no room for the submission id: its own claim would look like another's.
    """
    foreign = {name: value for name, value in message.attributes.items() if name not in DEAD_LETTER_ATTRIBUTES}
    attributes = _fitting(message.body, _identity(message), foreign)
    if SUBMISSION_ID_ATTRIBUTE not in attributes:
        return None
    copy = OutgoingMessage(message.body, attributes)
    return in_group(copy, source_queue, message.group_id or message.message_id, "redrive", message.message_id)


def _identity(message: ReceivedMessage) -> dict[str, str]:
    """What makes a copy of a message the same submission; an empty time is unknown."""
    submitted_at_ms = _milliseconds(first_sent_at_seconds(message))
    return {
        SUBMISSION_ID_ATTRIBUTE: submission_id_of(message),
        SUBMITTED_AT_ATTRIBUTE: str(submitted_at_ms) if submitted_at_ms >= EARLIEST_SUBMITTED_AT_MS else "",
    }


def _fitting(body: str, ours: Mapping[str, str], foreign: Mapping[str, str]) -> dict[str, str]:
    """Return what SQS takes beside the body, ours first; ours win over foreign ones of the same name."""
    wanted = {**ours, **{name: value for name, value in foreign.items() if name not in ours}}
    kept: dict[str, str] = {}
    room_bytes = MAX_BATCH_BYTES - len(_utf8(body))
    for name, value in wanted.items():
        if not value or _ATTRIBUTE_NAME.fullmatch(name) is None:
            continue
        attribute = {name: sendable(value)}
        size_bytes = OutgoingMessage(body="", attributes=attribute).size_bytes
        if size_bytes <= room_bytes and len(kept) < MAX_ATTRIBUTES:
            kept |= attribute
            room_bytes -= size_bytes
    return kept


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _utf8(text: str) -> bytes:
    # A lone surrogate cannot come over the wire, but a total function must not stumble over one in a test or a fake.
    return text.encode("utf-8", "surrogatepass")


def _parse_object(body: str) -> dict[str, object]:
    if len(body) > MAX_BATCH_BYTES or len(_utf8(body)) > MAX_BATCH_BYTES:
        raise _Refusal(Reason.TOO_LARGE, f"body: expected at most {MAX_BATCH_BYTES} bytes")
    try:
        return parse_object(body)
    except JsonRefused as refused:
        raise _Refusal(refused.reason, f"body: {refused.words}") from None


_BEGINNING_CHARACTERS = 64
_ENCODER = json.JSONEncoder(separators=(",", ":"))  # made once: json.dumps would make one for each answer


def _receipt(value: object) -> str:
    if not isinstance(value, str):
        raise _Refusal(Reason.BAD_RECEIPT, f"receipt: expected a string, found {json_type(value)}")
    if _RECEIPT.fullmatch(value) is None or value.isspace():
        raise _Refusal(Reason.BAD_RECEIPT, "receipt: expected base64, found an empty string or foreign characters")
    return value


def _user_id(value: object) -> int:
    match value:
        case bool():
            pass
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if value.is_integer() and abs(value) <= _MAX_EXACT_FLOAT:
            return int(value)
    raise _Refusal(Reason.BAD_USER_ID, f"user_id: expected an integer within +-2^63, found {json_type(value)}")


def _post_queue(value: object, allowed_post_queues: Collection[str], source_queue: str) -> str:
    if not is_queue_name(value):
        detail = f"post_queue: expected the name of a queue, not a URL or an ARN, found {json_type(value)}"
        raise _Refusal(Reason.BAD_POST_QUEUE, detail)
    if value == source_queue or value not in allowed_post_queues:
        raise _Refusal(Reason.POST_QUEUE_NOT_ALLOWED, f"post_queue: {value} is not in the allow-list")
    return value


def _optional_name(fields: Mapping[str, object], key: str, reason: Reason) -> str | None:
    value = fields.get(key)
    if value is None or is_name(value):
        return value
    detail = f"{key}: expected 1 to {MAX_NAME_CHARACTERS} printable characters, found {json_type(value)}"
    raise _Refusal(reason, detail)


_DIGITS = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class PostedResult:
    """One answer: the body's three fields, and the attributes (None where missing)."""

    user_id: int
    transaction_id: str  #: empty only where Apple refused the receipt for good and ``unidentified`` is ``reply``
    status: Verdict
    submission_id: str | None
    source_message_id: str | None
    reason: str | None  #: a ``Reason``, or one that a newer version knows
    product_id: str | None
    environment: str | None
    quantity: int | None = None  #: how many were bought at once
    revocation_type: str | None = None  #: of a refund: Apple's ``revocationType``
    revocation_percentage: int | None = None  #: of a refund: how much of it, in thousandths of a percent
    decided_at_ms: int | None = None  #: when Apple decided on a refund or its reversal, as UNIX time


def parse_result(message: ReceivedMessage | OutgoingMessage) -> PostedResult | None:
    """Read an answer; None where the message is not one."""
    try:
        body = json.loads(message.body)
    except (ValueError, RecursionError):
        return None
    match body:
        case {
            "user_id": int() as user_id,
            "transaction_id": str() as transaction_id,
            "status": "OK" | "INVALID" as status,
        } if not isinstance(user_id, bool):
            get = message.attributes.get
            return PostedResult(
                user_id=user_id,
                transaction_id=transaction_id,
                status=Verdict(status),
                submission_id=get(SUBMISSION_ID_ATTRIBUTE),
                source_message_id=get("source_message_id"),
                reason=get("reason"),
                product_id=get("product_id"),
                environment=get("environment"),
                quantity=_number(get("quantity")),
                revocation_type=get("revocation_type"),
                revocation_percentage=_number(get("revocation_percentage")),
                decided_at_ms=_number(get("decided_at")),
            )
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _DIGITS.fullmatch(text) else None


TRACEPARENT_ATTRIBUTE = "traceparent"

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")
_MAX_HEADER_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    trace_id: int  #: 128 bits, not 0
    span_id: int  #: 64 bits, not 0
    is_sampled: bool  #: whether whoever began the trace keeps it

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"


def trace_context_of(message: ReceivedMessage) -> TraceContext | None:
    """Return the trace context of a message; ``traceparent`` wins over ``AWSTraceHeader``."""
    traceparent = message.attributes.get(TRACEPARENT_ATTRIBUTE)
    context = None if traceparent is None else parse_traceparent(traceparent)
    if context is None and message.aws_trace_header is not None:
        context = parse_aws_trace_header(message.aws_trace_header)
    return context


def parse_traceparent(text: str) -> TraceContext | None:
    found = _TRACEPARENT.fullmatch(text) if len(text) <= _MAX_HEADER_CHARACTERS else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    return _context(found[2], found[3], int(found[4], 16) & 1 == 1)


def parse_aws_trace_header(text: str) -> TraceContext | None:
    """Read X-Ray's ``Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1``."""
    if len(text) > _MAX_HEADER_CHARACTERS:
        return None
    fields = dict(part.strip().partition("=")[::2] for part in text.split(";"))
    root, parent = _ROOT.fullmatch(fields.get("Root", "")), _PARENT.fullmatch(fields.get("Parent", ""))
    if root is None or parent is None:
        return None
    return _context(root[1] + root[2], parent[0], fields.get("Sampled") == "1")


def _context(trace_id: str, span_id: str, is_sampled: bool) -> TraceContext | None:
    ids = int(trace_id, 16), int(span_id, 16)
    return TraceContext(*ids, is_sampled) if all(ids) else None
