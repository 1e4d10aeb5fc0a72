"""A certificate authority that signs as Apple does, and is not Apple: for the simulated App Store and its tests.

A root (P-384), an intermediate (P-384) and a leaf (P-256) with the very extensions that Apple's library looks for, so
that it accepts what is signed here, in strict mode, as soon as it trusts this root; and, on demand, every broken chain
and every broken signature that it must refuse.

All of it follows from the key of the simulated App Store, down to the last byte: processes that share the key share the
authority, and need not talk. With the key, anyone can sign. Trust these roots in tests and staging only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import NameOID

from receipt_actors.sandbox.receipts import DEFAULT_KEY

LEAF_OID: Final = x509.ObjectIdentifier("1.2.840.113635.100.6.11.1")  #: "signs receipts", in a leaf of Apple's
INTERMEDIATE_OID: Final = x509.ObjectIdentifier("1.2.840.113635.100.6.2.1")  #: "Worldwide Developer Relations"

ROOT_FILE = "simulated-app-store-root.cer"  #: what ``write_roots`` writes

# Apple's own are of 2014 to 2039 (root) and 2021 to 2036 (intermediate); leaves last two years. These last, so that a
# sample that is minted today is still good in a test of tomorrow.
_FROM = datetime(2014, 4, 30, 18, 19, 6, tzinfo=UTC)
_UNTIL = datetime(2049, 4, 30, 18, 19, 6, tzinfo=UTC)
_EXPIRED_AT = datetime(2016, 4, 30, tzinfo=UTC)

_SIGNATURE = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_ORDERS = {  # of the curves' groups: a private key is a number from 1 to one less
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}


class Flaw(StrEnum):
    """What can be wrong with a JWS, whatever its payload says; none of these must ever be accepted."""

    EXPIRED_LEAF = "expired leaf"  #: of 2014 to 2016
    LEAF_WITHOUT_OID = "leaf without Apple's extension"
    INTERMEDIATE_WITHOUT_OID = "intermediate without Apple's extension"
    FOREIGN_ROOT = "foreign root"  #: a whole chain, just as good, of somebody else
    FOREIGN_CHAIN = "foreign chain under our root"  #: somebody else's leaf and intermediate, and our root, copied
    TWO_CERTIFICATES = "two certificates"  #: the root is left out
    FOUR_CERTIFICATES = "four certificates"  #: the root comes twice
    NO_CERTIFICATES = "no certificates"  #: no ``x5c`` at all
    GARBLED_CERTIFICATE = "garbled certificate"  #: a leaf that cannot be read
    ALGORITHM_NONE = "alg none"  #: and an empty signature
    ALGORITHM_HS256 = "alg HS256"  #: a MAC with the leaf's public key, which everybody knows
    SWAPPED_PAYLOAD = "swapped payload"  #: header and signature of another one, which was genuine
    FOREIGN_SIGNATURE = "foreign signature"  #: our chain, copied, over a signature of somebody else's key


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key of the App Store Server API, as App Store Connect hands it out, and who it belongs to."""

    key_id: str  #: ``kid`` of a token
    issuer_id: str  #: ``iss`` of a token
    private_key_pem: bytes  #: what Apple's ``AuthKey_….p8`` has in it


class Authority:
    """Signs as Apple does. Makes nothing before it is needed; may be used from any thread."""

    def __init__(self, key: bytes = DEFAULT_KEY) -> None:
        self._key = key
        self._headers: dict[Flaw | None, str] = {}

    @cached_property
    def root(self) -> bytes:
        """The root certificate (DER): the one thing to trust."""
        return self._root()

    @cached_property
    def intermediate(self) -> bytes:
        """The certificate that the root signed (DER)."""
        return self._intermediate(has_oid=True)

    @cached_property
    def leaf(self) -> bytes:
        """The certificate whose key signs transactions and notifications (DER)."""
        return self._leaf(has_oid=True, until=_UNTIL)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the root, as ``openssl x509 -fingerprint -sha256`` shows it."""
        return hashlib.sha256(self.root).digest().hex(":").upper()

    def write_roots(self, directory: Path) -> Path:
        """Write the root as ``.cer`` (DER) into a directory, which is made where it is not there; returns the file."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / ROOT_FILE
        path.write_bytes(self.root)
        return path

    def sign(self, payload: Mapping[str, object], flaw: Flaw | None = None) -> str:
        """Make a JWS: the same string for the same arguments. With a ``flaw`` it is one that must be refused."""
        content = _segment(json.dumps(payload, separators=(",", ":")).encode())
        if flaw is None:
            return self._signed(self._header(None), content, self._leaf_key)
        return self._flawed(content, flaw)

    def read(self, signed: str) -> dict[str, object] | None:
        """Return the payload of what ``sign`` made; None where this authority did not sign it."""
        text, _, signature_text = signed.rpartition(".")
        try:
            signature = _decoded(signature_text)
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            self._leaf_key.public_key().verify(encode_dss_signature(r, s), text.encode(), ec.ECDSA(hashes.SHA256()))
        except (ValueError, InvalidSignature):
            return None
        payload: dict[str, object] = json.loads(_decoded(text.partition(".")[2]))
        return payload

    @cached_property
    def server_api_key(self) -> KeyPair:
        """The key with which a client of this store's Server API signs its tokens."""
        pem = self._private_key("server api", ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        digest = self._digest("server api key id").hex().upper()
        issuer = f"{digest[10:18]}-{digest[18:22]}-4{digest[22:25]}-8{digest[25:28]}-{digest[28:40]}".lower()
        return KeyPair(digest[:10], issuer, pem)

    @cached_property
    def server_api_public_key(self) -> ec.EllipticCurvePublicKey:
        """What those tokens are checked with."""
        return self._private_key("server api", ec.SECP256R1()).public_key()

    # --- signatures ---

    def _signed(self, header: str, content: str, key: ec.EllipticCurvePrivateKey) -> str:
        text = f"{header}.{content}"
        r, s = decode_dss_signature(key.sign(text.encode(), _SIGNATURE))
        return f"{text}.{_segment(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def _flawed(self, content: str, flaw: Flaw) -> str:
        header = self._header(flaw)
        match flaw:
            case Flaw.FOREIGN_ROOT | Flaw.FOREIGN_CHAIN | Flaw.FOREIGN_SIGNATURE:
                return self._signed(header, content, self._stranger._leaf_key)
            case Flaw.ALGORITHM_NONE:
                return f"{header}.{content}."
            case Flaw.ALGORITHM_HS256:
                text = f"{header}.{content}"
                public = self._leaf_key.public_key().public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                )
                return f"{text}.{_segment(hmac.digest(public, text.encode(), 'sha256'))}"
            case Flaw.SWAPPED_PAYLOAD:
                genuine = self._signed(header, _segment(b'{"transactionId":"1"}'), self._leaf_key)
                return f"{header}.{content}.{genuine.rpartition('.')[2]}"
        return self._signed(header, content, self._leaf_key)

    def _header(self, flaw: Flaw | None) -> str:
        """Return the first part of a JWS: some kilobytes of certificates, encoded once."""
        if flaw not in self._headers:
            algorithms = {Flaw.ALGORITHM_NONE: "none", Flaw.ALGORITHM_HS256: "HS256"}
            fields: dict[str, object] = {"alg": "ES256" if flaw is None else algorithms.get(flaw, "ES256")}
            if flaw is not Flaw.NO_CERTIFICATES:
                fields["x5c"] = [base64.b64encode(each).decode() for each in self._chain(flaw)]
            self._headers[flaw] = _segment(json.dumps(fields, separators=(",", ":")).encode())
        return self._headers[flaw]

    def _chain(self, flaw: Flaw | None) -> Sequence[bytes]:
        leaf, intermediate, root, stranger = self.leaf, self.intermediate, self.root, self._stranger
        match flaw:
            case Flaw.EXPIRED_LEAF:
                return self._leaf(has_oid=True, until=_EXPIRED_AT), intermediate, root
            case Flaw.LEAF_WITHOUT_OID:
                return self._leaf(has_oid=False, until=_UNTIL), intermediate, root
            case Flaw.INTERMEDIATE_WITHOUT_OID:
                return leaf, self._intermediate(has_oid=False), root
            case Flaw.FOREIGN_ROOT:
                return stranger.leaf, stranger.intermediate, stranger.root
            case Flaw.FOREIGN_CHAIN:
                return stranger.leaf, stranger.intermediate, root
            case Flaw.TWO_CERTIFICATES:
                return leaf, intermediate
            case Flaw.FOUR_CERTIFICATES:
                return leaf, intermediate, root, root
            case Flaw.GARBLED_CERTIFICATE:
                return leaf[:100], intermediate, root
        return leaf, intermediate, root

    @cached_property
    def _stranger(self) -> Authority:
        return Authority(b"somebody else than " + self._key)

    # --- certificates ---

    def _root(self) -> bytes:
        key, name = self._root_key, _name("Simulated App Store Root CA")
        builder = self._builder("root", name, key.public_key(), name, key.public_key(), _UNTIL)
        return _certificate(_as_authority(builder, path_length=None), key, hashes.SHA384())

    def _intermediate(self, *, has_oid: bool) -> bytes:
        subject = _name("Simulated Developer Relations Certification Authority")
        builder = self._builder(
            f"intermediate {has_oid}",
            subject,
            self._intermediate_key.public_key(),
            _name_of(self.root),
            self._root_key.public_key(),
            _UNTIL,
        )
        builder = _as_authority(builder, path_length=0)
        if has_oid:
            builder = builder.add_extension(x509.UnrecognizedExtension(INTERMEDIATE_OID, b"\x05\x00"), critical=False)
        return _certificate(builder, self._root_key, hashes.SHA384())

    def _leaf(self, *, has_oid: bool, until: datetime) -> bytes:
        builder = self._builder(
            f"leaf {has_oid} {until:%Y}",
            _name("Simulated receipt signing"),
            self._leaf_key.public_key(),
            _name_of(self.intermediate),
            self._intermediate_key.public_key(),
            until,
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(key_usage(signs_certificates=False), critical=True)
        if has_oid:
            builder = builder.add_extension(x509.UnrecognizedExtension(LEAF_OID, b"\x05\x00"), critical=False)
        return _certificate(builder, self._intermediate_key, hashes.SHA384())

    def _builder(
        self,
        label: str,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        issuer: x509.Name,
        issuer_key: ec.EllipticCurvePublicKey,
        until: datetime,
    ) -> x509.CertificateBuilder:
        """Begin a certificate; the extensions of OpenSSL's strict mode, both key identifiers, are in it."""
        serial = int.from_bytes(self._digest(f"serial number of {label}")[:16], "big") >> 1 | 1
        builder = x509.CertificateBuilder(issuer, subject, public_key, serial, _FROM, until)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)

    @cached_property
    def _root_key(self) -> ec.EllipticCurvePrivateKey:
        return self._private_key("root", ec.SECP384R1())

    @cached_property
    def _intermediate_key(self) -> ec.EllipticCurvePrivateKey:
        return self._private_key("intermediate", ec.SECP384R1())

    @cached_property
    def _leaf_key(self) -> ec.EllipticCurvePrivateKey:
        return self._private_key("leaf", ec.SECP256R1())

    def _private_key(self, label: str, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        number = int.from_bytes(self._digest(f"private key of {label}"), "big")
        return ec.derive_private_key(1 + number % (_ORDERS[curve.name] - 1), curve)

    def _digest(self, label: str) -> bytes:
        return hmac.digest(self._key, f"simulated Apple authority: {label}".encode(), "sha512")


@cache
def default_authority() -> Authority:
    """The authority of ``DEFAULT_KEY``: made once in a process."""
    return Authority()


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Not Apple: for tests and staging only"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "receipt_actors"),
        ]
    )


def _name_of(certificate: bytes) -> x509.Name:
    return x509.load_der_x509_certificate(certificate).subject


def _as_authority(builder: x509.CertificateBuilder, path_length: int | None) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    return builder.add_extension(key_usage(signs_certificates=True), critical=True)


def _certificate(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, algorithm: hashes.SHA384) -> bytes:
    return builder.sign(key, algorithm, ecdsa_deterministic=True).public_bytes(serialization.Encoding.DER)


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Say what a key is for: signing certificates, or signing what goes over the wire."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(segment: str) -> bytes:
    return base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
