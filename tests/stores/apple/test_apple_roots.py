"""The root certificates that are trusted: Apple's own, and a directory's; and what happens without the library."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.ports import SignedKind
from receipt_actors.stores.apple.signatures.trust import APPLE_ROOT_SHA256, apple_root, open_signed_data, read_trust
from tests.stores.apple.signing import TRANSACTION, TestAuthority, certify

APPLE = TestAuthority()
ANOTHER = certify("another root")


def test_the_root_that_comes_along_is_apples_and_alone_is_trusted() -> None:
    published = "63343ABFB89A6A03EBB57E9B3F5FA7BE7C4F5C756F3017B3A8C488C3653E9179"
    assert hashlib.sha256(apple_root()).hexdigest().upper() == published == APPLE_ROOT_SHA256.upper()
    folder = resources.files("receipt_actors.stores.apple.signatures.apple_roots")
    assert published in folder.joinpath("README.rst").read_text(encoding="utf-8")
    assert [each.name for each in folder.iterdir() if each.name.endswith(".cer")] == ["AppleRootCA-G3.cer"]
    assert read_trust(None).roots == [apple_root()]
    certificate = x509.load_der_x509_certificate(apple_root())
    assert certificate.subject.rfc4514_string() == (
        "C=US,O=Apple Inc.,OU=Apple Certification Authority,CN=Apple Root CA - G3"
    )
    assert certificate.not_valid_after_utc == datetime(2039, 4, 30, 18, 19, 6, tzinfo=UTC)


def test_the_certificates_of_a_directory_are_trusted(tmp_path: Path) -> None:
    der, pem = APPLE.root.der, APPLE.root.certificate.public_bytes(Encoding.PEM)
    (tmp_path / "a.cer").write_bytes(der)
    (tmp_path / "b.pem").write_bytes(pem + b"\n" + ANOTHER.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "c.DER").write_bytes(ANOTHER.der)
    (tmp_path / "d.cer").write_bytes(pem)
    (tmp_path / "README.txt").write_text("no certificate")
    trust = read_trust(tmp_path)
    assert trust.roots == [der, ANOTHER.der]
    signed_data = open_signed_data(trust)
    assert signed_data.verify(SignedKind.TRANSACTION, APPLE.sign()) == TRANSACTION


def fault_of(directory: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read_trust(directory)
    (fault,) = raised.value.faults
    return fault


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected a certificate in DER or PEM"),
        (b"no certificate", "expected a certificate in DER or PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "expected a certificate in DER or PEM"),
        (APPLE.root.der[:-1], "expected a certificate in DER or PEM"),
        (APPLE.leaf.der, "expected a root certificate, which has signed itself"),
        (APPLE.intermediate.der, "expected a root certificate, which has signed itself"),
    ],
    ids=["empty", "text", "PEM of nothing", "cut off", "a leaf", "an intermediate"],
)
def test_a_file_that_is_no_root_certificate_is_a_fault(content: bytes, expected: str, tmp_path: Path) -> None:
    """It is named: a root that silently does not count would refuse every purchase."""
    (tmp_path / "fine.cer").write_bytes(APPLE.root.der)
    (tmp_path / "wrong.cer").write_bytes(content)
    fault = fault_of(tmp_path)
    assert fault.startswith(f"apple_roots: found {str(tmp_path / 'wrong.cer')!r}, {expected}")


def test_a_directory_without_certificates_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "AppleRootCA-G3.cer.txt").write_bytes(APPLE.root.der)
    fault = fault_of(tmp_path)
    assert "without any, expected root certificates in files *.cer, *.der, *.pem" in fault
    assert "apple.com/certificateauthority" in fault


def test_what_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "not there").endswith("No such file or directory")
    (tmp_path / "file.cer").write_bytes(APPLE.root.der)
    assert fault_of(tmp_path / "file.cer").endswith("Not a directory")
    (tmp_path / "strange.cer").mkdir()
    assert "expected a readable file" in fault_of(tmp_path)
