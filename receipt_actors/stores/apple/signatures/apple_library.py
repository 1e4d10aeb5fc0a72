"""``AppleSignedData``: verifies what Apple signed, with Apple's library (``trust`` imports this when it is needed).

``jws`` reads the JWS, more strictly than Apple's library. ``Chains`` has that verify the chain of certificates. Its
``SignedDataVerifier`` is made for one app in one environment: here the policy judges the app later.

``_ChainVerifier`` is private in Apple's library; tests tell when it changes.
"""

from __future__ import annotations

import re
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from appstoreserverlibrary.signed_data_verifier import _ChainVerifier
from cachetools import LRUCache
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, ExtensionNotFound, ObjectIdentifier, load_der_x509_certificate
from jwt import get_algorithm_by_name
from OpenSSL.crypto import X509StoreContextError

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.jws import Refusal, check_clock, read_jws

MAX_CHAINS = 64  #: Apple has a handful
NAMES = ("leaf", "intermediate", "root")
#: What marks the certificates that sign for the App Store, and those that issue them.
APPLE_EXTENSIONS = (ObjectIdentifier("1.2.840.113635.100.6.11.1"), ObjectIdentifier("1.2.840.113635.100.6.2.1"))

_ES256 = get_algorithm_by_name("ES256")
_FORGED = SignatureRefused(Reason.JWS_SIGNATURE, "signature: not that of this header and payload by the leaf's key")
_FOREIGN_APP = SignatureRefused(Reason.FOREIGN_BUNDLE, "appAppleId: none, or not that of an app of ours")

# Looked for before ``cryptography`` reads the certificate: that only warns, on behalf of a stranger.
_LENGTH = rb"(?:[\x00-\x7f]|\x81.|\x82..)"
_POSITIVE_SERIAL_NUMBER = re.compile(
    rb"\x30%b\x30%b(?:\xa0\x03\x02\x01.)?\x02(?:\x01[\x01-\x7f]|[\x02-\x7f][\x00-\x7f])" % (_LENGTH, _LENGTH), re.DOTALL
)


class AppleSignedData:
    """The port ``SignedData``; ``roots`` are trusted certificates (DER).

    A notification of production is ``FOREIGN_BUNDLE`` if it is not of one of ``app_apple_ids``, unless there are none.
    """

    def __init__(
        self, roots: Sequence[bytes], app_apple_ids: Collection[int] = (), now_seconds: Callable[[], float] = time.time
    ) -> None:
        self.chains = Chains(roots)
        self._app_apple_ids = frozenset(app_apple_ids)
        self._now_seconds = now_seconds

    def verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        jws = read_jws(kind, signed)
        if isinstance(jws, SignatureRefused):
            return jws
        key = self.chains.leaf_key(jws.chain, jws.signed_at_ms // 1000)
        if isinstance(key, SignatureRefused):
            return key
        if not _ES256.verify(jws.signing_input, key, jws.signature):
            return _FORGED
        if kind is SignedKind.NOTIFICATION and jws.environment is Environment.PRODUCTION:
            is_ours = not self._app_apple_ids or jws.app_apple_id in self._app_apple_ids
            if jws.app_apple_id is None or not is_ours:  # the former Apple's library refuses as well
                return _FOREIGN_APP
        check_clock(jws, self._now_seconds())
        return jws.payload


@dataclass(frozen=True, slots=True)
class _Verified:
    """The leaf's key, and between which times (excluded, UNIX seconds) the whole chain is valid."""

    key: EllipticCurvePublicKey
    after_seconds: float
    before_seconds: float


class Chains:
    """Apple's chain verifier with a memory. May be called from any number of threads.

    Apple's library verifies each chain anew: three signatures, most of what a verification takes. Here that is done
    once for a chain (the exact strings of its ``x5c``), for the times at which its certificates are valid. Only chains
    that were found to be Apple's are kept: what strangers send displaces none. The time is that of signing
    (``signedDate``), as in Apple's library. Who has the key of an expired leaf can choose it: only revocations, which
    need the network, would help.
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
            except Refusal as refusal:
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
            raise Refusal(Reason.JWS_CERTIFICATE, "leaf: expected a key on the curve P-256")
        return _Verified(
            key,
            max(each.not_valid_before_utc.timestamp() for each in chain),
            min(each.not_valid_after_utc.timestamp() for each in chain),
        )

    def _check_links(self, chain: Sequence[Certificate]) -> None:
        # Apple's library looks at the first two, and finds the root for itself. If the third were not that root, the
        # chain could have any number of spellings, and it would not be known until when it is valid.
        leaf, intermediate, root = chain
        if root.public_bytes(Encoding.DER) not in self._roots:
            raise Refusal(Reason.JWS_FOREIGN_ROOT, "root: it is none of the trusted root certificates")
        for name, certificate, issuer in (("intermediate", intermediate, root), ("leaf", leaf, intermediate)):
            try:
                certificate.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                detail = f"{name}: not issued by the next certificate of the chain"
                raise Refusal(Reason.JWS_FOREIGN_ROOT, detail) from None


def _certificate(name: str, encoded: str) -> Certificate:
    try:
        der = b64decode(encoded, validate=True)
        if b64encode(der).decode("ascii") != encoded or not _POSITIVE_SERIAL_NUMBER.match(der):
            raise ValueError("another spelling, or a serial number that RFC 5280 forbids")
        return load_der_x509_certificate(der)
    except ValueError:  # binascii.Error is one
        raise Refusal(Reason.JWS_CERTIFICATE, f"{name}: expected the base64 of a certificate (DER)") from None


def _public_key(certificate: Certificate) -> Any:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _refusal(chain: Sequence[Certificate], signed_at_seconds: int, error: Exception) -> Refusal:
    """Find out why Apple's library refuses a chain that leads to a trusted root: it says little more than that."""
    signed_at = datetime.fromtimestamp(signed_at_seconds, UTC)
    for name, certificate in zip(NAMES, chain, strict=True):
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begin <= signed_at < end:
            detail = f"{name}: valid from {_date(begin)} to {_date(end)}, signed {_date(signed_at)}"
            return Refusal(Reason.JWS_EXPIRED_CERTIFICATE, detail)
    for name, certificate, extension in zip(NAMES, chain, APPLE_EXTENSIONS, strict=False):
        if not _has(certificate, extension):
            detail = f"{name}: without the extension {extension.dotted_string} of the App Store's certificates"
            return Refusal(Reason.JWS_CERTIFICATE, detail)
    # OpenSSL's own words have no part of a certificate in them.
    cause = error.__cause__
    why = str(cause) if isinstance(cause, X509StoreContextError) else type(cause or error).__name__
    return Refusal(Reason.JWS_CERTIFICATE, f"not accepted by Apple's library: {why}")


def _has(certificate: Certificate, extension: ObjectIdentifier) -> bool:
    try:
        certificate.extensions.get_extension_for_oid(extension)
    except (ExtensionNotFound, ValueError):  # the latter: extensions that cannot be read, or occur twice
        return False
    return True


def _date(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
