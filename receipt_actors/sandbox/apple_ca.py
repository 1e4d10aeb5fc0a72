"""A certificate authority that signs as Apple does, and is not Apple: for the simulated App Store and its tests.

Apple's library accepts what is signed here, in strict mode, as soon as it trusts this root. All of it follows from the
key of the simulated App Store, down to the last byte: processes that share the key share the authority. With the key,
anyone can sign. Trust these roots in tests and staging only.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.utils import base64url_decode, base64url_encode, der_to_raw_signature, raw_to_der_signature

from receipt_actors.sandbox.receipts import DEFAULT_KEY

LEAF_OID: Final = x509.ObjectIdentifier("1.2.840.113635.100.6.11.1")  #: "signs receipts", in a leaf of Apple's
INTERMEDIATE_OID: Final = x509.ObjectIdentifier("1.2.840.113635.100.6.2.1")  #: "Worldwide Developer Relations"

ROOT_FILE = "simulated-app-store-root.cer"  #: what ``write_roots`` writes

# Apple's own are of 2014 to 2039 (root) and 2021 to 2036 (intermediate); leaves last two years. These last, so that a
# sample that is minted today is still good in a test of tomorrow.
_FROM = datetime(2014, 4, 30, 18, 19, 6, tzinfo=UTC)
_UNTIL = datetime(2049, 4, 30, 18, 19, 6, tzinfo=UTC)
_EXPIRED_AT = datetime(2016, 4, 30, tzinfo=UTC)

_CURVE = ec.SECP256R1()  # of the keys that sign transactions and tokens
_SIGNATURE = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_ORDERS = {  # of the curves' groups: a private key is a number from 1 to one less
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}


#: Of the certificates, by the label of the key.
_NAMES = {
    label: x509.Name.from_rfc4514_string(f"O=receipt_actors,OU=Not Apple: for tests and staging only,CN={name}")
    for label, name in {
        "root": "Simulated App Store Root CA",
        "intermediate": "Simulated Developer Relations Certification Authority",
        "leaf": "Simulated receipt signing",
    }.items()
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
    public_key: ec.EllipticCurvePublicKey = field(repr=False)  #: what tokens are checked with


class Authority:
    """Signs as Apple does. Makes nothing before it is needed; may be used from any thread."""

    def __init__(self, key: bytes = DEFAULT_KEY) -> None:
        self._key = key
        self._headers: dict[Flaw | None, str] = {}

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
            signature = raw_to_der_signature(base64url_decode(signature_text), _CURVE)
            self._leaf_key.public_key().verify(signature, text.encode(), ec.ECDSA(hashes.SHA256()))
        except (ValueError, InvalidSignature):
            return None
        payload: dict[str, object] = json.loads(base64url_decode(text.partition(".")[2]))
        return payload

    @cached_property
    def server_api_key(self) -> KeyPair:
        key = self._private_key("server api")
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        digest = self._digest("server api key id").hex().upper()
        issuer = f"{digest[10:18]}-{digest[18:22]}-4{digest[22:25]}-8{digest[25:28]}-{digest[28:40]}".lower()
        return KeyPair(digest[:10], issuer, pem, key.public_key())

    # --- signatures ---

    def _signed(self, header: str, content: str, key: ec.EllipticCurvePrivateKey) -> str:
        text = f"{header}.{content}"
        return f"{text}.{_segment(der_to_raw_signature(key.sign(text.encode(), _SIGNATURE), _CURVE))}"

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
        leaf, intermediate, root = chain = (self.leaf, self.intermediate, self.root)
        if flaw is None:
            return chain
        stranger = self._stranger
        chains: dict[Flaw, Sequence[bytes]] = {
            Flaw.EXPIRED_LEAF: (self._leaf(LEAF_OID, _EXPIRED_AT), intermediate, root),
            Flaw.LEAF_WITHOUT_OID: (self._leaf(None), intermediate, root),
            Flaw.INTERMEDIATE_WITHOUT_OID: (leaf, self._intermediate(None), root),
            Flaw.FOREIGN_ROOT: (stranger.leaf, stranger.intermediate, stranger.root),
            Flaw.FOREIGN_CHAIN: (stranger.leaf, stranger.intermediate, root),
            Flaw.TWO_CERTIFICATES: (leaf, intermediate),
            Flaw.FOUR_CERTIFICATES: (leaf, intermediate, root, root),
            Flaw.GARBLED_CERTIFICATE: (leaf[:100], intermediate, root),
        }
        return chains.get(flaw, chain)

    @cached_property
    def _stranger(self) -> Authority:
        return Authority(b"somebody else than " + self._key)

    # --- certificates ---

    @cached_property
    def root(self) -> bytes:
        """The root certificate (DER): the one thing to trust."""
        return self._issue("root", "root", "root", signs_certificates=True)

    @cached_property
    def intermediate(self) -> bytes:
        return self._intermediate(INTERMEDIATE_OID)

    @cached_property
    def leaf(self) -> bytes:
        """The certificate whose key signs transactions and notifications (DER)."""
        return self._leaf(LEAF_OID)

    def _intermediate(self, oid: x509.ObjectIdentifier | None) -> bytes:
        serial = f"intermediate {oid is not None}"
        return self._issue(serial, "intermediate", "root", signs_certificates=True, path_length=0, oid=oid)

    def _leaf(self, oid: x509.ObjectIdentifier | None, until: datetime = _UNTIL) -> bytes:
        return self._issue(f"leaf {oid is not None} {until:%Y}", "leaf", "intermediate", oid=oid, until=until)

    def _issue(
        self,
        serial_label: str,
        subject: str,
        issuer: str,
        *,
        signs_certificates: bool = False,
        path_length: int | None = None,
        oid: x509.ObjectIdentifier | None = None,
        until: datetime = _UNTIL,
    ) -> bytes:
        """Make a certificate with the extensions of OpenSSL's strict mode, and with Apple's where there is one."""
        serial = int.from_bytes(self._digest(f"serial number of {serial_label}")[:16], "big") >> 1 | 1
        issuer_key = self._private_key(issuer)
        public, authority = self._private_key(subject).public_key(), issuer_key.public_key()
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.SubjectKeyIdentifier.from_public_key(public), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), False),
            (x509.BasicConstraints(ca=signs_certificates, path_length=path_length), True),
            (_key_usage(signs_certificates), True),
        ]
        if oid is not None:
            extensions.append((x509.UnrecognizedExtension(oid, b"\x05\x00"), False))
        builder = x509.CertificateBuilder(_NAMES[issuer], _NAMES[subject], public, serial, _FROM, until)
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, critical=is_critical)
        certificate = builder.sign(issuer_key, hashes.SHA384(), ecdsa_deterministic=True)
        return certificate.public_bytes(serialization.Encoding.DER)

    @cached_property
    def _leaf_key(self) -> ec.EllipticCurvePrivateKey:
        return self._private_key("leaf")

    def _private_key(self, label: str) -> ec.EllipticCurvePrivateKey:
        curve = ec.SECP384R1() if label in ("root", "intermediate") else _CURVE
        number = int.from_bytes(self._digest(f"private key of {label}"), "big")
        return ec.derive_private_key(1 + number % (_ORDERS[curve.name] - 1), curve)

    def _digest(self, label: str) -> bytes:
        return hmac.digest(self._key, f"simulated Apple authority: {label}".encode(), "sha512")


@cache
def default_authority() -> Authority:
    """The authority of ``DEFAULT_KEY``: made once in a process."""
    return Authority()


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    uses = {"digital_signature": not signs_certificates, "key_cert_sign": signs_certificates}
    uses |= {"crl_sign": signs_certificates, "decipher_only": False, **dict.fromkeys(names, False)}
    return x509.KeyUsage(**uses)


def _segment(data: bytes) -> str:
    return base64url_encode(data).decode()
