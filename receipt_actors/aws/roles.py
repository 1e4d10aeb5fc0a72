"""DynamoDB behind the port ``RoleTable``: one item a group, which is only ever replaced by its next version.

What has not been answered within a fraction of a lease is given up, so that it can be tried again while that lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3

from receipt_actors.aws.calls import Calls, blocking
from receipt_actors.aws.connection import integer, member, reading
from receipt_actors.aws.table import AwsTable, Conflict
from receipt_actors.domain.ports import RoleRecord
from receipt_actors.errors import LedgerUnavailable

ANSWER_SHARE = 0.25  #: of a lease, for the answer to one call


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
        return RoleRecord(
            integer(member(member(item, "Version", dict), "N", str)), member(member(item, "Content", dict), "S", str)
        )
