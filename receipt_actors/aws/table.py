"""``AwsTable``: what the tables of DynamoDB have in common here: items by one key, conditional writes, a check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

from receipt_actors.aws.calls import Calls, blocking
from receipt_actors.aws.connection import READ_TIMEOUT_SECONDS, build_client, call, error_code, not_done
from receipt_actors.errors import LedgerRefused, LedgerUnavailable

CHECKED_KEY = "receipt-actors-check"  #: read by ``check``, never written


class Conflict(Exception):
    """The condition of a write does not hold; ``item`` is what stands there, None where nothing does."""

    def __init__(self, item: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.item = item


class AwsTable:
    """The DynamoDB table ``table``; the methods may be called from any thread.

    Every error answer but a failed condition is ``LedgerUnavailable``, and so is all trouble with the connection and
    the credentials. Building it makes no request; it raises ``ConfigurationError`` where boto3 finds no region or
    cannot use its settings. ``max_connections`` is the number of threads that call at once.
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
        self._client = build_client(
            session, "dynamodb", read_timeout_seconds=read_timeout_seconds, max_connections=max_connections
        )

    @property
    def may_transfer(self) -> bool:
        """Whether ``AwsCalls`` can call all methods without a thread that waits."""
        return self._client.maker is not None

    @blocking
    def check(self) -> Calls[None]:
        """See whether the table can be read: reads a key that is never written.

        Raises ``LedgerRefused`` for what is a fault of the settings, with what to do, and ``LedgerUnavailable``.
        """
        yield from self._check()

    def _check(self) -> Calls[None]:
        try:
            yield from self._get(CHECKED_KEY)
        except LedgerUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and self._wish(cause):
                raise LedgerRefused(self._table, str(error)) from cause
            raise

    def close(self) -> None:
        """Close the connections that are not in use. Closing twice is fine."""
        self._client.api.close()

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
        """Say what an operator can do about an error answer."""
        wishes = {
            "ResourceNotFoundException": f"create the table, or set `{self.setting}` and the region right",
            "ValidationException": f"expected a table whose only key is the hash key {self.key} of type S (string)",
            "AccessDeniedException": "grant dynamodb:GetItem and dynamodb:PutItem on it",
        }
        return wishes.get(error_code(error), "") if error.operation_name in ("GetItem", "PutItem") else ""
