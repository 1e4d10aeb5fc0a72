"""JSON as strangers send it: read into an object, or refused with a reason.

Total, whatever the string is: nesting is counted before the parser recurses into it, no key may occur twice in one
object (readers disagree on which of the two counts), and ``NaN`` is no JSON. The words of a refusal quote nothing.
"""

from __future__ import annotations

import json
import re

from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.values import json_type

MAX_DEPTH = 32  #: arrays and objects inside one another

_MAX_INTEGER_CHARACTERS = 20  # a sign and the 19 digits of 2^63
_STRUCTURE = re.compile(r'\\.|["\[\]{}]', re.DOTALL)


class JsonRefused(ValueError):
    """Why a text is no object that may be read; ``words`` are for the operator."""

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.reason = reason  #: ``NOT_JSON``, ``NOT_AN_OBJECT``, ``DUPLICATE_KEY`` or ``TOO_DEEP``
        self.words = words


def parse_object(text: str) -> dict[str, object]:
    """Read an object. An integer beyond 64 bits becomes an infinite float: no field takes it.

    Raises:
        JsonRefused: it is none.
    """
    _check_depth(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JsonRefused(Reason.NOT_JSON, f"{error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise JsonRefused(Reason.NOT_AN_OBJECT, f"expected an object, found {json_type(value)}")
    return value


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the parser recurses into it.

    Up to the first syntax error this scan agrees with the parser on what is inside a string, since a backslash outside
    of one is such an error; so the parser never gets deeper than what is counted here.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return  # nearly every text: no scan in Python
    depth = 0
    in_string = False
    for token in _STRUCTURE.finditer(text):
        match token[0]:
            case '"':
                in_string = not in_string
            case "[" | "{" if not in_string:
                depth += 1
            case "]" | "}" if not in_string:
                depth -= 1
        if depth > MAX_DEPTH:
            raise JsonRefused(Reason.TOO_DEEP, f"expected at most {MAX_DEPTH} arrays and objects inside one another")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        # Whoever checked this text before us may have seen the other one.
        raise JsonRefused(Reason.DUPLICATE_KEY, "a key occurs twice in one object")
    return fields


def _bounded_integer(digits: str) -> int | float:
    # int() is quadratic in the digits, and refuses more than 4,300 of them.
    return int(digits) if len(digits) <= _MAX_INTEGER_CHARACTERS else float("inf")


def _no_constant(name: str) -> object:
    raise JsonRefused(Reason.NOT_JSON, f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_int=_bounded_integer, parse_constant=_no_constant)
