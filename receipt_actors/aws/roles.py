"""DynamoDB behind the port ``RoleTable``: one item a group, which is only ever replaced by its next version.

What has not been answered within a fraction of a lease is given up, so that it can be tried again while that lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

from receipt_actors.aws.calls import Calls, blocking
from receipt_actors.aws.connection import build_client, call, error_code, integer, member, reading
from receipt_actors.aws.items import check_table, item_of, unavailable
from receipt_actors.domain.ports import RoleRecord
from receipt_actors.errors import LedgerUnavailable

KEY = "RoleGroup"  #: the table's hash key, a string; it has no range key
SETTING = "role_table"  #: which names the table
CHECK_GROUP = "receipt-actors-check"  #: read by ``check``, never written
PATIENCE = 0.25  #: of a lease, for the answer to one call


class AwsRoles:
    """``RoleTable`` in the DynamoDB table ``table``; the methods may be called from any thread.

    Needs ``dynamodb:GetItem`` and ``dynamodb:PutItem`` on the table.
    """

    def __init__(self, table: str, lease_seconds: float, session: boto3.Session | None = None) -> None:
        """Build the client; no request is made. Raises ``ConfigurationError`` where boto3's settings cannot work."""
        self._table = table
        self._client = build_client(
            session, "dynamodb", read_timeout_seconds=PATIENCE * lease_seconds, max_connections=1
        )

    @blocking
    def read(self, group: str) -> Calls[RoleRecord | None]:
        """See ``RoleTable.read``: one consistent ``GetItem``."""
        item = yield from item_of(self._client, self._table, KEY, group, SETTING)
        return None if item is None else _record(item, "GetItem")

    @blocking
    def write(self, group: str, record: RoleRecord, before: int | None = None) -> Calls[RoleRecord | None]:
        """See ``RoleTable.write``: one conditional ``PutItem``."""
        item = {KEY: {"S": group}, "Version": {"N": str(record.version)}, "Content": {"S": record.content}}
        before = record.version - 1 if before is None else before
        condition: dict[str, Any] = {"ConditionExpression": f"attribute_not_exists({KEY})"}
        if before > 0:
            condition = {
                "ConditionExpression": "Version = :before",
                "ExpressionAttributeValues": {":before": {"N": str(before)}},
            }
        try:
            yield from call(
                LedgerUnavailable,
                self._client,
                "put_item",
                TableName=self._table,
                Item=item,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **condition,
            )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise unavailable(error, KEY, SETTING) from error
            in_the_way: Any = error.response.get("Item")
            return None if in_the_way is None else _record(in_the_way, "PutItem")
        return record

    @blocking
    def check(self) -> Calls[None]:
        """See ``RoleTable.check``: reads a key that is never written."""
        yield from check_table(self._client, self._table, KEY, CHECK_GROUP, SETTING)

    def close(self) -> None:
        """Close the connections that are not in use. Closing twice is fine."""
        self._client.api.close()


def _record(item: Mapping[str, Any], operation: str) -> RoleRecord:
    with reading(LedgerUnavailable, operation):
        return RoleRecord(
            integer(member(member(item, "Version", dict), "N", str)), member(member(item, "Content", dict), "S", str)
        )
