"""``FakeLedger``, ``FakeNotifications`` and ``FakeRoles``: the tables, in memory."""

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
    RoleRecord,
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


class FakeNotifications(Fake):
    """See ``domain.ports.Notifications``. It forgets nothing."""

    operations: ClassVar[frozenset[str]] = frozenset(
        {"is_known", "record", "record_reversal", "reversed_at_seconds", "check"}
    )

    def __init__(self) -> None:
        super().__init__()
        self._recorded: set[str] = set()
        self._reversals: dict[str, float] = {}

    @property
    def recorded(self) -> frozenset[str]:
        """The ids of the notifications that were recorded."""
        with self._changed:
            return frozenset(self._recorded)

    def is_known(self, notification_uuid: str) -> bool:
        return self._carry_out("is_known", lambda: notification_uuid in self._recorded)

    def record(self, notification_uuid: str, now_seconds: float) -> None:
        self._carry_out("record", lambda: self._recorded.add(notification_uuid))

    def record_reversal(self, transaction_id: str, reversed_at_seconds: float, now_seconds: float) -> None:
        def work() -> None:
            known = self._reversals.get(transaction_id, reversed_at_seconds)
            self._reversals[transaction_id] = max(known, reversed_at_seconds)

        self._carry_out("record_reversal", work)

    def reversed_at_seconds(self, transaction_id: str) -> float | None:
        return self._carry_out("reversed_at_seconds", lambda: self._reversals.get(transaction_id))

    def check(self) -> None:
        self._carry_out("check", lambda: None)


class FakeRoles(Fake):
    """See ``domain.ports.RoleTable``."""

    operations: ClassVar[frozenset[str]] = frozenset({"read", "write", "check"})

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[str, RoleRecord] = {}

    def forget(self, group: str) -> None:
        """Delete a record, which only a test does."""
        with self._changed:
            self._records.pop(group, None)

    def standing(self, group: str) -> RoleRecord | None:
        """Look at a record without a call."""
        with self._changed:
            return self._records.get(group)

    def read(self, group: str) -> RoleRecord | None:
        return self._carry_out("read", lambda: self._records.get(group))

    def write(self, group: str, record: RoleRecord, before: int | None = None) -> RoleRecord | None:
        def work() -> RoleRecord | None:
            standing = self._records.get(group)
            if (0 if standing is None else standing.version) != (record.version - 1 if before is None else before):
                return standing
            self._records[group] = record
            return record

        return self._carry_out("write", work)

    def check(self) -> None:
        self._carry_out("check", lambda: None)
