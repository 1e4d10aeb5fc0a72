"""The one statement of PartiQL that is simulated: ``INSERT INTO "table" VALUE {'name': value, ...}``.

A value is ``?`` (a parameter), a string in single quotes, or a number.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_INSERT = re.compile(r"""\s*INSERT\s+INTO\s+(?:"([^"]+)"|([A-Za-z0-9_.-]+))\s+VALUE\s+\{(.*)\}\s*;?\s*""", re.I | re.S)
_FIELD = re.compile(r"""\s*'((?:[^']|'')+)'\s*:\s*(?:(\?)|'((?:[^']|'')*)'|(-?[0-9.]+(?:[eE][+-]?[0-9]+)?))\s*(,|$)""")

Attributes = dict[str, dict[str, Any]]


class BadStatement(ValueError):
    """What DynamoDB would refuse, or nothing that is simulated."""


@dataclass(frozen=True, slots=True)
class Insert:
    """An INSERT, parsed: each field has a value, or None for a parameter, which come in this order."""

    table: str
    fields: tuple[tuple[str, Mapping[str, str] | None], ...]

    def item(self, parameters: Sequence[dict[str, Any]]) -> Attributes:
        """Put the parameters in. Raises ``BadStatement`` where there are too many or too few."""
        expected = sum(value is None for _, value in self.fields)
        if len(parameters) != expected:
            raise BadStatement(f"{len(parameters)} parameters for {expected} question marks")
        remaining = iter(parameters)
        return {name: next(remaining) if value is None else dict(value) for name, value in self.fields}


@functools.lru_cache(maxsize=256)  # clients send few statements, again and again
def parse_insert(statement: str) -> Insert:
    """Raises ``BadStatement``."""
    whole = _INSERT.fullmatch(statement)
    if whole is None:
        raise BadStatement("Statement wasn't well formed, can't be processed: expected INSERT INTO ... VALUE {...}")
    fields: list[tuple[str, Mapping[str, str] | None]] = []
    text, position = whole[3], 0
    while True:
        field = _FIELD.match(text, position)
        if field is None:
            raise BadStatement(f"Statement wasn't well formed, can't be processed: {text[position : position + 40]!r}")
        name, parameter, string, number, end = field.groups()
        value = None if parameter else {"N": number} if number is not None else {"S": string.replace("''", "'")}
        fields.append((name.replace("''", "'"), value))
        position = field.end()
        if end != ",":
            break
    if len({name for name, _ in fields}) != len(fields):
        raise BadStatement("an attribute is named twice")
    return Insert(whole[1] or whole[2], tuple(fields))
