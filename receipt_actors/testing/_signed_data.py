"""``FakeSignedData``: signs and verifies without any cryptography, and refuses what a test says."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from receipt_actors.domain.ports import Environment, SignatureRefused, SignedKind
from receipt_actors.domain.reasons import Reason
from receipt_actors.testing._faults import Fake

_HEADER = urlsafe_b64encode(b'{"alg":"ES256"}').decode().rstrip("=")
_SIGNATURE = "fake"


def transaction_payload(
    transaction_id: str,
    *,
    bundle_id: str = "com.example.game",
    product_id: str = "coins_100",
    environment: Environment = Environment.PRODUCTION,
    **fields: object,
) -> Mapping[str, object]:
    """Make the payload of a signed transaction: a consumable, unless ``fields`` (as Apple calls them) say otherwise."""
    return {
        "transactionId": transaction_id,
        "originalTransactionId": transaction_id,
        "bundleId": bundle_id,
        "productId": product_id,
        "type": "Consumable",
        "quantity": 1,
        "purchaseDate": 1_700_000_000_000,
        "inAppOwnershipType": "PURCHASED",
        "environment": environment.value,
        **fields,
    }


class FakeSignedData(Fake):
    """See ``domain.ports.SignedData`` and ``SignedDataCalls``: what it has not signed itself, it refuses.

    ``begin`` verifies on the thread that calls it.
    """

    operations: ClassVar[frozenset[str]] = frozenset({"verify_transaction", "verify_notification"})

    def __init__(self) -> None:
        super().__init__()
        self._refused: dict[str, SignatureRefused] = {}

    # --- what only a test does ---

    def sign(self, payload: Mapping[str, object]) -> str:
        """Make a string of three parts that is verified as this payload."""
        return f"{_HEADER}.{urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip('=')}.{_SIGNATURE}"

    def sell(self, transaction_id: str, **fields: Any) -> str:
        """Sign a transaction; ``fields`` are those of ``transaction_payload``."""
        return self.sign(transaction_payload(transaction_id, **fields))

    def refuse(self, signed: str, reason: Reason = Reason.JWS_SIGNATURE) -> None:
        """From now on, refuse this string, for this reason."""
        with self._changed:
            self._refused[signed] = SignatureRefused(reason, "says the test")

    # --- the ports ---

    def verify_transaction(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        """See ``SignedData``."""
        return self._carry_out("verify_transaction", lambda: self._verify(signed))

    def verify_notification(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        """See ``SignedData``."""
        return self._carry_out("verify_notification", lambda: self._verify(signed))

    def begin(
        self, kind: SignedKind, signed: str, done: Callable[[Mapping[str, object] | SignatureRefused | Exception], Any]
    ) -> None:
        """See ``SignedDataCalls``."""
        method = {SignedKind.TRANSACTION: self.verify_transaction, SignedKind.NOTIFICATION: self.verify_notification}
        outcome: Mapping[str, object] | SignatureRefused | Exception
        try:
            outcome = method[kind](signed)
        except Exception as error:  # noqa: BLE001 # whatever a test has ordered
            outcome = error
        done(outcome)

    def _verify(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        with self._changed:
            if signed in self._refused:
                return self._refused[signed]
        header, _, rest = signed.partition(".")
        payload, _, signature = rest.rpartition(".")
        if (header, signature) != (_HEADER, _SIGNATURE):
            return SignatureRefused(Reason.JWS_SIGNATURE, "not signed by this fake")
        fields: Mapping[str, object] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return fields
