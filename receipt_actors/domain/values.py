"""What strangers send: JSON read strictly, the one rule for ids and names, and hashes. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

from receipt_actors.domain.reasons import Reason

MAX_NAME_CHARACTERS = 256  #: of any id or name; at most 1,024 bytes, half of what a DynamoDB key may have

# SQS takes #x9 #xA #xD #x20-#xD7FF #xE000-#xFFFD #x10000-#x10FFFF, in bodies and in attributes.
UNSENDABLE_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
# A name has no control characters at all: a line break in an id forges lines in a log.
_NAME = re.compile(f"[\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]{{1,{MAX_NAME_CHARACTERS}}}")

_ENCODED = r"A-Za-z0-9+/=_%\\-"  # base64 of either alphabet, also in a URL or a JSON string
# Base64, a signed transaction, a key of AWS; an id (36), a name of AWS or an address stays readable. Of an address that
# is what stands before a query or a fragment, as long as it may name something: a queue has 80 characters.
_ENCODED_DATA = re.compile(
    rf"""(?P<scheme>https?://)[^\s"'/?#@]{{1,512}}@
    |(?P<name>arn:[\w:/.@,*-]{{1,256}}(?![{_ENCODED}])
       |https?://(?:(?!(?-i:eyJ))[\w.:-]){{1,255}}(?![%+=])(?:/(?:(?!(?-i:eyJ))[\w.~:/-]){{0,128}}(?![{_ENCODED}]))?)
    |(?-i:eyJ)[\w-]{{8,}}(?:\.[\w-]*)+
    |[0-9A-Fa-f]{{32,}}
    |[{_ENCODED}]{{40,}}""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)


def is_name(value: object) -> TypeGuard[str]:
    """Return whether it is a string of 1 to 256 characters that SQS takes, without control characters."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_queue_name(value: object) -> TypeGuard[str]:
    """Return whether it can name an SQS queue: 1 to 80 letters, digits, hyphens, underscores; ``.fifo`` may end it."""
    return isinstance(value, str) and _QUEUE_NAME.fullmatch(value) is not None


def sendable(text: str) -> str:
    """Replace each character that SQS refuses by U+FFFD."""
    if text.isascii() and text.isprintable():  # nearly every text
        return text
    return UNSENDABLE_CHARACTER.sub("\ufffd", text)


def printable(text: str) -> str:
    """Escape every invisible character, so that a terminal does not obey a stranger's text."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def masked(text: str) -> str:
    """Replace encoded data (40 or more characters, 32 hexadecimal) by ``...``.

    ARNs and URLs stay, without query, fragment, login, or a path too long for a name.
    """
    return _ENCODED_DATA.sub(
        lambda found: found["name"] or (f"{found['scheme']}...@" if found["scheme"] else "..."), text
    )


def json_type(value: object) -> str:
    """Name the JSON type of a value for a detail, which must not repeat the value."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case _:
            return "an array"


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
    """Read an object or raise ``JsonRefused``. An integer beyond 64 bits becomes an infinite float."""
    _check_depth(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JsonRefused(Reason.NOT_JSON, f"{error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise JsonRefused(Reason.NOT_AN_OBJECT, f"expected an object, found {json_type(value)}")
    return value


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the parser recurses.

    Up to the first syntax error this scan agrees with the parser on strings, for a backslash outside one is an error.
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
        # An earlier reader of this text may have used the other value.
        raise JsonRefused(Reason.DUPLICATE_KEY, "a key occurs twice in one object")
    return fields


def _bounded_integer(digits: str) -> int | float:
    # int() is quadratic in the digits, and refuses more than 4,300 of them.
    return int(digits) if len(digits) <= _MAX_INTEGER_CHARACTERS else float("inf")


def _no_constant(name: str) -> object:
    raise JsonRefused(Reason.NOT_JSON, f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_int=_bounded_integer, parse_constant=_no_constant)


if TYPE_CHECKING:
    from hashlib import _Hash

PIECE_BYTES = 2047


def md5_hex(data: bytes) -> str:
    return _fed(hashlib.md5(usedforsecurity=False), data)


def sha256_hex(data: bytes) -> str:
    return _fed(hashlib.sha256(), data)


def _fed(digest: _Hash, data: bytes) -> str:
    view = memoryview(data)
    for begin in range(0, len(data), PIECE_BYTES):
        digest.update(view[begin : begin + PIECE_BYTES])
    return digest.hexdigest()
