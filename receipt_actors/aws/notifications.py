"""DynamoDB behind the port ``Notifications``: a table of its own, whose items expire.

``ExpiresAt`` is the table's attribute for time to live. DynamoDB deletes late, and an item that is there counts,
expired or not: forgetting one early could only mean carrying out a notification again, which changes nothing.

A reversal is an item among the others, whose key no notification has.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    member,
    not_done,
    reading,
)
from receipt_actors.aws.items import check_table, item_of
from receipt_actors.domain.ports import REMEMBERED_SECONDS
from receipt_actors.errors import LedgerUnavailable

KEY = "NotificationUuid"  #: the table's hash key, a string; it has no range key
EXPIRES_AT = "ExpiresAt"  #: the attribute that time to live is to be switched on for: a UNIX time, whole seconds
SETTING = "notifications_table"  #: which names the table
CHECK_UUID = "receipt-actors-check"  #: read by ``check``, never written
_REVERSAL = "refund-reversed/"  # before the transaction id; no notificationUUID of Apple's begins so


class AwsNotifications:
    """``Notifications`` in the DynamoDB table ``table``; the methods may be called from any thread.

    Needs ``dynamodb:GetItem`` and ``dynamodb:PutItem`` on the table.
    """

    def __init__(self, table: str, session: boto3.Session | None = None, *, max_connections: int = 10) -> None:
        """Build the client; no request is made. ``max_connections`` is the number of threads that call at once.

        Raises ``ConfigurationError`` where boto3 finds no region or cannot use its settings.
        """
        self._table = table
        self._client = build_client(
            session, "dynamodb", read_timeout_seconds=READ_TIMEOUT_SECONDS, max_connections=max_connections
        )

    @blocking
    def is_known(self, notification_uuid: str) -> Calls[bool]:
        """See ``Notifications.is_known``: one consistent ``GetItem``."""
        return (yield from self._item(notification_uuid)) is not None

    @blocking
    def record(self, notification_uuid: str, now_seconds: float) -> Calls[None]:
        """See ``Notifications.record``: one ``PutItem``."""
        yield from self._put({KEY: {"S": notification_uuid}, **_lifetime(now_seconds)})

    @blocking
    def record_reversal(self, transaction_id: str, reversed_at_seconds: float, now_seconds: float) -> Calls[None]:
        """See ``Notifications.record_reversal``: one ``PutItem``, unless a later one is there."""
        item = {
            KEY: {"S": _REVERSAL + transaction_id},
            "ReversedAt": {"N": repr(reversed_at_seconds)},
            **_lifetime(now_seconds),
        }
        yield from self._put(
            item,
            ConditionExpression="attribute_not_exists(ReversedAt) OR ReversedAt < :reversed_at",
            ExpressionAttributeValues={":reversed_at": item["ReversedAt"]},
        )

    @blocking
    def reversed_at_seconds(self, transaction_id: str) -> Calls[float | None]:
        """See ``Notifications.reversed_at_seconds``: one consistent ``GetItem``."""
        item = yield from self._item(_REVERSAL + transaction_id)
        with reading(LedgerUnavailable, "GetItem"):
            return None if item is None else _seconds(member(member(item, "ReversedAt", dict), "N", str))

    @blocking
    def check(self) -> Calls[None]:
        """See ``Notifications.check``: reads a key that is never written."""
        yield from check_table(self._client, self._table, KEY, CHECK_UUID, SETTING)

    def close(self) -> None:
        """Close the connections that are not in use. Closing twice is fine."""
        self._client.api.close()

    def _put(self, item: Mapping[str, Any], **condition: Any) -> Calls[None]:
        try:
            yield from call(
                LedgerUnavailable,
                self._client,
                "put_item",
                TableName=self._table,
                Item=item,
                **condition,
            )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise not_done(LedgerUnavailable, error) from error

    def _item(self, key: str) -> Calls[Mapping[str, Any] | None]:
        return (yield from item_of(self._client, self._table, KEY, key, SETTING))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Garbled(f"{text!r} is no number") from None


def _lifetime(now_seconds: float) -> dict[str, Any]:
    return {"RecordedAt": {"N": repr(now_seconds)}, EXPIRES_AT: {"N": str(round(now_seconds + REMEMBERED_SECONDS))}}
