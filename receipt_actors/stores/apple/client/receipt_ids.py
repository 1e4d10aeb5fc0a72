"""Reads a transaction's id out of an app receipt, which may be made up, by ``ReceiptUtility`` of Apple's library.

That uses a general decoder of ASN.1, which a few well-chosen bytes keep busy for an hour: a number of a megabyte takes
a minute, a real number of ten bytes all the memory there is. So each piece is looked through before, in one pass: what
no receipt has in it is refused, and so are more elements than a receipt of years has.
"""

from __future__ import annotations

import re
from typing import Final

from appstoreserverlibrary.receipt_utility import ReceiptUtility

MAX_ELEMENTS = 10_000  #: four for each purchase, and some hundreds of certificates
MAX_SEGMENTED_ELEMENTS = 1000  #: where strings come in segments, each of which copies what there is so far
MAX_NUMBER_BYTES = 64  #: of an integer or an object identifier

_LINE_BREAKS = str.maketrans("", "", "\r\n")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_LONG_TAG, _CONSTRUCTED, _CLASS = 0x1F, 0x20, 0xC0
_NUMBERS: Final = frozenset({2, 6})  # universal tags: INTEGER, OBJECT IDENTIFIER
_STRINGS: Final = frozenset({3, 4, 12, 19, 22, 23, 24})  # BIT, OCTET, UTF8, Printable, IA5; UTCTime, GeneralizedTime
_OTHERS: Final = frozenset({0, 1, 5, 16, 17})  # the end of contents, BOOLEAN, NULL, SEQUENCE, SET


class _BoundedReceiptUtility(ReceiptUtility):
    def _decode_octet_string(self, octet_string: bytes) -> object:
        _look_through(octet_string)
        return super()._decode_octet_string(octet_string)


_UTILITY = _BoundedReceiptUtility()


def is_transaction_id(text: object) -> bool:
    """Tell whether it has 1 to 64 letters, digits, ``-`` and ``_``, and so stands for itself in a URL."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def transaction_id_of(receipt_data: str) -> str | None:
    """Return the first id in an app receipt of iOS 7 and later, or in a transaction receipt of before. Total.

    Takes milliseconds for a real receipt, and well below a second for anything that fits into a message.
    """
    data = receipt_data.translate(_LINE_BREAKS)
    for extract in (
        _UTILITY.extract_transaction_id_from_app_receipt,
        _UTILITY.extract_transaction_id_from_transaction_receipt,
    ):
        try:
            found: object = extract(data)
        except ValueError:  # Apple's library makes one of whatever is wrong
            continue
        if is_transaction_id(found):
            assert isinstance(found, str)
            return found
    return None


def _look_through(octets: bytes) -> None:
    """Raise ``ValueError`` for what no receipt has. It meets the elements in the order in which they are decoded."""
    place, elements, most = 0, 0, MAX_ELEMENTS
    while place < len(octets):
        tag = octets[place]
        is_constructed, number = bool(tag & _CONSTRUCTED), tag & _LONG_TAG
        place, length = _length_at(octets, place + 1)
        if not tag & _CLASS:
            if number not in _NUMBERS | _STRINGS | _OTHERS or (number in _NUMBERS and length > MAX_NUMBER_BYTES):
                raise ValueError("an element that no receipt has")
            if is_constructed and number in _STRINGS:
                most = MAX_SEGMENTED_ELEMENTS
        if number == _LONG_TAG or elements > most:
            raise ValueError("more than a receipt has")
        elements += 1
        place += 0 if is_constructed else length  # what is constructed is looked through, too


def _length_at(octets: bytes, place: int) -> tuple[int, int]:
    """Return where the content of an element begins, and its length; 0 for an indefinite one."""
    first = octets[place] if place < len(octets) else 0
    if first < 0x80:
        return place + 1, first
    digits = first - 0x80
    if digits > 4:
        raise ValueError("a length of gigabytes")
    return place + 1 + digits, int.from_bytes(octets[place + 1 : place + 1 + digits])
