"""``AppleSignedData``: what Apple signed, verified by Apple's own library. Needs it; ``trust`` opens it.

Apple's ``SignedDataVerifier`` is made for one app in one environment, and checks that a payload is of both. Here the
app is for the policy to judge, later, and an installation may serve several; so for each JWS a verifier is made (it
costs microseconds) for the app and the environment that the payload says it is of. Nothing in it is verified until
the verifier has confirmed it, and the environments in which Apple's library checks no signature never get that far:
``jws`` has refused them.

Two parts of the verifier are ours:

- chains: ``chains.Chains``, which remembers.
- ``_decode_signed_object``: the JWS has been read already, more strictly than PyJWT reads it, which the library has do
  it three times over. What remains of that method is the chain and the signature, the latter by PyJWT's ES256.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from appstoreserverlibrary.models.Environment import Environment as AppleEnvironment
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier, VerificationException, VerificationStatus
from cattrs.errors import BaseValidationError
from jwt import get_algorithm_by_name

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.chains import ChainRefused, Chains
from receipt_actors.stores.apple.signatures.jws import Jws, check_clock, read_jws

_ENVIRONMENTS = {
    Environment.PRODUCTION: AppleEnvironment.PRODUCTION,
    Environment.SANDBOX: AppleEnvironment.SANDBOX,
}
_ES256 = get_algorithm_by_name("ES256")
_REFUSED = {
    VerificationStatus.INVALID_ENVIRONMENT: SignatureRefused(
        Reason.JWS_ENVIRONMENT, "environment: not the one that the payload begins with"
    ),
    VerificationStatus.VERIFICATION_FAILURE: SignatureRefused(
        Reason.JWS_SIGNATURE, "signature: not that of this header and payload by the leaf's key"
    ),
}
_FOREIGN_APP = SignatureRefused(Reason.FOREIGN_BUNDLE, "appAppleId: none, or not that of an app of ours")


class AppleSignedData:
    """The port ``SignedData``. May be called from any number of threads.

    Args:
        roots: the certificates that are trusted, DER.
        app_apple_ids: of the apps to which alone a notification of production may belong; none: whatever Apple signed.
        now_seconds: the UNIX time.
    """

    def __init__(
        self,
        roots: Sequence[bytes],
        app_apple_ids: Collection[int] = (),
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._roots = list(roots)
        self._chains = Chains(roots)
        self._app_apple_ids = frozenset(app_apple_ids)
        self._now_seconds = now_seconds

    @property
    def chains(self) -> Chains:
        """The chains that are known."""
        return self._chains

    def verify_transaction(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        """See ``SignedData``."""
        return self.verify(SignedKind.TRANSACTION, signed)

    def verify_notification(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        """See ``SignedData``. A notification of production that is not of one of our apps is ``FOREIGN_BUNDLE``."""
        return self.verify(SignedKind.NOTIFICATION, signed)

    def verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        """Do what the method of that kind does."""
        jws = read_jws(kind, signed)
        if isinstance(jws, SignatureRefused):
            return jws
        verifier = _Verifier(jws, self._roots, self._chains, self._expected_app(jws))
        try:
            if kind is SignedKind.TRANSACTION:
                verifier.verify_and_decode_signed_transaction(signed)
            else:
                verifier.verify_and_decode_notification(signed)
        except ChainRefused as error:
            return error.refused
        except VerificationException as error:
            return _REFUSED.get(error.status, _FOREIGN_APP)
        except BaseValidationError:
            # Apple signed it, else it would not have come so far; its library does not know the shape of a field, which
            # may be new. What is needed of it is for others to read. What the library would have checked next is the
            # environment, which is that of the payload itself, and the app.
            if not verifier.has_decoded:
                raise
            is_checked = kind is SignedKind.NOTIFICATION and jws.environment is Environment.PRODUCTION
            if is_checked and jws.app_apple_id != self._expected_app(jws):
                return _FOREIGN_APP
        check_clock(jws, self._now_seconds())
        return jws.payload

    def _expected_app(self, jws: Jws) -> int:
        """Say which app the library is to expect: the payload's own where that is one of ours."""
        is_ours = not self._app_apple_ids or jws.app_apple_id in self._app_apple_ids
        return jws.app_apple_id if is_ours and jws.app_apple_id is not None else 0


class _Verifier(SignedDataVerifier):
    """Apple's verifier, for one JWS that has been read."""

    def __init__(self, jws: Jws, roots: list[bytes], chains: Chains, app_apple_id: int) -> None:
        bundle_id: Any = jws.bundle_id  # None where the payload has none: then None is what it is compared with
        super().__init__(roots, False, _ENVIRONMENTS[jws.environment], bundle_id, app_apple_id)
        self._jws = jws
        self._chains = chains
        self._chain_verifier = chains
        self.has_decoded = False

    def _decode_signed_object(self, signed_obj: str) -> dict[str, Any]:
        jws = self._jws
        key = self._chains.verify_chain(jws.chain, False, jws.signed_at_ms // 1000)
        if not _ES256.verify(jws.signing_input, _ES256.prepare_key(key), jws.signature):
            raise VerificationException(VerificationStatus.VERIFICATION_FAILURE)
        self.has_decoded = True
        return dict(jws.payload)
