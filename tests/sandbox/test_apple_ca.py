"""What the simulated App Store signs, before Apple's own library: in strict mode, with this one root to trust."""

from __future__ import annotations

from pathlib import Path

import pytest
from appstoreserverlibrary.models.Environment import Environment as ApplesEnvironment
from appstoreserverlibrary.models.InAppOwnershipType import InAppOwnershipType
from appstoreserverlibrary.models.Type import Type
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier, VerificationException
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox.apple_ca import ROOT_FILE, Authority, Flaw, default_authority
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt
from receipt_actors.sandbox.signed_transactions import mint_signed

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


@pytest.mark.parametrize("flaw", Flaw)
def test_apple_refuses_every_flaw(flaw: Flaw) -> None:
    with pytest.raises(VerificationException):
        apple().verify_and_decode_signed_transaction(mint_signed(RECEIPT, flaw=flaw))


def test_an_expired_leaf_was_good_in_its_time() -> None:
    signed = mint_signed(RECEIPT, flaw=Flaw.EXPIRED_LEAF, signed_at_ms=1_430_000_000_000)
    assert apple().verify_and_decode_signed_transaction(signed).transactionId == "2000000001"


def test_authorities_of_one_key_agree_without_talking() -> None:
    first, second = Authority(b"shared"), Authority(b"shared")
    assert (first.root, first.server_api_key) == (second.root, second.server_api_key)
    assert first.sign({"a": 1}) == second.sign({"a": 1})


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
