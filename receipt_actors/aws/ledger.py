"""DynamoDB behind the port ``Ledger``.

A batch of claims is one ``INSERT`` of PartiQL each: the only batch of DynamoDB that takes conditions, here that nothing
stands there yet. It saves round trips, not capacity. Only DynamoDB's own word that an item was put confirms a claim;
ownership is never judged by a batch, which need not return what is in the way.

A refund updates the attributes of the mark and never replaces an item. If the transaction is unclaimed, the update
makes an item with its key and the mark only: the tombstone, which stands in the way of every claim. It never becomes a
claim; it is deleted, and only as long as it is a tombstone.

Items of another program may lack attributes of ours. They stand in the way of a claim all the same and read as
nobody's: a missing text is empty, a missing user id is ``NO_USER_ID``. No message can bring either, so such an item is
never taken for our own.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from botocore.exceptions import ClientError

from receipt_actors.aws.calls import Calls, blocking
from receipt_actors.aws.connection import (
    MAX_NUMBER_DIGITS,
    call,
    describe,
    error_code,
    member,
    not_done,
    optional_member,
    reading,
)
from receipt_actors.aws.requests import told
from receipt_actors.aws.tables import AwsTable, Conflict
from receipt_actors.domain.ledger import check_claims
from receipt_actors.domain.ports import (
    MAX_QUANTITY,
    TAKEN,
    WHOLE_PERCENTAGE,
    ClaimOutcome,
    EntryFailure,
    Environment,
    LedgerItem,
    Standing,
    Tombstone,
)
from receipt_actors.errors import BatchesRefused, LedgerRefused, LedgerUnavailable

logger = logging.getLogger(__name__)

KEY = "TransactionId"  #: the table's hash key, a string; it has no range key
NO_USER_ID = -(2**64)  #: the user of an item that names none; no message's, whose user ids are within +-2^63

#: The attribute of each field: ``claimed_at_seconds`` is ``ClaimedAt``. So an operator can read an item.
_NAMES = {
    field.name: "".join(word.capitalize() for word in field.name.removesuffix("_seconds").split("_"))
    for field in dataclasses.fields(LedgerItem)
}
ATTRIBUTES = frozenset(_NAMES.values())

_REFUNDED_AT = "RefundedAt"
_REVOCATION_TYPE = "RevocationType"
_REVOCATION_PERCENTAGE = "RevocationPercentage"
_TOMBSTONE = frozenset({KEY, _REFUNDED_AT, _REVOCATION_TYPE, _REVOCATION_PERCENTAGE})  # all that a tombstone may have
_UNMARK_ATTEMPTS = 5  # one fails only if the item was changed since it was read

#: Error codes of a whole batch that every batch of ours would get: no permission, or no PartiQL.
_BATCHES_REFUSED = frozenset({"AccessDeniedException", "UnknownOperationException", "ValidationException"})

#: Error codes of a statement. If all statements of a batch have one, batches are refused.
_STATEMENT_REFUSED = frozenset({"AccessDenied", "ValidationError"})


class AwsLedger(AwsTable):
    """``Ledger``. Needs ``dynamodb:PutItem`` and ``dynamodb:GetItem`` on the table, ``PartiQLInsert`` for batches.

    Refunds need ``UpdateItem``, their reversals ``DeleteItem``; the check uses ``DescribeTimeToLive``.
    """

    key = KEY
    setting = "ledger_table"

    @blocking
    def claim(self, item: LedgerItem) -> Calls[Standing | None]:
        try:
            yield from self._write(
                "put_item", Item=_to_attributes(item), ConditionExpression=f"attribute_not_exists({KEY})"
            )
        except Conflict as conflict:
            return (yield from self._in_the_way(conflict, item.transaction_id))
        return None

    @blocking
    def claim_all(self, items: Sequence[LedgerItem]) -> Calls[Sequence[ClaimOutcome]]:
        check_claims(items)
        if not items:
            return []
        try:
            answer = yield from call(
                LedgerUnavailable,
                self._client,
                "batch_execute_statement",
                Statements=[
                    {"Statement": _insert(self._table, tuple(attributes)), "Parameters": list(attributes.values())}
                    for attributes in map(_to_attributes, items)
                ],
            )
        except ClientError as error:
            if error_code(error) in _BATCHES_REFUSED:
                raise BatchesRefused(self._table, describe(error)) from error
            raise not_done(LedgerUnavailable, error) from error
        entries = answer.get("Responses")
        is_whole = isinstance(entries, list) and len(entries) == len(items)
        if not is_whole or not all(isinstance(entry, Mapping) for entry in entries):
            raise LedgerUnavailable(f"BatchExecuteStatement: {len(items)} claims, not an answer to each")
        outcomes = [_outcome(entry, self._table) for entry in entries]
        self._refuse_common_failure(outcomes)
        return outcomes

    @blocking
    def get(self, transaction_id: str) -> Calls[Standing | None]:
        attributes = yield from self._get(transaction_id)
        return _standing(attributes) if attributes else None

    @blocking
    def mark_refunded(
        self,
        transaction_id: str,
        refunded_at_seconds: float,
        revocation_type: str | None = None,
        revocation_percentage: int | None = None,
    ) -> Calls[Standing]:
        revocation: dict[str, Any] = {}
        if revocation_type is not None:
            revocation[_REVOCATION_TYPE] = {"S": revocation_type}
        if revocation_percentage is not None:
            revocation[_REVOCATION_PERCENTAGE] = {"N": repr(revocation_percentage)}
        is_later = f"attribute_not_exists({_REFUNDED_AT}) OR {_REFUNDED_AT} < :at"
        is_more = f"{_REFUNDED_AT} = :at AND {_REVOCATION_PERCENTAGE} < :percentage"  # a missing one is the whole
        percentage = WHOLE_PERCENTAGE if revocation_percentage is None else revocation_percentage
        try:
            answer = yield from self._write(
                "update_item",
                Key={KEY: {"S": transaction_id}},
                UpdateExpression=_mark_update(revocation.keys()),
                ConditionExpression=f"{is_later} OR ({is_more})",
                ExpressionAttributeValues={
                    ":at": {"N": repr(refunded_at_seconds)},
                    ":percentage": {"N": repr(percentage)},
                    **{f":{name}": value for name, value in revocation.items()},
                },
                ReturnValues="ALL_NEW",
            )
        except Conflict as conflict:
            return (yield from self._in_the_way(conflict, transaction_id))
        return _updated(answer)

    @blocking
    def unmark_refunded(self, transaction_id: str, reversed_at_seconds: float) -> Calls[Standing | None]:
        # One ``UpdateItem`` for a claim, and one ``DeleteItem`` more for a tombstone.
        an_attribute = "SubmissionId"  # which tells a claim from a tombstone
        for _ in range(_UNMARK_ATTEMPTS):
            try:
                return (yield from self._remove_mark(transaction_id, an_attribute, reversed_at_seconds))
            except Conflict as conflict:
                old = conflict.item
            if not old:
                return None  # neither claimed nor refunded
            standing = _standing(old)
            if standing.refunded_at_seconds is not None and standing.refunded_at_seconds > reversed_at_seconds:
                return standing
            others = sorted(old.keys() - _TOMBSTONE)
            if others:
                an_attribute = others[0]  # another program's item, or a claim that was put just now
                continue
            if _REFUNDED_AT not in old:
                return standing  # another program's, with its key only: no tombstone of ours
            try:
                # Unless it has become a claim: another reversal may have deleted the tombstone before that.
                yield from self._write(
                    "delete_item",
                    Key={KEY: {"S": transaction_id}},
                    ConditionExpression=f"{_REFUNDED_AT} <= :reversed_at AND attribute_not_exists(SubmissionId)",
                    ExpressionAttributeValues={":reversed_at": {"N": repr(reversed_at_seconds)}},
                )
            except Conflict:
                continue
            return None
        raise LedgerUnavailable("UpdateItem: the item changes each time that it is looked at")

    def _remove_mark(self, transaction_id: str, an_attribute: str, reversed_at_seconds: float) -> Calls[LedgerItem]:
        """Remove the mark of an item that has this attribute."""
        is_no_later = f"(attribute_not_exists({_REFUNDED_AT}) OR {_REFUNDED_AT} <= :reversed_at)"
        answer = yield from self._write(
            "update_item",
            Key={KEY: {"S": transaction_id}},
            UpdateExpression=f"REMOVE {_REFUNDED_AT}, {_REVOCATION_TYPE}, {_REVOCATION_PERCENTAGE}",
            ConditionExpression=f"attribute_exists(#an_attribute) AND {is_no_later}",
            ExpressionAttributeNames={"#an_attribute": an_attribute},
            ExpressionAttributeValues={":reversed_at": {"N": repr(reversed_at_seconds)}},
            ReturnValues="ALL_NEW",
        )
        standing = _updated(answer)
        if isinstance(standing, Tombstone):
            raise LedgerUnavailable("UpdateItem: a garbled answer: the mark was removed, and is there")
        return standing

    def _in_the_way(self, conflict: Conflict, transaction_id: str) -> Calls[Standing]:
        """Return what stands there; an emulator may not send it along."""
        item = conflict.item or (yield from self._get(transaction_id))
        if not item:
            raise LedgerUnavailable("an item stood in the way, and is gone") from conflict
        return _standing(item)

    @blocking
    def check(self) -> Calls[None]:
        """Refuse a table that deletes claims, too. If that cannot be seen, a warning says so."""
        yield from AwsTable.check.calls(self)  # type: ignore[attr-defined]
        try:
            answer = yield from self._call("describe_time_to_live")
            with reading(LedgerUnavailable, "DescribeTimeToLive"):
                description = member(answer, "TimeToLiveDescription", dict)
                status = member(description, "TimeToLiveStatus", str)
                attribute = optional_member(description, "AttributeName", str)
                deletes_claims = status != "DISABLED" and attribute in ATTRIBUTES
        except LedgerUnavailable as error:
            wish = "grant dynamodb:DescribeTimeToLive on it, and keep its time to live off"
            logger.warning("table %r: whether it deletes claims cannot be seen; %s: %s", self._table, wish, error)
            return
        if deletes_claims:
            found = f"its time to live ({status}) deletes claims by their {attribute}"
            raise LedgerRefused(self._table, f"{found}; turn it off: without its claim a transaction gets OK again")

    def _refuse_common_failure(self, outcomes: Sequence[ClaimOutcome]) -> None:
        """Raise the failure that all entries have: a table in trouble, or batches that are not allowed."""
        failures = [outcome for outcome in outcomes if isinstance(outcome, EntryFailure)]
        if not failures or len(failures) < len(outcomes):
            return
        told_first = f"BatchExecuteStatement: {failures[0].code}: {failures[0].detail}"
        if all(failure.code in _STATEMENT_REFUSED for failure in failures):
            raise BatchesRefused(self._table, told_first)
        if not any(failure.sender_fault for failure in failures):
            raise LedgerUnavailable(told_first)


@functools.lru_cache(maxsize=64)
def _insert(table: str, names: tuple[str, ...]) -> str:
    """Write a statement of names of ours and question marks; nothing of it comes from a message."""
    quoted = table.replace('"', '""')
    members = ", ".join(f"'{name}': ?" for name in names)
    return f'INSERT INTO "{quoted}" VALUE {{{members}}}'


def _outcome(entry: Mapping[str, Any], table: str) -> ClaimOutcome:
    error = entry.get("Error")
    if error is None:
        # An entry that names neither the table nor an error is in doubt. A single claim puts it, or finds it put.
        return None if entry.get("TableName") == table else TAKEN
    code, message = (
        (str(error.get(name, "")) for name in ("Code", "Message")) if isinstance(error, Mapping) else ("", "")
    )
    if code == "DuplicateItem":
        return TAKEN
    return EntryFailure(code, told(message), sender_fault=code == "ValidationError")


def _to_attributes(item: LedgerItem) -> dict[str, Any]:
    """Return the item as DynamoDB keeps it: texts as S, numbers as N, UNIX times in seconds, no None."""
    return {
        name: {"S": str(value)} if isinstance(value, str) else {"N": repr(value)}
        for field, name in _NAMES.items()
        if (value := getattr(item, field)) is not None
    }


def _mark_update(given: Collection[str]) -> str:
    """Write the update that sets a mark with its given attributes and removes the others."""
    missing = [name for name in (_REVOCATION_TYPE, _REVOCATION_PERCENTAGE) if name not in given]
    changes = f"SET {', '.join([f'{_REFUNDED_AT} = :at', *(f'{name} = :{name}' for name in given)])}"
    return f"{changes} REMOVE {', '.join(missing)}" if missing else changes


def _updated(answer: Mapping[str, Any]) -> Standing:
    attributes = answer.get("Attributes")
    if not isinstance(attributes, Mapping) or KEY not in attributes:
        raise LedgerUnavailable("UpdateItem: a garbled answer: no item in it", is_unknown_answer=True)
    return _standing(attributes)


def _standing(attributes: Mapping[str, Any]) -> Standing:
    """Read a claim or a tombstone. What is missing or of another type reads as nobody's (see the module)."""
    refunded_at = _number(attributes, _REFUNDED_AT)
    refunded_at_seconds = None if refunded_at is None else float(refunded_at)
    revocation_type = _text(attributes, _REVOCATION_TYPE)
    percentage = _integer(attributes, _REVOCATION_PERCENTAGE, default=-1)
    revocation_percentage = percentage if 0 <= percentage <= WHOLE_PERCENTAGE else None
    transaction_id = _text(attributes, KEY) or ""
    if attributes.keys() <= _TOMBSTONE and _REFUNDED_AT in attributes:
        return Tombstone(transaction_id, refunded_at_seconds or 0.0, revocation_type, revocation_percentage)
    is_sandbox = _text(attributes, "Environment") == Environment.SANDBOX.value
    quantity = _integer(attributes, "Quantity", default=0)
    return LedgerItem(
        transaction_id=transaction_id,
        submission_id=_text(attributes, "SubmissionId") or "",
        message_id=_text(attributes, "MessageId") or "",
        user_id=_integer(attributes, "UserId", default=NO_USER_ID),
        receipt_sha256=_text(attributes, "ReceiptSha256") or "",
        product_id=_text(attributes, "ProductId"),
        original_transaction_id=_text(attributes, "OriginalTransactionId"),
        environment=Environment.SANDBOX if is_sandbox else Environment.PRODUCTION,
        source_queue=_text(attributes, "SourceQueue") or "",
        post_queue=_text(attributes, "PostQueue") or "",
        claimed_at_seconds=float(_number(attributes, "ClaimedAt") or 0),
        refunded_at_seconds=refunded_at_seconds,
        revocation_type=revocation_type,
        revocation_percentage=revocation_percentage,
        quantity=quantity if 1 <= quantity <= MAX_QUANTITY else None,
        schema_version=_integer(attributes, "SchemaVersion", default=0),
    )


def _value(attributes: Mapping[str, Any], name: str, type_: str) -> str | None:
    """Return the attribute's value of a type (``S`` or ``N``, both of which travel as strings), or None."""
    attribute = attributes.get(name)
    value = attribute.get(type_) if isinstance(attribute, Mapping) else None
    return value if isinstance(value, str) else None


def _text(attributes: Mapping[str, Any], name: str) -> str | None:
    return _value(attributes, name, "S")


def _number(attributes: Mapping[str, Any], name: str) -> Decimal | None:
    try:
        number = Decimal(_value(attributes, name, "N") or "NaN")
    except InvalidOperation:
        return None
    # DynamoDB knows neither NaN nor Infinity nor more digits; an emulator may, and int() would fail or take too long.
    return number if number.is_finite() and abs(number.adjusted()) < MAX_NUMBER_DIGITS else None


def _integer(attributes: Mapping[str, Any], name: str, *, default: int) -> int:
    number = _number(attributes, name)
    return int(number) if number is not None and number == number.to_integral_value() else default
