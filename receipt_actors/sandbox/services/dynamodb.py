"""DynamoDB's protocol over tables in memory: conditional puts, reads, updates and batches of PartiQL INSERT.

Tables have one key, of type string. What is not simulated is refused, never ignored. A condition has
``attribute_exists(name)``, ``attribute_not_exists(name)``, ``name = :value``, ``name < :value`` and ``name <= :value``,
with ``AND``, ``OR`` and parentheses. Updates are ``SET name = :value, ...``, ``REMOVE name, ...`` and both. The one
statement is ``INSERT INTO "table" VALUE {'name': value, ...}``, where a value is ``?`` (a parameter), a string in
single quotes, or a number.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from receipt_actors.sandbox.http_server import dumps
from receipt_actors.sandbox.services.aws import AwsError, AwsService, Fields, aws_ok

Attributes = dict[str, dict[str, Any]]

_NAME = r"([A-Za-z_](?:[A-Za-z0-9_.]*[A-Za-z0-9])?|#[A-Za-z0-9_.]*[A-Za-z0-9])"
_TERM = re.compile(
    rf"\b(attribute_(?:not_)?exists)\s*\(\s*{_NAME}\s*\)|(?<![\w.:#]){_NAME}\s*(<=|<|=)\s*(:[A-Za-z0-9_.]+)",
    re.IGNORECASE,
)
_PARENTHESES = re.compile(r"\(([^()]*)\)")
_AND, _OR = (re.compile(rf"\b{word}\b", re.IGNORECASE) for word in ("AND", "OR"))


class BadExpression(ValueError):
    """What DynamoDB would refuse, or what is not simulated."""


def condition_holds(
    text: str, names: Mapping[str, str], values: Mapping[str, Mapping[str, str]], item: Mapping[str, Any]
) -> bool:
    """Tell whether a condition is true of an item; of one that is not there, pass an empty one.

    ``names`` and ``values`` are those that it mentions. Raises ``BadExpression``.
    """

    def term(match: re.Match[str]) -> str:
        function, asked, compared, comparison, value = match.groups()
        name = asked or compared
        name = names[name] if name.startswith("#") else name
        if function:
            return _said((name in item) is (function.lower() == "attribute_exists"))
        return _said(_compares(item.get(name), comparison, values[value]))

    def alternatives(content: str) -> bool:
        """Decide what has no parentheses left, and in which every term is decided."""
        decided = [[each.strip() for each in _AND.split(part)] for part in _OR.split(content)]
        if any(each not in ("0", "1") for part in decided for each in part):
            raise BadExpression(f"{text!r} is not simulated")
        return any("0" not in part for part in decided)

    if re.search(r"(?<![:#\w.])[0-9]", text):  # what stands for a decided term
        raise BadExpression(f"{text!r} is not simulated")
    try:
        content = _TERM.sub(term, text)
    except KeyError:
        raise BadExpression(f"{text!r} is not simulated: a name or value is not given") from None
    while (inner := _PARENTHESES.search(content)) is not None:
        content = f"{content[: inner.start()]} {_said(alternatives(inner[1]))} {content[inner.end() :]}"
    return alternatives(content)


def _said(is_true: bool) -> str:
    return "1" if is_true else "0"


def _compares(one: Mapping[str, str] | None, comparison: str, other: Mapping[str, str]) -> bool:
    """Compare two numbers, or see whether two values are the same; what is not there compares with nothing."""
    if one is None:
        return False
    if "N" in one and "N" in other:
        left, right = Decimal(one["N"]), Decimal(other["N"])
        return left == right if comparison == "=" else left < right if comparison == "<" else left <= right
    return comparison == "=" and one == other


_INSERT = re.compile(r"""\s*INSERT\s+INTO\s+(?:"([^"]+)"|([A-Za-z0-9_.-]+))\s+VALUE\s+\{(.*)\}\s*;?\s*""", re.I | re.S)
_FIELD = re.compile(r"""\s*'((?:[^']|'')+)'\s*:\s*(?:(\?)|'((?:[^']|'')*)'|(-?[0-9.]+(?:[eE][+-]?[0-9]+)?))\s*(,|$)""")


@dataclass(frozen=True, slots=True)
class Insert:
    """An INSERT, parsed: each field has a value, or None for a parameter, which come in this order."""

    table: str
    fields: tuple[tuple[str, Mapping[str, str] | None], ...]

    def item(self, parameters: Sequence[dict[str, Any]]) -> Attributes:
        """Put the parameters in. Raises ``BadExpression`` where there are too many or too few."""
        expected = sum(value is None for _, value in self.fields)
        if len(parameters) != expected:
            raise BadExpression(f"{len(parameters)} parameters for {expected} question marks")
        remaining = iter(parameters)
        return {name: next(remaining) if value is None else dict(value) for name, value in self.fields}


@functools.lru_cache(maxsize=256)  # clients send few statements, again and again
def parse_insert(statement: str) -> Insert:
    whole = _INSERT.fullmatch(statement)
    if whole is None:
        raise BadExpression("Statement wasn't well formed, can't be processed: expected INSERT INTO ... VALUE {...}")
    fields: list[tuple[str, Mapping[str, str] | None]] = []
    text, position = whole[3], 0
    while True:
        field = _FIELD.match(text, position)
        if field is None:
            raise BadExpression(f"Statement wasn't well formed, can't be processed: {text[position : position + 40]!r}")
        name, parameter, string, number, end = field.groups()
        value = None if parameter else {"N": number} if number is not None else {"S": string.replace("''", "'")}
        fields.append((name.replace("''", "'"), value))
        position = field.end()
        if end != ",":
            break
    if len({name for name, _ in fields}) != len(fields):
        raise BadExpression("an attribute is named twice")
    return Insert(whole[1] or whole[2], tuple(fields))


MAX_STATEMENTS = 25

_UPDATED = r"[#A-Za-z0-9_.]+"
_UPDATE = re.compile(r"\s*(?:SET\s+(?P<set>.+?))?\s*(?:\bREMOVE\s+(?P<remove>.+?))?\s*", re.IGNORECASE)
_ASSIGNMENT = re.compile(rf"\s*({_UPDATED})\s*=\s*(:[A-Za-z0-9_]+)\s*")
_REMOVED = re.compile(rf"\s*({_UPDATED})\s*")

_WRITE_FIELDS = {
    *("TableName", "ConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues", "ReturnValues"),
    *("ReturnValuesOnConditionCheckFailure", "ReturnConsumedCapacity", "ReturnItemCollectionMetrics"),
}
_PUT_FIELDS = _WRITE_FIELDS | {"Item"}
_UPDATE_FIELDS = _WRITE_FIELDS | {"Key", "UpdateExpression"}
_DELETE_FIELDS = _WRITE_FIELDS | {"Key"}


@dataclass(slots=True)
class Table:
    """A table, and its items by the value of their key."""

    name: str
    key: str
    items: dict[str, Attributes] = field(default_factory=dict)
    expires_by: str | None = None  #: the attribute of its time to live; nothing expires here

    def key_of(self, attributes: Fields) -> str:
        """Read the key; refuse what lacks it."""
        value = attributes.get(self.key)
        if not isinstance(value, dict) or list(value) != ["S"] or not value["S"]:
            raise _invalid(f"One of the required keys was not given a value, or of the wrong type: {self.key}")
        key: str = value["S"]
        return key


class SimulatedDynamoDb(AwsService):
    namespace = "com.amazonaws.dynamodb.v20120810"
    malformed = "ValidationException"

    def __init__(self, latency_seconds: float) -> None:
        operations = {
            "PutItem": self._put,
            "GetItem": self._get,
            "UpdateItem": self._update,
            "DeleteItem": self._delete,
            "BatchExecuteStatement": self._batch,
            "DescribeTable": self._describe,
            "CreateTable": self._create,
            "DescribeTimeToLive": self._describe_time_to_live,
            "UpdateTimeToLive": self._update_time_to_live,
        }
        super().__init__(latency_seconds, operations)
        self.tables: dict[str, Table] = {}

    def create_table(self, name: str, key: str) -> Table:
        """Make a table, in the place of the one of that name if there is one."""
        table = self.tables[name] = Table(name, key)
        return table

    # --- operations ---

    def _put(self, fields: Fields) -> bytes:
        table, item = self._table(fields), fields["Item"]
        key = table.key_of(item)
        old = self._checked("PutItem", fields, _PUT_FIELDS, table, key)
        table.items[key] = item
        return _written(fields, old, item)

    def _update(self, fields: Fields) -> bytes:
        table = self._table(fields)
        key = table.key_of(fields["Key"])
        old = self._checked("UpdateItem", fields, _UPDATE_FIELDS, table, key)
        new = table.items[key] = _after_update(fields, old or dict(fields["Key"]))
        return _written(fields, old, new)

    def _delete(self, fields: Fields) -> bytes:
        table = self._table(fields)
        key = table.key_of(fields["Key"])
        old = self._checked("DeleteItem", fields, _DELETE_FIELDS, table, key)
        table.items.pop(key, None)
        return _written(fields, old, None)

    def _checked(
        self, operation: str, fields: Fields, known_fields: set[str], table: Table, key: str
    ) -> Attributes | None:
        """Count a write, and return the item that it is about; refuse it where its condition fails."""
        unknown = fields.keys() - known_fields
        if unknown:
            raise _invalid(f"{operation}: {', '.join(sorted(unknown))} is not simulated")
        self.entries[operation] += 1
        condition = fields.get("ConditionExpression")
        old = table.items.get(key)
        if condition is not None and _fails(condition, fields, old or {}):
            more = {"Item": old} if old and fields.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" else {}
            raise AwsError("ConditionalCheckFailedException", "The conditional request failed", more=more)
        return old

    def _get(self, fields: Fields) -> bytes:
        table = self._table(fields)
        if list(fields["Key"]) != [table.key]:
            raise _invalid("The provided key element does not match the schema")
        self.entries["GetItem"] += 1
        item = table.items.get(table.key_of(fields["Key"]))
        return aws_ok(b"{}" if item is None else dumps({"Item": item}))

    def _batch(self, fields: Fields) -> bytes:
        statements = fields["Statements"]
        if not 1 <= len(statements) <= MAX_STATEMENTS:
            raise _invalid(f"{len(statements)} statements: expected 1 to {MAX_STATEMENTS}")
        inserts: list[tuple[Table, str, Attributes]] = []
        try:
            for statement in statements:
                insert = parse_insert(statement["Statement"])
                table = self._table({"TableName": insert.table})
                item = insert.item(statement.get("Parameters") or ())
                inserts.append((table, table.key_of(item), item))
        except BadExpression as error:
            raise _invalid(str(error)) from None
        if len({(table.name, key) for table, key, _ in inserts}) != len(inserts):
            raise _invalid("Multiple statements of a batch must not be for the same item")
        self.entries["BatchExecuteStatement"] += len(inserts)
        return aws_ok(b'{"Responses":[%b]}' % b",".join([_insert(*insert) for insert in inserts]))

    def _describe(self, fields: Fields) -> bytes:
        return aws_ok(dumps({"Table": _description(self._table(fields))}))

    def _create(self, fields: Fields) -> bytes:
        keys = [schema["AttributeName"] for schema in fields["KeySchema"]]
        if len(keys) != 1:
            raise _invalid("a range key is not simulated")
        if fields["TableName"] in self.tables:
            raise AwsError("ResourceInUseException", f"Table already exists: {fields['TableName']}")
        return aws_ok(dumps({"TableDescription": _description(self.create_table(fields["TableName"], keys[0]))}))

    def _describe_time_to_live(self, fields: Fields) -> bytes:
        attribute = self._table(fields).expires_by
        enabled = {"TimeToLiveStatus": "ENABLED", "AttributeName": attribute}
        description = {"TimeToLiveStatus": "DISABLED"} if attribute is None else enabled
        return aws_ok(dumps({"TimeToLiveDescription": description}))

    def _update_time_to_live(self, fields: Fields) -> bytes:
        specification = fields["TimeToLiveSpecification"]
        self._table(fields).expires_by = specification["AttributeName"] if specification["Enabled"] else None
        return aws_ok(dumps({"TimeToLiveSpecification": specification}))

    def _table(self, fields: Fields) -> Table:
        table = self.tables.get(fields["TableName"])
        if table is None:
            raise AwsError("ResourceNotFoundException", "Requested resource not found")
        return table


def _insert(table: Table, key: str, item: Attributes) -> bytes:
    if key in table.items:
        return (
            b'{"Error":{"Code":"DuplicateItem","Message":"Duplicate primary key exists in table"},"TableName":"%b"}'
            % table.name.encode()
        )
    table.items[key] = item
    return b'{"TableName":"%b"}' % table.name.encode()


def _written(fields: Fields, old: Attributes | None, new: Attributes | None) -> bytes:
    attributes = {"ALL_OLD": old, "ALL_NEW": new}.get(fields.get("ReturnValues", "NONE"))
    return aws_ok(b"{}" if attributes is None else dumps({"Attributes": attributes}))


def _after_update(fields: Fields, old: Attributes) -> Attributes:
    """Return what an update makes of an item; the items themselves are never changed."""
    update = fields["UpdateExpression"]
    parts = _UPDATE.fullmatch(update)
    assigned, removed = (_each(pattern, parts, kind) for pattern, kind in ((_ASSIGNMENT, "set"), (_REMOVED, "remove")))
    if (not assigned and not removed) or None in (*assigned, *removed):
        raise _invalid(f"UpdateExpression {update!r} is not simulated")
    values = fields.get("ExpressionAttributeValues", {})
    new = old | {_named(fields, match[1]): values[match[2]] for match in assigned if match}
    gone = {_named(fields, match[1]) for match in removed if match}
    return {name: value for name, value in new.items() if name not in gone}


def _each(pattern: re.Pattern[str], parts: re.Match[str] | None, kind: str) -> list[re.Match[str] | None]:
    text = parts and parts[kind]
    return [pattern.fullmatch(part) for part in text.split(",")] if text else []


def _fails(condition: str, fields: Fields, old: Attributes) -> bool:
    names, values = (fields.get(f"ExpressionAttribute{kind}") or {} for kind in ("Names", "Values"))
    try:
        return not condition_holds(condition, names, values, old)
    except BadExpression as error:
        raise _invalid(f"ConditionExpression {error}") from None


def _named(fields: Fields, name: str) -> str:
    meant: str = fields["ExpressionAttributeNames"][name] if name.startswith("#") else name
    return meant


def _description(table: Table) -> dict[str, object]:
    return {
        "TableName": table.name,
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": table.key, "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": table.key, "AttributeType": "S"}],
        "ItemCount": len(table.items),
    }


def _invalid(message: str) -> AwsError:
    return AwsError("ValidationException", message)
