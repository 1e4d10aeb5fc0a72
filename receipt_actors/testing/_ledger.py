"""``FakeLedger``: the table of claims, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from receipt_actors.domain.batching import check_claims
from receipt_actors.domain.ports import TAKEN, ClaimOutcome, LedgerItem
from receipt_actors.testing._faults import Fake


class FakeLedger(Fake):
    """See ``domain.ports.Ledger``."""

    operations: ClassVar[frozenset[str]] = frozenset({"claim", "claim_all", "get", "check"})

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[str, LedgerItem] = {}

    # --- what only a test does ---

    @property
    def items(self) -> Mapping[str, LedgerItem]:
        """The claims that stand, by transaction id."""
        with self._changed:
            return dict(self._items)

    def mark_refunded(self, transaction_id: str, at_seconds: float) -> None:
        """Mark a claim as refunded at a UNIX time."""
        with self._changed:
            self._items[transaction_id] = replace(self._items[transaction_id], refunded_at_seconds=at_seconds)

    # --- the port ---

    def claim(self, item: LedgerItem) -> LedgerItem | None:
        """See ``Ledger.claim``."""

        def work() -> LedgerItem | None:
            with self._changed:
                return self._put(item)

        return self._carry_out("claim", work)

    def claim_all(self, items: Sequence[LedgerItem]) -> Sequence[ClaimOutcome]:
        """See ``Ledger.claim_all``."""
        check_claims(items)

        def work(some: Sequence[LedgerItem]) -> Sequence[ClaimOutcome]:
            with self._changed:
                return [None if self._put(item) is None else TAKEN for item in some]

        return self._carry_out_batch("claim_all", items, work)

    def get(self, transaction_id: str) -> LedgerItem | None:
        """See ``Ledger.get``."""

        def work() -> LedgerItem | None:
            with self._changed:
                return self._items.get(transaction_id)

        return self._carry_out("get", work)

    def check(self) -> None:
        """See ``Ledger.check``."""
        self._carry_out("check", lambda: None)

    def _put(self, item: LedgerItem) -> LedgerItem | None:
        standing = self._items.get(item.transaction_id)
        if standing is None:
            self._items[item.transaction_id] = item
        return standing
