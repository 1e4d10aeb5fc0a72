"""Chains of certificates: what is remembered says what verifying anew says. And what we need of Apple's library."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import appstoreserverlibrary.signed_data_verifier as apple
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receipt_actors.domain.reasons import Reason
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.apple_library import MAX_CHAINS, AppleSignedData, Chains
from tests.stores.apple.signing import (
    BEGIN,
    END,
    NOTIFICATION,
    SIGNED_AT,
    TRANSACTION,
    Certified,
    TestAuthority,
    certify_intermediate,
    certify_leaf,
    signed,
)

APPLE = TestAuthority()
STRANGER = TestAuthority()
AT = int(SIGNED_AT.timestamp())

# Each valid within the one before.
INTERMEDIATE = certify_intermediate(
    APPLE.root, begin=datetime(2021, 1, 1, tzinfo=UTC), end=datetime(2035, 1, 1, tzinfo=UTC)
)
LEAF_BEGIN, LEAF_END = datetime(2023, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
SHORT_CHAIN = [certify_leaf(INTERMEDIATE, begin=LEAF_BEGIN, end=LEAF_END), INTERMEDIATE, APPLE.root]


def x5c(chain: Sequence[Certified]) -> list[str]:
    return [each.x5c for each in chain]


def answer(chains: Chains, chain: Sequence[Certified], at_seconds: int) -> Any:
    key = chains.leaf_key(tuple(x5c(chain)), at_seconds)
    return key.reason if isinstance(key, SignatureRefused) else key.public_numbers()


def test_a_chain_is_verified_once() -> None:
    signed_data = AppleSignedData([APPLE.root.der])
    for number in range(5):
        payload = {**TRANSACTION, "transactionId": str(number)}
        assert signed_data.verify(SignedKind.TRANSACTION, APPLE.sign(payload)) == payload
    assert signed_data.verify(SignedKind.NOTIFICATION, APPLE.sign(NOTIFICATION)) == NOTIFICATION
    assert signed_data.chains.verifications == 1


def seconds(when: datetime) -> int:
    return int(when.timestamp())


@given(at_seconds=st.integers(seconds(BEGIN - timedelta(days=900)), seconds(END + timedelta(days=900))))
@example(at_seconds=seconds(LEAF_BEGIN) - 1)
@example(at_seconds=seconds(LEAF_BEGIN))
@example(at_seconds=seconds(LEAF_BEGIN) + 1)
@example(at_seconds=seconds(LEAF_END) - 1)
@example(at_seconds=seconds(LEAF_END))
@example(at_seconds=seconds(LEAF_END) + 1)
@example(at_seconds=0)
def test_a_known_chain_is_judged_as_an_unknown_one_at_any_time(at_seconds: int) -> None:
    knowing = Chains([APPLE.root.der])
    assert answer(knowing, SHORT_CHAIN, AT) == SHORT_CHAIN[0].certificate.public_key().public_numbers()  # type: ignore[union-attr]
    expected = answer(Chains([APPLE.root.der]), SHORT_CHAIN, at_seconds)
    assert answer(knowing, SHORT_CHAIN, at_seconds) == expected
    try:
        apple._ChainVerifier([APPLE.root.der]).verify_chain(x5c(SHORT_CHAIN), False, at_seconds)
    except apple.VerificationException:
        assert expected is Reason.JWS_EXPIRED_CERTIFICATE
    else:
        assert expected is not Reason.JWS_EXPIRED_CERTIFICATE


def test_whoever_backdates_needs_the_key() -> None:
    signed_data = AppleSignedData([APPLE.root.der])
    genuine = signed(SHORT_CHAIN, TRANSACTION)
    assert (
        signed_data.verify(SignedKind.TRANSACTION, genuine) == TRANSACTION
    )  # the leaf has expired since; it had not then
    after_its_end = {**TRANSACTION, "signedDate": seconds(LEAF_END) * 1000 + 1000}
    header, _, signature = genuine.split(".")
    for text, reason in (
        (signed(SHORT_CHAIN, after_its_end), Reason.JWS_EXPIRED_CERTIFICATE),
        (signed(SHORT_CHAIN, after_its_end, key=STRANGER.leaf.key), Reason.JWS_EXPIRED_CERTIFICATE),
        (signed(SHORT_CHAIN, TRANSACTION, key=STRANGER.leaf.key), Reason.JWS_SIGNATURE),
        (f"{header}.{APPLE.sign({**TRANSACTION, 'price': 0}).split('.')[1]}.{signature}", Reason.JWS_SIGNATURE),
    ):
        outcome = signed_data.verify(SignedKind.TRANSACTION, text)
        assert isinstance(outcome, SignatureRefused)
        assert outcome.reason is reason


def test_strangers_displace_nothing() -> None:
    chains = Chains([APPLE.root.der])
    answer(chains, APPLE.chain, AT)
    for number in range(3):
        leaf = certify_leaf(STRANGER.intermediate, serial=number + 1)
        assert answer(chains, [leaf, STRANGER.intermediate, STRANGER.root], AT) is Reason.JWS_FOREIGN_ROOT
        assert answer(chains, [leaf, STRANGER.intermediate, APPLE.root], AT) is Reason.JWS_FOREIGN_ROOT
    verified = chains.verifications
    answer(chains, APPLE.chain, AT)
    assert chains.verifications == verified


def test_a_bounded_number_is_remembered() -> None:
    chains = Chains([APPLE.root.der])
    for number in range(MAX_CHAINS + 1):
        answer(chains, [certify_leaf(APPLE.intermediate, key=APPLE.leaf.key, serial=number + 1), *APPLE.chain[1:]], AT)
    answer(chains, APPLE.chain, AT)
    verified = chains.verifications
    answer(chains, APPLE.chain, AT)
    assert chains.verifications == verified
    assert len(chains._known) == MAX_CHAINS


def test_each_has_its_own_roots() -> None:
    ours, theirs, both = (
        Chains(roots) for roots in ([APPLE.root.der], [STRANGER.root.der], [APPLE.root.der, STRANGER.root.der])
    )
    for _ in range(2):
        assert answer(theirs, APPLE.chain, AT) is Reason.JWS_FOREIGN_ROOT
        assert answer(ours, STRANGER.chain, AT) is Reason.JWS_FOREIGN_ROOT
        assert answer(both, STRANGER.chain, AT) == answer(theirs, STRANGER.chain, AT)
        assert answer(both, APPLE.chain, AT) == answer(ours, APPLE.chain, AT)
    assert answer(Chains([]), APPLE.chain, AT) is Reason.JWS_FOREIGN_ROOT


# Whose app a notification is about

DATA: Any = NOTIFICATION["data"]


@pytest.mark.parametrize(
    ("app_apple_ids", "environment", "app_apple_id", "is_taken"),
    [
        ([], "Production", 1234567890, True),
        ([1234567890], "Production", 1234567890, True),
        ([1, 1234567890], "Production", 1234567890, True),
        ([1], "Production", 1234567890, False),
        ([1], "Production", None, False),
        ([], "Production", None, False),
        ([1], "Sandbox", None, True),
        ([1], "Sandbox", 1234567890, True),
    ],
)
def test_a_notification_of_production_is_of_one_of_our_apps(
    app_apple_ids: Sequence[int], environment: str, app_apple_id: int | None, is_taken: bool
) -> None:
    data = {**DATA, "environment": environment, "appAppleId": app_apple_id}
    outcome = AppleSignedData([APPLE.root.der], app_apple_ids).verify(
        SignedKind.NOTIFICATION, APPLE.sign(NOTIFICATION, data=data)
    )
    assert isinstance(outcome, SignatureRefused) is not is_taken
    assert is_taken or outcome.reason is Reason.FOREIGN_BUNDLE  # type: ignore[union-attr]


# What we need of Apple's library that it does not promise. Where one of these fails after an upgrade, look into
# ``apple_library``.


def test_apples_library_has_the_chain_verifier_that_ours_asks() -> None:
    assert list(inspect.signature(apple._ChainVerifier.verify_chain).parameters) == [
        "self",
        "certificates",
        "perform_online_checks",
        "effective_date",
    ]
    pem = apple._ChainVerifier([APPLE.root.der]).verify_chain(x5c(APPLE.chain), False, AT)
    assert "BEGIN PUBLIC KEY" in pem


def test_apples_library_looks_for_the_extensions_that_ours_names() -> None:
    source = inspect.getsource(apple._ChainVerifier._verify_chain_without_caching)
    assert '"1.2.840.113635.100.6.11.1"' in source
    assert '"1.2.840.113635.100.6.2.1"' in source
