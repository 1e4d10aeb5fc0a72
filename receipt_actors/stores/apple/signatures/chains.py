"""Chains of certificates, verified by Apple's library, and not once more for as long as that can change nothing.

Apple's library verifies each chain anew when it may not ask Apple about revocations: three signatures, most of what a
verification takes. ``Chains`` has it do that the first time, and keeps the leaf's key. Promises:

- What is said of a chain that is known is what would be said if it was verified anew, at any time of signing. The
  signatures, names and extensions of a chain don't change; only the time does, and a chain is known for the times only
  at which each of its three certificates is valid. For any other time it is verified anew, and refused.
- A chain goes by the exact strings of its ``x5c``, and each ``Chains`` has its own root certificates: nothing that was
  verified by others' roots counts. At most ``MAX_CHAINS`` are kept, and only those that were found to be Apple's: what
  strangers send displaces none.
- The time is that of signing, which the payload says (``signedDate``), as in Apple's library. To choose it takes the
  leaf's key: a signature that doesn't fit is refused whatever time it says. With the key of a leaf that has expired it
  can be chosen: that is what revocations are for, which cannot be known offline.

``_ChainVerifier`` is private in Apple's library; tests tell when it changes.
"""

from __future__ import annotations

import re
import threading
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from appstoreserverlibrary.signed_data_verifier import _ChainVerifier
from cachetools import LRUCache
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, ExtensionNotFound, ObjectIdentifier, load_der_x509_certificate
from OpenSSL.crypto import X509StoreContextError

from receipt_actors.domain.reasons import Reason
from receipt_actors.stores.apple.ports import SignatureRefused

MAX_CHAINS = 64  #: Apple has a handful
NAMES = ("leaf", "intermediate", "root")
#: What marks the certificates that sign for the App Store, and those that issue them.
APPLE_EXTENSIONS = (ObjectIdentifier("1.2.840.113635.100.6.11.1"), ObjectIdentifier("1.2.840.113635.100.6.2.1"))

# Looked for before ``cryptography`` reads the certificate: that only warns, on behalf of a stranger.
_LENGTH = rb"(?:[\x00-\x7f]|\x81.|\x82..)"
_POSITIVE_SERIAL_NUMBER = re.compile(
    rb"\x30%b\x30%b(?:\xa0\x03\x02\x01.)?\x02(?:\x01[\x01-\x7f]|[\x02-\x7f][\x00-\x7f])" % (_LENGTH, _LENGTH), re.DOTALL
)


class _Refusal(Exception):
    """Carries a ``SignatureRefused`` out of the depth; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason)
        self.refused = SignatureRefused(reason, detail)


@dataclass(frozen=True, slots=True)
class _Verified:
    """The leaf's key, and between which times (excluded, UNIX seconds) the whole chain is valid."""

    key: EllipticCurvePublicKey
    after_seconds: float
    before_seconds: float


class Chains:
    """Apple's chain verifier with a memory. May be called from any number of threads.

    Args:
        roots: the certificates that are trusted, DER.
    """

    def __init__(self, roots: Sequence[bytes]) -> None:
        self._verifier = _ChainVerifier(list(roots))
        self._roots = frozenset(roots)
        self._lock = threading.Lock()
        self._known: LRUCache[tuple[str, ...], _Verified] = LRUCache(MAX_CHAINS)
        self.verifications = 0  #: chains that were verified, or refused, because they were not known

    def leaf_key(self, names: tuple[str, ...], signed_at_seconds: int) -> EllipticCurvePublicKey | SignatureRefused:
        """Return the leaf's key for a signature of that UNIX time; ``names`` is the chain of a JWS."""
        with self._lock:
            known = self._known.get(names)
        if known is None or not known.after_seconds < signed_at_seconds < known.before_seconds:
            try:
                known = self._verify(names, signed_at_seconds)
            except _Refusal as refusal:
                return refusal.refused
            with self._lock:
                self._known[names] = known
        return known.key

    def _verify(self, names: tuple[str, ...], signed_at_seconds: int) -> _Verified:
        self.verifications += 1
        chain = [_certificate(*each) for each in zip(NAMES, names, strict=True)]
        self._check_links(chain)
        try:
            self._verifier.verify_chain(list(names), False, signed_at_seconds)
        except Exception as error:  # Apple's library takes whatever comes up for a refusal as well
            raise _refusal(chain, signed_at_seconds, error) from error
        key = _public_key(chain[0])
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
            raise _Refusal(Reason.JWS_CERTIFICATE, "leaf: expected a key on the curve P-256")
        return _Verified(
            key,
            max(each.not_valid_before_utc.timestamp() for each in chain),
            min(each.not_valid_after_utc.timestamp() for each in chain),
        )

    def _check_links(self, chain: Sequence[Certificate]) -> None:
        """Refuse a chain that does not lead to a trusted root.

        Apple's library looks at the first two, and finds the root for itself. It is checked here that the third is that
        root: else the chain could be spelled in any number of ways, and it would not be known until when it is valid.
        """
        leaf, intermediate, root = chain
        if root.public_bytes(Encoding.DER) not in self._roots:
            raise _Refusal(Reason.JWS_FOREIGN_ROOT, "root: it is none of the trusted root certificates")
        for name, certificate, issuer in (("intermediate", intermediate, root), ("leaf", leaf, intermediate)):
            try:
                certificate.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                detail = f"{name}: not issued by the next certificate of the chain"
                raise _Refusal(Reason.JWS_FOREIGN_ROOT, detail) from None


def _certificate(name: str, encoded: str) -> Certificate:
    try:
        der = b64decode(encoded, validate=True)
        if b64encode(der).decode("ascii") != encoded or not _POSITIVE_SERIAL_NUMBER.match(der):
            raise ValueError("another spelling, or a serial number that RFC 5280 forbids")
        return load_der_x509_certificate(der)
    except ValueError:  # binascii.Error is one
        raise _Refusal(Reason.JWS_CERTIFICATE, f"{name}: expected the base64 of a certificate (DER)") from None


def _public_key(certificate: Certificate) -> Any:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _refusal(chain: Sequence[Certificate], signed_at_seconds: int, error: Exception) -> _Refusal:
    """Find out why Apple's library refuses a chain that leads to a trusted root: it says little more than that."""
    signed_at = datetime.fromtimestamp(signed_at_seconds, UTC)
    for name, certificate in zip(NAMES, chain, strict=True):
        if not certificate.not_valid_before_utc <= signed_at < certificate.not_valid_after_utc:
            return _Refusal(
                Reason.JWS_EXPIRED_CERTIFICATE,
                f"{name}: valid from {_date(certificate.not_valid_before_utc)} to "
                f"{_date(certificate.not_valid_after_utc)}, signed {_date(signed_at)}",
            )
    for name, certificate, extension in zip(NAMES, chain, APPLE_EXTENSIONS, strict=False):
        if not _has(certificate, extension):
            detail = f"{name}: without the extension {extension.dotted_string} of the App Store's certificates"
            return _Refusal(Reason.JWS_CERTIFICATE, detail)
    # OpenSSL's own words have no part of a certificate in them.
    cause = error.__cause__
    why = str(cause) if isinstance(cause, X509StoreContextError) else type(cause or error).__name__
    return _Refusal(Reason.JWS_CERTIFICATE, f"not accepted by Apple's library: {why}")


def _has(certificate: Certificate, extension: ObjectIdentifier) -> bool:
    try:
        certificate.extensions.get_extension_for_oid(extension)
    except (ExtensionNotFound, ValueError):  # the latter: extensions that cannot be read, or occur twice
        return False
    return True


def _date(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
