"""A JWS as strangers send it, read without believing a word: what it takes to verify it, or why it can't be Apple's.

``read_jws`` makes the checks that need no cryptography, in a few passes. A refusal quotes nothing of the string.

Apple signs in one form only (``JWSDecodedHeader`` of its documentation): the compact serialisation of RFC 7515, header
and payload objects of JSON, ``alg`` ES256, and ``x5c``, the chain of exactly three certificates. Anything else is
refused, the looser forms that libraries take included (padding, line breaks, stray bits, five parts). Keys that a
header brings along or points to (``jwk``, ``jku``, ``x5u``, ``kid``) are not looked at. ``crit`` and ``b64`` change how
a JWS is to be read: a reader that doesn't understand them must refuse it. ``Xcode`` and ``LocalTesting`` sign with keys
of the developer's own machine.
"""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.values import JsonRefused, json_type, parse_object
from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.fields import is_integer
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind

MAX_SIGNED_CHARACTERS = 128 * 1024  #: a transaction has about 6,000, a notification with two of them in it 20,000
MAX_AHEAD_SECONDS = 15 * 60.0  #: that a date of signing may be in the future, for clocks differ
YEAR_10000_MS = 253_402_300_800_000  #: UNIX time in milliseconds
CHAIN_LENGTH = 3  #: leaf, intermediate, root
SIGNATURE_BYTES = 64  #: two numbers of 32 bytes (ES256)

_CLOCK_IS_BEHIND = (
    f"clock of this machine: found it more than {MAX_AHEAD_SECONDS / 60:g} minutes behind a date of Apple's, "
    "expected the right time; set it"
)
_PART = re.compile(r"[A-Za-z0-9_-]+")
_ALGORITHMS = frozenset(  # whose names a refusal may repeat
    {"none", "ES384", "ES512", "ES256K", "EdDSA"}
    | {family + bits for family in ("HS", "RS", "PS") for bits in ("256", "384", "512")}
)
#: Where a notification keeps what it is about; the first that is there counts, as in Apple's library.
SUBJECTS = ("data", "summary", "externalPurchaseToken", "appData")


@dataclass(frozen=True, slots=True)
class Jws:
    """What a JWS says of itself. Nothing of it is known to be true."""

    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)  #: of ``SIGNATURE_BYTES``
    chain: tuple[str, ...] = field(repr=False)  #: ``x5c``: the leaf first, base64 as it was given
    payload: Mapping[str, object] = field(repr=False)
    environment: Environment
    app_apple_id: int | None
    signed_at_ms: int  #: UNIX time in milliseconds


class Refusal(Exception):
    """Carries a ``SignatureRefused`` out of the depth of this room's readers."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason)
        self.refused: Final = SignatureRefused(reason, detail)


def _unexpected(name: str, wanted: str, found: object, reason: Reason = Reason.JWS_MALFORMED) -> Refusal:
    return Refusal(reason, f"{name}: expected {wanted}, found {json_type(found)}")


def read_jws(kind: SignedKind, signed: str) -> Jws | SignatureRefused:
    try:
        return _read(kind, signed)
    except Refusal as refusal:
        return refusal.refused


def check_clock(verified: Jws, now_seconds: float) -> None:
    """Raise ``ConfigurationError`` if this machine's clock is too far behind the date that Apple has chosen."""
    if verified.signed_at_ms / 1000 > now_seconds + MAX_AHEAD_SECONDS:
        raise ConfigurationError([_CLOCK_IS_BEHIND])


def _read(kind: SignedKind, signed: str) -> Jws:
    header_part, payload_part, signature_part = _parts(signed)
    header, payload = _object("header", header_part), _object("payload", payload_part)
    subject = payload if kind is SignedKind.TRANSACTION else _subject(payload)
    environment = _environment(kind, payload, subject)
    _check_header(header)
    chain = _chain(header)
    signature = _decode("signature", signature_part) if signature_part else b""
    if len(signature) != SIGNATURE_BYTES:
        detail = f"signature: expected {SIGNATURE_BYTES} bytes, found {len(signature)}"
        raise Refusal(Reason.JWS_SIGNATURE, detail)
    bundle_id, app_apple_id = subject.get("bundleId"), subject.get("appAppleId")
    if not (bundle_id is None or isinstance(bundle_id, str)):
        raise _unexpected("bundleId", "a string", bundle_id)
    if not (app_apple_id is None or is_integer(app_apple_id)):
        raise _unexpected("appAppleId", "an integer", app_apple_id)
    return Jws(
        signing_input=signed[: len(header_part) + 1 + len(payload_part)].encode("ascii"),
        signature=signature,
        chain=chain,
        payload=payload,
        environment=environment,
        app_apple_id=app_apple_id,
        signed_at_ms=_signed_at_ms(payload),
    )


def _parts(signed: str) -> list[str]:
    if len(signed) > MAX_SIGNED_CHARACTERS:
        detail = f"expected at most {MAX_SIGNED_CHARACTERS} characters, found {len(signed)}"
        raise Refusal(Reason.JWS_MALFORMED, detail)
    parts = signed.split(".")
    if len(parts) != 3:
        detail = f"expected three parts with dots between them, found {len(parts)}{_encoded_once_more(parts)}"
        raise Refusal(Reason.JWS_MALFORMED, detail)
    return parts


def _encoded_once_more(parts: list[str]) -> str:
    """Tell what somebody sends who has encoded the right thing, or sends the wrong one."""
    try:
        beginning = b64decode(parts[0][:8], altchars=b"-_", validate=True) if len(parts) == 1 else b""
    except ValueError:  # binascii.Error is one; and what is not even ASCII
        return ""
    if beginning.startswith(b"eyJ"):
        return ": it is the base64 of a JWS, which is to be sent as StoreKit gives it"
    return ": it is an app receipt" if beginning.startswith(b"\x30\x82") else ""


def _decode(name: str, part: str) -> bytes:
    if _PART.fullmatch(part) is not None and len(part) % 4 != 1:
        decoded = urlsafe_b64decode(part + "=" * (-len(part) % 4))
        # Some bits of the last character say nothing: one JWS must not have several spellings.
        if urlsafe_b64encode(decoded).rstrip(b"=").decode("ascii") == part:
            return decoded
    raise Refusal(Reason.JWS_MALFORMED, f"{name}: expected base64url without padding")


def _object(name: str, part: str) -> dict[str, object]:
    try:
        return parse_object(_decode(name, part).decode("utf-8"))
    except UnicodeDecodeError:
        raise Refusal(Reason.JWS_MALFORMED, f"{name}: expected JSON in UTF-8") from None
    except JsonRefused as refused:
        raise Refusal(Reason.JWS_MALFORMED, f"{name}: {refused.words}") from None


def _check_header(header: Mapping[str, object]) -> None:
    for name in ("crit", "b64"):
        if name in header:
            raise Refusal(Reason.JWS_MALFORMED, f"header: found {name}, which Apple never uses")
    algorithm = header.get("alg")
    if algorithm != "ES256":
        found = algorithm if isinstance(algorithm, str) and algorithm in _ALGORITHMS else json_type(algorithm)
        raise Refusal(Reason.JWS_ALGORITHM, f"alg: expected ES256, found {found}")


def _chain(header: Mapping[str, object]) -> tuple[str, ...]:
    chain = header.get("x5c")
    if not isinstance(chain, list):
        raise _unexpected("x5c", f"an array of {CHAIN_LENGTH} certificates", chain, Reason.JWS_CHAIN_LENGTH)
    if len(chain) != CHAIN_LENGTH:
        raise Refusal(Reason.JWS_CHAIN_LENGTH, f"x5c: expected {CHAIN_LENGTH} certificates, found {len(chain)}")
    for certificate in chain:
        if not isinstance(certificate, str):
            raise _unexpected("x5c", "strings", certificate, Reason.JWS_CERTIFICATE)
    return tuple(chain)


def _subject(payload: Mapping[str, object]) -> Mapping[str, object]:
    for name in SUBJECTS:
        subject = payload.get(name)
        if isinstance(subject, dict):
            return {**subject, "environment": _of_a_token(subject)} if name == "externalPurchaseToken" else subject
        if subject is not None:
            raise _unexpected(name, "an object", subject)
    return {}


def _of_a_token(token: Mapping[str, object]) -> str:
    # It says nothing of its environment but by how its id begins.
    name = token.get("externalPurchaseId")
    is_sandbox = isinstance(name, str) and name.startswith("SANDBOX")
    return (Environment.SANDBOX if is_sandbox else Environment.PRODUCTION).value


def _environment(kind: SignedKind, payload: Mapping[str, object], subject: Mapping[str, object]) -> Environment:
    environment = subject.get("environment")
    for known in Environment:
        if environment == known.value:
            return known
    if environment in ("Xcode", "LocalTesting"):
        detail = f"environment: found {environment}, where Apple signs nothing"
    else:
        found = "another string" if isinstance(environment, str) else json_type(environment)
        detail = f"environment: expected Production or Sandbox, found {found}"
    if kind is SignedKind.TRANSACTION and environment is None:
        for field_name, found in (("notificationUUID", "a notification"), ("receiptType", "an app transaction")):
            if field_name in payload:
                detail = f"expected a signed transaction, found {found}"
    raise Refusal(Reason.JWS_ENVIRONMENT, detail)


def _signed_at_ms(payload: Mapping[str, object]) -> int:
    signed_at_ms = payload.get("signedDate")
    if not is_integer(signed_at_ms) or signed_at_ms < 0:
        raise _unexpected("signedDate", "a UNIX time in milliseconds", signed_at_ms, Reason.JWS_SIGNED_DATE)
    if signed_at_ms >= YEAR_10000_MS:  # which no calendar here can tell, before anybody knows who wrote it
        raise Refusal(Reason.JWS_SIGNED_DATE, "signedDate: expected a date before the year 10000")
    return signed_at_ms
