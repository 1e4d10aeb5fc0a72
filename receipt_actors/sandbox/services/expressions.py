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
