"""``FakeSignedData``: Apple's signatures without certificates; it vouches for what it has signed itself."""

from __future__ import annotations

import hmac
import json
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.sandbox.answers import transaction_payload
from receipt_actors.sandbox.receipts import Purchase
from receipt_actors.stores.apple.ports import Outcome, SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.jws import CHAIN_LENGTH, check_clock, read_jws
from receipt_actors.testing._faults import Fake


class FakeSignedData(Fake):
    """See ``domain.ports.SignedData`` and ``SignedDataCalls``.

    Of what it has not signed it says what the real one says, as far as that can be told without looking into
    certificates. ``now_seconds`` is the UNIX time, from which a date of signing must not be too far ahead.
    """

    operations: ClassVar[frozenset[str]] = frozenset({"verify_transaction", "verify_notification"})

    def __init__(self, now_seconds: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._now_seconds = now_seconds
        self._key = os.urandom(32)
        self._chain = tuple(f"{name} of a fake, {os.urandom(8).hex()}" for name in ("leaf", "intermediate", "root"))
        assert len(self._chain) == CHAIN_LENGTH

    # --- what only a test does ---

    def sign(self, payload: Mapping[str, object]) -> str:
        """Sign whatever is to be Apple's."""
        header = {"alg": "ES256", "x5c": list(self._chain)}
        signing_input = f"{_part(_json(header))}.{_part(_json(payload))}"
        return f"{signing_input}.{_part(self._signature(signing_input.encode()))}"

    def sell(
        self,
        transaction_id: str,
        *,
        bundle_id: str = "com.example.game",
        product_id: str = "coins_100",
        environment: Environment = Environment.PRODUCTION,
        **fields: object,
    ) -> str:
        """Make the signed transaction of a purchase; ``fields`` are put over those of Apple's, or None leaves one out.

        They are called as Apple calls them: ``type``, ``revocationDate``, ``appAccountToken`` and so on.
        """
        purchase = Purchase(transaction_id, product_id)
        payload = transaction_payload(purchase, bundle_id, environment)
        return self.sign({name: value for name, value in {**payload, **fields}.items() if value is not None})

    # --- the ports ---

    def verify_transaction(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        return self._carry_out("verify_transaction", lambda: self._verify(SignedKind.TRANSACTION, signed))

    def verify_notification(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        return self._carry_out("verify_notification", lambda: self._verify(SignedKind.NOTIFICATION, signed))

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], Any]) -> None:
        method = self.verify_transaction if kind is SignedKind.TRANSACTION else self.verify_notification
        outcome: Outcome
        try:
            outcome = method(signed)
        except Exception as error:  # noqa: BLE001 - what a test has told it to fail with
            outcome = error
        done(outcome)

    def _verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        jws = read_jws(kind, signed)
        if isinstance(jws, SignatureRefused):
            return jws
        if jws.chain[-1] != self._chain[-1]:
            return SignatureRefused(Reason.JWS_FOREIGN_ROOT, "root: it is none of the trusted root certificates")
        if not hmac.compare_digest(jws.signature, self._signature(jws.signing_input)):
            return SignatureRefused(Reason.JWS_SIGNATURE, "signature: not that of this header and payload")
        check_clock(jws, self._now_seconds())
        return jws.payload

    def _signature(self, signing_input: bytes) -> bytes:
        return hmac.digest(self._key, signing_input, "sha512")  # as long as one of ES256


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _part(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()
