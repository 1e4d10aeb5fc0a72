"""``FakeLedger``: the table of claims, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import ClassVar

from receipt_actors.domain.ports import (
    TAKEN,
    WHOLE_PERCENTAGE,
    ClaimOutcome,
    LedgerItem,
    Standing,
    Tombstone,
    check_claims,
)
from receipt_actors.testing._faults import Fake


class FakeLedger(Fake):
    """See ``domain.ports.Ledger``."""

    operations: ClassVar[frozenset[str]] = frozenset(
        {"claim", "claim_all", "get", "mark_refunded", "unmark_refunded", "check"}
    )

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[str, LedgerItem] = {}
        self._tombstones: dict[str, Tombstone] = {}

    # --- what only a test does ---

    @property
    def items(self) -> Mapping[str, LedgerItem]:
        """The claims that stand, by transaction id."""
        with self._changed:
            return dict(self._items)

    @property
    def tombstones(self) -> Mapping[str, Tombstone]:
        """The transactions that were refunded before anybody claimed them, by transaction id."""
        with self._changed:
            return dict(self._tombstones)

    # --- the port ---

    def claim(self, item: LedgerItem) -> Standing | None:
        return self._carry_out("claim", lambda: self._put(item))

    def claim_all(self, items: Sequence[LedgerItem]) -> Sequence[ClaimOutcome]:
        check_claims(items)
        return self._carry_out_batch(
            "claim_all", items, lambda some: [None if self._put(item) is None else TAKEN for item in some]
        )

    def get(self, transaction_id: str) -> Standing | None:
        return self._carry_out("get", lambda: self._standing(transaction_id))

    def mark_refunded(
        self,
        transaction_id: str,
        refunded_at_seconds: float,
        revocation_type: str | None = None,
        revocation_percentage: int | None = None,
    ) -> Standing:
        """See ``Ledger.mark_refunded``."""

        def work() -> Standing:
            standing = self._standing(transaction_id)
            mark = Tombstone(transaction_id, refunded_at_seconds, revocation_type, revocation_percentage)
            if standing is not None and _age(standing) >= _age(mark):
                return standing
            if not isinstance(standing, LedgerItem):
                self._tombstones[transaction_id] = mark
                return mark
            claim = self._items[transaction_id] = replace(
                standing,
                refunded_at_seconds=refunded_at_seconds,
                revocation_type=revocation_type,
                revocation_percentage=revocation_percentage,
            )
            return claim

        return self._carry_out("mark_refunded", work)

    def unmark_refunded(self, transaction_id: str, reversed_at_seconds: float) -> Standing | None:
        def work() -> Standing | None:
            standing = self._standing(transaction_id)
            refunded_at = None if standing is None else standing.refunded_at_seconds
            if refunded_at is not None and refunded_at <= reversed_at_seconds:
                self._tombstones.pop(transaction_id, None)
                if isinstance(standing, LedgerItem):
                    self._items[transaction_id] = replace(
                        standing, refunded_at_seconds=None, revocation_type=None, revocation_percentage=None
                    )
            return self._standing(transaction_id)

        return self._carry_out("unmark_refunded", work)

    def check(self) -> None:
        self._carry_out("check", lambda: None)

    def _standing(self, transaction_id: str) -> Standing | None:
        return self._items.get(transaction_id) or self._tombstones.get(transaction_id)

    def _put(self, item: LedgerItem) -> Standing | None:
        standing = self._standing(item.transaction_id)
        if standing is None:
            self._items[item.transaction_id] = item
        return standing


def _age(marked: Standing) -> tuple[float, float]:
    """What makes one mark later than another; of what has none, before all."""
    if marked.refunded_at_seconds is None:
        return -inf, 0.0
    percentage = marked.revocation_percentage
    return marked.refunded_at_seconds, WHOLE_PERCENTAGE if percentage is None else percentage
