"""DynamoDB's condition expressions, as far as they are simulated.

``attribute_exists(name)``, ``attribute_not_exists(name)``, ``name = :value``, ``name < :value`` and ``name <= :value``,
with ``AND``, ``OR`` and parentheses. Anything else is a ``BadCondition``, never ignored.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_TOKEN = re.compile(r"\s*(?:(<=|[<=()])|([#:]?[A-Za-z_][A-Za-z0-9_.]*))")


class BadCondition(Exception):
    """What is none, or is not simulated."""


class Condition:
    """One expression, with the names and values that it mentions."""

    def __init__(self, text: str, names: Mapping[str, str], values: Mapping[str, Mapping[str, str]]) -> None:
        self._text = text
        self._names = names
        self._values = values
        self._tokens = _tokens_of(text)

    def holds_for(self, item: Mapping[str, Any]) -> bool:
        """Tell whether it is true of an item; of one that is not there, pass an empty one."""
        tokens = list(self._tokens)
        holds = self._either(tokens, item)
        if tokens:
            raise self._bad()
        return holds

    def _either(self, tokens: list[str], item: Mapping[str, Any]) -> bool:
        holds = self._both(tokens, item)
        while tokens and tokens[0].upper() == "OR":
            tokens.pop(0)
            holds = self._both(tokens, item) or holds
        return holds

    def _both(self, tokens: list[str], item: Mapping[str, Any]) -> bool:
        holds = self._term(tokens, item)
        while tokens and tokens[0].upper() == "AND":
            tokens.pop(0)
            holds = self._term(tokens, item) and holds
        return holds

    def _term(self, tokens: list[str], item: Mapping[str, Any]) -> bool:
        token = self._next(tokens)
        if token == "(":
            holds = self._either(tokens, item)
            self._next(tokens, ")")
            return holds
        if token.lower() in ("attribute_exists", "attribute_not_exists"):
            self._next(tokens, "(")
            is_there = self._name(self._next(tokens)) in item
            self._next(tokens, ")")
            return is_there is (token.lower() == "attribute_exists")
        comparison, value = self._next(tokens), self._next(tokens)
        if comparison not in ("<", "<=", "=") or value not in self._values:
            raise self._bad()
        return _compares(item.get(self._name(token)), comparison, self._values[value])

    def _next(self, tokens: list[str], expected: str | None = None) -> str:
        if not tokens or (expected is not None and tokens[0] != expected):
            raise self._bad()
        return tokens.pop(0)

    def _name(self, token: str) -> str:
        if token.startswith(":") or not token[-1].isalnum() or (token.startswith("#") and token not in self._names):
            raise self._bad()
        return self._names[token] if token.startswith("#") else token

    def _bad(self) -> BadCondition:
        return BadCondition(f"{self._text!r} is not simulated")


@functools.lru_cache(maxsize=64)
def _tokens_of(text: str) -> tuple[str, ...]:
    tokens: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadCondition(f"{text!r} is not simulated")
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
