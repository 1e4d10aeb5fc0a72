r"""Predicates of a trace: which events it tells. A small language that is safe to take from outside.

::

    predicate   = events [ "where" condition ]
    events      = "*" | event { "|" event }
    condition   = all_of { "or" all_of }
    all_of      = one { "and" one }
    one         = "not" one | "(" condition ")" | comparison
    comparison  = field ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) value
                | field "~" string
                | field [ "not" ] "in" "(" value { "," value } ")"
    value       = string | integer | float | "true" | "false" | "null"
    string      = '"' characters '"' | "'" characters "'"        with \\ \" \' \n \t

``~`` asks whether the field contains the string, or, where that has ``*`` (anything) or ``?`` (any one character),
whether all of the field looks like it.

What can't be said doesn't match: a field that the event has not, or values that don't compare (a string and a number),
make a comparison *unknown*. ``not`` unknown is unknown, ``and`` and ``or`` go on with what the other side says, and
only what is true matches. ``null`` equals nothing but itself.

Promises: ``predicate_parser.parse`` accepts or refuses whatever text it gets, in time proportional to its length, which
is bounded as its depth is; ``holds`` raises nothing, and takes time proportional to the predicate's length times the
fields' lengths.
"""

from __future__ import annotations

import enum
import json
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Value: TypeAlias = str | int | float | bool | None
Fields: TypeAlias = Mapping[str, object]
#: True, False, or None: unknown.
_Test: TypeAlias = Callable[[Fields], bool | None]


class FieldType(enum.Enum):
    """What a field holds, where it holds anything."""

    TEXT = "text"
    NUMBER = "a number"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a predicate may speak of."""

    events: Mapping[str, frozenset[str]]  #: the names of events, and of the fields that each may have
    fields: Mapping[str, FieldType]


# --- what a condition is made of -------------------------------------------------------------------------------------


class Operator(enum.Enum):
    """How a field is compared with a value."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    LIKE = "~"


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field == value`` and so on."""

    field: str
    operator: Operator
    value: Value

    def __str__(self) -> str:
        return f"{self.field} {self.operator.value} {_text_of(self.value)}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """``field in (value, value)``."""

    field: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return self.text()

    def text(self, how: str = "in") -> str:
        """Write it, or what is the opposite of it with ``not in``."""
        return f"{self.field} {how} ({', '.join(_text_of(value) for value in self.values)})"


@dataclass(frozen=True, slots=True)
class Not:
    """``not condition``."""

    condition: Condition

    def __str__(self) -> str:
        if isinstance(self.condition, OneOf):
            return self.condition.text("not in")
        return f"not {_in_parentheses(self.condition, And | Or)}"


@dataclass(frozen=True, slots=True)
class And:
    """``condition and condition``; none of them is itself an ``And``."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(_in_parentheses(condition, Or) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Or:
    """``condition or condition``; none of them is itself an ``Or``."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " or ".join(str(condition) for condition in self.conditions)


Condition: TypeAlias = Comparison | OneOf | Not | And | Or


def _in_parentheses(condition: Condition, kinds: Any) -> str:
    return f"({condition})" if isinstance(condition, kinds) else str(condition)


def _text_of(value: Value) -> str:
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{text}"'
    return json.dumps(value)  # true, false, null; numbers as Python writes them


class Predicate:
    """A predicate that was parsed. ``str`` of it parses to the same."""

    def __init__(self, events: Iterable[str] | None, condition: Condition | None) -> None:
        self.events = None if events is None else tuple(dict.fromkeys(events))  #: None: every event
        self.condition = condition
        self._test = None if condition is None else _test_of(condition)

    def __str__(self) -> str:
        events = "*" if self.events is None else "|".join(self.events)
        return events if self.condition is None else f"{events} where {self.condition}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predicate) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def selects(self, event: str) -> bool:
        """Tell whether the predicate names the event."""
        return self.events is None or event in self.events

    def can_hold(self, names: Collection[str]) -> bool:
        """Tell whether the condition can be true of an event that has fields of these names only.

        It errs on the side of True.
        """
        return self.condition is None or _can_hold(self.condition, names)

    def holds(self, fields: Fields) -> bool:
        """Tell whether the condition is true of the fields of an event that is selected."""
        return self._test is None or self._test(fields) is True

    def may_hold(self, field: str, value: object) -> bool:
        """Tell whether the condition can be true of an event whose ``field`` has this ``value``.

        It errs on the side of True.
        """
        return self.condition is None or _may_hold(self.condition, field, {field: value})


def _can_hold(condition: Condition, names: Collection[str]) -> bool:
    match condition:
        case And(conditions):
            return all(_can_hold(each, names) for each in conditions)
        case Or(conditions) | Not(And(conditions) | Or(conditions)):
            return any(_can_hold(each, names) for each in conditions)
        case Not(inner):
            return _can_hold(inner, names)
        case _:
            return condition.field in names


def _may_hold(condition: Condition, field: str, known: Fields) -> bool:
    match condition:
        case And(conditions):
            return all(_may_hold(each, field, known) for each in conditions)
        case Or(conditions):
            return any(_may_hold(each, field, known) for each in conditions)
        case Comparison() | OneOf() if condition.field == field:
            return _test_of(condition)(known) is True
        case Not(Comparison() | OneOf() as inner) if inner.field == field:
            return _test_of(condition)(known) is True
        case _:
            return True


# --- matching --------------------------------------------------------------------------------------------------------

_MISSING: Final = object()
_ORDERINGS: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.GREATER: operator.gt,
    Operator.AT_LEAST: operator.ge,
}


def _test_of(condition: Condition) -> _Test:
    match condition:
        case Comparison(field, Operator.LIKE, value):
            return _like(field, str(value))
        case Comparison(field, Operator.EQUAL, value):
            return lambda fields: _equal(fields.get(field, _MISSING), value)
        case Comparison(field, Operator.NOT_EQUAL, value):
            return lambda fields: _not(_equal(fields.get(field, _MISSING), value))
        case Comparison(field, ordering, value):
            return _ordered(field, _ORDERINGS[ordering], value)
        case OneOf(field, values):
            return lambda fields: _any(_equal(fields.get(field, _MISSING), value) for value in values)
        case Not(inner):
            test = _test_of(inner)
            return lambda fields: _not(test(fields))
        case And(conditions):
            tests = [_test_of(each) for each in conditions]
            return lambda fields: _all(test(fields) for test in tests)
        case Or(conditions):
            tests = [_test_of(each) for each in conditions]
            return lambda fields: _any(test(fields) for test in tests)


def _not(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


def _all(truths: Iterable[bool | None]) -> bool | None:
    result: bool | None = True
    for truth in truths:
        if truth is False:
            return False
        if truth is None:
            result = None
    return result


def _any(truths: Iterable[bool | None]) -> bool | None:
    result: bool | None = False
    for truth in truths:
        if truth is True:
            return True
        if truth is None:
            result = None
    return result


def _equal(found: object, value: Value) -> bool | None:
    if found is _MISSING:
        return None
    if found is None or value is None:
        return found is value
    return found == value if _compare(found, value) else None


def _compare(found: object, value: Value) -> bool:
    """Tell whether the two are of one kind. Python takes booleans for numbers; nobody else does."""
    if isinstance(found, bool) or isinstance(value, bool):
        return isinstance(found, bool) and isinstance(value, bool)
    if isinstance(value, str):
        return isinstance(found, str)
    return isinstance(found, int | float) and isinstance(value, int | float)


def _ordered(field: str, ordering: Callable[[Any, Any], bool], value: Value) -> _Test:
    if value is None or isinstance(value, bool):
        return lambda _fields: None

    def test(fields: Fields) -> bool | None:
        found = fields.get(field)
        return ordering(found, value) if _compare(found, value) else None

    return test


def _like(field: str, pattern: str) -> _Test:
    if "*" in pattern or "?" in pattern:
        looks_right = _glob(pattern)
    else:

        def looks_right(text: str) -> bool:
            return pattern in text

    def test(fields: Fields) -> bool | None:
        found = fields.get(field)
        return looks_right(found) if isinstance(found, str) else None

    return test


def _glob(pattern: str) -> Callable[[str], bool]:
    """Make a test of a whole text; no part of the pattern is looked for twice from the same place."""
    parts = pattern.split("*")
    finders = [_finder(part) for part in parts]

    def looks_right(text: str) -> bool:
        if len(parts) == 1:
            return len(text) == len(pattern) and finders[0](text, 0, len(text)) == 0
        at, end = len(parts[0]), len(text) - len(parts[-1])
        if at > end or finders[0](text, 0, at) != 0 or finders[-1](text, end, len(text)) != end:
            return False
        for part, find in zip(parts[1:-1], finders[1:-1], strict=True):
            found = find(text, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return looks_right


def _finder(part: str) -> Callable[[str, int, int], int]:
    """Make what finds a part without ``*`` between two places of a text, as ``str.find`` does."""
    if "?" not in part:
        return lambda text, begin, end: text.find(part, begin, end)
    # It repeats nothing, so there is nothing that it could go back to.
    pattern = re.compile("".join("." if each == "?" else re.escape(each) for each in part), re.DOTALL)

    def find(text: str, begin: int, end: int) -> int:
        found = pattern.search(text, begin, end)
        return -1 if found is None else found.start()

    return find
