"""``FakeSignedData``: Apple's signatures, made and verified by an authority that a test owns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from receipt_actors.domain.ports import Environment
from receipt_actors.sandbox.apple_ca import Authority
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt
from receipt_actors.sandbox.signed_transactions import mint_signed
from receipt_actors.stores.apple.ports import Outcome, SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
from receipt_actors.testing._faults import Fake

BUNDLE_ID = "com.example.game"


class FakeSignedData(Fake):
    """Both ``SignedData`` and ``SignedDataCalls``.

    It trusts no authority but its own. ``now_seconds`` is the UNIX time, from which a date of signing must not be too
    far ahead.
    """

    operations: ClassVar[frozenset[str]] = frozenset({"verify"})

    def __init__(self, now_seconds: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.authority = Authority(os.urandom(32))
        self._now_seconds = now_seconds
        self._verifier: AppleSignedData | None = None  # most tests verify nothing, and the root takes its time to make

    def sign(self, payload: Mapping[str, object]) -> str:
        """Sign whatever is to be Apple's."""
        return self.authority.sign(payload)

    def sell(
        self,
        transaction_id: str,
        *,
        bundle_id: str = BUNDLE_ID,
        product_id: str = "coins_100",
        environment: Environment = Environment.PRODUCTION,
        **fields: object,
    ) -> str:
        """Make the signed transaction of a purchase; ``fields`` are put over those of Apple's, or None leaves one out.

        They are called as Apple calls them: ``type``, ``revocationDate``, ``appAccountToken`` and so on.
        """
        receipt = SampleReceipt(bundle_id, (Purchase(transaction_id, product_id),), environment=environment)
        return mint_signed(receipt, self.authority, changes=fields)

    def verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        return self._carry_out("verify", lambda: self._verify(kind, signed))

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], Any]) -> None:
        outcome: Outcome
        try:
            outcome = self.verify(kind, signed)
        except Exception as error:  # noqa: BLE001 - what a test has told it to fail with
            outcome = error
        done(outcome)

    def _verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        if self._verifier is None:
            self._verifier = AppleSignedData([self.authority.root], now_seconds=self._now_seconds)
        return self._verifier.verify(kind, signed)
