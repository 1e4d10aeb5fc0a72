"""How Apple's JSON writes ids, numbers, times and flags: the readers that all interpretations share.

Each reads one field of an object: None if it is missing or null. If it holds what Apple has not documented, that is
``Unreadable``, which tells no more of the value than its JSON type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias, TypeGuard

from receipt_actors.domain.ports import MAX_QUANTITY, WHOLE_PERCENTAGE
from receipt_actors.domain.values import MAX_NAME_CHARACTERS, is_name, json_type

Fields: TypeAlias = Mapping[str, object]


_MAX_NUMERIC_ID = 10**38
_MAX_DIGITS = 16  # of a count or a time in milliseconds (that is the year 318857)
_FLAGS: Final[Mapping[object, bool]] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}


class Unreadable(Exception):
    """What Apple said is in no shape that it documents; never leaves an interpretation."""


def is_integer(value: object) -> TypeGuard[int]:
    """Tell whether it is an integer of JSON, which ``true`` is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def read_id(fields: Fields, key: str) -> str | None:
    """Read an id, which arrives as a string or as a number (never as a float: that would have lost digits)."""
    value = fields.get(key)
    if value is None:
        return None
    if is_integer(value) and 0 <= value < _MAX_NUMERIC_ID:
        value = str(value)
    if is_name(value):
        return value
    raise Unreadable(f"{key}: expected 1 to {MAX_NAME_CHARACTERS} printable characters, found {json_type(value)}")


def read_app_id(fields: Fields, key: str) -> str | None:
    """Read a bundle id; unlike a transaction's, it is never a number: that would be garbled, not foreign."""
    if is_integer(fields.get(key)):
        raise Unreadable(f"{key}: expected a string, found a number")
    return read_id(fields, key)


def read_number(fields: Fields, key: str) -> int | None:
    """Read a whole number, which arrives as a number or as a string of digits."""
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        value = int(value)
    if is_integer(value) and 0 <= value < 10**_MAX_DIGITS:
        return value
    raise Unreadable(f"{key}: expected digits, found {json_type(value)}")


def read_quantity(fields: Fields) -> int:
    """Read how many were bought in one transaction; 1 if Apple does not say.

    A purchase of none, or of more than Apple documents, is unreadable: a game multiplies by this number.
    """
    quantity = read_number(fields, "quantity")
    if quantity is None:
        return 1
    if not 1 <= quantity <= MAX_QUANTITY:
        raise Unreadable(f"quantity: expected 1 to {MAX_QUANTITY}, found another number")
    return quantity


def read_revocation_type(fields: Fields) -> str | None:
    """Read a ``revocationType``, also one that Apple has added since; it is a name, never a number."""
    value = fields.get("revocationType")
    if value is None or is_name(value):
        return value
    raise Unreadable(f"revocationType: expected a name, found {json_type(value)}")


def read_revocation_percentage(fields: Fields) -> int | None:
    """Read a ``revocationPercentage`` in Apple's milliunits: 33.333 % is 33333."""
    percentage = read_number(fields, "revocationPercentage")
    if percentage is not None and percentage > WHOLE_PERCENTAGE:
        raise Unreadable(f"revocationPercentage: expected 0 to {WHOLE_PERCENTAGE}, found a larger number")
    return percentage


def read_seconds(fields: Fields, key: str) -> float | None:
    """Read a UNIX time in milliseconds; return seconds."""
    milliseconds = read_number(fields, key)
    return None if milliseconds is None else milliseconds / 1000


def read_flag(fields: Fields, key: str) -> bool:
    """Read a boolean, which arrives as one, as a number or as a string; what is missing is false."""
    value = fields.get(key)
    if value is None:
        return False
    if isinstance(value, int | str) and value in _FLAGS:  # True == 1
        return _FLAGS[value]
    raise Unreadable(f"{key}: expected a boolean, found {json_type(value)}")


def read_token(fields: Fields, key: str) -> str | None:
    """Read an ``appAccountToken``, a UUID, in lower case: an app's language may have written it in upper case."""
    token = read_id(fields, key)
    return None if token is None else token.lower()


def read_is_family_shared(fields: Fields, key: str) -> bool:
    """Read an ownership type; a missing one means that the user has bought it."""
    value = fields.get(key)
    if value in (None, "PURCHASED", "FAMILY_SHARED"):
        return value == "FAMILY_SHARED"
    raise Unreadable(f"{key}: expected PURCHASED or FAMILY_SHARED, found {json_type(value)}")
