"""One item of a DynamoDB table by its key, and whether the table is what it should be: alike for all tables of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from receipt_actors.aws.calls import Calls
from receipt_actors.aws.connection import Client, call, describe, error_code, not_done
from receipt_actors.errors import LedgerRefused, LedgerUnavailable


def item_of(client: Client, table: str, key: str, value: str, setting: str) -> Calls[Mapping[str, Any] | None]:
    """Read the attributes of an item consistently; ``key`` is the name of the table's hash key. None: there is none.

    Raises ``LedgerUnavailable``; ``setting`` names the table.
    """
    try:
        return (yield from _get_item(client, table, key, value))
    except ClientError as error:
        raise unavailable(error, key, setting) from error


def unavailable(error: ClientError, key: str, setting: str) -> LedgerUnavailable:
    """Make the error of an error answer while the program runs, with what to do where only an operator can."""
    wish = _wish(error, key, setting)
    if wish is None:
        return not_done(LedgerUnavailable, error)
    return LedgerUnavailable(f"{describe(error)}; {wish}")


def check_table(client: Client, table: str, key: str, unused: str, setting: str) -> Calls[None]:
    """Read the item ``unused``, which is never written, to see whether the table can be read.

    Raises ``LedgerRefused`` for what is a fault of the settings, with what to do; ``setting`` names the table. And
    ``LedgerUnavailable``.
    """
    try:
        yield from _get_item(client, table, key, unused)
    except ClientError as error:
        wish = _wish(error, key, setting)
        if wish is None:
            raise not_done(LedgerUnavailable, error) from error
        raise LedgerRefused(table, f"{describe(error)}; {wish}") from error


def _wish(error: ClientError, key: str, setting: str) -> str | None:
    wishes = {
        "ResourceNotFoundException": f"create the table, or set `{setting}` and the region right",
        "ValidationException": f"expected a table whose only key is the hash key {key} of type S (string)",
        "AccessDeniedException": "grant dynamodb:GetItem and dynamodb:PutItem on it",
    }
    return wishes.get(error_code(error))


def _get_item(client: Client, table: str, key: str, value: str) -> Calls[Mapping[str, Any] | None]:
    answer = yield from call(
        LedgerUnavailable,
        client,
        "get_item",
        TableName=table,
        Key={key: {"S": value}},
        ConsistentRead=True,
    )
    item: Mapping[str, Any] | None = answer.get("Item")
    return item
