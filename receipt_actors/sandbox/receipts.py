"""Sample receipts: base64 strings that the simulated App Store can judge without having seen them before.

A sample receipt is built like a real one, so that Apple's ``ReceiptUtility`` can read a transaction id from it. In the
place of Apple's signature it has a MAC: only who has the key can mint a genuine one. What Apple would answer follows
from the receipt::

    SampleReceipt("com.example.game", (Purchase("1000000001"),))               status 0, unified (iOS 7+)
    ... shape=Shape.TRANSACTION                                                status 0, iOS 6 style
    ... shape=Shape.TRANSACTION, and Purchase(..., expires_at_ms=<the past>)   status 21006
    ... environment=Environment.SANDBOX                                        status 21007 from production
    ... Purchase(..., cancelled_at_ms=...)                                     status 0, refunded
    ... purchases=()                                                           status 0, nothing bought
    ... status=21010                                                           that status
    ... faults=(Fault.apple(21005), Fault.http(503, retry_after="2"))          these first, then fine

``mint(receipt)`` makes the string, ``forge(receipt)`` one with another MAC (21003); anything else is malformed (21002).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import TypeAdapter

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.receipts import ProductType

DEFAULT_KEY = b"receipt_actors sample receipts"  #: no secret: it keeps samples apart from forgeries, no more
REAL_RECEIPT_BYTES = 5 * 1024  #: about what a unified receipt of a few purchases weighs; for ``padding_bytes``


class Shape(StrEnum):
    """Apple's two kinds of receipts."""

    TRANSACTION = "transaction"  #: iOS 6 style: one purchase, a flat answer
    UNIFIED = "unified"  #: the app receipt of iOS 7 and later: any number of purchases in ``in_app``


class FaultKind(StrEnum):
    """How a request to the App Store fails."""

    APPLE = "apple"  #: HTTP 200 with an Apple status and nothing else
    HTTP = "http"  #: another HTTP status, with a web page
    HTML = "html"  #: HTTP 200 with a web page, as Apple has served in an outage
    GARBAGE = "garbage"  #: HTTP 200 with JSON that ends in the middle
    DROP = "drop"  #: the connection is closed without an answer
    HANG = "hang"  #: nothing happens for a time, then the connection is closed
    TRICKLE = "trickle"  #: a right answer begins, and comes byte by byte
    RATE_LIMIT = "rate limit"  #: HTTP 429, with the time from which on to ask again


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure of the App Store. Make one by the methods below; which fields count depends on ``kind``."""

    kind: FaultKind
    status: int = 0
    is_retryable: bool | None = None
    retry_after: str | None = None
    seconds: float = 0.0

    @classmethod
    def apple(cls, status: int, *, is_retryable: bool | None = None) -> Fault:
        """Answer with this Apple status, and with ``is-retryable`` (21100-21199) where given.

        The Server API answers with an ``errorCode`` of seven digits, and takes any other status for 5000001: an
        internal error that may pass.
        """
        return cls(FaultKind.APPLE, status=status, is_retryable=is_retryable)

    @classmethod
    def http(cls, status: int, *, retry_after: str | None = None) -> Fault:
        return cls(FaultKind.HTTP, status=status, retry_after=retry_after)

    @classmethod
    def html(cls) -> Fault:
        return cls(FaultKind.HTML)

    @classmethod
    def garbage(cls) -> Fault:
        return cls(FaultKind.GARBAGE)

    @classmethod
    def drop(cls) -> Fault:
        return cls(FaultKind.DROP)

    @classmethod
    def hang(cls, seconds: float) -> Fault:
        return cls(FaultKind.HANG, seconds=seconds)

    @classmethod
    def trickle(cls, seconds: float) -> Fault:
        """Answer with a byte in so many seconds."""
        return cls(FaultKind.TRICKLE, seconds=seconds)

    @classmethod
    def rate_limit(cls, seconds: float) -> Fault:
        """Answer 429. ``Retry-After`` has the seconds; of the Server API the UNIX time of then, in milliseconds."""
        return cls(FaultKind.RATE_LIMIT, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Purchase:
    """One transaction of a receipt. Dates are UNIX times in milliseconds, as Apple has them."""

    transaction_id: str
    product_id: str = "coins_100"
    purchased_at_ms: int = 1_700_000_000_000
    original_transaction_id: str | None = None  #: None: the same as ``transaction_id``
    quantity: int = 1
    expires_at_ms: int | None = None  #: of a subscription
    cancelled_at_ms: int | None = None  #: refunded or revoked
    product_type: ProductType | None = None  #: None: an auto-renewable subscription if it expires, else a consumable
    is_family_shared: bool = False  #: somebody else of the family has bought it
    app_account_token: str | None = None  #: a UUID: whom the app said it bought this for
    is_upgraded: bool = False  #: the player has moved on to a better subscription
    revocation_type: str | None = None  #: of what was refunded or revoked, such as ``REFUND_PRORATED``
    revocation_percentage: int | None = None  #: likewise, in Apple's milliunits: 33.333 % is 33333

    @property
    def original_id(self) -> str:
        """``original_transaction_id``, or what it is taken for."""
        return self.original_transaction_id or self.transaction_id

    @property
    def type(self) -> ProductType:
        """``product_type``, or what it is taken for."""
        if self.product_type is not None:
            return self.product_type
        is_subscription = self.expires_at_ms is not None
        return ProductType.AUTO_RENEWABLE_SUBSCRIPTION if is_subscription else ProductType.CONSUMABLE


@dataclass(frozen=True, slots=True)
class SampleReceipt:
    """What a sample receipt says. A ``Shape.TRANSACTION`` has exactly one purchase (else ``ValueError``)."""

    bundle_id: str
    purchases: tuple[Purchase, ...]
    shape: Shape = Shape.UNIFIED
    environment: Environment = Environment.PRODUCTION
    status: int | None = None  #: the Apple status to answer whatever else is said here, such as 21010
    faults: tuple[Fault, ...] = ()  #: what befalls the first requests with this receipt, one fault each

    def __post_init__(self) -> None:
        if self.shape is Shape.TRANSACTION and len(self.purchases) != 1:
            raise ValueError(f"an iOS 6 style receipt is one purchase, found {len(self.purchases)}")


class MalformedReceipt(ValueError):
    """Not a sample receipt at all (Apple's 21002)."""


class ForgedReceipt(ValueError):
    """A sample receipt that was not minted under this key, or was changed afterwards (Apple's 21003)."""


_RECEIPT = TypeAdapter(SampleReceipt)


def mint(receipt: SampleReceipt, *, key: bytes = DEFAULT_KEY, padding_bytes: int = 0) -> str:
    """Make the base64 string of a receipt: the same string for the same arguments.

    ``padding_bytes`` of incompressible filling make it as heavy as a real one (``REAL_RECEIPT_BYTES``).
    """
    payload = json.dumps(_RECEIPT.dump_python(receipt, mode="json", exclude_defaults=True), separators=(",", ":"))
    if padding_bytes:
        filling = hashlib.shake_128(payload.encode()).digest(padding_bytes * 3 // 4)
        payload = f'{payload[:-1]},"padding":"{base64.b64encode(filling).decode()}"}}'
    write = _transaction_receipt if receipt.shape is Shape.TRANSACTION else _app_receipt
    return base64.b64encode(write(receipt, payload.encode(), lambda content: _mac(content, key))).decode()


def forge(receipt: SampleReceipt, *, key: bytes = DEFAULT_KEY) -> str:
    """Make a receipt that looks like ``mint(receipt, key=key)`` and does not authenticate under ``key``."""
    return mint(receipt, key=b"forged " + key)


def read(receipt_data: str, *, key: bytes = DEFAULT_KEY) -> SampleReceipt:
    """Read a minted receipt back. Raises ``MalformedReceipt`` or ``ForgedReceipt``."""
    try:
        data = base64.b64decode(receipt_data, validate=True)
    except ValueError:
        raise MalformedReceipt("not base64") from None
    content, mac, payload = _take_apart(data)
    if not hmac.compare_digest(mac, _mac(content, key)):
        raise ForgedReceipt("not minted under this key")
    return _RECEIPT.validate_python(json.loads(payload()))  # whatever has our MAC was made by mint()


def _mac(content: bytes, key: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")


# --- the two formats of real receipts, with a MAC in the place of Apple's signature ---

# An app receipt (iOS 7 and later) is a PKCS #7 container, in DER, around a set of attributes whose types are Apple's: 2
# is the bundle id, 17 an in-app purchase, in which 1703 is the transaction id, and so on; here are those that Apple's
# library reads. A transaction receipt (iOS 6 style) is an old-fashioned property list with another one, in base64,
# under ``purchase-info``. Both carry a payload that only the simulated App Store reads: as the opaque value (type 4) of
# an app receipt, under ``receipt-actors`` in the ``purchase-info`` of a transaction receipt.

MAC_BYTES = hashlib.sha256().digest_size

#: Makes the MAC of what stands in a receipt.
Mac = Callable[[bytes], bytes]


def _take_apart(data: bytes) -> tuple[bytes, bytes, Callable[[], bytes]]:
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


def _app_receipt(receipt: SampleReceipt, payload: bytes, mac: Mac) -> bytes:
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


def _transaction_receipt(receipt: SampleReceipt, payload: bytes, mac: Mac) -> bytes:
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
