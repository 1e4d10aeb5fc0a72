"""What is simulated of DynamoDB's languages: condition expressions, and PartiQL's INSERT. Anything else is refused.

A condition has ``attribute_exists(name)``, ``attribute_not_exists(name)``, ``name = :value``, ``name < :value`` and
``name <= :value``, with ``AND``, ``OR`` and parentheses. The one statement is ``INSERT INTO "table" VALUE
{'name': value, ...}``, where a value is ``?`` (a parameter), a string in single quotes, or a number.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Attributes = dict[str, dict[str, Any]]

_TOKEN = re.compile(r"\s*(?:(<=|[<=()])|([#:]?[A-Za-z_][A-Za-z0-9_.]*))")


class BadExpression(ValueError):
    """What DynamoDB would refuse, or what is not simulated."""


def condition_holds(
    text: str, names: Mapping[str, str], values: Mapping[str, Mapping[str, str]], item: Mapping[str, Any]
) -> bool:
    """Tell whether a condition is true of an item; of one that is not there, pass an empty one.

    ``names`` and ``values`` are those that it mentions. Raises ``BadExpression``.
    """
    bad = BadExpression(f"{text!r} is not simulated")
    tokens = list(_tokens_of(text))

    def take(expected: str | None = None) -> str:
        if not tokens or (expected is not None and tokens[0] != expected):
            raise bad
        return tokens.pop(0)

    def name(token: str) -> str:
        if token.startswith(":") or not token[-1].isalnum() or (token.startswith("#") and token not in names):
            raise bad
        return names[token] if token.startswith("#") else token

    def either() -> bool:
        holds = both()
        while tokens and tokens[0].upper() == "OR":
            take()
            holds = both() or holds
        return holds

    def both() -> bool:
        holds = term()
        while tokens and tokens[0].upper() == "AND":
            take()
            holds = term() and holds
        return holds

    def term() -> bool:
        token = take()
        if token == "(":
            holds = either()
            take(")")
            return holds
        if token.lower() in ("attribute_exists", "attribute_not_exists"):
            take("(")
            is_there = name(take()) in item
            take(")")
            return is_there is (token.lower() == "attribute_exists")
        comparison, value = take(), take()
        if comparison not in ("<", "<=", "=") or value not in values:
            raise bad
        return _compares(item.get(name(token)), comparison, values[value])

    holds = either()
    if tokens:
        raise bad
    return holds


@functools.lru_cache(maxsize=64)
def _tokens_of(text: str) -> tuple[str, ...]:
    tokens: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadExpression(f"{text!r} is not simulated")
        tokens.append(match[1] or match[2])
        at = match.end()
    return tuple(tokens)


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
    """Raises ``BadExpression``."""
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
