"""Bearer tokens of the App Store Server API, judged as Apple judges them."""

from __future__ import annotations

import time

import jwt
from cachetools import LRUCache

from receipt_actors.sandbox.apple_ca import Authority

MAX_TOKEN_SECONDS = 60 * 60  #: that a token may be good for, says Apple
AUDIENCE = "appstoreconnect-v1"

_MAX_TOKENS = 1000  # remembered: a client uses one for minutes, and to verify it takes longer than all the rest
_SKEW_SECONDS = 60


class Tokens:
    """Judges bearer tokens (JWT, ES256) by the key pair of an authority. To be asked from one thread."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._good: LRUCache[str, tuple[float, str]] = LRUCache(_MAX_TOKENS)

    def bundle_id_of(self, authorization: str) -> str | None:
        """Say which app a token is for (``bid``); None where it is none of ours, or no longer good."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        if token not in self._good:
            judged = self._judge(token.strip())
            if judged is None:
                return None
            self._good[token] = judged
        expires_at, bundle_id = self._good[token]
        return bundle_id if time.time() < expires_at + _SKEW_SECONDS else None

    def _judge(self, token: str) -> tuple[float, str] | None:
        """Say until when it is good, and for which app."""
        pair = self._authority.server_api_key
        try:
            if jwt.get_unverified_header(token).get("kid") != pair.key_id:
                return None
            content = jwt.decode(
                token,
                self._authority.server_api_public_key,
                ["ES256"],
                {"require": ["exp", "iss", "aud"]},
                audience=AUDIENCE,
                issuer=pair.issuer_id,
                leeway=_SKEW_SECONDS,
            )
        except jwt.InvalidTokenError:
            return None
        expires_at, bundle_id = int(content["exp"]), content.get("bid")
        if not isinstance(bundle_id, str) or expires_at > time.time() + MAX_TOKEN_SECONDS + _SKEW_SECONDS:
            return None
        return expires_at, bundle_id
