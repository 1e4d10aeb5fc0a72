"""The tables of DynamoDB: items by one key, conditional writes; the ledger, notifications and roles."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any

import boto3
from botocore.exceptions import ClientError

from receipt_actors.aws.calls import Calls, blocking
from receipt_actors.aws.connection import (
    MAX_NUMBER_DIGITS,
    READ_TIMEOUT_SECONDS,
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
from receipt_actors.domain.ports import (
    MAX_QUANTITY,
    REMEMBERED_SECONDS,
    TAKEN,
    WHOLE_PERCENTAGE,
    ClaimOutcome,
    EntryFailure,
    Environment,
    LedgerItem,
    RoleRecord,
    Standing,
    Tombstone,
    check_claims,
)
from receipt_actors.errors import BatchesRefused, LedgerRefused, LedgerUnavailable

logger = logging.getLogger(__name__)

CHECKED_KEY = "receipt-actors-check"  #: read by ``check``, never written
ANSWER_SHARE = 0.25  #: part of a lease that one call may take, so that there is time to try again
EXPIRES_AT = "ExpiresAt"  #: the attribute that time to live is to be switched on for: a UNIX time, whole seconds
_REVERSAL = "refund-reversed/"  # before the transaction id; no notificationUUID of Apple's begins so

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


class Conflict(Exception):
    """The condition of a write does not hold; ``item`` is what stands there, None if nothing does."""

    def __init__(self, item: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.item = item


class AwsTable:
    """A DynamoDB table; any thread may call the methods, ``max_connections`` threads at once.

    Error answers but failed conditions, and trouble with connection or credentials, are ``LedgerUnavailable``. The
    constructor makes no request. It raises ``ConfigurationError`` if boto3 has no region or cannot use its settings.
    """

    key: str  #: the table's hash key, a string; it has no range key
    setting: str  #: which names the table

    def __init__(
        self,
        table: str,
        session: boto3.Session | None = None,
        *,
        max_connections: int = 10,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> None:
        self._table = table
        self._client = build_client(session, "dynamodb", read_timeout_seconds, max_connections)
        self.may_transfer = self._client.maker is not None  #: whether ``AwsCalls`` needs no thread for a call
        self.close = self._client.api.close  #: closes the idle connections; may be called twice

    @blocking
    def check(self) -> Calls[None]:
        try:
            yield from self._get(CHECKED_KEY)
        except LedgerUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and self._wish(cause):  # a fault of the settings
                raise LedgerRefused(self._table, str(error)) from cause
            raise

    def _get(self, value: str) -> Calls[Any]:
        """Read the attributes of an item consistently; None: there is none."""
        return (yield from self._call("get_item", Key={self.key: {"S": value}}, ConsistentRead=True)).get("Item")

    def _write(self, operation: str, **parameters: object) -> Calls[Any]:
        """Make a conditional write. Raises ``Conflict``."""
        try:
            return (yield from self._call(operation, **parameters, ReturnValuesOnConditionCheckFailure="ALL_OLD"))
        except LedgerUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and error_code(cause) == "ConditionalCheckFailedException":
                raise Conflict(cause.response.get("Item")) from cause  # type: ignore[arg-type]
            raise

    def _call(self, operation: str, **parameters: object) -> Calls[Any]:
        try:
            return (yield from call(LedgerUnavailable, self._client, operation, TableName=self._table, **parameters))
        except ClientError as error:
            raise not_done(LedgerUnavailable, error, self._wish(error)) from error

    def _wish(self, error: ClientError) -> str:
        """Return what an operator can do about an error answer."""
        wishes = {
            "ResourceNotFoundException": f"create the table, or set `{self.setting}` and the region right",
            "ValidationException": f"expected a table whose only key is the hash key {self.key} of type S (string)",
            "AccessDeniedException": "grant dynamodb:GetItem and dynamodb:PutItem on it",
        }
        return wishes.get(error_code(error), "") if error.operation_name in ("GetItem", "PutItem") else ""


class AwsLedger(AwsTable):
    """``Ledger``. Needs ``dynamodb:PutItem`` and ``dynamodb:GetItem`` on the table, ``PartiQLInsert`` for batches.

    Refunds need ``UpdateItem``, their reversals ``DeleteItem``; the check uses ``DescribeTimeToLive``.

    A refund updates the attributes of its mark and never replaces an item. If the transaction is unclaimed, the update
    creates an item with the key and the mark only: the tombstone, which refuses every claim and is deleted only as long
    as it is a tombstone.

    Another program's items may lack attributes of ours. They refuse a claim all the same, and belong to no user: a
    missing text is empty, a missing user id is ``NO_USER_ID``. No message can have either.
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
        # One PartiQL ``INSERT`` a claim: DynamoDB's only batch with conditions, here that no item exists yet. It saves
        # round trips, not capacity. It need not return the item in the way, so single reads decide about ownership.
        check_claims(items)
        if not items:
            return []
        statements = [
            {"Statement": _insert(self._table, tuple(attributes)), "Parameters": list(attributes.values())}
            for attributes in map(_to_attributes, items)
        ]
        try:
            answer = yield from call(LedgerUnavailable, self._client, "batch_execute_statement", Statements=statements)
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
        mark = {_REFUNDED_AT: refunded_at_seconds, _REVOCATION_TYPE: revocation_type}
        mark[_REVOCATION_PERCENTAGE] = revocation_percentage
        given = {name: _typed(value) for name, value in mark.items() if value is not None}
        changes = f"SET {', '.join(f'{name} = :{name}' for name in given)}"
        missing = [name for name in mark if name not in given]
        is_later = f"attribute_not_exists({_REFUNDED_AT}) OR {_REFUNDED_AT} < :{_REFUNDED_AT}"
        is_more = f"{_REFUNDED_AT} = :{_REFUNDED_AT} AND {_REVOCATION_PERCENTAGE} < :percentage"  # none is the whole
        percentage = WHOLE_PERCENTAGE if revocation_percentage is None else revocation_percentage
        try:
            answer = yield from self._write(
                "update_item",
                Key={KEY: {"S": transaction_id}},
                UpdateExpression=f"{changes} REMOVE {', '.join(missing)}" if missing else changes,
                ConditionExpression=f"{is_later} OR ({is_more})",
                ExpressionAttributeValues={
                    ":percentage": _typed(percentage),
                    **{f":{name}": value for name, value in given.items()},
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
        key, values = {KEY: {"S": transaction_id}}, {":reversed_at": _typed(reversed_at_seconds)}
        is_no_later = f"{_REFUNDED_AT} <= :reversed_at"
        for _ in range(_UNMARK_ATTEMPTS):
            try:
                answer = yield from self._write(
                    "update_item",
                    Key=key,
                    UpdateExpression=f"REMOVE {_REFUNDED_AT}, {_REVOCATION_TYPE}, {_REVOCATION_PERCENTAGE}",
                    ConditionExpression="attribute_exists(#an_attribute)"
                    f" AND (attribute_not_exists({_REFUNDED_AT}) OR {is_no_later})",
                    ExpressionAttributeNames={"#an_attribute": an_attribute},
                    ExpressionAttributeValues=values,
                    ReturnValues="ALL_NEW",
                )
                if isinstance(standing := _updated(answer), Tombstone):
                    raise LedgerUnavailable("UpdateItem: a garbled answer: the mark was removed, and is there")
                return standing
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
                    Key=key,
                    ConditionExpression=f"{is_no_later} AND attribute_not_exists(SubmissionId)",
                    ExpressionAttributeValues=values,
                )
                return None
            except Conflict:
                pass
        raise LedgerUnavailable("UpdateItem: the item changes each time that it is looked at")

    def _in_the_way(self, conflict: Conflict, transaction_id: str) -> Calls[Standing]:
        """Return what stands there; an emulator may not send it along."""
        item = conflict.item or (yield from self._get(transaction_id))
        if not item:
            raise LedgerUnavailable("an item stood in the way, and is gone") from conflict
        return _standing(item)

    @blocking
    def check(self) -> Calls[None]:
        """Refuse a table that deletes claims, too. If that cannot be seen, log a warning."""
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
    error = error if isinstance(error, Mapping) else {}
    code = str(error.get("Code", ""))
    if code == "DuplicateItem":
        return TAKEN
    return EntryFailure(code, told(error.get("Message", "")), sender_fault=code == "ValidationError")


def _typed(value: object) -> dict[str, str]:
    """Return a value as DynamoDB has it: texts as S, numbers and UNIX times in seconds as N."""
    return {"S": str(value)} if isinstance(value, str) else {"N": repr(value)}


def _to_attributes(item: LedgerItem) -> dict[str, dict[str, str]]:
    values = ((name, getattr(item, field)) for field, name in _NAMES.items())
    return {name: _typed(value) for name, value in values if value is not None}


def _updated(answer: Mapping[str, Any]) -> Standing:
    attributes = answer.get("Attributes")
    if not isinstance(attributes, Mapping) or KEY not in attributes:
        raise LedgerUnavailable("UpdateItem: a garbled answer: no item in it", is_unknown_answer=True)
    return _standing(attributes)


def _standing(attributes: Mapping[str, Any]) -> Standing:
    """Read a claim or a tombstone. Missing or mistyped attributes belong to no user: see ``AwsLedger``."""
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


def _text(attributes: Mapping[str, Any], name: str, type_: str = "S") -> str | None:
    """Return the attribute's value of a type (``S`` or ``N``, both of which travel as strings), or None."""
    attribute = attributes.get(name)
    value = attribute.get(type_) if isinstance(attribute, Mapping) else None
    return value if isinstance(value, str) else None


def _number(attributes: Mapping[str, Any], name: str) -> Decimal | None:
    try:
        number = Decimal(_text(attributes, name, "N") or "NaN")
    except InvalidOperation:
        return None
    # DynamoDB knows neither NaN nor Infinity nor more digits; an emulator may, and int() would fail or take too long.
    return number if number.is_finite() and abs(number.adjusted()) < MAX_NUMBER_DIGITS else None


def _integer(attributes: Mapping[str, Any], name: str, *, default: int) -> int:
    number = _number(attributes, name)
    return int(number) if number is not None and number == number.to_integral_value() else default


class AwsNotifications(AwsTable):
    """``Notifications``. Needs ``dynamodb:GetItem`` and ``dynamodb:PutItem`` on the table.

    Items expire. DynamoDB deletes late, and an item that is there counts, expired or not: to forget one early would
    only repeat a notification, which changes nothing.
    """

    key = "NotificationUuid"
    setting = "notifications_table"

    @blocking
    def is_known(self, notification_uuid: str) -> Calls[bool]:
        return (yield from self._get(notification_uuid)) is not None

    @blocking
    def record(self, notification_uuid: str, now_seconds: float) -> Calls[None]:
        yield from self._call("put_item", Item={self.key: {"S": notification_uuid}, **_lifetime(now_seconds)})

    @blocking
    def record_reversal(self, transaction_id: str, reversed_at_seconds: float, now_seconds: float) -> Calls[None]:
        reversed_at = _typed(reversed_at_seconds)
        item = {self.key: {"S": _REVERSAL + transaction_id}, "ReversedAt": reversed_at, **_lifetime(now_seconds)}
        with suppress(Conflict):  # a later one is there
            yield from self._write(
                "put_item",
                Item=item,
                ConditionExpression="attribute_not_exists(ReversedAt) OR ReversedAt < :reversed_at",
                ExpressionAttributeValues={":reversed_at": reversed_at},
            )

    @blocking
    def reversed_at_seconds(self, transaction_id: str) -> Calls[float | None]:
        item = yield from self._get(_REVERSAL + transaction_id)
        if item is None:
            return None
        with reading(LedgerUnavailable, "GetItem"):
            text = member(member(item, "ReversedAt", dict), "N", str)
            try:
                return float(text)
            except ValueError:
                raise Garbled(f"{text!r} is no number") from None


def _lifetime(now_seconds: float) -> dict[str, Any]:
    return {"RecordedAt": _typed(now_seconds), EXPIRES_AT: _typed(round(now_seconds + REMEMBERED_SECONDS))}


class AwsRoles(AwsTable):
    """``RoleTable``. Needs ``dynamodb:GetItem`` and ``dynamodb:PutItem`` on the table."""

    key = "RoleGroup"
    setting = "role_table"

    def __init__(self, table: str, lease_seconds: float, session: boto3.Session | None = None) -> None:
        super().__init__(table, session, read_timeout_seconds=ANSWER_SHARE * lease_seconds, max_connections=1)

    @blocking
    def read(self, group: str) -> Calls[RoleRecord | None]:
        item = yield from self._get(group)
        return None if item is None else _record(item, "GetItem")

    @blocking
    def write(self, group: str, record: RoleRecord, before: int | None = None) -> Calls[RoleRecord | None]:
        item = {self.key: {"S": group}, "Version": _typed(record.version), "Content": {"S": record.content}}
        before = record.version - 1 if before is None else before
        condition: dict[str, Any] = {"ConditionExpression": f"attribute_not_exists({self.key})"}
        if before > 0:
            values = {":before": _typed(before)}
            condition = {"ConditionExpression": "Version = :before", "ExpressionAttributeValues": values}
        try:
            yield from self._write("put_item", Item=item, **condition)
        except Conflict as conflict:
            return None if conflict.item is None else _record(conflict.item, "PutItem")
        return record


def _record(item: Mapping[str, Any], operation: str) -> RoleRecord:
    with reading(LedgerUnavailable, operation):
        version = member(member(item, "Version", dict), "N", str)
        return RoleRecord(integer(version), member(member(item, "Content", dict), "S", str))
