"""Signs the transactions of a sample load, rightly and in every wrong way, each with the reason to refuse it for.

Needs ``cryptography`` (see ``apple_ca``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from receipt_actors.domain.reasons import Reason
from receipt_actors.sandbox.apple_ca import Authority, Flaw
from receipt_actors.sandbox.receipts import SampleReceipt
from receipt_actors.sandbox.signed_transactions import mint_signed

#: Why what has this flaw is refused.
REASONS: Final[Mapping[Flaw, Reason]] = {
    Flaw.ALGORITHM_NONE: Reason.JWS_ALGORITHM,
    Flaw.SWAPPED_PAYLOAD: Reason.JWS_SIGNATURE,
    Flaw.FOREIGN_ROOT: Reason.JWS_FOREIGN_ROOT,
    Flaw.EXPIRED_LEAF: Reason.JWS_EXPIRED_CERTIFICATE,
    Flaw.LEAF_WITHOUT_OID: Reason.JWS_CERTIFICATE,
    Flaw.TWO_CERTIFICATES: Reason.JWS_CHAIN_LENGTH,
    Flaw.FOREIGN_SIGNATURE: Reason.JWS_SIGNATURE,
    Flaw.ALGORITHM_HS256: Reason.JWS_ALGORITHM,
    Flaw.FOREIGN_CHAIN: Reason.JWS_FOREIGN_ROOT,
    Flaw.INTERMEDIATE_WITHOUT_OID: Reason.JWS_CERTIFICATE,
    Flaw.FOUR_CERTIFICATES: Reason.JWS_CHAIN_LENGTH,
    Flaw.NO_CERTIFICATES: Reason.JWS_CHAIN_LENGTH,
    Flaw.GARBLED_CERTIFICATE: Reason.JWS_CERTIFICATE,
}
OVERSIZE_CHARACTERS = 200_000  #: of a field of a signed transaction, which has some hundred in all


class Signer:
    """Signs as the simulated App Store of a key does."""

    def __init__(self, key: bytes) -> None:
        self._authority = Authority(key)
        #: Reasons, and what makes a JWS of a receipt that is to be refused for it.
        self.hostile: Sequence[tuple[Reason, Callable[[SampleReceipt], str]]] = (
            *((reason, partial(self.mint, flaw=flaw)) for flaw, reason in REASONS.items()),
            (Reason.JWS_ENVIRONMENT, partial(self.mint, changes={"environment": "Xcode"})),
            (Reason.JWS_ENVIRONMENT, partial(self.mint, changes={"environment": "LocalTesting"})),
            (Reason.JWS_MALFORMED, partial(self.mint, changes={"storefront": "x" * OVERSIZE_CHARACTERS})),
            (Reason.JWS_SIGNED_DATE, partial(self.mint, changes={"signedDate": "today"})),
            (Reason.JWS_MALFORMED, lambda receipt: self.mint(receipt).rpartition(".")[0]),
            (Reason.JWS_MALFORMED, lambda receipt: self.mint(receipt).replace(".", "..")),
        )

    def mint(
        self, receipt: SampleReceipt, flaw: Flaw | None = None, changes: Mapping[str, object] | None = None
    ) -> str:
        """Sign the one purchase of a receipt."""
        return mint_signed(receipt, authority=self._authority, flaw=flaw, changes=changes)
