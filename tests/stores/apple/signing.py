"""An authority to throw away, every part of which a test can make otherwise; and JWS that it signs, or seems to."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

LEAF_OID = "1.2.840.113635.100.6.11.1"
INTERMEDIATE_OID = "1.2.840.113635.100.6.2.1"

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2040, 1, 1, tzinfo=UTC)
SIGNED_AT = datetime(2024, 7, 1, 12, tzinfo=UTC)
SIGNED_AT_MS = int(SIGNED_AT.timestamp()) * 1000

TRANSACTION: Mapping[str, object] = {
    "transactionId": "2000000001",
    "originalTransactionId": "2000000001",
    "bundleId": "com.example.game",
    "productId": "coins_100",
    "purchaseDate": SIGNED_AT_MS - 5000,
    "originalPurchaseDate": SIGNED_AT_MS - 5000,
    "quantity": 1,
    "type": "Consumable",
    "inAppOwnershipType": "PURCHASED",
    "signedDate": SIGNED_AT_MS,
    "environment": "Production",
    "transactionReason": "PURCHASE",
    "storefront": "USA",
    "storefrontId": "143441",
    "price": 990,
    "currency": "USD",
}
NOTIFICATION: Mapping[str, object] = {
    "notificationType": "REFUND",
    "notificationUUID": "002e14d5-51f5-4503-b5a8-c3a1af68eb20",
    "version": "2.0",
    "signedDate": SIGNED_AT_MS,
    "data": {
        "appAppleId": 1234567890,
        "bundleId": "com.example.game",
        "bundleVersion": "42",
        "environment": "Production",
        "signedTransactionInfo": "eyJ.eyJ.sig",
    },
}


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


@dataclass(frozen=True)
class Certified:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def x5c(self) -> str:
        return base64.b64encode(self.der).decode()


def certify(
    name: str,
    issuer: Certified | None = None,
    *,
    key: Any = None,
    begin: datetime = BEGIN,
    end: datetime = END,
    oid: str | None = None,
    is_authority: bool = True,
    identifies_keys: bool = True,
    serial: int = 0,
) -> Certified:
    """Make a certificate, of an authority unless ``is_authority`` is False; without an issuer it signs itself."""
    key = key or new_key(ec.SECP384R1() if is_authority else ec.SECP256R1())
    issuer_key = key if issuer is None else issuer.key
    issuer_name = _name(name) if issuer is None else issuer.certificate.subject
    serial = serial or x509.random_serial_number()
    builder = x509.CertificateBuilder(issuer_name, _name(name), key.public_key(), serial, begin, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    usage = (not is_authority, False, False, False, False, is_authority, is_authority, False, False)
    builder = builder.add_extension(x509.KeyUsage(*usage), critical=True)
    if identifies_keys:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if oid is not None:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00")
        builder = builder.add_extension(extension, critical=False)
    return Certified(builder.sign(issuer_key, hashes.SHA256()), key)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certify_leaf(issuer: Certified, **changes: Any) -> Certified:
    return certify("leaf", issuer, **({"oid": LEAF_OID, "is_authority": False} | changes))


def certify_intermediate(issuer: Certified, **changes: Any) -> Certified:
    return certify("intermediate", issuer, **({"oid": INTERMEDIATE_OID} | changes))


@dataclass(frozen=True)
class TestAuthority:
    __test__ = False

    root: Certified = field(default_factory=lambda: certify("root"))
    intermediate: Certified = field(init=False)
    leaf: Certified = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "intermediate", certify_intermediate(self.root))
        object.__setattr__(self, "leaf", certify_leaf(self.intermediate))

    @property
    def chain(self) -> list[Certified]:
        return [self.leaf, self.intermediate, self.root]

    def sign(self, payload: Mapping[str, object] | bytes = TRANSACTION, **changes: object) -> str:
        """Sign a payload; ``changes`` are put over its fields, and those that are None are left out."""
        if isinstance(payload, Mapping):
            payload = {name: value for name, value in {**payload, **changes}.items() if value is not None}
        return signed(self.chain, payload)


def signed(
    chain: Sequence[Certified],
    payload: Mapping[str, object] | bytes,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    header: Mapping[str, object] | bytes | None = None,
    **more: object,
) -> str:
    """Sign with the key of the chain's first certificate, or another; ``more`` goes into the header."""
    if header is None:
        header = {"alg": "ES256", "x5c": [each.x5c for each in chain], **more}
    signing_input = f"{part(header)}.{part(payload)}"
    r, s = decode_dss_signature((key or chain[0].key).sign(signing_input.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signing_input}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def part(content: Mapping[str, object] | bytes) -> str:
    if not isinstance(content, bytes):
        content = json.dumps(content, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
