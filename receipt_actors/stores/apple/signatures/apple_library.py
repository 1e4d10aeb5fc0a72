"""``AppleSignedData``: what Apple signed. ``trust`` opens it, for it imports Apple's library.

``jws`` has read the JWS, more strictly than Apple's library does; ``chains`` has Apple's library verify the chain of
certificates, and remembers it; the signature is checked by PyJWT's ES256, as in Apple's library. The rest of its
``SignedDataVerifier`` is made for one app in one environment. Here the app is for the policy to judge, later, and an
installation may serve several; and the environments in which Apple's library checks no signature are refused by
``jws``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from jwt import get_algorithm_by_name

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.chains import Chains
from receipt_actors.stores.apple.signatures.jws import check_clock, read_jws

_ES256 = get_algorithm_by_name("ES256")
_FORGED = SignatureRefused(Reason.JWS_SIGNATURE, "signature: not that of this header and payload by the leaf's key")
_FOREIGN_APP = SignatureRefused(Reason.FOREIGN_BUNDLE, "appAppleId: none, or not that of an app of ours")


class AppleSignedData:
    """The port ``SignedData``. May be called from any number of threads.

    Args:
        roots: the certificates that are trusted, DER.
        app_apple_ids: of the apps to which alone a notification of production may belong; none: whatever Apple signed.
        now_seconds: the UNIX time.
    """

    def __init__(
        self, roots: Sequence[bytes], app_apple_ids: Collection[int] = (), now_seconds: Callable[[], float] = time.time
    ) -> None:
        self.chains = Chains(roots)
        self._app_apple_ids = frozenset(app_apple_ids)
        self._now_seconds = now_seconds

    def verify_transaction(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        return self.verify(SignedKind.TRANSACTION, signed)

    def verify_notification(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        """See ``SignedData``. A notification of production that is not of one of our apps is ``FOREIGN_BUNDLE``."""
        return self.verify(SignedKind.NOTIFICATION, signed)

    def verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        """Do what the method of that kind does."""
        jws = read_jws(kind, signed)
        if isinstance(jws, SignatureRefused):
            return jws
        key = self.chains.leaf_key(jws.chain, jws.signed_at_ms // 1000)
        if isinstance(key, SignatureRefused):
            return key
        if not _ES256.verify(jws.signing_input, key, jws.signature):
            return _FORGED
        if kind is SignedKind.NOTIFICATION and jws.environment is Environment.PRODUCTION:
            is_ours = not self._app_apple_ids or jws.app_apple_id in self._app_apple_ids
            if jws.app_apple_id is None or not is_ours:  # the former Apple's library refuses as well
                return _FOREIGN_APP
        check_clock(jws, self._now_seconds())
        return jws.payload
