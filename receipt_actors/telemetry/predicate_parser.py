"""The parser of predicates: what is refused, it says where, what was expected there, and what was meant perhaps.

See ``predicates`` for the grammar, of which each rule is a method of ``_Parser``.
"""

from __future__ import annotations

import difflib
import enum
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from receipt_actors.errors import PredicateRefused
from receipt_actors.telemetry.predicates import (
    And,
    Comparison,
    Condition,
    FieldType,
    Not,
    OneOf,
    Operator,
    Or,
    Predicate,
    Value,
    Vocabulary,
)

MAX_CHARACTERS: Final = 1_000
MAX_DEPTH: Final = 20  #: parentheses and ``not`` inside one another
MAX_INTEGER_DIGITS: Final = 40

_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SYMBOL = re.compile(r"==|!=|<=|>=|[<>~|(),*]")
_ESCAPES: Final = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t"}
_CONSTANTS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None}
_KEYWORDS: Final = ("where", "and", "or", "not", "in", *_CONSTANTS)
_SLIPS: Final = {"=": "==", "&&": "and", "||": "or", "!": "not", "=~": "~", "<>": "!=", "[": "(", "]": ")"}
_OPERATORS: Final = {operator.value: operator for operator in Operator}
_LINE_CHARACTERS: Final = 72


def parse(text: str, vocabulary: Vocabulary) -> Predicate:
    """Read a predicate.

    Raises:
        PredicateRefused: it says nothing that can be matched. The message says what was expected, and shows where.
    """
    if len(text) > MAX_CHARACTERS:
        raise PredicateRefused(f"a predicate has at most {MAX_CHARACTERS:,} characters; this one has {len(text):,}")
    return _Parser(text, vocabulary).predicate()


class _Kind(enum.Enum):
    WORD = "word"
    SYMBOL = "symbol"
    VALUE = "value"  # a number or a string
    END = "end"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    text: str
    at: int
    value: Value = None


class _Parser:
    """One text; ``_token`` is the next piece of it."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self._text = text
        self._vocabulary = vocabulary
        self._events: tuple[str, ...] = ()  # that are named
        self._depth = 0
        self._end = 0  # of the token
        self._token = self._read()

    def predicate(self) -> Predicate:
        events = self._event_names()
        self._events = tuple(self._vocabulary.events) if events is None else events
        condition = None
        if self._takes("where"):
            condition = self._condition()
            if self._token.kind is not _Kind.END:
                self._refuse("expected and, or, or the end")
        elif self._token.kind is not _Kind.END:
            self._refuse("expected where, | or the end" if events else "expected where or the end", ("where",))
        return Predicate(events, condition)

    def _event_names(self) -> tuple[str, ...] | None:
        if self._takes("*"):
            return None
        names = [self._event_name()]
        while self._takes("|"):
            names.append(self._event_name())
        return tuple(names)

    def _event_name(self) -> str:
        events = self._vocabulary.events
        if self._token.kind is not _Kind.WORD or self._token.text not in events:
            self._refuse("expected an event" + ("" if self._token.text else " or *"), tuple(events), events)
        return self._next().text

    def _condition(self) -> Condition:
        conditions = [self._all_of()]
        while self._takes("or"):
            conditions.append(self._all_of())
        return conditions[0] if len(conditions) == 1 else Or(_flat(conditions, Or))

    def _all_of(self) -> Condition:
        conditions = [self._one()]
        while self._takes("and"):
            conditions.append(self._one())
        return conditions[0] if len(conditions) == 1 else And(_flat(conditions, And))

    def _one(self) -> Condition:
        if self._token.text not in ("not", "(") or self._token.kind is _Kind.VALUE:
            return self._comparison()
        if self._depth == MAX_DEPTH:
            self._refuse(f"expected at most {MAX_DEPTH} parentheses and not inside one another")
        self._depth += 1
        condition: Condition
        if self._next().text == "not":
            condition = Not(self._one())
        else:
            condition = self._condition()
            self._expect(")", "expected and, or, or )")
        self._depth -= 1
        return condition

    def _comparison(self) -> Condition:
        field = self._field()
        is_negated = self._takes("not")
        if self._takes("in"):
            one_of = OneOf(field, self._values(field))
            return Not(one_of) if is_negated else one_of
        symbol = self._token
        if is_negated or symbol.text not in _OPERATORS or symbol.kind is not _Kind.SYMBOL:
            self._refuse("expected in" if is_negated else f"expected {', '.join(_OPERATORS)}, in or not in")
        self._next()
        how = _OPERATORS[symbol.text]
        if how is Operator.LIKE and self._vocabulary.fields[field] is not FieldType.TEXT:
            self._refuse(f"{field} is {self._vocabulary.fields[field].value}: ~ is for text", at=symbol.at)
        return Comparison(field, how, self._value(field, how))

    def _field(self) -> str:
        fields, events = self._vocabulary.fields, self._vocabulary.events
        token = self._token
        if token.kind is not _Kind.WORD or token.text not in fields:
            known = sorted({name for event in self._events for name in events[event]})
            self._refuse("expected a field, not or (", tuple(known), fields)
        if not any(token.text in events[event] for event in self._events):
            having = [event for event, names in events.items() if token.text in names]
            self._refuse(f"{' and '.join(self._events)} never has {token.text}; {_listed(having)} may")
        return self._next().text

    def _values(self, field: str) -> tuple[Value, ...]:
        self._expect("(", "expected ( and values")
        values = [self._value(field, Operator.EQUAL)]
        while self._takes(","):
            values.append(self._value(field, Operator.EQUAL))
        self._expect(")", "expected , or )")
        return tuple(dict.fromkeys(values)) if all(isinstance(value, str) for value in values) else tuple(values)

    def _value(self, field: str, how: Operator) -> Value:
        token = self._token
        if token.kind is _Kind.WORD and token.text in _CONSTANTS:
            value: Value = _CONSTANTS[token.text]
        elif token.kind is _Kind.VALUE:
            value = token.value
        else:
            is_bare = token.kind is _Kind.WORD and self._vocabulary.fields[field] is FieldType.TEXT
            self._refuse(f'expected "{token.text}" in quotes' if is_bare else "expected a value")
        self._check_type(field, how, value)
        self._next()
        return value

    def _check_type(self, field: str, how: Operator, value: Value) -> None:
        """Refuse what would never match."""
        kind = self._vocabulary.fields[field]
        if value is None and how in (Operator.EQUAL, Operator.NOT_EQUAL):
            return
        if kind is FieldType.TEXT and not isinstance(value, str):
            self._refuse(f"{field} is text: expected a string in quotes")
        if kind is FieldType.NUMBER and (isinstance(value, bool) or not isinstance(value, int | float)):
            self._refuse(f"{field} is a number: expected a number")

    # --- pieces ---

    def _takes(self, text: str) -> bool:
        """Go on if the next piece is this keyword or symbol."""
        if self._token.text != text or self._token.kind is _Kind.VALUE:
            return False
        self._next()
        return True

    def _expect(self, text: str, expectation: str) -> None:
        if not self._takes(text):
            self._refuse(expectation)

    def _next(self) -> _Token:
        token, self._token = self._token, self._read()
        return token

    def _read(self) -> _Token:
        space = _SPACE.match(self._text, self._end)
        assert space is not None  # it may be empty
        at = space.end()
        if at == len(self._text):
            return _Token(_Kind.END, "", at)
        if self._text[at] in "\"'":
            return self._read_string(at)
        for pattern, kind in ((_NUMBER, _Kind.VALUE), (_WORD, _Kind.WORD), (_SYMBOL, _Kind.SYMBOL)):
            found = pattern.match(self._text, at)
            if found is not None:
                self._end = found.end()
                value = self._number(found) if kind is _Kind.VALUE else None
                return _Token(kind, found[0], at, value)
        slip = next((slip for slip in ("&&", "||", *_SLIPS) if self._text.startswith(slip, at)), None)
        self._refuse_at(at, "this is not part of the language", None if slip is None else (_SLIPS[slip],))

    def _number(self, found: re.Match[str]) -> int | float:
        at, end = found.span()
        if _WORD.match(self._text, end) is not None or self._text.startswith(".", end):
            self._refuse_at(at, "expected a number such as 42, -1 or 0.25")
        if found[1] is None and found[2] is None:
            if end - at > MAX_INTEGER_DIGITS:
                self._refuse_at(at, f"expected an integer of at most {MAX_INTEGER_DIGITS} digits")
            return int(found[0])
        number = float(found[0])
        if not math.isfinite(number):
            self._refuse_at(at, "expected a number that is not as large as this")
        return number

    def _read_string(self, begin: int) -> _Token:
        quote, characters, at = self._text[begin], [], begin + 1
        while at < len(self._text) and self._text[at] != quote:
            character = self._text[at]
            if character == "\\":
                at += 1
                escape = self._text[at : at + 1]
                if escape not in _ESCAPES:
                    self._refuse_at(min(at, len(self._text)), r"expected \\, \", \', \n or \t")
                character = _ESCAPES[escape]
            elif not character.isprintable():
                self._refuse_at(at, "expected printable characters")
            characters.append(character)
            at += 1
        if at >= len(self._text):
            self._refuse_at(begin, "expected the quote to be closed")
        self._end = at + 1
        return _Token(_Kind.VALUE, self._text[begin : self._end], begin, "".join(characters))

    # --- refusals ---

    def _refuse(
        self,
        expectation: str,
        names: tuple[str, ...] | None = None,
        unlike: Iterable[str] = (),
        at: int | None = None,
    ) -> NoReturn:
        """Refuse at the next piece; ``names`` are what could stand there, and ``unlike`` what was meant perhaps."""
        token = self._token
        hint = names
        if token.kind is _Kind.WORD and names is not None:
            near = difflib.get_close_matches(token.text.lower(), [*names, *unlike, *_KEYWORDS], 3, 0.6)
            near = list(dict.fromkeys(near))
            expectation = f"{expectation}, found {token.text}"
            hint = tuple(near) or names
        self._refuse_at(token.at if at is None else at, expectation, hint)

    def _refuse_at(self, at: int, expectation: str, names: tuple[str, ...] | None = None) -> NoReturn:
        hint = "" if not names else f" (did you mean {_listed(names, 'or')}?)" if len(names) <= 3 else ""
        if names and not hint:
            hint = f": {_listed(names, 'or')}"
        raise PredicateRefused(f"{expectation}{hint}\n{_shown(self._text, at)}")


def _flat(conditions: list[Condition], kind: type[And] | type[Or]) -> tuple[Condition, ...]:
    return tuple(
        inner
        for condition in conditions
        for inner in (condition.conditions if isinstance(condition, kind) else (condition,))
    )


def _listed(names: Iterable[str], last: str = "and") -> str:
    *others, only = names
    return f"{', '.join(others)} {last} {only}" if others else only


def _shown(text: str, at: int) -> str:
    """Show where something is: what is around it, and a caret under it."""
    begin = max(0, at - _LINE_CHARACTERS * 2 // 3) if len(text) > _LINE_CHARACTERS else 0
    line = "".join(
        character if character.isprintable() else " " for character in text[begin : begin + _LINE_CHARACTERS]
    )
    before, after = ("..." if begin else ""), ("..." if begin + _LINE_CHARACTERS < len(text) else "")
    return f"{before}{line}{after}\n{' ' * (len(before) + at - begin)}^"
