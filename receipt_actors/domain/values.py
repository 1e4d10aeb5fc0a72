"""What strangers may call things: the one rule for ids and names that come from a message or from Apple.

Ids travel on, into attributes of SQS messages, keys of DynamoDB items and lines of logs. ``is_name`` lets through what
all of those take; ``sendable`` repairs free text for SQS, which refuses a whole message for one character; and
``masked`` takes out of a service's own words what they may have quoted of a receipt or a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeGuard

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
    """Tell whether the value is a string of 1 to 256 characters that SQS takes, none of them a control character."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_queue_name(value: object) -> TypeGuard[str]:
    """Tell whether the value can name a queue of SQS: 1 to 80 letters, digits, hyphens and underscores.

    The name of a FIFO queue ends in ``.fifo``, which counts.
    """
    return isinstance(value, str) and _QUEUE_NAME.fullmatch(value) is not None


def sendable(text: str) -> str:
    """Replace every character that SQS refuses (control characters, lone surrogates, U+FFFE, U+FFFF) by U+FFFD."""
    if text.isascii() and text.isprintable():  # nearly every text
        return text
    return UNSENDABLE_CHARACTER.sub("\ufffd", text)


def printable(text: str) -> str:
    """Return it with every character that is not seen, or moves what is seen, as its escape sequence.

    A name or a line may quote what a stranger sent: a terminal must not obey it. Line ends are escaped, too.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def masked(text: str) -> str:
    """Replace by ``...`` whatever looks like encoded data: 40 and more of its characters, or 32 of hexadecimal.

    ARNs and URLs stay, but for what a URL has of a query, a fragment, a login, or a path that is too long for a name.
    """
    return _ENCODED_DATA.sub(
        lambda found: found["name"] or (f"{found['scheme']}...@" if found["scheme"] else "..."), text
    )


def json_type(value: object) -> str:
    """Name the JSON type of a value, for a detail that must not repeat the value itself."""
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
