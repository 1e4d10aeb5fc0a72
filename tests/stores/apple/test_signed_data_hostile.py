"""What claims to be Apple's and is not: each thing refused, for its own reason, by the real verifier.

An authority to throw away stands in for Apple; nothing else is simulated. The last tests ask Apple's library itself: we
must never accept what it refuses.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from appstoreserverlibrary.models.Environment import Environment as AppleEnvironment
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier, VerificationException
from cattrs.errors import BaseValidationError
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import example, given
from hypothesis import strategies as st

from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
from receipt_actors.stores.apple.signatures.jws import MAX_AHEAD_SECONDS, MAX_SIGNED_CHARACTERS, YEAR_10000_MS
from tests.stores.apple.signing import (
    INTERMEDIATE_OID,
    NOTIFICATION,
    SIGNED_AT,
    SIGNED_AT_MS,
    TRANSACTION,
    Certified,
    TestAuthority,
    certify,
    certify_intermediate,
    certify_leaf,
    new_key,
    part,
    signed,
)

APPLE = TestAuthority()
STRANGER = TestAuthority()
GENUINE = APPLE.sign()
HEADER, PAYLOAD, SIGNATURE = GENUINE.split(".")
NOW_SECONDS = SIGNED_AT.timestamp() + 60

BEFORE = datetime(2019, 1, 1, tzinfo=UTC)
OVER = datetime(2023, 1, 1, tzinfo=UTC)
NOT_YET = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def signed_data() -> AppleSignedData:
    return AppleSignedData([APPLE.root.der], now_seconds=lambda: NOW_SECONDS)


def verified(signed_data: AppleSignedData, text: str) -> Mapping[str, object] | SignatureRefused:
    return signed_data.verify(SignedKind.TRANSACTION, text)


def chain_with(*, leaf: Any = (), intermediate: Any = (), root: Certified = APPLE.root, key: Any = None) -> str:
    issuer = certify_intermediate(root, **dict(intermediate))
    return signed([certify_leaf(issuer, **dict(leaf)), issuer, root], TRANSACTION, key=key)


def with_header(**changes: object) -> str:
    """Sign with Apple's key under another header; what is changed to None is left out."""
    header = {"alg": "ES256", "x5c": [each.x5c for each in APPLE.chain], **changes}
    return under({name: each for name, each in header.items() if each is not None})


def under(header: Any) -> str:
    return signed(APPLE.chain, TRANSACTION, header=header)


def with_x5c(*x5c: object) -> str:
    return with_header(x5c=list(x5c))


LEAF, INTERMEDIATE, ROOT = (each.x5c for each in APPLE.chain)
TEXT = json.dumps(TRANSACTION)
IN_DER = APPLE.leaf.key.sign(f"{HEADER}.{PAYLOAD}".encode(), ec.ECDSA(SHA256()))


def serial_of_leaf(first_byte: int) -> str:
    """The leaf with another serial number, of which this is the first byte."""
    der = bytearray(APPLE.leaf.der)
    der[der.index(b"\xa0\x03\x02\x01\x02\x02") + 7] = first_byte
    return base64.b64encode(der).decode()


REFUSED: dict[Reason, dict[str, str]] = {
    Reason.JWS_MALFORMED: {
        "nothing": "",
        "dots": "..",
        "one part": HEADER,
        "two parts": f"{HEADER}.{PAYLOAD}",
        "four parts": f"{GENUINE}.{SIGNATURE}",
        "encrypted, five parts": f"{GENUINE}.{HEADER}.{PAYLOAD}",
        "a line break at the end": GENUINE + "\n",
        "a space at the beginning": " " + GENUINE,
        "padding": f"{HEADER}==.{PAYLOAD}.{SIGNATURE}",
        "base64 of the other alphabet": f"{HEADER}+/.{PAYLOAD}.{SIGNATURE}",
        "letters of no alphabet": f"{HEADER}é.{PAYLOAD}.{SIGNATURE}",
        "a lone surrogate": "\ud800." + PAYLOAD + "." + SIGNATURE,
        "a part of impossible length": f"{HEADER}.{'A' * 5}.{SIGNATURE}",
        "oversized": GENUINE + "A" * MAX_SIGNED_CHARACTERS,
        "a megabyte of dots": "." * 2**20,
        "base64 of a JWS": base64.b64encode(GENUINE.encode()).decode(),
        "base64 of an app receipt": base64.b64encode(b"\x30\x82\x10\x00" * 500).decode(),
        "a payload that is a JWS": APPLE.sign(GENUINE.encode()),
        "a payload that is base64 of JSON": APPLE.sign(base64.b64encode(TEXT.encode())),
        "parts that are encoded twice": ".".join(part(each.encode()) for each in GENUINE.split(".")),
        "a header that is no JSON": under(b"{"),
        "a header that is an array": under(b"[]"),
        "a header that is no UTF-8": under(b'{"\xff":1}'),
        "a header with a key twice": under(b'{"alg":"none","alg":"ES256"}'),
        "a payload that is no JSON": APPLE.sign(b"transactionId=1"),
        "a payload that is a string": APPLE.sign(b'"2000000001"'),
        "a payload with a key twice": APPLE.sign(TEXT[:-1].encode() + b',"transactionId":"2000000002"}'),
        "a payload with NaN": APPLE.sign(TEXT[:-1].encode() + b',"price":NaN}'),
        "a deep payload": APPLE.sign(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
        "a deep header": under(b"[" * 50_000),
        "crit": with_header(crit=["exp"], exp=1),
        "b64 false": with_header(b64=False),
        "b64 false, said to be critical": with_header(b64=False, crit=["b64"]),
        "bundleId a number": APPLE.sign(bundleId=7),
    },
    Reason.JWS_ENVIRONMENT: {
        "a number of 50,000 digits": APPLE.sign(b'{"signedDate":' + b"9" * 50_000 + b"}"),
        "Xcode, as Xcode signs": signed(
            [STRANGER.leaf], {**TRANSACTION, "environment": "Xcode"}, kid="Apple_Xcode_Key"
        ),
        "Xcode, unsigned": f"{part({'alg': 'none'})}.{part({'environment': 'Xcode'})}.",
        "LocalTesting": STRANGER.sign(environment="LocalTesting"),
        "Xcode, signed by Apple": APPLE.sign(environment="Xcode"),
        "LocalTesting, signed by Apple": APPLE.sign(environment="LocalTesting"),
        "an unknown environment": APPLE.sign(environment="production"),
        "no environment": APPLE.sign(environment=None),
        "an environment in an array": APPLE.sign(environment=["Production"]),
        "a notification": APPLE.sign(NOTIFICATION),
    },
    Reason.JWS_ALGORITHM: {
        "alg none": f"{part({'alg': 'none'})}.{PAYLOAD}.",
        "alg none, with the chain and a signature": with_header(alg="none"),
        "alg None": with_header(alg="None"),
        "alg HS256": with_header(alg="HS256"),
        "alg RS256": with_header(alg="RS256"),
        "alg ES384": with_header(alg="ES384"),
        "alg es256": with_header(alg="es256"),
        "alg in an array": with_header(alg=["ES256"]),
        "no alg": with_header(alg=None),
    },
    Reason.JWS_CHAIN_LENGTH: {
        "no chain": with_header(x5c=None),
        "no chain, and a key of one's own": signed(
            STRANGER.chain, TRANSACTION, header={"alg": "ES256", "jwk": {"kty": "EC"}, "kid": "mine"}
        ),
        "an empty chain": with_x5c(),
        "one certificate": with_x5c(LEAF),
        "two certificates": with_x5c(LEAF, INTERMEDIATE),
        "four certificates": with_x5c(LEAF, INTERMEDIATE, ROOT, ROOT),
        "a chain that is a string": with_header(x5c=LEAF),
    },
    Reason.JWS_CERTIFICATE: {
        "a certificate that is a number": with_x5c(LEAF, INTERMEDIATE, 3),
        "a certificate that is garbled": with_x5c(LEAF[:200], INTERMEDIATE, ROOT),
        "a certificate with a negative serial number": with_x5c(serial_of_leaf(0xFF), INTERMEDIATE, ROOT),
        "a certificate that is empty": with_x5c("", INTERMEDIATE, ROOT),
        "a certificate in PEM": with_x5c(
            f"-----BEGIN CERTIFICATE-----\n{LEAF}\n-----END CERTIFICATE-----", INTERMEDIATE, ROOT
        ),
        "a certificate encoded twice": with_x5c(base64.b64encode(LEAF.encode()).decode(), INTERMEDIATE, ROOT),
        "a certificate with a line break": with_x5c(LEAF[:76] + "\n" + LEAF[76:], INTERMEDIATE, ROOT),
        "a certificate in letters of no alphabet": with_x5c("é", INTERMEDIATE, ROOT),
        "the root three times": signed([APPLE.root] * 3, TRANSACTION, key=APPLE.leaf.key),
        "an intermediate that is no authority": chain_with(intermediate=dict(is_authority=False)),
        "a leaf without Apple's extension": chain_with(leaf=dict(oid=None)),
        "a leaf with the intermediate's extension": chain_with(leaf=dict(oid=INTERMEDIATE_OID)),
        "an intermediate without Apple's extension": chain_with(intermediate=dict(oid=None)),
        "a leaf that does not identify its key": chain_with(leaf=dict(identifies_keys=False)),
        "a leaf with a key on another curve": chain_with(leaf=dict(key=new_key(ec.SECP384R1())), key=APPLE.leaf.key),
        "a leaf with an RSA key": chain_with(leaf=dict(key=rsa.generate_private_key(65537, 2048)), key=APPLE.leaf.key),
    },
    Reason.JWS_FOREIGN_ROOT: {
        "a foreign root": STRANGER.sign(),
        "a foreign root of the same name": chain_with(root=certify("root")),
        "a foreign chain under our root": signed([*STRANGER.chain[:2], APPLE.root], TRANSACTION),
        "a foreign leaf under our intermediate": signed([STRANGER.leaf, APPLE.intermediate, APPLE.root], TRANSACTION),
        "our chain, a foreign root at its end": signed([APPLE.leaf, APPLE.intermediate, STRANGER.root], TRANSACTION),
        "the chain upside down": signed(APPLE.chain[::-1], TRANSACTION, key=APPLE.leaf.key),
        "a leaf as intermediate": signed([certify_leaf(APPLE.leaf), APPLE.leaf, APPLE.root], TRANSACTION),
    },
    Reason.JWS_EXPIRED_CERTIFICATE: {
        "an expired leaf": chain_with(leaf=dict(end=OVER)),
        "a leaf of the future": chain_with(leaf=dict(begin=NOT_YET)),
        "an expired intermediate": chain_with(intermediate=dict(end=OVER)),
        "signed before the chain was valid": APPLE.sign(signedDate=int(BEFORE.timestamp()) * 1000),
        "signed when the chain is long over": APPLE.sign(signedDate=YEAR_10000_MS - 1),
    },
    Reason.JWS_SIGNED_DATE: {
        "signed in the year 10000": APPLE.sign(signedDate=YEAR_10000_MS),
        "signed beyond all time": APPLE.sign(signedDate=10**300),
        "signed at no time": APPLE.sign(signedDate=None),
        "signed before there was time": APPLE.sign(signedDate=-1),
        "a date of signing in words": APPLE.sign(signedDate="2024-07-01"),
        "a date of signing in a string": APPLE.sign(signedDate=str(SIGNED_AT_MS)),
        "a date of signing that is a fraction": APPLE.sign(signedDate=SIGNED_AT_MS + 0.5),
        "a date of signing that is a boolean": APPLE.sign(signedDate=True),
    },
    Reason.JWS_SIGNATURE: {
        "a swapped payload": f"{HEADER}.{part({**TRANSACTION, 'transactionId': '2000000002'})}.{SIGNATURE}",
        "a swapped header": f"{with_header(kid='x').split('.')[0]}.{PAYLOAD}.{SIGNATURE}",
        "a signature of another's key": signed(APPLE.chain, TRANSACTION, key=STRANGER.leaf.key),
        "another's key in the header": signed(
            APPLE.chain, TRANSACTION, key=STRANGER.leaf.key, jwk={"kty": "EC"}, jku="https://example.com/"
        ),
        "a signature of zeros": f"{HEADER}.{PAYLOAD}.{part(bytes(64))}",
        "a signature of ones": f"{HEADER}.{PAYLOAD}.{part(bytes([255]) * 64)}",
        "a signature in DER": f"{HEADER}.{PAYLOAD}.{part(IN_DER)}",
        "half a signature": f"{HEADER}.{PAYLOAD}.{part(bytes(32))}",
        "no signature": f"{HEADER}.{PAYLOAD}.",
    },
}
HOSTILE = {name: (text, reason) for reason, texts in REFUSED.items() for name, text in texts.items()}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_apples_is_refused_for_its_reason(name: str) -> None:
    """Each has the reason that an operator will search for, and words that quote nothing of it.

    That the genuine chain is known by then opens no way around any check, and no notification is made of it either.
    """
    text, reason = HOSTILE[name]
    signed_data = AppleSignedData([APPLE.root.der], now_seconds=lambda: NOW_SECONDS)
    for _ in range(2):
        refused = verified(signed_data, text)
        assert isinstance(refused, SignatureRefused)
        assert refused.reason is reason, refused
        assert verified(signed_data, GENUINE) == TRANSACTION
    assert refused.detail.isascii() and refused.detail.isprintable() and len(refused.detail) < 250
    for told in (LEAF[:24], ROOT[:24], "2000000001", "coins_100", "example.com", "com.example"):
        assert told not in refused.detail
    assert isinstance(signed_data.verify(SignedKind.NOTIFICATION, text), SignatureRefused) or "notification" in name


def test_a_clock_may_be_a_quarter_of_an_hour_behind(signed_data: AppleSignedData) -> None:
    latest_ms = SIGNED_AT_MS + 60_000 + int(MAX_AHEAD_SECONDS) * 1000
    assert verified(signed_data, APPLE.sign(signedDate=latest_ms)) == {**TRANSACTION, "signedDate": latest_ms}
    with pytest.raises(ConfigurationError, match="more than 15 minutes behind"):
        verified(signed_data, APPLE.sign(signedDate=latest_ms + 1))


# What an operator is told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (base64.b64encode(GENUINE.encode()).decode(), "it is the base64 of a JWS"),
        (base64.b64encode(b"\x30\x82\x10\x00" * 500).decode(), "it is an app receipt"),
        (GENUINE + "A" * MAX_SIGNED_CHARACTERS, f"at most {MAX_SIGNED_CHARACTERS} characters"),
        (with_header(alg="none"), "expected ES256, found none"),
        (with_header(alg="https://example.com/alg"), "expected ES256, found a string"),
        (with_x5c(LEAF), "expected 3 certificates, found 1"),
        (APPLE.sign(environment="Xcode"), "found Xcode, where Apple signs nothing"),
        (APPLE.sign(NOTIFICATION), "expected a signed transaction, found a notification"),
        (APPLE.sign({"receiptType": "Production"}), "expected a signed transaction, found an app transaction"),
        (
            HOSTILE["an expired leaf"][0],
            "leaf: valid from 2020-01-01 00:00:00 UTC to 2023-01-01 00:00:00 UTC, signed 2024",
        ),
        (HOSTILE["an expired intermediate"][0], "intermediate: valid from"),
        (HOSTILE["a leaf without Apple's extension"][0], "leaf: without the extension 1.2.840.113635.100.6.11.1"),
        (HOSTILE["an intermediate without Apple's extension"][0], "intermediate: without the extension"),
        (HOSTILE["a leaf with an RSA key"][0], "leaf: expected a key on the curve P-256"),
        (HOSTILE["a leaf that does not identify its key"][0], "not accepted by Apple's library: "),
        (STRANGER.sign(), "root: it is none of the trusted"),
        (HOSTILE["a foreign chain under our root"][0], "intermediate: not issued by the next"),
    ],
)
def test_a_refusal_says_what_was_found(text: str, words: str, signed_data: AppleSignedData) -> None:
    refused = verified(signed_data, text)
    assert isinstance(refused, SignatureRefused)
    assert words in refused.detail


# Whatever a string can hold


def mutated(draw: st.DrawFn) -> str:
    parts = draw(st.permutations(GENUINE.split("."))) if draw(st.booleans()) else GENUINE.split(".")
    text = ".".join(parts)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        until = min(len(text), at + draw(st.integers(0, 4)))
        text = text[:at] + draw(st.text(alphabet="ABab01-_.=+/{ \n\x00é", max_size=4)) + text[until:]
    return text


mutations = st.composite(mutated)()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
FIELDS = [*TRANSACTION, "appAccountToken", "revocationDate", "revocationReason", "offerPeriod", "advancedCommerceInfo"]


@given(text=st.text() | mutations | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*"))
@example(text="\ud800.\udfff.\x00")
def test_no_string_is_too_much(text: str, signed_data: AppleSignedData) -> None:
    for kind in SignedKind:
        outcome = signed_data.verify(kind, text)
        assert isinstance(outcome, SignatureRefused) or text == GENUINE


@given(header=st.dictionaries(st.sampled_from(["alg", "x5c", "crit", "kid", "typ", "b64"]), json_values))
def test_no_header_is_too_much(header: dict[str, Any], signed_data: AppleSignedData) -> None:
    for fields in (header, {"alg": "ES256", "x5c": [LEAF, INTERMEDIATE, ROOT], **header}):
        outcome = verified(signed_data, under(fields))
        assert isinstance(outcome, SignatureRefused) or outcome == TRANSACTION


@given(
    x5c=st.lists(
        st.sampled_from([LEAF, INTERMEDIATE, ROOT, STRANGER.leaf.x5c, STRANGER.root.x5c]), min_size=3, max_size=3
    )
)
def test_no_arrangement_of_certificates_passes_but_the_right_one(
    x5c: Sequence[str], signed_data: AppleSignedData
) -> None:
    outcome = verified(signed_data, with_x5c(*x5c))
    assert (outcome == TRANSACTION) is (list(x5c) == [LEAF, INTERMEDIATE, ROOT])


@given(damage=st.binary(min_size=1, max_size=8), data=st.data())
def test_no_damaged_certificate_is_too_much(damage: bytes, data: st.DataObject, signed_data: AppleSignedData) -> None:
    number = data.draw(st.integers(0, 2))
    der = bytearray(APPLE.chain[number].der)
    at = data.draw(st.integers(0, len(der) - 1))
    der[at : at + len(damage)] = damage
    x5c = [LEAF, INTERMEDIATE, ROOT]
    x5c[number] = base64.b64encode(der).decode()
    outcome = verified(signed_data, with_x5c(*x5c))
    assert isinstance(outcome, SignatureRefused) is (bytes(der) != APPLE.chain[number].der)


@given(changes=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=5))
def test_what_apple_signs_comes_through_whatever_it_is(changes: dict[str, Any], signed_data: AppleSignedData) -> None:
    payload = {**TRANSACTION, **changes}
    try:
        outcome = verified(signed_data, APPLE.sign(json.dumps(payload).encode()))
    except ConfigurationError:
        assert changes["signedDate"] > NOW_SECONDS * 1000
        return
    if isinstance(outcome, SignatureRefused):
        is_no_json = any(word in json.dumps(changes) for word in ("NaN", "Infinity"))
        assert is_no_json or {"signedDate", "environment", "bundleId"} & changes.keys()
    else:
        assert outcome == payload


# Apple's library by itself


def apples_own(text: str, environment: AppleEnvironment = AppleEnvironment.PRODUCTION) -> bool:
    """Ask Apple's library, with nothing of ours in it, whether it takes a transaction for Apple's."""
    verifier = SignedDataVerifier([APPLE.root.der], False, environment, "com.example.game", 1)
    try:
        verifier.verify_and_decode_signed_transaction(text)
    except VerificationException:
        return False
    except BaseValidationError:  # the signature was fine, and comes first
        return True
    return True


@given(text=mutations | st.sampled_from([text for text, _ in HOSTILE.values()]))
def test_nothing_is_accepted_that_apples_library_refuses(text: str, signed_data: AppleSignedData) -> None:
    if not isinstance(verified(signed_data, text), SignatureRefused):
        assert apples_own(text)


def test_we_are_stricter_than_apples_library_where_that_is_meant() -> None:
    """Its library takes these: what two readers read differently, and what no date vouches for. Apple sends none."""
    assert {name for name, (text, _) in HOSTILE.items() if apples_own(text)} == {
        "a payload with a key twice",
        "a payload with NaN",
        "a certificate that is a number",  # the third, at which the library never looks
        "our chain, a foreign root at its end",  # likewise
        "signed at no time",
        "a date of signing in a string",
        "a date of signing that is a fraction",
    }
