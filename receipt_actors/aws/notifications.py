"""DynamoDB behind the port ``Notifications``: a table of its own, whose items expire.

``ExpiresAt`` is the table's attribute for time to live. DynamoDB deletes late, and an item that is there counts,
expired or not: forgetting one early could only mean carrying out a notification again, which changes nothing.

A reversal is an item among the others, whose key no notification has.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from receipt_actors.aws.calls import Calls, blocking
from receipt_actors.aws.connection import Garbled, member, reading
from receipt_actors.aws.table import AwsTable, Conflict
from receipt_actors.domain.ports import REMEMBERED_SECONDS
from receipt_actors.errors import LedgerUnavailable

EXPIRES_AT = "ExpiresAt"  #: the attribute that time to live is to be switched on for: a UNIX time, whole seconds
_REVERSAL = "refund-reversed/"  # before the transaction id; no notificationUUID of Apple's begins so


class AwsNotifications(AwsTable):
    """``Notifications``. Needs ``dynamodb:GetItem`` and ``dynamodb:PutItem`` on the table."""

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
        with reading(LedgerUnavailable, "GetItem"):
            return None if item is None else _seconds(member(member(item, "ReversedAt", dict), "N", str))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Garbled(f"{text!r} is no number") from None


def _lifetime(now_seconds: float) -> dict[str, Any]:
    return {"RecordedAt": {"N": repr(now_seconds)}, EXPIRES_AT: {"N": str(round(now_seconds + REMEMBERED_SECONDS))}}
