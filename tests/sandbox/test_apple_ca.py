"""What the simulated App Store signs, before Apple's own library: in strict mode, with this one root to trust."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from appstoreserverlibrary.models.Environment import Environment as ApplesEnvironment
from appstoreserverlibrary.models.InAppOwnershipType import InAppOwnershipType
from appstoreserverlibrary.models.Type import Type
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier, VerificationException, VerificationStatus
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.sandbox.apple_ca import ROOT_FILE, Authority, Flaw, default_authority
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt
from receipt_actors.sandbox.signed_transactions import mint_signed
from tests.patience import PATIENCE_SECONDS

BUNDLE_ID = "com.example.game"
PURCHASE = Purchase("2000000001", "coins_100")
RECEIPT = SampleReceipt(BUNDLE_ID, (PURCHASE,))
AUTHORITY = default_authority()


def apple(authority: Authority = AUTHORITY, environment: Environment = Environment.PRODUCTION) -> SignedDataVerifier:
    return SignedDataVerifier([authority.root], False, ApplesEnvironment(environment), BUNDLE_ID, 1)


def test_apple_accepts_a_genuine_transaction_and_reads_its_purchase() -> None:
    purchase = Purchase(
        "2000000009",
        "gold_monthly",
        purchased_at_ms=1_750_000_000_000,
        original_transaction_id="2000000001",
        quantity=2,
        expires_at_ms=1_760_000_000_000,
        cancelled_at_ms=1_755_000_000_000,
        is_family_shared=True,
        app_account_token="7e3fb204-2d2c-4c6a-9b1e-0a4a5a1f5c11",
        is_upgraded=True,
    )
    read = apple().verify_and_decode_signed_transaction(mint_signed(SampleReceipt(BUNDLE_ID, (purchase,))))
    assert (read.transactionId, read.originalTransactionId) == ("2000000009", "2000000001")
    assert (read.bundleId, read.productId, read.quantity) == (BUNDLE_ID, "gold_monthly", 2)
    assert (read.purchaseDate, read.expiresDate) == (1_750_000_000_000, 1_760_000_000_000)
    assert (read.revocationDate, read.isUpgraded) == (1_755_000_000_000, True)
    assert read.type is Type.AUTO_RENEWABLE_SUBSCRIPTION
    assert read.inAppOwnershipType is InAppOwnershipType.FAMILY_SHARED
    assert read.appAccountToken == "7e3fb204-2d2c-4c6a-9b1e-0a4a5a1f5c11"


@pytest.mark.parametrize("product_type", ProductType)
def test_apple_reads_every_type_of_product(product_type: ProductType) -> None:
    receipt = SampleReceipt(BUNDLE_ID, (Purchase("2000000001", product_type=product_type),))
    read = apple().verify_and_decode_signed_transaction(mint_signed(receipt))
    assert read.type == Type(product_type.value)


def test_apple_accepts_a_sandbox_transaction_in_the_sandbox_only() -> None:
    signed = mint_signed(SampleReceipt(BUNDLE_ID, (PURCHASE,), environment=Environment.SANDBOX))
    read = apple(environment=Environment.SANDBOX).verify_and_decode_signed_transaction(signed)
    assert read.environment is ApplesEnvironment.SANDBOX
    with pytest.raises(VerificationException) as refused:
        apple().verify_and_decode_signed_transaction(signed)
    assert refused.value.status is VerificationStatus.INVALID_ENVIRONMENT


@pytest.mark.parametrize("flaw", Flaw)
def test_apple_refuses_every_flaw(flaw: Flaw) -> None:
    with pytest.raises(VerificationException):
        apple().verify_and_decode_signed_transaction(mint_signed(RECEIPT, flaw=flaw))


def test_an_expired_leaf_was_good_in_its_time() -> None:
    signed = mint_signed(RECEIPT, flaw=Flaw.EXPIRED_LEAF, signed_at_ms=1_430_000_000_000)
    assert apple().verify_and_decode_signed_transaction(signed).transactionId == "2000000001"


@pytest.mark.parametrize("name", ["Xcode", "LocalTesting"])
def test_changes_make_what_apple_never_signs(name: str) -> None:
    signed = mint_signed(RECEIPT, changes={"environment": name, "price": None})
    lenient = SignedDataVerifier([], False, ApplesEnvironment(name), BUNDLE_ID, 1)
    assert lenient.verify_and_decode_signed_transaction(signed).price is None
    with pytest.raises(VerificationException):
        apple().verify_and_decode_signed_transaction(signed)


def test_authorities_are_told_apart_by_their_keys() -> None:
    other = Authority(b"another store")
    signed = mint_signed(RECEIPT, authority=other)
    assert apple(other).verify_and_decode_signed_transaction(signed).transactionId == "2000000001"
    with pytest.raises(VerificationException):
        apple().verify_and_decode_signed_transaction(signed)
    with pytest.raises(VerificationException):
        apple(other).verify_and_decode_signed_transaction(mint_signed(RECEIPT))


def test_processes_of_one_key_agree_without_talking() -> None:
    program = (
        "from receipt_actors.sandbox.apple_ca import Authority\n"
        "import sys\n"
        "authority = Authority(b'shared')\n"
        "pair = authority.server_api_key\n"
        "sys.stdout.write(' '.join([authority.fingerprint, pair.key_id, pair.issuer_id, authority.sign({'a': 1})]))\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    authority = Authority(b"shared")
    pair = authority.server_api_key
    assert other.stdout.split() == [authority.fingerprint, pair.key_id, pair.issuer_id, authority.sign({"a": 1})]


def test_roots_are_written_as_apple_gives_them_out(tmp_path: Path) -> None:
    path = AUTHORITY.write_roots(tmp_path / "roots")
    assert path.name == ROOT_FILE
    root = x509.load_der_x509_certificate(path.read_bytes())
    leaf = x509.load_der_x509_certificate(AUTHORITY.leaf)
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)
    assert [key.curve.name for key in (root.public_key(), leaf.public_key())] == ["secp384r1", "secp256r1"]
    assert "Simulated" in root.subject.rfc4514_string()
    AUTHORITY.write_roots(tmp_path / "roots")  # again, where it is there


def test_a_signed_transaction_is_one_purchase() -> None:
    for count in (0, 2):
        with pytest.raises(ValueError, match=f"one purchase, found {count}"):
            mint_signed(SampleReceipt(BUNDLE_ID, (PURCHASE,) * count))
