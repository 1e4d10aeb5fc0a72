"""Which root certificates are trusted: those of a directory, or Apple's own that comes along.

Needs ``cryptography``, which Apple's library brings; so it is imported when there is something to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from receipt_actors.errors import ConfigurationError

SUFFIXES = (".cer", ".der", ".pem")  #: of the files of a directory that are read; others are left alone
APPLE_ROOT = "AppleRootCA-G3.cer"
APPLE_ROOT_SHA256 = "63343abfb89a6a03ebb57e9b3f5fa7be7c4f5c756f3017b3a8c488c3653e9179"

_PEM = b"-----BEGIN CERTIFICATE-----"
_WANTED = f"expected root certificates in files {', '.join('*' + suffix for suffix in SUFFIXES)} (DER or PEM)"


def apple_root() -> bytes:
    """Return Apple's root certificate, DER."""
    return resources.files("receipt_actors.clients.app_store.apple_roots").joinpath(APPLE_ROOT).read_bytes()


def read_roots(directory: Path | None) -> Sequence[bytes]:
    """Return the root certificates of a directory, or else Apple's own, DER.

    Raises:
        ConfigurationError: the directory can't be read, has no certificate, or a file that is none; every fault of it.
    """
    if directory is None:
        return [apple_root()]
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
    return list(roots)


def _of(path: Path) -> str:
    return f"apple_roots: found {str(path)!r}"


def _read(path: Path) -> Sequence[bytes]:
    """Read a file's certificates. Raises ``ValueError`` with what was expected."""
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
