"""How sample receipts are written: the two formats of real ones, with a MAC in the place of Apple's signature. Pure.

An app receipt (iOS 7 and later) is a PKCS #7 container, in DER, around a set of attributes whose types are Apple's: 2
is the bundle id, 17 an in-app purchase, in which 1703 is the transaction id, and so on; here are those that Apple's
library reads. A transaction receipt (iOS 6 style) is an old-fashioned property list with another one, in base64, under
``purchase-info``.

Both carry a payload that only the simulated App Store reads: as the opaque value (type 4) of an app receipt, under
``receipt-actors`` in the ``purchase-info`` of a transaction receipt.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from receipt_actors.domain.ports import Environment

if TYPE_CHECKING:
    from receipt_actors.sandbox.receipts import Purchase, SampleReceipt

MAC_BYTES = hashlib.sha256().digest_size

#: Makes the MAC of what stands in a receipt.
Mac = Callable[[bytes], bytes]


class MalformedReceipt(ValueError):
    """Not a sample receipt at all (Apple's 21002)."""


def take_apart(data: bytes) -> tuple[bytes, bytes, Callable[[], bytes]]:
    """Tell content and MAC of a receipt of either format, and the payload: to be asked for only if the MAC fits.

    Raises ``MalformedReceipt``.
    """
    if data.startswith(_TRANSACTION_START):
        return _take_transaction_receipt_apart(data)
    if data.startswith(_SEQUENCE) and _MARK in data and len(data) > MAC_BYTES:
        content = data[:-MAC_BYTES]
        return content, data[-MAC_BYTES:], lambda: _marked_payload(content)
    raise MalformedReceipt("not a sample receipt")


# --- app receipts: DER ---

_SEQUENCE, _SET, _INTEGER, _OCTETS, _UTF8 = b"\x30", b"\x31", b"\x02", b"\x04", b"\x0c"
_CONTEXT_0 = b"\xa0"
_SIGNED_DATA = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"  # 1.2.840.113549.1.7.2
_DATA = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"  # 1.2.840.113549.1.7.1
_SHA_256 = b"\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00"  # 2.16.840.1.101.3.4.2.1, NULL
_HMAC_SHA_256 = b"\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x09\x05\x00"  # 1.2.840.113549.2.9, NULL
_ONE = b"\x02\x01\x01"

_MARK = b"receipt_actors sample\x00"  # and 4 bytes with the length of the payload, and the payload


def app_receipt(receipt: SampleReceipt, payload: bytes, mac: Mac) -> bytes:
    """Write an app receipt. Its last bytes are the MAC of all others."""
    attributes = [
        _attribute(0, _text(str(receipt.environment))),
        _attribute(2, _text(receipt.bundle_id)),
        _attribute(4, _MARK + len(payload).to_bytes(4, "big") + payload),
        *(_attribute(17, _tlv(_SET, *_in_app(each))) for each in receipt.purchases),
    ]
    content = _tlv(_SEQUENCE, _DATA, _tlv(_CONTEXT_0, _tlv(_OCTETS, _tlv(_SET, *attributes))))
    issuer_and_serial_number = _tlv(_SEQUENCE, _tlv(_SEQUENCE), _ONE)
    signer = _tlv(_SEQUENCE, _ONE, issuer_and_serial_number, _SHA_256, _HMAC_SHA_256, _tlv(_OCTETS, bytes(MAC_BYTES)))
    signed_data = _tlv(_SEQUENCE, _ONE, _tlv(_SET, _SHA_256), content, _tlv(_SET, signer))
    unsigned = _tlv(_SEQUENCE, _SIGNED_DATA, _tlv(_CONTEXT_0, signed_data))[:-MAC_BYTES]
    return unsigned + mac(unsigned)


def _in_app(purchase: Purchase) -> list[bytes]:
    return [
        _attribute(1702, _text(purchase.product_id)),
        _attribute(1703, _text(purchase.transaction_id)),
        _attribute(1705, _text(purchase.original_id)),
    ]


def _attribute(type_number: int, value: bytes) -> bytes:
    number = _tlv(_INTEGER, type_number.to_bytes(type_number.bit_length() // 8 + 1, "big"))
    return _tlv(_SEQUENCE, number, _ONE, _tlv(_OCTETS, value))


def _text(text: str) -> bytes:
    return _tlv(_UTF8, text.encode("utf-8", "replace"))


def _tlv(tag: bytes, *content: bytes) -> bytes:
    """Write an element: its tag, the length of its content, the content."""
    value = b"".join(content)
    length = len(value)
    if length < 0x80:
        return tag + bytes((length,)) + value
    size = (length.bit_length() + 7) // 8
    return tag + bytes((0x80 | size,)) + length.to_bytes(size, "big") + value


def _marked_payload(content: bytes) -> bytes:
    start = content.index(_MARK) + len(_MARK)
    length = int.from_bytes(content[start : start + 4], "big")
    return content[start + 4 : start + 4 + length]


# --- transaction receipts: property lists ---

_TRANSACTION_START = b'{\n\t"signature" = "'
_MAC_CHARACTERS = len(base64.b64encode(bytes(MAC_BYTES)))


def transaction_receipt(receipt: SampleReceipt, payload: bytes, mac: Mac) -> bytes:
    """Write a transaction receipt: of one purchase, the first."""
    purchase = receipt.purchases[0]
    info = {
        "original-transaction-id": purchase.original_id,
        "transaction-id": purchase.transaction_id,
        "product-id": purchase.product_id,
        "bid": receipt.bundle_id,
        "receipt-actors": base64.b64encode(payload).decode(),
    }
    purchase_info = base64.b64encode(b"{\n%b}" % b"".join(_line(*each) for each in info.items())).decode()
    environment = _line("environment", "Sandbox") if receipt.environment is Environment.SANDBOX else b""
    content = b'";\n%b%b}' % (_line("purchase-info", purchase_info), environment)
    return _TRANSACTION_START + base64.b64encode(mac(content)) + content


def _line(name: str, value: str) -> bytes:
    escaped = value.encode("utf-8", "replace").replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'\t"%b" = "%b";\n' % (name.encode(), escaped)


def _take_transaction_receipt_apart(data: bytes) -> tuple[bytes, bytes, Callable[[], bytes]]:
    start = len(_TRANSACTION_START)
    signature, content = data[start : start + _MAC_CHARACTERS], data[start + _MAC_CHARACTERS :]
    try:
        mac = base64.b64decode(signature, validate=True)
    except ValueError:
        mac = b""
    if len(mac) != MAC_BYTES or base64.b64encode(mac) != signature:
        raise MalformedReceipt("its signature is not base64")
    return content, mac, lambda: _value_of("receipt-actors", _value_of("purchase-info", content))


def _value_of(name: str, text: bytes) -> bytes:
    """Find the value of the last field of this name, which is base64."""
    start = b'\t"%b" = "' % name.encode()
    value_start = text.rindex(start) + len(start)
    return base64.b64decode(text[value_start : text.index(b'"', value_start)])
