"""The tables of DynamoDB: items by one key, conditional writes; and those for notifications and roles."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import boto3
from botocore.exceptions import ClientError

from receipt_actors.aws.calls import Calls, blocking
from receipt_actors.aws.connection import (
    READ_TIMEOUT_SECONDS,
    Garbled,
    build_client,
    call,
    error_code,
    integer,
    member,
    not_done,
    reading,
)
from receipt_actors.domain.ports import REMEMBERED_SECONDS, RoleRecord
from receipt_actors.errors import LedgerRefused, LedgerUnavailable

CHECKED_KEY = "receipt-actors-check"  #: read by ``check``, never written
ANSWER_SHARE = 0.25  #: of a lease, for the answer to one call, so that there is time to try again
EXPIRES_AT = "ExpiresAt"  #: the attribute that time to live is to be switched on for: a UNIX time, whole seconds
_REVERSAL = "refund-reversed/"  # before the transaction id; no notificationUUID of Apple's begins so


class Conflict(Exception):
    """The condition of a write does not hold; ``item`` is what stands there, None if nothing does."""

    def __init__(self, item: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.item = item


class AwsTable:
    """The DynamoDB table ``table``; any thread may call the methods.

    Every error answer but a failed condition is ``LedgerUnavailable``; so is trouble with the connection or the
    credentials. The constructor makes no request. It raises ``ConfigurationError`` if boto3 finds no region or cannot
    use its settings. ``max_connections`` is the number of threads that call at once.
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
        """See whether the table can be read.

        Raises ``LedgerRefused`` for a fault of the settings, with what to do, and ``LedgerUnavailable``.
        """
        try:
            yield from self._get(CHECKED_KEY)
        except LedgerUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and self._wish(cause):
                raise LedgerRefused(self._table, str(error)) from cause
            raise

    def _get(self, value: str) -> Calls[Mapping[str, Any] | None]:
        """Read the attributes of an item consistently; None: there is none."""
        answer = yield from self._call("get_item", Key={self.key: {"S": value}}, ConsistentRead=True)
        item: Mapping[str, Any] | None = answer.get("Item")
        return item

    def _write(self, operation: str, **parameters: object) -> Calls[Any]:
        """Make a conditional write. Raises ``Conflict``."""
        try:
            return (yield from self._call(operation, **parameters, ReturnValuesOnConditionCheckFailure="ALL_OLD"))
        except LedgerUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and error_code(cause) == "ConditionalCheckFailedException":
                item: Any = cause.response.get("Item")
                raise Conflict(item) from cause
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
        reversed_at = {"N": repr(reversed_at_seconds)}
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
    return {"RecordedAt": {"N": repr(now_seconds)}, EXPIRES_AT: {"N": str(round(now_seconds + REMEMBERED_SECONDS))}}


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
        item = {self.key: {"S": group}, "Version": {"N": str(record.version)}, "Content": {"S": record.content}}
        before = record.version - 1 if before is None else before
        condition: dict[str, Any] = {"ConditionExpression": f"attribute_not_exists({self.key})"}
        if before > 0:
            condition = {
                "ConditionExpression": "Version = :before",
                "ExpressionAttributeValues": {":before": {"N": str(before)}},
            }
        try:
            yield from self._write("put_item", Item=item, **condition)
        except Conflict as conflict:
            return None if conflict.item is None else _record(conflict.item, "PutItem")
        return record


def _record(item: Mapping[str, Any], operation: str) -> RoleRecord:
    with reading(LedgerUnavailable, operation):
        version = member(member(item, "Version", dict), "N", str)
        return RoleRecord(integer(version), member(member(item, "Content", dict), "S", str))
