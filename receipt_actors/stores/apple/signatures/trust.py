"""Whose signatures count: Apple's root certificate that comes along, or a directory's. Opens ``AppleSignedData``.

What is trusted: a signature of Apple's (ES256) by a leaf that is marked for the App Store, issued by an intermediate
that is marked likewise, issued by a trusted root; all three valid when it was signed. Apple is not asked whether it has
revoked one of them since.

Importing this imports neither Apple's library nor ``cryptography``: only signed transactions need them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from receipt_actors.domain.values import printable
from receipt_actors.errors import ConfigurationError

if TYPE_CHECKING:
    from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData

SUFFIXES = (".cer", ".der", ".pem")  #: of the files of a directory that are read; others are left alone
APPLE_ROOT = "AppleRootCA-G3.cer"
APPLE_ROOT_SHA256 = "63343abfb89a6a03ebb57e9b3f5fa7be7c4f5c756f3017b3a8c488c3653e9179"
APPLE_ROOTS_SHA256 = frozenset(  #: of all that apple.com/certificateauthority offers
    {
        APPLE_ROOT_SHA256,
        "c2b9b042dd57830e7d117dac55ac8ae19407d38e41d88f3215bc3a890444a050",  # Apple Root CA - G2
        "b0b1730ecbc7ff4505142c49f1295e6eda6bcaed7e2c68c5be91b5a11001f024",  # Apple Root CA, of 2006
    }
)

_PEM = b"-----BEGIN CERTIFICATE-----"
_WANTED = f"expected root certificates in files {', '.join('*' + suffix for suffix in SUFFIXES)} (DER or PEM)"


@dataclass(frozen=True, slots=True)
class Trust:
    roots: Sequence[bytes]  #: certificates, DER
    app_apple_ids: Collection[int] = ()  #: to which a notification of production must belong; none: to any


def apple_root() -> bytes:
    return resources.files("receipt_actors.stores.apple.signatures.apple_roots").joinpath(APPLE_ROOT).read_bytes()


def read_trust(directory: Path | None, app_apple_ids: Collection[int] = ()) -> Trust:
    """Read the root certificates of a directory, or else Apple's own. ``ConfigurationError`` has every fault of it."""
    if directory is None:
        return Trust([apple_root()], app_apple_ids)
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise ConfigurationError([f"{_of(directory)}, {_WANTED}; {error.strerror}"]) from None
    roots: dict[bytes, None] = {}  # each once, in order
    faults: list[str] = []
    for path in files:
        try:
            roots.update(dict.fromkeys(_read(path)))
        except OSError as error:
            faults.append(f"{_of(path)}, expected a readable file; {error.strerror}")
        except ValueError as error:
            faults.append(f"{_of(path)}, {error}")
    if not files:
        faults.append(f"{_of(directory)} without any, {_WANTED}; Apple's are at apple.com/certificateauthority")
    if faults:
        raise ConfigurationError(faults)
    return Trust(list(roots), app_apple_ids)


def open_signed_data(trust: Trust) -> AppleSignedData:
    """Open what verifies in this process. Raises ``ConfigurationError`` if Apple's library can't be imported."""
    try:
        from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
    except ImportError as error:  # where no wheel of the cryptography under it fits the machine
        wanted = "expected app-store-server-library from 3.1, below 4"
        raise ConfigurationError([f"signed transactions: found that {error}, {wanted}"]) from error
    return AppleSignedData(trust.roots, trust.app_apple_ids)


def foreign_name(root: bytes) -> str | None:
    """Return the subject of a root certificate (DER) that is not Apple's, for people to read; None: it is Apple's."""
    if hashlib.sha256(root).hexdigest() in APPLE_ROOTS_SHA256:
        return None
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(root).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return printable(str(names[0].value) if names else subject.rfc4514_string())


def _of(path: Path) -> str:
    return f"apple_roots: found {str(path)!r}"


def _read(path: Path) -> Sequence[bytes]:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding

    content = path.read_bytes()
    try:
        if _PEM in content:
            certificates = x509.load_pem_x509_certificates(content)
        else:
            certificates = [x509.load_der_x509_certificate(content)]
    except ValueError:
        raise ValueError("expected a certificate in DER or PEM") from None
    for certificate in certificates:
        try:
            certificate.verify_directly_issued_by(certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise ValueError("expected a root certificate, which has signed itself; this one another has") from None
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates]
