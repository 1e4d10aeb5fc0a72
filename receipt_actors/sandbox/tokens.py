"""Bearer tokens of the App Store Server API, judged as Apple judges them."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from receipt_actors.sandbox.apple_ca import Authority

MAX_TOKEN_SECONDS = 60 * 60  #: that a token may be good for, says Apple
AUDIENCE = "appstoreconnect-v1"

_MAX_TOKENS = 1000  # remembered: a client uses one for minutes, and to verify it takes longer than all the rest
_SKEW_SECONDS = 60


class Tokens:
    """Judges bearer tokens (JWT, ES256) by the key pair of an authority. To be asked from one thread."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._good: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def bundle_id_of(self, authorization: str, now_seconds: float) -> str | None:
        """Say which app a token is for (``bid``); None where it is none of ours, or no longer good."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        if token not in self._good:
            judged = self._judge(token.strip(), now_seconds)
            if judged is None:
                return None
            self._good[token] = judged
            if len(self._good) > _MAX_TOKENS:
                self._good.popitem(last=False)
        expires_at, bundle_id = self._good[token]
        return bundle_id if now_seconds < expires_at + _SKEW_SECONDS else None

    def _judge(self, token: str, now_seconds: float) -> tuple[float, str] | None:
        """Say until when it is good, and for which app."""
        try:
            header_text, content_text, signature_text = token.split(".")
            header, content = json.loads(_decoded(header_text)), json.loads(_decoded(content_text))
            signature = _decoded(signature_text)
        except (ValueError, RecursionError):
            return None
        pair = self._authority.server_api_key
        if not (isinstance(header, dict) and isinstance(content, dict)):
            return None
        if (header.get("alg"), header.get("kid")) != ("ES256", pair.key_id) or len(signature) != 64:
            return None
        if (content.get("iss"), content.get("aud")) != (pair.issuer_id, AUDIENCE):
            return None
        expires_at, bundle_id = content.get("exp"), content.get("bid")
        if not isinstance(expires_at, int | float) or not isinstance(bundle_id, str):
            return None
        if expires_at > now_seconds + MAX_TOKEN_SECONDS + _SKEW_SECONDS:
            return None
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        try:
            self._authority.server_api_public_key.verify(
                der, f"{header_text}.{content_text}".encode(), ec.ECDSA(hashes.SHA256())
            )
        except InvalidSignature:
            return None
        return expires_at, bundle_id


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
